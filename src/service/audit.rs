//! The audit log: read in pages, and proven.

use std::time::Duration;

use super::{Services, caller::Caller, policy::Action};
use crate::{
    domain::{
        AgentId, Limit, Page, Result,
        audit::{Break, Filter, Head, Record, Start},
    },
    store::{Db, Store, agents, audit},
};

/// Records read at a time while the chain is walked.
const STRIDE: i64 = 1_000;
/// How long the index of the log waits for more records, and between two runs of records when many wait.
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
    audit::list(services.store.read().await?.conn(), filter, start, limit).await
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
    let mut read = services.store.read().await?;
    let page = audit::list(read.conn(), &filter, start, limit).await?;
    if page.items.is_empty() {
        agents::find(read.conn(), agent).await?.ok_or(super::agents::NOT_FOUND)?;
    }
    Ok(page)
}

/// What a walk over the whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The last record that holds.
    pub head: Head,
    /// The first place that does not.
    pub broken: Option<Break>,
}

/// Walks the whole chain and compares its end with the recorded head.
///
/// # Errors
/// When the database fails.
pub async fn verify(db: &Db) -> Result<Verification> {
    let mut read = db.read().await?;
    // Read first: records that a running service appends meanwhile lie beyond it.
    let recorded = audit::head(read.conn()).await?;
    let mut head = Head::EMPTY;
    // From the very first row: one that was slipped in below the first position must not go unseen.
    let mut from = i64::MIN;
    while head.seq < recorded.seq {
        let records = audit::chain(read.conn(), from, STRIDE.min(recorded.seq - head.seq)).await?;
        if records.is_empty() {
            let broken = Break { seq: head.seq + 1, reason: "the record is missing" };
            return Ok(Verification { head, broken: Some(broken) });
        }
        for record in &records {
            let unreadable = Break { seq: head.seq + 1, reason: "the record was altered until it cannot be read" };
            if let Err(broken) = record.as_ref().ok_or(unreadable).and_then(|record| head.check(record)) {
                return Ok(Verification { head, broken: Some(broken) });
            }
        }
        from = head.seq + 1;
    }
    let beyond = audit::chain(read.conn(), recorded.seq.saturating_add(1), 1).await?;
    let current = audit::head(read.conn()).await?;
    let reason = if head.hash != recorded.hash {
        Some((head.seq, "the chain does not end in the recorded head"))
    } else if !beyond.is_empty() && current == recorded {
        Some((recorded.seq + 1, "the record lies beyond the recorded head"))
    } else {
        None
    };
    Ok(Verification { head, broken: reason.map(|(seq, reason)| Break { seq, reason }) })
}

/// Keeps the index of the log up to date, for ever. Until it is, filters read more and show the same.
pub async fn keep_indexed(store: Store) {
    loop {
        let pause = match audit::index::fill(&store).await {
            Ok(true) => INDEX_PAUSE,
            Ok(false) => INDEX_EVERY,
            Err(error) => {
                tracing::warn!(%error, "records could not be indexed");
                INDEX_RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}
