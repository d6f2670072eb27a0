//! Access tokens: signed JWTs in the profile of RFC 9068. One key signs; all published keys verify.

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
    token::{Claims, SigningAlgorithm},
};

/// Maximum length of a token, in bytes. Longer ones are rejected without parsing. Every token that AIMS issues is
/// shorter: the scope is limited by [`crate::domain::CapabilitySet::TOKEN_MAX`].
const TOKEN_MAX: usize = 24 * 1024;
/// The `kid` of tokens signed with a shared secret. No published key has it.
const SHARED_KID: &str = "hs256";

/// The keys of access tokens: the one that signs, and all that verify. Immutable; a rotation creates a new keyring.
pub struct Keyring {
    signer: Signer,
    /// The encoded header of every token, including the dot after it.
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

/// A verification key and the only algorithm it is used with.
struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    fn new(algorithm: SigningAlgorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(jws_algorithm(algorithm));
        // The library would read the system clock. `Keyring::verify` checks the claims instead.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self { key, validation }
    }
}

impl Keyring {
    /// Minimum length of a shared secret, in bytes (RFC 7518 §3.2).
    pub const SHARED_SECRET_MIN: usize = 32;

    /// Creates a keyring that signs with `current`, verifies with `current` and `others`, and publishes them in this
    /// order.
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

    /// Creates a keyring that signs and verifies with a shared secret (HS256) and publishes no key.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`] if the secret is shorter than [`Self::SHARED_SECRET_MIN`].
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

    /// Signs a token, in compact serialization (RFC 7515 §7.1).
    ///
    /// # Errors
    /// [`JwtError::Signing`] if the cryptographic library fails.
    pub fn sign(&self, claims: &Claims) -> Result<String, JwtError> {
        let claims = serde_json::to_vec(claims).map_err(|_| JwtError::Signing)?;
        let mut token = self.header.clone();
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        // Not signed by the JWT library, because it parses the private key again for every token.
        let signature = match &self.signer {
            Signer::KeyPair(key) => key.sign(token.as_bytes()).map_err(|_| JwtError::Signing)?,
            Signer::Shared(key) => hmac::sign(key, token.as_bytes()).as_ref().to_vec(),
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Verifies a token and returns its claims: `issuer` issued it with one of these keys, and it is valid at `now`
    /// (RFC 9068 §4). Does not check the audience.
    ///
    /// The `kid` of the token selects the key. The key decides the algorithm, not the token. Keys that the token
    /// contains or references (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
    ///
    /// A token expires at the start of the second in `exp`. Its `iat` and `nbf` can be up to 5 seconds in the future,
    /// because another node may have issued it.
    ///
    /// # Errors
    /// Returns the first reason to reject the token. It is for the log, not for the client.
    pub fn verify(&self, token: &str, issuer: &str, now: Timestamp) -> Result<Claims, JwtError> {
        if token.len() > TOKEN_MAX {
            return Err(JwtError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        if !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(JwtError::WrongType);
        }
        // AIMS supports no extensions, so a token with critical ones must be rejected (RFC 7515 §4.1.11).
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
        // A token names either the credential of a single agent, or a delegation chain that the database holds.
        if claims.credential().is_some() == claims.act.is_some() {
            return Err(JwtError::Malformed);
        }
        check(&claims, issuer, now)?;
        Ok(claims)
    }

    /// Returns the signing algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the public keys as a JSON Web Key Set (RFC 7517 §5), the signing key first.
    #[must_use]
    pub const fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// Returns the entity tag of the key set (RFC 9110 §8.8.3).
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

/// Returns true for the media type of RFC 9068 §4, with or without `application/` (RFC 7515 §4.1.9).
fn is_access_token(typ: &str) -> bool {
    ["at+jwt", "application/at+jwt"].iter().any(|expected| typ.eq_ignore_ascii_case(expected))
}

fn check(claims: &Claims, issuer: &str, now: Timestamp) -> Result<(), JwtError> {
    if claims.iss != issuer {
        Err(JwtError::WrongIssuer)
    } else if claims.exp <= now.as_secs() {
        Err(JwtError::Expired)
    } else if !claims.has_begun(now) {
        Err(JwtError::NotYetValid)
    } else {
        Ok(())
    }
}

/// Why a token was rejected or could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The token is longer than 24 KiB.
    #[error("the token is too long")]
    TooLong,
    /// The token is not a JWT with the claims of an access token.
    #[error("the token is malformed")]
    Malformed,
    /// The `typ` is not that of an access token.
    #[error("the token is not an access token")]
    WrongType,
    /// The header declares critical extensions.
    #[error("the token has critical extensions")]
    Critical,
    /// The `kid` is missing or unknown.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The `alg` is not that of the key.
    #[error("the token's algorithm is not that of its key")]
    WrongAlgorithm,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// The token is from another issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The `iat` or `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token could not be signed.
    #[error("the token could not be signed")]
    Signing,
}

#[cfg(test)]
mod tests;
