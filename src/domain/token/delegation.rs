//! Delegations, which allow one agent to act on behalf of another.

use crate::domain::{
    ids::{AgentId, DelegationId},
    timestamp::Timestamp,
};

/// Allows one agent to act on behalf of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// Unique identifier.
    pub id: DelegationId,
    /// The agent that is acted for.
    pub agent: AgentId,
    /// The agent that can act on its behalf.
    pub delegate: AgentId,
    /// Name of the delegate.
    pub delegate_name: String,
    /// Time of creation.
    pub created_at: Timestamp,
}

impl Delegation {
    /// Maximum number of delegates of an agent. The live view of an agent holds all of them.
    pub const MAX_PER_AGENT: usize = 1_000;
}
