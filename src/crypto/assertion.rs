//! Parsing of client assertions (RFC 7523) and other JWTs before their signatures are verified.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use crate::domain::text::json;

/// Maximum length of an assertion, in bytes. Longer ones are rejected without parsing.
const ASSERTION_MAX: usize = 8 * 1_024;

/// The claims of an assertion (RFC 7523 §3). Times are seconds since the epoch.
#[derive(Clone, Debug, Deserialize)]
pub struct AssertionClaims {
    /// Issuer: the client.
    pub iss: String,
    /// Subject: the client.
    pub sub: String,
    /// Audience: a string or an array of strings.
    pub aud: Value,
    /// Expires at.
    #[serde(deserialize_with = "seconds")]
    pub exp: i64,
    /// Not valid before.
    #[serde(default, deserialize_with = "optional_seconds")]
    pub nbf: Option<i64>,
    /// Issued at.
    #[serde(default, deserialize_with = "optional_seconds")]
    pub iat: Option<i64>,
    /// Unique identifier of the assertion.
    pub jti: String,
}

/// An assertion whose signature has not been verified.
#[derive(Debug)]
pub struct UnverifiedAssertion {
    /// Claims.
    pub claims: AssertionClaims,
    /// Identifier of the signing key, from the header.
    pub kid: Option<String>,
}

impl UnverifiedAssertion {
    /// Parses a JWT in compact serialization. Returns `None` for any other text, and for a JWT with critical extensions
    /// (`crit`).
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let (claims, kid) = parts(token)?;
        Some(Self { claims: json::read(&claims).ok()?, kid })
    }
}

/// A token of an external issuer whose signature has not been verified.
#[derive(Debug)]
pub struct ForeignToken {
    /// Claims.
    pub claims: serde_json::Map<String, Value>,
    /// Identifier of the signing key, from the header.
    pub kid: Option<String>,
}

impl ForeignToken {
    /// Parses a JWT in compact serialization. Returns `None` for any other text, and for a JWT with critical extensions
    /// (`crit`).
    #[must_use]
    pub fn read(token: &str) -> Option<Self> {
        let (claims, kid) = parts(token)?;
        Some(Self { claims: json::read(&claims).ok()?, kid })
    }
}

/// The header parameters of a JWT that AIMS uses (RFC 7515 §4.1).
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: Option<String>,
    pub(super) kid: Option<String>,
    pub(super) jwk: Option<Value>,
    pub(super) crit: Option<Value>,
}

impl Header {
    /// Parses the header of a JWT in compact serialization; `None` for any other text.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        json::read(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()
    }
}

/// Returns the decoded claims of a JWT and the identifier of its key.
fn parts(token: &str) -> Option<(Vec<u8>, Option<String>)> {
    if token.len() > ASSERTION_MAX {
        return None;
    }
    let header = Header::read(token)?;
    if header.crit.is_some() {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some((claims, header.kid))
}

/// Returns the seconds of a `NumericDate` (RFC 7519 §2), rounded down; `None` for any other value.
#[must_use]
pub fn seconds_of(value: &Value) -> Option<i64> {
    seconds(value).ok()
}

/// Deserializes a `NumericDate` (RFC 7519 §2), rounding down a fraction.
pub(super) fn seconds<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| {
        let number = number.as_f64().filter(|number| number.abs() < 1e15)?;
        format!("{:.0}", number.floor()).parse().ok()
    });
    whole.ok_or_else(|| serde::de::Error::custom("not a NumericDate"))
}

fn optional_seconds<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    seconds(deserializer).map(Some)
}
