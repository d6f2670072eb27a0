//! The audit log: read in pages, and proven.

pub mod archive;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use super::{
    Services,
    core::{caller::Caller, policy::Action},
};
use crate::{
    domain::{
        ActorId, AgentId, Error, Limit, Page, Result, Timestamp,
        audit::{Break, Filter, Head, Record, Start, Walk},
    },
    store::{Db, PooledConn, Store, agents, audit, people::administrators},
};

/// Records read at a time while the chain is walked.
const STRIDE: i64 = 1_000;
/// How long an attempt to index the log may take: a database that falls silent must not end it for good.
const INDEX_LONGEST: Duration = Duration::from_mins(2);
/// How long it waits for more records, and between two runs of records when many wait.
const INDEX_EVERY: Duration = Duration::from_secs(1);
const INDEX_PAUSE: Duration = Duration::from_millis(20);
/// How long it waits after a failure.
const INDEX_RETRY: Duration = Duration::from_secs(10);

/// A page of records, newest first.
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

/// What an agent did and what happened to it, newest first. Records outlive their agent; an identifier that neither
/// exists nor left a record is unknown.
///
/// # Errors
/// [`crate::domain::Error::NotFound`].
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
        agents::find(services.store.read().await?.conn(), agent).await?.ok_or(super::agents::NOT_FOUND)?;
    }
    Ok(page)
}

/// What a walk over the whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The last record that was archived, and is not looked at here.
    pub start: Head,
    /// The last record that holds.
    pub head: Head,
    /// The first place that does not.
    pub broken: Option<Break>,
}

/// Walks the whole chain from where its last archive ends, and compares its end with the recorded head.
///
/// # Errors
/// When the database fails.
pub async fn verify(db: &Db) -> Result<Verification> {
    let mut read = db.read().await?;
    loop {
        let start = audit::start(read.conn()).await?;
        // Read second: it lies beyond the record of the archive that moved the start, and before what is appended meanwhile.
        let recorded = audit::head(read.conn()).await?;
        let mut walk = Walk::from(start);
        let outcome = walk_to(&mut walk, recorded, &mut read).await?;
        let broken = outcome.and_then(|()| walk.check_start()).err();
        // What was archived meanwhile is not there to be met.
        if broken.is_none() || audit::start(read.conn()).await? == start {
            return Ok(Verification { start, head: walk.head(), broken });
        }
    }
}

async fn walk_to(walk: &mut Walk, recorded: Head, read: &mut PooledConn) -> Result<Result<(), Break>> {
    // From the very first row: one that was slipped in below the first position must not go unseen.
    let mut from = i64::MIN;
    while walk.head().seq < recorded.seq || from == i64::MIN {
        let records = audit::chain(read.conn(), from, STRIDE).await?;
        let records =
            records.iter().take_while(|record| record.as_ref().is_none_or(|record| record.seq <= recorded.seq));
        let before = walk.head();
        for record in records {
            let unreadable =
                Break { seq: walk.head().seq + 1, reason: "the record was altered until it cannot be read" };
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
        return Ok(Err(Break { seq: head.seq, reason: "the chain does not end in the recorded head" }));
    }
    let beyond = audit::chain(read.conn(), recorded.seq.saturating_add(1), 1).await?;
    if !beyond.is_empty() && audit::head(read.conn()).await? == recorded {
        return Ok(Err(Break { seq: recorded.seq + 1, reason: "the record lies beyond the recorded head" }));
    }
    Ok(Ok(()))
}

/// The record at a place in the chain.
///
/// # Errors
/// [`crate::domain::Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, seq: i64) -> Result<Record> {
    services.permit(caller, Action::ReadAudit).await?;
    let found = audit::find(services.store.read().await?.conn(), seq).await?;
    found.ok_or(crate::domain::Error::NotFound("Audit record"))
}

/// Records that a filter shows beyond a place in the chain, oldest first: what a live view has not shown yet.
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

/// Where the chain ends.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn head(services: &Services, caller: &Caller) -> Result<Head> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::head(services.store.read().await?.conn()).await
}

/// The names of those who acted or were acted upon, as far as they still exist.
///
/// # Errors
/// When the database fails.
pub async fn names(services: &Services, caller: &Caller, actors: &[ActorId]) -> Result<HashMap<ActorId, String>> {
    services.permit(caller, Action::ReadAudit).await?;
    let mut read = services.store.read().await?;
    let mut sorted = actors.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let agents_asked: Vec<_> = sorted.iter().map(|id| AgentId(id.0)).collect();
    let found = agents::names(read.conn(), &agents_asked).await?;
    let mut names: HashMap<_, _> = found.into_iter().map(|(id, name)| (id.into(), name.to_string())).collect();
    if sorted.iter().any(|id| !names.contains_key(id)) {
        let people = administrators::list(read.conn()).await?;
        names.extend(people.into_iter().map(|person| (person.id.into(), person.username.to_string())));
    }
    Ok(names)
}

/// What is known of the whole chain in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Nobody asked yet.
    #[default]
    Never,
    /// A walk is under way.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// A walk came to its end.
    Done {
        /// When.
        at: Timestamp,
        /// What it found.
        verification: Verification,
    },
    /// A walk was given up because the database failed.
    Failed {
        /// When.
        at: Timestamp,
    },
}

/// Walks the whole chain in the background, one walk at a time. All clones are one.
#[derive(Clone, Debug)]
pub struct Checker(Arc<watch::Sender<Check>>);

impl Default for Checker {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Check::Never)))
    }
}

impl Checker {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> Check {
        *self.0.borrow()
    }
}

/// Begins to walk the whole chain, unless a walk is under way.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn begin_check(services: &Arc<Services>, caller: &Caller) -> Result<()> {
    services.permit(caller, Action::VerifyAudit).await?;
    let since = services.env.now();
    let begun = services.checker.0.send_if_modified(|state| {
        let idle = !matches!(state, Check::Running { .. });
        if idle {
            *state = Check::Running { since };
        }
        idle
    });
    if begun {
        let services = services.clone();
        tokio::spawn(async move {
            let mut ending = services.ending.subscribe();
            let found = tokio::select! {
                found = verify(services.store.db()) => found,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            let at = services.env.now();
            services.checker.0.send_replace(match found {
                Ok(verification) => Check::Done { at, verification },
                Err(error) => {
                    tracing::warn!(error = error.with_causes(), "the audit log could not be read to its end");
                    Check::Failed { at }
                }
            });
        });
    }
    Ok(())
}

/// Keeps the index of the log up to date, for ever. Until it is, filters read more and show the same. Of a time in which it cannot
/// be kept up to date, the beginning and the end are logged.
pub async fn keep_indexed(store: Store) {
    let mut has_failed = false;
    loop {
        let filled = time::timeout(INDEX_LONGEST, audit::index::fill(&store)).await;
        let filled = filled.unwrap_or_else(|elapsed| Err(Error::Unavailable(Some(elapsed.into()))));
        if filled.is_ok() && std::mem::take(&mut has_failed) {
            tracing::info!("records are indexed again");
        }
        match filled {
            Ok(true) => time::sleep(INDEX_PAUSE).await,
            Ok(false) => time::sleep(INDEX_EVERY).await,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(error = error.with_causes(), "records could not be indexed");
                }
                time::sleep(INDEX_RETRY).await;
            }
        }
    }
}
