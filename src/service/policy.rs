//! Who may do what. Pure: decides on what it is given, and everything that decides is here.

use crate::domain::{AgentId, CapabilityName, CapabilitySet, Denial, Error, Result, capability::builtin};

use super::caller::{Caller, Principal};

/// Declares every act a caller can ask for, with the capability it demands.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident => $capability:expr),+ $(,)?) => {
        /// Every act a caller can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $action),+ }

        impl Action {
            /// The capability that the act demands.
            #[must_use]
            pub const fn demands(self) -> &'static str {
                match self { $(Self::$action => $capability),+ }
            }
        }
    };
}

actions! {
    /// Register an agent.
    CreateAgent => builtin::AGENTS_WRITE,
    /// Page through agents.
    ListAgents => builtin::AGENTS_READ,
    /// Read one agent.
    ReadAgent => builtin::AGENTS_READ,
    /// Edit an agent.
    UpdateAgent => builtin::AGENTS_WRITE,
    /// Stop an agent until it is reactivated.
    SuspendAgent => builtin::ADMIN,
    /// End a suspension.
    ReactivateAgent => builtin::ADMIN,
    /// Stop an agent for ever.
    RevokeAgent => builtin::ADMIN,
    /// Remove an agent.
    DeleteAgent => builtin::ADMIN,
    /// Make an API key.
    CreateKey => builtin::KEYS_MANAGE,
    /// See an agent's API keys.
    ListKeys => builtin::KEYS_MANAGE,
    /// Replace an API key.
    RotateKey => builtin::KEYS_MANAGE,
    /// End an API key.
    RevokeKey => builtin::KEYS_MANAGE,
    /// Register a capability.
    CreateCapability => builtin::ADMIN,
    /// See the capabilities there are.
    ListCapabilities => builtin::AGENTS_READ,
    /// See the capabilities an agent holds.
    ListGrants => builtin::AGENTS_READ,
    /// Grant a capability to an agent.
    GrantCapability => builtin::ADMIN,
    /// Take a capability from an agent.
    UngrantCapability => builtin::ADMIN,
    /// Read the audit log.
    ReadAudit => builtin::AUDIT_READ,
}

/// What a caller may do now.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Everything: AIMS itself.
    Unlimited,
    /// What these capabilities cover.
    Limited(CapabilitySet),
}

impl Authority {
    /// The authority of a caller as its credential was checked.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        match &caller.principal {
            Principal::System => Self::Unlimited,
            Principal::Agent(agent) => Self::Limited(agent.authority.clone()),
        }
    }

    /// Demands what `action` demands.
    ///
    /// # Errors
    /// [`Denial::MissingCapability`].
    pub fn require(&self, action: Action) -> Result<()> {
        let wanted = action.demands();
        match self {
            Self::Limited(held) if !held.covers(wanted) => Err(Denial::MissingCapability(wanted.into()).into()),
            _ => Ok(()),
        }
    }

    /// Demands all that `others` allow: whoever obtains a credential of an agent becomes that agent.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`], naming a capability that the caller lacks.
    pub fn require_all(&self, others: &CapabilitySet) -> Result<()> {
        match self {
            Self::Limited(held) => match held.lacks(others) {
                Some(lacking) => Err(Denial::MoreAuthority(lacking.clone()).into()),
                None => Ok(()),
            },
            Self::Unlimited => Ok(()),
        }
    }

    /// Demands the capability that is about to be given away.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`].
    pub fn require_held(&self, capability: &CapabilityName) -> Result<()> {
        self.require_all(&CapabilitySet::from_iter([capability.clone()]))
    }
}

/// Refuses an act upon oneself, in the words of `refusal`.
///
/// # Errors
/// [`Error::Refused`].
pub fn not_oneself(caller: &Caller, target: AgentId, refusal: &'static str) -> Result<()> {
    if caller.agent() == Some(target) { Err(Error::Refused(refusal)) } else { Ok(()) }
}
