//! API keys: long-lived secrets of agents. Only a hash of each is stored.

use std::{net::IpAddr, time::Duration};

use super::key_limits::KeyLimits;
use crate::domain::{
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
}
