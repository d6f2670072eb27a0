//! Runs an operation on many agents.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{
    Bulk, CONCURRENCY,
    preview::{Preview, preview},
    refusal,
};
use crate::{
    domain::{
        Agent, AgentId, AgentStatus, BulkActId, Capability, CapabilityId, Error, Result, Timestamp,
        agent::{Brief, label_change::LabelChange},
    },
    service::{
        Services,
        agents::{capabilities, reactivate_now, save, suspend_now},
        core::{act::Act, agent, caller::Caller, policy::not_oneself, power},
    },
    store::{agents::bulk_acts, capabilities as stored},
};

/// The outcome of an operation.
#[derive(Debug)]
pub enum Applied {
    /// The agents that would change are not those that the caller confirmed. Nothing was changed.
    Outdated(Preview),
    /// The operation is complete.
    Done(Done),
}

/// What an operation changed.
#[derive(Debug)]
pub struct Done {
    /// The operation, if it can be undone.
    pub act: Option<BulkActId>,
    /// The agents that were changed.
    pub changed: Vec<Brief>,
    /// How many agents the preview left out.
    pub unchanged: usize,
    /// Agents that could not be changed after all, and why.
    pub failed: Vec<(Brief, String)>,
    /// When it started.
    pub at: Timestamp,
}

/// Runs an operation on these agents if they are still those that the caller saw in the preview with the fingerprint
/// `seen`. Each change is audited. A refusal for one agent does not affect the others.
///
/// # Errors
/// [`Error::Denied`]; [`Error::ProofNeeded`]; when the database fails, possibly after some agents were changed.
pub async fn apply(
    services: &Arc<Services>,
    caller: &Caller,
    bulk: &Bulk,
    ids: &[AgentId],
    seen: &str,
) -> Result<Applied> {
    services.permit(caller, bulk.action()).await?;
    let preview = preview(services, caller, bulk, ids).await?;
    if preview.fingerprint(bulk) != seen || preview.changes.is_empty() {
        return Ok(Applied::Outdated(preview));
    }
    Ok(Applied::Done(perform(services, caller, bulk, preview).await?))
}

/// Makes the changes of a preview.
pub(in crate::service::agents) async fn perform(
    services: &Arc<Services>,
    caller: &Caller,
    bulk: &Bulk,
    preview: Preview,
) -> Result<Done> {
    let at = services.env.now();
    let act = begin(services, caller, bulk).await?;
    let unchanged = preview.unchanged.len();
    let change_one = |brief: Brief| {
        let (bulk, id) = (bulk.clone(), brief.id);
        let one = services
            .change(caller, bulk.action(), move |unit| Box::pin(async move { change(unit, bulk, act, id).await }));
        async move { (brief, one.await) }
    };
    let mut outcomes = stream::iter(preview.changes).map(change_one).buffer_unordered(CONCURRENCY);
    let mut done = Done { act, changed: Vec::new(), unchanged, failed: Vec::new(), at };
    while let Some((brief, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => done.changed.push(brief),
            Err(error) => done.failed.push((brief, refusal(error)?)),
        }
    }
    Ok(done)
}

/// Records the start of an operation that can be undone.
async fn begin(services: &Services, caller: &Caller, bulk: &Bulk) -> Result<Option<BulkActId>> {
    // Only the console offers to undo.
    let (Some((kind, target)), Some(actor)) = (bulk.undoable(), caller.administrator()) else { return Ok(None) };
    let id = BulkActId(services.env.uuid());
    let act = bulk_acts::BulkAct { id, actor: actor.into(), kind, target };
    let begin = services.change(caller, bulk.action(), move |unit| {
        Box::pin(async move { bulk_acts::begin(unit.tx, &act, unit.now).await })
    });
    begin.await?;
    Ok(Some(id))
}

async fn change(unit: &mut Act<'_>, bulk: Bulk, act: Option<BulkActId>, id: AgentId) -> Result<()> {
    let mut previous = None;
    match bulk {
        Bulk::Suspend(reason) => {
            if agent::find(unit.conn(), id).await?.status == AgentStatus::Suspended {
                return Err(Error::Refused("Agent is already suspended"));
            }
            suspend_now(unit, id, reason).await?;
        }
        Bulk::Reactivate => drop(reactivate_now(unit, id).await?),
        Bulk::Grant(capability) => {
            let capability = to_grant(unit, id, capability).await?;
            capabilities::give(unit, id, &capability).await?;
        }
        Bulk::Ungrant(capability) => {
            capabilities::take(unit, id, capability).await?;
        }
        Bulk::Transfer(owner) => previous = Some(transfer(unit, id, owner).await?),
        Bulk::Label(labels) => previous = Some(label(unit, id, &labels).await?),
    }
    if let Some(act) = act {
        let now = unit.now;
        bulk_acts::changed(unit.tx, act, id, now, previous.as_deref()).await?;
    }
    Ok(())
}

async fn to_grant(unit: &mut Act<'_>, id: AgentId, capability: CapabilityId) -> Result<Capability> {
    not_oneself(&unit.caller, id, capabilities::OWN)?;
    agent::find(unit.conn(), id).await?;
    power::require(unit, id).await?;
    let capability = stored::find(unit.conn(), capability).await?.ok_or(Error::NotFound("Capability"))?;
    unit.authority.require_held(&capability.name)?;
    Ok(capability)
}

/// Changes the owner of an agent. Returns the previous one.
async fn transfer(unit: &mut Act<'_>, id: AgentId, owner: String) -> Result<String> {
    let before = agent::find(unit.conn(), id).await?;
    power::require(unit, id).await?;
    if before.owner == owner {
        return Err(Error::Refused("Agent already has this owner"));
    }
    save(unit, &before, Agent { owner, ..before.clone() }).await?;
    Ok(before.owner)
}

/// Changes the labels of an agent. Returns the previous ones that the change touches, as lines.
async fn label(unit: &mut Act<'_>, id: AgentId, change: &LabelChange) -> Result<String> {
    let before = agent::find(unit.conn(), id).await?;
    let labels =
        change.apply(&before.labels).map_err(|invalid| Error::Conflict(invalid.message().into_owned().into()))?;
    if labels == before.labels {
        return Err(Error::Refused("Agent already has these labels"));
    }
    let previous = change.touched(&before.labels).to_lines();
    save(unit, &before, Agent { labels, ..before.clone() }).await?;
    Ok(previous)
}
