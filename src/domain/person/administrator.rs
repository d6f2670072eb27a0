//! Administrators: people who sign in to the console.

use std::fmt;

use crate::domain::{
    ids::{AdministratorId, PasskeyId, SessionId},
    invalid::Invalid,
    string_enum::string_enum,
    text,
    timestamp::Timestamp,
};

/// A person who may sign in to the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// Unique identifier.
    pub id: AdministratorId,
    /// Unique username.
    pub username: Username,
    /// Name shown in the console.
    pub display_name: String,
    /// Role.
    pub role: Role,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change to any field here.
    pub updated_at: Timestamp,
    /// Time the account was disabled; `None` unless it is disabled.
    pub disabled_at: Option<Timestamp>,
    /// Time of the last sign-in.
    pub last_sign_in_at: Option<Timestamp>,
    /// Time the password was last changed.
    pub password_changed_at: Timestamp,
    /// Time the authenticator app was enabled; `None` unless sign-in requires a code from one.
    pub totp_enabled_at: Option<Timestamp>,
}

impl Administrator {
    /// Maximum length of a display name, in characters.
    pub const DISPLAY_NAME_MAX: usize = 128;

    /// Validates a display name: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_display_name(text: &str) -> Result<String, Invalid> {
        text::name(text.trim(), Self::DISPLAY_NAME_MAX)
    }

    /// Returns true if the administrator can sign in.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

string_enum! {
    /// The role of an administrator. Each role includes everything that the roles before it can do.
    #[derive(PartialOrd, Ord)]
    Role {
        /// Can view everything except other administrators, and change nothing but the own account.
        Viewer = "viewer",
        /// Can also manage agents, their credentials and delegates, and grants other than `admin:*`.
        Operator = "operator",
        /// Can do everything.
        Owner = "owner",
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An administrator's unique name: 1 to 64 characters of `[a-z0-9._@+-]`. Case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(String);

impl Username {
    /// Maximum length, in characters.
    pub const MAX_LEN: usize = 64;

    /// Validates a name, after trimming it and converting it to lowercase.
    ///
    /// # Errors
    /// If the name is empty, longer than [`Self::MAX_LEN`], or contains any other character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return Err(Invalid::TooShort(1));
        }
        if text.chars().count() > Self::MAX_LEN {
            return Err(Invalid::TooLong(Self::MAX_LEN));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@+-".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(Invalid::new(
                "string_pattern_mismatch",
                "Use only letters, digits and the characters . _ @ + -",
            ));
        }
        Ok(Self(text))
    }

    /// Returns the name as text.
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

/// A console session of an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identifier of the record. The cookie contains a separate secret.
    pub id: SessionId,
    /// Administrator who signed in.
    pub administrator: AdministratorId,
    /// Time of sign-in.
    pub signed_in_at: Timestamp,
    /// Time of last use, accurate to a minute.
    pub last_seen_at: Timestamp,
    /// Time the administrator last authenticated: at sign-in or when asked to confirm their identity.
    pub proved_at: Timestamp,
    /// IP address of the last use.
    pub ip: Option<String>,
    /// `User-Agent` of the browser at sign-in.
    pub user_agent: Option<String>,
}

/// A passkey (W3C Web Authentication Level 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Identifier of the record.
    pub id: PasskeyId,
    /// Administrator who registered it.
    pub administrator: AdministratorId,
    /// Name chosen by the administrator.
    pub name: String,
    /// Time of registration.
    pub created_at: Timestamp,
    /// Time of the last sign-in with it.
    pub last_used_at: Option<Timestamp>,
}

impl Passkey {
    /// Validates a passkey's name: one line of 1 to 64 characters.
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
    fn usernames_are_lowercase_ascii() {
        assert_eq!(Username::parse(" Zoe@Example.org ").unwrap().as_str(), "zoe@example.org");
        for bad in ["", " ", "a b", "a/b", "é", "<x>", "a\u{202E}b", &"a".repeat(65)] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn roles_are_ordered_by_authority() {
        assert!(Role::Owner > Role::Operator && Role::Operator > Role::Viewer);
    }
}
