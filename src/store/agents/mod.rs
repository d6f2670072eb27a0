//! Agents, as stored.

pub mod delegations;
mod listing;
mod search;

use std::collections::BTreeMap;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    Tx,
    db::{Conn, on},
    even_chunks, stored,
};
use crate::domain::{Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Result, Timestamp};

pub use listing::{count_up_to, list, owners};
pub(super) use search::INDEX_TEXT;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    owner: String,
    status: String,
    agent_type: String,
    metadata_json: String,
    created_at: i64,
    updated_at: i64,
    suspended_at: Option<i64>,
    revoked_at: Option<i64>,
    token_epoch: i64,
}

impl TryFrom<Row> for Agent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: AgentId(row.id),
            name: stored("agent name", AgentName::parse(&row.name))?,
            description: row.description,
            owner: row.owner,
            status: stored("agent status", AgentStatus::parse(&row.status))?,
            agent_type: stored("agent type", AgentType::parse(&row.agent_type))?,
            metadata_json: row.metadata_json,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            suspended_at: row.suspended_at.map(Timestamp::from_micros),
            revoked_at: row.revoked_at.map(Timestamp::from_micros),
            token_epoch: row.token_epoch,
        })
    }
}

/// Adds an agent; `false` when its name is taken.
///
/// # Errors
/// When the database fails.
pub async fn insert(tx: &mut Tx, agent: &Agent) -> Result<bool> {
    const POSTGRES: &str = "INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, \
        created_at, updated_at, suspended_at, revoked_at, token_epoch) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (name) DO NOTHING";
    const SQLITE: &str = "INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, \
        created_at, updated_at, suspended_at, revoked_at, token_epoch, number) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, (SELECT COALESCE(MAX(number), 0) + 1 FROM agents)) \
        ON CONFLICT (name) DO NOTHING";
    let conn = tx.conn();
    let sql = if matches!(conn, Conn::Sqlite(_)) { SQLITE } else { POSTGRES };
    let inserted = on!(conn, |c| sqlx::query(sql)
        .bind(agent.id.0)
        .bind(agent.name.as_str())
        .bind(&agent.description)
        .bind(&agent.owner)
        .bind(agent.status.as_str())
        .bind(agent.agent_type.as_str())
        .bind(&agent.metadata_json)
        .bind(agent.created_at.as_micros())
        .bind(agent.updated_at.as_micros())
        .bind(agent.suspended_at.map(Timestamp::as_micros))
        .bind(agent.revoked_at.map(Timestamp::as_micros))
        .bind(agent.token_epoch)
        .execute(c)
        .await?
        .rows_affected());
    if inserted == 1 {
        tx.counted(agent.status, 1);
    }
    Ok(inserted == 1)
}

/// Keeps the number of agents with each status, so that no page has to count them.
pub(super) async fn count(mut conn: Conn<'_>, counted: &[(AgentStatus, i64)]) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE agent_counts SET agents = agents + $2 WHERE status = $1";
    let mut sums = BTreeMap::new();
    for (status, by) in counted {
        *sums.entry(status.as_str()).or_insert(0) += by;
    }
    for (status, by) in sums {
        on!(&mut conn, |c| sqlx::query(SQL).bind(status).bind(by).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// How many agents there are with each status.
///
/// # Errors
/// When the database fails.
pub async fn counts(conn: Conn<'_>) -> Result<Vec<(AgentStatus, i64)>> {
    const SQL: &str = "SELECT status, agents FROM agent_counts";
    let rows: Vec<(String, i64)> = on!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await?);
    rows.iter().map(|(status, agents)| Ok((stored("agent status", AgentStatus::parse(status))?, *agents))).collect()
}

/// The agent with this identifier.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: Conn<'_>, id: AgentId) -> Result<Option<Agent>> {
    const SQL: &str = "SELECT * FROM agents WHERE id = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await?);
    row.map(Agent::try_from).transpose()
}

/// The agent with this name.
///
/// # Errors
/// When the database fails.
pub async fn find_by_name(conn: Conn<'_>, name: &AgentName) -> Result<Option<Agent>> {
    const SQL: &str = "SELECT * FROM agents WHERE name = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(name.as_str()).fetch_optional(c).await?);
    row.map(Agent::try_from).transpose()
}

/// Those of these agents that there are, in the order of the identifiers if that is theirs.
///
/// # Errors
/// When the database fails.
pub async fn those(mut conn: Conn<'_>, ids: &[AgentId]) -> Result<Vec<Agent>> {
    let mut agents = Vec::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<Row> = on!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT * FROM agents WHERE id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(") ORDER BY id").build_query_as().fetch_all(c).await?
        });
        for row in rows {
            agents.push(row.try_into()?);
        }
    }
    Ok(agents)
}

/// The names of those of these agents that there are.
///
/// # Errors
/// When the database fails.
pub async fn names(mut conn: Conn<'_>, ids: &[AgentId]) -> Result<Vec<(AgentId, AgentName)>> {
    let mut names = Vec::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, String)> = on!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT id, name FROM agents WHERE id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(")").build_query_as().fetch_all(c).await?
        });
        for (id, name) in rows {
            names.push((AgentId(id), stored("agent name", AgentName::parse(&name))?));
        }
    }
    Ok(names)
}

/// Writes the fields of `agent` that may be edited; `false` when it is gone.
///
/// # Errors
/// When the database fails.
pub async fn update_details(conn: Conn<'_>, agent: &Agent) -> Result<bool> {
    const SQL: &str = "UPDATE agents SET description = $2, owner = $3, agent_type = $4, metadata_json = $5, \
        updated_at = $6 WHERE id = $1";
    let updated = on!(conn, |c| sqlx::query(SQL)
        .bind(agent.id.0)
        .bind(&agent.description)
        .bind(&agent.owner)
        .bind(agent.agent_type.as_str())
        .bind(&agent.metadata_json)
        .bind(agent.updated_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(updated == 1)
}

/// Moves an agent to the status, times and token epoch of `agent`; `false` when it no longer has the status `from`.
///
/// # Errors
/// When the database fails.
pub async fn transition(tx: &mut Tx, agent: &Agent, from: AgentStatus) -> Result<bool> {
    const SQL: &str = "UPDATE agents SET status = $3, suspended_at = $4, revoked_at = $5, token_epoch = $6, \
        updated_at = $7 WHERE id = $1 AND status = $2";
    let updated = on!(tx.conn(), |c| sqlx::query(SQL)
        .bind(agent.id.0)
        .bind(from.as_str())
        .bind(agent.status.as_str())
        .bind(agent.suspended_at.map(Timestamp::as_micros))
        .bind(agent.revoked_at.map(Timestamp::as_micros))
        .bind(agent.token_epoch)
        .bind(agent.updated_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    if updated == 1 {
        tx.counted(from, -1);
        tx.counted(agent.status, 1);
    }
    Ok(updated == 1)
}

/// Deletes an agent with its keys and grants; `false` when there was none.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut Tx, id: AgentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM agents WHERE id = $1 RETURNING status";
    let status: Option<String> = on!(tx.conn(), |c| sqlx::query_scalar(SQL).bind(id.0).fetch_optional(c).await?);
    let Some(status) = status else { return Ok(false) };
    tx.counted(stored("agent status", AgentStatus::parse(&status))?, -1);
    Ok(true)
}
