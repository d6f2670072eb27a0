//! The one error of the house. It knows its kind; the faces only render it.

use std::{borrow::Cow, error::Error as StdError};

use super::{person::administrator::Role, token::TokenRefusal};

/// What every use case returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is malformed; every offending field is named.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The request is well-formed, but the state of the resource or a rule about oneself forbids it.
    #[error("{0}")]
    Refused(&'static str),
    /// The caller did not prove who they are, or may not act at all.
    #[error("{}", .0.detail())]
    Unauthenticated(AuthFailure),
    /// The caller is known and lacks the authority.
    #[error("{0}")]
    Denied(Denial),
    /// A client asked the token service for what it cannot have.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// A browser was made to send the request by a page of another site.
    #[error("This request did not come from a page of this console")]
    CrossSite,
    /// The act asks for a recent proof of who the caller is.
    #[error("Confirm that it is you")]
    ProofNeeded,
    /// The named resource does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The resource exists already.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// The body is larger than is read.
    #[error("The body is too large")]
    TooLarge,
    /// The body is described as something else than JSON.
    #[error("Unsupported media type; send application/json")]
    UnsupportedMediaType,
    /// The caller exceeded a rate limit; seconds until the next request may pass.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// Seconds to wait, at least 1.
        retry_after: u64,
    },
    /// The work was not taken up, or it is not known to be durable; trying again may succeed. A change whose time was over, or whose
    /// commit was not answered, may have been made all the same.
    #[error("The service is temporarily unavailable")]
    Unavailable(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// A defect. The source is for the log only.
    #[error("Internal server error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// One field's failure as a whole error.
    #[must_use]
    pub fn field(location: &[&str], invalid: Invalid) -> Self {
        Self::Invalid(vec![FieldError {
            location: location.iter().map(|&part| part.to_owned()).collect(),
            invalid,
            input: None,
        }])
    }

    /// The error and what is behind it, for the log alone.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut told = self.to_string();
        let mut cause = self.source();
        while let Some(source) = cause {
            told = format!("{told}: {source}");
            cause = source.source();
        }
        told
    }

    /// A defect described in words.
    #[must_use]
    pub fn internal(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(reason.into())
    }
}

impl From<AuthFailure> for Error {
    fn from(failure: AuthFailure) -> Self {
        Self::Unauthenticated(failure)
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// A field that failed, where it stood, and what was sent.
#[derive(Clone, Debug)]
pub struct FieldError {
    /// `["body", "name"]`, `["query", "limit"]`, `["header", "X-API-Key"]`.
    pub location: Vec<String>,
    /// What is wrong.
    pub invalid: Invalid,
    /// The offending value, echoed to the sender; never set for secrets.
    pub input: Option<serde_json::Value>,
}

/// What is wrong with a value: a stable type for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Stable identifier, in the vocabulary existing clients know (`missing`, `string_too_long`, …).
    pub kind: &'static str,
    /// One sentence.
    pub message: String,
}

impl Invalid {
    /// A failure of the given kind.
    #[must_use]
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn too_short(min: usize) -> Self {
        Self::new("string_too_short", format!("String should have at least {min} character{}", plural(min)))
    }

    pub(super) fn too_long(max: usize) -> Self {
        Self::new("string_too_long", format!("String should have at most {max} character{}", plural(max)))
    }
}

const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// Why a credential did not authenticate its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// No such API key.
    InvalidKey,
    /// The key was revoked.
    KeyRevoked,
    /// The key was rotated and its grace period is over.
    RotatedKeyExpired,
    /// The key is past its expiry.
    KeyExpired,
    /// The key does not work from the address that sent it.
    KeyNotFromHere,
    /// As many tokens as the key is for were issued.
    KeyUsedUp,
    /// The agent is suspended.
    AgentSuspended,
    /// The agent was revoked.
    AgentRevoked,
    /// No client authenticated itself.
    InvalidClient,
    /// An assertion does not authenticate its client; why, is for the record.
    InvalidAssertion(&'static str),
    /// The client's own assertion expires later than [`super::token::ASSERTION_LIFE`] allows.
    AssertionLivesTooLong,
    /// No access token was sent.
    MissingToken,
    /// The access token is malformed, forged, expired or withdrawn.
    InvalidToken,
    /// The proof of possession is wrong; why, is for the record.
    InvalidDpopProof(&'static str),
    /// The token is bound to a key, and who presents it does not hold that key, or the other way round.
    WrongBinding(&'static str),
    /// The proof of possession lacks a nonce that was given out lately.
    DpopNonceNeeded,
    /// There is no session, or it has ended.
    NoSession,
    /// The username, the password or the second factor is wrong: which of them is not said.
    WrongCredentials,
}

impl AuthFailure {
    /// The sentence clients receive.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::InvalidKey => "Invalid API key",
            Self::KeyRevoked => "API key has been revoked",
            Self::RotatedKeyExpired => "Rotated API key has expired past grace period",
            Self::KeyExpired => "API key has expired",
            Self::KeyNotFromHere => "API key may not be used from this address",
            Self::KeyUsedUp => "API key has been used up",
            Self::AgentSuspended => "Agent is suspended",
            Self::AgentRevoked => "Agent has been revoked",
            Self::InvalidClient => "Authenticate the client by HTTP Basic or in the form",
            Self::InvalidAssertion(_) => "The client assertion does not authenticate the client",
            Self::AssertionLivesTooLong => "The exp of the client assertion must be at most 3600 seconds away",
            Self::MissingToken => "Not authenticated",
            Self::InvalidToken | Self::WrongBinding(_) => "Invalid or expired token",
            Self::InvalidDpopProof(_) => "The DPoP proof is not valid",
            Self::DpopNonceNeeded => "The DPoP proof must carry the nonce of the header DPoP-Nonce",
            Self::NoSession => "Sign in to go on",
            Self::WrongCredentials => "That is not right. Check what you typed and try again",
        }
    }

    /// The `details.reason` of the audit record.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::KeyRevoked => "key_revoked",
            Self::RotatedKeyExpired => "rotated_key_expired",
            Self::KeyExpired => "key_expired",
            Self::KeyNotFromHere => "key_not_from_here",
            Self::KeyUsedUp => "key_used_up",
            Self::AgentSuspended => "agent_suspended",
            Self::AgentRevoked => "agent_revoked",
            Self::InvalidClient => "invalid_client",
            Self::InvalidAssertion(reason) | Self::InvalidDpopProof(reason) | Self::WrongBinding(reason) => reason,
            Self::AssertionLivesTooLong => "assertion_lives_too_long",
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::DpopNonceNeeded => "dpop_nonce_needed",
            Self::NoSession => "no_session",
            Self::WrongCredentials => "wrong_credentials",
        }
    }
}

/// What authority a known caller lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The act demands a capability that the caller does not hold.
    #[error("Missing required capability: {0}")]
    MissingCapability(&'static str),
    /// The act demands a role that the administrator does not have.
    #[error("Only an administrator with the role {0} may do this")]
    MissingRole(Role),
    /// The link that makes the first owner was mistyped or never given out, or its time is over.
    #[error(
        "This setup link is not valid, or its hour is over. Whoever runs this host makes another with: aims setup-token"
    )]
    SetupLink,
    /// The act targets an agent that holds authority the caller lacks, or grants such authority.
    #[error("The agent holds authority that you lack: {0}")]
    MoreAuthority(String),
    /// One token could satisfy both the federated identity and an identity of an agent that holds authority the caller lacks.
    #[error("It overlaps a federated identity of an agent that holds authority that you lack: {0}")]
    OverlappingIdentity(String),
}

impl Denial {
    /// The capability whose lack decided.
    #[must_use]
    pub fn capability(&self) -> Option<&str> {
        match self {
            Self::MissingCapability(name) => Some(name),
            Self::MoreAuthority(name) | Self::OverlappingIdentity(name) => Some(name),
            Self::MissingRole(_) | Self::SetupLink => None,
        }
    }

    /// The role whose lack decided.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match self {
            Self::MissingRole(role) => Some(*role),
            Self::MissingCapability(_) | Self::MoreAuthority(_) | Self::OverlappingIdentity(_) | Self::SetupLink => {
                None
            }
        }
    }
}
