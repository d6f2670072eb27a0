//! Agents: the identities that AIMS manages.

use std::fmt;

use super::{error::Invalid, ids::AgentId, text, timestamp::Timestamp};

/// A registered agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Identifier.
    pub id: AgentId,
    /// Unique name.
    pub name: AgentName,
    /// What it is for.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// Where it is in its life.
    pub status: AgentStatus,
    /// What sort of agent it is.
    pub agent_type: AgentType,
    /// The registrant's own data: a JSON document, kept as text.
    pub metadata_json: String,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When any of its fields last changed.
    pub updated_at: Timestamp,
    /// Since when it is suspended, while it is.
    pub suspended_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Which generation of its tokens is valid; every suspension, every revocation, and the end of all
    /// its tokens start a new one.
    pub token_epoch: i64,
}

impl Agent {
    /// Longest owner, in characters.
    pub const OWNER_MAX: usize = 128;
    /// Longest description, in characters.
    pub const DESCRIPTION_MAX: usize = 10_000;
    /// Largest metadata document, in bytes.
    pub const METADATA_MAX: usize = 65_536;
    /// Longest reason given for a suspension or revocation, in characters.
    pub const REASON_MAX: usize = 500;

    /// Checks an owner: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_owner(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::OWNER_MAX)
    }

    /// Checks a description: up to 10,000 characters.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_description(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::DESCRIPTION_MAX)
    }

    /// Checks a metadata document: JSON of up to 64 KiB.
    ///
    /// # Errors
    /// See [`text::json`].
    pub fn parse_metadata(text: &str) -> Result<String, Invalid> {
        text::json(text, Self::METADATA_MAX)
    }

    /// Checks a reason: up to 500 characters.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_reason(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::REASON_MAX)
    }
}

/// Which agents a listing shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with this status.
    pub status: Option<AgentStatus>,
    /// Only of this owner.
    pub owner: Option<String>,
    /// Only of this type.
    pub agent_type: Option<AgentType>,
    /// Only with this text in name, owner or description; ASCII letters match in either case.
    pub text: Option<String>,
}

/// The place of an agent in a listing, however it is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// When it was registered.
    pub created_at: Timestamp,
    /// Decides between agents registered at the same moment.
    pub id: AgentId,
    /// What it is called.
    pub name: String,
}

/// An agent's unique name: 1 to 128 characters of `[a-zA-Z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(String);

impl AgentName {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 128;

    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, over-long or holds another character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::too_short(1));
        }
        if text.chars().count() > Self::MAX_LEN {
            return Err(Invalid::too_long(Self::MAX_LEN));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(Invalid::new("string_pattern_mismatch", "String should match pattern '^[a-zA-Z0-9_-]+$'"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
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

/// An enumeration that is stored and sent as a word.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for this value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads a word.
            ///
            /// # Errors
            /// Names the words that are allowed.
            pub fn parse(text: &str) -> Result<Self, $crate::domain::error::Invalid> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::domain::error::Invalid::new(
                        "enum",
                        format!("Input should be one of: {}", [$($word),+].join(", ")),
                    )),
                }
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Where an agent is in its life.
    AgentStatus {
        /// May authenticate.
        Active = "active",
        /// May not authenticate until reactivated.
        Suspended = "suspended",
        /// May never authenticate again.
        Revoked = "revoked",
    }
}

words! {
    /// In which order agents are listed.
    Sort {
        /// As they were registered.
        Oldest = "oldest",
        /// The one registered last first.
        Newest = "newest",
        /// By name.
        Name = "name",
        /// By name, backwards.
        NameBackwards = "name_backwards",
    }
}

words! {
    /// What sort of agent it is. Descriptive only.
    AgentType {
        /// Driven by a language model.
        Llm = "llm",
        /// A tool that others call.
        Tool = "tool",
        /// Directs other agents.
        Orchestrator = "orchestrator",
        /// Anything else.
        Custom = "custom",
    }
}
