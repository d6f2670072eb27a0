//! Agents' public keys, and the assertions that were used, as stored.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, Error, PublicKeyId, Result, Timestamp, credential::public_key::PublicKey},
    store::{
        db::{Conn, on},
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

/// Adds a key; `false` when the agent has it already.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, key: &PublicKey) -> Result<bool> {
    const SQL: &str = "INSERT INTO public_keys (id, agent_id, thumbprint, kid, jwk, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (agent_id, thumbprint) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(key.id.0)
        .bind(key.agent.0)
        .bind(&key.thumbprint)
        .bind(&key.kid)
        .bind(key.jwk.to_string())
        .bind(key.created_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// The public keys of an agent, oldest first; there are few.
///
/// # Errors
/// When the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<PublicKey>> {
    const SQL: &str = "SELECT * FROM public_keys WHERE agent_id = $1 ORDER BY created_at, thumbprint";
    let rows: Vec<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await?);
    rows.into_iter().map(PublicKey::try_from).collect()
}

/// Removes a key of an agent; `None` when it has no such key.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: Conn<'_>, agent: AgentId, id: PublicKeyId) -> Result<Option<PublicKey>> {
    const SQL: &str = "DELETE FROM public_keys WHERE id = $1 AND agent_id = $2 RETURNING *";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(id.0).bind(agent.0).fetch_optional(c).await?);
    row.map(PublicKey::try_from).transpose()
}

/// Uses an assertion; `false` when it was used before.
///
/// # Errors
/// When the database fails.
pub async fn spend(conn: Conn<'_>, hash: [u8; 32], expires_at: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO spent_assertions (hash, expires_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(hash.as_slice())
        .bind(expires_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// Forgets some of the assertions that have expired by `now`, at most `most`; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn forget_spent(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM spent_assertions WHERE hash IN \
        (SELECT hash FROM spent_assertions WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(on!(conn, |c| sqlx::query(SQL).bind(now.as_micros()).bind(most).execute(c).await?.rows_affected()))
}
