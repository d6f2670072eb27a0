//! The credentials of agents: API keys, public keys and federated identities.

pub mod api_keys;
pub mod federation;
pub mod fleet;
pub mod key_bulk;
pub mod key_facts;
pub mod key_search;
pub mod public_keys;
