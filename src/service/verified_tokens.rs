//! Access tokens whose signature was checked, so that it is checked once and not with every request.
//!
//! Only what a token said is remembered, under the hash of the token; what its agent may do is asked of the live view
//! every time.

use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::caller::AgentCaller;
use crate::domain::Timestamp;

/// Most tokens remembered; those used least are checked again when needed.
const CAPACITY: u64 = 20_000;

/// Remembers what verified tokens said. All clones are one.
#[derive(Clone)]
pub struct VerifiedTokens(Cache<TokenHash, Verified>);

type TokenHash = [u8; 32];

#[derive(Clone)]
struct Verified {
    bearer: AgentCaller,
    expires_at: Timestamp,
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

impl VerifiedTokens {
    /// Forgets every token: each is verified anew when it comes again.
    pub(super) fn forget_all(&self) {
        self.0.invalidate_all();
    }

    /// What `token` said, if it was verified before and has not expired; else what `verify` finds, with its expiry.
    pub(super) fn get_or_verify(
        &self,
        token: &str,
        now: Timestamp,
        verify: impl FnOnce() -> Option<(AgentCaller, Timestamp)>,
    ) -> Option<AgentCaller> {
        let hash = Sha256::digest(token).into();
        if let Some(known) = self.0.get(&hash) {
            return (now < known.expires_at).then_some(known.bearer);
        }
        // Tokens that do not verify are not remembered: whoever forges must not fill the memory.
        let (bearer, expires_at) = verify()?;
        self.0.insert(hash, Verified { bearer: bearer.clone(), expires_at });
        Some(bearer)
    }
}
