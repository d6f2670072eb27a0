//! The use cases, shared by every face: authorise, change, audit, commit, effects.

pub mod account;
pub mod act;
pub mod administrators;
pub mod agents;
pub mod api_keys;
pub mod archive;
pub mod audit;
pub mod bootstrap;
pub mod caller;
pub mod capabilities;
pub mod clients;
pub mod delegates;
pub mod delegation;
pub mod dpop;
pub mod factors;
pub mod federation;
pub mod fetch;
pub mod foreign_keys;
pub mod introspection;
pub mod live_tokens;
pub mod overview;
pub mod passkeys;
pub mod policy;
pub mod power;
pub mod principals;
pub mod public_keys;
pub mod refusals;
pub mod resources;
pub mod revocation;
pub mod seed_import;
pub mod sessions;
pub mod setup;
pub mod sign_in;
pub mod signing_keys;
pub mod throttle;
pub mod tokens;
pub mod updates;
pub mod verified_tokens;
mod ways_in;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

pub use caller::{Caller, Origin};
pub use policy::Action;

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
    pub principals: principals::Principals,
    /// Tokens whose signature was checked.
    pub verified_tokens: verified_tokens::VerifiedTokens,
    /// The public keys of foreign issuers.
    pub foreign_keys: foreign_keys::ForeignKeys,
    /// Records of refusals, throttled.
    pub refusals: refusals::Refusals,
    /// The keys that sign and verify tokens.
    pub keyring: signing_keys::CurrentKeyring,
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
