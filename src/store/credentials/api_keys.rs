//! API keys, as stored: a hash in place of each secret.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use crate::{
    crypto::KeyHash,
    domain::{
        AgentId, ApiKey, ApiKeyId, ApiKeyStatus, CapabilitySet, Error, KeyLimits, Limit, Page, Result, Timestamp,
        credential::api_key::{Position, Selection, Use},
    },
    store::{
        db::{Conn, on},
        even_chunks, stored,
    },
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
    last_used_ip: Option<String>,
    idle_since: i64,
    #[sqlx(flatten)]
    limits: LimitsRow,
}

/// The columns that hold a key's limits.
#[derive(FromRow)]
pub(in crate::store) struct LimitsRow {
    scope: Option<String>,
    networks: Option<String>,
    token_life: Option<i64>,
    uses_left: Option<i64>,
}

impl TryFrom<LimitsRow> for KeyLimits {
    type Error = Error;

    fn try_from(row: LimitsRow) -> Result<Self> {
        let capabilities = row.scope.as_deref().map(Self::parse_capabilities).transpose();
        let life = row.token_life.map(u32::try_from).transpose();
        Ok(Self {
            capabilities: stored("scope of an API key", capabilities)?,
            networks: stored("network", Self::parse_networks(row.networks.as_deref().unwrap_or_default()))?,
            token_life: stored("token life", life)?,
            uses_left: row.uses_left,
        })
    }
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

/// Adds a key; `false` when another has the same hash.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, key: &ApiKey, hash: &KeyHash) -> Result<bool> {
    const SQL: &str = "INSERT INTO api_keys (id, agent_id, key_hash, key_prefix, name, status, expires_at, \
        created_at, rotated_at, grace_ends_at, revoked_at, last_used_at, idle_since, scope, networks, token_life, uses_left) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, COALESCE($12, $8), $13, $14, $15, $16) \
        ON CONFLICT (key_hash) DO NOTHING";
    let networks = key.limits.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let networks = Some(networks).filter(|networks| !networks.is_empty());
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
        .bind(key.limits.capabilities.as_ref().map(CapabilitySet::as_scope))
        .bind(&networks)
        .bind(key.limits.token_life.map(i64::from))
        .bind(key.limits.uses_left)
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

/// Takes one of the tokens that a limited key is for; `false` when none is left.
///
/// # Errors
/// When the database fails.
pub async fn spend_use(conn: Conn<'_>, id: ApiKeyId) -> Result<bool> {
    const SQL: &str = "UPDATE api_keys SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0";
    let updated = on!(conn, |c| sqlx::query(SQL).bind(id.0).execute(c).await?.rows_affected());
    Ok(updated == 1)
}

/// Leaves a limited key without any use.
///
/// # Errors
/// When the database fails.
pub async fn use_up(conn: Conn<'_>, id: ApiKeyId) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET uses_left = 0 WHERE id = $1 AND uses_left IS NOT NULL";
    on!(conn, |c| sqlx::query(SQL).bind(id.0).execute(c).await.map(drop))?;
    Ok(())
}

/// Revokes every key of an agent that has not expired by `now`.
///
/// # Errors
/// When the database fails.
pub async fn revoke_all(conn: Conn<'_>, agent: AgentId, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET status = 'revoked', revoked_at = $2 \
        WHERE agent_id = $1 AND status <> 'revoked' AND (expires_at IS NULL OR expires_at > $2)";
    on!(conn, |c| sqlx::query(SQL).bind(agent.0).bind(now.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}

/// Notes how each of these keys was used; a key may be named once.
///
/// # Errors
/// When the database fails.
pub(in crate::store) async fn touch(mut conn: Conn<'_>, uses: &[(ApiKeyId, Use)]) -> sqlx::Result<()> {
    for chunk in even_chunks(uses) {
        on!(&mut conn, |c| {
            // Those that were idle for a day, and then the others: a place in the index by idleness moves no more often.
            for (update, earlier, by) in [
                ("UPDATE api_keys SET idle_since = used.column2, ", "api_keys.idle_since", DAY),
                ("UPDATE api_keys SET ", "COALESCE(api_keys.last_used_at, 0)", 0),
            ] {
                let mut query = QueryBuilder::new(update);
                query.push("last_used_at = used.column2, last_used_ip = used.column3 FROM (");
                query.push_values(chunk, |mut row, (key, used)| {
                    row.push_bind(key.0).push_bind(used.at.as_micros()).push_bind(used.ip.map(|ip| ip.to_string()));
                });
                query.push(") AS used WHERE api_keys.id = used.column1 AND ").push(earlier);
                query.push(" < used.column2 - ").push_bind(by).build().execute(&mut *c).await?;
            }

            let mut query = QueryBuilder::new("INSERT INTO api_key_uses (day, key_id, uses) ");
            query.push_values(chunk, |mut row, (key, used)| {
                row.push_bind(used.at.as_micros().div_euclid(DAY)).push_bind(key.0).push_bind(used.times);
            });
            query.push(" ON CONFLICT (day, key_id) DO UPDATE SET uses = api_key_uses.uses + excluded.uses");
            query.build().execute(c).await?;
        });
    }
    Ok(())
}

/// A day, in microseconds.
const DAY: i64 = 24 * 3_600 * 1_000_000;
/// For how many days uses are counted.
const COUNTED_DAYS: i64 = 30;

/// How often each key of an agent was used in the last 30 days; keys that were not are left out.
///
/// # Errors
/// When the database fails.
pub async fn uses(conn: Conn<'_>, agent: AgentId, now: Timestamp) -> Result<Vec<(ApiKeyId, i64)>> {
    const SQL: &str = "WITH RECURSIVE days (day) AS \
            (SELECT CAST($2 AS BIGINT) UNION ALL SELECT day - 1 FROM days WHERE day > $3) \
        SELECT u.key_id, CAST(SUM(u.uses) AS BIGINT) FROM api_keys k CROSS JOIN days d \
        JOIN api_key_uses u ON u.day = d.day AND u.key_id = k.id WHERE k.agent_id = $1 GROUP BY u.key_id";
    let today = now.as_micros().div_euclid(DAY);
    let rows: Vec<(Uuid, i64)> = on!(conn, |c| sqlx::query_as(SQL)
        .bind(agent.0)
        .bind(today)
        .bind(today - COUNTED_DAYS + 1)
        .fetch_all(c)
        .await?);
    Ok(rows.into_iter().map(|(key, uses)| (ApiKeyId(key), uses)).collect())
}

/// Forgets some counts of days that no page shows, at most `most`; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn forget_old_uses(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM api_key_uses WHERE (day, key_id) IN \
        (SELECT day, key_id FROM api_key_uses WHERE day <= $1 ORDER BY day, key_id LIMIT +$2)";
    let before = now.as_micros().div_euclid(DAY) - COUNTED_DAYS;
    Ok(on!(conn, |c| sqlx::query(SQL).bind(before).bind(most).execute(c).await?.rows_affected()))
}

/// A page of the fleet's keys.
///
/// # Errors
/// When the database fails.
pub async fn fleet(
    conn: Conn<'_>,
    selection: Selection,
    now: Timestamp,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<ApiKey, Position>> {
    let (condition, order, bound) = condition(selection, now);
    let descending = selection == Selection::All;
    let start = if descending { i64::MAX } else { i64::MIN };
    let edge = if descending { Uuid::max() } else { Uuid::nil() };
    let (at, id) = after.map_or((start, edge), |(at, id)| (at.as_micros(), id.0));
    let (beyond, direction) = if descending { ("<", "DESC") } else { (">", "ASC") };
    let sql = format!(
        "SELECT * FROM api_keys WHERE {condition} AND ({order}, id) {beyond} ($3, $4) \
         ORDER BY {order} {direction}, id {direction} LIMIT +$5"
    );
    let rows: Vec<Row> = on!(conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(now.as_micros())
        .bind(bound)
        .bind(at)
        .bind(id)
        .bind(i64::from(limit.get()) + 1)
        .fetch_all(c)
        .await?);
    let place = |row: &Row| {
        let at = match selection {
            Selection::All => row.created_at,
            Selection::Expiring => row.expires_at.unwrap_or_default(),
            Selection::Idle => row.idle_since,
            Selection::InGrace => row.grace_ends_at.unwrap_or_default(),
        };
        (Timestamp::from_micros(at), ApiKeyId(row.id))
    };
    let page = Page::cut(rows, limit, place);
    Ok(Page { items: page.items.into_iter().map(ApiKey::try_from).collect::<Result<_>>()?, next: page.next })
}

/// How many of the fleet's keys a selection holds, counted no further than `most`.
///
/// # Errors
/// When the database fails.
pub async fn count_fleet(conn: Conn<'_>, selection: Selection, now: Timestamp, most: i64) -> Result<i64> {
    let (condition, _, bound) = condition(selection, now);
    let sql = format!("SELECT COUNT(*) FROM (SELECT id FROM api_keys WHERE {condition} LIMIT +$3) AS counted");
    Ok(on!(conn, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(now.as_micros())
        .bind(bound)
        .bind(most)
        .fetch_one(c)
        .await?))
}

/// What a selection demands of a key, with `$1` for now and `$2` for the bound; and what it is ordered by.
fn condition(selection: Selection, now: Timestamp) -> (&'static str, &'static str, i64) {
    match selection {
        Selection::All => ("$1 = $2", "created_at", now.as_micros()),
        Selection::Expiring => (
            "status = 'active' AND expires_at IS NOT NULL AND expires_at > $1 AND expires_at < $2",
            "expires_at",
            now.plus(Selection::SOON).as_micros(),
        ),
        Selection::Idle => (
            "status = 'active' AND (expires_at IS NULL OR expires_at > $1) AND idle_since < $2",
            "idle_since",
            now.minus(Selection::LONG).as_micros(),
        ),
        Selection::InGrace => ("status = 'rotated' AND grace_ends_at > $1 AND $1 <= $2", "grace_ends_at", i64::MAX),
    }
}
