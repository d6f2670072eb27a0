//! Agents: registering, reading, editing, and the three ways to stop one.

use serde_json::json;

use super::{
    Services,
    act::Act,
    caller::Caller,
    policy::{Action, not_oneself},
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Page, Result,
        agent::{Filter, Position, Sort},
        audit::{AuditAction, Resource},
    },
    store::{agents, api_keys, capabilities},
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
}

pub(super) const NOT_FOUND: Error = Error::NotFound("Agent");

/// Registers an agent. It holds nothing yet.
///
/// # Errors
/// [`Error::Conflict`] when the name is taken.
pub async fn create(services: &Services, caller: &Caller, new: NewAgent) -> Result<Agent> {
    let id = AgentId(services.env.uuid());
    services.change(caller, Action::CreateAgent, move |act| Box::pin(register(act, id, new))).await
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
    if !agents::insert(act.conn(), &agent).await? {
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
    agents::find(services.store.read().await?.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Edits an agent. An edit that changes nothing leaves no record.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn update(services: &Services, caller: &Caller, id: AgentId, edit: AgentEdit) -> Result<Agent> {
    services
        .change(caller, Action::UpdateAgent, move |act| {
            Box::pin(async move {
                let mut agent = find(act, id).await?;
                let mut updated_fields = Vec::new();
                let mut set = |name, changed: bool| {
                    if changed {
                        updated_fields.push(name);
                    }
                };
                set("description", replace(&mut agent.description, edit.description));
                set("owner", replace(&mut agent.owner, edit.owner));
                set("agent_type", replace(&mut agent.agent_type, edit.agent_type));
                set("metadata_json", replace(&mut agent.metadata_json, edit.metadata_json));
                if updated_fields.is_empty() {
                    return Ok(agent);
                }
                agent.updated_at = act.now;
                if !agents::update_details(act.conn(), &agent).await? {
                    return Err(NOT_FOUND);
                }
                let details = json!({ "updated_fields": updated_fields });
                act.audit(AuditAction::AgentUpdated, Resource::Agent(id), Some(id), details);
                Ok(agent)
            })
        })
        .await
}

fn replace<T: PartialEq>(field: &mut T, new: Option<T>) -> bool {
    match new {
        Some(new) if new != *field => {
            *field = new;
            true
        }
        _ => false,
    }
}

/// Stops an agent until it is reactivated: its keys are refused and its tokens end, for good. Suspending a suspended
/// agent changes nothing.
///
/// # Errors
/// [`Error::Refused`] for oneself, a revoked agent, and the last active agent that holds `admin:*`.
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

/// Stops an agent for ever; its active keys become revoked.
///
/// # Errors
/// [`Error::Refused`] for oneself, a revoked agent, and the last active agent that holds `admin:*`.
pub async fn revoke(services: &Services, caller: &Caller, id: AgentId, reason: Option<String>) -> Result<Agent> {
    services
        .change(caller, Action::RevokeAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot revoke yourself")?;
                let agent = find(act, id).await?;
                if agent.status == AgentStatus::Revoked {
                    return Err(Error::Refused("Agent is already revoked"));
                }
                keep_an_administrator(act, id).await?;
                let now = act.now;
                let agent = transition(act, agent, |agent| {
                    agent.status = AgentStatus::Revoked;
                    agent.revoked_at = Some(now);
                    agent.token_epoch += 1;
                })
                .await?;
                api_keys::revoke_active(act.conn(), id, now).await?;
                act.audit(AuditAction::AgentRevoked, Resource::Agent(id), Some(id), json!({ "reason": reason }));
                Ok(agent)
            })
        })
        .await
}

/// Removes an agent with its keys and grants. Audit records stay.
///
/// # Errors
/// [`Error::Refused`] for oneself and for the last active agent that holds `admin:*`.
pub async fn delete(services: &Services, caller: &Caller, id: AgentId) -> Result<()> {
    services
        .change(caller, Action::DeleteAgent, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, id, "Cannot delete yourself")?;
                let agent = find(act, id).await?;
                keep_an_administrator(act, id).await?;
                if !agents::delete(act.conn(), id).await? {
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

pub(super) async fn find(act: &mut Act<'_>, id: AgentId) -> Result<Agent> {
    agents::find(act.conn(), id).await?.ok_or(NOT_FOUND)
}

async fn transition(act: &mut Act<'_>, mut agent: Agent, apply: impl FnOnce(&mut Agent)) -> Result<Agent> {
    let from = agent.status;
    apply(&mut agent);
    agent.updated_at = act.now;
    if !agents::transition(act.conn(), &agent, from).await? {
        return Err(Error::Conflict("The agent was changed by somebody else".into()));
    }
    act.tx.changed(agent.id);
    Ok(agent)
}

/// Refuses to take away the last active agent that holds `admin:*`: nobody could give that capability again.
pub(super) async fn keep_an_administrator(act: &mut Act<'_>, id: AgentId) -> Result<()> {
    if is_last_administrator(act, id).await? {
        return Err(Error::Refused("This is the last active agent that holds admin:*"));
    }
    Ok(())
}

pub(super) async fn is_last_administrator(act: &mut Act<'_>, id: AgentId) -> Result<bool> {
    let held = capabilities::held_by(act.conn(), id).await?;
    let administers =
        held.iter().any(|capability| capability.name.as_str() == crate::domain::capability::builtin::ADMIN);
    Ok(administers && !capabilities::has_other_administrator(act.conn(), id).await?)
}
