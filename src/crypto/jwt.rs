//! Access tokens as signed JWTs in the profile of RFC 9068: made with one key, verified with any that is still valid.

use std::{collections::HashMap, fmt};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::signing::{KeyError, PrivateKey, PublicKey, jws_algorithm};
use crate::domain::{
    Timestamp,
    token::{CLOCK_SKEW, Claims, SigningAlgorithm},
};

/// Longest token that is looked at, in bytes: one with a scope of [`crate::domain::CapabilitySet::TOKEN_MAX`] is shorter, of whatever names and
/// through however many hands. A request's head may have 32 KiB.
const TOKEN_MAX: usize = 24 * 1024;
/// The `kid` of tokens under a shared secret. It names no published key.
const SHARED_KID: &str = "hs256";

/// The keys of access tokens: one that signs, and all that verify. It does not change; a rotation builds another.
pub struct Keyring {
    signer: Signer,
    /// The header of every token, encoded, with the dot that follows it.
    header: String,
    verifiers: HashMap<String, Verifier>,
    algorithm: SigningAlgorithm,
    jwks: Value,
    jwks_tag: String,
}

enum Signer {
    KeyPair(PrivateKey),
    Shared(Box<hmac::Key>),
}

/// A verification key with the one algorithm it is for.
struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    fn new(algorithm: SigningAlgorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(jws_algorithm(algorithm));
        // The library would read the system's clock; `Keyring::verify` checks the claims itself.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self { key, validation }
    }
}

impl Keyring {
    /// Shortest shared secret, in bytes (RFC 7518 §3.2).
    pub const SHARED_SECRET_MIN: usize = 32;

    /// Signs with `current`; verifies with it and with `others`, and publishes them all in this order.
    #[must_use]
    pub fn asymmetric(current: PrivateKey, others: impl IntoIterator<Item = PublicKey>) -> Self {
        let algorithm = current.public().algorithm();
        let header = encoded_header(algorithm, current.public().kid());
        let mut verifiers = HashMap::new();
        let mut published = Vec::new();
        for key in [current.public().clone()].into_iter().chain(others) {
            let verifier = Verifier::new(key.algorithm(), key.decoding().clone());
            if verifiers.insert(key.kid().to_owned(), verifier).is_none() {
                published.push(key.jwk().clone());
            }
        }
        let jwks = json!({ "keys": published });
        let jwks_tag = tag(&jwks);
        Self { signer: Signer::KeyPair(current), header, verifiers, algorithm, jwks, jwks_tag }
    }

    /// Signs and verifies with one secret under HS256, and publishes nothing.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`] below [`Self::SHARED_SECRET_MIN`] bytes.
    pub fn shared_secret(secret: &SecretString) -> Result<Self, KeyError> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < Self::SHARED_SECRET_MIN {
            return Err(KeyError::ShortSecret);
        }
        let verifier = Verifier::new(SigningAlgorithm::Hs256, DecodingKey::from_secret(secret));
        let jwks = json!({ "keys": [] });
        Ok(Self {
            signer: Signer::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))),
            header: encoded_header(SigningAlgorithm::Hs256, SHARED_KID),
            verifiers: HashMap::from([(SHARED_KID.to_owned(), verifier)]),
            algorithm: SigningAlgorithm::Hs256,
            jwks_tag: tag(&jwks),
            jwks,
        })
    }

    /// Makes a token, in the compact serialization of RFC 7515 §7.1.
    ///
    /// # Errors
    /// [`JwtError::Signing`] when the cryptographic library fails.
    pub fn sign(&self, claims: &Claims) -> Result<String, JwtError> {
        let claims = serde_json::to_vec(claims).map_err(|_| JwtError::Signing)?;
        let mut token = self.header.clone();
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        // Signed here and not by the JWT library, which would parse the private key anew for every token.
        let signature = match &self.signer {
            Signer::KeyPair(key) => key.sign(token.as_bytes()).map_err(|_| JwtError::Signing)?,
            Signer::Shared(key) => hmac::sign(key, token.as_bytes()).as_ref().to_vec(),
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Reads a token if `issuer` made it with one of these keys and it is valid at `now` (RFC 9068 §4), whomever it is for.
    ///
    /// The token says which of our keys it was signed with (`kid`). The key, not the token, decides the algorithm, and
    /// keys that the token carries or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
    ///
    /// A token has expired in the very second its `exp` names. Its `iat` and `nbf` may lie 5 seconds ahead, because
    /// another node may have issued it.
    ///
    /// # Errors
    /// The first reason to refuse it: for the log, not for its bearer.
    pub fn verify(&self, token: &str, issuer: &str, now: Timestamp) -> Result<Claims, JwtError> {
        if token.len() > TOKEN_MAX {
            return Err(JwtError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        if !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(JwtError::WrongType);
        }
        // None of the extensions that a header may declare critical is understood here (RFC 7515 §4.1.11).
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let verifier = header.kid.and_then(|kid| self.verifiers.get(&kid)).ok_or(JwtError::UnknownKey)?;
        let claims: Claims = jsonwebtoken::decode(token, &verifier.key, &verifier.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidAlgorithm => JwtError::WrongAlgorithm,
                ErrorKind::InvalidSignature => JwtError::BadSignature,
                _ => JwtError::Malformed,
            })?
            .claims;
        // A token is for one credential, or for a chain of agents that the database knows.
        if claims.credential().is_some() == claims.act.is_some() {
            return Err(JwtError::Malformed);
        }
        check(&claims, issuer, now)?;
        Ok(claims)
    }

    /// The algorithm that signs.
    #[must_use]
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5), the signing one first.
    #[must_use]
    pub const fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// The entity tag of the set (RFC 9110 §8.8.3).
    #[must_use]
    pub fn jwks_tag(&self) -> &str {
        &self.jwks_tag
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("kids", &self.verifiers.keys()).finish_non_exhaustive()
    }
}

fn tag(jwks: &Value) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(jwks.to_string())))
}

fn encoded_header(algorithm: SigningAlgorithm, kid: &str) -> String {
    let header = json!({ "typ": "at+jwt", "alg": algorithm.as_str(), "kid": kid });
    URL_SAFE_NO_PAD.encode(header.to_string()) + "."
}

/// RFC 9068 §4: the media type, of which RFC 7515 §4.1.9 allows to omit `application/`.
fn is_access_token(typ: &str) -> bool {
    ["at+jwt", "application/at+jwt"].iter().any(|expected| typ.eq_ignore_ascii_case(expected))
}

fn check(claims: &Claims, issuer: &str, now: Timestamp) -> Result<(), JwtError> {
    let now = now.as_secs();
    if claims.iss != issuer {
        Err(JwtError::WrongIssuer)
    } else if claims.exp <= now {
        Err(JwtError::Expired)
    } else if claims.nbf.max(Some(claims.iat)).is_some_and(|from| from > now.saturating_add(CLOCK_SKEW)) {
        Err(JwtError::NotYetValid)
    } else {
        Ok(())
    }
}

/// Why a token was refused, or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is longer than 24 KiB.
    #[error("the token is too long")]
    TooLong,
    /// It is no JWT, or not one with the claims of an access token.
    #[error("the token is malformed")]
    Malformed,
    /// Its `typ` is not that of an access token.
    #[error("the token is not an access token")]
    WrongType,
    /// It demands that an extension be understood.
    #[error("the token has a critical header")]
    Critical,
    /// Its `kid` is missing or names no key of ours.
    #[error("the token names no known key")]
    UnknownKey,
    /// Its `alg` is not that of the key it names.
    #[error("the token's algorithm is not that of its key")]
    WrongAlgorithm,
    /// Its signature is not by the key it names.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Another issuer made it.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It was issued, or begins to be valid, in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It could not be signed.
    #[error("the token could not be signed")]
    Signing,
}

#[cfg(test)]
mod tests;
