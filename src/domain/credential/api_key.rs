//! API keys: long-lived secrets of agents. Only a hash of each is stored.

use std::{net::IpAddr, time::Duration};

use super::key_limits::KeyLimits;
use crate::domain::{
    agent::AgentStatus,
    error::AuthFailure,
    ids::{AgentId, ApiKeyId},
    invalid::Invalid,
    string_enum::string_enum,
    text,
    timestamp::Timestamp,
};

/// The record of an API key, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Unique identifier.
    pub id: ApiKeyId,
    /// Agent that the key belongs to.
    pub agent_id: AgentId,
    /// The first characters of the secret, to distinguish keys.
    pub key_prefix: String,
    /// Name.
    pub name: String,
    /// Lifecycle status.
    pub status: ApiKeyStatus,
    /// Limits on its use.
    pub limits: KeyLimits,
    /// Time of expiry.
    pub expires_at: Option<Timestamp>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of rotation.
    pub rotated_at: Option<Timestamp>,
    /// End of the grace period, during which a rotated key still works.
    pub grace_ends_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
    /// Time a token was last issued for it.
    pub last_used_at: Option<Timestamp>,
    /// IP address of the client that obtained that token.
    pub last_used_ip: Option<String>,
}

/// The use of a key since its record was last updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Time of the last use.
    pub at: Timestamp,
    /// IP address of the last use.
    pub ip: Option<IpAddr>,
    /// Number of uses.
    pub times: i64,
}

impl Use {
    /// Adds later use.
    pub fn absorb(&mut self, later: Self) {
        *self = Self { times: self.times + later.times, ..later };
    }
}

/// Selects keys of all agents for a listing, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// All keys, newest first.
    All,
    /// Valid keys that expire within [`Selection::EXPIRING_WITHIN`], the next to expire first.
    Expiring,
    /// Valid keys that were neither used nor created within [`Selection::IDLE_AFTER`], the longest idle first.
    Idle,
    /// Rotated keys in their grace period, the next to end first.
    InGrace,
}

impl Selection {
    /// How soon a key must expire to be selected as expiring.
    pub const EXPIRING_WITHIN: Duration = Duration::from_hours(7 * 24);
    /// How long a key must be unused to be selected as idle.
    pub const IDLE_AFTER: Duration = Duration::from_hours(90 * 24);
}

/// The position of a key in a listing: the time it is ordered by, then its identifier.
pub type Position = (Timestamp, ApiKeyId);

/// What a key is worth at a moment: its own status, and that of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// It works.
    Active,
    /// It was replaced, and still works.
    Rotated,
    /// It would work if its agent were active. Holds the status of the agent.
    Blocked(AgentStatus),
    /// It has expired, its grace period has ended, or no uses are left.
    Expired,
    /// It was revoked.
    Revoked,
}

impl KeyState {
    /// Returns the word for it: that of [`super::key_filter::StateFilter`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rotated => "rotated",
            Self::Blocked(_) => "blocked",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// Returns the text for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Rotated => "Rotated",
            Self::Blocked(AgentStatus::Revoked) => "Blocked: agent revoked",
            Self::Blocked(_) => "Blocked: agent suspended",
            Self::Expired => "Expired",
            Self::Revoked => "Revoked",
        }
    }

    /// Returns true if a token is issued for the key.
    #[must_use]
    pub const fn works(self) -> bool {
        matches!(self, Self::Active | Self::Rotated)
    }

    /// Returns true if the key can never work again.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked)
    }
}

string_enum! {
    /// The lifecycle status of an API key.
    ApiKeyStatus {
        /// The key works until it expires.
        Active = "active",
        /// The key was replaced by a new one and works until its grace period ends.
        Rotated = "rotated",
        /// The key does not work.
        Revoked = "revoked",
    }
}

impl ApiKey {
    /// Maximum length of a name, in characters.
    pub const NAME_MAX: usize = 128;
    /// Maximum number of valid keys of an agent. The live view of an agent holds all of them.
    pub const MAX_PER_AGENT: usize = 1_000;

    /// Validates a key's name: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_name(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::NAME_MAX)
    }

    /// Returns when the key was last used, or created if it never was.
    #[must_use]
    pub fn used_or_created_at(&self) -> Timestamp {
        self.last_used_at.unwrap_or(self.created_at)
    }

    /// Returns what the key is worth at `now`, if its agent has this status. Every page that shows the state of a key, or
    /// counts the keys that work, asks this function.
    #[must_use]
    pub fn state(&self, agent: AgentStatus, now: Timestamp) -> KeyState {
        match self.validity().check(now) {
            Err(AuthFailure::KeyRevoked) => KeyState::Revoked,
            Err(_) => KeyState::Expired,
            Ok(()) if self.limits.uses_left == Some(0) => KeyState::Expired,
            Ok(()) if agent != AgentStatus::Active => KeyState::Blocked(agent),
            Ok(()) if self.status == ApiKeyStatus::Rotated => KeyState::Rotated,
            Ok(()) => KeyState::Active,
        }
    }

    /// Returns the fields that decide whether the key works.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        Validity { status: self.status, expires_at: self.expires_at, grace_ends_at: self.grace_ends_at }
    }
}

/// The fields of an [`ApiKey`] that decide whether it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Lifecycle status.
    pub status: ApiKeyStatus,
    /// Time of expiry.
    pub expires_at: Option<Timestamp>,
    /// End of the grace period of a rotated key.
    pub grace_ends_at: Option<Timestamp>,
}

impl Validity {
    /// Checks that the key works at `now`.
    ///
    /// # Errors
    /// If the key is revoked, has expired, or was rotated and its grace period has ended.
    pub fn check(&self, now: Timestamp) -> Result<(), AuthFailure> {
        match self.status {
            ApiKeyStatus::Revoked => return Err(AuthFailure::KeyRevoked),
            ApiKeyStatus::Rotated if self.grace_ends_at.is_none_or(|end| now >= end) => {
                return Err(AuthFailure::RotatedKeyExpired);
            }
            ApiKeyStatus::Rotated | ApiKeyStatus::Active => {}
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(AuthFailure::KeyExpired);
        }
        Ok(())
    }

    /// Returns the time at which the key stops working, if known. A token issued for the key expires no later.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let grace = self.grace_ends_at.filter(|_| self.status == ApiKeyStatus::Rotated);
        [self.expires_at, grace].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_key_works_until_it_expires_or_its_grace_period_ends() {
        let mut key = Validity { status: ApiKeyStatus::Active, expires_at: None, grace_ends_at: None };
        assert_eq!(key.check(at(9)), Ok(()));
        key.expires_at = Some(at(10));
        assert_eq!(key.check(at(9)), Ok(()));
        assert_eq!(key.check(at(10)), Err(AuthFailure::KeyExpired));
        key.status = ApiKeyStatus::Rotated;
        assert_eq!(key.check(at(1)), Err(AuthFailure::RotatedKeyExpired), "rotated without a grace period");
        key.grace_ends_at = Some(at(5));
        assert_eq!(key.check(at(4)), Ok(()));
        assert_eq!(key.check(at(5)), Err(AuthFailure::RotatedKeyExpired));
        assert_eq!(key.ends_at(), Some(at(5)));
        key.status = ApiKeyStatus::Revoked;
        assert_eq!(key.check(at(1)), Err(AuthFailure::KeyRevoked));
    }

    #[test]
    fn the_state_of_a_key_includes_that_of_its_agent() {
        let mut key = ApiKey {
            id: ApiKeyId(uuid::Uuid::nil()),
            agent_id: AgentId(uuid::Uuid::nil()),
            key_prefix: String::new(),
            name: String::new(),
            status: ApiKeyStatus::Active,
            limits: KeyLimits::default(),
            expires_at: Some(at(10)),
            created_at: at(0),
            rotated_at: None,
            grace_ends_at: None,
            revoked_at: None,
            last_used_at: None,
            last_used_ip: None,
        };
        let suspended = AgentStatus::Suspended;
        assert_eq!(key.state(AgentStatus::Active, at(9)), KeyState::Active);
        assert_eq!(key.state(suspended, at(9)), KeyState::Blocked(suspended));
        assert_eq!(key.state(suspended, at(9)).label(), "Blocked: agent suspended");
        assert_eq!(key.state(suspended, at(10)), KeyState::Expired, "an expired key stays expired");
        key.limits.uses_left = Some(0);
        assert_eq!(key.state(AgentStatus::Active, at(9)), KeyState::Expired);
        key.limits.uses_left = Some(1);
        (key.status, key.grace_ends_at) = (ApiKeyStatus::Rotated, Some(at(5)));
        assert_eq!(key.state(AgentStatus::Active, at(4)), KeyState::Rotated);
        assert_eq!(key.state(AgentStatus::Active, at(5)), KeyState::Expired);
        assert_eq!(key.state(suspended, at(4)), KeyState::Blocked(suspended));
        key.status = ApiKeyStatus::Revoked;
        assert_eq!(key.state(suspended, at(4)), KeyState::Revoked);
    }
}
