//! Access tokens that were revoked one by one, as stored until they would have expired.

use super::db::{Conn, on};
use crate::domain::{AgentId, Result, Timestamp, TokenId};

/// Ends a token; `false` when it was ended before.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, agent: AgentId, token: TokenId, expires_at: Timestamp) -> Result<bool> {
    const SQL: &str =
        "INSERT INTO revoked_tokens (agent_id, jti, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(agent.0)
        .bind(token.0)
        .bind(expires_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// Forgets the tokens that have expired by `now`.
///
/// # Errors
/// When the database fails.
pub async fn forget_expired(conn: Conn<'_>, now: Timestamp) -> Result<()> {
    const SQL: &str = "DELETE FROM revoked_tokens WHERE expires_at <= $1";
    on!(conn, |c| sqlx::query(SQL).bind(now.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}
