//! Bounds the number of requests in progress and rejects the rest at once, which keeps the service responsive under
//! overload.

use http::Uri;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::arrival::Arrived;
use crate::domain::{Error, Result};

/// The fraction of requests in progress that may still be receiving their bodies. Without it, slow uploads could occupy
/// every place.
const PARTIAL_FRACTION: usize = 16;

/// The limits on requests in progress.
pub(in crate::web) struct Admission {
    requests: Semaphore,
    /// Also taken by requests whose bodies have not arrived completely.
    partial: Semaphore,
    /// Paths without a limit: a health check must not mistake a busy service for a broken one.
    health_paths: Vec<String>,
}

/// A request's place among those in progress, held until its response starts.
#[derive(Default)]
pub(in crate::web) struct Place<'a> {
    _request: Option<SemaphorePermit<'a>>,
    _partial: Option<SemaphorePermit<'a>>,
}

impl Admission {
    /// Admits `requests` at a time, not counting those to `health_paths`.
    pub(in crate::web) fn new(requests: usize, health_paths: Vec<String>) -> Self {
        let partial = requests.div_ceil(PARTIAL_FRACTION);
        Self { requests: Semaphore::new(requests), partial: Semaphore::new(partial), health_paths }
    }

    /// Returns true for the paths of health checks.
    pub(in crate::web) fn is_exempt(&self, uri: &Uri) -> bool {
        self.health_paths.iter().any(|path| path == uri.path())
    }

    /// Returns a place for a request.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if all places are taken.
    pub(in crate::web) fn admit(&self, uri: &Uri, arrived: Arrived) -> Result<Place<'_>> {
        if self.is_exempt(uri) {
            return Ok(Place::default());
        }
        let partial = match arrived {
            Arrived::Whole => None,
            Arrived::Partial => Some(take_from(&self.partial)?),
        };
        Ok(Place { _request: Some(take_from(&self.requests)?), _partial: partial })
    }
}

fn take_from(places: &Semaphore) -> Result<SemaphorePermit<'_>> {
    places.try_acquire().map_err(|_| Error::Unavailable(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_requests_are_rejected_except_health_checks() {
        let admission = Admission::new(32, vec!["/api/v1/_health".to_owned()]);
        let admit = |path| admission.admit(&Uri::from_static(path), Arrived::Whole);
        let mut in_progress: Vec<_> = (0..32).map(|_| admit("/agents").unwrap()).collect();
        assert!(admit("/agents").is_err());
        assert!(admit("/agents/_health").is_err());
        assert!(admit("/api/v1/_health").is_ok());
        in_progress.pop();
        assert!(admit("/agents").is_ok());
    }

    #[test]
    fn partial_requests_take_a_sixteenth_of_the_places() {
        let admission = Admission::new(32, Vec::new());
        let admit = |arrived| admission.admit(&Uri::from_static("/agents"), arrived);
        let mut uploads: Vec<_> = (0..2).map(|_| admit(Arrived::Partial).unwrap()).collect();
        assert!(admit(Arrived::Partial).is_err());
        assert!(admit(Arrived::Whole).is_ok());
        uploads.pop();
        assert!(admit(Arrived::Partial).is_ok());
    }
}
