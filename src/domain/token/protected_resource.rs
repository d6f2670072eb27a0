//! Protected resources: what access tokens can be for (RFC 8707).

use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

use crate::domain::{
    capability::{CapabilityName, CapabilitySet},
    error::Invalid,
    ids::ProtectedResourceId,
    text::{self, uri},
    timestamp::Timestamp,
};

/// A protected resource as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    /// Identifier of the record.
    pub id: ProtectedResourceId,
    /// What clients name it by, and the audience of its tokens.
    pub identifier: ResourceUri,
    /// What people call it.
    pub name: String,
    /// What its tokens may carry; never more than their agents hold.
    pub capabilities: CapabilitySet,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When one of the fields here last changed.
    pub updated_at: Timestamp,
}

/// The place of a resource in the order of registration.
pub type Position = (Timestamp, ProtectedResourceId);

impl ProtectedResource {
    /// Longest name, in characters.
    pub const NAME_MAX: usize = 128;
    /// Most capabilities of one resource.
    pub const CAPABILITIES_MAX: usize = 100;

    /// Checks a name.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_name(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::NAME_MAX)
    }

    /// Reads capabilities separated by spaces, as in the parameter `scope` (RFC 6749 §3.3).
    ///
    /// # Errors
    /// When one is no name of a capability, or there are more than [`Self::CAPABILITIES_MAX`].
    pub fn parse_capabilities(text: &str) -> Result<CapabilitySet, Invalid> {
        CapabilityName::parse_several(text, Self::CAPABILITIES_MAX)
    }
}

/// The identifier of a protected resource: an absolute URI without a fragment (RFC 8707 §2). It is the audience of the resource's
/// tokens as it was registered, and clients may name the resource by any equivalent URI (RFC 3986 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceUri(String);

impl ResourceUri {
    /// Longest identifier, in bytes.
    pub const MAX_LEN: usize = 2_048;

    /// Checks an identifier.
    ///
    /// # Errors
    /// When it is no absolute URI, has a fragment or credentials, or is over-long.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text::line(text, 1, Self::MAX_LEN)?;
        let url = Url::parse(&text).ok().filter(|url| {
            url.fragment().is_none() && url.username().is_empty() && url.password().is_none() && text.is_ascii()
        });
        // A colon within a word is no URI: `mailto:x` is, `a b:c` and `localhost:80` are not meant.
        let absolute = url.is_some_and(|url| url.has_host() || url.scheme() == "urn") && !text.contains(' ');
        if absolute {
            Ok(Self(text))
        } else {
            Err(Invalid::new("uri", "String should be an absolute URI without fragment (RFC 8707 section 2)"))
        }
    }

    /// The same for all equivalent identifiers.
    #[must_use]
    pub fn normal_form(&self) -> String {
        uri::normal_form(&self.0).unwrap_or_else(|| self.0.clone())
    }

    /// The identifier as text.
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
    fn an_identifier_is_an_absolute_uri() {
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
    fn capabilities_are_read_as_a_scope() {
        let set = ProtectedResource::parse_capabilities("b:c a:b  a:b").unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), ["a:b", "b:c"]);
        assert!(ProtectedResource::parse_capabilities("a:\"b").is_err());
        let many: Vec<_> = (0..101).map(|n| format!("a:{n}")).collect();
        assert!(ProtectedResource::parse_capabilities(&many.join(" ")).is_err());
    }
}
