//! `DPoP` proofs of possession (RFC 9449). A token that is bound to a key is valid only with a fresh proof by that key,
//! made for the same request.

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

/// Maximum age of a proof.
const PROOF_LIFE: Duration = Duration::from_mins(1);
/// How long used proofs and revoked tokens are kept after they expire, because the clocks of nodes differ.
pub(in crate::service) const CLOCK_SKEW_MARGIN: Duration = Duration::from_secs(10);
/// Maximum length of a proof's `jti`, in bytes.
const JTI_MAX: usize = 256;

/// The supported signature algorithms of proofs (RFC 9449 §5.1).
pub const ALGORITHMS: [&str; 4] = public_key::ALGORITHMS;

/// A proof that came with a request and is not verified yet.
#[derive(Clone, Debug)]
pub struct PresentedProof {
    /// The value of the `DPoP` header.
    pub proof: String,
    /// The method of the request.
    pub method: String,
    /// The URL of the request as the client sees it.
    pub url: String,
}

/// A proof whose signature and claims are valid.
#[derive(Clone, Debug)]
pub(in crate::service) struct VerifiedProof {
    /// The thumbprint of the key that signed the proof.
    pub(in crate::service) jkt: String,
    hash: [u8; 32],
    until: Timestamp,
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) enum ProofError {
    /// The proof has no current nonce.
    NonceNeeded,
    /// The proof is not valid, with the reason for the audit record.
    Invalid(&'static str),
}

impl From<ProofError> for TokenRefusal {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::NonceNeeded => Self::DpopNonceNeeded,
            ProofError::Invalid(reason) => Self::InvalidDpopProof(reason),
        }
    }
}

impl From<ProofError> for AuthFailure {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::NonceNeeded => Self::DpopNonceNeeded,
            ProofError::Invalid(reason) => Self::InvalidDpopProof(reason),
        }
    }
}

impl Services {
    /// Returns the nonce for the client's next proof (RFC 9449 §8).
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.dpop_nonces.nonce(self.env.now())
    }

    /// Checks that a proof has a current nonce, before a credential that works only once, such as an assertion, is used
    /// up.
    ///
    /// # Errors
    /// [`TokenRefusal::DpopNonceNeeded`].
    pub fn require_nonce(&self, presented: &PresentedProof) -> Result<(), TokenRefusal> {
        match self.verify_proof(presented, None) {
            Err(error @ ProofError::NonceNeeded) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Verifies a proof for a request (RFC 9449 §4.3) and for the access token of the request, if it has one. Does not
    /// check that the proof was not used before: see [`Self::spend_proof`].
    pub(in crate::service) fn verify_proof(
        &self,
        presented: &PresentedProof,
        token: Option<&str>,
    ) -> Result<VerifiedProof, ProofError> {
        let now = self.env.now();
        let proof = Proof::read(&presented.proof).ok_or(ProofError::Invalid("dpop_malformed"))?;
        let claims = &proof.claims;
        if claims.htm != presented.method {
            return Err(ProofError::Invalid("dpop_method"));
        }
        if !is_same(&presented.url, &claims.htu) {
            return Err(ProofError::Invalid("dpop_url"));
        }
        let age = now.as_secs().saturating_sub(claims.iat);
        if age < -CLOCK_SKEW || age > PROOF_LIFE.as_secs().try_into().unwrap_or_default() {
            return Err(ProofError::Invalid("dpop_time"));
        }
        if claims.jti.is_empty() || claims.jti.len() > JTI_MAX {
            return Err(ProofError::Invalid("dpop_without_identifier"));
        }
        if token.is_some_and(|token| claims.ath != Some(URL_SAFE_NO_PAD.encode(Sha256::digest(token)))) {
            return Err(ProofError::Invalid("dpop_other_token"));
        }
        if !claims.nonce.as_ref().is_some_and(|nonce| self.dpop_nonces.accepts(nonce, now)) {
            return Err(ProofError::NonceNeeded);
        }
        let hash = Sha256::digest([b"dpop ", proof.thumbprint.as_bytes(), b" ", claims.jti.as_bytes()].concat()).into();
        let until = Timestamp::from_secs(claims.iat).plus(PROOF_LIFE).plus(CLOCK_SKEW_MARGIN);
        Ok(VerifiedProof { jkt: proof.thumbprint, hash, until })
    }

    /// Marks a proof as used, on all nodes. Call it after all other checks, so that refused requests do not fill the
    /// database.
    pub(in crate::service) async fn spend_proof(&self, proof: &VerifiedProof) -> Result<Result<(), ProofError>> {
        let (hash, until) = (proof.hash, proof.until);
        let is_first = self
            .store
            .write(move |tx| Box::pin(async move { public_keys::spend(tx.conn(), hash, until).await }))
            .await?;
        Ok(if is_first { Ok(()) } else { Err(ProofError::Invalid("dpop_replayed")) })
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
