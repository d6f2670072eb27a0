//! The labels of agents, and conditions on them.

use std::collections::HashMap;

use uuid::Uuid;

use super::facts::is_among;
use crate::{
    domain::{
        Agent, AgentId, Result,
        agent::{
            labels::Labels,
            selector::{Condition, Selector, Term},
        },
    },
    store::{
        Tx,
        db::{
            Conn, execute,
            sql::{Sql, run},
        },
        stored,
    },
};

/// Columns of the agents `a`: their own, and their labels in the form that [`of_column`] reads. Values have no line
/// breaks.
macro_rules! columns {
    () => {
        "a.*, (SELECT string_agg(l.key || '=' || l.value, '\n') FROM agent_labels l WHERE l.agent_id = a.id) AS labels"
    };
}
pub(super) use columns;

/// Reads the labels that [`columns`] selects.
pub(super) fn of_column(lines: Option<&str>) -> Result<Labels> {
    stored("label", Labels::parse_lines(lines.unwrap_or_default()))
}

/// Writes the labels of an agent that had `before`.
///
/// # Errors
/// If the database fails.
pub async fn replace(tx: &mut Tx, agent: &Agent, before: &Labels) -> Result<()> {
    const REMOVE: &str = "DELETE FROM agent_labels WHERE agent_id = $1 AND key = $2";
    const SET: &str = "INSERT INTO agent_labels (agent_id, key, value, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (agent_id, key) DO UPDATE SET value = excluded.value";
    for (key, _) in before.iter().filter(|(key, _)| agent.labels.get(key).is_none()) {
        execute!(tx.conn(), sqlx::query(REMOVE).bind(agent.id.0).bind(key))?;
    }
    for (key, value) in agent.labels.iter().filter(|(key, value)| before.get(key) != Some(*value)) {
        let created_at = agent.created_at.as_micros();
        execute!(tx.conn(), sqlx::query(SET).bind(agent.id.0).bind(key).bind(value).bind(created_at))?;
    }
    tx.mark_changed(agent.id);
    Ok(())
}

/// Returns the labels of these agents. Agents without any are left out.
///
/// # Errors
/// If the database fails.
pub async fn of_all(conn: Conn<'_>, ids: &[AgentId]) -> Result<HashMap<AgentId, Labels>> {
    let mut sql = Sql::default();
    sql.push("SELECT agent_id, string_agg(key || '=' || value, '\n') FROM agent_labels WHERE ");
    is_among(&mut sql, &conn, "agent_id", ids);
    sql.push(" GROUP BY agent_id");
    let rows: Vec<(Uuid, String)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    rows.into_iter().map(|(id, lines)| Ok((AgentId(id), of_column(Some(&lines))?))).collect()
}

/// Adds the conditions of a selector on the labels of the agent that `agent` identifies, such as `a.id`.
pub(in crate::store) fn require(sql: &mut Sql, selector: &Selector, agent: &str) {
    for Term { key, condition } in selector.terms() {
        // Looked up for each agent, and not with `EXISTS`, for which PostgreSQL may hash all agents with the label.
        let value = |sql: &mut Sql| {
            sql.push("(SELECT l.value FROM agent_labels l WHERE l.agent_id = ").push(agent);
            sql.and("l.key =", key.as_str()).push(")");
        };
        sql.push(" AND ");
        match condition {
            Condition::Present => {
                value(sql);
                sql.push(" IS NOT NULL");
            }
            Condition::Absent => {
                value(sql);
                sql.push(" IS NULL");
            }
            Condition::In(values) => {
                value(sql);
                is_one_of(sql, " IN (", values.iter());
            }
            Condition::NotIn(values) => {
                sql.push("COALESCE(");
                value(sql);
                is_one_of(sql, " NOT IN (", values.iter());
                sql.push(", TRUE)");
            }
        }
    }
}

fn is_one_of<'v>(sql: &mut Sql, operator: &str, values: impl Iterator<Item = &'v String>) {
    sql.push(operator);
    for (number, value) in values.enumerate() {
        sql.push(if number == 0 { "" } else { ", " }).bind(value.as_str());
    }
    sql.push(")");
}

/// Returns the conditions that the index of labels looks up: those that only agents with a label fulfil.
pub(in crate::store) fn looked_up(selector: &Selector) -> impl Iterator<Item = &Term> {
    selector.terms().iter().filter(|term| matches!(term.condition, Condition::Present | Condition::In(_)))
}

/// Adds a `FROM` clause for the labels `l` that fulfil a condition of [`looked_up`].
pub(in crate::store) fn from_labels(sql: &mut Sql, term: &Term) {
    sql.push(" FROM agent_labels l WHERE l.key = ").bind(term.key.as_str());
    if let Condition::In(values) = &term.condition {
        is_one_of(sql.push(" AND l.value"), " IN (", values.iter());
    }
}
