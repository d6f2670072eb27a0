//! The tasks that run beside the requests.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};

use super::{clock_watch, supervisor};
use crate::{
    domain::Error,
    service::{Services, audit, backup::schedule, master_key, people::sessions, tokens::signing_keys},
    web::routes::RateLimits,
};

/// Interval of recording the counts of suppressed refusals.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(10);
/// Interval of deleting ended sessions.
const SESSIONS_INTERVAL: Duration = Duration::from_mins(5);
/// Interval of signing key maintenance. Short enough that every node knows a new key long before the key signs.
const SIGNING_KEYS_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of loading changes of the master key.
const MASTER_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// Time limit of one run of these jobs.
const JOB_TIMEOUT: Duration = Duration::from_mins(1);
/// Interval of discarding inactive clients from the rate limits.
const RATE_LIMITS_INTERVAL: Duration = Duration::from_mins(1);

/// Starts the background tasks. They stop when the returned set is dropped.
pub(super) fn start(services: &Arc<Services>, limits: &RateLimits) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if services.store.db().is_shared() {
        let follower = services.clone();
        tasks.spawn(async move { follower.principals.follow(&follower.store).await });
        let follower = services.clone();
        tasks.spawn(async move { signing_keys::follow(&follower).await });
    }
    tasks.spawn(run_every(
        services.clone(),
        REFUSALS_INTERVAL,
        "cannot record the counts of suppressed refusals",
        |services| async move { services.record_suppressed(false).await },
    ));
    tasks.spawn(run_every(
        services.clone(),
        SESSIONS_INTERVAL,
        "cannot delete ended sessions",
        |services| async move { sessions::sweep(&services).await },
    ));
    tasks.spawn(run_every(
        services.clone(),
        SIGNING_KEYS_INTERVAL,
        "cannot maintain the signing keys",
        |services| async move { signing_keys::maintain(&services).await },
    ));
    tasks.spawn(run_every(
        services.clone(),
        MASTER_KEY_INTERVAL,
        "cannot load the current master key",
        |services| async move { master_key::maintain(&services).await },
    ));
    tasks.spawn(audit::keep_indexed(services.store.clone()));
    tasks.spawn(clock_watch::watch(services.clone()));
    supervisor::start_watchdog(services, &mut tasks);
    if services.settings.backups.is_some() {
        tasks.spawn(schedule::follow(services.clone()));
    }
    let limits = limits.clone();
    tasks.spawn(async move {
        let mut ticks = interval(RATE_LIMITS_INTERVAL);
        loop {
            ticks.tick().await;
            limits.auth.retain_recent();
            limits.api.retain_recent();
        }
    });
    tasks
}

/// Runs a job periodically, starting now. A run that exceeds [`JOB_TIMEOUT`] is cancelled, so that a database that
/// stops responding does not stop the job for good.
async fn run_every<F>(
    services: Arc<Services>,
    period: Duration,
    failure: &'static str,
    job: impl Fn(Arc<Services>) -> F,
) where
    F: Future<Output = Result<(), Error>>,
{
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let outcome = timeout(JOB_TIMEOUT, job(services.clone())).await;
        if let Err(error) = outcome.unwrap_or_else(|elapsed| Err(Error::Unavailable(Some(elapsed.into())))) {
            tracing::warn!(error = error.with_causes(), "{failure}");
        }
    }
}
