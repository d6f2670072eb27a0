//! What lists show about agents beside their own fields: one statement for all agents of a page.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, AgentName, AgentStatus, CapabilityId, CapabilityName, Result, Timestamp, agent::Brief},
    store::{
        db::{
            Conn,
            sql::{Sql, run},
        },
        stored,
    },
};

/// Adds the condition that a column is one of these identifiers, as one parameter for any count of them.
pub(in crate::store) fn is_among(sql: &mut Sql, conn: &Conn<'_>, column: &str, ids: &[AgentId]) {
    sql.push(column);
    match conn {
        Conn::Sqlite(_) => {
            let ids: Vec<_> = ids.iter().map(|id| format!("\"{}\"", id.0.simple())).collect();
            let list = format!("[{}]", ids.join(","));
            sql.push(" IN (SELECT unhex(value) FROM json_each(").bind(list.as_str()).push("))");
        }
        Conn::Postgres(_) => {
            let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            sql.push(" = ANY (string_to_array(").bind(list.as_str()).push(", ',')::uuid[])");
        }
    }
}

#[derive(FromRow)]
struct BriefRow {
    id: Uuid,
    name: String,
    owner: String,
    status: String,
}

/// Returns name, owner and status of those of these agents that exist.
///
/// # Errors
/// If the database fails.
pub async fn briefs(conn: Conn<'_>, ids: &[AgentId]) -> Result<HashMap<AgentId, Brief>> {
    let mut sql = Sql::default();
    sql.push("SELECT id, name, owner, status FROM agents WHERE ");
    is_among(&mut sql, &conn, "id", ids);
    let rows: Vec<BriefRow> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let brief = |row: BriefRow| {
        let name = stored("agent name", AgentName::parse(&row.name))?;
        let status = stored("agent status", AgentStatus::parse(&row.status))?;
        Ok((AgentId(row.id), Brief { id: AgentId(row.id), name, owner: row.owner, status }))
    };
    rows.into_iter().map(brief).collect()
}

/// Returns when each of these agents was last used. Agents that were never used are left out.
///
/// # Errors
/// If the database fails.
pub async fn last_uses(conn: Conn<'_>, ids: &[AgentId]) -> Result<HashMap<AgentId, Timestamp>> {
    let mut sql = Sql::default();
    sql.push("SELECT id, last_used_at FROM agents WHERE last_used_at > 0 AND ");
    is_among(&mut sql, &conn, "id", ids);
    let rows: Vec<(Uuid, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    Ok(rows.into_iter().map(|(id, at)| (AgentId(id), Timestamp::from_micros(at))).collect())
}

/// The capabilities of agents, sorted by name.
pub type Held = HashMap<AgentId, Vec<(CapabilityName, CapabilityId)>>;

/// Returns the capabilities of these agents. Agents without any are left out.
///
/// # Errors
/// If the database fails.
pub async fn held(conn: Conn<'_>, ids: &[AgentId]) -> Result<Held> {
    let mut sql = Sql::default();
    sql.push("SELECT g.agent_id, c.name, c.id FROM agent_capabilities g JOIN capabilities c ON c.id = g.capability_id WHERE ");
    is_among(&mut sql, &conn, "g.agent_id", ids);
    let rows: Vec<(Uuid, String, Uuid)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let mut held = Held::new();
    for (agent, name, id) in rows {
        let name = stored("capability name", CapabilityName::parse(&name))?;
        held.entry(AgentId(agent)).or_default().push((name, CapabilityId(id)));
    }
    // Sorted here, because the two databases sort names by different rules.
    for names in held.values_mut() {
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    }
    Ok(held)
}

/// Counts the API keys of each of these agents that have not ended at `now`, whatever the agent's status. Agents without
/// any are left out.
///
/// # Errors
/// If the database fails.
pub async fn count_keys(conn: Conn<'_>, ids: &[AgentId], now: Timestamp) -> Result<HashMap<AgentId, i64>> {
    let now = now.as_micros();
    let mut sql = Sql::default();
    sql.push("SELECT agent_id, COUNT(*) FROM api_keys WHERE ");
    is_among(&mut sql, &conn, "agent_id", ids);
    sql.push(" AND (status = 'active' OR (status = 'rotated' AND grace_ends_at > ").bind(now);
    sql.push(")) AND (expires_at IS NULL OR expires_at > ").bind(now);
    sql.push(") AND (uses_left IS NULL OR uses_left > 0) GROUP BY agent_id");
    let rows: Vec<(Uuid, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    Ok(rows.into_iter().map(|(id, count)| (AgentId(id), count)).collect())
}
