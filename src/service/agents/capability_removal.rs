//! Deleting a capability, together with everything that refers to it.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::capabilities::{NOT_FOUND, OWN, details};
use crate::{
    domain::{
        AgentId, CapabilityId, Error, ProtectedResource, Result,
        audit::{AuditAction, Changes, Resource, hex},
        capability::builtin,
    },
    service::{
        Services,
        core::{act::Act, caller::Caller, conditions::Expected, policy::Action},
    },
    store::{
        capabilities::{self, holders},
        tokens::resources,
    },
};

/// Maximum number of agents that can lose a capability, and of resources that can, when it is deleted. Each gets an
/// audit record of its own, all other changes wait for them, and this many take about a second.
pub const AT_ONCE: i64 = 10_000;

/// Whether a capability is deleted although agents hold it or resources name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WithGrants {
    /// No.
    No,
    /// Yes. It is first revoked from these agents and removed from these resources.
    Yes,
    /// Yes, if they are still the agents and resources with this fingerprint: see
    /// [`super::capability_impact::Impact::fingerprint`].
    IfSeen(String),
}

/// Returns a text that differs if the agents that hold a capability, or the resources that name it, do.
pub(super) fn fingerprint(holders: &[AgentId], resources: &[ProtectedResource]) -> String {
    let mut hash = Sha256::new();
    for holder in holders {
        hash.update(holder.0.as_bytes());
    }
    hash.update("resources");
    for resource in resources {
        hash.update(resource.id.0.as_bytes());
    }
    hex(&hash.finalize().into())
}

/// What was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Number of agents that held the capability.
    pub agents: usize,
    /// Number of resources whose tokens could have it.
    pub resources: usize,
}

/// Deletes a capability. If `with_grants` allows it, it is first revoked from all agents that hold it and removed from
/// all resources that name it, in the same transaction and with an audit record for each. Tokens lose it at once.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] for a capability that AIMS itself checks or that the caller holds;
/// [`Error::Conflict`] for a capability in use with [`WithGrants::No`], and for one that is held by more than
/// [`AT_ONCE`] agents; [`Error::Stale`] for another version than expected, and for other agents or resources than seen.
pub async fn delete(
    services: &Services,
    caller: &Caller,
    id: CapabilityId,
    expected: Expected,
    with_grants: WithGrants,
) -> Result<Deleted> {
    services
        .change(caller, Action::DeleteCapability, move |act| {
            Box::pin(async move {
                let capability = capabilities::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                expected.check(&capability)?;
                let name = capability.name.as_str();
                if builtin::is_checked(name) {
                    return Err(Error::Refused("AIMS itself checks this capability, so it cannot be deleted"));
                }
                // A caller with `admin:*` holds at least as much as each agent that loses the capability.
                act.authority.require_held(&builtin::ADMIN.into())?;
                let holding = holders::first(act.conn(), id, AT_ONCE + 1).await?;
                let named = resources::naming(act.conn(), name, AT_ONCE + 1).await?;
                let held = i64::try_from(holding.len()).unwrap_or(i64::MAX);
                let count = i64::try_from(named.len()).unwrap_or(i64::MAX);
                if with_grants == WithGrants::No && (held > 0 || count > 0) {
                    return Err(Error::Conflict(in_use(held, count).into()));
                }
                if held > AT_ONCE || count > AT_ONCE {
                    let reason = format!(
                        "{}. At most {AT_ONCE} of each can be changed at once: revoke it from some agents first",
                        in_use(held, count)
                    );
                    return Err(Error::Conflict(reason.into()));
                }
                require_not_own(act, id).await?;
                if let WithGrants::IfSeen(seen) = with_grants
                    && seen != fingerprint(&holding, &named)
                {
                    return Err(Error::Stale);
                }

                let agents = holders::ungrant_all(act.tx, id).await?;
                for agent in &agents {
                    let mut details = details(&capability);
                    if let Some(members) = details.as_object_mut() {
                        members.insert("deleted".to_owned(), true.into());
                    }
                    act.audit(AuditAction::CapabilityRevoked, Resource::Agent(*agent), Some(*agent), details);
                }
                for mut resource in named.iter().cloned() {
                    let before = resource.capabilities.clone();
                    resource.capabilities = before.without(name);
                    resource.updated_at = act.now;
                    resources::update(act.conn(), &resource).await?;
                    let changes = Changes::of([("scope", before.as_scope(), resource.capabilities.as_scope())]);
                    let details = json!({ "identifier": resource.identifier, "changes": changes });
                    act.audit(AuditAction::ResourceUpdated, Resource::ProtectedResource(resource.id), None, details);
                }
                holders::delete(act.tx, id).await?;
                let deleted = Deleted { agents: agents.len(), resources: named.len() };
                let details = json!({
                    "capability": capability.name,
                    "capability_id": id,
                    "description": capability.description,
                    "agents": deleted.agents,
                    "resources": deleted.resources,
                });
                act.audit(AuditAction::CapabilityDeleted, Resource::Capability(id), None, details);
                Ok(deleted)
            })
        })
        .await
}

fn in_use(held: i64, named: i64) -> String {
    let count = |number: i64, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        number if number > AT_ONCE => format!("more than {AT_ONCE} {many}"),
        number => format!("{number} {many}"),
    };
    let by = count(held, "agent", "agents");
    let of = count(named, "resource", "resources");
    match (held, named) {
        (_, 0) => format!("Capability is held by {by}"),
        (0, _) => format!("Capability is named by {of}"),
        _ => format!("Capability is held by {by} and named by {of}"),
    }
}

/// Rejects the deletion of a capability that an agent of the call holds: agents cannot change their own capabilities.
async fn require_not_own(act: &mut Act<'_>, id: CapabilityId) -> Result<()> {
    let own = act.caller.agents();
    if holders::among(act.conn(), id, &own).await?.is_empty() { Ok(()) } else { Err(Error::Refused(OWN)) }
}
