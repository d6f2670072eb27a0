//! The audit log: what happened, in one chain whose every link seals all that came before it.

use std::net::IpAddr;

use serde_json::Value;
use uuid::Uuid;

use super::{
    agent::words,
    error::Invalid,
    ids::{
        ActorId, AdministratorId, AgentId, ApiKeyId, CapabilityId, FederatedIdentityId, ProtectedResourceId,
        PublicKeyId, RequestId, TokenId,
    },
    timestamp::Timestamp,
    token::Credential,
};

mod chain;
mod changes;

pub use chain::{Break, ChainHash, GENESIS, Head, Walk, hex};
pub use changes::Changes;

/// How many refusals are recorded one by one per minute.
#[derive(Clone, Copy, Debug)]
pub struct RefusalBounds {
    /// Of each network, agent and account.
    pub each: u32,
    /// In all.
    pub total: u32,
}

words! {
    /// What an audit record tells.
    AuditAction {
        /// An API key was exchanged for an access token.
        TokenIssued = "auth.token_issued",
        /// A client was issued an access token.
        TokenGranted = "token.issued",
        /// A token was exchanged for one by which an agent acts for another.
        TokenExchanged = "token.exchanged",
        /// An access token was refused to a client that asked for what it cannot have.
        TokenRefused = "token.refused",
        /// An access token was revoked.
        TokenRevoked = "token.revoked",
        /// All access tokens of an agent were revoked.
        TokensRevoked = "agent.tokens_revoked",
        /// A protected resource was registered.
        ResourceCreated = "resource.created",
        /// A protected resource was edited.
        ResourceUpdated = "resource.updated",
        /// A protected resource was removed.
        ResourceDeleted = "resource.deleted",
        /// A credential was refused.
        AuthFailed = "auth.failed",
        /// A known caller was refused for lack of authority.
        AuthzDenied = "authz.denied",
        /// Refusals that were counted and not recorded one by one.
        RefusalsSuppressed = "audit.refusals_suppressed",
        /// An agent was registered.
        AgentCreated = "agent.created",
        /// An agent was edited.
        AgentUpdated = "agent.updated",
        /// An agent was suspended.
        AgentSuspended = "agent.suspended",
        /// A suspended agent was made active again.
        AgentReactivated = "agent.reactivated",
        /// An agent was revoked, with its keys.
        AgentRevoked = "agent.revoked",
        /// An agent was deleted, with its keys and grants.
        AgentDeleted = "agent.deleted",
        /// An API key was created.
        KeyCreated = "key.created",
        /// An API key was replaced by another.
        KeyRotated = "key.rotated",
        /// An API key was revoked.
        KeyRevoked = "key.revoked",
        /// A public key of an agent was registered.
        PublicKeyRegistered = "public_key.registered",
        /// A public key of an agent was removed.
        PublicKeyRemoved = "public_key.removed",
        /// An agent was allowed to act for another.
        DelegateAdded = "delegate.added",
        /// An agent may no longer act for another.
        DelegateRemoved = "delegate.removed",
        /// A foreign issuer is trusted to vouch for an agent.
        FederatedIdentityAdded = "federated_identity.added",
        /// A foreign issuer is not trusted to vouch for an agent any more.
        FederatedIdentityRemoved = "federated_identity.removed",
        /// A capability was registered.
        CapabilityCreated = "capability.created",
        /// A capability was described anew.
        CapabilityUpdated = "capability.updated",
        /// A capability was granted to an agent.
        CapabilityGranted = "capability.granted",
        /// A capability was taken from an agent.
        CapabilityRevoked = "capability.revoked",
        /// An administrator was added.
        AdministratorCreated = "administrator.created",
        /// An administrator's name or role was changed.
        AdministratorUpdated = "administrator.updated",
        /// An administrator may no longer sign in.
        AdministratorDisabled = "administrator.disabled",
        /// An administrator may sign in again.
        AdministratorEnabled = "administrator.enabled",
        /// An administrator's password was set.
        PasswordChanged = "administrator.password_changed",
        /// A second factor was added, replaced or removed, or a recovery code was used up.
        FactorChanged = "administrator.factor_changed",
        /// An administrator signed in to the console.
        SignedIn = "console.signed_in",
        /// A sign-in to the console was refused.
        SignInFailed = "console.sign_in_failed",
        /// An administrator proved again who they are.
        ProofRenewed = "console.proof_renewed",
        /// A session of the console was ended.
        SignedOut = "console.signed_out",
        /// A link to set up the first administrator was made.
        SetupTokenCreated = "console.setup_token_created",
        /// Old records were moved to an archive.
        AuditArchived = "audit.archived",
        /// A token signing key was generated.
        SigningKeyCreated = "signing_key.created",
        /// The next token signing key signs from then on, and another one is next.
        SigningKeyRotated = "signing_key.rotated",
        /// A token signing key that no token can need any more was removed.
        SigningKeyWithdrawn = "signing_key.withdrawn",
        /// A database of the predecessor was imported.
        SeedImported = "seed.imported",
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An agent.
    Agent(AgentId),
    /// An API key.
    ApiKey(ApiKeyId),
    /// A capability.
    Capability(CapabilityId),
    /// An administrator.
    Administrator(AdministratorId),
    /// An access token.
    Token(TokenId),
    /// A protected resource.
    ProtectedResource(ProtectedResourceId),
    /// A public key of an agent.
    PublicKey(PublicKeyId),
    /// A foreign issuer that vouches for an agent.
    FederatedIdentity(FederatedIdentityId),
}

impl Resource {
    /// The `resource_type` of the record.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::ApiKey(_) => "api_key",
            Self::Capability(_) => "capability",
            Self::Administrator(_) => "administrator",
            Self::Token(_) => "token",
            Self::ProtectedResource(_) => "resource",
            Self::PublicKey(_) => "public_key",
            Self::FederatedIdentity(_) => "federated_identity",
        }
    }

    /// The `resource_id` of the record.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Agent(id) => id.to_string(),
            Self::ApiKey(id) => id.to_string(),
            Self::Capability(id) => id.to_string(),
            Self::Administrator(id) => id.to_string(),
            Self::Token(id) => id.to_string(),
            Self::ProtectedResource(id) => id.to_string(),
            Self::PublicKey(id) => id.to_string(),
            Self::FederatedIdentity(id) => id.to_string(),
        }
    }
}

impl From<Credential> for Resource {
    fn from(credential: Credential) -> Self {
        match credential {
            Credential::ApiKey(id) => Self::ApiKey(id),
            Credential::PublicKey(id) => Self::PublicKey(id),
            Credential::FederatedIdentity(id) => Self::FederatedIdentity(id),
        }
    }
}

/// What a unit of work asks to have recorded. The writer gives it its place in the chain.
#[derive(Clone, Debug)]
pub struct Event {
    /// Identifier of the record.
    pub id: Uuid,
    /// When it happened.
    pub at: Timestamp,
    /// Who acted; `None` for the system itself and for callers that were not recognised.
    pub actor: Option<ActorId>,
    /// The agent it happened to, which is not always the resource: a key has an owner.
    pub subject: Option<AgentId>,
    /// What happened.
    pub action: AuditAction,
    /// What it is about.
    pub resource: Option<Resource>,
    /// More about it: a JSON object.
    pub details: Value,
    /// From where.
    pub ip: Option<IpAddr>,
    /// Whether it was carried out.
    pub success: bool,
    /// The request that caused it.
    pub request_id: Option<RequestId>,
}

/// An event in its place in the chain, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position in the chain, from 1, without gaps.
    pub seq: i64,
    /// Identifier.
    pub id: Uuid,
    /// When it happened.
    pub at: Timestamp,
    /// Who acted.
    pub actor: Option<ActorId>,
    /// The agent it happened to.
    pub subject: Option<AgentId>,
    /// What happened: a word of [`AuditAction`], or one that an import brought along.
    pub action: String,
    /// What kind of thing it is about.
    pub resource_type: Option<String>,
    /// Which one.
    pub resource_id: Option<String>,
    /// More about it: a JSON object, as text.
    pub details: String,
    /// From where.
    pub ip: Option<String>,
    /// Whether it was carried out.
    pub success: bool,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// The hash of the record before.
    pub prev_hash: ChainHash,
    /// The hash of this record.
    pub hash: ChainHash,
}

/// Which records a listing shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what this agent or administrator did.
    pub actor: Option<ActorId>,
    /// Only what this agent did or what happened to it.
    pub involving: Option<AgentId>,
    /// Only this action.
    pub action: Option<String>,
    /// Only about this kind of resource.
    pub resource_type: Option<String>,
    /// Only about this one resource.
    pub resource_id: Option<String>,
    /// Only what was carried out, or only what was refused.
    pub success: Option<bool>,
    /// Only at or after this moment.
    pub from: Option<Timestamp>,
    /// Only at or before this moment.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Parses the start of a period. A date without a time means the start of that day.
    ///
    /// # Errors
    /// When the text is neither a date nor a date and time.
    pub fn parse_from(text: &str) -> Result<Timestamp, Invalid> {
        Timestamp::parse_lenient(text).ok_or_else(not_a_moment)
    }

    /// Parses the end of a period. A date without a time includes the whole day.
    ///
    /// # Errors
    /// When the text is neither a date nor a date and time.
    pub fn parse_until(text: &str) -> Result<Timestamp, Invalid> {
        Timestamp::parse_lenient_end(text).ok_or_else(not_a_moment)
    }

    /// Whether a listing with this filter shows `record`.
    #[must_use]
    pub fn shows(&self, record: &Record) -> bool {
        self.actor.is_none_or(|actor| record.actor == Some(actor))
            && self.involving.is_none_or(|agent| {
                record.actor.is_some_and(|actor| actor.0 == agent.0) || record.subject == Some(agent)
            })
            && self.action.as_ref().is_none_or(|action| record.action == *action)
            && self.resource_type.as_ref().is_none_or(|kind| record.resource_type.as_ref() == Some(kind))
            && self.resource_id.as_ref().is_none_or(|id| record.resource_id.as_ref() == Some(id))
            && self.success.is_none_or(|success| record.success == success)
            && self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at <= until)
    }
}

fn not_a_moment() -> Invalid {
    Invalid::new("datetime_parsing", "Input should be a date or a date and time (ISO 8601)")
}

/// Where a page of records, newest first, starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Below this position in the chain.
    Before(i64),
    /// After leaving out this many; costs more the more are left out.
    Offset(i64),
}

impl From<Event> for Record {
    /// The event as a record that has no place yet; [`Head::append`] gives it one.
    fn from(event: Event) -> Self {
        Self {
            seq: 0,
            id: event.id,
            at: event.at,
            actor: event.actor,
            subject: event.subject,
            action: event.action.as_str().to_owned(),
            resource_type: event.resource.map(|resource| resource.kind().to_owned()),
            resource_id: event.resource.map(|resource| resource.id()),
            details: event.details.to_string(),
            ip: event.ip.map(|ip| ip.to_string()),
            success: event.success,
            request_id: event.request_id.map(|id| id.as_str().to_owned()),
            prev_hash: GENESIS,
            hash: GENESIS,
        }
    }
}
