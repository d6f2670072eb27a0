//! The credential endpoints: API keys, public keys and federated identities.

pub mod api_keys;
pub mod federated_identities;
pub mod public_keys;
