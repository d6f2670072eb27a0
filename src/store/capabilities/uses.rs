//! How capabilities are used. The writer counts the uses.

use std::collections::HashMap;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::Row;
use crate::{
    domain::{AgentId, CapabilityId, Result, Timestamp, capability::Held},
    store::{
        db::{Conn, dispatch, execute},
        even_chunks,
        writer::usage::DAY,
    },
};

/// How many days of uses are kept.
const COUNTED_DAYS: i64 = 90;

#[derive(FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    capability: Row,
    granted_at: i64,
    used_at: Option<i64>,
}

/// Returns the capabilities that an agent holds, with when it got and last used each of them, sorted by name.
///
/// # Errors
/// If the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<Held>> {
    const SQL: &str = "SELECT c.id, c.name, c.description, c.created_at, g.granted_at, g.last_used_at AS used_at \
        FROM agent_capabilities g JOIN capabilities c ON c.id = g.capability_id WHERE g.agent_id = $1";
    let rows: Vec<HeldRow> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    let held = |row: HeldRow| {
        Ok(Held {
            capability: row.capability.try_into()?,
            granted_at: Timestamp::from_micros(row.granted_at),
            last_used_at: row.used_at.map(Timestamp::from_micros),
        })
    };
    let mut held = rows.into_iter().map(held).collect::<Result<Vec<_>>>()?;
    // Sorted here, because the two databases sort names by different rules.
    held.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(held)
}

/// Returns when each of these capabilities was last used. Those that were not used are left out.
///
/// # Errors
/// If the database fails.
pub async fn latest(mut conn: Conn<'_>, ids: &[CapabilityId]) -> Result<HashMap<CapabilityId, Timestamp>> {
    let mut latest = HashMap::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, i64)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(
                "SELECT id, last_used_at FROM capabilities WHERE last_used_at IS NOT NULL AND id IN (",
            );
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        latest.extend(rows.into_iter().map(|(id, at)| (CapabilityId(id), Timestamp::from_micros(at))));
    }
    Ok(latest)
}

/// Returns how often an agent used a capability on each of the last 90 days, oldest first. Days without uses are left
/// out. A day is its number since the epoch.
///
/// # Errors
/// If the database fails.
pub async fn by_day(
    conn: Conn<'_>,
    agent: AgentId,
    capability: CapabilityId,
    now: Timestamp,
) -> Result<Vec<(i64, i64)>> {
    const SQL: &str = "WITH RECURSIVE days (day) AS \
            (SELECT CAST($3 AS BIGINT) UNION ALL SELECT day - 1 FROM days WHERE day > $4) \
        SELECT u.day, u.uses FROM days d \
        JOIN capability_uses u ON u.day = d.day AND u.capability_id = $2 AND u.agent_id = $1 ORDER BY u.day";
    let today = now.as_micros().div_euclid(DAY);
    Ok(dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(agent.0)
        .bind(capability.0)
        .bind(today)
        .bind(today - COUNTED_DAYS + 1)
        .fetch_all(c)
        .await)?)
}

/// Deletes at most `most` counts of uses that are older than 90 days. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_old(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM capability_uses WHERE (day, capability_id, agent_id) IN \
        (SELECT day, capability_id, agent_id FROM capability_uses WHERE day <= $1 \
         ORDER BY day, capability_id, agent_id LIMIT +$2)";
    let before = now.as_micros().div_euclid(DAY) - COUNTED_DAYS;
    Ok(execute!(conn, sqlx::query(SQL).bind(before).bind(most))?)
}
