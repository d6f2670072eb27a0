//! The audit log: a hash chain of records, in which the hash of each record covers all records before it.

use std::net::IpAddr;

use serde_json::Value;
use uuid::Uuid;

use super::{
    ids::{
        ActorId, AdministratorId, AgentId, ApiKeyId, CapabilityId, FederatedIdentityId, InvitationId,
        ProtectedResourceId, PublicKeyId, RequestId, TokenId,
    },
    invalid::Invalid,
    string_enum::string_enum,
    timestamp::Timestamp,
    token::Credential,
};

pub mod activity;
mod buckets;
mod chain;
mod changes;

pub use activity::{Activity, Bucket, Range};
pub use buckets::Buckets;
pub use chain::{Break, ChainHash, ChainVerifier, GENESIS, Head, hex};
pub use changes::Changes;

/// How many rejected requests get an audit record of their own per minute. The rest are counted in summary records.
#[derive(Clone, Copy, Debug)]
pub struct RefusalBounds {
    /// Limit for each network, agent and account.
    pub each: u32,
    /// Limit in total.
    pub total: u32,
}

string_enum! {
    /// The type of an audited event.
    AuditAction {
        /// An API key was exchanged for an access token.
        TokenIssued = "auth.token_issued",
        /// An access token was issued to an OAuth client.
        TokenGranted = "token.issued",
        /// A token was exchanged for one that lets an agent act on behalf of another.
        TokenExchanged = "token.exchanged",
        /// A token request of an authenticated client was rejected.
        TokenRefused = "token.refused",
        /// An access token was revoked.
        TokenRevoked = "token.revoked",
        /// All access tokens of an agent were revoked.
        TokensRevoked = "agent.tokens_revoked",
        /// A protected resource was created.
        ResourceCreated = "resource.created",
        /// A protected resource was edited.
        ResourceUpdated = "resource.updated",
        /// A protected resource was deleted.
        ResourceDeleted = "resource.deleted",
        /// A caller failed to authenticate.
        AuthFailed = "auth.failed",
        /// An authenticated caller was denied for lack of authority.
        AuthzDenied = "authz.denied",
        /// Rejected requests were counted instead of recorded individually.
        RefusalsSuppressed = "audit.refusals_suppressed",
        /// A request was repeated with the same `Idempotency-Key`, and its earlier answer was returned again.
        AnswerRepeated = "request.repeated",
        /// An agent was created.
        AgentCreated = "agent.created",
        /// An agent was edited.
        AgentUpdated = "agent.updated",
        /// An agent was suspended.
        AgentSuspended = "agent.suspended",
        /// A suspended agent was reactivated.
        AgentReactivated = "agent.reactivated",
        /// An agent and its API keys were revoked.
        AgentRevoked = "agent.revoked",
        /// An agent was deleted along with its credentials and grants.
        AgentDeleted = "agent.deleted",
        /// An API key was created.
        KeyCreated = "key.created",
        /// An API key was rotated.
        KeyRotated = "key.rotated",
        /// An API key was revoked.
        KeyRevoked = "key.revoked",
        /// A public key was added to an agent.
        PublicKeyRegistered = "public_key.registered",
        /// A public key of an agent was revoked.
        PublicKeyRemoved = "public_key.removed",
        /// An agent was allowed to act on behalf of another.
        DelegateAdded = "delegate.added",
        /// The permission of an agent to act on behalf of another was revoked.
        DelegateRemoved = "delegate.removed",
        /// A federated identity was added to an agent.
        FederatedIdentityAdded = "federated_identity.added",
        /// A federated identity of an agent was revoked.
        FederatedIdentityRemoved = "federated_identity.removed",
        /// A capability was created.
        CapabilityCreated = "capability.created",
        /// The description of a capability was edited.
        CapabilityUpdated = "capability.updated",
        /// A capability was deleted, with its grants.
        CapabilityDeleted = "capability.deleted",
        /// A capability was granted to an agent.
        CapabilityGranted = "capability.granted",
        /// A capability granted to an agent was revoked.
        CapabilityRevoked = "capability.revoked",
        /// An administrator account was created.
        AdministratorCreated = "administrator.created",
        /// The name or role of an administrator was edited.
        AdministratorUpdated = "administrator.updated",
        /// An administrator account was disabled.
        AdministratorDisabled = "administrator.disabled",
        /// A disabled administrator account was enabled.
        AdministratorEnabled = "administrator.enabled",
        /// The password of an administrator was changed.
        PasswordChanged = "administrator.password_changed",
        /// A second factor of an administrator was added, changed or removed, or a recovery code was used.
        FactorChanged = "administrator.factor_changed",
        /// A person was invited to become an administrator.
        InvitationCreated = "invitation.created",
        /// An invitation got a new link, which replaced the earlier one.
        InvitationRenewed = "invitation.renewed",
        /// An invitation was withdrawn.
        InvitationWithdrawn = "invitation.withdrawn",
        /// An invited person created their account.
        InvitationAccepted = "invitation.accepted",
        /// An administrator signed in to the console.
        SignedIn = "console.signed_in",
        /// An attempt to sign in to the console failed.
        SignInFailed = "console.sign_in_failed",
        /// A signed-in administrator confirmed their identity.
        ProofRenewed = "console.proof_renewed",
        /// One or more console sessions of an administrator were ended.
        SignedOut = "console.signed_out",
        /// A setup link for the first owner account was created.
        SetupTokenCreated = "console.setup_token_created",
        /// Old audit records were moved to an archive.
        AuditArchived = "audit.archived",
        /// A token signing key was created.
        SigningKeyCreated = "signing_key.created",
        /// The token signing key was rotated.
        SigningKeyRotated = "signing_key.rotated",
        /// A token signing key was removed from the published key set.
        SigningKeyWithdrawn = "signing_key.withdrawn",
        /// A backup was made.
        BackupCreated = "backup.created",
        /// A scheduled backup failed.
        BackupFailed = "backup.failed",
        /// The database was restored from a backup.
        BackupRestored = "backup.restored",
        /// A new master key encrypts secrets in the database from now on.
        MasterKeyRotated = "master_key.rotated",
        /// Secrets in the database were encrypted again, with the new master key.
        MasterKeyValuesResealed = "master_key.values_resealed",
        /// The previous master key opens no secret in the database any more.
        MasterKeyRetired = "master_key.retired",
        /// A seed database was imported.
        SeedImported = "seed.imported",
    }
}

/// The target of an event.
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
    /// An invitation of an administrator.
    Invitation(InvitationId),
    /// An access token.
    Token(TokenId),
    /// A protected resource.
    ProtectedResource(ProtectedResourceId),
    /// A public key of an agent.
    PublicKey(PublicKeyId),
    /// A federated identity of an agent.
    FederatedIdentity(FederatedIdentityId),
}

impl Resource {
    /// Every `resource_type`.
    pub const KINDS: [&'static str; 8] =
        ["agent", "api_key", "capability", "administrator", "token", "resource", "public_key", "federated_identity"];

    /// Returns the `resource_type` of the record.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::ApiKey(_) => "api_key",
            Self::Capability(_) => "capability",
            Self::Administrator(_) => "administrator",
            Self::Invitation(_) => "invitation",
            Self::Token(_) => "token",
            Self::ProtectedResource(_) => "resource",
            Self::PublicKey(_) => "public_key",
            Self::FederatedIdentity(_) => "federated_identity",
        }
    }

    /// Returns the `resource_id` of the record.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Agent(id) => id.to_string(),
            Self::ApiKey(id) => id.to_string(),
            Self::Capability(id) => id.to_string(),
            Self::Administrator(id) => id.to_string(),
            Self::Invitation(id) => id.to_string(),
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

/// An event to record. The database writer assigns its position in the chain.
#[derive(Clone, Debug)]
pub struct Event {
    /// Unique identifier of the record.
    pub id: Uuid,
    /// Time of the event.
    pub at: Timestamp,
    /// Actor; `None` for AIMS itself and for unauthenticated callers.
    pub actor: Option<ActorId>,
    /// Agent affected by the event. The target can be something else, such as a key of the agent.
    pub subject: Option<AgentId>,
    /// Type of the event.
    pub action: AuditAction,
    /// Target.
    pub resource: Option<Resource>,
    /// Details, as a JSON object.
    pub details: Value,
    /// IP address of the client.
    pub ip: Option<IpAddr>,
    /// True if the action was carried out, false if it was rejected.
    pub success: bool,
    /// Request that caused the event.
    pub request_id: Option<RequestId>,
}

/// An event as stored in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position in the chain, starting at 1, without gaps.
    pub seq: i64,
    /// Unique identifier.
    pub id: Uuid,
    /// Time of the event.
    pub at: Timestamp,
    /// Actor.
    pub actor: Option<ActorId>,
    /// Agent affected by the event.
    pub subject: Option<AgentId>,
    /// Type of the event: the text of an [`AuditAction`], or any other text in an imported record.
    pub action: String,
    /// Type of the target.
    pub resource_type: Option<String>,
    /// Identifier of the target.
    pub resource_id: Option<String>,
    /// Details: a JSON object, as text.
    pub details: String,
    /// IP address of the client.
    pub ip: Option<String>,
    /// True if the action was carried out, false if it was rejected.
    pub success: bool,
    /// Request that caused the event.
    pub request_id: Option<String>,
    /// Hash of the previous record.
    pub prev_hash: ChainHash,
    /// Hash of this record.
    pub hash: ChainHash,
}

impl Record {
    /// Returns why the action was rejected; `None` if it was carried out, or if the record does not say.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if self.success { None } else { text_in(&self.details, "reason") }
    }
}

/// Returns a member of the details that is text.
#[must_use]
pub fn text_in(details: &str, member: &str) -> Option<String> {
    match serde_json::from_str::<Value>(details).ok()?.get_mut(member)?.take() {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A file that records were moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedRange {
    /// Position of the first record in the file.
    pub first_seq: i64,
    /// Position of the last record in the file.
    pub last_seq: i64,
    /// Time of the last record; `None` if it was archived by a version of AIMS that did not store this.
    pub last_at: Option<Timestamp>,
    /// When the records were archived; `None` as above.
    pub archived_at: Option<Timestamp>,
    /// Name of the file; `None` as above.
    pub file: Option<String>,
}

/// Selects the records in a listing. All conditions must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only events with this actor.
    pub actor: Option<ActorId>,
    /// Only events in which this agent is the actor or the affected agent.
    pub involving: Option<AgentId>,
    /// Only this type of event.
    pub action: Option<String>,
    /// Only targets of this type.
    pub resource_type: Option<String>,
    /// Only the target with this identifier.
    pub resource_id: Option<String>,
    /// Only actions that were carried out, or only rejected ones.
    pub success: Option<bool>,
    /// Only events of the request with this ID.
    pub request: Option<String>,
    /// Only rejections for this reason.
    pub reason: Option<String>,
    /// Only requests from this IP address.
    pub ip: Option<String>,
    /// Only events at or after this time.
    pub from: Option<Timestamp>,
    /// Only events at or before this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Parses the start of a period. A date without a time means the start of that day.
    ///
    /// # Errors
    /// If the text is neither a date nor a date and time.
    pub fn parse_from(text: &str) -> Result<Timestamp, Invalid> {
        Timestamp::parse_lenient(text).ok_or_else(invalid_time)
    }

    /// Parses the end of a period. A date without a time includes the whole day.
    ///
    /// # Errors
    /// If the text is neither a date nor a date and time.
    pub fn parse_until(text: &str) -> Result<Timestamp, Invalid> {
        Timestamp::parse_lenient_end(text).ok_or_else(invalid_time)
    }

    /// Returns true if a listing with this filter contains `record`.
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
            && self.request.as_ref().is_none_or(|id| record.request_id.as_ref() == Some(id))
            && self.reason.as_ref().is_none_or(|reason| record.reason().as_ref() == Some(reason))
            && self.ip.as_ref().is_none_or(|ip| record.ip.as_ref() == Some(ip))
            && self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at <= until)
    }
}

fn invalid_time() -> Invalid {
    Invalid::new("datetime_parsing", "Input should be a date or a date and time (ISO 8601)")
}

/// The start of a page of records. Pages list the newest record first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Start with the first record before this position in the chain.
    Before(i64),
    /// Skip this many records. The cost grows with the number of skipped records.
    Offset(i64),
}

impl From<Event> for Record {
    /// Converts an event to a record without a position. [`Head::append`] assigns the position.
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
