//! Power over an agent: the caller holds every capability that the agent holds.
//!
//! Every operation that changes an agent's status, credentials, delegates, capabilities or tokens checks this first. So
//! a caller can neither gain authority nor take it from an agent that holds more.

use super::{
    act::Act,
    agent,
    caller::Caller,
    policy::{Action, Authority},
};
use crate::{
    domain::{AgentId, AgentStatus, ApiKeyId, Error, Result},
    service::Services,
};

/// Checks that the caller has power over an agent.
///
/// # Errors
/// [`crate::domain::Denial::MoreAuthority`].
pub(in crate::service) async fn require(act: &mut Act<'_>, agent: AgentId) -> Result<()> {
    let held = agent::held(act.conn(), agent).await?;
    act.authority.require_all(&held)
}

/// Checks that the caller may issue a credential for an agent, because the holder of the credential can act as the
/// agent. A caller that has the agent's authority through a limited key may only rotate that key (`replaced`), which
/// keeps the limits.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`]; [`Error::Refused`] for a limited key or a revoked agent.
pub(in crate::service) async fn require_to_issue(
    act: &mut Act<'_>,
    agent: AgentId,
    replaced: Option<ApiKeyId>,
) -> Result<()> {
    let target = agent::find(act.conn(), agent).await?;
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

/// Checks that the caller may revoke a credential of an agent. An agent may always revoke its own credentials, even
/// with a token that has fewer capabilities than the agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub(in crate::service) async fn require_to_revoke(act: &mut Act<'_>, agent: AgentId) -> Result<()> {
    agent::find(act.conn(), agent).await?;
    if !act.caller.is_agent(agent) {
        require(act, agent).await?;
    }
    Ok(())
}

/// Returns the first capability of an agent that the caller currently lacks, so that a page can hide actions that would
/// be denied.
///
/// # Errors
/// [`Error::Denied`] without `agents:read`.
pub async fn lacking(services: &Services, caller: &Caller, agent: AgentId) -> Result<Option<String>> {
    services.permit(caller, Action::ReadAgent).await?;
    let principal = services.principals.agent(&services.store, agent, services.env.now()).await?;
    let authority = Authority::of(caller);
    Ok(principal.and_then(|agent| authority.lacks(&agent.capabilities).map(str::to_owned)))
}
