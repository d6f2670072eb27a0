//! Who may do what. Pure: decides on what it is given, and everything that decides is here.

use std::time::Duration;

use crate::domain::{
    AgentId, CapabilityName, CapabilitySet, Denial, Error, Result, Role, Timestamp, capability::builtin,
};

use super::caller::{Caller, Principal};

/// How long a proof of who the administrator is counts for acts that ask for a recent one.
pub const PROOF_LIFE: Duration = Duration::from_mins(10);

/// Declares every act a caller can ask for, with what it demands of an agent and of an administrator.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident => $capability:expr, $role:ident);+ $(;)?) => {
        /// Every act a caller can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $action),+ }

        impl Action {
            /// Every act.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// The capability that the act demands of an agent.
            #[must_use]
            pub const fn demands(self) -> &'static str {
                match self { $(Self::$action => $capability),+ }
            }

            /// The role that the act demands of an administrator.
            #[must_use]
            pub const fn demands_role(self) -> Role {
                match self { $(Self::$action => Role::$role),+ }
            }
        }
    };
}

actions! {
    /// Register an agent.
    CreateAgent => builtin::AGENTS_WRITE, Operator;
    /// Page through agents.
    ListAgents => builtin::AGENTS_READ, Viewer;
    /// Read one agent.
    ReadAgent => builtin::AGENTS_READ, Viewer;
    /// Edit an agent.
    UpdateAgent => builtin::AGENTS_WRITE, Operator;
    /// Stop an agent until it is reactivated.
    SuspendAgent => builtin::ADMIN, Operator;
    /// End a suspension.
    ReactivateAgent => builtin::ADMIN, Operator;
    /// Stop an agent for ever.
    RevokeAgent => builtin::ADMIN, Operator;
    /// Remove an agent.
    DeleteAgent => builtin::ADMIN, Operator;
    /// Make an API key.
    CreateKey => builtin::KEYS_MANAGE, Operator;
    /// See API keys.
    ListKeys => builtin::KEYS_MANAGE, Viewer;
    /// Replace an API key.
    RotateKey => builtin::KEYS_MANAGE, Operator;
    /// End an API key.
    RevokeKey => builtin::KEYS_MANAGE, Operator;
    /// See the access tokens of an agent that count.
    ListTokens => builtin::KEYS_MANAGE, Viewer;
    /// End all access tokens of an agent.
    RevokeTokens => builtin::ADMIN, Operator;
    /// Ask whether somebody's access token is active.
    IntrospectToken => builtin::TOKENS_INTROSPECT, Owner;
    /// See who may act for an agent.
    ListDelegates => builtin::AGENTS_READ, Viewer;
    /// Say who may act for an agent.
    ManageDelegates => builtin::ADMIN, Operator;
    /// See the protected resources.
    ListResources => builtin::AGENTS_READ, Viewer;
    /// Register, edit and remove protected resources.
    ManageResources => builtin::ADMIN, Owner;
    /// Register a capability.
    CreateCapability => builtin::ADMIN, Owner;
    /// Describe a capability.
    UpdateCapability => builtin::ADMIN, Owner;
    /// See the capabilities there are.
    ListCapabilities => builtin::AGENTS_READ, Viewer;
    /// See who holds which capability.
    ListGrants => builtin::AGENTS_READ, Viewer;
    /// Grant a capability to an agent.
    GrantCapability => builtin::ADMIN, Operator;
    /// Take a capability from an agent.
    UngrantCapability => builtin::ADMIN, Operator;
    /// Read the audit log.
    ReadAudit => builtin::AUDIT_READ, Viewer;
    /// Walk the whole audit log and check every link.
    VerifyAudit => builtin::AUDIT_READ, Viewer;
    /// Move old records of the audit log to an archive.
    ArchiveAudit => builtin::ADMIN, Owner;
    /// See the token signing keys.
    ListSigningKeys => builtin::ADMIN, Viewer;
    /// Have the next token signing key sign.
    RotateSigningKey => builtin::ADMIN, Owner;
    /// See the administrators.
    ListAdministrators => builtin::ADMIN, Owner;
    /// Add, change and disable administrators.
    ManageAdministrators => builtin::ADMIN, Owner;
    /// Change one's own account.
    ManageAccount => builtin::ADMIN, Viewer;
}

/// What a caller may do now.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Everything: AIMS itself.
    Unlimited,
    /// What these capabilities cover: an agent.
    Limited(CapabilitySet),
    /// What a role allows: an administrator.
    Role {
        /// The role.
        role: Role,
        /// When the administrator last proved who they are.
        proved_at: Timestamp,
    },
}

impl Authority {
    /// The authority of a caller as its credential was checked.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        match &caller.principal {
            Principal::System => Self::Unlimited,
            Principal::Agent(agent) => Self::Limited(agent.authority.clone()),
            Principal::Administrator(person) => Self::Role { role: person.role, proved_at: person.proved_at },
        }
    }

    /// Demands what `action` demands.
    ///
    /// # Errors
    /// [`Denial::MissingCapability`], [`Denial::MissingRole`].
    pub fn require(&self, action: Action) -> Result<()> {
        let (wanted, role) = (action.demands(), action.demands_role());
        match self {
            Self::Limited(held) if !held.covers(wanted) => Err(Denial::MissingCapability(wanted).into()),
            Self::Role { role: held, .. } if *held < role => Err(Denial::MissingRole(role).into()),
            _ => Ok(()),
        }
    }

    /// The first of these capabilities that the caller lacks. Every role but the owner's is short of `admin:*`.
    #[must_use]
    pub fn lacks<'o>(&self, others: &'o CapabilitySet) -> Option<&'o str> {
        match self {
            Self::Unlimited | Self::Role { role: Role::Owner, .. } => None,
            Self::Limited(held) => held.lacks(others),
            Self::Role { .. } => others.iter().find(is_admin),
        }
    }

    /// Demands all of these capabilities.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`], naming a capability that the caller lacks.
    pub fn require_all(&self, others: &CapabilitySet) -> Result<()> {
        self.lacks(others).map_or(Ok(()), |lacking| Err(Denial::MoreAuthority(lacking.to_owned()).into()))
    }

    /// Demands the capability that is about to be given away.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`].
    pub fn require_held(&self, capability: &CapabilityName) -> Result<()> {
        self.require_all(&CapabilitySet::from_iter([capability.clone()]))
    }

    /// Demands of an administrator that they proved who they are a short while ago: a browser that was left open must
    /// not be enough for what cannot be undone.
    ///
    /// # Errors
    /// [`Error::ProofNeeded`].
    pub fn require_recent_proof(&self, now: Timestamp) -> Result<()> {
        match self {
            Self::Role { proved_at, .. } if proved_at.plus(PROOF_LIFE) <= now => Err(Error::ProofNeeded),
            _ => Ok(()),
        }
    }

    /// Demands a recent proof where `capabilities` include all there is.
    ///
    /// # Errors
    /// [`Error::ProofNeeded`].
    pub fn require_recent_proof_for(&self, capabilities: &CapabilitySet, now: Timestamp) -> Result<()> {
        if capabilities.iter().any(|name| is_admin(&name)) { self.require_recent_proof(now) } else { Ok(()) }
    }
}

fn is_admin(name: &&str) -> bool {
    *name == builtin::ADMIN
}

/// Refuses an act upon oneself, in the words of `refusal`.
///
/// # Errors
/// [`Error::Refused`].
pub fn not_oneself(caller: &Caller, target: AgentId, refusal: &'static str) -> Result<()> {
    if caller.involves(target) { Err(Error::Refused(refusal)) } else { Ok(()) }
}
