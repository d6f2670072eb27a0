//! Protected resources: the services that accept access tokens (RFC 8707).

use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

use crate::domain::{
    capability::{CapabilityName, CapabilitySet},
    ids::ProtectedResourceId,
    invalid::Invalid,
    text::{self, uri},
    timestamp::Timestamp,
};

/// A service for which clients can request access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    /// Unique identifier of the record.
    pub id: ProtectedResourceId,
    /// The `resource` parameter of token requests, and the audience of the resource's tokens.
    pub identifier: ResourceUri,
    /// Display name.
    pub name: String,
    /// Capabilities that its tokens can carry. A token never carries more than its agent holds.
    pub capabilities: CapabilitySet,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change to any field here.
    pub updated_at: Timestamp,
}

/// The position of a resource in the order of creation.
pub type Position = (Timestamp, ProtectedResourceId);

impl ProtectedResource {
    /// Maximum length of a name, in characters.
    pub const NAME_MAX: usize = 128;
    /// Maximum number of capabilities of a resource.
    pub const CAPABILITIES_MAX: usize = 100;

    /// Validates a name.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_name(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::NAME_MAX)
    }

    /// Parses capabilities separated by spaces, as in the `scope` parameter (RFC 6749 §3.3).
    ///
    /// # Errors
    /// If a name is not valid for a capability, or there are more than [`Self::CAPABILITIES_MAX`].
    pub fn parse_capabilities(text: &str) -> Result<CapabilitySet, Invalid> {
        CapabilityName::parse_set(text, Self::CAPABILITIES_MAX)
    }
}

/// The identifier of a protected resource: an absolute URI without a fragment (RFC 8707 §2). Tokens carry it as their
/// audience exactly as registered. Clients can request it by any equivalent URI (RFC 3986 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceUri(String);

impl ResourceUri {
    /// Maximum length, in characters. The URI is ASCII.
    pub const MAX_LEN: usize = 2_048;

    /// Validates an identifier.
    ///
    /// # Errors
    /// If the text is not an absolute URI with a host or of the scheme `urn`, has a fragment or credentials, or is
    /// longer than [`Self::MAX_LEN`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text::line(text, 1, Self::MAX_LEN)?;
        let url = Url::parse(&text).ok().filter(|url| {
            url.fragment().is_none() && url.username().is_empty() && url.password().is_none() && text.is_ascii()
        });
        // Excludes text that parses as a URI by accident, such as `localhost:80` and `a b:c`.
        let absolute = url.is_some_and(|url| url.has_host() || url.scheme() == "urn") && !text.contains(' ');
        if absolute { Ok(Self(text)) } else { Err(Invalid::Uri) }
    }

    /// Returns the normal form, which is the same for all equivalent identifiers.
    #[must_use]
    pub fn normal_form(&self) -> String {
        uri::normal_form(&self.0).unwrap_or_else(|| self.0.clone())
    }

    /// Returns the identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ResourceUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_absolute_uris() {
        for good in
            ["https://mcp.example/tools", "http://127.0.0.1:9000", "urn:example:billing", "https://a.example/?x=1"]
        {
            assert_eq!(ResourceUri::parse(good).unwrap().as_str(), good);
        }
        let long = format!("https://a.example/{}", "a".repeat(ResourceUri::MAX_LEN));
        for bad in [
            "",
            "/tools",
            "mcp.example",
            "https://a.example/#x",
            "https://me:pw@a.example",
            "javascript:alert(1)",
            "a b:c",
            &long,
        ] {
            assert!(ResourceUri::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn capabilities_are_parsed_as_a_scope() {
        let set = ProtectedResource::parse_capabilities("b:c a:b  a:b").unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), ["a:b", "b:c"]);
        assert!(ProtectedResource::parse_capabilities("a:\"b").is_err());
        let many: Vec<_> = (0..101).map(|n| format!("a:{n}")).collect();
        assert!(ProtectedResource::parse_capabilities(&many.join(" ")).is_err());
    }
}
