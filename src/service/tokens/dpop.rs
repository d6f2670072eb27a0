//! Proofs of possession (RFC 9449): a token that is bound to a key is worth nothing without a fresh proof by that key, made for
//! the very request that it comes with.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    crypto::{dpop::Proof, public_key},
    domain::{
        AuthFailure, Result, Timestamp,
        text::uri,
        token::{CLOCK_SKEW, TokenRefusal},
    },
    service::Services,
    store::credentials::public_keys,
};

/// How old a proof may be.
const PROOF_LIFE: Duration = Duration::from_mins(1);
/// How much longer than it may be presented is known what was spent or revoked, for nodes whose clocks differ.
pub(in crate::service) const KEPT_LONGER: Duration = Duration::from_secs(10);
/// Longest identifier of a proof, in bytes.
const JTI_MAX: usize = 256;

/// The algorithms that proofs may be signed with (RFC 9449 §5.1).
pub const ALGORITHMS: [&str; 4] = public_key::ALGORITHMS;

/// A proof as it came with a request.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The proof.
    pub proof: String,
    /// The method of the request.
    pub method: String,
    /// The URL of the request, as the client knows it.
    pub url: String,
}

/// What a proof shows.
#[derive(Clone, Debug)]
pub(in crate::service) struct Proven {
    /// The thumbprint of the key that made it (`jkt`).
    pub(in crate::service) jkt: String,
    hash: [u8; 32],
    until: Timestamp,
}

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) enum Problem {
    /// It carries no nonce that was given out lately.
    NonceNeeded,
    /// It is wrong; why, is for the record.
    Invalid(&'static str),
}

impl From<Problem> for TokenRefusal {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NonceNeeded => Self::DpopNonceNeeded,
            Problem::Invalid(reason) => Self::InvalidDpopProof(reason),
        }
    }
}

impl From<Problem> for AuthFailure {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NonceNeeded => Self::DpopNonceNeeded,
            Problem::Invalid(reason) => Self::InvalidDpopProof(reason),
        }
    }
}

impl Services {
    /// The nonce that the next proof shall carry (RFC 9449 §8).
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.dpop_nonces.nonce(self.env.now())
    }

    /// Tells a client the nonce before anything that it can use only once is used up for nothing, such as an assertion.
    ///
    /// # Errors
    /// [`TokenRefusal::DpopNonceNeeded`].
    pub fn require_nonce(&self, offered: &Offered) -> Result<(), TokenRefusal> {
        match self.prove(offered, None) {
            Err(problem @ Problem::NonceNeeded) => Err(problem.into()),
            _ => Ok(()),
        }
    }

    /// Checks a proof for a request (RFC 9449 §4.3), and for the access token that comes with it, if one does. That it was not used
    /// before is not yet known.
    pub(in crate::service) fn prove(&self, offered: &Offered, token: Option<&str>) -> Result<Proven, Problem> {
        let now = self.env.now();
        let proof = Proof::read(&offered.proof).ok_or(Problem::Invalid("dpop_malformed"))?;
        let claims = &proof.claims;
        if claims.htm != offered.method {
            return Err(Problem::Invalid("dpop_method"));
        }
        if !is_same(&offered.url, &claims.htu) {
            return Err(Problem::Invalid("dpop_url"));
        }
        let age = now.as_secs().saturating_sub(claims.iat);
        if age < -CLOCK_SKEW || age > PROOF_LIFE.as_secs().try_into().unwrap_or_default() {
            return Err(Problem::Invalid("dpop_time"));
        }
        if claims.jti.is_empty() || claims.jti.len() > JTI_MAX {
            return Err(Problem::Invalid("dpop_without_identifier"));
        }
        if token.is_some_and(|token| claims.ath != Some(URL_SAFE_NO_PAD.encode(Sha256::digest(token)))) {
            return Err(Problem::Invalid("dpop_other_token"));
        }
        if !claims.nonce.as_ref().is_some_and(|nonce| self.dpop_nonces.knows(nonce, now)) {
            return Err(Problem::NonceNeeded);
        }
        let hash = Sha256::digest([b"dpop ", proof.thumbprint.as_bytes(), b" ", claims.jti.as_bytes()].concat()).into();
        let until = Timestamp::from_secs(claims.iat).plus(PROOF_LIFE).plus(KEPT_LONGER);
        Ok(Proven { jkt: proof.thumbprint, hash, until })
    }

    /// Uses a proof up, on every node. To be called when nothing else speaks against the request, so that nobody fills the database.
    pub(in crate::service) async fn spend_proof(&self, proven: &Proven) -> Result<Result<(), Problem>> {
        let (hash, until) = (proven.hash, proven.until);
        let is_first = self
            .store
            .write(move |tx| Box::pin(async move { public_keys::spend(tx.conn(), hash, until).await }))
            .await?;
        Ok(if is_first { Ok(()) } else { Err(Problem::Invalid("dpop_replayed")) })
    }
}

/// Returns true if the `htu` of a proof is the URL of a request, apart from query and fragment (RFC 9449 §4.3).
fn is_same(url: &str, htu: &str) -> bool {
    uri::are_equivalent(url, htu.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn urls_are_compared_without_query_and_case_of_host() {
        for same in [
            "https://AIMS.example/oauth/token",
            "HTTPS://aims.example:443/oauth/token?x=1",
            "https://aims.example/oauth/token#f",
            "https://aims.example/oauth/%74oken",
        ] {
            assert!(is_same("https://aims.example/oauth/token", same), "{same}");
        }
        for other in [
            "http://aims.example/oauth/token",
            "https://aims.example/oauth/Token",
            "https://aims.example:8443/oauth/token",
            "https://aims.example.evil/oauth/token",
            "https://aims.example/oauth/token/",
            "https://aims.example/oauth%2Ftoken",
            "https://user@aims.example/oauth/token",
            "/oauth/token",
            "",
            "x",
        ] {
            assert!(!is_same("https://aims.example/oauth/token", other), "{other}");
        }
    }
}
