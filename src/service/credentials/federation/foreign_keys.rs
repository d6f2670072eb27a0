//! The public keys that foreign issuers publish. They are cached for a while and fetched again when a token has an
//! unknown `kid`, but not so often that forged tokens put load on an issuer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::fetch::{self, FetchError};
use crate::{
    crypto::AssertionKey,
    domain::{Timestamp, credential::federation::Trust},
    service::Services,
    telemetry::traces,
};

/// How long keys are used before they are fetched again.
const FRESH: Duration = Duration::from_mins(10);
/// How long keys are used while the issuer cannot be reached.
const STALE: Duration = Duration::from_hours(24);
/// Minimum time between two requests to an issuer.
const PAUSE: Duration = Duration::from_secs(30);
/// Maximum number of cached issuers.
const CAPACITY: usize = 1_000;
/// Maximum number of keys per issuer.
const KEYS_MAX: usize = 100;

/// The cached keys of foreign issuers. All clones share the cache.
#[derive(Clone)]
pub struct ForeignKeys(Arc<Cache<String, Arc<Mutex<Published>>>>);

#[derive(Default)]
struct Published {
    keys: Arc<[AssertionKey]>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    /// Why the last attempt failed, if it did: the reason for the audit record.
    failure: Option<&'static str>,
}

/// Why the keys of an issuer cannot be fetched.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot fetch the discovery document")]
    Document(#[source] FetchError),
    #[error("the discovery document is for another issuer")]
    Issuer,
    #[error("cannot fetch the keys")]
    Keys(#[source] FetchError),
}

/// The reason for the audit record if the keys cannot be fetched, or none of them is of a supported type.
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

impl ForeignKeys {
    /// Forgets all keys.
    pub(in crate::service) fn forget_all(&self) {
        self.0.clear();
    }
}

impl Default for ForeignKeys {
    fn default() -> Self {
        Self(Arc::new(Cache::new(CAPACITY)))
    }
}

impl Services {
    /// Returns the keys with which an issuer may have signed a token: those with the token's `kid`, or all if it has
    /// none.
    ///
    /// # Errors
    /// The reason for the audit record if the keys are not known: none can be fetched, or the `kid` may be newer than
    /// the keys that were fetched last.
    pub(in crate::service) async fn foreign_keys_of(
        &self,
        trust: &Trust,
        kid: Option<&str>,
    ) -> Result<Vec<AssertionKey>, &'static str> {
        let now = self.env.now();
        let source = format!("{} {}", trust.jwks_uri.as_deref().unwrap_or_default(), trust.issuer);
        let Ok(published) = self.foreign_keys.0.get_or_insert_with(&source, || Ok::<_, Infallible>(Arc::default()));
        // Concurrent requests wait for the keys together.
        let mut published = published.lock_owned().await;
        let since = |at: Timestamp, period: Duration| at.plus(period) <= now;
        let is_known = kid.is_none_or(|kid| published.keys.iter().any(|key| key.kid() == kid));
        let is_fresh = published.fetched_at.is_some_and(|at| !since(at, FRESH));
        if !(is_fresh && is_known) && published.tried_at.is_none_or(|at| since(at, PAUSE)) {
            // Runs in a task of its own, because the client may disconnect and the next attempt must wait for `PAUSE`.
            let fetching = refresh(published, trust.clone(), self.settings.federation_allow_private, now);
            published = tokio::spawn(traces::carry(fetching)).await.map_err(|_| KEYS_UNREADABLE)?;
        }
        let is_usable = published.fetched_at.is_some_and(|at| !since(at, STALE)) && !published.keys.is_empty();
        let matches = |key: &&AssertionKey| kid.is_none_or(|kid| key.kid() == kid);
        let matching: Vec<_> = published.keys.iter().filter(matches).cloned().collect();
        let is_latest = published.fetched_at == published.tried_at;
        if is_usable && (is_latest || !matching.is_empty()) {
            return Ok(matching);
        }
        Err(published.failure.unwrap_or(KEYS_UNREADABLE))
    }
}

/// Fetches the keys of an issuer again.
async fn refresh(
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
                "cannot fetch the keys of a foreign issuer"
            );
        }
    }
    published
}

async fn fetch_keys(trust: &Trust, allow_private: bool) -> Result<Vec<AssertionKey>, Failure> {
    let uri = match &trust.jwks_uri {
        Some(uri) => uri.clone(),
        None => discover(&trust.issuer, allow_private).await?,
    };
    let document = fetch::json(&uri, allow_private).await.map_err(Failure::Keys)?;
    let keys = document.get("keys").and_then(Value::as_array).ok_or(Failure::Keys(FetchError::Content))?;
    // Skips keys of types that are not supported.
    Ok(keys.iter().take(KEYS_MAX).filter_map(|key| AssertionKey::from_jwk(key).ok()).collect())
}

/// Returns the `jwks_uri` from an issuer's discovery document (`OpenID` Connect Discovery 1.0 §4).
async fn discover(issuer: &str, allow_private: bool) -> Result<String, Failure> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document = fetch::json(&url, allow_private).await.map_err(Failure::Document)?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(Failure::Issuer);
    }
    text("jwks_uri").map(str::to_owned).ok_or(Failure::Document(FetchError::Content))
}
