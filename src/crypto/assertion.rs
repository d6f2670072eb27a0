//! Assertions by which clients authenticate (RFC 7523): what one says, before anybody checked who signed it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use crate::domain::text::json;

/// Longest assertion that is looked at, in bytes.
const ASSERTION_MAX: usize = 8 * 1_024;

/// The claims of an assertion (RFC 7523 §3). Times are seconds since the epoch.
#[derive(Clone, Debug, Deserialize)]
pub struct AssertionClaims {
    /// Issuer: the client.
    pub iss: String,
    /// Subject: the client.
    pub sub: String,
    /// Audience: one, or several.
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
    /// Identifier of the assertion.
    pub jti: String,
}

/// An assertion whose signature nobody has checked.
#[derive(Debug)]
pub struct UnverifiedAssertion {
    /// What it says.
    pub claims: AssertionClaims,
    /// Which key it says it was signed with.
    pub kid: Option<String>,
}

impl UnverifiedAssertion {
    /// Reads a JWT in the compact serialization; `None` for what is none, or demands that an extension be understood.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let (claims, kid) = parts(token)?;
        Some(Self { claims: json::read(&claims).ok()?, kid })
    }
}

/// A token of somebody else's whose signature nobody has checked.
#[derive(Debug)]
pub struct ForeignToken {
    /// What it says.
    pub claims: serde_json::Map<String, Value>,
    /// Which key it says it was signed with.
    pub kid: Option<String>,
}

impl ForeignToken {
    /// Reads a JWT in the compact serialization; `None` for what is none, or demands that an extension be understood.
    #[must_use]
    pub fn read(token: &str) -> Option<Self> {
        let (claims, kid) = parts(token)?;
        Some(Self { claims: json::read(&claims).ok()?, kid })
    }
}

/// What is looked at in the header of a JWT (RFC 7515 §4.1).
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: Option<String>,
    pub(super) kid: Option<String>,
    pub(super) jwk: Option<Value>,
    pub(super) crit: Option<Value>,
}

impl Header {
    /// The header of a JWT in the compact serialization, if it is one.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        json::read(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()
    }
}

/// The claims of a JWT as they stand, and the key that it names.
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

/// The seconds of a `NumericDate` (RFC 7519 §2); `None` for what is none.
#[must_use]
pub fn seconds_of(value: &Value) -> Option<i64> {
    seconds(value).ok()
}

/// A `NumericDate` (RFC 7519 §2), which may have a fraction.
pub(super) fn seconds<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| {
        let number = number.as_f64().filter(|number| number.abs() < 1e15)?;
        format!("{:.0}", number.floor()).parse().ok()
    });
    whole.ok_or_else(|| serde::de::Error::custom("no date"))
}

fn optional_seconds<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    seconds(deserializer).map(Some)
}
