//! Power over an agent: the caller holds all that the agent holds.
//!
//! Every act that stops or starts an agent, or adds or removes its credentials, delegates, capabilities or tokens, checks this
//! first. So a caller can neither gain authority nor take any from an agent that holds more than the caller does.

use super::{
    act::Act,
    caller::Caller,
    policy::{Action, Authority},
};
use crate::{
    domain::{AgentId, AgentStatus, ApiKeyId, CapabilitySet, Error, Result},
    service::{Services, agents},
};

/// Demands power over an agent; returns what the agent holds.
///
/// # Errors
/// [`crate::domain::Denial::MoreAuthority`].
pub(in crate::service) async fn require(act: &mut Act<'_>, agent: AgentId) -> Result<CapabilitySet> {
    let held = agents::held(act, agent).await?;
    act.authority.require_all(&held)?;
    Ok(held)
}

/// Checks that the caller may issue a credential for an agent: the holder of the credential can act as the agent. A caller that has
/// the agent's authority through a limited key cannot create a credential without limits; the key `replaced` passes on its limits.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`]; [`Error::Refused`] for a limited key and a revoked agent.
pub(in crate::service) async fn require_to_issue(
    act: &mut Act<'_>,
    agent: AgentId,
    replaced: Option<ApiKeyId>,
) -> Result<()> {
    let target = agents::find(act, agent).await?;
    require(act, agent).await?;
    if let Some(key) = act.caller.key_of(agent).filter(|key| replaced != Some(*key))
        && let Some(principal) = act.tx.principal(agent, act.now).await?
        && principal.key(key).is_some_and(|key| key.limits.is_limited())
    {
        return Err(Error::Refused("A limited key cannot create another credential for its own agent"));
    }
    if target.status == AgentStatus::Revoked {
        return Err(Error::Refused("Agent has been revoked"));
    }
    Ok(())
}

/// Checks that the caller may revoke a credential of an agent. An agent may always revoke its own, even with a token that carries
/// less than the agent holds.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub(in crate::service) async fn require_to_withdraw(act: &mut Act<'_>, agent: AgentId) -> Result<()> {
    agents::find(act, agent).await?;
    if !act.caller.is(agent) {
        require(act, agent).await?;
    }
    Ok(())
}

/// Returns the first capability of an agent that the caller currently lacks, so that a page offers no act
/// that would be refused.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn lacking(services: &Services, caller: &Caller, agent: AgentId) -> Result<Option<String>> {
    services.permit(caller, Action::ReadAgent).await?;
    let principal = services.principals.agent(&services.store, agent, services.env.now()).await?;
    let authority = Authority::of(caller);
    Ok(principal.and_then(|agent| authority.lacks(&agent.capabilities).map(str::to_owned)))
}
