//! Who may do what. Pure: decides on what it is given, and everything that decides is here.

use std::time::Duration;

use crate::domain::{
    AgentId, CapabilityName, CapabilitySet, Denial, Error, Result, Role, Timestamp, capability::builtin,
};

use super::caller::{Caller, Principal};

/// How long a proof of identity counts as recent.
pub const PROOF_LIFE: Duration = Duration::from_mins(10);

/// How old the last proof of an administrator's identity may be when they ask for an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofAge {
    /// As old as the session. For acts that read, that remove access and can be undone, or that do not affect access.
    Any,
    /// Younger than [`PROOF_LIFE`]: a browser that was left open must not be enough. For acts that issue a credential,
    /// widen authority or cannot be undone.
    Recent,
}

/// Declares every act a caller can ask for: the capability it demands of an agent, and the role and the proof it demands of
/// an administrator. There is no default, so every new act must declare each.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident => $capability:expr, $role:ident, $proof:ident);+ $(;)?) => {
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

            /// How old the last proof of identity of an administrator may be.
            #[must_use]
            pub const fn proof_age(self) -> ProofAge {
                match self { $(Self::$action => ProofAge::$proof),+ }
            }
        }
    };
}

actions! {
    /// Register an agent.
    CreateAgent => builtin::AGENTS_WRITE, Operator, Any;
    /// Page through agents.
    ListAgents => builtin::AGENTS_READ, Viewer, Any;
    /// Read one agent.
    ReadAgent => builtin::AGENTS_READ, Viewer, Any;
    /// Edit an agent.
    UpdateAgent => builtin::AGENTS_WRITE, Operator, Any;
    /// Stop an agent until it is reactivated.
    SuspendAgent => builtin::ADMIN, Operator, Any;
    /// End a suspension.
    ReactivateAgent => builtin::ADMIN, Operator, Recent;
    /// Stop an agent for ever.
    RevokeAgent => builtin::ADMIN, Operator, Recent;
    /// Remove an agent.
    DeleteAgent => builtin::ADMIN, Operator, Recent;
    /// Make an API key.
    CreateKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// See API keys.
    ListKeys => builtin::KEYS_MANAGE, Viewer, Any;
    /// Replace an API key.
    RotateKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// End an API key.
    RevokeKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// See the access tokens of an agent that count.
    ListTokens => builtin::KEYS_MANAGE, Viewer, Any;
    /// End all access tokens of an agent.
    RevokeTokens => builtin::ADMIN, Operator, Any;
    /// Ask whether somebody's access token is active.
    IntrospectToken => builtin::TOKENS_INTROSPECT, Owner, Any;
    /// See who may act for an agent.
    ListDelegates => builtin::AGENTS_READ, Viewer, Any;
    /// Let an agent act for another.
    AddDelegate => builtin::ADMIN, Operator, Recent;
    /// Forbid an agent to act for another.
    RemoveDelegate => builtin::ADMIN, Operator, Any;
    /// See the protected resources.
    ListResources => builtin::AGENTS_READ, Viewer, Any;
    /// Register, edit and remove protected resources.
    ManageResources => builtin::ADMIN, Owner, Recent;
    /// Register a capability.
    CreateCapability => builtin::ADMIN, Owner, Any;
    /// Describe a capability.
    UpdateCapability => builtin::ADMIN, Owner, Any;
    /// See the capabilities there are.
    ListCapabilities => builtin::AGENTS_READ, Viewer, Any;
    /// See who holds which capability.
    ListGrants => builtin::AGENTS_READ, Viewer, Any;
    /// Grant a capability to an agent.
    GrantCapability => builtin::ADMIN, Operator, Recent;
    /// Take a capability from an agent.
    UngrantCapability => builtin::ADMIN, Operator, Any;
    /// Read the audit log.
    ReadAudit => builtin::AUDIT_READ, Viewer, Any;
    /// Walk the whole audit log and check every link.
    VerifyAudit => builtin::AUDIT_READ, Viewer, Any;
    /// Move old records of the audit log to an archive.
    ArchiveAudit => builtin::ADMIN, Owner, Recent;
    /// See the token signing keys.
    ListSigningKeys => builtin::ADMIN, Viewer, Any;
    /// Have the next token signing key sign.
    RotateSigningKey => builtin::ADMIN, Owner, Recent;
    /// See the administrators.
    ListAdministrators => builtin::ADMIN, Owner, Any;
    /// Add, change and disable administrators.
    ManageAdministrators => builtin::ADMIN, Owner, Recent;
    /// Use one's own account: sessions and the password. A password change asks for the current password itself.
    ManageAccount => builtin::ADMIN, Viewer, Any;
    /// Change one's own authenticator, recovery codes and passkeys.
    ManageFactors => builtin::ADMIN, Viewer, Recent;
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

    /// Returns an error unless this authority allows `action` at `now`.
    ///
    /// # Errors
    /// [`Denial::MissingCapability`], [`Denial::MissingRole`]; [`Error::ProofNeeded`] from an administrator whose last proof of
    /// identity is too old.
    pub fn require(&self, action: Action, now: Timestamp) -> Result<()> {
        match self {
            Self::Unlimited => Ok(()),
            Self::Limited(held) if held.covers(action.demands()) => Ok(()),
            Self::Limited(_) => Err(Denial::MissingCapability(action.demands()).into()),
            Self::Role { role, .. } if *role < action.demands_role() => {
                Err(Denial::MissingRole(action.demands_role()).into())
            }
            Self::Role { proved_at, .. } => match action.proof_age() {
                ProofAge::Recent if proved_at.plus(PROOF_LIFE) <= now => Err(Error::ProofNeeded),
                ProofAge::Recent | ProofAge::Any => Ok(()),
            },
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
