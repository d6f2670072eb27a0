//! Public keys of agents, and the assertions (RFC 7523) and `DPoP` proofs that were used.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, Error, PublicKeyId, Result, Timestamp, credential::public_key::PublicKey},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
        stored,
    },
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    thumbprint: String,
    kid: String,
    jwk: String,
    created_at: i64,
}

impl TryFrom<Row> for PublicKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: PublicKeyId(row.id),
            agent: AgentId(row.agent_id),
            kid: row.kid,
            thumbprint: row.thumbprint,
            jwk: stored("JSON Web Key", serde_json::from_str(&row.jwk))?,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

/// Inserts a key. Returns false if the agent has this key already.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, key: &PublicKey) -> Result<bool> {
    const SQL: &str = "INSERT INTO public_keys (id, agent_id, thumbprint, kid, jwk, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (agent_id, thumbprint) DO NOTHING";
    let inserted = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(key.id.0)
            .bind(key.agent.0)
            .bind(&key.thumbprint)
            .bind(&key.kid)
            .bind(key.jwk.to_string())
            .bind(key.created_at.as_micros())
    )?;
    tx.mark_changed(key.agent);
    Ok(inserted == 1)
}

/// Returns the public keys of an agent, oldest first. There are at most 20.
///
/// # Errors
/// If the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<PublicKey>> {
    const SQL: &str = "SELECT * FROM public_keys WHERE agent_id = $1 ORDER BY created_at, thumbprint";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    rows.into_iter().map(PublicKey::try_from).collect()
}

/// Deletes a key of an agent and returns it. Returns `None` if the agent has no such key.
///
/// # Errors
/// If the database fails.
pub async fn delete(tx: &mut Tx, agent: AgentId, id: PublicKeyId) -> Result<Option<PublicKey>> {
    const SQL: &str = "DELETE FROM public_keys WHERE id = $1 AND agent_id = $2 RETURNING *";
    let row: Option<Row> =
        dispatch!(tx.conn(), |c| sqlx::query_as(SQL).bind(id.0).bind(agent.0).fetch_optional(c).await)?;
    tx.mark_changed(agent);
    row.map(PublicKey::try_from).transpose()
}

/// Marks an assertion as used. Returns false if it was used before.
///
/// # Errors
/// If the database fails.
pub async fn spend(conn: Conn<'_>, hash: [u8; 32], expires_at: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO spent_assertions (hash, expires_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING";
    let inserted = execute!(conn, sqlx::query(SQL).bind(hash.as_slice()).bind(expires_at.as_micros()))?;
    Ok(inserted == 1)
}

/// Deletes at most `most` used assertions that have expired at `now`. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_spent(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM spent_assertions WHERE hash IN \
        (SELECT hash FROM spent_assertions WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(execute!(conn, sqlx::query(SQL).bind(now.as_micros()).bind(most))?)
}
