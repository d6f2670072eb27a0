//! Agents: register, read, edit, suspend, reactivate, revoke and delete.

pub mod capabilities;
pub mod delegates;

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::{
    Services,
    core::{
        act::Act,
        agent::{self, NOT_FOUND},
        caller::Caller,
        last_administrator::require_other_administrator,
        policy::{Action, not_oneself},
        power,
    },
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Page, Result, Timestamp,
        agent::{Filter, Position, Sort},
        audit::{AuditAction, Changes, Resource},
    },
    store::{agents, credentials::api_keys, names::Named},
};

/// A new agent.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// The unique name.
    pub name: AgentName,
    /// The person or team that is responsible for the agent.
    pub owner: String,
    /// The purpose of the agent.
    pub description: String,
    /// The type of the agent.
    pub agent_type: AgentType,
    /// Any JSON, which AIMS stores but does not interpret.
    pub metadata_json: String,
}

/// Changes to an agent. Fields that are `None` stay unchanged.
#[derive(Clone, Debug, Default)]
pub struct AgentEdit {
    /// New description.
    pub description: Option<String>,
    /// New owner.
    pub owner: Option<String>,
    /// New type.
    pub agent_type: Option<AgentType>,
    /// New metadata.
    pub metadata_json: Option<String>,
    /// If set, the edit fails unless the agent was last changed at this time.
    pub unchanged_since: Option<Timestamp>,
}

/// Registers an agent, without any capabilities.
///
/// # Errors
/// [`Error::Conflict`] if the name is taken or too similar to one that is.
pub async fn create(services: &Services, caller: &Caller, new: NewAgent) -> Result<Agent> {
    let id = AgentId(services.env.uuid());
    services
        .change(caller, Action::CreateAgent, move |act| {
            Box::pin(async move {
                let agent = register(act, id, new).await?;
                act.require_distinct(Named::Agent, agent.name.as_str()).await?;
                Ok(agent)
            })
        })
        .await
}

pub(super) async fn register(act: &mut Act<'_>, id: AgentId, new: NewAgent) -> Result<Agent> {
    let agent = Agent {
        id,
        name: new.name,
        description: new.description,
        owner: new.owner,
        status: AgentStatus::Active,
        agent_type: new.agent_type,
        metadata_json: new.metadata_json,
        created_at: act.now,
        updated_at: act.now,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    };
    if !agents::insert(act.tx, &agent).await? {
        return Err(Error::Conflict("Agent name already exists".into()));
    }
    let details = json!({ "name": agent.name.as_str(), "owner": agent.owner });
    act.audit(AuditAction::AgentCreated, Resource::Agent(id), Some(id), details);
    Ok(agent)
}

/// Returns a page of agents. A page may have fewer than `limit` agents although there are more pages: see
/// [`agents::list`].
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn list(
    services: &Services,
    caller: &Caller,
    filter: &Filter,
    sort: Sort,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<Agent, Position>> {
    services.permit(caller, Action::ListAgents).await?;
    agents::list(services.store.read().await?.conn(), filter, sort, after, limit).await
}

/// Returns an agent.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: AgentId) -> Result<Agent> {
    services.permit(caller, Action::ReadAgent).await?;
    let known = services.principals.details(&services.store, id).await?;
    known.map(Arc::unwrap_or_clone).ok_or(NOT_FOUND)
}

/// Returns the names of these agents. Agents that do not exist are left out.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn names(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<HashMap<AgentId, AgentName>> {
    services.permit(caller, Action::ListAgents).await?;
    Ok(agents::names(services.store.read().await?.conn(), ids).await?.into_iter().collect())
}

/// Returns the agent with this name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn by_name(services: &Services, caller: &Caller, name: &AgentName) -> Result<Agent> {
    services.permit(caller, Action::ReadAgent).await?;
    agents::find_by_name(services.store.read().await?.conn(), name).await?.ok_or(NOT_FOUND)
}

/// Edits an agent. An edit that changes nothing is not recorded.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] if the agent was changed after [`AgentEdit::unchanged_since`].
pub async fn update(services: &Services, caller: &Caller, id: AgentId, edit: AgentEdit) -> Result<Agent> {
    services
        .change(caller, Action::UpdateAgent, move |act| {
            Box::pin(async move {
                let mut agent = agent::find(act.conn(), id).await?;
                if edit.unchanged_since.is_some_and(|seen| seen != agent.updated_at) {
                    return Err(Error::Conflict("Somebody else changed this agent in the meantime".into()));
                }
                let before = agent.clone();
                agent.description = edit.description.unwrap_or(agent.description);
                agent.owner = edit.owner.unwrap_or(agent.owner);
                agent.agent_type = edit.agent_type.unwrap_or(agent.agent_type);
                agent.metadata_json = edit.metadata_json.unwrap_or(agent.metadata_json);
                let changes = changes(&before, &agent);
                if changes.is_empty() {
                    return Ok(agent);
                }
                agent.updated_at = act.now;
                if !agents::update_details(act.tx, &agent).await? {
                    return Err(NOT_FOUND);
                }
                let details = json!({ "updated_fields": changes.fields(), "changes": changes });
                act.audit(AuditAction::AgentUpdated, Resource::Agent(id), Some(id), details);
                Ok(agent)
            })
        })
        .await
}

fn changes(before: &Agent, after: &Agent) -> Changes {
    Changes::of([
        ("description", before.description.as_str(), after.description.as_str()),
        ("owner", &before.owner, &after.owner),
        ("agent_type", before.agent_type.as_str(), after.agent_type.as_str()),
        ("metadata_json", &before.metadata_json, &after.metadata_json),
    ])
}

/// Suspends an agent. Its credentials stop working until it is reactivated, and its tokens end permanently. Suspending
/// a suspended agent changes nothing.
///
/// # Errors
/// [`Error::Refused`] for the caller, a revoked agent, and the last active agent that holds `admin:*` and can
/// authenticate.
pub async fn suspend(services: &Services, caller: &Caller, id: AgentId, reason: Option<String>) -> Result<Agent> {
    services
        .change(caller, Action::SuspendAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot suspend yourself")?;
                let agent = agent::find(act.conn(), id).await?;
                match agent.status {
                    AgentStatus::Active => {}
                    AgentStatus::Suspended => return Ok(agent),
                    AgentStatus::Revoked => return Err(Error::Refused("Cannot suspend a revoked agent")),
                }
                power::require(act, id).await?;
                require_other_administrator(act, id).await?;
                let now = act.now;
                let agent = transition(act, agent, |agent| {
                    agent.status = AgentStatus::Suspended;
                    agent.suspended_at = Some(now);
                    agent.token_epoch += 1;
                })
                .await?;
                act.audit(AuditAction::AgentSuspended, Resource::Agent(id), Some(id), json!({ "reason": reason }));
                Ok(agent)
            })
        })
        .await
}

/// Reactivates a suspended agent. Tokens from before the suspension stay invalid.
///
/// # Errors
/// [`Error::Refused`] unless the agent is suspended.
pub async fn reactivate(services: &Services, caller: &Caller, id: AgentId) -> Result<Agent> {
    services
        .change(caller, Action::ReactivateAgent, move |act| {
            Box::pin(async move {
                let agent = agent::find(act.conn(), id).await?;
                if agent.status != AgentStatus::Suspended {
                    return Err(Error::Refused("Only suspended agents can be reactivated"));
                }
                power::require(act, id).await?;
                let agent = transition(act, agent, |agent| {
                    agent.status = AgentStatus::Active;
                    agent.suspended_at = None;
                })
                .await?;
                act.audit(AuditAction::AgentReactivated, Resource::Agent(id), Some(id), json!({}));
                Ok(agent)
            })
        })
        .await
}

/// Revokes an agent permanently, with all of its keys that have not expired.
///
/// # Errors
/// [`Error::Refused`] for the caller, a revoked agent, and the last active agent that holds `admin:*` and can
/// authenticate.
pub async fn revoke(services: &Services, caller: &Caller, id: AgentId, reason: Option<String>) -> Result<Agent> {
    services
        .change(caller, Action::RevokeAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot revoke yourself")?;
                let agent = agent::find(act.conn(), id).await?;
                if agent.status == AgentStatus::Revoked {
                    return Err(Error::Refused("Agent is already revoked"));
                }
                power::require(act, id).await?;
                require_other_administrator(act, id).await?;
                let now = act.now;
                let agent = transition(act, agent, |agent| {
                    agent.status = AgentStatus::Revoked;
                    agent.revoked_at = Some(now);
                    agent.token_epoch += 1;
                })
                .await?;
                api_keys::revoke_all(act.tx, id, now).await?;
                act.audit(AuditAction::AgentRevoked, Resource::Agent(id), Some(id), json!({ "reason": reason }));
                Ok(agent)
            })
        })
        .await
}

/// Deletes an agent with its credentials and grants. Audit records stay.
///
/// # Errors
/// [`Error::Refused`] for the caller, and for the last active agent that holds `admin:*` and can authenticate.
pub async fn delete(services: &Services, caller: &Caller, id: AgentId) -> Result<()> {
    services
        .change(caller, Action::DeleteAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot delete yourself")?;
                let agent = agent::find(act.conn(), id).await?;
                power::require(act, id).await?;
                require_other_administrator(act, id).await?;
                if !agents::delete(act.tx, id).await? {
                    return Err(NOT_FOUND);
                }
                let details = json!({ "name": agent.name.as_str() });
                act.audit(AuditAction::AgentDeleted, Resource::Agent(id), Some(id), details);
                Ok(())
            })
        })
        .await
}

pub(super) async fn transition(act: &mut Act<'_>, mut agent: Agent, apply: impl FnOnce(&mut Agent)) -> Result<Agent> {
    let from = agent.status;
    apply(&mut agent);
    agent.updated_at = act.now;
    if !agents::transition(act.tx, &agent, from).await? {
        return Err(Error::Conflict("Somebody else changed this agent in the meantime".into()));
    }
    Ok(agent)
}

/// An operation on many agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// See [`suspend`].
    Suspend,
    /// See [`reactivate`].
    Reactivate,
}

/// The outcome of an operation on many agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Agents that now have the requested status.
    pub done: usize,
    /// Agents for which the operation was refused.
    pub refused: usize,
}

/// Maximum number of agents in a bulk operation.
pub const BULK_MAX: usize = 5_000;

/// Runs an operation on each of these agents, with an audit record for each. A refusal for one agent does not affect
/// the others.
///
/// # Errors
/// [`Error::Denied`]; when the database fails, possibly after some agents were changed.
pub async fn bulk(
    services: &Arc<Services>,
    caller: &Caller,
    bulk: Bulk,
    ids: Vec<AgentId>,
    reason: Option<String>,
) -> Result<Tally> {
    /// Enough for full batches in the writer.
    const CONCURRENCY: usize = 128;
    let action = match bulk {
        Bulk::Suspend => Action::SuspendAgent,
        Bulk::Reactivate => Action::ReactivateAgent,
    };
    services.permit(caller, action).await?;
    let mut outcomes = stream::iter(ids.into_iter().take(BULK_MAX))
        .map(|id| {
            let (services, caller, reason) = (services.clone(), caller.clone(), reason.clone());
            async move {
                match bulk {
                    Bulk::Suspend => suspend(&services, &caller, id, reason).await.map(drop),
                    Bulk::Reactivate => reactivate(&services, &caller, id).await.map(drop),
                }
            }
        })
        .buffer_unordered(CONCURRENCY);
    let mut tally = Tally::default();
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(()) => tally.done += 1,
            Err(Error::Refused(_) | Error::NotFound(_) | Error::Denied(_) | Error::Conflict(_)) => tally.refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

/// Returns the agents that match a filter, at most [`BULK_MAX`].
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn matching(services: &Services, caller: &Caller, filter: &Filter) -> Result<Vec<AgentId>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = list(services, caller, filter, Sort::Oldest, after, Limit::of(Limit::MAX)).await?;
        found.extend(page.items.iter().map(|agent| agent.id));
        after = page.next;
        if after.is_none() || found.len() >= BULK_MAX {
            found.truncate(BULK_MAX);
            return Ok(found);
        }
    }
}
