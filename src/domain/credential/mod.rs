//! Credentials of agents, and their limits.

pub mod api_key;
pub mod federation;
pub mod key_filter;
pub mod key_limits;
pub mod network;
pub mod public_key;
