//! What would break if a capability were deleted, or revoked from one agent.

use super::{
    capabilities::NOT_FOUND,
    capability_removal::{self, AT_ONCE},
};
use crate::{
    domain::{
        Agent, AgentId, Capability, CapabilityId, CapabilitySet, Error, ProtectedResource, Result, Timestamp,
        capability::{Held, builtin},
        token::delegation::Delegation,
    },
    service::{
        Services,
        core::{agent, caller::Caller, policy::Action},
        tokens::live_tokens::{self, Count},
    },
    store::{
        agents::delegations,
        capabilities::{self, holders, uses},
        tokens::resources,
    },
};

/// Maximum of the counts.
pub const COUNT_MAX: i64 = AT_ONCE + 1;
/// Number of holders whose live tokens are counted, because each takes several searches of the audit log.
const TOKENS_OF: usize = 50;
/// Number of resources and delegations that are named.
const NAMED: i64 = 20;

/// What would break if a capability were deleted.
#[derive(Clone, Debug)]
pub struct Impact {
    /// Number of agents that hold it, at most [`COUNT_MAX`].
    pub holders: i64,
    /// Identifies the agents that hold it and the resources that name it.
    pub fingerprint: String,
    /// The active tokens of these agents.
    pub tokens: Count,
    /// The first resources that name it.
    pub resources: Vec<ProtectedResource>,
    /// Number of resources that name it, at most [`COUNT_MAX`].
    pub resource_count: i64,
    /// The first delegations by which another agent can use it.
    pub delegations: Vec<(Agent, Delegation)>,
    /// Number of these delegations, at most [`COUNT_MAX`].
    pub delegation_count: i64,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// Registered wildcards that include it, each with the number of agents that hold it. These agents lose nothing.
    pub wildcards: Vec<(Capability, i64)>,
}

/// Returns what would break if a capability were deleted.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn of_capability(services: &Services, caller: &Caller, id: CapabilityId) -> Result<Impact> {
    for action in [Action::ListGrants, Action::ListTokens, Action::ListDelegates, Action::ListResources] {
        services.permit(caller, action).await?;
    }
    let mut read = services.store.read_usage().await?;
    let capability = capabilities::find(read.conn(), id).await?.ok_or(NOT_FOUND)?;
    let name = capability.name.as_str();
    let holding = holders::first(read.conn(), id, COUNT_MAX).await?;
    let holders = i64::try_from(holding.len()).unwrap_or(COUNT_MAX);
    let mut resources = resources::naming(read.conn(), name, COUNT_MAX).await?;
    let resource_count = i64::try_from(resources.len()).unwrap_or(COUNT_MAX);
    let fingerprint = capability_removal::fingerprint(&holding, &resources);
    resources.truncate(usize::try_from(NAMED).unwrap_or_default());
    let (delegations, delegation_count) = delegations::of_holders(read.conn(), id, NAMED, COUNT_MAX).await?;
    let last_used_at = uses::latest(read.conn(), &[id]).await?.remove(&id);
    let mut wildcards = Vec::new();
    for wildcard in wildcards_of(name) {
        if let Some(wildcard) = capabilities::find_by_name(read.conn(), &wildcard).await? {
            let count = holders::count(read.conn(), wildcard.id, COUNT_MAX).await?;
            wildcards.push((wildcard, count));
        }
    }
    drop(read);
    let counted = holding.get(..TOKENS_OF).unwrap_or(&holding);
    let mut tokens = live_tokens::count_of_all(services, counted).await?;
    tokens.may_be_more |= holding.len() > TOKENS_OF;
    Ok(Impact {
        holders,
        fingerprint,
        tokens,
        resources,
        resource_count,
        delegations,
        delegation_count,
        last_used_at,
        wildcards,
    })
}

/// What would break if a capability were revoked from one agent.
#[derive(Clone, Debug)]
pub struct GrantImpact {
    /// The grant.
    pub grant: Held,
    /// The active tokens of the agent.
    pub tokens: Count,
    /// Number of agents that may act for the agent.
    pub delegates: usize,
    /// The first resources that name the capability.
    pub resources: Vec<ProtectedResource>,
    /// Another capability of the agent that includes this one, so that the agent loses nothing.
    pub still_covered_by: Option<String>,
}

/// Returns what would break if a capability were revoked from an agent.
///
/// # Errors
/// [`Error::NotFound`] if the agent does not hold the capability; [`Error::Denied`].
pub async fn of_grant(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    capability: CapabilityId,
) -> Result<GrantImpact> {
    for action in [Action::ListGrants, Action::ListTokens, Action::ListDelegates, Action::ListResources] {
        services.permit(caller, action).await?;
    }
    let mut read = services.store.read_usage().await?;
    agent::find(read.conn(), agent).await?;
    let held = uses::of_agent(read.conn(), agent).await?;
    let others: CapabilitySet =
        held.iter().filter(|held| held.id != capability).map(|held| held.capability.name.clone()).collect();
    let grant = held.into_iter().find(|held| held.id == capability).ok_or(Error::NotFound("Capability grant"))?;
    let delegates = delegations::of_agent(read.conn(), agent).await?.len();
    let resources = resources::naming(read.conn(), grant.name.as_str(), NAMED).await?;
    let still_covered_by = others.covering(grant.name.as_str()).map(str::to_owned);
    drop(read);
    let tokens = live_tokens::count(services, caller, agent).await?;
    Ok(GrantImpact { grant, tokens, delegates, resources, still_covered_by })
}

/// Returns the names of all wildcards that include a capability, the widest first.
fn wildcards_of(name: &str) -> Vec<String> {
    let prefixes = name.match_indices(':').map(|(end, _)| format!("{}:*", name.get(..end).unwrap_or_default()));
    let mut names = vec![builtin::ADMIN.to_owned()];
    names.extend(prefixes.filter(|wildcard| wildcard != name));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::wildcards_of;

    #[test]
    fn wildcards_include_everything_below_their_resource() {
        assert_eq!(wildcards_of("a:b:c"), ["admin:*", "a:*", "a:b:*"]);
        assert_eq!(wildcards_of("a:*"), ["admin:*"]);
        assert_eq!(wildcards_of("plain"), ["admin:*"]);
        assert_eq!(wildcards_of("admin:x"), ["admin:*"]);
    }
}
