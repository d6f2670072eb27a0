//! Federated identities: tokens of external issuers that authenticate agents.

use std::collections::BTreeMap;

use http::Uri;
use serde_json::Value;

use crate::domain::{
    ids::{AgentId, FederatedIdentityId},
    invalid::Invalid,
    text,
    timestamp::Timestamp,
};

/// A federated identity: tokens of an external issuer authenticate an agent if their audience and claims match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedIdentity {
    /// Unique identifier.
    pub id: FederatedIdentityId,
    /// The agent.
    pub agent: AgentId,
    /// The tokens that are trusted.
    pub trust: Trust,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// The tokens of an external issuer that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Issuer: the `iss` claim of its tokens, compared byte by byte.
    pub issuer: String,
    /// URL of the issuer's key set; taken from its discovery document if `None`.
    pub jwks_uri: Option<String>,
    /// Audience that the tokens must have: one value of their `aud` claim.
    pub audience: String,
    /// Other claims that the tokens must have, with their exact values. Never empty, because an issuer has more than
    /// one subject.
    pub claims: BTreeMap<String, String>,
}

impl FederatedIdentity {
    /// Maximum number of federated identities of an agent.
    pub const MAX_PER_AGENT: usize = 20;
}

impl Trust {
    /// Maximum length of an issuer, a URL, an audience and a claim value, in characters.
    pub const TEXT_MAX: usize = 2_048;
    /// Maximum number of required claims.
    pub const CLAIMS_MAX: usize = 20;

    /// Validates an issuer: the `iss` claim as a single line.
    ///
    /// # Errors
    /// See [`text::line()`].
    pub fn parse_issuer(text: &str) -> Result<String, Invalid> {
        text::line(text, 1, Self::TEXT_MAX)
    }

    /// Validates the URL of a key set.
    ///
    /// # Errors
    /// If the text is not an absolute http or https URL without credentials.
    pub fn parse_jwks_uri(text: &str) -> Result<String, Invalid> {
        let text = text::line(text, 1, Self::TEXT_MAX)?;
        if is_fetchable(&text) { Ok(text) } else { Err(Invalid::HttpsUrl) }
    }

    /// Validates an audience: the `aud` claim as a single line.
    ///
    /// # Errors
    /// See [`text::line()`].
    pub fn parse_audience(text: &str) -> Result<String, Invalid> {
        text::line(text, 1, Self::TEXT_MAX)
    }

    /// Validates the required claims: a JSON object with 1 to 20 string members.
    ///
    /// # Errors
    /// If the value is not such an object, or contains a claim that AIMS checks itself, such as `iss` or `aud`.
    pub fn parse_claims(value: &Value) -> Result<BTreeMap<String, String>, Invalid> {
        let invalid = |message: &'static str| Invalid::new("claims", message);
        let members =
            value.as_object().ok_or_else(|| invalid("Input should be an object of claims and their values"))?;
        if members.is_empty() || members.len() > Self::CLAIMS_MAX {
            return Err(invalid("Name 1 to 20 claims that identify the workload"));
        }
        members
            .iter()
            .map(|(name, value)| {
                if ["iss", "aud", "exp", "nbf", "iat", "jti"].contains(&name.as_str()) {
                    return Err(invalid("Use claims that identify the workload, such as sub"));
                }
                let value = value.as_str().ok_or_else(|| invalid("The value of a claim should be a string"))?;
                Ok((text::line(name, 1, 128)?, text::line(value, 1, Self::TEXT_MAX)?))
            })
            .collect()
    }

    /// Returns the `sub` claim of a token, if it can be a required claim.
    #[must_use]
    pub fn subject_of(claims: &serde_json::Map<String, Value>) -> Option<&str> {
        claims.get("sub")?.as_str().filter(|subject| text::line(subject, 1, Self::TEXT_MAX).is_ok())
    }

    /// Returns true if a single token could match both this and another trust of the same issuer that requires
    /// `claims`, because they do not require different values for any claim. Audiences are ignored, because a token can
    /// have several.
    #[must_use]
    pub fn overlaps(&self, claims: &BTreeMap<String, String>) -> bool {
        claims.iter().all(|(name, value)| self.claims.get(name).is_none_or(|required| required == value))
    }

    /// Returns true if a token with these claims has the audience and all required claims.
    #[must_use]
    pub fn matches(&self, claims: &serde_json::Map<String, Value>) -> bool {
        let is_audience = |audience: &Value| audience.as_str() == Some(self.audience.as_str());
        let has_audience = match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_audience),
            Some(one) => is_audience(one),
            None => false,
        };
        let has_claim =
            |(name, value): (&String, &String)| claims.get(name).and_then(Value::as_str) == Some(value.as_str());
        has_audience && !self.claims.is_empty() && self.claims.iter().all(has_claim)
    }
}

/// Returns true if the text is an absolute http or https URL without credentials.
#[must_use]
pub fn is_fetchable(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn trusts_overlap_unless_a_claim_differs() {
        let trust = |pairs| Trust {
            issuer: "https://issuer.example".to_owned(),
            jwks_uri: None,
            audience: "aims".to_owned(),
            claims: claims(pairs),
        };
        for (one, other, overlap) in [
            (&[("sub", "x")][..], &[("sub", "x")][..], true),
            (&[("sub", "x")], &[("sub", "y")], false),
            (&[("sub", "x")], &[("sub", "x"), ("ref", "main")], true),
            (&[("sub", "x")], &[("ref", "main")], true),
            (&[("sub", "x"), ("ref", "main")], &[("ref", "main"), ("env", "prod")], true),
            (&[("sub", "x"), ("ref", "main")], &[("sub", "x"), ("ref", "dev")], false),
            (&[("sub", "x")], &[("sub", "X")], false),
        ] {
            assert_eq!(trust(one).overlaps(&claims(other)), overlap, "{one:?} {other:?}");
            assert_eq!(trust(other).overlaps(&claims(one)), overlap, "{other:?} {one:?}");
        }
    }
}
