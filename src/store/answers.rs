//! Sealed answers to requests with an `Idempotency-Key`. Rows are kept until the answer expires.

use crate::{
    domain::{Result, Timestamp},
    store::db::{Conn, dispatch, execute},
};

/// Returns the sealed answer with this ID, unless it has expired at `now`.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: [u8; 32], now: Timestamp) -> Result<Option<Vec<u8>>> {
    const SQL: &str = "SELECT sealed FROM request_answers WHERE id = $1 AND expires_at > $2";
    Ok(dispatch!(conn, |c| {
        sqlx::query_scalar(SQL).bind(id.as_slice()).bind(now.as_micros()).fetch_optional(c).await
    })?)
}

/// Keeps a sealed answer, in place of one with the same ID that has expired.
///
/// # Errors
/// If the database fails.
pub async fn keep(conn: Conn<'_>, id: [u8; 32], sealed: &[u8], expires_at: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO request_answers (id, sealed, expires_at) VALUES ($1, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed, expires_at = excluded.expires_at";
    execute!(conn, sqlx::query(SQL).bind(id.as_slice()).bind(sealed).bind(expires_at.as_micros()))?;
    Ok(())
}

/// Deletes at most `most` answers that have expired at `now`. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_expired(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM request_answers WHERE id IN \
        (SELECT id FROM request_answers WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(execute!(conn, sqlx::query(SQL).bind(now.as_micros()).bind(most))?)
}
