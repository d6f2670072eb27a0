//! Which API keys a listing of all agents' keys shows, and in which order.

use std::time::Duration;

use super::api_key::{ApiKey, KeyState, Selection};
use crate::domain::{
    agent::{AgentStatus, selector::Selector},
    ids::AgentId,
    string_enum::string_enum,
    timestamp::Timestamp,
};

const DAY: Duration = Duration::from_hours(24);

/// Selects keys of all agents. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only keys whose name or displayed prefix starts with this text. ASCII letters of the name match in either case.
    pub text: Option<String>,
    /// Only keys of this agent.
    pub agent: Option<AgentId>,
    /// Only keys of the agents of this owner.
    pub owner: Option<String>,
    /// Only keys of agents whose labels match.
    pub selector: Option<Selector>,
    /// Only keys in this state.
    pub state: Option<StateFilter>,
    /// Only keys that were used this little. Without [`Filter::state`], only keys that are neither rotated nor ended.
    pub usage: Option<UsageFilter>,
    /// Only keys that expire like this. Without [`Filter::state`], only keys that are neither rotated nor ended.
    pub expiry: Option<ExpiryFilter>,
    /// Only keys with this limit.
    pub limit: Option<LimitFilter>,
    /// Only keys of agents that hold `admin:*`.
    pub administrators: bool,
    /// Only rotated keys that still work and were used after the rotation.
    pub used_in_grace: bool,
}

impl Filter {
    /// Returns true if it selects every key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if only keys with the stored status `active` can match.
    #[must_use]
    pub fn is_of_active(&self) -> bool {
        match self.state {
            Some(state) => state == StateFilter::Active,
            None => !self.used_in_grace && (self.usage.is_some() || self.expiry.is_some()),
        }
    }
}

impl From<Selection> for Filter {
    fn from(selection: Selection) -> Self {
        let all = Self::default();
        match selection {
            Selection::All => all,
            Selection::Expiring => Self { expiry: Some(ExpiryFilter::Week), ..all },
            Selection::Idle => Self { usage: Some(UsageFilter::Unused90Days), ..all },
            Selection::InGrace => Self { state: Some(StateFilter::Rotated), ..all },
        }
    }
}

string_enum! {
    /// The state of a key as [`ApiKey::state`] decides it.
    StateFilter {
        /// [`KeyState::Active`].
        Active = "active",
        /// [`KeyState::Rotated`].
        Rotated = "rotated",
        /// [`KeyState::Expired`].
        Expired = "expired",
        /// [`KeyState::Revoked`].
        Revoked = "revoked",
        /// [`KeyState::Blocked`].
        Blocked = "blocked",
    }
}

string_enum! {
    /// How little a key was used.
    UsageFilter {
        /// Never.
        Never = "never",
        /// Neither used nor created in the last 30 days.
        Unused30Days = "unused_30d",
        /// Neither used nor created in the last 90 days.
        Unused90Days = "unused_90d",
    }
}

impl UsageFilter {
    /// Returns the time since which the key was neither used nor created.
    #[must_use]
    pub fn since(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::Unused30Days => Some(now.minus(DAY * 30)),
            Self::Unused90Days => Some(now.minus(Selection::IDLE_AFTER)),
        }
    }
}

string_enum! {
    /// When a key expires.
    ExpiryFilter {
        /// Within 7 days.
        Week = "7d",
        /// Within 30 days.
        Month = "30d",
        /// Never.
        Never = "never",
    }
}

impl ExpiryFilter {
    /// Returns the time before which the key expires.
    #[must_use]
    pub fn until(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Week => Some(now.plus(Selection::EXPIRING_WITHIN)),
            Self::Month => Some(now.plus(DAY * 30)),
            Self::Never => None,
        }
    }
}

string_enum! {
    /// A limit of a key.
    LimitFilter {
        /// The networks from which it works.
        Networks = "networks",
        /// The capabilities of its tokens.
        Capabilities = "capabilities",
        /// The number of tokens.
        Uses = "uses",
        /// The lifetime of its tokens.
        TokenLife = "token_life",
    }
}

string_enum! {
    /// The order of a listing of keys.
    Sort {
        /// The newest first.
        Newest = "created",
        /// The oldest first.
        Oldest = "created_backwards",
        /// The most recently used first. A key that was never used counts as used when it was created.
        RecentlyUsed = "last_used",
        /// The longest unused first.
        LongestUnused = "last_used_backwards",
        /// The next to expire first, keys that never expire last.
        Expiry = "expiry",
        /// Keys that never expire first, the next to expire last.
        ExpiryDescending = "expiry_backwards",
    }
}

impl Sort {
    /// Returns the order in which a filter shows what matters most.
    #[must_use]
    pub const fn of(filter: &Filter) -> Self {
        match (filter.usage, filter.expiry) {
            (Some(UsageFilter::Unused30Days | UsageFilter::Unused90Days), _) => Self::LongestUnused,
            (_, Some(ExpiryFilter::Week | ExpiryFilter::Month)) => Self::Expiry,
            _ => Self::Newest,
        }
    }

    /// Returns true if times grow from one key to the next.
    #[must_use]
    pub const fn is_ascending(self) -> bool {
        matches!(self, Self::Oldest | Self::LongestUnused | Self::Expiry)
    }
}

/// A key in a listing of all agents' keys.
#[derive(Clone, Debug)]
pub struct ListedKey {
    /// The key.
    pub key: ApiKey,
    /// Name of its agent.
    pub agent_name: String,
    /// Status of its agent.
    pub agent_status: AgentStatus,
}

impl ListedKey {
    /// Returns the state of the key: see [`ApiKey::state`].
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        self.key.state(self.agent_status, now)
    }
}
