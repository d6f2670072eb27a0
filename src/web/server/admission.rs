//! Turns requests away while too many are under way, and gives up those that take too long.
//!
//! What waits for longer than its client does costs as much as what is answered in time, and delays everything behind it. Who is
//! turned away hears so at once, and the others are answered about as soon as always.
//!
//! Many that come at once are soon done, and find their places. Where more are turned away than are taken up, to say no is most of
//! the work, and what is taken up competes with it: then only a part of the places is given (`benches/serve/overload.rs` shows
//! what for).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Uri;
use tokio::time;

use super::arrival::Arrived;
use crate::domain::{Error, Result};

/// For how long it is counted who was turned away.
const WINDOW: Duration = Duration::from_millis(100);
/// The part of the places that is given while most are turned away: enough for a few batches of records at a time. Requests whose
/// bodies have not arrived get no more of them at any time.
const PART: usize = 16;

/// What bounds how many requests are under way.
pub(in crate::web) struct Admission {
    places: Arc<Mutex<Places>>,
    /// What is always taken up: whoever asks whether the service runs must not take a busy one for a broken one.
    health_paths: Vec<String>,
}

/// A request's place among those under way, until its answer begins.
pub(in crate::web) struct Place {
    places: Arc<Mutex<Places>>,
    arrived: Arrived,
}

struct Places {
    most: usize,
    taken: usize,
    /// How many of them by requests of which only a part has arrived.
    taken_by_begun: usize,
    window: Window,
    is_overrun: bool,
}

/// What happened since a moment.
struct Window {
    since: Instant,
    taken_up: usize,
    turned_away: usize,
}

impl Admission {
    /// At most `requests` at a time, but for those to `health_paths`.
    pub(in crate::web) fn new(requests: usize, health_paths: Vec<String>) -> Self {
        let window = Window::beginning(Instant::now());
        let places = Places { most: requests, taken: 0, taken_by_begun: 0, window, is_overrun: false };
        Self { places: Arc::new(Mutex::new(places)), health_paths }
    }

    /// A place for a request that came at `now`, if there is one.
    pub(in crate::web) fn place(&self, uri: &Uri, arrived: Arrived, now: Instant) -> Result<Place> {
        let is_always_taken_up = self.health_paths.iter().any(|path| path == uri.path());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.has_one_for(arrived, now) || is_always_taken_up {
            places.taken += 1;
            places.taken_by_begun += usize::from(arrived == Arrived::Begun);
            drop(places);
            return Ok(Place { places: self.places.clone(), arrived });
        }
        Err(Error::Unavailable(None))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken -= 1;
        places.taken_by_begun -= usize::from(self.arrived == Arrived::Begun);
    }
}

impl Places {
    /// Whether one is left for a request of which so much has arrived.
    fn has_one_for(&mut self, arrived: Arrived, now: Instant) -> bool {
        let part = self.most.div_ceil(PART);
        if arrived == Arrived::Begun && self.taken_by_begun >= part {
            return false;
        }
        let age = now.saturating_duration_since(self.window.since);
        if age >= WINDOW {
            // What happened long ago says nothing of now.
            self.is_overrun = age < 2 * WINDOW && self.window.turned_away > self.window.taken_up;
            self.window = Window::beginning(now);
        }
        let given = if self.is_overrun { part } else { self.most };
        let is_left = self.taken < given;
        if is_left {
            self.window.taken_up += 1;
        } else {
            self.window.turned_away += 1;
        }
        is_left
    }
}

impl Window {
    const fn beginning(now: Instant) -> Self {
        Self { since: now, taken_up: 0, turned_away: 0 }
    }
}

/// How long a request's work may take until its answer begins.
#[derive(Clone, Copy)]
pub(in crate::web) struct TimeLimit(pub(in crate::web) Duration);

impl TimeLimit {
    /// Does the work, or gives it up.
    pub(in crate::web) async fn run<T>(self, work: impl Future<Output = T>) -> Result<T> {
        time::timeout(self.0, work).await.map_err(|_| Error::Unavailable(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        Admission::new(32, vec!["/api/v1/_health".to_owned()])
    }

    /// How many of `requests` at the same moment are taken up; they stay under way.
    fn taken_up(admission: &Admission, now: Instant, requests: usize, under_way: &mut Vec<Place>) -> usize {
        let before = under_way.len();
        under_way.extend(
            (0..requests).filter_map(|_| admission.place(&Uri::from_static("/agents"), Arrived::Whole, now).ok()),
        );
        under_way.len() - before
    }

    #[test]
    fn many_at_once_find_their_places_and_give_them_back() {
        let (admission, now, mut under_way) = (admission(), Instant::now(), Vec::new());
        assert_eq!(taken_up(&admission, now, 70, &mut under_way), 32);
        assert!(admission.place(&Uri::from_static("/api/v1/_health"), Arrived::Whole, now).is_ok());
        assert!(admission.place(&Uri::from_static("/agents/_health"), Arrived::Whole, now).is_err());
        under_way.truncate(5);
        assert_eq!(taken_up(&admission, now, 70, &mut under_way), 27);
        under_way.clear();
        // However many were turned away then.
        assert_eq!(taken_up(&admission, now + 2 * WINDOW, 70, &mut under_way), 32);
    }

    #[test]
    fn while_most_are_turned_away_few_are_taken_up() {
        let (admission, start, mut under_way) = (admission(), Instant::now(), Vec::new());
        let moments = [0, 100, 200, 300].map(|millis| start + Duration::from_millis(millis));
        let taken_up = moments.map(|now| {
            under_way.clear();
            taken_up(&admission, now, 70, &mut under_way)
        });
        assert_eq!(taken_up, [32, 2, 2, 2]);
    }

    #[test]
    fn once_most_are_taken_up_all_places_are_given_again() {
        let (admission, start, mut under_way) = (admission(), Instant::now(), Vec::new());
        let rush = [(0, 70, 32), (100, 70, 2), (200, 3, 2), (300, 60, 32), (400, 60, 32)];
        for (millis, requests, expected) in rush {
            under_way.clear();
            let now = start + Duration::from_millis(millis);
            assert_eq!(taken_up(&admission, now, requests, &mut under_way), expected, "at {millis} ms");
        }
    }
}
