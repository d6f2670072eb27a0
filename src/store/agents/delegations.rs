//! Delegations: which agents may act on behalf of which (RFC 8693).

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, DelegationId, Result, Timestamp, token::delegation::Delegation},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
    },
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

/// Inserts a delegation. Returns false if the delegate may act on behalf of the agent already.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, delegation: &Delegation) -> Result<bool> {
    const SQL: &str = "INSERT INTO delegations (id, agent_id, delegate_id, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (agent_id, delegate_id) DO NOTHING";
    let inserted = execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(delegation.id.0)
            .bind(delegation.agent.0)
            .bind(delegation.delegate.0)
            .bind(delegation.created_at.as_micros())
    )?;
    tx.mark_changed(delegation.agent);
    Ok(inserted == 1)
}

/// Returns the delegations of an agent, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<Delegation>> {
    const SQL: &str = "SELECT d.id, d.agent_id, d.delegate_id, a.name AS delegate_name, d.created_at \
        FROM delegations d JOIN agents a ON a.id = d.delegate_id WHERE d.agent_id = $1 ORDER BY d.created_at, d.id";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Delegation::from).collect())
}

/// Deletes the delegation of `agent` to `delegate`. Returns false if there was none.
///
/// # Errors
/// If the database fails.
pub async fn delete(tx: &mut Tx, agent: AgentId, delegate: AgentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM delegations WHERE agent_id = $1 AND delegate_id = $2";
    let deleted = execute!(tx.conn(), sqlx::query(SQL).bind(agent.0).bind(delegate.0))?;
    tx.mark_changed(agent);
    Ok(deleted == 1)
}
