//! Proofs of possession (RFC 9449): what one says, and that its own key signed it; and the nonces that proofs must carry.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    AssertionKey, MasterKey,
    assertion::{Header, seconds},
};
use crate::domain::{Timestamp, text::json};

/// Longest proof that is looked at, in bytes.
const PROOF_MAX: usize = 8 * 1_024;
/// What the key of nonces is derived for.
const NONCE_PURPOSE: &[u8] = b"AIMS DPoP nonce";
/// How long one nonce is given out, in seconds; it is accepted for as long again.
const NONCE_SLOT: i64 = 300;

/// The claims of a proof (RFC 9449 §4.2).
#[derive(Debug, Deserialize)]
pub struct ProofClaims {
    /// Identifier of the proof.
    pub jti: String,
    /// The method of the request.
    pub htm: String,
    /// The URI of the request, without query and fragment.
    pub htu: String,
    /// Issued at, in seconds since the epoch.
    #[serde(deserialize_with = "seconds")]
    pub iat: i64,
    /// SHA-256 of the access token that comes with it.
    pub ath: Option<String>,
    /// What the server asked to have in it.
    pub nonce: Option<String>,
}

/// A proof that its own key signed; what it says is for others to check.
#[derive(Debug)]
pub struct Proof {
    /// What it says.
    pub claims: ProofClaims,
    /// The SHA-256 thumbprint of its key (RFC 7638): what tokens are bound to.
    pub thumbprint: String,
}

impl Proof {
    /// Reads a proof (RFC 9449 §4.3); `None` for what is none, names a key that is private or weak, or was not signed by it.
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

/// Makes the nonces that proofs must carry. They hold the time, authenticated: every node makes and knows the same ones, and
/// nothing is kept.
#[derive(Clone)]
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// The key of all nodes that share a master key.
    #[must_use]
    pub fn of_master_key(key: &MasterKey) -> Self {
        Self::derived(key.to_hex().expose_secret().as_bytes())
    }

    /// The key of all nodes that share a secret under which they sign tokens.
    #[must_use]
    pub fn of_shared_secret(secret: &SecretString) -> Self {
        Self::derived(secret.expose_secret().as_bytes())
    }

    fn derived(secret: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), NONCE_PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref()))
    }

    /// The nonce that is given out at `now`.
    #[must_use]
    pub fn nonce(&self, now: Timestamp) -> String {
        let slot = slot(now).to_be_bytes();
        URL_SAFE_NO_PAD.encode([slot.as_slice(), hmac::sign(&self.0, &slot).as_ref()].concat())
    }

    /// Whether a nonce was given out no longer ago than 5 to 10 minutes, be it by a node whose clock runs ahead.
    #[must_use]
    pub fn knows(&self, nonce: &str, now: Timestamp) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((given, tag)) = bytes.split_first_chunk::<8>() else { return false };
        let age = slot(now).saturating_sub(i64::from_be_bytes(*given));
        hmac::verify(&self.0, given, tag).is_ok() && (-1..=1).contains(&age)
    }
}

fn slot(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(NONCE_SLOT)
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey([REDACTED])")
    }
}
