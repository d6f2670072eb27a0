//! What an operation on many agents would change, what it would not, and why.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{BULK_MAX, Bulk, Unchanged};
use crate::{
    domain::{
        AgentId, AgentStatus, Capability, CapabilitySet, Error, Result,
        agent::{Brief, label_change::LabelChange, labels::Labels},
        audit::hex,
        capability::builtin,
    },
    service::{
        Services,
        core::{
            caller::Caller,
            policy::{Action, Authority},
        },
        tokens::live_tokens::{self, Count},
    },
    store::{
        agents::{facts, labels},
        capabilities,
        credentials::ways_in::{self, Demand},
    },
};

/// The live tokens of at most this many agents are counted.
const COUNTED: usize = 50;

/// The effect of an operation.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The agents that would change, sorted by name.
    pub changes: Vec<Brief>,
    /// The agents that would not, and why. Without name if an agent no longer exists.
    pub unchanged: Vec<(AgentId, Option<Brief>, Unchanged)>,
    /// How many API keys of the changing agents have not ended.
    pub keys: i64,
    /// The live tokens of the changing agents.
    pub tokens: Count,
}

impl Preview {
    /// Returns a text that differs if the operation or the agents that would change do.
    #[must_use]
    pub fn fingerprint(&self, bulk: &Bulk) -> String {
        let mut ids: Vec<_> = self.changes.iter().map(|brief| brief.id).collect();
        ids.sort_unstable();
        let mut hash = Sha256::new();
        match bulk {
            Bulk::Suspend(_) => hash.update("suspend"),
            Bulk::Reactivate => hash.update("reactivate"),
            Bulk::Grant(capability) => hash.update(format!("grant {capability}")),
            Bulk::Ungrant(capability) => hash.update(format!("ungrant {capability}")),
            Bulk::Transfer(owner) => hash.update(format!("transfer {owner}")),
            Bulk::Label(change) => hash.update(format!("label {change}")),
        }
        for id in ids {
            hash.update(id.0.as_bytes());
        }
        hex(&hash.finalize().into())
    }
}

/// Returns the effect of an operation on these agents, at most [`BULK_MAX`].
///
/// # Errors
/// [`Error::NotFound`] for an unknown capability; [`Error::Denied`] if the caller lacks the capability to grant.
pub async fn preview(services: &Services, caller: &Caller, bulk: &Bulk, ids: &[AgentId]) -> Result<Preview> {
    services.permit(caller, Action::ListGrants).await?;
    let ids = ids.get(..BULK_MAX.min(ids.len())).unwrap_or_default();
    let now = services.env.now();
    let authority = Authority::of(caller);
    let mut read = services.store.read().await?;
    let capability = match bulk {
        Bulk::Grant(id) | Bulk::Ungrant(id) => {
            Some(capabilities::find(read.conn(), *id).await?.ok_or(Error::NotFound("Capability"))?)
        }
        _ => None,
    };
    if let (Bulk::Grant(_), Some(capability)) = (bulk, &capability) {
        authority.require_held(&capability.name)?;
    }
    let mut briefs = facts::briefs(read.conn(), ids).await?;
    let held = facts::held(read.conn(), ids).await?;
    let labels = if matches!(bulk, Bulk::Label(_)) { labels::of_all(read.conn(), ids).await? } else { HashMap::new() };
    let none = Labels::default();
    let mut preview = Preview {
        changes: Vec::new(),
        unchanged: Vec::new(),
        keys: 0,
        tokens: Count { tokens: 0, may_be_more: false },
    };
    let mut administrators = Vec::new();
    for &id in ids {
        let Some(brief) = briefs.remove(&id) else {
            preview.unchanged.push((id, None, Unchanged::Gone));
            continue;
        };
        let set: CapabilitySet = held.get(&id).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let reason = match bulk {
            Bulk::Label(change) => label_obstacle(change, labels.get(&id).unwrap_or(&none)),
            _ => obstacle(bulk, &brief, &set, &authority, capability.as_ref()),
        };
        if let Some(reason) = reason {
            preview.unchanged.push((id, Some(brief), reason));
            continue;
        }
        if brief.status == AgentStatus::Active && set.iter().any(|name| name == builtin::ADMIN) {
            administrators.push(id);
        }
        preview.changes.push(brief);
    }
    let takes_admin = match bulk {
        Bulk::Suspend(_) => true,
        Bulk::Ungrant(_) => capability.is_some_and(|capability| capability.name.as_str() == builtin::ADMIN),
        Bulk::Reactivate | Bulk::Grant(_) | Bulk::Transfer(_) | Bulk::Label(_) => false,
    };
    let demand = Demand { at: now, tokens: 1 };
    if takes_admin
        && !administrators.is_empty()
        && !ways_in::any_other_has_one(read.conn(), &administrators, demand).await?
    {
        for id in administrators {
            if ways_in::has_one(read.conn(), id, None, demand).await? {
                let kept = preview.changes.extract_if(.., |brief| brief.id == id);
                preview.unchanged.extend(kept.map(|brief| (id, Some(brief), Unchanged::LastAdministrator)));
                break;
            }
        }
    }
    preview.changes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let changing: Vec<_> = preview.changes.iter().map(|brief| brief.id).collect();
    if matches!(bulk, Bulk::Suspend(_) | Bulk::Reactivate) {
        preview.keys = facts::count_keys(read.conn(), &changing, now).await?.into_values().sum();
    }
    drop(read);
    if matches!(bulk, Bulk::Suspend(_) | Bulk::Ungrant(_)) {
        preview.tokens = live_tokens_of(services, caller, &changing).await?;
    }
    Ok(preview)
}

/// Returns why an operation would not change an agent.
fn obstacle(
    bulk: &Bulk,
    agent: &Brief,
    held: &CapabilitySet,
    authority: &Authority,
    capability: Option<&Capability>,
) -> Option<Unchanged> {
    let holds = |capability: &Capability| held.iter().any(|name| name == capability.name.as_str());
    let state = match (bulk, agent.status, capability) {
        (Bulk::Suspend(_) | Bulk::Reactivate, AgentStatus::Revoked, _) => Some(Unchanged::Revoked),
        (Bulk::Suspend(_), AgentStatus::Suspended, _) => Some(Unchanged::Suspended),
        (Bulk::Reactivate, AgentStatus::Active, _) => Some(Unchanged::Active),
        (Bulk::Grant(_), _, Some(capability)) if holds(capability) => Some(Unchanged::Held),
        (Bulk::Grant(_), _, Some(capability)) => {
            let names = held.iter().map(str::to_owned).chain([capability.name.to_string()]);
            let names = names.filter_map(|name| crate::domain::CapabilityName::parse(&name).ok());
            (!names.collect::<CapabilitySet>().fits_a_token()).then_some(Unchanged::TooLong)
        }
        (Bulk::Ungrant(_), _, Some(capability)) if !holds(capability) => Some(Unchanged::NotHeld),
        (Bulk::Transfer(owner), ..) if agent.owner == *owner => Some(Unchanged::Owned),
        _ => None,
    };
    state.or_else(|| authority.lacks(held).map(|name| Unchanged::MoreAuthority(name.to_owned())))
}

/// Returns why a change of labels would not change an agent. It demands no authority over the agent, as its edit does not.
fn label_obstacle(change: &LabelChange, labels: &Labels) -> Option<Unchanged> {
    match change.apply(labels) {
        Ok(changed) => (changed == *labels).then_some(Unchanged::Labelled),
        Err(_) => Some(Unchanged::TooManyLabels),
    }
}

/// Counts the live tokens of the first of these agents.
async fn live_tokens_of(services: &Services, caller: &Caller, ids: &[AgentId]) -> Result<Count> {
    let distinct: HashSet<_> = ids.iter().take(COUNTED).copied().collect();
    let counts = stream::iter(distinct).map(|id| live_tokens::count(services, caller, id)).buffer_unordered(4);
    let may_be_more = ids.len() > COUNTED;
    counts
        .try_fold(Count { tokens: 0, may_be_more }, |sum, one| async move {
            Ok(Count { tokens: sum.tokens + one.tokens, may_be_more: sum.may_be_more || one.may_be_more })
        })
        .await
}
