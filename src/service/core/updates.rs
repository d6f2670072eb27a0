//! Notifications for pages that update while they are open.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::service::Services;

/// Maximum time between two updates on a shared database, because this process is not notified of other nodes' commits.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time between two updates otherwise, so that the end of a session is noticed.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);
/// Minimum time between two updates, because each of them costs reads and sometimes a write.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Signals that data may have changed.
pub struct Updates {
    commits: watch::Receiver<()>,
    shutdown: watch::Receiver<bool>,
    max_interval: Duration,
    /// Earliest time of the next update.
    earliest: Instant,
}

impl Updates {
    /// Starts to watch for changes.
    #[must_use]
    pub fn of(services: &Services) -> Self {
        let mut commits = services.store.commits();
        commits.mark_unchanged();
        let max_interval = if services.store.db().is_shared() { SHARED_INTERVAL } else { IDLE_INTERVAL };
        Self { commits, shutdown: services.ending.subscribe(), max_interval, earliest: Instant::now() }
    }

    /// Waits until data may have changed. Returns false when the service shuts down.
    pub async fn next(&mut self) -> bool {
        if *self.shutdown.borrow() {
            return false;
        }
        let commits = &mut self.commits;
        let (earliest, max_interval) = (self.earliest, self.max_interval);
        let change = async {
            sleep_until(earliest).await;
            tokio::select! {
                committed = commits.changed() => committed.is_ok(),
                () = sleep(max_interval) => true,
            }
        };
        let may_have_changed = tokio::select! {
            may_have_changed = change => may_have_changed,
            _ = self.shutdown.changed() => false,
        };
        self.earliest = Instant::now() + MIN_INTERVAL;
        may_have_changed
    }
}
