//! Counts of audit records by time, for charts.

pub use crate::store::audit::chart::{Count, Counts};

use crate::{
    domain::{
        Result,
        audit::{Buckets, Filter},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::audit::chart,
};

/// The number of records that match a filter, by time.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The periods.
    pub buckets: Buckets,
    /// The number of records in each period.
    pub counts: Counts,
}

/// Counts the records that match a filter. Without a start, the chart begins with the oldest record; it ends now at the latest.
/// Returns `None` if that period is empty.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn of(services: &Services, caller: &Caller, filter: &Filter) -> Result<Option<Chart>> {
    services.permit(caller, Action::ReadAudit).await?;
    let now = services.env.now();
    let from = match filter.from {
        Some(from) => Some(from),
        None => chart::oldest(services.store.read().await?.conn()).await?,
    };
    let until = filter.until.map_or(now, |until| until.min(now));
    let Some(buckets) = from.and_then(|from| Buckets::of(from, until)) else { return Ok(None) };
    let counts = chart::count(&services.store, filter, &buckets).await?;
    Ok(Some(Chart { buckets, counts }))
}
