//! The error type of all service functions. The web layer maps each variant to a response.

use std::{borrow::Cow, error::Error as StdError};

use secrecy::SecretSlice;

use super::{ids::RequestId, invalid::Invalid, person::administrator::Role, token::TokenRefusal};

/// The result of a service function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is malformed. Names every invalid field.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The request is well-formed, but the state of the resource or a rule about the caller itself forbids it.
    #[error("{0}")]
    Refused(&'static str),
    /// The caller did not authenticate, or its agent is suspended or revoked.
    #[error("{}", .0.detail())]
    Unauthenticated(AuthFailure),
    /// The caller is authenticated but lacks the authority.
    #[error("{0}")]
    Denied(Denial),
    /// The token endpoint rejected the request of a client.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// A page of another site caused a browser to send the request.
    #[error("This request did not come from the console. Reload the page and try again")]
    CrossSite,
    /// The action requires the caller to have authenticated recently.
    #[error("Confirm your identity")]
    ProofNeeded,
    /// The resource does not exist. Holds its type, such as `Agent`.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// A resource with the same unique value already exists.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// The resource has another version than the caller expects (RFC 9110 §13.1.1).
    #[error("This has changed since you read it. Read it again, then retry with its current ETag in If-Match")]
    Stale,
    /// The caller made the request before, with the same `Idempotency-Key`. Not a failure: the response is the earlier
    /// answer, and nothing changes.
    #[error("The request was answered before")]
    Repeated(EarlierAnswer),
    /// The body exceeds the size limit.
    #[error("The body is too large")]
    TooLarge,
    /// The `Content-Type` of the body is not JSON.
    #[error("Unsupported media type; send application/json")]
    UnsupportedMediaType,
    /// The caller exceeded a rate limit.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// Seconds until the next request is allowed, at least 1.
        retry_after: u64,
    },
    /// The service is overloaded or the database failed; a retry may succeed. A change that timed out, or whose commit
    /// was not confirmed, may still have taken effect.
    #[error("The service is temporarily unavailable")]
    Unavailable(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// A bug. The source is only logged.
    #[error("Internal server error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Creates the error for a single invalid field.
    #[must_use]
    pub fn field(location: &[&str], invalid: Invalid) -> Self {
        Self::Invalid(vec![FieldError {
            location: location.iter().map(|&part| part.to_owned()).collect(),
            invalid,
            input: None,
        }])
    }

    /// Returns the message of the error and those of its causes. For the log only.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        message
    }

    /// Creates the error for a bug from a message.
    #[must_use]
    pub fn internal(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(reason.into())
    }
}

/// The answer to an earlier request.
#[derive(Debug)]
pub struct EarlierAnswer {
    /// The ID of that request.
    pub request_id: Option<RequestId>,
    /// The answer, in the form in which the web layer encoded it. It may contain a secret.
    pub encoded: SecretSlice<u8>,
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

/// A field that failed validation.
#[derive(Clone, Debug)]
pub struct FieldError {
    /// Location of the field: `["body", "name"]`, `["query", "limit"]`, `["header", "X-API-Key"]`.
    pub location: Vec<String>,
    /// What is wrong with the value.
    pub invalid: Invalid,
    /// The invalid value, echoed to the client. Never set for secrets.
    pub input: Option<serde_json::Value>,
}

/// Why authentication failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// The API key does not exist.
    InvalidKey,
    /// The API key was revoked.
    KeyRevoked,
    /// The API key was rotated and its grace period has ended.
    RotatedKeyExpired,
    /// The API key has expired.
    KeyExpired,
    /// The API key is not allowed from the client's IP address.
    KeyNotFromHere,
    /// The API key has reached its limit of issued tokens.
    KeyUsedUp,
    /// The agent is suspended.
    AgentSuspended,
    /// The agent was revoked.
    AgentRevoked,
    /// The request carries no client authentication.
    InvalidClient,
    /// A client assertion is not valid. Only the audit record contains the reason.
    InvalidAssertion(&'static str),
    /// The client assertion expires later than [`super::token::ASSERTION_LIFE`] allows.
    AssertionLivesTooLong,
    /// The request carries no access token.
    MissingToken,
    /// The access token is malformed, forged, expired or revoked.
    InvalidToken,
    /// The DPoP proof is not valid. Only the audit record contains the reason.
    InvalidDpopProof(&'static str),
    /// The token is bound to another key than that of the DPoP proof, or only one of token and request uses DPoP.
    WrongBinding(&'static str),
    /// The DPoP proof does not carry a recent nonce of this server.
    DpopNonceNeeded,
    /// The request carries no session, or the session has ended.
    NoSession,
    /// The username, the password or the second factor is wrong. The response does not reveal which.
    WrongCredentials,
}

impl AuthFailure {
    /// Returns the message for the client.
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
            Self::InvalidClient => "Authenticate the client with HTTP Basic or with form parameters",
            Self::InvalidAssertion(_) => "The client assertion does not authenticate the client",
            Self::AssertionLivesTooLong => "The exp of the client assertion must be at most 3600 seconds away",
            Self::MissingToken => "Not authenticated",
            Self::InvalidToken | Self::WrongBinding(_) => "Invalid or expired token",
            Self::InvalidDpopProof(_) => "The DPoP proof is not valid",
            Self::DpopNonceNeeded => "The DPoP proof must contain the nonce from the DPoP-Nonce header",
            Self::NoSession => "Sign in to continue",
            Self::WrongCredentials => "Incorrect credentials. Check what you entered and try again",
        }
    }

    /// Returns the `details.reason` of the audit record.
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

/// The authority that an authenticated caller lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The action requires a capability that the caller does not hold.
    #[error("Missing required capability: {0}")]
    MissingCapability(&'static str),
    /// The action requires a role that the administrator does not have.
    #[error("This action requires the role {0}")]
    MissingRole(Role),
    /// The token in the link that creates the first owner account is unknown or has expired.
    #[error(
        "This setup link is not valid or has expired, or a newer link replaced it. Create a new one on the host with: \
         aims setup-token"
    )]
    SetupLink,
    /// The token in the link that invites an administrator is unknown, expired, used or withdrawn, or the inviter is no
    /// longer an owner. The message does not tell which.
    #[error("This invitation link does not work. It may have expired, been used, or been replaced or withdrawn")]
    InvitationLink,
    /// The action targets an agent that holds a capability the caller lacks, or grants such a capability.
    #[error("The agent holds authority that you lack: {0}")]
    MoreAuthority(String),
    /// A single token could match both the federated identity and that of an agent that holds a capability the caller
    /// lacks.
    #[error("It overlaps a federated identity of an agent that holds authority that you lack: {0}")]
    OverlappingIdentity(String),
}

impl Denial {
    /// Returns the capability that the caller lacks.
    #[must_use]
    pub fn capability(&self) -> Option<&str> {
        match self {
            Self::MissingCapability(name) => Some(name),
            Self::MoreAuthority(name) | Self::OverlappingIdentity(name) => Some(name),
            Self::MissingRole(_) | Self::SetupLink | Self::InvitationLink => None,
        }
    }

    /// Returns the role that the administrator lacks.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match self {
            Self::MissingRole(role) => Some(*role),
            Self::MissingCapability(_)
            | Self::MoreAuthority(_)
            | Self::OverlappingIdentity(_)
            | Self::SetupLink
            | Self::InvitationLink => None,
        }
    }
}
