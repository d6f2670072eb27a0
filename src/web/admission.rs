//! Turns requests away while too many are under way, and gives up those that take too long.
//!
//! What waits for longer than its client does costs as much as what is answered in time, and delays everything behind it. Who is
//! turned away hears so at once, and the others are answered about as soon as always. To have them wait for a place instead, be it
//! for 50 ms, was measured (`benches/serve/overload.rs`): those who wait cost so much that nobody was answered in time.

use std::{sync::Arc, time::Duration};

use http::Uri;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};

use super::api::health;
use crate::domain::{Error, Result};

/// What bounds how many requests are under way. Clones count together.
#[derive(Clone)]
pub(super) struct Admission(Arc<Semaphore>);

/// A request's place among those under way, until its answer begins.
pub(super) struct Place<'a>(#[expect(dead_code, reason = "held, not read")] Option<SemaphorePermit<'a>>);

impl Admission {
    /// At most `requests` at a time.
    pub(super) fn new(requests: usize) -> Self {
        Self(Arc::new(Semaphore::new(requests)))
    }

    /// A place for a request, if there is one.
    pub(super) fn place(&self, uri: &Uri) -> Result<Place<'_>> {
        match self.0.try_acquire() {
            Ok(place) => Ok(Place(Some(place))),
            // Whoever asks whether the service runs must not take a busy one for a broken one.
            Err(_) if uri.path().ends_with(health::PATH) => Ok(Place(None)),
            Err(_) => Err(Error::Unavailable(None)),
        }
    }
}

/// How long a request's work may take until its answer begins.
#[derive(Clone, Copy)]
pub(super) struct TimeLimit(pub(super) Duration);

impl TimeLimit {
    /// Does the work, or gives it up.
    pub(super) async fn run<T>(self, work: impl Future<Output = T>) -> Result<T> {
        time::timeout(self.0, work).await.map_err(|_| Error::Unavailable(None))
    }
}
