//! That one agent may act for another.

use crate::domain::{
    ids::{AgentId, DelegationId},
    timestamp::Timestamp,
};

/// Lets one agent act for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// Identifier.
    pub id: DelegationId,
    /// For whom.
    pub agent: AgentId,
    /// Who may.
    pub delegate: AgentId,
    /// What the delegate is called.
    pub delegate_name: String,
    /// Since when.
    pub created_at: Timestamp,
}

impl Delegation {
    /// Most delegates of an agent: all of them are part of its live view.
    pub const MAX_PER_AGENT: usize = 1_000;
}
