//! Public keys that verify assertions: JSON Web Keys (RFC 7517) without private members and of sufficient strength.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{Jwk, ThumbprintHash},
};
use serde_json::{Map, Value, json};

use super::assertion::Header;
use crate::domain::Invalid;

/// The supported algorithms. `Ed25519` and `EdDSA` are equivalent here (RFC 9864 §2.2), because Ed25519 is the only
/// supported Edwards curve.
pub const ALGORITHMS: [&str; 4] = ["ES256", "Ed25519", "EdDSA", "RS256"];

/// Maximum length of a `kid`, in bytes.
const KID_MAX: usize = 128;
/// Allowed size of an RSA key, in bits. Shorter keys are weak (NIST SP 800-57); longer ones are slow to verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// The members of private and symmetric keys (RFC 7518 §6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key that verifies assertions.
#[derive(Clone)]
pub struct AssertionKey {
    algorithm: Algorithm,
    kid: String,
    thumbprint: String,
    jwk: Value,
    decoding: DecodingKey,
}

impl AssertionKey {
    /// Parses a JSON Web Key: P-256, Ed25519, or RSA with 2048 to 8192 bits.
    ///
    /// # Errors
    /// If the key is not valid. The message never contains parts of the key.
    pub fn from_jwk(value: &Value) -> Result<Self, Invalid> {
        let members = value.as_object().ok_or_else(|| invalid("A JSON Web Key is a JSON object"))?;
        if SECRET_MEMBERS.iter().any(|name| members.contains_key(*name)) {
            return Err(invalid("This is a private or secret key. Keep it and register the public key only"));
        }
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let (algorithm, wanted): (_, &[&str]) = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => (Algorithm::ES256, &["kty", "crv", "x", "y"]),
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDSA, &["kty", "crv", "x"]),
            (Some("RSA"), _) => (Algorithm::RS256, &["kty", "n", "e"]),
            _ => return Err(invalid("The key must be EC with P-256, OKP with Ed25519, or RSA")),
        };
        let names = names_of(algorithm);
        if members.get("alg").is_some_and(|alg| !names.iter().any(|name| alg == name)) {
            return Err(invalid("The member alg must be ES256, Ed25519, EdDSA or RS256, and match the key"));
        }
        if members.get("use").is_some_and(|usage| usage != "sig") {
            return Err(invalid("The member use must be sig"));
        }
        if members.get("key_ops").is_some_and(|ops| *ops != json!(["verify"])) {
            return Err(invalid("The member key_ops must be [\"verify\"]"));
        }
        check_key_material(algorithm, &text)?;

        let mut public: Map<String, Value> = wanted
            .iter()
            .map(|name| Some(((*name).to_owned(), members.get(*name)?.clone())))
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("A member of the key is missing"))?;
        public.insert("alg".to_owned(), names.first().copied().into());
        public.insert("use".to_owned(), "sig".into());
        let parsed: Jwk = serde_json::from_value(Value::Object(public.clone()))
            .map_err(|_| invalid("This is not a valid JSON Web Key (RFC 7517)"))?;
        let thumbprint = parsed
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(|_| invalid("This is not a valid JSON Web Key (RFC 7517)"))?;
        let decoding =
            DecodingKey::from_jwk(&parsed).map_err(|_| invalid("This is not a valid JSON Web Key (RFC 7517)"))?;
        let kid = match members.get("kid") {
            None => thumbprint.clone(),
            Some(kid) => kid
                .as_str()
                .filter(|kid| (1..=KID_MAX).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic()))
                .ok_or_else(|| invalid("The member kid must be 1 to 128 visible ASCII characters"))?
                .to_owned(),
        };
        public.insert("kid".to_owned(), kid.clone().into());
        Ok(Self { algorithm, kid, thumbprint, jwk: Value::Object(public), decoding })
    }

    /// Returns the `kid` of the key, or its thumbprint if it has none.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the SHA-256 thumbprint (RFC 7638), in base64url without padding. It does not depend on the `kid`.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Returns the key with its public members only.
    #[must_use]
    pub const fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Returns true if this key signed a JWT in compact serialization, with the algorithm of the key.
    #[must_use]
    pub fn has_signed(&self, token: &str) -> bool {
        // The library knows one name of Ed25519 only, so the header is read here.
        let Some((message, signature)) = token.rsplit_once('.') else { return false };
        let is_own = |header: &Header| names_of(self.algorithm).contains(&header.alg.as_str());
        message.matches('.').count() == 1
            && Header::read(token).as_ref().is_some_and(is_own)
            && crypto::verify(signature, message.as_bytes(), &self.decoding, self.algorithm).unwrap_or(false)
    }
}

/// Returns the `alg` values of an algorithm. AIMS uses the first in the keys that it returns.
const fn names_of(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::EdDSA => &["EdDSA", "Ed25519"],
        Algorithm::RS256 => &["RS256"],
        _ => &["ES256"],
    }
}

fn invalid(message: &'static str) -> Invalid {
    Invalid::new("jwk", message)
}

fn check_key_material<'m>(algorithm: Algorithm, text: &impl Fn(&str) -> Option<&'m str>) -> Result<(), Invalid> {
    let bytes = |name: &str| {
        text(name)
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .ok_or_else(|| invalid("A member of the key is not valid base64url"))
    };
    match algorithm {
        Algorithm::RS256 => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            let (modulus, exponent) = (without_zeros(&modulus), without_zeros(&exponent));
            let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err(invalid("An RSA key must have 2048 to 8192 bits"));
            }
            let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
            if !is_odd(modulus) || !is_odd(exponent) || !(3..=8).contains(&exponent.len()) {
                return Err(invalid(
                    "The modulus and exponent of an RSA key must be odd, and the exponent above 65536",
                ));
            }
            Ok(())
        }
        Algorithm::EdDSA => {
            let key = bytes("x")?;
            ParsedPublicKey::new(&ED25519, key).map(drop).map_err(|_| invalid("The member x is not a point on Ed25519"))
        }
        _ => {
            let point = [[4].as_slice(), &bytes("x")?, &bytes("y")?].concat();
            let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            parsed.map(drop).map_err(|_| invalid("The members x and y are not a point on P-256"))
        }
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::PrivateKey, domain::token::SigningAlgorithm};

    fn jwk(algorithm: SigningAlgorithm) -> Value {
        PrivateKey::generate(algorithm).unwrap().public().jwk().clone()
    }

    #[test]
    fn public_keys_are_parsed_and_keep_their_kid() {
        for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256] {
            let mut value = jwk(algorithm);
            let key = AssertionKey::from_jwk(&value).unwrap();
            assert_eq!(key.jwk(), &value);
            assert_eq!(key.kid(), key.thumbprint());
            value["kid"] = "mine".into();
            value["x5t"] = "dropped".into();
            let named = AssertionKey::from_jwk(&value).unwrap();
            assert_eq!((named.kid(), named.thumbprint()), ("mine", key.thumbprint()));
            assert!(named.jwk().get("x5t").is_none());
        }
    }

    #[test]
    fn private_weak_and_malformed_keys_are_rejected() {
        let ec = jwk(SigningAlgorithm::Es256);
        let rsa = jwk(SigningAlgorithm::Rs256);
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        let short = URL_SAFE_NO_PAD.encode([255; 128]);
        let even = URL_SAFE_NO_PAD.encode([254; 256]);
        for bad in [
            with(&ec, "d", "AAAA".into()),
            with(&rsa, "p", "AAAA".into()),
            json!({ "kty": "oct", "k": "AAAA" }),
            with(&ec, "crv", "P-384".into()),
            with(&ec, "crv", "secp256k1".into()),
            with(&ec, "x", "AAAA".into()),
            with(&ec, "x", ec["y"].clone()),
            with(&ec, "y", "!".into()),
            with(&ec, "y", 5.into()),
            with(&ec, "alg", "none".into()),
            with(&ec, "alg", "RS256".into()),
            with(&ec, "use", "enc".into()),
            with(&ec, "key_ops", json!(["sign"])),
            with(&ec, "kid", "a b".into()),
            with(&ec, "kid", "".into()),
            with(&ec, "kid", "k".repeat(129).into()),
            with(&rsa, "n", short.into()),
            with(&rsa, "n", even.into()),
            with(&rsa, "e", "AQ".into()),
            with(&rsa, "e", "Aw".into()),
            with(&rsa, "e", "AQAA".into()),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }),
            json!({ "kty": "OKP", "crv": "X25519", "x": "AAAA" }),
            json!({ "kty": "EC", "crv": "P-256" }),
            json!({}),
            json!([]),
            json!("x"),
            Value::Null,
        ] {
            assert!(AssertionKey::from_jwk(&bad).is_err(), "{bad}");
        }
    }
}
