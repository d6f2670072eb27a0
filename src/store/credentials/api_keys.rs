//! API keys. The database stores a hash of each secret.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    crypto::KeyHash,
    domain::{AgentId, ApiKey, ApiKeyId, ApiKeyStatus, CapabilitySet, Error, Result, Timestamp},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
        principals::LimitsRow,
        stored,
        writer::usage::DAY,
    },
};

pub use super::fleet::count_selected as count_fleet;

#[derive(FromRow)]
pub(super) struct Row {
    pub(super) id: Uuid,
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
    last_used_ip: Option<String>,
    #[sqlx(flatten)]
    limits: LimitsRow,
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
            limits: row.limits.try_into()?,
            expires_at: row.expires_at.map(Timestamp::from_micros),
            created_at: Timestamp::from_micros(row.created_at),
            rotated_at: row.rotated_at.map(Timestamp::from_micros),
            grace_ends_at: row.grace_ends_at.map(Timestamp::from_micros),
            revoked_at: row.revoked_at.map(Timestamp::from_micros),
            last_used_at: row.last_used_at.map(Timestamp::from_micros),
            last_used_ip: row.last_used_ip,
        })
    }
}

/// Inserts a key. Returns false if a key with the same hash exists.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, key: &ApiKey, hash: &KeyHash) -> Result<bool> {
    const SQL: &str = "INSERT INTO api_keys (id, agent_id, key_hash, key_prefix, name, status, expires_at, \
        created_at, rotated_at, grace_ends_at, revoked_at, last_used_at, idle_since, scope, networks, token_life, uses_left) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, COALESCE($12, $8), $13, $14, $15, $16) \
        ON CONFLICT (key_hash) DO NOTHING";
    let networks = key.limits.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let networks = Some(networks).filter(|networks| !networks.is_empty());
    let inserted = execute!(
        tx.conn(),
        sqlx::query(SQL)
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
            .bind(key.limits.capabilities.as_ref().map(CapabilitySet::as_scope))
            .bind(&networks)
            .bind(key.limits.token_life.map(i64::from))
            .bind(key.limits.uses_left)
    )?;
    tx.mark_changed(key.agent_id);
    Ok(inserted == 1)
}

/// Returns a key.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: ApiKeyId) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE id = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(ApiKey::try_from).transpose()
}

/// Returns the key with this hash.
///
/// # Errors
/// If the database fails.
pub async fn find_by_hash(conn: Conn<'_>, hash: &KeyHash) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE key_hash = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(hash.0.as_slice()).fetch_optional(c).await)?;
    row.map(ApiKey::try_from).transpose()
}

/// Returns the keys of an agent, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: Conn<'_>, agent: AgentId) -> Result<Vec<ApiKey>> {
    const SQL: &str = "SELECT * FROM api_keys WHERE agent_id = $1 ORDER BY created_at, id";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Updates the status and times of a key to those of `key`. Returns false if its status is no longer `from`.
///
/// # Errors
/// If the database fails.
pub async fn transition(tx: &mut Tx, key: &ApiKey, from: ApiKeyStatus) -> Result<bool> {
    const SQL: &str = "UPDATE api_keys SET status = $3, rotated_at = $4, grace_ends_at = $5, revoked_at = $6 \
        WHERE id = $1 AND status = $2";
    let updated = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(key.id.0)
            .bind(from.as_str())
            .bind(key.status.as_str())
            .bind(key.rotated_at.map(Timestamp::as_micros))
            .bind(key.grace_ends_at.map(Timestamp::as_micros))
            .bind(key.revoked_at.map(Timestamp::as_micros))
    )?;
    tx.mark_changed(key.agent_id);
    Ok(updated == 1)
}

/// Spends one use of a key with limited uses. Returns false if none is left.
///
/// # Errors
/// If the database fails.
pub async fn spend_use(tx: &mut Tx, id: ApiKeyId) -> Result<bool> {
    const SQL: &str = "UPDATE api_keys SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0";
    let updated = execute!(tx.conn(), sqlx::query(SQL).bind(id.0))?;
    Ok(updated == 1)
}

/// Sets the remaining uses of a key with limited uses to 0.
///
/// # Errors
/// If the database fails.
pub async fn use_up(tx: &mut Tx, id: ApiKeyId) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET uses_left = 0 WHERE id = $1 AND uses_left IS NOT NULL";
    execute!(tx.conn(), sqlx::query(SQL).bind(id.0))?;
    Ok(())
}

/// Revokes every key of an agent that has not expired at `now`.
///
/// # Errors
/// If the database fails.
pub async fn revoke_all(tx: &mut Tx, agent: AgentId, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET status = 'revoked', revoked_at = $2 \
        WHERE agent_id = $1 AND status <> 'revoked' AND (expires_at IS NULL OR expires_at > $2)";
    execute!(tx.conn(), sqlx::query(SQL).bind(agent.0).bind(now.as_micros()))?;
    tx.mark_changed(agent);
    Ok(())
}

/// How many days of uses are kept.
pub const KEPT_DAYS: i64 = 90;
/// How many days of uses [`uses`] adds up.
const RECENT_DAYS: i64 = 30;

/// Returns how often each key of an agent was used in the last 30 days. Unused keys are omitted.
///
/// # Errors
/// If the database fails.
pub async fn uses(conn: Conn<'_>, agent: AgentId, now: Timestamp) -> Result<Vec<(ApiKeyId, i64)>> {
    // CROSS JOIN keeps SQLite from reading the uses of all keys first.
    const SQL: &str = "WITH RECURSIVE days (day) AS \
            (SELECT CAST($2 AS BIGINT) UNION ALL SELECT day - 1 FROM days WHERE day > $3) \
        SELECT u.key_id, CAST(SUM(u.uses) AS BIGINT) FROM api_keys k CROSS JOIN days d CROSS JOIN api_key_uses u \
        WHERE k.agent_id = $1 AND u.day = d.day AND u.key_id = k.id GROUP BY u.key_id";
    let today = now.as_micros().div_euclid(DAY);
    let rows: Vec<(Uuid, i64)> = dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(agent.0)
        .bind(today)
        .bind(today - RECENT_DAYS + 1)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(|(key, uses)| (ApiKeyId(key), uses)).collect())
}

/// Returns how often a key was used on each of the last [`KEPT_DAYS`] days, oldest first, as the start of the day and the
/// number.
///
/// # Errors
/// If the database fails.
pub async fn uses_per_day(conn: Conn<'_>, key: ApiKeyId, now: Timestamp) -> Result<Vec<(Timestamp, i64)>> {
    const SQL: &str = "WITH RECURSIVE days (day) AS \
            (SELECT CAST($2 AS BIGINT) UNION ALL SELECT day + 1 FROM days WHERE day < $3) \
        SELECT d.day, COALESCE((SELECT u.uses FROM api_key_uses u WHERE u.day = d.day AND u.key_id = $1), 0) \
        FROM days d ORDER BY d.day";
    let today = now.as_micros().div_euclid(DAY);
    let rows: Vec<(i64, i64)> = dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(key.0)
        .bind(today - KEPT_DAYS + 1)
        .bind(today)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(|(day, uses)| (Timestamp::from_micros(day * DAY), uses)).collect())
}

/// Deletes at most `most` counts of uses that are older than [`KEPT_DAYS`]. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_old_uses(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM api_key_uses WHERE (day, key_id) IN \
        (SELECT day, key_id FROM api_key_uses WHERE day <= $1 ORDER BY day, key_id LIMIT +$2)";
    let before = now.as_micros().div_euclid(DAY) - KEPT_DAYS;
    Ok(execute!(conn, sqlx::query(SQL).bind(before).bind(most))?)
}
