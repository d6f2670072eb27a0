//! Authentications by the hour, counted as they are recorded: no page has to walk the audit log for them.

use std::collections::BTreeMap;

use crate::{
    domain::{Result, Timestamp, audit::AuditAction},
    store::db::{Conn, on},
};

/// An hour, in microseconds.
const HOUR: i64 = 3_600 * 1_000_000;

/// What happened in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When it began.
    pub starts_at: Timestamp,
    /// Access tokens issued.
    pub issued: i64,
    /// Credentials refused.
    pub refused: i64,
}

/// What is to be added.
#[derive(Debug, Default)]
pub(in crate::store) struct Activity(BTreeMap<i64, (i64, i64)>);

impl Activity {
    pub(in crate::store) fn note(&mut self, action: AuditAction, at: Timestamp) {
        let (issued, refused) = match action {
            AuditAction::TokenIssued | AuditAction::TokenGranted | AuditAction::TokenExchanged => (1, 0),
            AuditAction::AuthFailed | AuditAction::SignInFailed => (0, 1),
            _ => return,
        };
        let hour = self.0.entry(at.as_micros().div_euclid(HOUR)).or_default();
        *hour = (hour.0 + issued, hour.1 + refused);
    }

    pub(in crate::store) fn absorb(&mut self, later: &Self) {
        for (hour, (issued, refused)) in &later.0 {
            let hour = self.0.entry(*hour).or_default();
            *hour = (hour.0 + issued, hour.1 + refused);
        }
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(in crate::store) async fn add(mut conn: Conn<'_>, activity: &Activity) -> sqlx::Result<()> {
    const SQL: &str = "INSERT INTO activity (hour, issued, refused) VALUES ($1, $2, $3) ON CONFLICT (hour) DO UPDATE \
        SET issued = activity.issued + excluded.issued, refused = activity.refused + excluded.refused";
    for (hour, (issued, refused)) in &activity.0 {
        on!(&mut conn, |c| sqlx::query(SQL).bind(hour).bind(issued).bind(refused).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// The last `hours` hours up to `now`, oldest first; hours in which nothing happened included.
///
/// # Errors
/// When the database fails.
pub async fn recent(conn: Conn<'_>, now: Timestamp, hours: i64) -> Result<Vec<Hour>> {
    const SQL: &str = "SELECT hour, issued, refused FROM activity WHERE hour > $1 AND hour <= $2";
    let last = now.as_micros().div_euclid(HOUR);
    let rows: Vec<(i64, i64, i64)> =
        on!(conn, |c| sqlx::query_as(SQL).bind(last - hours).bind(last).fetch_all(c).await?);
    let found: BTreeMap<_, _> = rows.into_iter().map(|(hour, issued, refused)| (hour, (issued, refused))).collect();
    Ok((last - hours + 1..=last)
        .map(|hour| {
            let (issued, refused) = found.get(&hour).copied().unwrap_or_default();
            Hour { starts_at: Timestamp::from_micros(hour * HOUR), issued, refused }
        })
        .collect())
}

/// Whether any access token was ever issued.
///
/// # Errors
/// When the database fails.
pub async fn any_issued(conn: Conn<'_>) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT hour FROM activity WHERE issued > 0 LIMIT 1) AS hours";
    let count: i64 = on!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await?);
    Ok(count > 0)
}
