//! Tables of agent credentials and their use.

pub mod activity;
pub mod api_keys;
pub mod federated_identities;
pub mod public_keys;
pub(super) mod usage;
pub mod ways_in;
