//! Access tokens that were revoked one by one. Revocations count for a day after the token has expired: if the clock runs
//! ahead for a while and is set back, a token that had expired is valid again.

use std::time::Duration;

use crate::{
    domain::{AgentId, Result, Timestamp, TokenId},
    store::{Tx, db::execute},
};

/// How long a revocation counts after the token has expired.
pub const KEPT: Duration = Duration::from_hours(24);

/// Revokes a token. Returns false if it was revoked before.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, agent: AgentId, token: TokenId, expires_at: Timestamp) -> Result<bool> {
    const SQL: &str =
        "INSERT INTO revoked_tokens (agent_id, jti, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let inserted = execute!(tx.conn(), sqlx::query(SQL).bind(agent.0).bind(token.0).bind(expires_at.as_micros()))?;
    if inserted == 1 {
        tx.mark_changed(agent);
    }
    Ok(inserted == 1)
}

/// Deletes at most `most` rows of tokens that had expired [`KEPT`] before `now`. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_expired(tx: &mut Tx, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM revoked_tokens WHERE (agent_id, jti) IN \
        (SELECT agent_id, jti FROM revoked_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(execute!(tx.conn(), sqlx::query(SQL).bind(now.minus(KEPT).as_micros()).bind(most))?)
}
