//! What depends on agents: their credentials and their delegations, for one agent or for thousands.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, QueryBuilder};
use uuid::Uuid;

use crate::{
    domain::{AgentId, Result, Timestamp},
    store::{
        db::{Conn, dispatch},
        even_chunks,
    },
};

/// The credentials of some agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// API keys that work, which only those of active agents do.
    pub usable_keys: i64,
    /// Public keys and federated identities of active agents.
    pub others: i64,
    /// When any of the agents last got a token.
    pub last_used_at: Option<Timestamp>,
}

/// Counts the credentials of these agents.
///
/// # Errors
/// If the database fails.
pub async fn credentials(mut conn: Conn<'_>, agents: &[AgentId], now: Timestamp) -> Result<Credentials> {
    let mut total = Credentials::default();
    for chunk in even_chunks(agents) {
        let (keys, others, used, last): (i64, i64, Option<i64>, Option<i64>) = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(
                "SELECT CAST(COALESCE(SUM(CASE WHEN a.status = 'active' THEN (SELECT COUNT(*) FROM api_keys k \
                 WHERE k.agent_id = a.id AND k.status <> 'revoked' AND (k.uses_left IS NULL OR k.uses_left > 0) \
                 AND (k.expires_at IS NULL OR k.expires_at > ",
            );
            query.push_bind(now.as_micros()).push(") AND (k.status = 'active' OR k.grace_ends_at > ");
            query.push_bind(now.as_micros()).push(
                ")) ELSE 0 END), 0) AS BIGINT), \
                 CAST(COALESCE(SUM(CASE WHEN a.status = 'active' THEN \
                 (SELECT COUNT(*) FROM public_keys p WHERE p.agent_id = a.id) \
                 + (SELECT COUNT(*) FROM federated_identities f WHERE f.agent_id = a.id) ELSE 0 END), 0) AS BIGINT), \
                 MAX(a.last_used_at), MAX((SELECT MAX(k.last_used_at) FROM api_keys k WHERE k.agent_id = a.id)) \
                 FROM agents a WHERE a.id IN (",
            );
            let mut list = query.separated(", ");
            for agent in chunk {
                list.push_bind(agent.0);
            }
            query.push(")").build_query_as().fetch_one(c).await
        })?;
        total.usable_keys += keys;
        total.others += others;
        // The agents' column is written once a minute at most, the keys' with each use, but only of keys.
        let used = used.filter(|at| *at > 0).max(last);
        total.last_used_at = total.last_used_at.max(used.map(Timestamp::from_micros));
    }
    Ok(total)
}

/// A direction in which a delegation is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the agents that can act for an agent.
    Delegates,
    /// To the agents that an agent can act for.
    Delegators,
}

/// Counts the other agents with a delegation to or from these agents, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_connected(
    mut conn: Conn<'_>,
    agents: &[AgentId],
    direction: Direction,
    most: usize,
) -> Result<usize> {
    let (wanted, given) = match direction {
        Direction::Delegates => ("delegate_id", "agent_id"),
        Direction::Delegators => ("agent_id", "delegate_id"),
    };
    let own: HashSet<_> = agents.iter().map(|agent| agent.0).collect();
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let mut found = HashSet::new();
    for chunk in even_chunks(agents) {
        let ids: Vec<Uuid> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new(format!("SELECT {wanted} FROM delegations WHERE {given} IN ("));
            let mut list = query.separated(", ");
            for agent in chunk {
                list.push_bind(agent.0);
            }
            query.push(") LIMIT +").push_bind(limit).build_query_scalar().fetch_all(c).await
        })?;
        found.extend(ids.into_iter().filter(|id| !own.contains(id)));
        if found.len() >= most {
            return Ok(most);
        }
    }
    Ok(found.len())
}

/// Returns at most `most` agents with a delegation to or from an agent, with their names, in a fixed order.
///
/// # Errors
/// If the database fails.
pub async fn connected(
    conn: Conn<'_>,
    agent: AgentId,
    direction: Direction,
    most: i64,
) -> Result<Vec<(AgentId, String)>> {
    let (wanted, given) = match direction {
        Direction::Delegates => ("delegate_id", "agent_id"),
        Direction::Delegators => ("agent_id", "delegate_id"),
    };
    let sql = format!(
        "SELECT a.id, a.name FROM (SELECT {wanted} AS id FROM delegations WHERE {given} = $1 \
         ORDER BY {given}, {wanted} LIMIT +$2) AS found JOIN agents a ON a.id = found.id ORDER BY a.id"
    );
    let rows: Vec<(Uuid, String)> =
        dispatch!(conn, |c| sqlx::query_as(AssertSqlSafe(sql)).bind(agent.0).bind(most).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, name)| (AgentId(id), name)).collect())
}
