//! A cache of access tokens whose signature was verified, so that it is not verified again for each request.
//!
//! An entry has only what the token says. The live view decides for each request what the token's agents may do.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::{
    domain::{
        AgentId, Result, Timestamp, TokenId,
        token::{Claims, Link},
    },
    service::{
        Services,
        core::{cache::get_or_load_counted, caller::AgentCaller},
    },
    store::tokens::delegated_tokens,
    telemetry::metrics::labels,
};

/// The verified tokens, by the SHA-256 hash of the token. All clones share the cache.
#[derive(Clone)]
pub struct VerifiedTokens(Arc<Cache<[u8; 32], Verified>>);

/// A token with a valid signature.
#[derive(Clone)]
pub(in crate::service) struct Verified {
    pub(in crate::service) claims: Arc<Claims>,
    /// The chain of the token, with all that the token allows.
    pub(in crate::service) bearer: AgentCaller,
    pub(in crate::service) jti: TokenId,
}

impl Verified {
    pub(in crate::service) fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(self.claims.exp)
    }
}

impl VerifiedTokens {
    /// A cache of at most `capacity` tokens. It evicts those that are used least.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Cache::new(capacity)))
    }

    /// Removes all tokens, and those that are being verified with earlier keys. Call it after new keys are in use.
    pub(in crate::service) fn forget_all(&self) {
        self.0.clear();
    }
}

impl Services {
    /// Verifies a token that AIMS signed, for whatever audience. Returns `None` for any other token, and for one that has
    /// expired or has not begun.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::service) async fn verify_token(&self, token: &str, now: Timestamp) -> Result<Option<Verified>> {
        let hash = Sha256::digest(token).into();
        // Invalid tokens are not cached: forged ones must not fill the memory.
        let counted = (self.metrics(), labels::Cache::VerifiedTokens);
        let verifying = verify(self, token, now);
        let verified = get_or_load_counted(counted, &self.verified_tokens.0, &hash, verifying).await?;
        Ok(verified.filter(|verified| now < verified.expires_at() && verified.claims.has_begun(now)))
    }
}

async fn verify(services: &Services, token: &str, now: Timestamp) -> Result<Option<Verified>> {
    let issuer = services.settings.issuer.as_str();
    let Ok(claims) = services.keyring.get().verify(token, issuer, now) else { return Ok(None) };
    let Some(jti) = TokenId::parse(&claims.jti) else { return Ok(None) };
    let Some(bearer) = bearer(services, &claims, jti).await? else { return Ok(None) };
    Ok(Some(Verified { claims: Arc::new(claims), bearer, jti }))
}

async fn bearer(services: &Services, claims: &Claims, jti: TokenId) -> Result<Option<AgentCaller>> {
    let authority = claims.scopes.clone();
    if claims.act.is_some() {
        let links = delegated_tokens::links(services.store.read().await?.conn(), jti).await?;
        return Ok(AgentCaller::from_chain(authority, links));
    }
    let (agent, credential) = (AgentId::parse(&claims.sub), claims.credential());
    Ok(agent.zip(credential).map(|(agent, credential)| AgentCaller {
        authority,
        subject: Link { agent, credential, token_epoch: claims.token_epoch, presented: Some(jti), acting: None },
        actors: Arc::default(),
    }))
}
