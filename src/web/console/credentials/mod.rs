//! Pages for credentials: API keys, public keys, federated identities and signing keys.

pub(super) mod federated_identities;
pub(super) mod keys;
pub(super) mod public_keys;
pub(super) mod signing_keys;
pub(super) mod snippets;
