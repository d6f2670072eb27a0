//! Capabilities and their grants.

pub mod holders;
pub mod uses;

use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    Tx,
    db::{
        Conn, dispatch, execute,
        sql::{Sql, run},
    },
    even_chunks, stored,
};
use crate::domain::{
    ActorId, AgentId, Capability, CapabilityId, CapabilityName, CapabilitySet, Error, Limit, Page, Result, Timestamp,
    capability::{Position, builtin},
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    created_at: i64,
}

impl TryFrom<Row> for Capability {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: CapabilityId(row.id),
            name: stored("capability name", CapabilityName::parse(&row.name))?,
            description: row.description,
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

/// Inserts a capability. Returns false if its name is taken.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, capability: &Capability) -> Result<bool> {
    const SQL: &str = "INSERT INTO capabilities (id, name, description, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (name) DO NOTHING";
    let inserted = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(capability.id.0)
            .bind(capability.name.as_str())
            .bind(&capability.description)
            .bind(capability.created_at.as_micros())
    )?;
    Ok(inserted == 1)
}

/// Returns the capability with this identifier.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: CapabilityId) -> Result<Option<Capability>> {
    const SQL: &str = "SELECT * FROM capabilities WHERE id = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(Capability::try_from).transpose()
}

/// Returns the capability with this name.
///
/// # Errors
/// If the database fails.
pub async fn find_by_name(conn: Conn<'_>, name: &str) -> Result<Option<Capability>> {
    const SQL: &str = "SELECT * FROM capabilities WHERE name = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(name).fetch_optional(c).await)?;
    row.map(Capability::try_from).transpose()
}

/// Returns the first of these names that is not registered.
///
/// # Errors
/// If the database fails.
pub async fn first_unregistered(mut conn: Conn<'_>, names: &CapabilitySet) -> Result<Option<String>> {
    let names: Vec<&str> = names.iter().collect();
    let mut registered = HashSet::with_capacity(names.len());
    for chunk in even_chunks(&names) {
        let found: Vec<String> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT name FROM capabilities WHERE name IN (");
            let mut list = query.separated(", ");
            for name in chunk {
                list.push_bind(*name);
            }
            query.push(")").build_query_scalar().fetch_all(c).await
        })?;
        registered.extend(found);
    }
    Ok(names.into_iter().find(|name| !registered.contains(*name)).map(str::to_owned))
}

/// Returns a page of capabilities after `after` whose name or description contains `text`, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list(
    conn: Conn<'_>,
    text: Option<&str>,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<Capability, Position>> {
    let (created_at, id) = after.map_or((i64::MIN, Uuid::nil()), |(at, id)| (at.as_micros(), id.0));
    let mut sql = Sql { is_one_plan: true, ..Sql::default() };
    sql.push("SELECT id, name, description, created_at FROM capabilities WHERE (created_at, id) > (");
    sql.bind(created_at).push(", ").bind(id).push(")");
    if let Some(text) = text {
        holders::contains(&mut sql, &conn, "name || ' ' || description", text);
    }
    sql.push(" ORDER BY created_at, id").limit(i64::from(limit.get()) + 1);
    let rows: Vec<Row> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let capabilities = rows.into_iter().map(Capability::try_from).collect::<Result<_>>()?;
    Ok(Page::cut(capabilities, limit, |capability: &Capability| (capability.created_at, capability.id)))
}

/// Returns the capabilities that are granted to an agent, sorted by name.
///
/// # Errors
/// If the database fails.
pub async fn held_by(conn: Conn<'_>, agent: AgentId) -> Result<Vec<Capability>> {
    const SQL: &str = "SELECT c.* FROM agent_capabilities g JOIN capabilities c ON c.id = g.capability_id \
        WHERE g.agent_id = $1";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    let mut held = rows.into_iter().map(Capability::try_from).collect::<Result<Vec<_>>>()?;
    // Sorted here, because the two databases sort names by different rules.
    held.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(held)
}

/// Returns the capabilities that are granted to any of these agents.
///
/// # Errors
/// If the database fails.
pub async fn held_by_any(mut conn: Conn<'_>, agents: &[AgentId]) -> Result<CapabilitySet> {
    let mut held = HashSet::new();
    for chunk in even_chunks(agents) {
        let names: Vec<String> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(
                "SELECT DISTINCT c.name FROM agent_capabilities g JOIN capabilities c ON c.id = g.capability_id \
                 WHERE g.agent_id IN (",
            );
            let mut list = query.separated(", ");
            for agent in chunk {
                list.push_bind(agent.0);
            }
            query.push(")").build_query_scalar().fetch_all(c).await
        })?;
        held.extend(names);
    }
    held.iter().map(|name| stored("capability", CapabilityName::parse(name))).collect()
}

/// Updates the description of a capability.
///
/// # Errors
/// If the database fails.
pub async fn describe(tx: &mut Tx, id: CapabilityId, description: &str) -> Result<()> {
    const SQL: &str = "UPDATE capabilities SET description = $2 WHERE id = $1";
    execute!(tx.conn(), sqlx::query(SQL).bind(id.0).bind(description))?;
    Ok(())
}

/// Counts the agents that hold each of these capabilities, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_holders(mut conn: Conn<'_>, ids: &[CapabilityId], most: i64) -> Result<HashMap<CapabilityId, i64>> {
    let mut counts = HashMap::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, i64)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(
                "SELECT c.id, (SELECT COUNT(*) FROM \
                 (SELECT g.agent_id FROM agent_capabilities g WHERE g.capability_id = c.id LIMIT +",
            );
            query.push_bind(most).push(") AS holders) FROM capabilities c WHERE c.id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        counts.extend(rows.into_iter().map(|(id, count)| (CapabilityId(id), count)));
    }
    Ok(counts)
}

/// Counts the agents that hold any capability, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_holding(conn: Conn<'_>, most: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT DISTINCT agent_id FROM agent_capabilities LIMIT +$1) AS holders";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(most).fetch_one(c).await)?)
}

/// Grants a capability to an agent. Returns false if the agent holds it already.
///
/// # Errors
/// If the database fails.
pub async fn grant(
    tx: &mut Tx,
    agent: AgentId,
    capability: CapabilityId,
    granted_by: Option<ActorId>,
    at: Timestamp,
) -> Result<bool> {
    const SQL: &str = "INSERT INTO agent_capabilities (agent_id, capability_id, granted_by, granted_at) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (agent_id, capability_id) DO NOTHING";
    let inserted = execute!(
        tx.conn(),
        sqlx::query(SQL).bind(agent.0).bind(capability.0).bind(granted_by.map(|id| id.0)).bind(at.as_micros())
    )?;
    tx.mark_changed(agent);
    Ok(inserted == 1)
}

/// Returns when a capability was granted to an agent that holds it.
///
/// # Errors
/// If the database fails.
pub async fn granted_at(conn: Conn<'_>, agent: AgentId, capability: CapabilityId) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT granted_at FROM agent_capabilities WHERE agent_id = $1 AND capability_id = $2";
    let at: Option<i64> =
        dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(agent.0).bind(capability.0).fetch_optional(c).await)?;
    Ok(at.map(Timestamp::from_micros))
}

/// Revokes the grant of a capability. Returns false if the agent did not hold it.
///
/// # Errors
/// If the database fails.
pub async fn ungrant(tx: &mut Tx, agent: AgentId, capability: CapabilityId) -> Result<bool> {
    const SQL: &str = "DELETE FROM agent_capabilities WHERE agent_id = $1 AND capability_id = $2";
    let deleted = execute!(tx.conn(), sqlx::query(SQL).bind(agent.0).bind(capability.0))?;
    tx.mark_changed(agent);
    Ok(deleted == 1)
}

/// The agents that hold the capability `$1`, in the order of the index. Without this order PostgreSQL would scan all
/// agents, because it assumes that every capability has about the same number of holders.
macro_rules! holders_in_order {
    () => {
        "(SELECT g.agent_id FROM agent_capabilities g WHERE g.capability_id = (SELECT id FROM capabilities WHERE name = $1) \
         ORDER BY g.capability_id, g.agent_id) AS h"
    };
}
pub(super) use holders_in_order;

/// Returns true if any agent holds `admin:*`, whatever its status. Then the database has been set up.
///
/// # Errors
/// If the database fails.
pub async fn has_administrator(conn: Conn<'_>) -> Result<bool> {
    const SQL: &str =
        concat!("SELECT COUNT(*) FROM (SELECT h.agent_id FROM ", holders_in_order!(), " LIMIT 1) AS any_holder");
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(builtin::ADMIN).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Returns the oldest active agent that holds `admin:*`.
///
/// # Errors
/// If the database fails.
pub async fn first_administrator(conn: Conn<'_>) -> Result<Option<AgentId>> {
    const SQL: &str = concat!(
        "SELECT h.agent_id FROM ",
        holders_in_order!(),
        " WHERE (SELECT status FROM agents WHERE id = h.agent_id) = 'active' \
         ORDER BY (SELECT created_at FROM agents WHERE id = h.agent_id), h.agent_id LIMIT 1"
    );
    let id: Option<Uuid> = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(builtin::ADMIN).fetch_optional(c).await)?;
    Ok(id.map(AgentId))
}
