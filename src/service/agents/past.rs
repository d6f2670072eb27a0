//! What the audit log knows of an agent that no longer works: who stopped it, when and why.

use serde_json::Value;

use crate::{
    domain::{
        Agent, AgentId, Limit, Result, Timestamp,
        audit::{AuditAction, Filter, Record, Resource, Start},
    },
    service::{
        Services,
        audit::{self, names},
        core::caller::Caller,
    },
};

/// A suspension, revocation or deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The agent's name, which only the record of a deletion contains.
    pub name: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// The name of who did it, or their identifier if they no longer exist.
    pub by: Option<String>,
    /// The reason that was given.
    pub reason: Option<String>,
    /// The position of the record.
    pub seq: i64,
}

/// Returns who suspended or revoked an agent, and the reason. `None` for an active agent, and if the record is archived.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn stopped(services: &Services, caller: &Caller, agent: &Agent) -> Result<Option<Stopped>> {
    let (action, at) = match (agent.revoked_at, agent.suspended_at) {
        (Some(at), _) => (AuditAction::AgentRevoked, at),
        (None, Some(at)) => (AuditAction::AgentSuspended, at),
        (None, None) => return Ok(None),
    };
    // The time narrows the search down to a few records, however long ago it was.
    find(services, caller, agent.id, action, Some(at)).await
}

/// Returns who deleted an agent. `None` if it was not deleted, and if the record is archived.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn deleted(services: &Services, caller: &Caller, agent: AgentId) -> Result<Option<Stopped>> {
    find(services, caller, agent, AuditAction::AgentDeleted, None).await
}

async fn find(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    action: AuditAction,
    at: Option<Timestamp>,
) -> Result<Option<Stopped>> {
    let filter = Filter {
        action: Some(action.as_str().to_owned()),
        resource_type: Some(Resource::Agent(agent).kind().to_owned()),
        resource_id: Some(agent.to_string()),
        from: at,
        until: at,
        ..Filter::default()
    };
    let page = audit::list(services, caller, &filter, Start::Before(i64::MAX), Limit::of(1)).await?;
    let Some(record) = page.items.into_iter().next() else { return Ok(None) };
    let by = match record.actor {
        Some(actor) => {
            let names = names::of(services, caller, std::slice::from_ref(&record)).await?;
            Some(names.actor_or_id(actor))
        }
        None => None,
    };
    Ok(Some(described(&record, by)))
}

fn described(record: &Record, by: Option<String>) -> Stopped {
    let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
    let text = |name: &str| details.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let (name, reason) = (text("name").map(str::to_owned), text("reason").map(str::to_owned));
    Stopped { name, at: record.at, by, reason, seq: record.seq }
}
