//! Authentications per hour. They are counted as they happen, so that no page has to read the audit log for them.

use std::collections::BTreeMap;

use crate::{
    domain::{Result, Timestamp},
    store::{
        db::{Conn, dispatch},
        writer::usage::HOUR,
    },
};

/// The authentications in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// The start of the hour.
    pub starts_at: Timestamp,
    /// Access tokens issued.
    pub issued: i64,
    /// Rejected credentials.
    pub refused: i64,
}

/// Returns the last `hours` hours up to `now`, oldest first, including hours without authentications.
///
/// # Errors
/// If the database fails.
pub async fn recent(conn: Conn<'_>, now: Timestamp, hours: i64) -> Result<Vec<Hour>> {
    const SQL: &str = "SELECT hour, issued, refused FROM activity WHERE hour > $1 AND hour <= $2";
    let last = now.as_micros().div_euclid(HOUR);
    let rows: Vec<(i64, i64, i64)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(last - hours).bind(last).fetch_all(c).await)?;
    let found: BTreeMap<_, _> = rows.into_iter().map(|(hour, issued, refused)| (hour, (issued, refused))).collect();
    Ok((last - hours + 1..=last)
        .map(|hour| {
            let (issued, refused) = found.get(&hour).copied().unwrap_or_default();
            Hour { starts_at: Timestamp::from_micros(hour * HOUR), issued, refused }
        })
        .collect())
}

/// Returns true if an access token was ever issued.
///
/// # Errors
/// If the database fails.
pub async fn any_issued(conn: Conn<'_>) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT hour FROM activity WHERE issued > 0 LIMIT 1) AS hours";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await)?;
    Ok(count > 0)
}
