//! Checks whether an agent that holds `admin:*` can still authenticate.

use uuid::Uuid;

use crate::{
    domain::{AgentId, ApiKeyId, Result, Timestamp, capability::builtin, token::Credential},
    store::{
        capabilities::holders_in_order,
        db::{
            Conn, dispatch,
            sql::{Sql, run},
        },
    },
};

/// What a credential must allow.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// It is valid at this time, unless it is revoked before.
    pub at: Timestamp,
    /// It can still be exchanged for this many tokens.
    pub tokens: i64,
}

/// The condition that an agent is active and has a credential other than `$3` that gives it the capability `$1`.
///
/// Rotated keys do not qualify, because they expire soon and have a successor. The networks of a key and the lifetime
/// of its tokens do not matter. The condition avoids `EXISTS`, for which PostgreSQL may hash whole tables, and
/// comparisons with `=`, which it expects to fail for nearly all agents.
macro_rules! can_authenticate {
    ($agent:literal) => {
        concat!(
            "(SELECT 1 FROM agents WHERE status = 'active' AND id = ",
            $agent,
            ") IS NOT NULL AND COALESCE((SELECT 1 FROM api_keys WHERE agent_id = ",
            $agent,
            " AND id <> $3 AND status = 'active' AND (expires_at IS NULL OR expires_at > $4) \
            AND (uses_left IS NULL OR uses_left >= $5) AND (scope IS NULL \
            OR REPLACE(' ' || scope || ' ', ' ' || $1 || ' ', '') <> ' ' || scope || ' ') LIMIT 1), \
            (SELECT 1 FROM public_keys WHERE id <> $3 AND agent_id = ",
            $agent,
            " LIMIT 1), (SELECT 1 FROM federated_identities WHERE id <> $3 AND agent_id = ",
            $agent,
            " LIMIT 1)) IS NOT NULL"
        )
    };
}

/// Returns true if this agent is active, holds `admin:*`, and has such a credential other than `without`.
///
/// # Errors
/// If the database fails.
pub async fn has_one(conn: Conn<'_>, agent: AgentId, without: Option<Credential>, demand: Demand) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT COUNT(*) FROM agent_capabilities g WHERE g.agent_id = $2 \
         AND g.capability_id = (SELECT id FROM capabilities WHERE name = $1) AND ",
        can_authenticate!("g.agent_id")
    );
    count(conn, SQL, agent, without, demand).await
}

/// Returns true if another active agent that holds `admin:*` has such a credential.
///
/// # Errors
/// If the database fails.
pub async fn another_has_one(conn: Conn<'_>, agent: AgentId, demand: Demand) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT COUNT(*) FROM (SELECT h.agent_id FROM ",
        holders_in_order!(),
        " WHERE h.agent_id <> $2 AND ",
        can_authenticate!("h.agent_id"),
        " LIMIT 1) AS others"
    );
    count(conn, SQL, agent, None, demand).await
}

/// Returns true if an active agent other than these holds `admin:*` and has such a credential.
///
/// # Errors
/// If the database fails.
pub async fn any_other_has_one(conn: Conn<'_>, agents: &[AgentId], demand: Demand) -> Result<bool> {
    const SQLITE: &str = concat!(
        "SELECT COUNT(*) FROM (SELECT h.agent_id FROM ",
        holders_in_order!(),
        " WHERE h.agent_id NOT IN (SELECT unhex(value) FROM json_each($2)) AND ",
        can_authenticate!("h.agent_id"),
        " LIMIT 1) AS others"
    );
    const POSTGRES: &str = concat!(
        "SELECT COUNT(*) FROM (SELECT h.agent_id FROM ",
        holders_in_order!(),
        " WHERE h.agent_id <> ALL (string_to_array($2, ',')::uuid[]) AND ",
        can_authenticate!("h.agent_id"),
        " LIMIT 1) AS others"
    );
    let (sql, list) = if matches!(conn, Conn::Sqlite(_)) {
        let ids: Vec<_> = agents.iter().map(|id| format!("\"{}\"", id.0.simple())).collect();
        (SQLITE, format!("[{}]", ids.join(",")))
    } else {
        (POSTGRES, agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    };
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(sql)
        .bind(builtin::ADMIN)
        .bind(list)
        .bind(Uuid::nil())
        .bind(demand.at.as_micros())
        .bind(demand.tokens)
        .fetch_one(c)
        .await)?;
    Ok(count > 0)
}

async fn count(
    conn: Conn<'_>,
    sql: &'static str,
    agent: AgentId,
    without: Option<Credential>,
    demand: Demand,
) -> Result<bool> {
    let without = match without {
        Some(Credential::ApiKey(id)) => id.0,
        Some(Credential::PublicKey(id)) => id.0,
        Some(Credential::FederatedIdentity(id)) => id.0,
        None => Uuid::nil(),
    };
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(sql)
        .bind(builtin::ADMIN)
        .bind(agent.0)
        .bind(without)
        .bind(demand.at.as_micros())
        .bind(demand.tokens)
        .fetch_one(c)
        .await)?;
    Ok(count > 0)
}

/// Returns true if any active agent that holds `admin:*`, or only `agent` if it is given, has such a credential besides
/// these keys.
///
/// # Errors
/// If the database fails.
pub async fn any_without(conn: Conn<'_>, agent: Option<AgentId>, without: &[ApiKeyId], demand: Demand) -> Result<bool> {
    const HOLDERS: &str = concat!("SELECT COUNT(*) FROM (SELECT h.agent_id FROM ", holders_in_order!(), " WHERE ");
    const ACTIVE: &str = "(SELECT 1 FROM agents WHERE status = 'active' AND id = h.agent_id) IS NOT NULL";
    const KEYS: &str = " AND COALESCE((SELECT 1 FROM api_keys WHERE agent_id = h.agent_id AND status = 'active'";
    const OTHERS: &str = " LIMIT 1), (SELECT 1 FROM public_keys WHERE agent_id = h.agent_id LIMIT 1), \
        (SELECT 1 FROM federated_identities WHERE agent_id = h.agent_id LIMIT 1)) IS NOT NULL LIMIT 1) AS any_of_them";
    let mut sql = Sql::default();
    // The first parameter is that of the holders.
    sql.values.push(builtin::ADMIN.into());
    sql.push(HOLDERS).push(ACTIVE);
    if let Some(agent) = agent {
        sql.and("h.agent_id =", agent.0);
    }
    sql.push(KEYS).push(" AND (expires_at IS NULL OR expires_at > ").bind(demand.at.as_micros());
    sql.push(") AND (uses_left IS NULL OR uses_left >= ").bind(demand.tokens);
    sql.push(") AND (scope IS NULL OR REPLACE(' ' || scope || ' ', ' ' || $1 || ' ', '') <> ' ' || scope || ' ')");
    for (number, key) in without.iter().enumerate() {
        sql.push(if number == 0 { " AND id NOT IN (" } else { ", " }).bind(key.0);
    }
    sql.push(if without.is_empty() { "" } else { ")" }).push(OTHERS);
    let count: i64 = run!(conn, sqlx::query_scalar, sql, fetch_one)?;
    Ok(count > 0)
}
