//! Public keys of agents. The private key never leaves the agent.

use serde_json::Value;

use crate::domain::{
    ids::{AgentId, PublicKeyId},
    timestamp::Timestamp,
};

/// The record of an agent's public key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// Unique identifier of the record.
    pub id: PublicKeyId,
    /// Agent that the key belongs to.
    pub agent: AgentId,
    /// Key ID in the JWK (`kid`), or the thumbprint if the JWK has none.
    pub kid: String,
    /// SHA-256 thumbprint (RFC 7638).
    pub thumbprint: String,
    /// JSON Web Key (RFC 7517) with its public members only.
    pub jwk: Value,
    /// Time of registration.
    pub created_at: Timestamp,
}

impl PublicKey {
    /// Maximum number of public keys of an agent.
    pub const MAX_PER_AGENT: usize = 20;
}
