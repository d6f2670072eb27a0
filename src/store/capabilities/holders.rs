//! The agents that hold a capability: listing them, and removing all their grants.

use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use crate::{
    domain::{
        Agent, AgentId, CapabilityId, Limit, Page, Result, Timestamp,
        capability::{Holder, HolderFilter},
    },
    store::{
        Tx,
        agents::{self, labels},
        db::{
            Conn, dispatch, execute,
            sql::{Sql, run},
        },
        even_chunks,
    },
};

/// How many holders one page of a filtered listing looks at.
const WINDOW: i64 = 10_000;

#[derive(FromRow)]
struct GrantRow {
    agent_id: Uuid,
    granted_at: i64,
    last_used_at: Option<i64>,
}

/// Returns a page of the agents that hold a capability, sorted by identifier. With a filter, a page may end early. It
/// then contains the matches among the next 10,000 holders, possibly none, and the position of the next page.
///
/// # Errors
/// If the database fails.
pub async fn list(
    mut conn: Conn<'_>,
    id: CapabilityId,
    filter: &HolderFilter,
    after: Option<AgentId>,
    limit: Limit,
) -> Result<Page<Holder, AgentId>> {
    let after = after.unwrap_or(AgentId(Uuid::nil()));
    let count = i64::from(limit.get()) + 1;
    let mut sql = Sql::default();
    let window = if filter.is_empty() { count } else { WINDOW };
    sql.push("SELECT h.agent_id, h.granted_at, h.last_used_at FROM (");
    grants(&mut sql, id, after, window);
    sql.push(") AS h");
    if !filter.is_empty() {
        sql.push(" CROSS JOIN agents a WHERE a.id = h.agent_id");
        narrow(&mut sql, &conn, filter);
    }
    sql.push(" ORDER BY h.agent_id").limit(count);
    let rows: Vec<GrantRow> = run!(&mut conn, sqlx::query_as, sql, fetch_all)?;
    let page = Page::cut(rows, limit, |row| AgentId(row.agent_id));
    let next = match page.next {
        None if !filter.is_empty() => nth(conn.reborrow(), id, after, WINDOW).await?,
        next => next,
    };
    let ids: Vec<_> = page.items.iter().map(|row| AgentId(row.agent_id)).collect();
    let mut found: HashMap<AgentId, Agent> =
        agents::those(conn, &ids).await?.into_iter().map(|agent| (agent.id, agent)).collect();
    let holder = |row: GrantRow| {
        Some(Holder {
            agent: found.remove(&AgentId(row.agent_id))?,
            granted_at: Timestamp::from_micros(row.granted_at),
            last_used_at: row.last_used_at.map(Timestamp::from_micros),
        })
    };
    Ok(Page { items: page.items.into_iter().filter_map(holder).collect(), next })
}

/// Selects the next grants of a capability, in the order of the index.
fn grants(sql: &mut Sql, id: CapabilityId, after: AgentId, count: i64) {
    sql.push("SELECT agent_id, granted_at, last_used_at FROM agent_capabilities WHERE capability_id = ").bind(id.0);
    sql.and("agent_id >", after.0).push(" ORDER BY agent_id").limit(count);
}

fn narrow(sql: &mut Sql, conn: &Conn<'_>, filter: &HolderFilter) {
    if let Some(owner) = &filter.owner {
        sql.and("a.owner =", owner.as_str());
    }
    if let Some(status) = filter.status {
        sql.and("a.status =", status.as_str());
    }
    if let Some(selector) = &filter.selector {
        labels::require(sql, selector, "a.id");
    }
    if let Some(text) = &filter.text {
        contains(sql, conn, "a.name", text);
    }
}

/// Adds the condition that a column contains a text, whatever the case of its letters.
pub(super) fn contains(sql: &mut Sql, conn: &Conn<'_>, column: &str, text: &str) {
    let function = if matches!(conn, Conn::Sqlite(_)) { "INSTR" } else { "STRPOS" };
    sql.push(" AND ").push(function).push("(LOWER(").push(column).push("), ");
    sql.bind(text.to_lowercase().as_str()).push(") > 0");
}

/// Returns the holder at a distance from another, if there are so many.
async fn nth(conn: Conn<'_>, id: CapabilityId, after: AgentId, number: i64) -> Result<Option<AgentId>> {
    const SQL: &str = "SELECT agent_id FROM agent_capabilities WHERE capability_id = $1 AND agent_id > $2 \
        ORDER BY agent_id LIMIT 1 OFFSET $3";
    let found: Option<Uuid> =
        dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(id.0).bind(after.0).bind(number - 1).fetch_optional(c).await)?;
    Ok(found.map(AgentId))
}

/// Counts the agents that hold a capability, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count(conn: Conn<'_>, id: CapabilityId, most: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM \
        (SELECT agent_id FROM agent_capabilities WHERE capability_id = $1 LIMIT +$2) AS holders";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(id.0).bind(most).fetch_one(c).await)?)
}

/// Returns the first agents that hold a capability, up to `most`, sorted by identifier.
///
/// # Errors
/// If the database fails.
pub async fn first(conn: Conn<'_>, id: CapabilityId, most: i64) -> Result<Vec<AgentId>> {
    const SQL: &str = "SELECT agent_id FROM agent_capabilities WHERE capability_id = $1 ORDER BY agent_id LIMIT +$2";
    let ids: Vec<Uuid> = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(id.0).bind(most).fetch_all(c).await)?;
    Ok(ids.into_iter().map(AgentId).collect())
}

/// Returns which of these agents hold a capability.
///
/// # Errors
/// If the database fails.
pub async fn among(mut conn: Conn<'_>, id: CapabilityId, ids: &[AgentId]) -> Result<HashSet<AgentId>> {
    let mut holders = HashSet::new();
    for chunk in even_chunks(ids) {
        let found: Vec<Uuid> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT agent_id FROM agent_capabilities WHERE capability_id = ");
            query.push_bind(id.0).push(" AND agent_id IN (");
            let mut list = query.separated(", ");
            for agent in chunk {
                list.push_bind(agent.0);
            }
            query.push(")").build_query_scalar().fetch_all(c).await
        })?;
        holders.extend(found.into_iter().map(AgentId));
    }
    Ok(holders)
}

/// Revokes every grant of a capability. Returns the agents that held it, sorted.
///
/// # Errors
/// If the database fails.
pub async fn ungrant_all(tx: &mut Tx, id: CapabilityId) -> Result<Vec<AgentId>> {
    const SQL: &str = "DELETE FROM agent_capabilities WHERE capability_id = $1 RETURNING agent_id";
    let holders: Vec<Uuid> = dispatch!(tx.conn(), |c| sqlx::query_scalar(SQL).bind(id.0).fetch_all(c).await)?;
    let mut holders: Vec<_> = holders.into_iter().map(AgentId).collect();
    holders.sort_unstable();
    for holder in &holders {
        tx.mark_changed(*holder);
    }
    Ok(holders)
}

/// Deletes a capability that no agent holds.
///
/// # Errors
/// If the database fails; if an agent holds the capability.
pub async fn delete(tx: &mut Tx, id: CapabilityId) -> Result<()> {
    const SQL: &str = "DELETE FROM capabilities WHERE id = $1";
    execute!(tx.conn(), sqlx::query(SQL).bind(id.0))?;
    Ok(())
}
