//! Access tokens whose signature was checked, so that it is checked once and not with every request.
//!
//! Only what a token said is remembered, under the hash of the token; what its agents may do is asked of the live view
//! every time.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::{Services, caller::AgentCaller};
use crate::{
    domain::{
        AgentId, Result, Timestamp, TokenId,
        token::{Claims, Link},
    },
    store::delegated_tokens,
};

/// Most tokens remembered; those used least are checked again when needed.
const CAPACITY: usize = 8_192;

/// Remembers what verified tokens said. All clones are one.
#[derive(Clone)]
pub struct VerifiedTokens(Arc<Cache<TokenHash, Verified>>);

type TokenHash = [u8; 32];

/// What a token says that AIMS signed, and that has not expired.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) claims: Arc<Claims>,
    /// Whom it stands for, with all that it says; what of it is still true is for the live view to say.
    pub(super) bearer: AgentCaller,
    pub(super) jti: TokenId,
}

impl Verified {
    pub(super) fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(self.claims.exp)
    }
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Arc::new(Cache::new(CAPACITY)))
    }
}

impl VerifiedTokens {
    /// Forgets every token: each is verified anew when it comes again.
    pub(super) fn forget_all(&self) {
        self.0.clear();
    }
}

impl Services {
    /// Reads a token that AIMS signed, whomever it is for; `None` for any other, and for one that has expired.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn verified(&self, token: &str, now: Timestamp) -> Result<Option<Verified>> {
        let hash: TokenHash = Sha256::digest(token).into();
        if let Some(known) = self.verified_tokens.0.get(&hash) {
            return Ok(Some(known).filter(|known| now < known.expires_at()));
        }
        // Tokens that do not verify are not remembered: whoever forges must not fill the memory.
        let Ok(claims) = self.keyring.get().verify(token, &self.settings.issuer, now) else { return Ok(None) };
        let Some(jti) = TokenId::parse(&claims.jti) else { return Ok(None) };
        let Some(bearer) = bearer(self, &claims, jti).await? else { return Ok(None) };
        let verified = Verified { claims: Arc::new(claims), bearer, jti };
        self.verified_tokens.0.insert(hash, verified.clone());
        Ok(Some(verified))
    }
}

async fn bearer(services: &Services, claims: &Claims, jti: TokenId) -> Result<Option<AgentCaller>> {
    let authority = claims.scopes.clone();
    if claims.act.is_some() {
        let links = delegated_tokens::links(services.store.read().await?.conn(), jti).await?;
        return Ok(AgentCaller::of_chain(authority, links));
    }
    let (agent, credential) = (AgentId::parse(&claims.sub), claims.credential());
    Ok(agent.zip(credential).map(|(agent, credential)| AgentCaller {
        authority,
        subject: Link { agent, credential, token_epoch: claims.token_epoch, presented: Some(jti), acting: None },
        actors: Arc::default(),
    }))
}
