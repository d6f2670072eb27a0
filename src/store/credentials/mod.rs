//! Credentials of agents and their usage.

pub mod activity;
pub mod api_keys;
pub mod federated_identities;
pub mod fleet;
pub mod key_search;
mod key_sql;
pub mod public_keys;
pub mod ways_in;
