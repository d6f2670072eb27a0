//! What stops when agents lose something: shown before they are suspended, revoked or deleted, before a grant is
//! removed, and before their tokens end.

use crate::{
    domain::{AgentId, CapabilityId, CapabilitySet, Limit, ProtectedResource, ProtectedResourceId, Result, Timestamp},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
        tokens::live_tokens::{self, COUNT_MAX, Count},
    },
    store::{
        Conn,
        agents::impact::{self, Direction},
        capabilities,
        tokens::resources,
    },
};

/// Agents whose tokens are counted at most. Counting reads audit records of each.
const COUNTED: usize = 25;
/// Maximum number of connected agents that are counted.
pub const CONNECTED_MAX: usize = 1_000;

/// What depends on one or more agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    /// The number of agents.
    pub agents: usize,
    /// API keys that work now.
    pub usable_keys: i64,
    /// Public keys and federated identities that work now.
    pub other_credentials: i64,
    /// Active tokens, with those that descend from them.
    pub live_tokens: Count,
    /// Other agents that can act for them, at most [`CONNECTED_MAX`].
    pub delegates: usize,
    /// Other agents that they can act for, at most [`CONNECTED_MAX`].
    pub delegators: usize,
    /// The resources that their capabilities reach.
    pub resources: Resources,
    /// When they were last used.
    pub last_used_at: Option<Timestamp>,
}

/// Protected resources, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Identifier and name.
    pub found: Vec<(ProtectedResourceId, String)>,
    /// True if there are more resources than were searched.
    pub may_be_more: bool,
}

/// Returns what depends on an agent.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn of(services: &Services, caller: &Caller, agent: AgentId) -> Result<Impact> {
    of_all(services, caller, &[agent]).await
}

/// Returns what depends on any of these agents.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn of_all(services: &Services, caller: &Caller, agents: &[AgentId]) -> Result<Impact> {
    permit(services, caller).await?;
    let mut read = services.store.read().await?;
    let held = capabilities::held_by_any(read.conn(), agents).await?;
    let resources = reached(read.conn(), |resource| reaches(&held, resource)).await?;
    drop(read);
    rest(services, caller, agents, resources).await
}

/// Returns what depends on one capability of an agent: the resources are those that it reaches only through it.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn of_grant(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    capability: CapabilityId,
) -> Result<Impact> {
    permit(services, caller).await?;
    let mut read = services.store.read().await?;
    let held = capabilities::held_by(read.conn(), agent).await?;
    let all: CapabilitySet = held.iter().map(|one| one.name.clone()).collect();
    let kept: CapabilitySet = held.iter().filter(|one| one.id != capability).map(|one| one.name.clone()).collect();
    let lost = |resource: &ProtectedResource| reaches(&all, resource) && !reaches(&kept, resource);
    let resources = reached(read.conn(), lost).await?;
    drop(read);
    rest(services, caller, &[agent], resources).await
}

/// Returns what depends on one agent acting for another: the active tokens with which it does.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn of_delegate(services: &Services, caller: &Caller, agent: AgentId, delegate: AgentId) -> Result<Impact> {
    permit(services, caller).await?;
    let live_tokens = live_tokens::count_acting(services, caller, agent, delegate).await?;
    let credentials =
        impact::credentials(services.store.read_usage().await?.conn(), &[delegate], services.env.now()).await?;
    Ok(Impact {
        agents: 1,
        usable_keys: 0,
        other_credentials: 0,
        live_tokens,
        delegates: 0,
        delegators: 0,
        resources: Resources::default(),
        last_used_at: credentials.last_used_at,
    })
}

/// The agents that can act for an agent, and those that it can act for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// The first of the agents that can act for it, with their names.
    pub delegates: Vec<(AgentId, String)>,
    /// How many can, at most [`CONNECTED_MAX`].
    pub delegate_count: usize,
    /// The first of the agents that it can act for.
    pub delegators: Vec<(AgentId, String)>,
    /// How many it can act for, at most [`CONNECTED_MAX`].
    pub delegator_count: usize,
}

/// Returns the delegations of an agent in both directions, at most `most` agents in each.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn connections(services: &Services, caller: &Caller, agent: AgentId, most: i64) -> Result<Connections> {
    services.permit(caller, Action::ListDelegates).await?;
    let mut read = services.store.read().await?;
    Ok(Connections {
        delegates: impact::connected(read.conn(), agent, Direction::Delegates, most).await?,
        delegate_count: impact::count_connected(read.conn(), &[agent], Direction::Delegates, CONNECTED_MAX).await?,
        delegators: impact::connected(read.conn(), agent, Direction::Delegators, most).await?,
        delegator_count: impact::count_connected(read.conn(), &[agent], Direction::Delegators, CONNECTED_MAX).await?,
    })
}

/// Returns when an agent last got a token.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn last_used(services: &Services, caller: &Caller, agent: AgentId) -> Result<Option<Timestamp>> {
    services.permit(caller, Action::ReadAgent).await?;
    let mut read = services.store.read_usage().await?;
    Ok(impact::credentials(read.conn(), &[agent], services.env.now()).await?.last_used_at)
}

async fn permit(services: &Services, caller: &Caller) -> Result<()> {
    for action in [Action::ListGrants, Action::ListKeys, Action::ListTokens, Action::ListDelegates] {
        services.permit(caller, action).await?;
    }
    Ok(())
}

async fn rest(services: &Services, caller: &Caller, agents: &[AgentId], resources: Resources) -> Result<Impact> {
    let live_tokens = count_tokens(services, caller, agents).await?;
    let mut read = services.store.read_usage().await?;
    let credentials = impact::credentials(read.conn(), agents, services.env.now()).await?;
    Ok(Impact {
        agents: agents.len(),
        usable_keys: credentials.usable_keys,
        other_credentials: credentials.others,
        live_tokens,
        delegates: impact::count_connected(read.conn(), agents, Direction::Delegates, CONNECTED_MAX).await?,
        delegators: impact::count_connected(read.conn(), agents, Direction::Delegators, CONNECTED_MAX).await?,
        resources,
        last_used_at: credentials.last_used_at,
    })
}

async fn count_tokens(services: &Services, caller: &Caller, agents: &[AgentId]) -> Result<Count> {
    let mut total = Count { tokens: 0, may_be_more: agents.len() > COUNTED };
    for agent in agents.iter().take(COUNTED) {
        let count = live_tokens::count(services, caller, *agent).await?;
        total.tokens += count.tokens;
        total.may_be_more |= count.may_be_more;
        if total.tokens >= COUNT_MAX {
            return Ok(Count { tokens: COUNT_MAX, may_be_more: true });
        }
    }
    Ok(total)
}

fn reaches(held: &CapabilitySet, resource: &ProtectedResource) -> bool {
    !held.intersection(&resource.capabilities).is_empty()
}

async fn reached(conn: Conn<'_>, wanted: impl Fn(&ProtectedResource) -> bool) -> Result<Resources> {
    let page = resources::list(conn, None, Limit::of(Limit::MAX)).await?;
    let found = page.items.into_iter().filter(wanted).map(|resource| (resource.id, resource.name)).collect();
    Ok(Resources { found, may_be_more: page.next.is_some() })
}
