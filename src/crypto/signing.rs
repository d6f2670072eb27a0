//! Key pairs that sign access tokens, and their public keys as JSON Web Keys (RFC 7517).

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::Value;

use crate::domain::token::SigningAlgorithm;

/// A private signing key with its public key.
///
/// Kept parsed in memory, because parsing PKCS#8 for every signature would take more than half as long as signing.
pub struct PrivateKey {
    pair: KeyPair,
    public: PublicKey,
}

enum KeyPair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl PrivateKey {
    /// Generates a new key: P-256, Ed25519, or RSA with 2048 bits.
    ///
    /// Uses the random number generator of the cryptographic library, which accepts no other.
    ///
    /// # Errors
    /// [`KeyError::NoKeyPair`] for HS256, [`KeyError::Library`] if the library fails.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, KeyError> {
        let pair = match algorithm {
            SigningAlgorithm::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(KeyPair::Es256),
            SigningAlgorithm::EdDsa => Ed25519KeyPair::generate().map(KeyPair::EdDsa),
            SigningAlgorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048).map(KeyPair::Rs256),
            SigningAlgorithm::Hs256 => return Err(KeyError::NoKeyPair),
        };
        Self::new(pair.map_err(|_| KeyError::Library)?)
    }

    /// Parses a key in PKCS#8 (RFC 5208).
    ///
    /// # Errors
    /// [`KeyError::NoKeyPair`] for HS256, [`KeyError::Rejected`] if `der` is not a key of that algorithm.
    pub fn from_pkcs8(algorithm: SigningAlgorithm, der: &SecretSlice<u8>) -> Result<Self, KeyError> {
        let der = der.expose_secret();
        let pair = match algorithm {
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(KeyPair::Es256)
            }
            SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(der).map(KeyPair::EdDsa),
            SigningAlgorithm::Rs256 => RsaKeyPair::from_pkcs8(der).map(KeyPair::Rs256),
            SigningAlgorithm::Hs256 => return Err(KeyError::NoKeyPair),
        };
        Self::new(pair.map_err(|_| KeyError::Rejected)?)
    }

    /// Encodes the key in PKCS#8 (RFC 5208), to be sealed and stored.
    ///
    /// # Errors
    /// [`KeyError::Library`] if the library fails.
    pub fn to_pkcs8(&self) -> Result<SecretSlice<u8>, KeyError> {
        let der = match &self.pair {
            KeyPair::Es256(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            KeyPair::EdDsa(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            KeyPair::Rs256(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec()),
        };
        der.map(SecretSlice::from).map_err(|_| KeyError::Library)
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Discards the private key. For keys that no longer sign but still verify.
    #[must_use]
    pub fn into_public(self) -> PublicKey {
        self.public
    }

    /// Signs a message in the format of JWS (RFC 7518 §3.3 and §3.4, RFC 8037 §3.1).
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        // The library takes a generator only for compatibility, and uses its own.
        let rng = SystemRandom::new();
        let signature = match &self.pair {
            KeyPair::Es256(pair) => pair.sign(&rng, message).map(|signature| signature.as_ref().to_vec()),
            KeyPair::EdDsa(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            KeyPair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).map(|()| signature)
            }
        };
        signature.map_err(|_| KeyError::Library)
    }

    fn new(pair: KeyPair) -> Result<Self, KeyError> {
        let public = match &pair {
            KeyPair::Es256(pair) => {
                PublicKey::new(SigningAlgorithm::Es256, DecodingKey::from_ec_der(pair.public_key().as_ref()))
            }
            KeyPair::EdDsa(pair) => {
                PublicKey::new(SigningAlgorithm::EdDsa, DecodingKey::from_ed_der(pair.public_key().as_ref()))
            }
            KeyPair::Rs256(pair) => {
                PublicKey::new(SigningAlgorithm::Rs256, DecodingKey::from_rsa_der(pair.public_key().as_ref()))
            }
        }?;
        Ok(Self { pair, public })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The public key of a signing key.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: SigningAlgorithm,
    kid: String,
    jwk: Value,
    decoding: DecodingKey,
}

impl PublicKey {
    fn new(algorithm: SigningAlgorithm, decoding: DecodingKey) -> Result<Self, KeyError> {
        let mut jwk =
            Jwk::from_decoding_key(&decoding, Some(jws_algorithm(algorithm))).map_err(|_| KeyError::Rejected)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Rejected)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let jwk = serde_json::to_value(jwk).map_err(|_| KeyError::Rejected)?;
        Ok(Self { algorithm, kid, jwk, decoding })
    }

    /// Returns the only algorithm that this key is used with.
    #[must_use]
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the key's identifier: its SHA-256 thumbprint (RFC 7638), in base64url without padding.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the key as a JSON Web Key (RFC 7517) with `kid`, `alg` and `use`.
    #[must_use]
    pub const fn jwk(&self) -> &Value {
        &self.jwk
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Converts to the type of the JWT library.
pub(super) const fn jws_algorithm(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Hs256 => Algorithm::HS256,
    }
}

/// Why a key could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// HS256 has no key pair.
    #[error("HS256 signs with a shared secret and has no key pair")]
    NoKeyPair,
    /// The bytes are not a private key of the expected algorithm.
    #[error("not a private key of the expected algorithm in PKCS#8")]
    Rejected,
    /// The shared secret is shorter than the hash (RFC 7518 §3.2).
    #[error("the shared secret is shorter than 32 bytes")]
    ShortSecret,
    /// The cryptographic library failed. It gives no reason.
    #[error("the cryptographic library failed")]
    Library,
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest, Sha256};

    use super::*;

    const PAIRS: [SigningAlgorithm; 3] = [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256];

    #[test]
    fn a_key_can_be_encoded_and_parsed_for_its_algorithm_only() {
        for algorithm in PAIRS {
            let key = PrivateKey::generate(algorithm).unwrap();
            let der = key.to_pkcs8().unwrap();
            for other in PAIRS {
                let loaded = PrivateKey::from_pkcs8(other, &der);
                if other == algorithm {
                    assert_eq!(loaded.unwrap().public().jwk(), key.public().jwk());
                } else {
                    assert_eq!(loaded.unwrap_err(), KeyError::Rejected, "{algorithm:?} as {other:?}");
                }
            }
        }
    }

    #[test]
    fn hs256_has_no_key_pair() {
        assert_eq!(PrivateKey::generate(SigningAlgorithm::Hs256).unwrap_err(), KeyError::NoKeyPair);
        let der = PrivateKey::generate(SigningAlgorithm::Es256).unwrap().to_pkcs8().unwrap();
        assert_eq!(PrivateKey::from_pkcs8(SigningAlgorithm::Hs256, &der).unwrap_err(), KeyError::NoKeyPair);
    }

    #[test]
    fn the_jwk_contains_the_public_key_only_and_its_thumbprint_as_kid() {
        for (algorithm, required, sizes) in [
            (SigningAlgorithm::Es256, ["crv", "kty", "x", "y"].as_slice(), [("x", 32), ("y", 32)].as_slice()),
            (SigningAlgorithm::EdDsa, &["crv", "kty", "x"], &[("x", 32)]),
            (SigningAlgorithm::Rs256, &["e", "kty", "n"], &[("n", 256), ("e", 3)]),
        ] {
            let key = PrivateKey::generate(algorithm).unwrap().into_public();
            let jwk = key.jwk().as_object().unwrap();
            for &(member, size) in sizes {
                assert_eq!(URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap().len(), size, "{member}");
            }
            let mut members: Vec<_> = required.iter().copied().chain(["alg", "kid", "use"]).collect();
            members.sort_unstable();
            let mut found: Vec<_> = jwk.keys().map(String::as_str).collect();
            found.sort_unstable();
            assert_eq!(found, members);
            assert_eq!((&jwk["alg"], &jwk["use"]), (&algorithm.as_str().into(), &"sig".into()));

            let hashed: Vec<_> = required.iter().map(|name| format!("\"{name}\":{}", jwk[*name])).collect();
            let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", hashed.join(","))));
            assert_eq!((jwk["kid"].as_str(), key.kid()), (Some(thumbprint.as_str()), thumbprint.as_str()));
        }
    }

    #[test]
    fn debug_output_does_not_reveal_the_private_key() {
        for algorithm in PAIRS {
            let key = PrivateKey::generate(algorithm).unwrap();
            let kid = key.public().kid();
            let public = format!("PublicKey {{ algorithm: {algorithm:?}, kid: {kid:?}, .. }}");
            assert_eq!(format!("{key:?}"), format!("PrivateKey {{ public: {public}, .. }}"));
        }
    }
}
