//! Administrators: people who sign in to the console.

use std::fmt;

use crate::domain::{
    agent::words,
    error::Invalid,
    ids::{AdministratorId, PasskeyId, SessionId},
    text,
    timestamp::Timestamp,
};

/// A person who may sign in to the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// Identifier.
    pub id: AdministratorId,
    /// Unique name to sign in with.
    pub username: Username,
    /// What the console calls them.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// When they were added.
    pub created_at: Timestamp,
    /// When one of the fields here last changed.
    pub updated_at: Timestamp,
    /// Since when they may not sign in.
    pub disabled_at: Option<Timestamp>,
    /// When they last signed in.
    pub last_sign_in_at: Option<Timestamp>,
    /// When their password was last set.
    pub password_changed_at: Timestamp,
    /// Since when they need a code from their authenticator.
    pub totp_enabled_at: Option<Timestamp>,
}

impl Administrator {
    /// Longest display name, in characters.
    pub const DISPLAY_NAME_MAX: usize = 128;

    /// Checks a display name: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_display_name(text: &str) -> Result<String, Invalid> {
        text::name(text.trim(), Self::DISPLAY_NAME_MAX)
    }

    /// Whether they may sign in.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

words! {
    /// What an administrator may do; each role may do all that the ones before it may.
    #[derive(PartialOrd, Ord)]
    Role {
        /// Reads.
        Viewer = "viewer",
        /// Manages agents, keys and every grant but `admin:*`.
        Operator = "operator",
        /// Everything.
        Owner = "owner",
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An administrator's unique name: 1 to 64 characters of `[a-z0-9._@+-]`, read without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(String);

impl Username {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 64;

    /// Checks a name, and folds it to lower case.
    ///
    /// # Errors
    /// When it is empty, over-long or holds another character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return Err(Invalid::too_short(1));
        }
        if text.chars().count() > Self::MAX_LEN {
            return Err(Invalid::too_long(Self::MAX_LEN));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@+-".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(Invalid::new(
                "string_pattern_mismatch",
                "Use letters, digits and the characters . _ @ + - only",
            ));
        }
        Ok(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session of an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identifier of the record; the cookie's value is another, and secret.
    pub id: SessionId,
    /// Whose it is.
    pub administrator: AdministratorId,
    /// When they signed in.
    pub signed_in_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen_at: Timestamp,
    /// When they last proved who they are: at sign-in, or since.
    pub proved_at: Timestamp,
    /// The address it was last used from.
    pub ip: Option<String>,
    /// What the browser called itself when they signed in.
    pub user_agent: Option<String>,
}

/// A passkey (W3C Web Authentication Level 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Identifier of the record.
    pub id: PasskeyId,
    /// Whose it is.
    pub administrator: AdministratorId,
    /// What they call it.
    pub name: String,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last signed them in.
    pub last_used_at: Option<Timestamp>,
}

impl Passkey {
    /// Checks a passkey's name: one line of 1 to 64 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_name(text: &str) -> Result<String, Invalid> {
        text::name(text.trim(), 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_one_case_and_plain() {
        assert_eq!(Username::parse(" Zoe@Example.org ").unwrap().as_str(), "zoe@example.org");
        for bad in ["", " ", "a b", "a/b", "é", "<x>", "a\u{202E}b", &"a".repeat(65)] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn roles_are_in_order() {
        assert!(Role::Owner > Role::Operator && Role::Operator > Role::Viewer);
    }
}
