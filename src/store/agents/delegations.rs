//! Delegations: which agents may act on behalf of which (RFC 8693).

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{Agent, AgentId, CapabilityId, DelegationId, Result, Timestamp, token::delegation::Delegation},
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

/// Returns the first `most` delegations by which another agent can act for a holder of a capability, each with the
/// holder, and their number up to `count_max`. Looks at the delegations of the first `count_max` holders.
///
/// # Errors
/// If the database fails.
pub async fn of_holders(
    mut conn: Conn<'_>,
    capability: CapabilityId,
    most: i64,
    count_max: i64,
) -> Result<(Vec<(Agent, Delegation)>, i64)> {
    const HOLDERS: &str =
        "(SELECT agent_id FROM agent_capabilities WHERE capability_id = $1 ORDER BY agent_id LIMIT +$2)";
    let first = format!(
        "SELECT d.id, d.agent_id, d.delegate_id, a.name AS delegate_name, d.created_at FROM {HOLDERS} AS h \
         JOIN delegations d ON d.agent_id = h.agent_id JOIN agents a ON a.id = d.delegate_id LIMIT +$3"
    );
    let count = format!(
        "SELECT COUNT(*) FROM (SELECT d.id FROM {HOLDERS} AS h JOIN delegations d ON d.agent_id = h.agent_id LIMIT +$3) \
         AS counted"
    );
    let rows: Vec<Row> = dispatch!(&mut conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(first))
        .bind(capability.0)
        .bind(count_max)
        .bind(most)
        .fetch_all(c)
        .await)?;
    let count: i64 = dispatch!(&mut conn, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .bind(capability.0)
        .bind(count_max)
        .bind(count_max)
        .fetch_one(c)
        .await)?;
    let ids: Vec<_> = rows.iter().map(|row| AgentId(row.agent_id)).collect();
    let agents: HashMap<_, _> = super::those(conn, &ids).await?.into_iter().map(|agent| (agent.id, agent)).collect();
    let named = rows.into_iter().map(Delegation::from);
    let named = named.filter_map(|delegation| Some((agents.get(&delegation.agent)?.clone(), delegation)));
    Ok((named.collect(), count))
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
