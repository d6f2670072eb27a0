//! Agents.

pub mod bulk_acts;
mod conditions;
pub mod delegations;
pub mod facts;
pub mod impact;
pub mod labels;
mod listing;
mod owners;
mod search;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    Tx,
    db::{Conn, dispatch, execute},
    even_chunks, stored,
};
use crate::domain::{
    Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Result, Timestamp, agent::labels::Labels,
};

pub use listing::{Estimate, count_up_to, estimate, list};
pub use owners::{count_owned, owners};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    owner: String,
    status: String,
    agent_type: String,
    metadata_json: String,
    labels: Option<String>,
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
            labels: labels::of_column(row.labels.as_deref())?,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            suspended_at: row.suspended_at.map(Timestamp::from_micros),
            revoked_at: row.revoked_at.map(Timestamp::from_micros),
            token_epoch: row.token_epoch,
        })
    }
}

/// Inserts an agent. Returns false if its name is taken.
///
/// # Errors
/// If the database fails.
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
    let inserted = execute!(
        conn,
        sqlx::query(sql)
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
    )?;
    if inserted == 1 {
        tx.counted(agent.status, 1);
        labels::replace(tx, agent, &Labels::default()).await?;
    }
    Ok(inserted == 1)
}

/// Returns the number of agents with each status.
///
/// # Errors
/// If the database fails.
pub async fn counts(conn: Conn<'_>) -> Result<Vec<(AgentStatus, i64)>> {
    const SQL: &str = "SELECT status, agents FROM agent_counts";
    let rows: Vec<(String, i64)> = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await)?;
    rows.iter().map(|(status, agents)| Ok((stored("agent status", AgentStatus::parse(status))?, *agents))).collect()
}

/// Returns the agent with this identifier.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: AgentId) -> Result<Option<Agent>> {
    const SQL: &str = concat!("SELECT ", labels::columns!(), " FROM agents a WHERE a.id = $1");
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(Agent::try_from).transpose()
}

/// Returns the agent with this name.
///
/// # Errors
/// If the database fails.
pub async fn find_by_name(conn: Conn<'_>, name: &AgentName) -> Result<Option<Agent>> {
    const SQL: &str = concat!("SELECT ", labels::columns!(), " FROM agents a WHERE a.name = $1");
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(name.as_str()).fetch_optional(c).await)?;
    row.map(Agent::try_from).transpose()
}

/// Returns those of these agents that exist. They are sorted by identifier if `ids` are.
///
/// # Errors
/// If the database fails.
pub async fn those(mut conn: Conn<'_>, ids: &[AgentId]) -> Result<Vec<Agent>> {
    const SQL: &str = concat!("SELECT ", labels::columns!(), " FROM agents a WHERE a.id IN (");
    let mut agents = Vec::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<Row> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(SQL);
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(") ORDER BY a.id").build_query_as().fetch_all(c).await
        })?;
        for row in rows {
            agents.push(row.try_into()?);
        }
    }
    Ok(agents)
}

/// Returns the names of those of these agents that exist.
///
/// # Errors
/// If the database fails.
pub async fn names(mut conn: Conn<'_>, ids: &[AgentId]) -> Result<Vec<(AgentId, AgentName)>> {
    let mut names = Vec::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, String)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT id, name FROM agents WHERE id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        for (id, name) in rows {
            names.push((AgentId(id), stored("agent name", AgentName::parse(&name))?));
        }
    }
    Ok(names)
}

/// Returns those of these names that agents have.
///
/// # Errors
/// If the database fails.
pub async fn by_names(mut conn: Conn<'_>, wanted: &[AgentName]) -> Result<Vec<(AgentId, AgentName)>> {
    let mut found = Vec::with_capacity(wanted.len());
    for chunk in even_chunks(wanted) {
        let rows: Vec<(Uuid, String)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT id, name FROM agents WHERE name IN (");
            let mut list = query.separated(", ");
            for name in chunk {
                list.push_bind(name.as_str());
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        for (id, name) in rows {
            found.push((AgentId(id), stored("agent name", AgentName::parse(&name))?));
        }
    }
    Ok(found)
}

/// Updates the editable fields of an agent except its labels: see [`labels::replace`]. Returns false if the agent does not exist.
///
/// # Errors
/// If the database fails.
pub async fn update_details(tx: &mut Tx, agent: &Agent) -> Result<bool> {
    const SQL: &str = "UPDATE agents SET description = $2, owner = $3, agent_type = $4, metadata_json = $5, \
        updated_at = $6 WHERE id = $1";
    let updated = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(agent.id.0)
            .bind(&agent.description)
            .bind(&agent.owner)
            .bind(agent.agent_type.as_str())
            .bind(&agent.metadata_json)
            .bind(agent.updated_at.as_micros())
    )?;
    tx.mark_changed(agent.id);
    Ok(updated == 1)
}

/// Moves every agent to a token epoch that is at least `epoch`, so that every token ends.
///
/// # Errors
/// If the database fails.
pub async fn begin_epoch(tx: &mut Tx, epoch: i64) -> Result<()> {
    const SQL: &str = "UPDATE agents SET token_epoch = CASE WHEN token_epoch < $1 THEN $1 ELSE token_epoch + 1 END";
    execute!(tx.conn(), sqlx::query(SQL).bind(epoch))?;
    tx.mark_everything_changed();
    Ok(())
}

/// Updates the status, times and token epoch of an agent. Returns false if its status is no longer `from`.
///
/// # Errors
/// If the database fails.
pub async fn transition(tx: &mut Tx, agent: &Agent, from: AgentStatus) -> Result<bool> {
    const SQL: &str = "UPDATE agents SET status = $3, suspended_at = $4, revoked_at = $5, token_epoch = $6, \
        updated_at = $7 WHERE id = $1 AND status = $2";
    let updated = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(agent.id.0)
            .bind(from.as_str())
            .bind(agent.status.as_str())
            .bind(agent.suspended_at.map(Timestamp::as_micros))
            .bind(agent.revoked_at.map(Timestamp::as_micros))
            .bind(agent.token_epoch)
            .bind(agent.updated_at.as_micros())
    )?;
    if updated == 1 {
        tx.counted(from, -1);
        tx.counted(agent.status, 1);
    }
    tx.mark_changed(agent.id);
    Ok(updated == 1)
}

/// Deletes an agent with its credentials, grants and delegations. Returns false if the agent does not exist.
///
/// # Errors
/// If the database fails.
pub async fn delete(tx: &mut Tx, id: AgentId) -> Result<bool> {
    // The foreign key would delete these rows as well, but not return the agents that they belong to.
    const DELEGATIONS: &str = "DELETE FROM delegations WHERE delegate_id = $1 RETURNING agent_id";
    const SQL: &str = "DELETE FROM agents WHERE id = $1 RETURNING status";
    let delegators: Vec<Uuid> =
        dispatch!(tx.conn(), |c| sqlx::query_scalar(DELEGATIONS).bind(id.0).fetch_all(c).await)?;
    for delegator in delegators {
        tx.mark_changed(AgentId(delegator));
    }
    let status: Option<String> = dispatch!(tx.conn(), |c| sqlx::query_scalar(SQL).bind(id.0).fetch_optional(c).await)?;
    let Some(status) = status else { return Ok(false) };
    tx.counted(stored("agent status", AgentStatus::parse(&status))?, -1);
    tx.mark_changed(id);
    Ok(true)
}
