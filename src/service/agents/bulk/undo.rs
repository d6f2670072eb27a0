//! Undoing an operation on many agents: only what it changed, and only where nobody has changed it since.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{CONCURRENCY, refusal};
use crate::{
    domain::{
        Agent, AgentId, AgentStatus, BulkActId, CapabilityId, Error, Result, Timestamp,
        agent::{label_change::LabelChange, labels::Labels},
    },
    service::{
        Services,
        agents::{capabilities, reactivate_now, save},
        core::{act::Act, agent, caller::Caller, policy::Action, power},
    },
    store::{
        agents::bulk_acts::{self, Changed},
        capabilities as stored,
    },
};

/// An operation that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Reactivates the agents that were suspended.
    Suspend,
    /// Revokes the grants of this capability.
    Grant(CapabilityId),
    /// Returns the agents to their previous owners, unless they have another owner than this by now.
    Transfer(String),
    /// Returns the labels that were set or removed to what they were, unless they have changed by now.
    Label(LabelChange),
}

/// What undoing an operation changed.
#[derive(Debug)]
pub struct Undone {
    /// The operation.
    pub undo: Undo,
    /// How many agents were changed back.
    pub done: usize,
    /// How many agents were changed by somebody else since, or could not be changed back.
    pub left: usize,
    /// When it started.
    pub at: Timestamp,
}

/// Undoes an operation of the caller.
///
/// # Errors
/// [`Error::NotFound`] if it is not an operation of the caller's that can still be undone; [`Error::Denied`];
/// [`Error::ProofNeeded`].
pub async fn undo(services: &Arc<Services>, caller: &Caller, id: BulkActId) -> Result<Undone> {
    const MISSING: Error = Error::NotFound("Action to undo");
    services.permit(caller, Action::ListAgents).await?;
    let at = services.env.now();
    let mut read = services.store.read().await?;
    let recorded = bulk_acts::find(read.conn(), id, at).await?;
    let recorded = recorded.filter(|act| caller.actor().is_some_and(|actor| actor.0 == act.actor)).ok_or(MISSING)?;
    let undo = match (recorded.kind.as_str(), recorded.target) {
        ("grant", Some(target)) => Undo::Grant(CapabilityId::parse(&target).ok_or(MISSING)?),
        ("transfer", Some(target)) => Undo::Transfer(target),
        ("label", Some(target)) => Undo::Label(LabelChange::parse(&target).map_err(|_| MISSING)?),
        _ => Undo::Suspend,
    };
    let action = match undo {
        Undo::Suspend => Action::ReactivateAgent,
        Undo::Grant(_) => Action::UngrantCapability,
        Undo::Transfer(_) | Undo::Label(_) => Action::UpdateAgent,
    };
    services.permit(caller, action).await?;
    let changed = bulk_acts::agents(read.conn(), id).await?;
    drop(read);
    let to_undo = Arc::new(undo.clone());
    let undo_one = |one: Changed| {
        let undo = to_undo.clone();
        services.change(caller, action, move |unit| Box::pin(async move { restore(unit, id, &undo, &one).await }))
    };
    let mut outcomes = stream::iter(changed).map(undo_one).buffer_unordered(CONCURRENCY);
    let (mut done, mut left) = (0, 0);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(true) => done += 1,
            Ok(false) => left += 1,
            Err(error) => {
                refusal(error)?;
                left += 1;
            }
        }
    }
    Ok(Undone { undo, done, left, at })
}

/// Changes an agent back. Returns false if it was changed again since.
async fn restore(unit: &mut Act<'_>, act: BulkActId, undo: &Undo, changed: &Changed) -> Result<bool> {
    let id = AgentId(changed.agent_id);
    if !bulk_acts::undone(unit.tx, act, id).await? {
        return Ok(false);
    }
    let agent = agent::find(unit.conn(), id).await?;
    let at = Timestamp::from_micros(changed.at);
    match undo {
        Undo::Suspend => {
            if agent.status != AgentStatus::Suspended || agent.suspended_at != Some(at) {
                return Ok(false);
            }
            reactivate_now(unit, id).await?;
        }
        Undo::Grant(capability) => {
            if stored::granted_at(unit.conn(), id, *capability).await? != Some(at) {
                return Ok(false);
            }
            capabilities::take(unit, id, *capability).await?;
        }
        Undo::Transfer(owner) => {
            let Some(previous) = changed.previous.as_deref().filter(|_| agent.owner == *owner) else {
                return Ok(false);
            };
            power::require(unit, id).await?;
            save(unit, &agent, Agent { owner: previous.to_owned(), ..agent.clone() }).await?;
        }
        Undo::Label(change) => {
            let unchanged = change.apply(&agent.labels).is_ok_and(|labels| labels == agent.labels);
            let previous = changed.previous.as_deref().map(Labels::parse_lines).and_then(Result::ok);
            let Some(previous) = previous.filter(|_| unchanged) else { return Ok(false) };
            let Ok(labels) = change.reverse(previous).apply(&agent.labels) else { return Ok(false) };
            save(unit, &agent, Agent { labels, ..agent.clone() }).await?;
        }
    }
    Ok(true)
}
