//! When it is worth to look again: for whoever shows what happens as it happens.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::service::Services;

/// How long to wait for another node's commits, which this process does not hear of.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait at most where every commit is heard of, so that a session that ended is noticed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one look is enough where commits come one after another: each look costs some reads, and some looks a write.
const PACE: Duration = Duration::from_millis(250);

/// Tells when something may have happened.
pub struct Updates {
    commits: watch::Receiver<()>,
    ending: watch::Receiver<bool>,
    patience: Duration,
    /// When it is worth to look next.
    next: Instant,
}

impl Updates {
    /// From now on.
    #[must_use]
    pub fn of(services: &Services) -> Self {
        let mut commits = services.store.commits();
        commits.mark_unchanged();
        let patience = if services.store.db().is_shared() { POLL } else { PATIENCE };
        Self { commits, ending: services.ending.subscribe(), patience, next: Instant::now() }
    }

    /// Waits until something may have happened; `false` when the service is about to end.
    pub async fn next(&mut self) -> bool {
        if *self.ending.borrow() {
            return false;
        }
        let commits = &mut self.commits;
        let (next, patience) = (self.next, self.patience);
        let something = async {
            sleep_until(next).await;
            tokio::select! {
                committed = commits.changed() => committed.is_ok(),
                () = sleep(patience) => true,
            }
        };
        let is_worth_it = tokio::select! {
            is_worth_it = something => is_worth_it,
            _ = self.ending.changed() => false,
        };
        self.next = Instant::now() + PACE;
        is_worth_it
    }
}
