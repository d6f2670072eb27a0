//! The policy: every action, and the capability, role and proof of identity that it requires. It has no side effects.

use std::time::Duration;

use crate::domain::{
    AgentId, CapabilityName, CapabilitySet, Denial, Error, Result, Role, Timestamp, capability::builtin,
};

use super::caller::{Caller, Principal};

/// How long a proof of identity is recent.
pub const PROOF_LIFE: Duration = Duration::from_mins(10);
/// How far ahead the clock of another node may be.
const PROOF_AHEAD: Duration = Duration::from_mins(1);

/// The maximum age of an administrator's last proof of identity for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofAge {
    /// Any age, up to the life of the session. For actions that read, that remove access and can be undone, or that do
    /// not affect access.
    Any,
    /// Younger than [`PROOF_LIFE`], because an unattended browser must not be enough. For actions that issue a
    /// credential, widen authority or cannot be undone.
    Recent,
}

/// Declares every action with the capability that it requires of an agent, and the role and proof of identity that it
/// requires of an administrator. There is no default, so a new action must declare all three.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident => $capability:expr, $role:ident, $proof:ident);+ $(;)?) => {
        /// An action that a caller can request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $action),+ }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// Returns the name in audit records.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$action => stringify!($action)),+ }
            }

            /// Returns the capability that an agent needs.
            #[must_use]
            pub const fn demands(self) -> &'static str {
                match self { $(Self::$action => $capability),+ }
            }

            /// Returns the role that an administrator needs.
            #[must_use]
            pub const fn demands_role(self) -> Role {
                match self { $(Self::$action => Role::$role),+ }
            }

            /// Returns the maximum age of an administrator's last proof of identity.
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
    /// List agents.
    ListAgents => builtin::AGENTS_READ, Viewer, Any;
    /// Read one agent.
    ReadAgent => builtin::AGENTS_READ, Viewer, Any;
    /// Edit an agent.
    UpdateAgent => builtin::AGENTS_WRITE, Operator, Any;
    /// Suspend an agent.
    SuspendAgent => builtin::ADMIN, Operator, Any;
    /// Reactivate a suspended agent.
    ReactivateAgent => builtin::ADMIN, Operator, Recent;
    /// Revoke an agent permanently.
    RevokeAgent => builtin::ADMIN, Operator, Recent;
    /// Delete an agent.
    DeleteAgent => builtin::ADMIN, Operator, Recent;
    /// Create a credential.
    CreateKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// List credentials.
    ListKeys => builtin::KEYS_MANAGE, Viewer, Any;
    /// Rotate an API key.
    RotateKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// Revoke a credential.
    RevokeKey => builtin::KEYS_MANAGE, Operator, Recent;
    /// List the active access tokens of an agent.
    ListTokens => builtin::KEYS_MANAGE, Viewer, Any;
    /// Revoke all access tokens of an agent.
    RevokeTokens => builtin::ADMIN, Operator, Any;
    /// Introspect an access token.
    IntrospectToken => builtin::TOKENS_INTROSPECT, Owner, Any;
    /// List the delegates of an agent.
    ListDelegates => builtin::AGENTS_READ, Viewer, Any;
    /// Add a delegate to an agent.
    AddDelegate => builtin::ADMIN, Operator, Recent;
    /// Remove a delegate from an agent.
    RemoveDelegate => builtin::ADMIN, Operator, Any;
    /// List protected resources.
    ListResources => builtin::AGENTS_READ, Viewer, Any;
    /// Register, edit and delete protected resources.
    ManageResources => builtin::ADMIN, Owner, Recent;
    /// Register a capability.
    CreateCapability => builtin::ADMIN, Owner, Any;
    /// Edit a capability.
    UpdateCapability => builtin::ADMIN, Owner, Any;
    /// Delete a capability, with its grants.
    DeleteCapability => builtin::ADMIN, Owner, Recent;
    /// List capabilities.
    ListCapabilities => builtin::AGENTS_READ, Viewer, Any;
    /// List which agents hold which capabilities.
    ListGrants => builtin::AGENTS_READ, Viewer, Any;
    /// Grant a capability to an agent.
    GrantCapability => builtin::ADMIN, Operator, Recent;
    /// Revoke a capability from an agent.
    UngrantCapability => builtin::ADMIN, Operator, Any;
    /// Read the audit log.
    ReadAudit => builtin::AUDIT_READ, Viewer, Any;
    /// Verify the hash chain of the whole audit log.
    VerifyAudit => builtin::AUDIT_READ, Viewer, Any;
    /// Move old audit records to an archive.
    ArchiveAudit => builtin::ADMIN, Owner, Recent;
    /// List the token signing keys.
    ListSigningKeys => builtin::ADMIN, Viewer, Any;
    /// Rotate the token signing key.
    RotateSigningKey => builtin::ADMIN, Owner, Recent;
    /// Rotate the master key, and see what it encrypts.
    RotateMasterKey => builtin::ADMIN, Owner, Recent;
    /// List administrators.
    ListAdministrators => builtin::ADMIN, Owner, Any;
    /// Create, edit and disable administrators.
    ManageAdministrators => builtin::ADMIN, Owner, Recent;
    /// Manage one's own sessions and password. A password change asks for the current password itself.
    ManageAccount => builtin::ADMIN, Viewer, Any;
    /// Manage one's own authenticator app, recovery codes and passkeys.
    ManageFactors => builtin::ADMIN, Viewer, Recent;
}

/// The authority of a caller.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Everything, for AIMS itself.
    Unlimited,
    /// Everything that these capabilities cover, for an agent.
    Limited(CapabilitySet),
    /// Everything that a role allows, for an administrator.
    Role {
        /// The role.
        role: Role,
        /// When the administrator last proved their identity.
        proved_at: Timestamp,
    },
}

impl Authority {
    /// Returns the authority that the caller had when its credential was checked.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        match &caller.principal {
            Principal::System => Self::Unlimited,
            Principal::Agent(agent) => Self::Limited(agent.authority.clone()),
            Principal::Administrator(person) => Self::Role { role: person.role, proved_at: person.proved_at },
        }
    }

    /// Checks that this authority allows `action` at `now`.
    ///
    /// # Errors
    /// [`Denial::MissingCapability`], [`Denial::MissingRole`]; [`Error::ProofNeeded`] if an administrator's last proof
    /// of identity is too old.
    pub fn require(&self, action: Action, now: Timestamp) -> Result<()> {
        match self {
            Self::Unlimited => Ok(()),
            Self::Limited(held) if held.covers(action.demands()) => Ok(()),
            Self::Limited(_) => Err(Denial::MissingCapability(action.demands()).into()),
            Self::Role { role, .. } if *role < action.demands_role() => {
                Err(Denial::MissingRole(action.demands_role()).into())
            }
            Self::Role { proved_at, .. } => match action.proof_age() {
                ProofAge::Recent if !is_recent(*proved_at, now) => Err(Error::ProofNeeded),
                ProofAge::Recent | ProofAge::Any => Ok(()),
            },
        }
    }

    /// Returns the first of these capabilities that the caller lacks. Of the roles, only owner includes `admin:*`.
    #[must_use]
    pub fn lacks<'o>(&self, others: &'o CapabilitySet) -> Option<&'o str> {
        match self {
            Self::Unlimited | Self::Role { role: Role::Owner, .. } => None,
            Self::Limited(held) => held.lacks(others),
            Self::Role { .. } => others.iter().find(is_admin),
        }
    }

    /// Checks that the caller holds all of these capabilities.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`] with a capability that the caller lacks.
    pub fn require_all(&self, others: &CapabilitySet) -> Result<()> {
        self.lacks(others).map_or(Ok(()), |lacking| Err(Denial::MoreAuthority(lacking.to_owned()).into()))
    }

    /// Checks that the caller holds the capability that it grants.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`].
    pub fn require_held(&self, capability: &CapabilityName) -> Result<()> {
        self.require_all(&CapabilitySet::from_iter([capability.clone()]))
    }
}

/// Returns true if a proof of identity is at most [`PROOF_LIFE`] old. One from the future was given before the clock was
/// set back, and would last too long; the clocks of two nodes differ by less.
fn is_recent(proved_at: Timestamp, now: Timestamp) -> bool {
    proved_at.plus(PROOF_LIFE) > now && proved_at <= now.plus(PROOF_AHEAD)
}

fn is_admin(name: &&str) -> bool {
    *name == builtin::ADMIN
}

/// Rejects an action that an agent requests on itself, with `refusal` as the message.
///
/// # Errors
/// [`Error::Refused`].
pub fn not_oneself(caller: &Caller, target: AgentId, refusal: &'static str) -> Result<()> {
    if caller.involves(target) { Err(Error::Refused(refusal)) } else { Ok(()) }
}
