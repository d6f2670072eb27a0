//! Workloads that another issuer vouches for: whose tokens authenticate which agent.

use std::collections::BTreeMap;

use http::Uri;
use serde_json::Value;

use crate::domain::{
    error::Invalid,
    ids::{AgentId, FederatedIdentityId},
    text,
    timestamp::Timestamp,
};

/// That tokens of a foreign issuer authenticate an agent, if they are for the audience and say what they must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedIdentity {
    /// Identifier.
    pub id: FederatedIdentityId,
    /// The agent.
    pub agent: AgentId,
    /// What is trusted.
    pub trust: Trust,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// What is trusted of a foreign issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Its name: the `iss` of its tokens, compared byte by byte.
    pub issuer: String,
    /// Where its keys are; where its discovery document says, when `None`.
    pub jwks_uri: Option<String>,
    /// Whom its tokens must be for: one of their `aud`.
    pub audience: String,
    /// What they must say besides, to the letter; never nothing, for an issuer vouches for more than one.
    pub claims: BTreeMap<String, String>,
}

impl FederatedIdentity {
    /// Most of them for one agent.
    pub const MAX_PER_AGENT: usize = 20;
}

impl Trust {
    /// Longest issuer, address, audience and value of a claim, in characters.
    pub const TEXT_MAX: usize = 2_048;
    /// Most claims that are compared.
    pub const CLAIMS_MAX: usize = 20;

    /// Checks an issuer: one line, as it stands in tokens.
    ///
    /// # Errors
    /// When it is empty, over-long or holds control characters.
    pub fn parse_issuer(text: &str) -> Result<String, Invalid> {
        text::line(text, 1, Self::TEXT_MAX)
    }

    /// Checks the address of a key set.
    ///
    /// # Errors
    /// Unless it is an absolute http or https URL without credentials.
    pub fn parse_jwks_uri(text: &str) -> Result<String, Invalid> {
        let text = text::line(text, 1, Self::TEXT_MAX)?;
        if is_fetchable(&text) { Ok(text) } else { Err(Invalid::new("url", "Input should be an https URL")) }
    }

    /// Checks an audience.
    ///
    /// # Errors
    /// When it is empty, over-long or holds control characters.
    pub fn parse_audience(text: &str) -> Result<String, Invalid> {
        text::line(text, 1, Self::TEXT_MAX)
    }

    /// Checks what tokens must say: a JSON object of texts, with one member at least.
    ///
    /// # Errors
    /// When it is none, or names a claim that is compared anyway.
    pub fn parse_claims(value: &Value) -> Result<BTreeMap<String, String>, Invalid> {
        let invalid = |message: &'static str| Invalid::new("claims", message);
        let members =
            value.as_object().ok_or_else(|| invalid("Input should be an object of claims and their values"))?;
        if members.is_empty() || members.len() > Self::CLAIMS_MAX {
            return Err(invalid("Name 1 to 20 claims: an issuer vouches for more than one workload"));
        }
        members
            .iter()
            .map(|(name, value)| {
                if ["iss", "aud", "exp", "nbf", "iat", "jti"].contains(&name.as_str()) {
                    return Err(invalid("Compare claims that say who it is, such as sub"));
                }
                let value = value.as_str().ok_or_else(|| invalid("The value of a claim should be a text"))?;
                Ok((text::line(name, 1, 128)?, text::line(value, 1, Self::TEXT_MAX)?))
            })
            .collect()
    }

    /// The `sub` of a token, where anybody can ask for such a one.
    #[must_use]
    pub fn subject_of(claims: &serde_json::Map<String, Value>) -> Option<&str> {
        claims.get("sub")?.as_str().filter(|subject| text::line(subject, 1, Self::TEXT_MAX).is_ok())
    }

    /// Returns true if one token could satisfy both this trust and another of the same issuer that demands `claims`: they do not
    /// demand different values for any claim. A token may have several audiences.
    #[must_use]
    pub fn overlaps(&self, claims: &BTreeMap<String, String>) -> bool {
        claims.iter().all(|(name, value)| self.claims.get(name).is_none_or(|demanded| demanded == value))
    }

    /// Whether claims are for the audience, and say what they must.
    #[must_use]
    pub fn matches(&self, claims: &serde_json::Map<String, Value>) -> bool {
        let is_for = |audience: &Value| audience.as_str() == Some(self.audience.as_str());
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_for),
            Some(one) => is_for(one),
            None => false,
        };
        let says = |(name, value): (&String, &String)| claims.get(name).and_then(Value::as_str) == Some(value.as_str());
        is_for_us && !self.claims.is_empty() && self.claims.iter().all(says)
    }
}

/// Whether a text is an absolute http or https URL without credentials.
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
    fn what_one_token_can_satisfy_overlaps() {
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
