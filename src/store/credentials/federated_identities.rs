//! Federated identities: tokens of other issuers that authenticate agents.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{
        AgentId, Error, FederatedIdentityId, Result, Timestamp,
        credential::federation::{FederatedIdentity, Trust},
    },
    store::{
        Tx,
        db::{Conn, dispatch, execute},
        stored,
    },
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    issuer: String,
    jwks_uri: Option<String>,
    audience: String,
    claims: String,
    created_at: i64,
}

impl TryFrom<Row> for FederatedIdentity {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: FederatedIdentityId(row.id),
            agent: AgentId(row.agent_id),
            trust: Trust {
                issuer: row.issuer,
                jwks_uri: row.jwks_uri,
                audience: row.audience,
                claims: stored("set of claims", serde_json::from_str(&row.claims))?,
            },
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

/// Inserts a federated identity.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, identity: &FederatedIdentity) -> Result<()> {
    const SQL: &str = "INSERT INTO federated_identities (id, agent_id, issuer, jwks_uri, audience, claims, created_at, \
        subject) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let trust = &identity.trust;
    let claims = serde_json::to_string(&trust.claims).map_err(|error| Error::Internal(Box::new(error)))?;
    execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(identity.id.0)
            .bind(identity.agent.0)
            .bind(&trust.issuer)
            .bind(&trust.jwks_uri)
            .bind(&trust.audience)
            .bind(&claims)
            .bind(identity.created_at.as_micros())
            .bind(trust.claims.get("sub"))
    )?;
    tx.mark_changed(identity.agent);
    Ok(())
}

/// Returns the federated identities of an agent, oldest first. There are at most 20.
///
/// # Errors
/// If the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId) -> Result<Vec<FederatedIdentity>> {
    const SQL: &str = "SELECT * FROM federated_identities WHERE agent_id = $1 ORDER BY created_at, id";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(agent.0).fetch_all(c).await)?;
    rows.into_iter().map(FederatedIdentity::try_from).collect()
}

/// Returns at most `limit` identities that trust an issuer and require this `sub` or none.
///
/// # Errors
/// If the database fails.
pub async fn of_subject(
    conn: Conn<'_>,
    issuer: &str,
    subject: Option<&str>,
    limit: i64,
) -> Result<Vec<FederatedIdentity>> {
    const SQL: &str =
        "SELECT * FROM federated_identities WHERE issuer = $1 AND (subject = $2 OR subject IS NULL) LIMIT +$3";
    let rows: Vec<Row> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(issuer).bind(subject).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(FederatedIdentity::try_from).collect()
}

/// Returns the other agents with an identity that could match the same token. An identity with unreadable claims is
/// included.
///
/// # Errors
/// If the database fails.
pub async fn overlapping(conn: Conn<'_>, agent: AgentId, trust: &Trust) -> Result<Vec<AgentId>> {
    /// The index skips identities that require another `sub`.
    const OF_SUBJECT: &str = "SELECT agent_id, claims FROM federated_identities \
        WHERE issuer = $1 AND agent_id <> $2 AND (subject = $3 OR subject IS NULL)";
    const OF_ISSUER: &str = "SELECT agent_id, claims FROM federated_identities WHERE issuer = $1 AND agent_id <> $2";
    let subject = trust.claims.get("sub");
    let mut overlapping = BTreeSet::new();
    dispatch!(conn, |c| {
        let query = sqlx::query_as::<_, (Uuid, String)>(if subject.is_some() { OF_SUBJECT } else { OF_ISSUER });
        let query = query.bind(&trust.issuer).bind(agent.0);
        let query = if subject.is_some() { query.bind(subject) } else { query };
        // Streamed, because every agent may trust the same issuer.
        let mut rows = query.fetch(c);
        while let Some((other, claims)) = rows.try_next().await? {
            if serde_json::from_str(&claims).map_or(true, |claims| trust.overlaps(&claims)) {
                overlapping.insert(AgentId(other));
            }
        }
        Ok(())
    })?;
    Ok(overlapping.into_iter().collect())
}

/// Deletes a federated identity of an agent and returns it. Returns `None` if the agent has no such identity.
///
/// # Errors
/// If the database fails.
pub async fn delete(tx: &mut Tx, agent: AgentId, id: FederatedIdentityId) -> Result<Option<FederatedIdentity>> {
    const SQL: &str = "DELETE FROM federated_identities WHERE id = $1 AND agent_id = $2 RETURNING *";
    let row: Option<Row> =
        dispatch!(tx.conn(), |c| sqlx::query_as(SQL).bind(id.0).bind(agent.0).fetch_optional(c).await)?;
    tx.mark_changed(agent);
    row.map(FederatedIdentity::try_from).transpose()
}
