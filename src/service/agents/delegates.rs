//! Which agents may act for which (RFC 8693): nobody for anybody, unless it is said here.

use serde_json::json;

use crate::{
    domain::{
        AgentId, DelegationId, Error, Result,
        audit::{AuditAction, Resource},
        token::delegation::Delegation,
    },
    service::{
        Services, agents,
        core::{caller::Caller, policy::Action, power},
    },
    store::{self, agents::delegations},
};

/// Lets `delegate` act for an agent: with no more than either of them holds.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Denied`] when the agent holds authority that the caller lacks; [`Error::Refused`] for an
/// agent and itself; [`Error::Conflict`] when it may already, and beyond [`Delegation::MAX_PER_AGENT`].
pub async fn add(services: &Services, caller: &Caller, agent: AgentId, delegate: AgentId) -> Result<Delegation> {
    let id = DelegationId(services.env.uuid());
    services
        .change(caller, Action::AddDelegate, move |act| {
            Box::pin(async move {
                agents::find(act, agent).await?;
                power::require(act, agent).await?;
                if agent == delegate {
                    return Err(Error::Refused("An agent needs nobody's leave to act for itself"));
                }
                let delegate_name = agents::find(act, delegate).await?.name.to_string();
                if delegations::of_agent(act.conn(), agent).await?.len() >= Delegation::MAX_PER_AGENT {
                    return Err(Error::Conflict(
                        format!("An agent has at most {} delegates", Delegation::MAX_PER_AGENT).into(),
                    ));
                }
                let delegation = Delegation { id, agent, delegate, delegate_name, created_at: act.now };
                if !delegations::insert(act.conn(), &delegation).await? {
                    return Err(Error::Conflict("The agent may act for this one already".into()));
                }
                act.tx.changed(agent);
                let details = json!({ "target_agent": agent, "delegate": delegate });
                act.audit(AuditAction::DelegateAdded, Resource::Agent(delegate), Some(agent), details);
                Ok(delegation)
            })
        })
        .await
}

/// Who may act for an agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<Delegation>> {
    services.permit(caller, Action::ListDelegates).await?;
    let mut read = services.store.read().await?;
    store::agents::find(read.conn(), agent).await?.ok_or(agents::NOT_FOUND)?;
    delegations::of_agent(read.conn(), agent).await
}

/// Forbids `delegate` to act for an agent; tokens by which it does so end at once, and all that descend from them.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn remove(services: &Services, caller: &Caller, agent: AgentId, delegate: AgentId) -> Result<()> {
    services
        .change(caller, Action::RemoveDelegate, move |act| {
            Box::pin(async move {
                agents::find(act, agent).await?;
                power::require(act, agent).await?;
                if !delegations::delete(act.conn(), agent, delegate).await? {
                    return Err(Error::NotFound("Delegate"));
                }
                act.tx.changed(agent);
                let details = json!({ "target_agent": agent, "delegate": delegate });
                act.audit(AuditAction::DelegateRemoved, Resource::Agent(delegate), Some(agent), details);
                Ok(())
            })
        })
        .await
}
