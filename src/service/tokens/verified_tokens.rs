//! Access tokens whose signature was checked, so that it is checked once and not with every request.
//!
//! Only what a token said is remembered, under the hash of the token; what its agents may do is asked of the live view
//! every time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::{
    domain::{
        AgentId, Result, Timestamp, TokenId,
        token::{Claims, Link},
    },
    service::{Services, core::caller::AgentCaller},
    store::tokens::delegated_tokens,
};

/// Remembers what verified tokens said. All clones are one.
#[derive(Clone)]
pub struct VerifiedTokens(Arc<Remembered>);

struct Remembered {
    tokens: Cache<TokenHash, (Keys, Verified)>,
    /// Which keys are in force.
    keys: AtomicU64,
}

type TokenHash = [u8; 32];

/// Which set of keys verified a token: they are counted from the start of the process.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Keys(u64);

/// What a token says that AIMS signed, and that has not expired.
#[derive(Clone)]
pub(in crate::service) struct Verified {
    pub(in crate::service) claims: Arc<Claims>,
    /// Whom it stands for, with all that it says; what of it is still true is for the live view to say.
    pub(in crate::service) bearer: AgentCaller,
    pub(in crate::service) jti: TokenId,
}

impl Verified {
    pub(in crate::service) fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(self.claims.exp)
    }
}

impl VerifiedTokens {
    /// Remembers at most `capacity` tokens; those used least are checked again when needed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Remembered { tokens: Cache::new(capacity), keys: AtomicU64::new(0) }))
    }

    /// Forgets every token, those as well that are being verified by the keys of before: to be called once others are in force.
    pub(in crate::service) fn forget_all(&self) {
        self.0.keys.fetch_add(1, Ordering::SeqCst);
        self.0.tokens.clear();
    }

    /// To be asked before the keys that a token is verified by are taken.
    fn keys(&self) -> Keys {
        Keys(self.0.keys.load(Ordering::SeqCst))
    }

    fn remember(&self, token: TokenHash, keys: Keys, verified: Verified) {
        self.0.tokens.insert(token, (keys, verified));
    }

    fn get(&self, token: &TokenHash) -> Option<Verified> {
        self.0.tokens.get(token).filter(|(keys, _)| *keys == self.keys()).map(|(_, verified)| verified)
    }
}

impl Services {
    /// Reads a token that AIMS signed, whomever it is for; `None` for any other, and for one that has expired.
    ///
    /// # Errors
    /// When the database fails.
    pub(in crate::service) async fn verified(&self, token: &str, now: Timestamp) -> Result<Option<Verified>> {
        let hash: TokenHash = Sha256::digest(token).into();
        if let Some(known) = self.verified_tokens.get(&hash) {
            return Ok(Some(known).filter(|known| now < known.expires_at()));
        }
        let keys = self.verified_tokens.keys();
        // Tokens that do not verify are not remembered: whoever forges must not fill the memory.
        let Ok(claims) = self.keyring.get().verify(token, self.settings.issuer.as_str(), now) else { return Ok(None) };
        let Some(jti) = TokenId::parse(&claims.jti) else { return Ok(None) };
        let Some(bearer) = bearer(self, &claims, jti).await? else { return Ok(None) };
        let verified = Verified { claims: Arc::new(claims), bearer, jti };
        self.verified_tokens.remember(hash, keys, verified.clone());
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{ApiKeyId, token::Credential};

    /// A request may wait for the database between the two, while a key that was lost to somebody is withdrawn.
    #[test]
    fn what_was_verified_by_keys_of_before_is_not_remembered() {
        let tokens = VerifiedTokens::new(16);
        let keys = tokens.keys();
        tokens.forget_all();
        tokens.remember([1; 32], keys, verified());
        assert!(tokens.get(&[1; 32]).is_none());
        tokens.remember([1; 32], tokens.keys(), verified());
        assert!(tokens.get(&[1; 32]).is_some());
    }

    fn verified() -> Verified {
        let claims = r#"{ "iss": "i", "sub": "s", "aud": "a", "client_id": "s", "iat": 0, "exp": 1, "jti": "t",
            "scope": "", "scopes": [], "token_epoch": 0 }"#;
        let claims: Claims = serde_json::from_str(claims).unwrap();
        let (agent, credential, jti) = (AgentId(Uuid::nil()), ApiKeyId(Uuid::nil()), TokenId(Uuid::nil()));
        let subject = Link {
            agent,
            credential: Credential::ApiKey(credential),
            token_epoch: 0,
            presented: Some(jti),
            acting: None,
        };
        let bearer = AgentCaller { authority: claims.scopes.clone(), subject, actors: Arc::default() };
        Verified { claims: Arc::new(claims), bearer, jti }
    }
}
