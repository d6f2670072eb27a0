//! When it is worth to look again: for whoever shows what happens as it happens.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use super::Services;

/// How long to wait for another node's commits, which this process does not hear of.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait at most where every commit is heard of, so that a session that ended is noticed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Tells when something may have happened.
pub struct Updates {
    commits: watch::Receiver<()>,
    ending: watch::Receiver<bool>,
    patience: Duration,
}

impl Updates {
    /// From now on.
    #[must_use]
    pub fn of(services: &Services) -> Self {
        let mut commits = services.store.commits();
        commits.mark_unchanged();
        let patience = if services.store.db().is_shared() { POLL } else { PATIENCE };
        Self { commits, ending: services.ending.subscribe(), patience }
    }

    /// Waits until something may have happened; `false` when the service is about to end.
    pub async fn next(&mut self) -> bool {
        if *self.ending.borrow() {
            return false;
        }
        tokio::select! {
            committed = self.commits.changed() => committed.is_ok(),
            _ = self.ending.changed() => false,
            () = sleep(self.patience) => true,
        }
    }
}
