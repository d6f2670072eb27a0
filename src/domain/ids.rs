//! Identifiers. Clients treat them as opaque. AIMS generates `UUIDv7`; imported records keep their UUIDs.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Parses any textual form of a UUID; `None` for anything else.
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
    /// Identifies an agent.
    AgentId
);
id!(
    /// Identifies the record of an API key. It is not the secret.
    ApiKeyId
);
id!(
    /// Identifies a capability.
    CapabilityId
);
id!(
    /// Identifies an administrator.
    AdministratorId
);
id!(
    /// Identifies the record of a console session. It is not the value of the cookie.
    SessionId
);
id!(
    /// Identifies a passkey of an administrator.
    PasskeyId
);
id!(
    /// Identifies an invitation of an administrator. It is not the token of the link.
    InvitationId
);
id!(
    /// Identifies the actor of an event: an agent or an administrator. No agent and administrator share an identifier.
    ActorId
);
id!(
    /// Identifies a protected resource.
    ProtectedResourceId
);
id!(
    /// Identifies the record of an agent's public key.
    PublicKeyId
);
id!(
    /// Identifies a federated identity.
    FederatedIdentityId
);
id!(
    /// Identifies a delegation from one agent to another.
    DelegationId
);
id!(
    /// Identifies an operation on many agents.
    BulkActId
);
id!(
    /// Identifies an access token: its `jti` claim (RFC 7519 §4.1.7).
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

/// Correlates a response with its log lines and audit records (`X-Request-Id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Maximum length of a client's identifier, in characters.
    pub const MAX_LEN: usize = 64;

    /// Parses a client's identifier: 1 to 64 characters of `[A-Za-z0-9._-]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        ((1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// Returns the identifier as text.
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
    fn a_request_id_from_a_client_contains_safe_characters_only() {
        assert!(RequestId::parse("build-7.2_a").is_some());
        assert!(RequestId::parse(&"a".repeat(64)).is_some());
        for bad in ["", &"a".repeat(65), "a b", "a\nb", "é", "<x>"] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
