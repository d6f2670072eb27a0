//! Capabilities: register and describe them, grant them to agents and revoke grants.

use std::collections::HashMap;

use serde_json::json;

use crate::{
    domain::{
        AgentId, Capability, CapabilityId, CapabilityName, CapabilitySet, Error, Limit, Page, Result, Timestamp,
        audit::{AuditAction, Changes, Resource},
        capability::{Held, Holder, HolderFilter, Position, builtin},
    },
    service::{
        Services,
        core::{
            act::Act,
            agent,
            caller::Caller,
            conditions::{Expected, Once},
            last_administrator::require_other_administrator,
            policy::{Action, not_oneself},
            power,
        },
    },
    store::{
        capabilities::{self, holders, uses},
        names::Named,
    },
};

/// A new capability.
#[derive(Clone, Debug)]
pub struct NewCapability {
    /// The unique name.
    pub name: CapabilityName,
    /// A description of what it allows.
    pub description: String,
}

pub(super) const NOT_FOUND: Error = Error::NotFound("Capability");
pub(super) const OWN: &str = "Cannot modify your own capabilities";

/// Registers a capability.
///
/// # Errors
/// [`Error::Conflict`] if the name is taken or too similar to one that is; see [`Once`].
pub async fn create(
    services: &Services,
    caller: &Caller,
    new: NewCapability,
    once: Once<Capability>,
) -> Result<Capability> {
    let id = CapabilityId(services.env.uuid());
    services
        .change(caller, Action::CreateCapability, move |act| {
            Box::pin(async move {
                let first = once.begin(act).await?;
                let capability = register(act, id, new).await?;
                act.require_distinct(Named::Capability, capability.name.as_str()).await?;
                first.finish(act, capability).await
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
    search(services, caller, None, after, limit).await
}

/// Returns a page of the capabilities whose name or description contains a text, in the order of registration.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn search(
    services: &Services,
    caller: &Caller,
    text: Option<&str>,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<Capability, Position>> {
    services.permit(caller, Action::ListCapabilities).await?;
    capabilities::list(services.store.read().await?.conn(), text, after, limit).await
}

/// Returns when each of these capabilities was last used. Those that were not used are left out.
///
/// # Errors
/// [`Error::Denied`].
pub async fn last_uses(
    services: &Services,
    caller: &Caller,
    ids: &[CapabilityId],
) -> Result<HashMap<CapabilityId, Timestamp>> {
    services.permit(caller, Action::ListGrants).await?;
    uses::latest(services.store.read().await?.conn(), ids).await
}

/// Returns how often an agent used a capability on each of the last 90 days: pairs of a day's number since the epoch
/// and a number of uses. Days without uses are left out.
///
/// # Errors
/// [`Error::Denied`].
pub async fn uses_by_day(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    capability: CapabilityId,
) -> Result<Vec<(i64, i64)>> {
    services.permit(caller, Action::ListGrants).await?;
    let now = services.env.now();
    uses::by_day(services.store.read_usage().await?.conn(), agent, capability, now).await
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

/// Returns a page of the agents that hold a capability, with when each last used it. A page may have fewer than `limit`
/// agents although there are more pages: see [`holders::list`].
///
/// # Errors
/// [`Error::Denied`].
pub async fn holders(
    services: &Services,
    caller: &Caller,
    id: CapabilityId,
    filter: &HolderFilter,
    after: Option<AgentId>,
    limit: Limit,
) -> Result<Page<Holder, AgentId>> {
    services.permit(caller, Action::ListGrants).await?;
    holders::list(services.store.read().await?.conn(), id, filter, after, limit).await
}

/// Changes the description of a capability.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Stale`].
pub async fn describe(
    services: &Services,
    caller: &Caller,
    id: CapabilityId,
    expected: Expected,
    description: Option<String>,
) -> Result<Capability> {
    services
        .change(caller, Action::UpdateCapability, move |act| {
            Box::pin(async move {
                let capability = capabilities::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                expected.check(&capability)?;
                let Some(description) = description.filter(|new| *new != capability.description) else {
                    return Ok(capability);
                };
                capabilities::describe(act.tx, id, &description).await?;
                let mut details = details(&capability);
                if let Some(members) = details.as_object_mut() {
                    let changes = Changes::of([("description", capability.description.as_str(), description.as_str())]);
                    members.insert("changes".to_owned(), json!(changes));
                }
                act.audit(AuditAction::CapabilityUpdated, Resource::Capability(id), None, details);
                Ok(Capability { description, ..capability })
            })
        })
        .await
}

/// Returns the capabilities that an agent holds, with when it last used each of them, sorted by name.
///
/// # Errors
/// [`Error::NotFound`] for an unknown agent.
pub async fn held_by(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<Held>> {
    services.permit(caller, Action::ListGrants).await?;
    let mut read = services.store.read().await?;
    agent::find(read.conn(), agent).await?;
    uses::of_agent(read.conn(), agent).await
}

/// Grants a capability to an agent.
///
/// # Errors
/// [`Error::Refused`] if the agent is the caller; [`Error::NotFound`]; [`Error::Conflict`] if the agent already holds
/// the capability, and if the agent's capabilities would no longer fit in a token; [`Error::Denied`] if the caller
/// lacks the capability, or one that the agent holds; see [`Once`].
pub async fn grant(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    capability: CapabilityId,
    once: Once<Capability>,
) -> Result<Capability> {
    services
        .change(caller, Action::GrantCapability, move |act| {
            Box::pin(async move {
                not_oneself(&act.caller, agent, OWN)?;
                agent::find(act.conn(), agent).await?;
                power::require(act, agent).await?;
                let capability = capabilities::find(act.conn(), capability).await?.ok_or(NOT_FOUND)?;
                act.authority.require_held(&capability.name)?;
                let first = once.begin(act).await?;
                give(act, agent, &capability).await?;
                first.finish(act, capability).await
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
            Box::pin(async move { take(act, agent, capability).await })
        })
        .await
}

/// Does the same as [`ungrant`] in a transaction.
pub(in crate::service) async fn take(act: &mut Act<'_>, agent: AgentId, capability: CapabilityId) -> Result<()> {
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
}

pub(super) fn details(capability: &Capability) -> serde_json::Value {
    json!({ "capability": capability.name, "capability_id": capability.id })
}
