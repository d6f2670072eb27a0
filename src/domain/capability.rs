//! What an agent may do: `resource:action`. Default is deny.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use super::{error::Invalid, ids::CapabilityId, text, timestamp::Timestamp};

/// A capability as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Identifier.
    pub id: CapabilityId,
    /// Unique name, also the scope in tokens.
    pub name: CapabilityName,
    /// What it allows, in words.
    pub description: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl Capability {
    /// Longest description, in characters.
    pub const DESCRIPTION_MAX: usize = 2_000;

    /// Checks a description.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_description(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::DESCRIPTION_MAX)
    }
}

/// The place of a capability in the order of registration.
pub type Position = (Timestamp, CapabilityId);

/// A capability's name: 1 to 128 characters, each allowed in an OAuth scope token (RFC 6749 §3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityName(Arc<str>);

impl CapabilityName {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 128;

    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, over-long or holds a character that no scope may hold.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text::line(text, 1, Self::MAX_LEN)?;
        if !text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)) {
            return Err(Invalid::new(
                "string_pattern_mismatch",
                "String should hold only visible ASCII characters without '\"' and '\\' (RFC 6749 section 3.3)",
            ));
        }
        Ok(Self(text.into()))
    }

    /// Reads names separated by spaces.
    ///
    /// # Errors
    /// When one is not valid, or there are more than `most`.
    pub fn parse_several(text: &str, most: usize) -> Result<CapabilitySet, Invalid> {
        let names = text.split(' ').filter(|name| !name.is_empty()).map(Self::parse);
        let names: CapabilitySet = names.collect::<Result<_, _>>()?;
        if names.iter().count() > most {
            return Err(Invalid::new("too_long", format!("At most {most} capabilities")));
        }
        Ok(names)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether holding `held` satisfies a demand for `wanted`.
fn covers(held: &str, wanted: &str) -> bool {
    held == wanted || held == builtin::ADMIN || covers_as_wildcard(held, wanted)
}

fn covers_as_wildcard(held: &str, wanted: &str) -> bool {
    let Some(resource) = held.strip_suffix(":*") else { return false };
    wanted.strip_prefix(resource).is_some_and(|rest| rest.starts_with(':'))
}

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CapabilityName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<&'static str> for CapabilityName {
    fn from(name: &'static str) -> Self {
        Self(name.into())
    }
}

/// The capabilities that AIMS itself demands.
pub mod builtin {
    /// Read agents and capabilities.
    pub const AGENTS_READ: &str = "agents:read";
    /// Register and edit agents.
    pub const AGENTS_WRITE: &str = "agents:write";
    /// Create, list, rotate and revoke API keys.
    pub const KEYS_MANAGE: &str = "keys:manage";
    /// Ask whether somebody's access token is active, and what it allows. Registered by whoever wants to grant it.
    pub const TOKENS_INTROSPECT: &str = "tokens:introspect";
    /// Read the audit log.
    pub const AUDIT_READ: &str = "audit:read";
    /// Everything.
    pub const ADMIN: &str = "admin:*";

    /// Name and description of those that a fresh database holds, and no others.
    pub const ALL: [(&str, &str); 5] = [
        (AGENTS_READ, "Read agents and capabilities"),
        (AGENTS_WRITE, "Register and edit agents"),
        (KEYS_MANAGE, "Create, list, rotate and revoke API keys"),
        (AUDIT_READ, "Read the audit log"),
        (ADMIN, "Everything"),
    ];
}

/// The capabilities that somebody holds, sorted and without doubles. Kept as the scope that they make: the live view holds
/// thousands of sets, and this is one small allocation each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(Arc<str>);

impl CapabilitySet {
    /// Longest scope that a token carries, in bytes.
    pub const TOKEN_MAX: usize = 4_096;

    /// Whether a token can carry all of it.
    #[must_use]
    pub fn fits_a_token(&self) -> bool {
        self.0.len() <= Self::TOKEN_MAX
    }

    /// Whether the set satisfies a demand for `wanted`.
    #[must_use]
    pub fn covers(&self, wanted: &str) -> bool {
        self.iter().any(|held| covers(held, wanted))
    }

    /// The first capability of `other` that this set does not cover: the authority the holder lacks.
    #[must_use]
    pub fn lacks<'o>(&self, other: &'o Self) -> Option<&'o str> {
        other.iter().find(|wanted| !self.covers(wanted))
    }

    /// What both sets hold: each member of either that the other covers.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        // Nearly every token carries all that its agent holds.
        if self == other {
            return self.clone();
        }
        let mine = self.iter().filter(|name| other.covers(name));
        let theirs = other.iter().filter(|name| self.covers(name));
        Self::of(mine.chain(theirs).collect())
    }

    /// Returns true if the set holds no capability.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names separated by spaces (RFC 6749 §3.3).
    #[must_use]
    pub fn as_scope(&self) -> &str {
        &self.0
    }

    /// The value of `scope` in an OAuth answer; `None` for the empty set, because a scope names at least one capability
    /// (RFC 6749 §3.3).
    #[must_use]
    pub fn to_scope(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.0.to_string())
    }

    /// Reads what [`Self::as_scope`] gave; names that no capability can have are dropped.
    #[must_use]
    pub fn from_scope(scope: &str) -> Self {
        scope.split(' ').filter_map(|name| CapabilityName::parse(name).ok()).collect()
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // Of the empty text, `split` gives one part.
        self.0.split(' ').filter(|name| !name.is_empty())
    }

    fn of(mut names: Vec<&str>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names.join(" ").into())
    }
}

impl FromIterator<CapabilityName> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = CapabilityName>>(names: I) -> Self {
        let names: Vec<_> = names.into_iter().collect();
        Self::of(names.iter().map(CapabilityName::as_str).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> CapabilitySet {
        names.iter().map(|name| CapabilityName::parse(name).unwrap()).collect()
    }

    #[test]
    fn nothing_is_allowed_by_default_and_wildcards_stay_in_their_resource() {
        assert!(!set(&[]).covers("agents:read"));
        assert!(set(&["agents:*"]).covers("agents:read"));
        assert!(set(&["agents:*"]).covers("agents:*"));
        assert!(set(&["admin:*"]).covers("agents:read"));
        for (held, wanted) in [
            ("agents:read", "agents:write"),
            ("agents:*", "agentsx:read"),
            ("agents:*", "agents"),
            ("agents:*", "admin:*"),
            ("agents:read", "agents:*"),
            ("*", "agents:read"),
            ("*:*", "agents:read"),
            ("admin:x", "agents:read"),
        ] {
            assert!(!set(&[held]).covers(wanted), "{held} must not cover {wanted}");
        }
    }

    #[test]
    fn what_is_lacking_is_named() {
        let manager = set(&["keys:manage"]);
        assert_eq!(manager.lacks(&set(&["keys:manage"])), None);
        assert_eq!(manager.lacks(&set(&["admin:*"])).unwrap(), "admin:*");
        assert_eq!(set(&["admin:*"]).lacks(&set(&["admin:*", "x:y"])), None);
    }

    #[test]
    fn an_intersection_never_holds_more_than_either_side() {
        assert_eq!(set(&["admin:*"]).intersection(&set(&["agents:read"])), set(&["agents:read"]));
        assert_eq!(set(&["agents:*", "x:y"]).intersection(&set(&["agents:read", "z:z"])), set(&["agents:read"]));
        assert_eq!(set(&["a:b"]).intersection(&set(&["c:d"])), set(&[]));
    }

    #[test]
    fn names_are_scope_tokens() {
        for bad in ["", "a b", "a\"b", "a\\b", "é:x", "a\nb", &"a".repeat(129)] {
            assert!(CapabilityName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CapabilityName::parse("deploy:prod/eu").is_ok());
    }
}
