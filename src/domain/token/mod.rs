//! Access tokens: JWTs in the profile of RFC 9068.

pub mod delegation;
pub mod protected_resource;

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    capability::CapabilitySet,
    ids::{AgentId, ApiKeyId, DelegationId, FederatedIdentityId, PublicKeyId, TokenId},
    timestamp::Timestamp,
};

/// The longest life that a token can have been given, whatever the setting says now.
pub const LIFE_MAX: Duration = Duration::from_hours(24);
/// Longest remaining life of a client's assertion: the default of common libraries. Its identifier is remembered for as long.
pub const ASSERTION_LIFE: Duration = Duration::from_hours(1);
/// How far others' clocks may differ, in seconds: what they signed may come from so far in the future.
pub const CLOCK_SKEW: i64 = 5;

/// What an agent proves itself with. A token is issued for one, and ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A secret that AIMS made.
    ApiKey(ApiKeyId),
    /// A key pair that the agent made.
    PublicKey(PublicKeyId),
    /// The word of a foreign issuer.
    FederatedIdentity(FederatedIdentityId),
}

/// One of the agents whose authority a token carries: what must hold of each for the token to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The agent.
    pub agent: AgentId,
    /// What it proved itself with.
    pub credential: Credential,
    /// The generation of its tokens at that time (see [`super::Agent::token_epoch`]).
    pub token_epoch: i64,
    /// The token that it presented; `None` for a client that authenticated itself.
    pub presented: Option<TokenId>,
    /// What makes it act for the first link's agent; `None` for that one.
    pub acting: Option<Acting>,
}

/// What makes an agent act for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acting {
    /// The policy that allows it.
    pub delegation: DelegationId,
    /// The token that says so.
    pub obtained: TokenId,
}

/// A token by which one agent acts for another, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegatedToken {
    /// Its identifier.
    pub jti: TokenId,
    /// Who it is for.
    pub audience: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The agents whose authority it carries: the subject first, who acts now last.
    pub links: Vec<Link>,
}

/// Who acts for a token's subject (RFC 8693 §4.1): the present actor, and within it the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The agent.
    pub sub: String,
    /// Who acted before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Self>>,
}

impl Actor {
    /// The chain of those who act, the first of them innermost; `None` where nobody does.
    #[must_use]
    pub fn chain(agents: impl IntoIterator<Item = AgentId>) -> Option<Self> {
        agents.into_iter().fold(None, |before, agent| Some(Self { sub: agent.to_string(), act: before.map(Box::new) }))
    }
}

/// The key that a token is bound to (RFC 7800 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Its SHA-256 thumbprint (RFC 7638, RFC 9449 §6.1).
    pub jkt: String,
}

/// Who alone may come to act for the bearer of a token (RFC 8693 §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayAct {
    /// The agent.
    pub sub: String,
}

/// The claims of an access token (RFC 9068 §2.2). Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: AIMS's public URL.
    pub iss: String,
    /// Subject: the agent.
    pub sub: String,
    /// Audience: who the token is for.
    pub aud: String,
    /// Client (RFC 8693 §4.3): the agent that obtained it: the subject, or who acts for it.
    pub client_id: String,
    /// Issued at.
    pub iat: i64,
    /// Not valid before. AIMS leaves it out: a token is valid as soon as it is issued, and a verifier whose clock is a second
    /// behind would refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Expires at.
    pub exp: i64,
    /// Token identifier.
    pub jti: String,
    /// Capabilities, separated by spaces (RFC 8693 §4.2); left out when there is none (RFC 6749 §3.3). Names that no capability
    /// can have are dropped.
    #[serde(default, with = "scope", skip_serializing_if = "CapabilitySet::is_empty")]
    pub scope: CapabilitySet,
    /// The same capabilities as an array, which may be empty.
    #[serde(with = "scope::array")]
    pub scopes: CapabilitySet,
    /// The API key the token was issued for; revoking it ends the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The public key that it was issued for instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_id: Option<String>,
    /// The foreign issuer at whose word it was issued instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federated_identity_id: Option<String>,
    /// The generation of the agent's tokens it belongs to (see [`super::Agent::token_epoch`]).
    pub token_epoch: i64,
    /// Who acts for the subject. What must hold of the chain is kept in the database, not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// Who alone may come to act for the bearer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_act: Option<MayAct>,
    /// The key whose holder alone may use it; whoever bears it, when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

impl Claims {
    /// What the token was issued for: exactly one credential.
    #[must_use]
    pub fn credential(&self) -> Option<Credential> {
        match (&self.key_id, &self.public_key_id, &self.federated_identity_id) {
            (Some(id), None, None) => ApiKeyId::parse(id).map(Credential::ApiKey),
            (None, Some(id), None) => PublicKeyId::parse(id).map(Credential::PublicKey),
            (None, None, Some(id)) => FederatedIdentityId::parse(id).map(Credential::FederatedIdentity),
            _ => None,
        }
    }
}

/// Capabilities as a token names them.
mod scope {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::CapabilitySet;

    pub(super) fn serialize<S: Serializer>(names: &CapabilitySet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(names.as_scope())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<CapabilitySet, D::Error> {
        Ok(CapabilitySet::from_scope(&String::deserialize(deserializer)?))
    }

    pub(super) mod array {
        use super::{CapabilitySet, Deserialize, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(names: &CapabilitySet, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(names.iter())
        }

        pub(crate) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<CapabilitySet, D::Error> {
            Ok(CapabilitySet::from_scope(&Vec::<String>::deserialize(deserializer)?.join(" ")))
        }
    }
}

/// Why a client does not get the token that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// A parameter is missing, doubled or malformed.
    #[error("{0}")]
    InvalidRequest(Cow<'static, str>),
    /// The client may not do this.
    #[error("{0}")]
    UnauthorizedClient(&'static str),
    /// The grant type is none of those that are served.
    #[error("The grant type must be one of grant_types_supported in the server's metadata")]
    UnsupportedGrantType,
    /// There is no response type at all.
    #[error("There is no interactive grant; see grant_types_supported in the server's metadata")]
    UnsupportedResponseType,
    /// A scope is malformed, or more than the client or the resource may have.
    #[error("{0}")]
    InvalidScope(Cow<'static, str>),
    /// The proof of possession is wrong.
    #[error("The DPoP proof is not valid")]
    InvalidDpopProof(&'static str),
    /// The proof of possession lacks a nonce that was given out lately.
    #[error("The DPoP proof must carry the nonce of the header DPoP-Nonce")]
    DpopNonceNeeded,
    /// The assertion is refused. Only the audit record gives the reason.
    #[error("The assertion is not valid, or not for this client")]
    InvalidGrant(&'static str),
    /// The resource is unknown.
    #[error("{0}")]
    InvalidTarget(&'static str),
}

impl TokenRefusal {
    /// The `details.reason` of the audit record.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidDpopProof(reason) | Self::InvalidGrant(reason) => reason,
            _ => self.code(),
        }
    }

    /// The `error` of the answer (RFC 6749 §5.2, RFC 8707 §2, RFC 9449 §5 and §8).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::UnauthorizedClient(_) => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidDpopProof(_) => "invalid_dpop_proof",
            Self::DpopNonceNeeded => "use_dpop_nonce",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::InvalidTarget(_) => "invalid_target",
        }
    }
}

/// The algorithms that sign access tokens (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048-bit keys.
    Rs256,
    /// HMAC with SHA-256 under a shared secret.
    Hs256,
}

impl SigningAlgorithm {
    /// The `alg` value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// Reads an `alg` value; `None` for one that AIMS does not sign with.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Es256, Self::EdDsa, Self::Rs256, Self::Hs256].into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}
