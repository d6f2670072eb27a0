//! What an operation on many agents changed, for as long as it can be undone.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{ActorId, AgentId, BulkActId, Result, Timestamp},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
    },
};

/// How long an operation can be undone.
const KEPT: Duration = Duration::from_hours(24);
/// How many old operations a new one deletes, so that no transaction becomes long.
const DELETED: i64 = 4;

/// An operation on many agents that can be undone.
#[derive(Clone, Debug)]
pub struct BulkAct {
    /// Its identifier.
    pub id: BulkActId,
    /// Who did it.
    pub actor: ActorId,
    /// `suspend`, `grant` or `transfer`.
    pub kind: &'static str,
    /// The capability that was granted, or the new owner.
    pub target: Option<String>,
}

/// An operation as it was recorded.
#[derive(Debug, FromRow)]
pub struct Recorded {
    /// Who did it.
    pub actor: Uuid,
    /// See [`BulkAct::kind`].
    pub kind: String,
    /// See [`BulkAct::target`].
    pub target: Option<String>,
}

/// An agent that an operation changed.
#[derive(Clone, Debug, FromRow)]
pub struct Changed {
    /// The agent.
    pub agent_id: Uuid,
    /// When it was changed.
    pub at: i64,
    /// The owner before a transfer.
    pub previous: Option<String>,
}

/// Records the start of an operation, and deletes old ones.
///
/// # Errors
/// If the database fails.
pub async fn begin(tx: &mut Tx, act: &BulkAct, now: Timestamp) -> Result<()> {
    const OLD: &str =
        "DELETE FROM bulk_acts WHERE id IN (SELECT id FROM bulk_acts WHERE at < $1 ORDER BY at LIMIT +$2)";
    const SQL: &str = "INSERT INTO bulk_acts (id, actor, kind, target, at) VALUES ($1, $2, $3, $4, $5)";
    execute!(tx.conn(), sqlx::query(OLD).bind(now.minus(KEPT).as_micros()).bind(DELETED))?;
    execute!(
        tx.conn(),
        sqlx::query(SQL).bind(act.id.0).bind(act.actor.0).bind(act.kind).bind(&act.target).bind(now.as_micros())
    )?;
    Ok(())
}

/// Records that an operation changed an agent.
///
/// # Errors
/// If the database fails.
pub async fn changed(tx: &mut Tx, act: BulkActId, agent: AgentId, at: Timestamp, previous: Option<&str>) -> Result<()> {
    const SQL: &str = "INSERT INTO bulk_act_agents (act_id, agent_id, at, previous) VALUES ($1, $2, $3, $4)";
    execute!(tx.conn(), sqlx::query(SQL).bind(act.0).bind(agent.0).bind(at.as_micros()).bind(previous))?;
    Ok(())
}

/// Returns an operation.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: BulkActId, now: Timestamp) -> Result<Option<Recorded>> {
    const SQL: &str = "SELECT actor, kind, target FROM bulk_acts WHERE id = $1 AND at >= $2";
    let oldest = now.minus(KEPT).as_micros();
    Ok(dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).bind(oldest).fetch_optional(c).await)?)
}

/// Returns the agents that an operation changed and that still exist.
///
/// # Errors
/// If the database fails.
pub async fn agents(conn: Conn<'_>, id: BulkActId) -> Result<Vec<Changed>> {
    const SQL: &str = "SELECT agent_id, at, previous FROM bulk_act_agents WHERE act_id = $1 ORDER BY agent_id";
    Ok(dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_all(c).await)?)
}

/// Records that the change of an agent was undone, so that it is not undone again. Returns false if it already was.
///
/// # Errors
/// If the database fails.
pub async fn undone(tx: &mut Tx, act: BulkActId, agent: AgentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM bulk_act_agents WHERE act_id = $1 AND agent_id = $2";
    Ok(execute!(tx.conn(), sqlx::query(SQL).bind(act.0).bind(agent.0))? == 1)
}
