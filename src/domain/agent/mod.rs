//! Agents: the identities that AIMS manages.

pub mod label_change;
pub mod labels;
pub mod selector;

use std::fmt;

use super::{
    ids::{AgentId, CapabilityId},
    invalid::Invalid,
    string_enum::string_enum,
    text,
    timestamp::Timestamp,
};
use labels::Labels;
use selector::Selector;

/// A registered agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Unique identifier.
    pub id: AgentId,
    /// Unique name.
    pub name: AgentName,
    /// Purpose of the agent.
    pub description: String,
    /// Person or team responsible for the agent.
    pub owner: String,
    /// Lifecycle status.
    pub status: AgentStatus,
    /// Type of agent. Descriptive only.
    pub agent_type: AgentType,
    /// Arbitrary JSON set by the client, stored as text.
    pub metadata_json: String,
    /// Keys and values to select the agent by.
    pub labels: Labels,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change to any field.
    pub updated_at: Timestamp,
    /// Time of suspension; `None` unless the agent is suspended.
    pub suspended_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
    /// Generation of the agent's valid tokens. Suspending the agent, revoking it, and revoking all its tokens
    /// each start a new generation.
    pub token_epoch: i64,
}

impl Agent {
    /// Maximum length of an owner, in characters.
    pub const OWNER_MAX: usize = 128;
    /// Maximum length of a description, in characters.
    pub const DESCRIPTION_MAX: usize = 10_000;
    /// Maximum size of a metadata document, in bytes.
    pub const METADATA_MAX: usize = 65_536;
    /// Maximum length of the reason for a suspension or revocation, in characters.
    pub const REASON_MAX: usize = 500;

    /// Validates an owner: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_owner(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::OWNER_MAX)
    }

    /// Validates a description: up to 10,000 characters.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_description(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::DESCRIPTION_MAX)
    }

    /// Validates a metadata document: JSON of up to 64 KiB.
    ///
    /// # Errors
    /// See [`text::json()`].
    pub fn parse_metadata(text: &str) -> Result<String, Invalid> {
        text::json(text, Self::METADATA_MAX)
    }

    /// Validates a reason: up to 500 characters.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_reason(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::REASON_MAX)
    }
}

/// The fields of an agent that a list of names needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Unique identifier.
    pub id: AgentId,
    /// Unique name.
    pub name: AgentName,
    /// Person or team responsible for the agent.
    pub owner: String,
    /// Lifecycle status.
    pub status: AgentStatus,
}

/// Selects the agents in a listing. All conditions must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only agents with this status.
    pub status: Option<AgentStatus>,
    /// Only agents of this owner.
    pub owner: Option<String>,
    /// Only agents of this type.
    pub agent_type: Option<AgentType>,
    /// Only agents whose name, owner or description contains this text, and the agent with this ID. ASCII letters match
    /// in either case.
    pub text: Option<String>,
    /// Only agents whose owner contains this text.
    pub owner_part: Option<String>,
    /// Only agents that hold this capability.
    pub capability: Option<CapabilityId>,
    /// Only agents that have not been used.
    pub unused: Option<Unused>,
    /// Only agents whose labels match.
    pub selector: Option<Selector>,
}

/// Since when an agent has not been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// Ever since it was created.
    Ever,
    /// Since this time, at which it existed.
    Since(Timestamp),
}

/// The position of an agent in a listing, for any sort order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Time of creation.
    pub created_at: Timestamp,
    /// Orders agents that were created at the same time.
    pub id: AgentId,
    /// Name.
    pub name: String,
    /// When the agent was last used, in a listing that is sorted by it.
    pub last_used_at: Option<Timestamp>,
}

/// An agent's unique name: 1 to 128 characters of `[a-zA-Z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(String);

impl AgentName {
    /// Maximum length, in characters.
    pub const MAX_LEN: usize = 128;

    /// Validates a name.
    ///
    /// # Errors
    /// If the name is empty, longer than [`Self::MAX_LEN`], or contains any other character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::TooShort(1));
        }
        if text.chars().count() > Self::MAX_LEN {
            return Err(Invalid::TooLong(Self::MAX_LEN));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(Invalid::AgentName);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_enum! {
    /// The lifecycle status of an agent.
    AgentStatus {
        /// The agent can authenticate.
        Active = "active",
        /// The agent cannot authenticate until it is reactivated.
        Suspended = "suspended",
        /// The agent can never authenticate again.
        Revoked = "revoked",
    }
}

string_enum! {
    /// The sort order of a list of agents.
    Sort {
        /// Oldest first.
        Oldest = "oldest",
        /// Newest first.
        Newest = "newest",
        /// By name, ascending.
        Name = "name",
        /// By name, descending.
        NameDescending = "name_backwards",
        /// Used most recently first.
        LastUsed = "used",
        /// Unused for the longest time first.
        LongestUnused = "unused",
    }
}

string_enum! {
    /// The type of an agent. Descriptive only; it has no effect on what the agent can do.
    AgentType {
        /// An agent driven by a language model.
        Llm = "llm",
        /// A tool that other agents call.
        Tool = "tool",
        /// An agent that directs other agents.
        Orchestrator = "orchestrator",
        /// Any other type of agent.
        Custom = "custom",
    }
}
