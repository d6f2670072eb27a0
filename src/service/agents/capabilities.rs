//! Capabilities: register and describe them, grant them to agents and revoke grants.

use std::collections::HashMap;

use serde_json::json;

use crate::{
    domain::{
        Agent, AgentId, Capability, CapabilityId, CapabilityName, CapabilitySet, Error, Limit, Page, Result,
        audit::{AuditAction, Changes, Resource},
        capability::{Position, builtin},
    },
    service::{
        Services,
        core::{
            act::Act,
            agent,
            caller::Caller,
            last_administrator::require_other_administrator,
            policy::{Action, not_oneself},
            power,
        },
    },
    store::{capabilities, names::Named},
};

/// A new capability.
#[derive(Clone, Debug)]
pub struct NewCapability {
    /// The unique name.
    pub name: CapabilityName,
    /// A description of what it allows.
    pub description: String,
}

const NOT_FOUND: Error = Error::NotFound("Capability");
const OWN: &str = "Cannot modify your own capabilities";

/// Registers a capability.
///
/// # Errors
/// [`Error::Conflict`] if the name is taken or too similar to one that is.
pub async fn create(services: &Services, caller: &Caller, new: NewCapability) -> Result<Capability> {
    let id = CapabilityId(services.env.uuid());
    services
        .change(caller, Action::CreateCapability, move |act| {
            Box::pin(async move {
                let capability = register(act, id, new).await?;
                act.require_distinct(Named::Capability, capability.name.as_str()).await?;
                Ok(capability)
            })
        })
        .await
}

pub(in crate::service) async fn register(
    act: &mut Act<'_>,
    id: CapabilityId,
    new: NewCapability,
) -> Result<Capability> {
    let capability = Capability { id, name: new.name, description: new.description, created_at: act.now };
    if !capabilities::insert(act.tx, &capability).await? {
        return Err(Error::Conflict("Capability name already exists".into()));
    }
    act.audit(AuditAction::CapabilityCreated, Resource::Capability(id), None, details(&capability));
    Ok(capability)
}

/// Returns a page of capabilities in the order of registration.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn list(
    services: &Services,
    caller: &Caller,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<Capability, Position>> {
    services.permit(caller, Action::ListCapabilities).await?;
    capabilities::list(services.store.read().await?.conn(), after, limit).await
}

/// Returns a capability.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: CapabilityId) -> Result<Capability> {
    services.permit(caller, Action::ListCapabilities).await?;
    capabilities::find(services.store.read().await?.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Counts the agents that hold each of these capabilities, up to `max` for each.
///
/// # Errors
/// [`Error::Denied`].
pub async fn count_holders(
    services: &Services,
    caller: &Caller,
    ids: &[CapabilityId],
    max: i64,
) -> Result<HashMap<CapabilityId, i64>> {
    services.permit(caller, Action::ListGrants).await?;
    capabilities::count_holders(services.store.read().await?.conn(), ids, max).await
}

/// Returns a page of the agents that hold a capability.
///
/// # Errors
/// [`Error::Denied`].
pub async fn holders(
    services: &Services,
    caller: &Caller,
    id: CapabilityId,
    after: Option<AgentId>,
    limit: Limit,
) -> Result<Page<Agent, AgentId>> {
    services.permit(caller, Action::ListGrants).await?;
    capabilities::holders(services.store.read().await?.conn(), id, after, limit).await
}

/// Changes the description of a capability.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn describe(services: &Services, caller: &Caller, id: CapabilityId, description: String) -> Result<()> {
    services
        .change(caller, Action::UpdateCapability, move |act| {
            Box::pin(async move {
                let capability = capabilities::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                if capability.description == description {
                    return Ok(());
                }
                capabilities::describe(act.tx, id, &description).await?;
                let mut details = details(&capability);
                if let Some(members) = details.as_object_mut() {
                    let changes = Changes::of([("description", capability.description.as_str(), description.as_str())]);
                    members.insert("changes".to_owned(), json!(changes));
                }
                act.audit(AuditAction::CapabilityUpdated, Resource::Capability(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Returns the capabilities that an agent holds, sorted by name.
///
/// # Errors
/// [`Error::NotFound`] for an unknown agent.
pub async fn held_by(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<Capability>> {
    services.permit(caller, Action::ListGrants).await?;
    let mut read = services.store.read().await?;
    agent::find(read.conn(), agent).await?;
    capabilities::held_by(read.conn(), agent).await
}

/// Grants a capability to an agent.
///
/// # Errors
/// [`Error::Refused`] if the agent is the caller; [`Error::NotFound`]; [`Error::Conflict`] if the agent already holds
/// the capability, and if the agent's capabilities would no longer fit in a token; [`Error::Denied`] if the caller
/// lacks the capability, or one that the agent holds.
pub async fn grant(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    capability: CapabilityId,
) -> Result<Capability> {
    services
        .change(caller, Action::GrantCapability, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, agent, OWN)?;
                agent::find(act.conn(), agent).await?;
                power::require(act, agent).await?;
                let capability = capabilities::find(act.conn(), capability).await?.ok_or(NOT_FOUND)?;
                act.authority.require_held(&capability.name)?;
                give(act, agent, &capability).await?;
                Ok(capability)
            })
        })
        .await
}

pub(in crate::service) async fn give(act: &mut Act<'_>, agent: AgentId, capability: &Capability) -> Result<()> {
    let (granted_by, now) = (act.caller.actor(), act.now);
    if !capabilities::grant(act.tx, agent, capability.id, granted_by, now).await? {
        return Err(Error::Conflict("Capability already granted".into()));
    }
    if !agent::held(act.conn(), agent).await?.fits_a_token() {
        return Err(Error::Conflict(
            format!(
                "The names of an agent's capabilities can have {} characters in total. Grant a wildcard instead",
                CapabilitySet::TOKEN_MAX
            )
            .into(),
        ));
    }
    act.audit(AuditAction::CapabilityGranted, Resource::Agent(agent), Some(agent), details(capability));
    Ok(())
}

/// Revokes a capability from an agent. The agent's tokens lose it at once.
///
/// # Errors
/// [`Error::Refused`] if the agent is the caller, and for `admin:*` of the last active agent that holds it and can
/// authenticate; [`Error::NotFound`]; [`Error::Denied`] if the agent holds a capability that the caller lacks.
pub async fn ungrant(services: &Services, caller: &Caller, agent: AgentId, capability: CapabilityId) -> Result<()> {
    services
        .change(caller, Action::UngrantCapability, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, agent, OWN)?;
                agent::find(act.conn(), agent).await?;
                let capability = capabilities::find(act.conn(), capability).await?.ok_or(NOT_FOUND)?;
                power::require(act, agent).await?;
                if capability.name.as_str() == builtin::ADMIN {
                    require_other_administrator(act, agent).await?;
                }
                if !capabilities::ungrant(act.tx, agent, capability.id).await? {
                    return Err(Error::NotFound("Capability grant"));
                }
                act.audit(AuditAction::CapabilityRevoked, Resource::Agent(agent), Some(agent), details(&capability));
                Ok(())
            })
        })
        .await
}

fn details(capability: &Capability) -> serde_json::Value {
    json!({ "capability": capability.name, "capability_id": capability.id })
}
