//! Agents: registering, reading, editing, and the three ways to stop one.

pub mod capabilities;
pub mod delegates;

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::{
    Services,
    core::{
        act::Act,
        caller::Caller,
        policy::{Action, not_oneself},
        power,
    },
    credentials::ways_in::keep_an_administrator,
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, CapabilitySet, Error, Limit, Page, Result, Timestamp,
        agent::{Filter, Position, Sort},
        audit::{AuditAction, Changes, Resource},
    },
    store::{agents, capabilities as grants, credentials::api_keys, names::Named},
};

/// What is needed to register an agent.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Unique name.
    pub name: AgentName,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub description: String,
    /// What sort of agent it is.
    pub agent_type: AgentType,
    /// The registrant's own data.
    pub metadata_json: String,
}

/// Fields to edit; the others stay.
#[derive(Clone, Debug, Default)]
pub struct AgentEdit {
    /// New description.
    pub description: Option<String>,
    /// New owner.
    pub owner: Option<String>,
    /// New type.
    pub agent_type: Option<AgentType>,
    /// New data.
    pub metadata_json: Option<String>,
    /// The agent is edited only if it was last changed then: what the editor looked at.
    pub unchanged_since: Option<Timestamp>,
}

pub(super) const NOT_FOUND: Error = Error::NotFound("Agent");

/// Registers an agent. It holds nothing yet.
///
/// # Errors
/// [`Error::Conflict`] when the name is taken, or looks like one that is.
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

/// A page of agents. It may hold fewer than `limit` and still lead on: see [`agents::list`].
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

/// One agent.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: AgentId) -> Result<Agent> {
    services.permit(caller, Action::ReadAgent).await?;
    let known = services.principals.details(&services.store, id).await?;
    known.map(Arc::unwrap_or_clone).ok_or(NOT_FOUND)
}

/// The names of those of these agents that there are.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn names(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<HashMap<AgentId, AgentName>> {
    services.permit(caller, Action::ListAgents).await?;
    Ok(agents::names(services.store.read().await?.conn(), ids).await?.into_iter().collect())
}

/// The agent with this name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn by_name(services: &Services, caller: &Caller, name: &AgentName) -> Result<Agent> {
    services.permit(caller, Action::ReadAgent).await?;
    agents::find_by_name(services.store.read().await?.conn(), name).await?.ok_or(NOT_FOUND)
}

/// Edits an agent. An edit that changes nothing leaves no record.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] when somebody else changed it since the editor looked.
pub async fn update(services: &Services, caller: &Caller, id: AgentId, edit: AgentEdit) -> Result<Agent> {
    services
        .change(caller, Action::UpdateAgent, move |act| {
            Box::pin(async move {
                let mut agent = find(act, id).await?;
                if edit.unchanged_since.is_some_and(|seen| seen != agent.updated_at) {
                    return Err(Error::Conflict("Somebody else changed this agent meanwhile".into()));
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
                if !agents::update_details(act.conn(), &agent).await? {
                    return Err(NOT_FOUND);
                }
                act.tx.changed(id);
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

/// Stops an agent until it is reactivated: its keys are refused and its tokens end, for good. Suspending a suspended
/// agent changes nothing.
///
/// # Errors
/// [`Error::Refused`] for oneself, a revoked agent, and the last active agent that holds `admin:*` and can authenticate.
pub async fn suspend(services: &Services, caller: &Caller, id: AgentId, reason: Option<String>) -> Result<Agent> {
    services
        .change(caller, Action::SuspendAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot suspend yourself")?;
                let agent = find(act, id).await?;
                match agent.status {
                    AgentStatus::Active => {}
                    AgentStatus::Suspended => return Ok(agent),
                    AgentStatus::Revoked => return Err(Error::Refused("Cannot suspend a revoked agent")),
                }
                power::require(act, id).await?;
                keep_an_administrator(act, id).await?;
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

/// Ends a suspension. Tokens from before it stay ended.
///
/// # Errors
/// [`Error::Refused`] unless the agent is suspended.
pub async fn reactivate(services: &Services, caller: &Caller, id: AgentId) -> Result<Agent> {
    services
        .change(caller, Action::ReactivateAgent, move |act| {
            Box::pin(async move {
                let agent = find(act, id).await?;
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

/// Revokes an agent permanently, and every key of it that has not expired.
///
/// # Errors
/// [`Error::Refused`] for oneself, a revoked agent, and the last active agent that holds `admin:*` and can authenticate.
pub async fn revoke(services: &Services, caller: &Caller, id: AgentId, reason: Option<String>) -> Result<Agent> {
    services
        .change(caller, Action::RevokeAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot revoke yourself")?;
                let agent = find(act, id).await?;
                if agent.status == AgentStatus::Revoked {
                    return Err(Error::Refused("Agent is already revoked"));
                }
                power::require(act, id).await?;
                keep_an_administrator(act, id).await?;
                let now = act.now;
                let agent = transition(act, agent, |agent| {
                    agent.status = AgentStatus::Revoked;
                    agent.revoked_at = Some(now);
                    agent.token_epoch += 1;
                })
                .await?;
                api_keys::revoke_all(act.conn(), id, now).await?;
                act.audit(AuditAction::AgentRevoked, Resource::Agent(id), Some(id), json!({ "reason": reason }));
                Ok(agent)
            })
        })
        .await
}

/// Removes an agent with its keys and grants. Audit records stay.
///
/// # Errors
/// [`Error::Refused`] for oneself, and for the last active agent that holds `admin:*` and can authenticate.
pub async fn delete(services: &Services, caller: &Caller, id: AgentId) -> Result<()> {
    services
        .change(caller, Action::DeleteAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot delete yourself")?;
                let agent = find(act, id).await?;
                power::require(act, id).await?;
                keep_an_administrator(act, id).await?;
                if !agents::delete(act.tx, id).await? {
                    return Err(NOT_FOUND);
                }
                act.tx.changed(id);
                let details = json!({ "name": agent.name.as_str() });
                act.audit(AuditAction::AgentDeleted, Resource::Agent(id), Some(id), details);
                Ok(())
            })
        })
        .await
}

/// What an agent holds.
pub(super) async fn held(act: &mut Act<'_>, id: AgentId) -> Result<CapabilitySet> {
    let held = grants::held_by(act.conn(), id).await?;
    Ok(held.into_iter().map(|capability| capability.name).collect())
}

pub(super) async fn find(act: &mut Act<'_>, id: AgentId) -> Result<Agent> {
    agents::find(act.conn(), id).await?.ok_or(NOT_FOUND)
}

pub(super) async fn transition(act: &mut Act<'_>, mut agent: Agent, apply: impl FnOnce(&mut Agent)) -> Result<Agent> {
    let from = agent.status;
    apply(&mut agent);
    agent.updated_at = act.now;
    if !agents::transition(act.tx, &agent, from).await? {
        return Err(Error::Conflict("The agent was changed by somebody else".into()));
    }
    act.tx.changed(agent.id);
    Ok(agent)
}

/// An act upon many agents at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// See [`suspend`].
    Suspend,
    /// See [`reactivate`].
    Reactivate,
}

/// What an act upon many agents led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Agents that were changed, or were as wanted already.
    pub done: usize,
    /// Agents that refused.
    pub refused: usize,
}

/// Most agents that are changed at once.
pub const BULK_MOST: usize = 5_000;

/// Does `bulk` to each of these agents, each on its own record. What refuses one agent does not keep the others.
///
/// # Errors
/// [`Error::Denied`]; when the database fails, after some were changed.
pub async fn bulk(
    services: &Arc<Services>,
    caller: &Caller,
    bulk: Bulk,
    ids: Vec<AgentId>,
    reason: Option<String>,
) -> Result<Tally> {
    /// Enough for the writer to make full batches of them.
    const AT_A_TIME: usize = 128;
    let action = match bulk {
        Bulk::Suspend => Action::SuspendAgent,
        Bulk::Reactivate => Action::ReactivateAgent,
    };
    services.permit(caller, action).await?;
    let mut outcomes = stream::iter(ids.into_iter().take(BULK_MOST))
        .map(|id| {
            let (services, caller, reason) = (services.clone(), caller.clone(), reason.clone());
            async move {
                match bulk {
                    Bulk::Suspend => suspend(&services, &caller, id, reason).await.map(drop),
                    Bulk::Reactivate => reactivate(&services, &caller, id).await.map(drop),
                }
            }
        })
        .buffer_unordered(AT_A_TIME);
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

/// The agents that a filter shows, at most [`BULK_MOST`] of them.
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
        if after.is_none() || found.len() >= BULK_MOST {
            found.truncate(BULK_MOST);
            return Ok(found);
        }
    }
}
