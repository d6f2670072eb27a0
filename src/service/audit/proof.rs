//! One record among others: its place in the hash chain, and the records of the same request.

use std::time::Duration;

use super::Check;
use crate::{
    domain::{
        Limit, Result,
        audit::{Filter, Record, Start},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::audit,
};

/// How far apart the records of a request are at most. Clients may use an ID again later.
const REQUEST: Duration = Duration::from_hours(1);

/// What can be said about the integrity of a record without reading the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// True if the record matches its hash.
    pub is_intact: bool,
    /// True if it continues from the record before it; `None` if that record was archived or is missing.
    pub follows: Option<bool>,
    /// True if the next record continues from it; `None` if there is none yet.
    pub is_followed: Option<bool>,
    /// True if the verification of the whole chain, since this process started, included it and found nothing wrong.
    pub is_verified: bool,
}

/// Checks a record and its neighbours.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn of(services: &Services, caller: &Caller, record: &Record) -> Result<Proof> {
    services.permit(caller, Action::ReadAudit).await?;
    let mut read = services.store.read().await?;
    let start = audit::start(read.conn()).await?;
    let before = if record.seq == start.seq + 1 {
        Some(start.hash)
    } else {
        audit::find(read.conn(), record.seq - 1).await?.map(|before| before.hash)
    };
    let after = audit::find(read.conn(), record.seq + 1).await?;
    let is_verified = match services.checker.state() {
        Check::Done { verification, .. } => verification.broken.is_none() && record.seq <= verification.head.seq,
        Check::Never | Check::Running { .. } | Check::Failed { .. } => false,
    };
    Ok(Proof {
        is_intact: record.expected_hash() == record.hash,
        follows: before.map(|hash| hash == record.prev_hash),
        is_followed: after.map(|after| after.prev_hash == record.hash),
        is_verified,
    })
}

/// Returns the records of the same request, newest first. The record itself is one of them.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn same_request(services: &Services, caller: &Caller, record: &Record, limit: Limit) -> Result<Vec<Record>> {
    services.permit(caller, Action::ReadAudit).await?;
    let Some(request) = record.request_id.clone() else { return Ok(Vec::new()) };
    let (from, until) = (record.at.minus(REQUEST), record.at.plus(REQUEST));
    let filter = Filter { request: Some(request), from: Some(from), until: Some(until), ..Filter::default() };
    Ok(audit::list(&services.store, &filter, Start::Before(i64::MAX), limit).await?.items)
}

/// Returns the positions of the next newer and the next older record that match a filter.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn neighbours(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    seq: i64,
) -> Result<(Option<i64>, Option<i64>)> {
    services.permit(caller, Action::ReadAudit).await?;
    let one = Limit::of(1);
    let newer = audit::after(&services.store, filter, seq, one).await?;
    let older = audit::list(&services.store, filter, Start::Before(seq), one).await?;
    Ok((newer.first().map(|record| record.seq), older.items.first().map(|record| record.seq)))
}
