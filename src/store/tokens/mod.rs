//! Tables of signing keys, resources, delegated and revoked tokens.

pub mod delegated_tokens;
pub mod resources;
pub mod revoked_tokens;
pub mod signing_keys;
