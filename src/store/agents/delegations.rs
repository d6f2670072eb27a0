//! Who may act for whom, as stored.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, DelegationId, Result, Timestamp, token::delegation::Delegation},
    store::db::{Conn, on},
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    delegate_id: Uuid,
    delegate_name: String,
    created_at: i64,
}

impl From<Row> for Delegation {
    fn from(row: Row) -> Self {
        Self {
            id: DelegationId(row.id),
            agent: AgentId(row.agent_id),
            delegate: AgentId(row.delegate_id),
            delegate_name: row.delegate_name,
            created_at: Timestamp::from_micros(row.created_at),
        }
    }
}

/// Lets an agent act for another; `false` when it may already.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, delegation: &Delegation) -> Result<bool> {
    const SQL: &str = "INSERT INTO delegations (id, agent_id, delegate_id, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (agent_id, delegate_id) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(delegation.id.0)
        .bind(delegation.agent.0)
        .bind(delegation.delegate.0)
        .bind(delegation.created_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// Who may act for an agent, the first allowed first.
///
/// # Errors
/// When the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<Delegation>> {
    const SQL: &str = "SELECT d.id, d.agent_id, d.delegate_id, a.name AS delegate_name, d.created_at \
        FROM delegations d JOIN agents a ON a.id = d.delegate_id WHERE d.agent_id = $1 ORDER BY d.created_at, d.id";
    let rows: Vec<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(Delegation::from).collect())
}

/// Forbids what was allowed; `false` when it was not.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: Conn<'_>, agent: AgentId, delegate: AgentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM delegations WHERE agent_id = $1 AND delegate_id = $2";
    let deleted = on!(conn, |c| sqlx::query(SQL).bind(agent.0).bind(delegate.0).execute(c).await?.rows_affected());
    Ok(deleted == 1)
}
