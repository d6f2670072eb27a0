//! Numbers, and links from them to what they count.

use crate::{
    domain::{Timestamp, audit::Bucket},
    service::overview,
    web::console::page::grouped,
};

/// A period of the audit log.
#[derive(Clone, Copy)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    /// The last instant of the period.
    pub(super) until: Timestamp,
}

impl Period {
    pub(super) fn of(buckets: &[Bucket]) -> Self {
        let from = buckets.first().map_or(Timestamp::from_micros(0), |first| first.starts_at);
        let until = buckets.last().map_or(from, Bucket::last_instant);
        Self { from, until }
    }

    /// Returns a link to the records of the period that match these filters.
    pub(super) fn audit(self, filters: &[(&str, &str)]) -> String {
        let (from, until) = (self.from.to_string(), self.until.to_string());
        let pairs: Vec<_> =
            filters.iter().copied().chain([("from", from.as_str()), ("until", until.as_str())]).collect();
        format!("/console/audit?{}", serde_urlencoded::to_string(pairs).unwrap_or_default())
    }
}

/// Formats a count that stops at [`overview::COUNT_MAX`].
pub(in crate::web::console) fn bounded(count: i64) -> String {
    if count >= overview::COUNT_MAX { format!("{}+", grouped(overview::COUNT_MAX)) } else { count.to_string() }
}
