//! Agents' own public keys: a key pair whose private half never leaves the agent.

use serde_json::Value;

use crate::domain::{
    ids::{AgentId, PublicKeyId},
    timestamp::Timestamp,
};

/// A public key as registered.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// Identifier of the record.
    pub id: PublicKeyId,
    /// Whose it is.
    pub agent: AgentId,
    /// What the agent calls it, or its thumbprint.
    pub kid: String,
    /// Its SHA-256 thumbprint (RFC 7638).
    pub thumbprint: String,
    /// The key (RFC 7517), its public members alone.
    pub jwk: Value,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl PublicKey {
    /// Most public keys of one agent.
    pub const MAX_PER_AGENT: usize = 20;
}
