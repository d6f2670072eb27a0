//! Operations on many agents. The preview says what an operation changes; the operation changes exactly that, or
//! nothing if the preview is outdated.

pub mod apply;
pub mod preview;
pub mod undo;

use std::fmt;

use crate::{
    domain::{
        CapabilityId, Error, Result,
        agent::{label_change::LabelChange, labels::Labels},
        audit::AuditAction,
    },
    service::core::policy::Action,
};

/// Maximum number of agents in an operation.
pub const BULK_MAX: usize = 5_000;
/// How many agents are changed at the same time: enough for full batches in the writer.
const CONCURRENCY: usize = 128;

/// An operation on many agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Suspend the agents, for this reason. See [`super::suspend`].
    Suspend(Option<String>),
    /// See [`super::reactivate`].
    Reactivate,
    /// See [`super::capabilities::grant`].
    Grant(CapabilityId),
    /// See [`super::capabilities::ungrant`].
    Ungrant(CapabilityId),
    /// Give the agents to another owner.
    Transfer(String),
    /// Set and remove labels. Demands what an edit of each agent does.
    Label(LabelChange),
}

impl Bulk {
    /// Returns the action that each agent's change is.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::Suspend(_) => Action::SuspendAgent,
            Self::Reactivate => Action::ReactivateAgent,
            Self::Grant(_) => Action::GrantCapability,
            Self::Ungrant(_) => Action::UngrantCapability,
            Self::Transfer(_) | Self::Label(_) => Action::UpdateAgent,
        }
    }

    /// Returns the event that is recorded for each agent.
    #[must_use]
    pub const fn event(&self) -> AuditAction {
        match self {
            Self::Suspend(_) => AuditAction::AgentSuspended,
            Self::Reactivate => AuditAction::AgentReactivated,
            Self::Grant(_) => AuditAction::CapabilityGranted,
            Self::Ungrant(_) => AuditAction::CapabilityRevoked,
            Self::Transfer(_) | Self::Label(_) => AuditAction::AgentUpdated,
        }
    }

    fn undoable(&self) -> Option<(&'static str, Option<String>)> {
        match self {
            Self::Suspend(_) => Some(("suspend", None)),
            Self::Grant(capability) => Some(("grant", Some(capability.to_string()))),
            Self::Transfer(owner) => Some(("transfer", Some(owner.clone()))),
            Self::Label(change) => Some(("label", Some(change.to_string()))),
            Self::Reactivate | Self::Ungrant(_) => None,
        }
    }
}

/// Why an operation does not change an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// It was deleted.
    Gone,
    /// It is revoked.
    Revoked,
    /// It is already suspended.
    Suspended,
    /// It is not suspended.
    Active,
    /// It must stay, so that somebody can administer AIMS.
    LastAdministrator,
    /// It holds this capability, which the caller lacks.
    MoreAuthority(String),
    /// It already holds the capability.
    Held,
    /// It does not hold the capability.
    NotHeld,
    /// It already has this owner.
    Owned,
    /// It already has these labels.
    Labelled,
    /// It would have too many labels.
    TooManyLabels,
    /// Its capabilities would no longer fit in a token.
    TooLong,
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "no longer exists",
            Self::Revoked => "revoked, which is permanent",
            Self::Suspended => "already suspended",
            Self::Active => "not suspended",
            Self::LastAdministrator => "the last active agent that holds admin:* and can authenticate",
            Self::MoreAuthority(name) => return write!(f, "holds {name}, which you lack"),
            Self::Held => "already holds the capability",
            Self::NotHeld => "does not hold the capability",
            Self::Owned => "already has this owner",
            Self::Labelled => "already has these labels",
            Self::TooManyLabels => return write!(f, "would have more than {} labels", Labels::MAX),
            Self::TooLong => "its capabilities would no longer fit in a token",
        })
    }
}

/// Returns the message of an error that concerns one agent only.
fn refusal(error: Error) -> Result<String> {
    match error {
        Error::Refused(_) | Error::NotFound(_) | Error::Denied(_) | Error::Conflict(_) => Ok(error.to_string()),
        error => Err(error),
    }
}
