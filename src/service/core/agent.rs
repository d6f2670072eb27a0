//! Rules about a single agent that several subjects share.

use crate::{
    domain::{Agent, AgentId, AgentStatus, AuthFailure, CapabilitySet, Error, Result},
    store::{Conn, agents, capabilities},
};

pub(in crate::service) const NOT_FOUND: Error = Error::NotFound("Agent");

/// Returns an agent.
///
/// # Errors
/// [`Error::NotFound`].
pub(in crate::service) async fn find(conn: Conn<'_>, id: AgentId) -> Result<Agent> {
    agents::find(conn, id).await?.ok_or(NOT_FOUND)
}

/// Returns the capabilities that an agent holds.
///
/// # Errors
/// When the database fails.
pub(in crate::service) async fn held(conn: Conn<'_>, id: AgentId) -> Result<CapabilitySet> {
    let held = capabilities::held_by(conn, id).await?;
    Ok(held.into_iter().map(|capability| capability.name).collect())
}

/// Checks that an agent with this status may act.
///
/// # Errors
/// [`AuthFailure::AgentSuspended`], [`AuthFailure::AgentRevoked`].
pub(in crate::service) const fn check_status(status: AgentStatus) -> Result<(), AuthFailure> {
    match status {
        AgentStatus::Active => Ok(()),
        AgentStatus::Suspended => Err(AuthFailure::AgentSuspended),
        AgentStatus::Revoked => Err(AuthFailure::AgentRevoked),
    }
}
