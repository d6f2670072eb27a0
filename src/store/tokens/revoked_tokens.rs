//! Access tokens that were revoked one by one, as stored until they would have expired.

use crate::{
    domain::{AgentId, Result, Timestamp, TokenId},
    store::db::{Conn, on},
};

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

/// Forgets some of the tokens that have expired by `now`, at most `most`; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn forget_expired(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM revoked_tokens WHERE (agent_id, jti) IN \
        (SELECT agent_id, jti FROM revoked_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(on!(conn, |c| sqlx::query(SQL).bind(now.as_micros()).bind(most).execute(c).await?.rows_affected()))
}
