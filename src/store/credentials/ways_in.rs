//! Whether an agent that holds `admin:*` could come in and use it.

use uuid::Uuid;

use crate::{
    domain::{AgentId, Result, Timestamp, capability::builtin, token::Credential},
    store::{
        capabilities::holders_in_order,
        db::{Conn, on},
    },
};

/// What a way in must be good for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// It works at this moment, unless it is taken away.
    pub at: Timestamp,
    /// It gives so many more tokens.
    pub tokens: i64,
}

/// That an agent is active, and has a credential other than `$3` that gives it the capability `$1`. A key that was rotated is on its
/// way out, and its successor counts; from where a key works, and how long its tokens live, ends nothing. For `EXISTS`
/// PostgreSQL might hash whole tables, and for equalities take nearly all agents to fail.
macro_rules! comes_in {
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

/// Whether this agent is active, holds `admin:*`, and has such a way in, other than `without`.
///
/// # Errors
/// When the database fails.
pub async fn has_one(conn: Conn<'_>, agent: AgentId, without: Option<Credential>, demand: Demand) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT COUNT(*) FROM agent_capabilities g WHERE g.agent_id = $2 \
         AND g.capability_id = (SELECT id FROM capabilities WHERE name = $1) AND ",
        comes_in!("g.agent_id")
    );
    count(conn, SQL, agent, without, demand).await
}

/// Whether any other active agent that holds `admin:*` has such a way in.
///
/// # Errors
/// When the database fails.
pub async fn another_has_one(conn: Conn<'_>, agent: AgentId, demand: Demand) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT COUNT(*) FROM (SELECT h.agent_id FROM ",
        holders_in_order!(),
        " WHERE h.agent_id <> $2 AND ",
        comes_in!("h.agent_id"),
        " LIMIT 1) AS others"
    );
    count(conn, SQL, agent, None, demand).await
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
    let count: i64 = on!(conn, |c| sqlx::query_scalar(sql)
        .bind(builtin::ADMIN)
        .bind(agent.0)
        .bind(without)
        .bind(demand.at.as_micros())
        .bind(demand.tokens)
        .fetch_one(c)
        .await?);
    Ok(count > 0)
}
