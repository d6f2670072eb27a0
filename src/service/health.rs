//! Readiness: whether this node can do its work now.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future;
use tokio::{sync::watch, time::timeout};

use super::{Services, tokens::signing_keys};
use crate::{
    domain::{Error, Result},
    store::{audit::rehearsal::rehearse, db::readiness},
};

/// How long a result is shared, so that many probes cost as much as one.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Time limit of each check.
const LIMIT: Duration = Duration::from_secs(3);

/// One part of the readiness check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Why it fails, for the operator; `None` if it does not.
    pub failure: Option<String>,
}

/// The result of a readiness check.
#[derive(Clone, Debug)]
pub struct Report {
    /// All checks.
    pub checks: Vec<Check>,
    finished: Instant,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        Self { checks, finished: Instant::now() }
    }

    /// A report with one check, which fails.
    #[must_use]
    pub fn failing(name: &'static str, why: &str) -> Self {
        Self::new(vec![Check { name, failure: Some(why.to_owned()) }])
    }

    /// Returns true if no check fails.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.failing_checks().next().is_none()
    }

    fn failing_checks(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.checks.iter().filter_map(|check| Some((check.name, check.failure.as_deref()?)))
    }
}

type Running = watch::Receiver<Option<Arc<Report>>>;

/// The latest readiness check. All clones share it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Option<Running>>>);

impl Readiness {
    /// Joins the latest check, or starts another one if it has ended too long ago. The check does not end with the
    /// request that started it, so clients that disconnect at once do not start another check each.
    fn join(&self, services: &Arc<Services>) -> Running {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &*latest {
            Some(latest) if is_usable(latest) => return latest.clone(),
            Some(latest) => latest.borrow().clone(),
            None => None,
        };
        let (sender, running) = watch::channel(None);
        let services = services.clone();
        tokio::spawn(async move {
            let report = check(&services).await;
            log_change(before.as_deref(), &report);
            sender.send_replace(Some(Arc::new(report)));
        });
        *latest = Some(running.clone());
        running
    }
}

/// Returns true if the check is still running or has just ended.
fn is_usable(check: &Running) -> bool {
    match &*check.borrow() {
        Some(report) => report.finished.elapsed() < SHARED_FOR,
        None => check.has_changed().is_ok(),
    }
}

/// Checks whether this node can do its work: write an audit record, on the schema that it knows, with the master key
/// that sealed the signing keys. One check runs at a time.
pub async fn readiness(services: &Arc<Services>) -> Arc<Report> {
    if *services.ending.borrow() {
        return Arc::new(Report::failing("shutdown", "the service is shutting down"));
    }
    let mut running = services.readiness.join(services);
    match running.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(report)) => report.clone(),
        Ok(None) | Err(_) => Arc::new(Report::failing("readiness", "the check was aborted")),
    }
}

async fn check(services: &Services) -> Report {
    let (audit_log, migrations, master_key) = future::join3(
        limited("audit_log", async { rehearse_audit(services).await.map(|()| None) }),
        limited("migrations", async { readiness::schema_problem(services.store.read().await?.conn()).await }),
        limited("master_key", async {
            let is_right = signing_keys::are_readable(services).await?;
            Ok((!is_right).then(|| "the master key does not decrypt the signing keys in the database".to_owned()))
        }),
    )
    .await;
    Report::new(vec![audit_log, migrations, master_key])
}

/// Writes an audit record and takes it back. Returns an error, possibly late, if that is not possible.
///
/// # Errors
/// If no audit record can be written.
pub async fn rehearse_audit(services: &Services) -> Result<()> {
    let (id, at) = (services.env.uuid(), services.env.now());
    services.store.write(move |tx| Box::pin(rehearse(tx, id, at))).await
}

/// Does the same, and waits for a place if the queue of the writer is full: a writer that is stuck has not answered.
///
/// # Errors
/// See [`rehearse_audit`].
pub async fn rehearse_audit_in_turn(services: &Services) -> Result<()> {
    let (id, at) = (services.env.uuid(), services.env.now());
    services.store.write_in_turn(move |tx| Box::pin(rehearse(tx, id, at))).await
}

async fn limited(name: &'static str, check: impl Future<Output = Result<Option<String>>>) -> Check {
    let failure = match timeout(LIMIT, check).await {
        Ok(Ok(failure)) => failure,
        Ok(Err(Error::Unavailable(None))) => Some("the database did not commit; the log says why".to_owned()),
        Ok(Err(error)) => Some(error.with_causes()),
        Err(_) => Some(format!("timed out after {} s", LIMIT.as_secs())),
    };
    Check { name, failure }
}

/// Logs when the node becomes ready or not ready, or fails for another check than before.
fn log_change(before: Option<&Report>, now: &Report) {
    let names = |report: &Report| report.failing_checks().map(|(name, _)| name).collect::<Vec<_>>();
    let (before, failing) = (before.map(names).unwrap_or_default(), names(now));
    if failing.is_empty() && !before.is_empty() {
        tracing::info!("ready again");
    }
    if failing != before {
        for (check, reason) in now.failing_checks() {
            tracing::warn!(check, reason, "not ready");
        }
    }
}
