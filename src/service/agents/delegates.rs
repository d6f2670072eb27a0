//! Delegates: the agents that may act for another agent (RFC 8693). By default, no agent may.

use serde_json::json;

use crate::{
    domain::{
        AgentId, DelegationId, Error, Result,
        audit::{AuditAction, Resource},
        token::delegation::Delegation,
    },
    service::{
        Services,
        core::{agent, caller::Caller, conditions::Once, policy::Action, power},
    },
    store::agents::delegations,
};

/// Allows `delegate` to act for an agent, with the capabilities that both of them hold.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Denied`] if the agent holds a capability that the caller lacks; [`Error::Refused`] if
/// the two are the same agent; [`Error::Conflict`] if it is already a delegate, and beyond
/// [`Delegation::MAX_PER_AGENT`]; see [`Once`].
pub async fn add(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    delegate: AgentId,
    once: Once<Delegation>,
) -> Result<Delegation> {
    let id = DelegationId(services.env.uuid());
    services
        .change(caller, Action::AddDelegate, move |act| {
            Box::pin(async move {
                agent::find(act.conn(), agent).await?;
                power::require(act, agent).await?;
                let first = once.begin(act).await?;
                if agent == delegate {
                    return Err(Error::Refused("An agent cannot be its own delegate"));
                }
                let delegate_name = agent::find(act.conn(), delegate).await?.name.to_string();
                if delegations::of_agent(act.conn(), agent).await?.len() >= Delegation::MAX_PER_AGENT {
                    return Err(Error::Conflict(
                        format!("An agent has at most {} delegates", Delegation::MAX_PER_AGENT).into(),
                    ));
                }
                let delegation = Delegation { id, agent, delegate, delegate_name, created_at: act.now };
                if !delegations::insert(act.tx, &delegation).await? {
                    return Err(Error::Conflict("The agent is already a delegate".into()));
                }
                let details = json!({ "target_agent": agent, "delegate": delegate });
                act.audit(AuditAction::DelegateAdded, Resource::Agent(delegate), Some(agent), details);
                first.finish(act, delegation).await
            })
        })
        .await
}

/// Returns the delegates of an agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<Delegation>> {
    services.permit(caller, Action::ListDelegates).await?;
    let mut read = services.store.read().await?;
    agent::find(read.conn(), agent).await?;
    delegations::of_agent(read.conn(), agent).await
}

/// Removes a delegate of an agent. Tokens with which it acts for the agent end at once, and so do their descendants.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn remove(services: &Services, caller: &Caller, agent: AgentId, delegate: AgentId) -> Result<()> {
    services
        .change(caller, Action::RemoveDelegate, move |act| {
            Box::pin(async move {
                agent::find(act.conn(), agent).await?;
                power::require(act, agent).await?;
                if !delegations::delete(act.tx, agent, delegate).await? {
                    return Err(Error::NotFound("Delegate"));
                }
                let details = json!({ "target_agent": agent, "delegate": delegate });
                act.audit(AuditAction::DelegateRemoved, Resource::Agent(delegate), Some(agent), details);
                Ok(())
            })
        })
        .await
}
