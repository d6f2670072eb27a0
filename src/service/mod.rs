//! The use cases, shared by every face: authorise, change, audit, commit, effects.

pub mod agents;
pub mod audit;
pub mod bootstrap;
pub mod core;
pub mod credentials;
pub mod overview;
pub mod people;
pub mod seed_import;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

pub use core::caller::{Caller, Origin};
pub use core::policy::Action;

use crate::{
    clock::Environment,
    crypto::{MasterKey, NonceKey, PasswordLine},
    domain::{PublicUrl, audit::RefusalBounds, token::SigningAlgorithm},
    store::Store,
};

/// What the use cases work with.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// The live view.
    pub principals: core::principals::Principals,
    /// Tokens whose signature was checked.
    pub verified_tokens: tokens::verified_tokens::VerifiedTokens,
    /// The public keys of foreign issuers.
    pub foreign_keys: credentials::federation::foreign_keys::ForeignKeys,
    /// Records of refusals, throttled.
    pub refusals: core::refusals::Refusals,
    /// The keys that sign and verify tokens.
    pub keyring: tokens::signing_keys::CurrentKeyring,
    /// Makes the nonces that proofs of possession carry.
    pub dpop_nonces: NonceKey,
    /// The queue for checking and hashing passwords.
    pub passwords: PasswordLine,
    /// Seals what is secret in the database, where there is one.
    pub master_key: Option<MasterKey>,
    /// What is known of the whole audit log.
    pub checker: audit::Checker,
    /// Whether the service is about to end: what waits for events must not hold it up.
    pub ending: watch::Sender<bool>,
    /// Time and randomness.
    pub env: Environment,
    /// What the operator chose.
    pub settings: Arc<Settings>,
}

/// What the operator may choose about the use cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer, and the audience, of access tokens: the public URL.
    pub issuer: PublicUrl,
    /// What signs access tokens; `None` for a shared secret.
    pub signing: Option<SigningAlgorithm>,
    /// How long a key signs; `None` for as long as nobody rotates it.
    pub signing_key_rotation: Option<Duration>,
    /// Longest life of an access token.
    pub token_life: Duration,
    /// How many agents may act for a token's subject one after another (RFC 8693 §4.1).
    pub delegation_depth: usize,
    /// How long a rotated key works when the request does not say.
    pub rotation_grace: Duration,
    /// Whether foreign issuers may be asked at private addresses, and over plain http.
    pub federation_allow_private: bool,
    /// How many refusals are recorded one by one.
    pub refusals: RefusalBounds,
}
