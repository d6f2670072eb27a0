//! The audit log: reading it, verifying it and keeping its index up to date.

pub mod archive;
pub mod chart;
pub mod names;
pub mod proof;
pub mod views;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use super::{
    Services,
    core::{agent, caller::Caller, policy::Action},
};
use crate::{
    domain::{
        AgentId, Error, Limit, Page, Result, Timestamp,
        audit::{ArchivedRange, Break, ChainVerifier, Filter, Head, Record, Start},
    },
    store::{Db, PooledConn, Store, audit},
};

/// Records per read during a verification.
const BATCH: i64 = 1_000;
/// Maximum time of an attempt to index records, so that a database that no longer responds does not block it forever.
const INDEX_TIMEOUT: Duration = Duration::from_mins(2);
/// Maximum time to wait for more records.
const INDEX_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two batches.
const INDEX_PAUSE: Duration = Duration::from_millis(20);
/// Pause after a failure.
const INDEX_RETRY: Duration = Duration::from_secs(10);

/// Returns a page of records, newest first.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn list(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    start: Start,
    limit: Limit,
) -> Result<Page<Record, i64>> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::list(&services.store, filter, start, limit).await
}

/// Returns a page of the records that have the agent as actor or subject, newest first. Works for deleted agents too.
///
/// # Errors
/// [`crate::domain::Error::NotFound`] for an agent that does not exist and has no records.
pub async fn of_agent(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    start: Start,
    limit: Limit,
) -> Result<Page<Record, i64>> {
    services.permit(caller, Action::ReadAudit).await?;
    let filter = Filter { involving: Some(agent), ..Filter::default() };
    let page = audit::list(&services.store, &filter, start, limit).await?;
    if page.items.is_empty() {
        agent::find(services.store.read().await?.conn(), agent).await?;
    }
    Ok(page)
}

/// The result of a verification of the whole chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The last archived record, where the verification starts.
    pub start: Head,
    /// The last valid record.
    pub head: Head,
    /// The first invalid record.
    pub broken: Option<Break>,
}

/// Verifies the whole chain from the end of the last archive to the recorded head.
///
/// # Errors
/// When the database fails.
pub async fn verify(db: &Db) -> Result<Verification> {
    let mut read = db.read().await?;
    loop {
        let start = audit::start(read.conn()).await?;
        // Read after the start, so that it includes the record of the archive that moved the start.
        let recorded = audit::head(read.conn()).await?;
        let mut walk = ChainVerifier::from(start);
        let outcome = verify_to(&mut walk, recorded, &mut read).await?;
        let broken = outcome.and_then(|()| walk.check_start()).err();
        // If the start has moved, missing records may have been archived in the meantime.
        if broken.is_none() || audit::start(read.conn()).await? == start {
            return Ok(Verification { start, head: walk.head(), broken });
        }
    }
}

async fn verify_to(walk: &mut ChainVerifier, recorded: Head, read: &mut PooledConn) -> Result<Result<(), Break>> {
    // From the lowest possible position, so that rows inserted before the first record are found.
    let mut from = i64::MIN;
    while walk.head().seq < recorded.seq || from == i64::MIN {
        let records = audit::chain(read.conn(), from, BATCH).await?;
        let records =
            records.iter().take_while(|record| record.as_ref().is_none_or(|record| record.seq <= recorded.seq));
        let before = walk.head();
        for record in records {
            let unreadable = Break { seq: walk.head().seq + 1, reason: "the record was changed and cannot be read" };
            if let Err(broken) = record.as_ref().ok_or(unreadable).and_then(|record| walk.check(record)) {
                return Ok(Err(broken));
            }
        }
        from = walk.head().seq + 1;
        if walk.head() == before && walk.head().seq < recorded.seq {
            return Ok(Err(Break { seq: from, reason: "the record is missing" }));
        }
    }
    let head = walk.head();
    if head.hash != recorded.hash {
        return Ok(Err(Break { seq: head.seq, reason: "the chain does not end with the recorded head" }));
    }
    let beyond = audit::chain(read.conn(), recorded.seq.saturating_add(1), 1).await?;
    if !beyond.is_empty() && audit::head(read.conn()).await? == recorded {
        return Ok(Err(Break { seq: recorded.seq + 1, reason: "the record is after the recorded head" }));
    }
    Ok(Ok(()))
}

/// Returns the record at a position in the chain.
///
/// # Errors
/// [`crate::domain::Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, seq: i64) -> Result<Record> {
    services.permit(caller, Action::ReadAudit).await?;
    let found = audit::find(services.store.read().await?.conn(), seq).await?;
    found.ok_or(crate::domain::Error::NotFound("Audit record"))
}

/// Returns the records after a position in the chain that match a filter, oldest first.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn after(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    seq: i64,
    limit: Limit,
) -> Result<Vec<Record>> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::after(&services.store, filter, seq, limit).await
}

/// Returns the last record's position and hash.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn head(services: &Services, caller: &Caller) -> Result<Head> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::head(services.store.read().await?.conn()).await
}

/// Returns the file that a record was moved to; `None` if it is in the database, or does not exist.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn archived(services: &Services, caller: &Caller, seq: i64) -> Result<Option<ArchivedRange>> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::archives::holding(services.store.read().await?.conn(), seq).await
}

/// Returns the last file that records were moved to; `None` if none were.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn last_archived(services: &Services, caller: &Caller) -> Result<Option<ArchivedRange>> {
    archived(services, caller, i64::MAX).await
}

/// The state of the background verification in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// None was started yet.
    #[default]
    Never,
    /// A verification is running.
    Running {
        /// When it started.
        since: Timestamp,
    },
    /// The last verification is complete.
    Done {
        /// When it ended.
        at: Timestamp,
        /// The result.
        verification: Verification,
    },
    /// The last verification failed because of the database.
    Failed {
        /// When it failed.
        at: Timestamp,
    },
}

/// Verifies the whole chain in the background, one verification at a time. All clones share the state.
#[derive(Clone, Debug)]
pub struct Checker(Arc<watch::Sender<Check>>);

impl Default for Checker {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Check::Never)))
    }
}

impl Checker {
    /// Returns the current state.
    #[must_use]
    pub fn state(&self) -> Check {
        *self.0.borrow()
    }
}

/// Starts a background verification, unless one is running.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn begin_check(services: &Arc<Services>, caller: &Caller) -> Result<()> {
    services.permit(caller, Action::VerifyAudit).await?;
    let since = services.env.now();
    let has_started = services.checker.0.send_if_modified(|state| {
        let is_idle = !matches!(state, Check::Running { .. });
        if is_idle {
            *state = Check::Running { since };
        }
        is_idle
    });
    if has_started {
        let services = services.clone();
        tokio::spawn(async move {
            let mut shutdown = services.ending.subscribe();
            let result = tokio::select! {
                result = verify(services.store.db()) => result,
                _ = shutdown.wait_for(|is_ending| *is_ending) => return,
            };
            let at = services.env.now();
            services.checker.0.send_replace(match result {
                Ok(verification) => Check::Done { at, verification },
                Err(error) => {
                    tracing::warn!(error = error.with_causes(), "cannot read the whole audit log to verify it");
                    Check::Failed { at }
                }
            });
        });
    }
    Ok(())
}

/// Keeps the index of the audit log up to date. Does not return. Filters read more records while the index is behind,
/// but return the same. Logs the first of several failures in a row, and the next success.
pub async fn keep_indexed(store: Store) {
    let mut has_failed = false;
    loop {
        let filled = time::timeout(INDEX_TIMEOUT, audit::index::fill(&store)).await;
        let filled = filled.unwrap_or_else(|elapsed| Err(Error::Unavailable(Some(elapsed.into()))));
        if filled.is_ok() && std::mem::take(&mut has_failed) {
            tracing::info!("indexing audit records again");
        }
        match filled {
            Ok(true) => time::sleep(INDEX_PAUSE).await,
            Ok(false) => time::sleep(INDEX_INTERVAL).await,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(error = error.with_causes(), "cannot index audit records");
                }
                time::sleep(INDEX_RETRY).await;
            }
        }
    }
}
