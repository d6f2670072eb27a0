//! The operations of AIMS, which the API, the console and the command line share. Each one checks the caller's
//! authority, and each change commits together with its audit record.
//!
//! | module | operations |
//! |---|---|
//! | [`agents`] | agents, capabilities and delegates |
//! | [`audit`] | the audit log: read, verify and archive |
//! | [`backup`] | backups, restores and the schedule of backups |
//! | [`bootstrap`] | the first agent with `admin:*`, and the recovery of access |
//! | [`core`] | what all operations are built on |
//! | [`credentials`] | API keys, public keys and federated identities |
//! | [`gauges`] | the numbers that are read when the metrics are read |
//! | [`health`] | the readiness check |
//! | [`master_key`] | the key that encrypts secrets in the database, and its rotation |
//! | [`overview`] | the numbers on the console's overview page |
//! | [`people`] | administrators: setup, sign-in, sessions and second factors |
//! | [`seed_import`] | the import of the predecessor's database |
//! | [`tokens`] | access tokens, protected resources and signing keys |

pub mod agents;
pub mod audit;
pub mod backup;
pub mod bootstrap;
pub mod core;
pub mod credentials;
pub mod gauges;
pub mod health;
pub mod master_key;
pub mod overview;
pub mod people;
pub mod seed_import;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

pub use core::caller::{Caller, Identity, Origin};
pub use core::conditions::{Expected, Once};
pub use core::policy::Action;

use crate::{
    clock::Environment,
    crypto::PasswordQueue,
    domain::{PublicUrl, audit::RefusalBounds, token::SigningAlgorithm},
    store::{Changes, Store},
    telemetry::metrics::Metrics,
};

/// What all operations need.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// The live view of agents.
    pub principals: core::principals::Principals,
    /// The cache of verified tokens.
    pub verified_tokens: tokens::verified_tokens::VerifiedTokens,
    /// The cache of foreign issuers' public keys.
    pub foreign_keys: credentials::federation::foreign_keys::ForeignKeys,
    /// The counts of refusals.
    pub refusals: core::refusals::Refusals,
    /// The keys that sign and verify tokens.
    pub keyring: tokens::signing_keys::CurrentKeyring,
    /// The `DPoP` nonces.
    pub dpop_nonces: tokens::nonces::DpopNonces,
    /// The queue for checking and hashing passwords.
    pub passwords: PasswordQueue,
    /// The keys that encrypt secrets in the database, if there are any.
    pub master_key: Option<master_key::CurrentMasterKeys>,
    /// The background verification of the audit log.
    pub checker: audit::Checker,
    /// The latest readiness check.
    pub readiness: health::Readiness,
    /// True once the service shuts down, so that responses that wait for events end.
    pub ending: watch::Sender<bool>,
    /// Time and randomness.
    pub env: Environment,
    /// The settings.
    pub settings: Arc<Settings>,
}

impl Services {
    /// Returns the metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }

    /// Forgets what is cached under the time at which it was loaded. For a clock that was set back: what had ended by
    /// then may be valid again, and what was fetched in the future would stay for too long.
    pub fn forget_caches(&self) {
        self.principals.forget(&Changes::EVERYTHING);
        self.verified_tokens.forget_all();
        self.foreign_keys.forget_all();
    }
}

/// The settings of the service layer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public URL: the issuer, and the default audience, of access tokens.
    pub issuer: PublicUrl,
    /// The algorithm that signs access tokens; `None` for a shared secret.
    pub signing: Option<SigningAlgorithm>,
    /// How long a key signs before it is rotated; `None` for no automatic rotation.
    pub signing_key_rotation: Option<Duration>,
    /// Maximum life of an access token.
    pub token_life: Duration,
    /// Maximum number of actors in a delegation chain (RFC 8693 §4.1).
    pub delegation_depth: usize,
    /// How long a rotated key works by default.
    pub rotation_grace: Duration,
    /// Whether foreign issuers may have private addresses and use http.
    pub federation_allow_private: bool,
    /// Limits on audit records of refusals.
    pub refusals: RefusalBounds,
    /// The scheduled backups, if any.
    pub backups: Option<backup::schedule::Plan>,
}
