//! The public keys of foreign issuers, as they publish them: kept for a while, asked for again when a token names another, and never
//! so often that somebody's forgeries become somebody else's load.

use std::{convert::Infallible, sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::fetch::{self, FetchError};
use crate::{
    crypto::AssertionKey,
    domain::{Timestamp, credential::federation::Trust},
    service::Services,
};

/// How long keys are good without being asked for again.
const FRESH: Duration = Duration::from_mins(10);
/// How long they serve while the issuer does not answer.
const STALE: Duration = Duration::from_hours(24);
/// How often an issuer is asked at most.
const PAUSE: Duration = Duration::from_secs(30);
/// Most issuers remembered.
const CAPACITY: usize = 1_000;
/// Most keys of one issuer that are looked at.
const KEYS_MAX: usize = 100;

/// What foreign issuers published. All clones are one.
#[derive(Clone)]
pub struct ForeignKeys(Arc<Cache<String, Arc<Mutex<Published>>>>);

#[derive(Default)]
struct Published {
    keys: Arc<[AssertionKey]>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    /// Why the last attempt failed, if it did: for the record.
    failure: Option<&'static str>,
}

/// Why the keys of an issuer cannot be fetched.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the discovery document cannot be read")]
    Document(#[source] FetchError),
    #[error("the discovery document names another issuer")]
    Issuer,
    #[error("the keys cannot be read")]
    Keys(#[source] FetchError),
}

/// The reason for the audit record if the keys cannot be read, or none of them is of a supported kind.
const KEYS_UNREADABLE: &str = "federation_keys_unreadable";

impl Failure {
    /// The `details.reason` of the audit record.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Document(_) => "federation_document_unreadable",
            Self::Issuer => "federation_issuer_differs",
            Self::Keys(_) => KEYS_UNREADABLE,
        }
    }
}

impl Default for ForeignKeys {
    fn default() -> Self {
        Self(Arc::new(Cache::new(CAPACITY)))
    }
}

impl Services {
    /// The keys with which an issuer may have signed a token. The token may name one of them.
    ///
    /// # Errors
    /// The reason for the record when the keys are not known: none can be read, or the named one may be newer than those that
    /// were read last.
    pub(in crate::service) async fn foreign_keys_of(
        &self,
        trust: &Trust,
        kid: Option<&str>,
    ) -> Result<Vec<AssertionKey>, &'static str> {
        let now = self.env.now();
        let source = format!("{} {}", trust.jwks_uri.as_deref().unwrap_or_default(), trust.issuer);
        let Ok(published) = self.foreign_keys.0.get_or_insert_with(&source, || Ok::<_, Infallible>(Arc::default()));
        // Whoever comes while the issuer is being asked waits for its answer.
        let mut published = published.lock_owned().await;
        let since = |at: Timestamp, period: Duration| at.plus(period) <= now;
        let is_known = kid.is_none_or(|kid| published.keys.iter().any(|key| key.kid() == kid));
        let is_fresh = published.fetched_at.is_some_and(|at| !since(at, FRESH));
        if !(is_fresh && is_known) && published.tried_at.is_none_or(|at| since(at, PAUSE)) {
            // A task of its own: whoever caused it may hang up, and the next attempt is far off.
            let asking = ask(published, trust.clone(), self.settings.federation_allow_private, now);
            published = tokio::spawn(asking).await.map_err(|_| KEYS_UNREADABLE)?;
        }
        let is_usable = published.fetched_at.is_some_and(|at| !since(at, STALE)) && !published.keys.is_empty();
        let fits = |key: &&AssertionKey| kid.is_none_or(|kid| key.kid() == kid);
        let fitting: Vec<_> = published.keys.iter().filter(fits).cloned().collect();
        let is_latest = published.fetched_at == published.tried_at;
        if is_usable && (is_latest || !fitting.is_empty()) {
            return Ok(fitting);
        }
        Err(published.failure.unwrap_or(KEYS_UNREADABLE))
    }
}

/// Asks an issuer for its keys.
async fn ask(
    mut published: OwnedMutexGuard<Published>,
    trust: Trust,
    allow_private: bool,
    now: Timestamp,
) -> OwnedMutexGuard<Published> {
    published.tried_at = Some(now);
    match fetch_keys(&trust, allow_private).await {
        Ok(keys) => {
            published.keys = keys.into();
            published.fetched_at = Some(now);
            published.failure = None;
        }
        Err(error) => {
            published.failure = Some(error.reason());
            tracing::warn!(
                issuer = trust.issuer,
                error = &error as &dyn std::error::Error,
                "cannot read an issuer's keys"
            );
        }
    }
    published
}

async fn fetch_keys(trust: &Trust, allow_private: bool) -> Result<Vec<AssertionKey>, Failure> {
    let uri = match &trust.jwks_uri {
        Some(uri) => uri.clone(),
        None => discovered(&trust.issuer, allow_private).await?,
    };
    let document = fetch::json(&uri, allow_private).await.map_err(Failure::Keys)?;
    let keys = document.get("keys").and_then(Value::as_array).ok_or(Failure::Keys(FetchError::Content))?;
    // Keys of kinds that are not used here may be among them.
    Ok(keys.iter().take(KEYS_MAX).filter_map(|key| AssertionKey::from_jwk(key).ok()).collect())
}

/// Where an issuer's discovery document says that its keys are (`OpenID` Connect Discovery 1.0 §4).
async fn discovered(issuer: &str, allow_private: bool) -> Result<String, Failure> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetch::json(&url, allow_private).await.map_err(Failure::Document)?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(Failure::Issuer);
    }
    text("jwks_uri").map(str::to_owned).ok_or(Failure::Document(FetchError::Content))
}
