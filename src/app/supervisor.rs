//! Tells the supervisor of the process, such as systemd, how the service is doing (`sd_notify`). Does nothing if no
//! supervisor asks for it, that is, if `NOTIFY_SOCKET` is not set.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::service::{Services, health};

/// How often the time limit of the start is extended.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// How long each extension lasts.
const EXTEND_BY: Duration = Duration::from_secs(30);
/// Time that closing the database may take after the requests in progress have finished.
const CLOSING: Duration = Duration::from_secs(30);

/// Reports that the service starts. Until the result is dropped, extends the time limit of the start, because a
/// migration of a large database must not be interrupted.
#[must_use]
pub fn starting() -> JoinSet<()> {
    notify(&[NotifyState::Status("Opening the database")]);
    let mut extending = JoinSet::new();
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        extending.spawn(async {
            let mut ticks = interval(EXTEND_EVERY);
            loop {
                ticks.tick().await;
                notify(&[NotifyState::ExtendTimeoutUsec(micros(EXTEND_BY))]);
            }
        });
    }
    extending
}

/// Reports that the service serves requests.
pub(super) fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("Serving")]);
}

/// Reports that the service stops, and how long that may take.
pub(super) fn stopping(drain: Duration) {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("Finishing the requests in progress"),
        NotifyState::ExtendTimeoutUsec(micros(drain.saturating_add(CLOSING))),
    ]);
}

/// Reports at half of the interval that the supervisor asks for, if it does, that the service can still work: that the
/// database writer has answered. The answer may be an error, because restarting the service does not repair a database.
pub(super) fn start_watchdog(services: &Arc<Services>, tasks: &mut JoinSet<()>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    let services = services.clone();
    tasks.spawn(async move {
        let mut ticks = interval(limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let _ = health::rehearse_audit_in_turn(&services).await;
            notify(&[NotifyState::Watchdog]);
        }
    });
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the supervisor at NOTIFY_SOCKET");
    }
}
