//! What the overview counts, and what people dismissed or ticked on it.

use uuid::Uuid;

use crate::domain::{AdministratorId, AgentId, Result, Timestamp, capability::builtin};
use crate::store::db::{Conn, dispatch, execute};

/// How many rotated keys [`count_used_in_grace`] looks at.
const ROTATED_MAX: i64 = 20_000;

/// Counts active API keys without an expiry of agents that hold `admin:*`, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_unending_administrator_keys(conn: Conn<'_>, most: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT k.id FROM agent_capabilities g CROSS JOIN api_keys k \
        WHERE g.capability_id = (SELECT id FROM capabilities WHERE name = $1) AND k.agent_id = g.agent_id \
        AND k.status = 'active' AND k.expires_at IS NULL LIMIT +$2) AS counted";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(builtin::ADMIN).bind(most).fetch_one(c).await)?)
}

/// Counts active API keys that expire after `now`, until `until` at the latest, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_expiring_keys(conn: Conn<'_>, now: Timestamp, until: Timestamp, most: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT id FROM api_keys WHERE status = 'active' \
        AND expires_at IS NOT NULL AND expires_at > $1 AND expires_at <= $2 LIMIT +$3) AS counted";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL)
        .bind(now.as_micros())
        .bind(until.as_micros())
        .bind(most)
        .fetch_one(c)
        .await)?)
}

/// Counts rotated keys that still work and were used after the rotation, up to `most`. With very many rotated keys, only
/// those whose grace period ends next are counted.
///
/// # Errors
/// If the database fails.
pub async fn count_used_in_grace(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT k.id FROM (SELECT * FROM api_keys WHERE status = 'rotated' \
        AND grace_ends_at > $1 ORDER BY grace_ends_at, id LIMIT +$2) AS k CROSS JOIN agents a \
        WHERE a.id = k.agent_id AND a.status = 'active' AND k.last_used_at > k.rotated_at \
        AND COALESCE(k.expires_at, 9223372036854775807) > $1 AND COALESCE(k.uses_left, 1) > 0 LIMIT +$3) AS counted";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL)
        .bind(now.as_micros())
        .bind(ROTATED_MAX)
        .bind(most)
        .fetch_one(c)
        .await)?)
}

/// Returns the owners who can sign in and have neither an authenticator app nor a passkey, with their names.
///
/// # Errors
/// If the database fails.
pub async fn owners_without_factor(conn: Conn<'_>) -> Result<Vec<(AdministratorId, String)>> {
    const SQL: &str = "SELECT id, display_name FROM administrators WHERE role = 'owner' AND disabled_at IS NULL \
        AND totp_enabled_at IS NULL AND id NOT IN (SELECT administrator_id FROM passkeys) ORDER BY display_name, id";
    let rows: Vec<(Uuid, String)> = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, name)| (AdministratorId(id), name)).collect())
}

/// Returns the newest agent that does not have this name.
///
/// # Errors
/// If the database fails.
pub async fn newest_agent(conn: Conn<'_>, except: &str) -> Result<Option<(AgentId, String)>> {
    const SQL: &str = "SELECT id, name FROM agents WHERE name <> $1 ORDER BY created_at DESC, id DESC LIMIT 1";
    let row: Option<(Uuid, String)> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(except).fetch_optional(c).await)?;
    Ok(row.map(|(id, name)| (AgentId(id), name)))
}

/// Returns true if an agent that does not have this name ever got a token.
///
/// # Errors
/// If the database fails.
pub async fn any_used(conn: Conn<'_>, except: &str) -> Result<bool> {
    const SQL: &str =
        "SELECT COUNT(*) FROM (SELECT id FROM agents WHERE last_used_at > 0 AND name <> $1 LIMIT 1) AS used";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(except).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Returns what a person marked until after `now`.
///
/// # Errors
/// If the database fails.
pub async fn marks(conn: Conn<'_>, person: AdministratorId, now: Timestamp) -> Result<Vec<String>> {
    const SQL: &str = "SELECT item FROM overview_marks WHERE administrator_id = $1 AND until > $2 ORDER BY item";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(person.0).bind(now.as_micros()).fetch_all(c).await)?)
}

/// Marks an item for a person until a time, instead of until another.
///
/// # Errors
/// If the database fails.
pub async fn mark(conn: Conn<'_>, person: AdministratorId, item: &str, until: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO overview_marks (administrator_id, item, until) VALUES ($1, $2, $3) \
        ON CONFLICT (administrator_id, item) DO UPDATE SET until = excluded.until";
    execute!(conn, sqlx::query(SQL).bind(person.0).bind(item).bind(until.as_micros()))?;
    Ok(())
}

/// Removes the mark of a person from an item.
///
/// # Errors
/// If the database fails.
pub async fn unmark(conn: Conn<'_>, person: AdministratorId, item: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM overview_marks WHERE administrator_id = $1 AND item = $2";
    execute!(conn, sqlx::query(SQL).bind(person.0).bind(item))?;
    Ok(())
}
