//! DPoP proofs (RFC 9449) and the nonces that they must carry.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    AssertionKey, MasterKey,
    assertion::{Header, seconds},
};
use crate::domain::{Timestamp, text::json};

/// Maximum length of a proof, in bytes. Longer ones are rejected without parsing.
const PROOF_MAX: usize = 8 * 1_024;
/// Context of the key derivation for nonces.
const NONCE_PURPOSE: &[u8] = b"AIMS DPoP nonce";
/// Length of the period in which all responses carry the same nonce, in seconds. A nonce is accepted until the end of
/// the next period.
const NONCE_PERIOD: i64 = 300;
/// Longest time for which a nonce is accepted.
pub const NONCE_LIFE: Duration = Duration::from_mins(10);

/// The claims of a proof (RFC 9449 §4.2).
#[derive(Debug, Deserialize)]
pub struct ProofClaims {
    /// Unique identifier of the proof.
    pub jti: String,
    /// HTTP method of the request.
    pub htm: String,
    /// URI of the request, without query and fragment.
    pub htu: String,
    /// Issued at, in seconds since the epoch.
    #[serde(deserialize_with = "seconds")]
    pub iat: i64,
    /// SHA-256 hash of the access token in the request.
    pub ath: Option<String>,
    /// Nonce provided by the server.
    pub nonce: Option<String>,
}

/// A proof with a verified signature. Its claims have not been checked.
#[derive(Debug)]
pub struct Proof {
    /// Claims.
    pub claims: ProofClaims,
    /// SHA-256 thumbprint of its key (RFC 7638), to which tokens are bound.
    pub thumbprint: String,
}

impl Proof {
    /// Parses a proof and verifies its signature (RFC 9449 §4.3). Returns `None` if the text is not a proof, if its key
    /// is private or weak, or if the signature is wrong.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > PROOF_MAX {
            return None;
        }
        let header = Header::read(text)?;
        if header.typ.as_deref() != Some("dpop+jwt") || header.crit.is_some() {
            return None;
        }
        let key = AssertionKey::from_jwk(&header.jwk?).ok()?;
        if !key.has_signed(text) {
            return None;
        }
        let claims = json::read(&URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?).ok()?;
        Some(Self { claims, thumbprint: key.thumbprint().to_owned() })
    }
}

/// Creates and checks the nonces that proofs must carry. A nonce contains the time and its HMAC, so all nodes create
/// and accept the same nonces without storing them.
#[derive(Clone)]
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// Derives the key from the master key, which all nodes share.
    #[must_use]
    pub fn of_master_key(key: &MasterKey) -> Self {
        Self::derived(key.to_hex().expose_secret().as_bytes())
    }

    /// Derives the key from the secret that signs tokens, which all nodes share.
    #[must_use]
    pub fn of_shared_secret(secret: &SecretString) -> Self {
        Self::derived(secret.expose_secret().as_bytes())
    }

    fn derived(secret: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), NONCE_PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref()))
    }

    /// Returns the nonce for responses at `now`.
    #[must_use]
    pub fn nonce(&self, now: Timestamp) -> String {
        let period = period_of(now).to_be_bytes();
        URL_SAFE_NO_PAD.encode([period.as_slice(), hmac::sign(&self.0, &period).as_ref()].concat())
    }

    /// Returns true if the other key makes the same nonces.
    #[must_use]
    pub fn makes_the_same_as(&self, other: &Self, now: Timestamp) -> bool {
        self.accepts(&other.nonce(now), now)
    }

    /// Returns true if a node created this nonce in the current or the previous period of 5 minutes. Also accepts the
    /// next period, for nodes whose clock is ahead.
    #[must_use]
    pub fn accepts(&self, nonce: &str, now: Timestamp) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((period, tag)) = bytes.split_first_chunk::<8>() else { return false };
        let age = period_of(now).saturating_sub(i64::from_be_bytes(*period));
        hmac::verify(&self.0, period, tag).is_ok() && (-1..=1).contains(&age)
    }
}

fn period_of(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(NONCE_PERIOD)
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey([REDACTED])")
    }
}
