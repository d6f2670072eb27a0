//! The credentials of agents: API keys, public keys and federated identities.

pub mod api_keys;
pub mod federation;
pub mod public_keys;
