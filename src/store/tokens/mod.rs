//! Tokens, the keys that sign them, and the resources that they are for.

pub mod delegated_tokens;
pub mod resources;
pub mod revoked_tokens;
pub mod sealed;
pub mod signing_keys;
