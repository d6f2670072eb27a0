//! API keys: an agent's long-lived credential, of which only a hash is kept.

use std::{net::IpAddr, time::Duration};

use super::key_limits::KeyLimits;
use crate::domain::{
    agent::words,
    error::{AuthFailure, Invalid},
    ids::{AgentId, ApiKeyId},
    text,
    timestamp::Timestamp,
};

/// What is kept of an API key. The secret is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Identifier.
    pub id: ApiKeyId,
    /// Whose credential it is.
    pub agent_id: AgentId,
    /// The first characters of the secret, to tell keys apart.
    pub key_prefix: String,
    /// What it is called.
    pub name: String,
    /// Where it is in its life.
    pub status: ApiKeyStatus,
    /// What it may be used for at most.
    pub limits: KeyLimits,
    /// When it stops to work by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was rotated.
    pub rotated_at: Option<Timestamp>,
    /// Until when it works although rotated.
    pub grace_ends_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When a token was last issued for it.
    pub last_used_at: Option<Timestamp>,
    /// From which address that was.
    pub last_used_ip: Option<String>,
}

/// That a key was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// When last.
    pub at: Timestamp,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// How often.
    pub times: i64,
}

impl Use {
    /// Adds what happened later.
    pub fn absorb(&mut self, later: Self) {
        *self = Self { times: self.times + later.times, ..later };
    }
}

/// Which keys of the fleet a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// All, newest first.
    All,
    /// Those that work and expire within [`Selection::SOON`], the first to expire first.
    Expiring,
    /// Those that work and were neither used nor made within [`Selection::LONG`], the longest idle first.
    Idle,
    /// Those that were rotated and still work, the first to end first.
    InGrace,
}

impl Selection {
    /// How near an expiry is that wants attention.
    pub const SOON: Duration = Duration::from_hours(7 * 24);
    /// How long a key is idle that wants attention.
    pub const LONG: Duration = Duration::from_hours(90 * 24);
}

/// The place of a key in a listing of the fleet: the moment it is ordered by, and what decides between equals.
pub type Position = (Timestamp, ApiKeyId);

words! {
    /// Where an API key is in its life.
    ApiKeyStatus {
        /// Works until it expires.
        Active = "active",
        /// Replaced by another; works until its grace period ends.
        Rotated = "rotated",
        /// Does not work.
        Revoked = "revoked",
    }
}

impl ApiKey {
    /// Longest name, in characters.
    pub const NAME_MAX: usize = 128;
    /// Most keys of an agent that work: all of them are looked through when it authenticates.
    pub const MAX_PER_AGENT: usize = 1_000;

    /// Checks a key's name: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_name(text: &str) -> Result<String, Invalid> {
        text::name(text, Self::NAME_MAX)
    }

    /// The part of the key that decides how long it authenticates.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        Validity { status: self.status, expires_at: self.expires_at, grace_ends_at: self.grace_ends_at }
    }
}

/// How long a key authenticates: the part of an [`ApiKey`] that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Where the key is in its life.
    pub status: ApiKeyStatus,
    /// When it stops to work by itself.
    pub expires_at: Option<Timestamp>,
    /// Until when it works although rotated.
    pub grace_ends_at: Option<Timestamp>,
}

impl Validity {
    /// Whether the key authenticates at `now`.
    ///
    /// # Errors
    /// Says why it does not.
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

    /// When the key stops to authenticate as things stand: no token made from it lives longer.
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
    fn a_key_works_until_the_first_of_its_ends() {
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
