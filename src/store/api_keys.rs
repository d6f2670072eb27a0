//! API keys, as stored: a hash in place of each secret.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    db::{Conn, on},
    even_chunks, stored,
};
use crate::{
    crypto::KeyHash,
    domain::{AgentId, ApiKey, ApiKeyId, ApiKeyStatus, Error, Result, Timestamp},
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    key_prefix: String,
    name: String,
    status: String,
    expires_at: Option<i64>,
    created_at: i64,
    rotated_at: Option<i64>,
    grace_ends_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<Row> for ApiKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: ApiKeyId(row.id),
            agent_id: AgentId(row.agent_id),
            key_prefix: row.key_prefix,
            name: row.name,
            status: stored("API key status", ApiKeyStatus::parse(&row.status))?,
            expires_at: row.expires_at.map(Timestamp::from_micros),
            created_at: Timestamp::from_micros(row.created_at),
            rotated_at: row.rotated_at.map(Timestamp::from_micros),
            grace_ends_at: row.grace_ends_at.map(Timestamp::from_micros),
            revoked_at: row.revoked_at.map(Timestamp::from_micros),
            last_used_at: row.last_used_at.map(Timestamp::from_micros),
        })
    }
}

/// Adds a key; `false` when another has the same hash.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, key: &ApiKey, hash: &KeyHash) -> Result<bool> {
    const SQL: &str = "INSERT INTO api_keys (id, agent_id, key_hash, key_prefix, name, status, expires_at, \
        created_at, rotated_at, grace_ends_at, revoked_at, last_used_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (key_hash) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(key.id.0)
        .bind(key.agent_id.0)
        .bind(hash.0.as_slice())
        .bind(&key.key_prefix)
        .bind(&key.name)
        .bind(key.status.as_str())
        .bind(key.expires_at.map(Timestamp::as_micros))
        .bind(key.created_at.as_micros())
        .bind(key.rotated_at.map(Timestamp::as_micros))
        .bind(key.grace_ends_at.map(Timestamp::as_micros))
        .bind(key.revoked_at.map(Timestamp::as_micros))
        .bind(key.last_used_at.map(Timestamp::as_micros))
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// The key with this identifier.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: Conn<'_>, id: ApiKeyId) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE id = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await?);
    row.map(ApiKey::try_from).transpose()
}

/// The keys of an agent, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: Conn<'_>, agent: AgentId) -> Result<Vec<ApiKey>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE agent_id = $1 ORDER BY created_at, id";
    let rows: Vec<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await?);
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Moves a key to the status and times of `key`; `false` when it no longer has the status `from`.
///
/// # Errors
/// When the database fails.
pub async fn transition(conn: Conn<'_>, key: &ApiKey, from: ApiKeyStatus) -> Result<bool> {
    const SQL: &str = "UPDATE api_keys SET status = $3, rotated_at = $4, grace_ends_at = $5, revoked_at = $6 \
        WHERE id = $1 AND status = $2";
    let updated = on!(conn, |c| sqlx::query(SQL)
        .bind(key.id.0)
        .bind(from.as_str())
        .bind(key.status.as_str())
        .bind(key.rotated_at.map(Timestamp::as_micros))
        .bind(key.grace_ends_at.map(Timestamp::as_micros))
        .bind(key.revoked_at.map(Timestamp::as_micros))
        .execute(c)
        .await?
        .rows_affected());
    Ok(updated == 1)
}

/// Revokes every active key of an agent.
///
/// # Errors
/// When the database fails.
pub async fn revoke_active(conn: Conn<'_>, agent: AgentId, now: Timestamp) -> Result<()> {
    const SQL: &str =
        "UPDATE api_keys SET status = 'revoked', revoked_at = $2 WHERE agent_id = $1 AND status = 'active'";
    on!(conn, |c| sqlx::query(SQL).bind(agent.0).bind(now.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes when each of these keys was last used; a key may be named once.
///
/// # Errors
/// When the database fails.
pub(super) async fn touch(mut conn: Conn<'_>, touches: &[(ApiKeyId, Timestamp)]) -> sqlx::Result<()> {
    for chunk in even_chunks(touches) {
        on!(&mut conn, |c| {
            let mut query = QueryBuilder::new("UPDATE api_keys SET last_used_at = used.column2 FROM (");
            query.push_values(chunk, |mut row, (key, at)| {
                row.push_bind(key.0).push_bind(at.as_micros());
            });
            query.push(") AS used WHERE api_keys.id = used.column1");
            query.build().execute(c).await?;
        });
    }
    Ok(())
}
