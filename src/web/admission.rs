//! Turns requests away while too many are under way, and gives up those that take too long.
//!
//! What waits for longer than its client does costs as much as what is answered in time, and delays everything behind it. Who is
//! turned away hears so at once, and the others are answered about as soon as always.

use std::{sync::Arc, time::Duration};

use http::Uri;
use tokio::{sync::Semaphore, time};

use super::api::health;
use crate::domain::{Error, Result};

/// What bounds requests. Clones count together.
#[derive(Clone)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Admission {
    /// At most `requests` at a time, each until its answer begins and for no longer than `timeout`.
    pub(super) fn new(requests: usize, timeout: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(requests)), timeout }
    }

    /// Does a request's work, if there is a place for it.
    pub(super) async fn run<T>(&self, uri: &Uri, work: impl Future<Output = T>) -> Result<T> {
        let place = self.places.try_acquire();
        // Whoever asks whether the service runs must not take a busy one for a broken one.
        if place.is_err() && !uri.path().ends_with(health::PATH) {
            return Err(Error::Unavailable(None));
        }
        time::timeout(self.timeout, work).await.map_err(|_| Error::Unavailable(None))
    }
}
