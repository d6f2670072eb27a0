//! Identifiers. Opaque to clients; AIMS makes `UUIDv7`, and an import keeps the UUIDs it finds.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Reads an identifier in any textual form of a UUID; `None` for anything else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }
    };
}

id!(
    /// An agent.
    AgentId
);
id!(
    /// An API key (the record, never the secret).
    ApiKeyId
);
id!(
    /// A capability.
    CapabilityId
);
id!(
    /// A person who administers AIMS.
    AdministratorId
);
id!(
    /// A session of an administrator (the record, never the cookie's value).
    SessionId
);
id!(
    /// A passkey of an administrator.
    PasskeyId
);
id!(
    /// Whoever acts: an agent or an administrator. Neither shares an identifier with the other.
    ActorId
);
id!(
    /// A protected resource.
    ProtectedResourceId
);
id!(
    /// A public key of an agent.
    PublicKeyId
);
id!(
    /// That a foreign issuer vouches for an agent.
    FederatedIdentityId
);
id!(
    /// That one agent may act for another.
    DelegationId
);
id!(
    /// An access token: its `jti` (RFC 7519 §4.1.7).
    TokenId
);

impl From<AgentId> for ActorId {
    fn from(id: AgentId) -> Self {
        Self(id.0)
    }
}

impl From<AdministratorId> for ActorId {
    fn from(id: AdministratorId) -> Self {
        Self(id.0)
    }
}

/// What ties a response, its log lines and its audit records together (`X-Request-Id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Longest identifier taken over from a client, in characters.
    pub const MAX_LEN: usize = 64;

    /// Takes over a client's identifier: 1 to 64 characters of `[A-Za-z0-9._-]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        ((1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_taken_over_only_when_it_is_harmless() {
        assert!(RequestId::parse("build-7.2_a").is_some());
        assert!(RequestId::parse(&"a".repeat(64)).is_some());
        for bad in ["", &"a".repeat(65), "a b", "a\nb", "é", "<x>"] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
