//! Lists of agents for people: what a filter means, and what the list shows about each agent.

use std::collections::HashMap;

use super::{bulk::BULK_MAX, list};
use crate::{
    domain::{
        Agent, AgentId, Capability, CapabilityId, Limit, Result, Timestamp,
        agent::{Filter, Sort},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::{
        agents::{self, Estimate, facts},
        capabilities,
    },
};

/// How many agents of an owner are counted. More are shown as "1,000+".
pub const COUNT_MAX: i64 = 1_000;
/// How many owners are suggested.
const SUGGESTED: u16 = 12;

/// What a list shows about agents beside their own fields.
#[derive(Debug)]
pub struct Facts {
    /// The capabilities of each agent.
    pub held: facts::Held,
    /// The number of API keys that have not ended, for each agent that has any.
    pub keys: HashMap<AgentId, i64>,
    /// When each agent was last used, unless it never was.
    pub last_uses: HashMap<AgentId, Timestamp>,
}

/// Returns what a list shows about these agents: one query per column, for any number of agents.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn facts(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<Facts> {
    services.permit(caller, Action::ListGrants).await?;
    let mut read = services.store.read().await?;
    Ok(Facts {
        held: facts::held(read.conn(), ids).await?,
        keys: facts::count_keys(read.conn(), ids, services.env.now()).await?,
        last_uses: facts::last_uses(read.conn(), ids).await?,
    })
}

/// Completes a filter with what people enter for an owner and a capability. An owner that no agent has matches parts of
/// owners. A capability is a name or an ID; an unknown one matches no agent.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn narrowed(
    services: &Services,
    caller: &Caller,
    filter: Filter,
    owner: Option<String>,
    capability: Option<String>,
) -> Result<Filter> {
    services.permit(caller, Action::ListAgents).await?;
    let mut filter = filter;
    if let Some(owner) = owner {
        let mut read = services.store.read().await?;
        if agents::count_owned(read.conn(), std::slice::from_ref(&owner), 1).await? == [0] {
            filter.owner_part = Some(owner);
        } else {
            filter.owner = Some(owner);
        }
    }
    if let Some(text) = capability {
        let known = capability_named(services, caller, &text).await?;
        filter.capability = Some(known.map_or(CapabilityId(uuid::Uuid::nil()), |capability| capability.id));
    }
    Ok(filter)
}

/// Returns the capability with this name or ID.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn capability_named(services: &Services, caller: &Caller, text: &str) -> Result<Option<Capability>> {
    services.permit(caller, Action::ListCapabilities).await?;
    let mut read = services.store.read().await?;
    if let Some(id) = CapabilityId::parse(text)
        && let Some(known) = capabilities::find(read.conn(), id).await?
    {
        return Ok(Some(known));
    }
    capabilities::find_by_name(read.conn(), text).await
}

/// Returns owners for what was entered so far, with the number of their agents up to [`COUNT_MAX`]: those that start
/// with it, then others that contain it.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn owners(services: &Services, caller: &Caller, entered: &str) -> Result<Vec<(String, i64)>> {
    services.permit(caller, Action::ListAgents).await?;
    let most = usize::from(SUGGESTED);
    let mut read = services.store.read().await?;
    let mut owners = agents::owners(read.conn(), entered, Limit::of(SUGGESTED)).await?;
    if owners.len() < most && entered.chars().nth(2).is_some() {
        let filter = Filter { owner_part: Some(entered.to_owned()), ..Filter::default() };
        let found = agents::list(read.conn(), &filter, Sort::Name, None, Limit::of(200)).await?;
        for agent in found.items {
            if owners.len() < most && !owners.contains(&agent.owner) {
                owners.push(agent.owner);
            }
        }
    }
    let counts = agents::count_owned(read.conn(), &owners, COUNT_MAX).await?;
    Ok(owners.into_iter().zip(counts).collect())
}

/// Counts the agents that match a filter, up to [`COUNT_MAX`], for the price of a page of the list.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn estimate(services: &Services, caller: &Caller, filter: &Filter) -> Result<Estimate> {
    services.permit(caller, Action::ListAgents).await?;
    let most = u32::try_from(COUNT_MAX).unwrap_or(u32::MAX);
    agents::estimate(services.store.read().await?.conn(), filter, most).await
}

/// Returns the agents that match a filter, at most one more than [`BULK_MAX`].
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn matching(services: &Services, caller: &Caller, filter: &Filter) -> Result<Vec<AgentId>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = list(services, caller, filter, Sort::Oldest, after, Limit::of(Limit::MAX)).await?;
        found.extend(page.items.iter().map(|agent| agent.id));
        after = page.next;
        if after.is_none() || found.len() > BULK_MAX {
            found.truncate(BULK_MAX + 1);
            return Ok(found);
        }
    }
}

/// Returns those of these agents that exist.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `agents:read`.
pub async fn those(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<Vec<Agent>> {
    services.permit(caller, Action::ListAgents).await?;
    agents::those(services.store.read().await?.conn(), ids).await
}
