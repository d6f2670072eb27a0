//! Agents: register, read, edit, suspend, reactivate, revoke and delete.

pub mod activity;
pub mod bulk;
pub mod capabilities;
pub mod capability_impact;
pub mod capability_removal;
pub mod delegates;
pub mod equip;
pub mod impact;
pub mod labelling;
pub mod listing;
pub mod named;
pub mod past;

use std::{collections::HashMap, sync::Arc};

use serde_json::json;

use super::{
    Services,
    core::{
        act::Act,
        agent::{self, NOT_FOUND},
        caller::Caller,
        conditions::{Expected, Once},
        last_administrator::require_other_administrator,
        policy::{Action, not_oneself},
        power,
    },
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Page, Result,
        agent::{Filter, Position, Sort, labels::Labels},
        audit::{AuditAction, Changes, Resource},
    },
    store::{
        agents::{self, labels},
        credentials::api_keys,
        names::Named,
    },
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
    /// Keys and values to select the agent by.
    pub labels: Labels,
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
    /// New labels, which replace all others.
    pub labels: Option<Labels>,
    /// The versions of the agent that may be edited.
    pub expected: Expected,
}

/// Registers an agent, without any capabilities.
///
/// # Errors
/// [`Error::Conflict`] if the name is taken or too similar to one that is; see [`Once`].
pub async fn create(services: &Services, caller: &Caller, new: NewAgent, once: Once<Agent>) -> Result<Agent> {
    let id = AgentId(services.env.uuid());
    services
        .change(caller, Action::CreateAgent, move |act| {
            Box::pin(async move {
                let first = once.begin(act).await?;
                let agent = register(act, id, new).await?;
                act.require_distinct(Named::Agent, agent.name.as_str()).await?;
                first.finish(act, agent).await
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
        labels: new.labels,
        created_at: act.now,
        updated_at: act.now,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    };
    if !agents::insert(act.tx, &agent).await? {
        return Err(Error::Conflict("Agent name already exists".into()));
    }
    let mut details = json!({ "name": agent.name.as_str(), "owner": agent.owner });
    if let Some(members) = details.as_object_mut().filter(|_| !agent.labels.is_empty()) {
        members.insert("labels".to_owned(), json!(agent.labels));
    }
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
/// [`Error::NotFound`]; [`Error::Stale`].
pub async fn update(services: &Services, caller: &Caller, id: AgentId, edit: AgentEdit) -> Result<Agent> {
    services
        .change(caller, Action::UpdateAgent, move |act| {
            Box::pin(async move {
                let mut agent = agent::find(act.conn(), id).await?;
                edit.expected.check(&agent)?;
                let before = agent.clone();
                agent.description = edit.description.unwrap_or(agent.description);
                agent.owner = edit.owner.unwrap_or(agent.owner);
                agent.agent_type = edit.agent_type.unwrap_or(agent.agent_type);
                agent.metadata_json = edit.metadata_json.unwrap_or(agent.metadata_json);
                agent.labels = edit.labels.unwrap_or(agent.labels);
                save(act, &before, agent).await
            })
        })
        .await
}

/// Saves the fields of an agent that differ from those `before`, and records them. Returns the agent.
pub(super) async fn save(act: &mut Act<'_>, before: &Agent, mut agent: Agent) -> Result<Agent> {
    let changes = changes(before, &agent);
    if changes.is_empty() {
        return Ok(agent);
    }
    agent.updated_at = act.now;
    if !agents::update_details(act.tx, &agent).await? {
        return Err(NOT_FOUND);
    }
    if agent.labels != before.labels {
        labels::replace(act.tx, &agent, &before.labels).await?;
    }
    let details = json!({ "updated_fields": changes.fields(), "changes": changes });
    act.audit(AuditAction::AgentUpdated, Resource::Agent(agent.id), Some(agent.id), details);
    Ok(agent)
}

fn changes(before: &Agent, after: &Agent) -> Changes {
    Changes::of([
        ("description", before.description.as_str(), after.description.as_str()),
        ("owner", &before.owner, &after.owner),
        ("agent_type", before.agent_type.as_str(), after.agent_type.as_str()),
        ("metadata_json", &before.metadata_json, &after.metadata_json),
        ("labels", &before.labels.to_lines(), &after.labels.to_lines()),
    ])
}

/// Suspends an agent. Its credentials stop working until it is reactivated, and its tokens end permanently. Suspending
/// a suspended agent changes nothing.
///
/// # Errors
/// [`Error::Refused`] for the caller, a revoked agent, and the last active agent that holds `admin:*` and can
/// authenticate; [`Error::Stale`].
pub async fn suspend(
    services: &Services,
    caller: &Caller,
    id: AgentId,
    expected: Expected,
    reason: Option<String>,
) -> Result<Agent> {
    services
        .change(caller, Action::SuspendAgent, move |act| {
            Box::pin(async move {
                expected.check(&agent::find(act.conn(), id).await?)?;
                suspend_now(act, id, reason).await
            })
        })
        .await
}

/// Does the same as [`suspend`] in a transaction.
pub(in crate::service) async fn suspend_now(act: &mut Act<'_>, id: AgentId, reason: Option<String>) -> Result<Agent> {
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
}

/// Reactivates a suspended agent. Tokens from before the suspension stay invalid.
///
/// # Errors
/// [`Error::Refused`] unless the agent is suspended; [`Error::Stale`].
pub async fn reactivate(services: &Services, caller: &Caller, id: AgentId, expected: Expected) -> Result<Agent> {
    services
        .change(caller, Action::ReactivateAgent, move |act| {
            Box::pin(async move {
                expected.check(&agent::find(act.conn(), id).await?)?;
                reactivate_now(act, id).await
            })
        })
        .await
}

/// Does the same as [`reactivate`] in a transaction.
pub(in crate::service) async fn reactivate_now(act: &mut Act<'_>, id: AgentId) -> Result<Agent> {
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
}

/// Revokes an agent permanently, with all of its keys that have not expired.
///
/// # Errors
/// [`Error::Refused`] for the caller, a revoked agent, and the last active agent that holds `admin:*` and can
/// authenticate; [`Error::Stale`].
pub async fn revoke(
    services: &Services,
    caller: &Caller,
    id: AgentId,
    expected: Expected,
    reason: Option<String>,
) -> Result<Agent> {
    services
        .change(caller, Action::RevokeAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot revoke yourself")?;
                let agent = agent::find(act.conn(), id).await?;
                expected.check(&agent)?;
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
/// [`Error::Refused`] for the caller, and for the last active agent that holds `admin:*` and can authenticate;
/// [`Error::Stale`].
pub async fn delete(services: &Services, caller: &Caller, id: AgentId, expected: Expected) -> Result<()> {
    services
        .change(caller, Action::DeleteAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot delete yourself")?;
                let agent = agent::find(act.conn(), id).await?;
                expected.check(&agent)?;
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
