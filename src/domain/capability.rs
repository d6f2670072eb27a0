//! Capabilities: what an agent may do, as `resource:action`. Anything not granted is denied.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Serialize, Serializer};

use super::{
    agent::{Agent, AgentStatus, selector::Selector},
    ids::CapabilityId,
    invalid::Invalid,
    text,
    timestamp::Timestamp,
};

/// A capability that agents can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Unique identifier.
    pub id: CapabilityId,
    /// Unique name, which is also the scope in tokens.
    pub name: CapabilityName,
    /// Description of what it allows.
    pub description: String,
    /// Time of creation.
    pub created_at: Timestamp,
}

impl Capability {
    /// Maximum length of a description, in characters.
    pub const DESCRIPTION_MAX: usize = 2_000;

    /// Validates a description.
    ///
    /// # Errors
    /// See [`text::paragraph`].
    pub fn parse_description(text: &str) -> Result<String, Invalid> {
        text::paragraph(text, Self::DESCRIPTION_MAX)
    }
}

/// A capability that an agent holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// The capability.
    pub capability: Capability,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When the agent last used it, as far as AIMS knows: AIMS checked it, or issued a token whose scope names it.
    pub last_used_at: Option<Timestamp>,
}

impl Deref for Held {
    type Target = Capability;

    fn deref(&self) -> &Capability {
        &self.capability
    }
}

/// An agent that holds a capability.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The agent.
    pub agent: Agent,
    /// When the capability was granted.
    pub granted_at: Timestamp,
    /// When the agent last used the capability: see [`Held::last_used_at`].
    pub last_used_at: Option<Timestamp>,
}

/// Which holders of a capability to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderFilter {
    /// A part of the name.
    pub text: Option<String>,
    /// The owner.
    pub owner: Option<String>,
    /// The status.
    pub status: Option<AgentStatus>,
    /// Conditions on the labels.
    pub selector: Option<Selector>,
}

impl HolderFilter {
    /// Returns true if the filter matches every holder.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The position of a capability in the order of creation.
pub type Position = (Timestamp, CapabilityId);

/// A capability's name: 1 to 128 characters, each allowed in an OAuth scope token (RFC 6749 §3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityName(Arc<str>);

impl CapabilityName {
    /// Maximum length, in characters.
    pub const MAX_LEN: usize = 128;

    /// Validates a name.
    ///
    /// # Errors
    /// If the name is empty, longer than [`Self::MAX_LEN`], or contains a character that a scope token cannot contain.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text::line(text, 1, Self::MAX_LEN)?;
        if !text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)) {
            return Err(Invalid::CapabilityName);
        }
        Ok(Self(text.into()))
    }

    /// Parses names separated by spaces.
    ///
    /// # Errors
    /// If a name is not valid or there are more than `max` names.
    pub fn parse_set(text: &str, max: usize) -> Result<CapabilitySet, Invalid> {
        let names = text.split(' ').filter(|name| !name.is_empty()).map(Self::parse);
        let names: CapabilitySet = names.collect::<Result<_, _>>()?;
        if names.iter().count() > max {
            return Err(Invalid::new("too_long", format!("At most {max} capabilities")));
        }
        Ok(names)
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns true if the capability `held` includes `wanted`.
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

/// The capabilities that AIMS itself checks.
pub mod builtin {
    /// Read agents and capabilities.
    pub const AGENTS_READ: &str = "agents:read";
    /// Register and edit agents.
    pub const AGENTS_WRITE: &str = "agents:write";
    /// Create, list, rotate and revoke API keys.
    pub const KEYS_MANAGE: &str = "keys:manage";
    /// Introspect access tokens of other agents (RFC 7662). A fresh database does not contain it; create it to grant
    /// it.
    pub const TOKENS_INTROSPECT: &str = "tokens:introspect";
    /// Read the audit log.
    pub const AUDIT_READ: &str = "audit:read";
    /// Do everything: covers every other capability.
    pub const ADMIN: &str = "admin:*";

    /// The name and description of each capability in a fresh database.
    pub const ALL: [(&str, &str); 5] = [
        (AGENTS_READ, "Read agents and capabilities"),
        (AGENTS_WRITE, "Register and edit agents"),
        (KEYS_MANAGE, "Create, list, rotate and revoke API keys"),
        (AUDIT_READ, "Read the audit log"),
        (ADMIN, "Everything"),
    ];

    /// Returns true if AIMS itself checks this capability.
    #[must_use]
    pub fn is_checked(name: &str) -> bool {
        name == TOKENS_INTROSPECT || ALL.iter().any(|(checked, _)| *checked == name)
    }
}

/// A set of capabilities, sorted by name. Stored as a scope string, because the live view holds thousands of sets and
/// this takes a single small allocation for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(Arc<str>);

impl CapabilitySet {
    /// Maximum length of the scope in a token, in bytes.
    pub const TOKEN_MAX: usize = 4_096;

    /// Returns true if the scope is short enough for a token.
    #[must_use]
    pub fn fits_a_token(&self) -> bool {
        self.0.len() <= Self::TOKEN_MAX
    }

    /// Returns true if the set includes `wanted`, by name, by a wildcard or by `admin:*`.
    #[must_use]
    pub fn covers(&self, wanted: &str) -> bool {
        self.iter().any(|held| covers(held, wanted))
    }

    /// Returns the capability of this set that includes `wanted`: `wanted` itself, or else the narrowest wildcard.
    #[must_use]
    pub fn covering(&self, wanted: &str) -> Option<&str> {
        // `admin:*` is the widest, whatever its length.
        let breadth = |held: &&str| (*held == wanted, *held != builtin::ADMIN, held.len());
        self.iter().filter(|held| covers(held, wanted)).max_by_key(breadth)
    }

    /// Returns this set without one capability. Wildcards that include it stay.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self::of(self.iter().filter(|held| *held != name).collect())
    }

    /// Returns the first capability in `other` that this set does not cover.
    #[must_use]
    pub fn lacks<'o>(&self, other: &'o Self) -> Option<&'o str> {
        other.iter().find(|wanted| !self.covers(wanted))
    }

    /// Returns the capabilities that both sets cover: each member of either set that the other covers.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        // The common case: a token carries every capability of its agent.
        if self == other {
            return self.clone();
        }
        let mine = self.iter().filter(|name| other.covers(name));
        let theirs = other.iter().filter(|name| self.covers(name));
        Self::of(mine.chain(theirs).collect())
    }

    /// Returns true if the set contains no capability.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names separated by spaces (RFC 6749 §3.3).
    #[must_use]
    pub fn as_scope(&self) -> &str {
        &self.0
    }

    /// Returns the value of `scope` in an OAuth response; `None` for the empty set, because a scope contains at least
    /// one token (RFC 6749 §3.3).
    #[must_use]
    pub fn to_scope(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.0.to_string())
    }

    /// Parses the output of [`Self::as_scope`]. Drops names that are not valid for a capability.
    #[must_use]
    pub fn from_scope(scope: &str) -> Self {
        scope.split(' ').filter_map(|name| CapabilityName::parse(name).ok()).collect()
    }

    /// Returns the names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // `split` returns one empty part for an empty string.
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
    fn nothing_is_covered_by_default_and_a_wildcard_covers_its_resource_only() {
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
    fn lacks_returns_the_first_missing_capability() {
        let manager = set(&["keys:manage"]);
        assert_eq!(manager.lacks(&set(&["keys:manage"])), None);
        assert_eq!(manager.lacks(&set(&["admin:*"])).unwrap(), "admin:*");
        assert_eq!(set(&["admin:*"]).lacks(&set(&["admin:*", "x:y"])), None);
    }

    #[test]
    fn an_intersection_covers_no_more_than_either_set() {
        assert_eq!(set(&["admin:*"]).intersection(&set(&["agents:read"])), set(&["agents:read"]));
        assert_eq!(set(&["agents:*", "x:y"]).intersection(&set(&["agents:read", "z:z"])), set(&["agents:read"]));
        assert_eq!(set(&["a:b"]).intersection(&set(&["c:d"])), set(&[]));
    }

    #[test]
    fn the_narrowest_capability_covers() {
        let held = set(&["admin:*", "a:*", "a:b:*", "a:b:c"]);
        for (wanted, covering) in [("a:b:c", "a:b:c"), ("a:b:d", "a:b:*"), ("a:e", "a:*"), ("z", "admin:*")] {
            assert_eq!(held.covering(wanted), Some(covering), "{wanted}");
        }
        assert_eq!(held.without("admin:*").covering("z"), None);
        assert_eq!(set(&["a"]).without("a"), set(&[]));
    }

    #[test]
    fn a_capability_name_is_a_valid_scope_token() {
        for bad in ["", "a b", "a\"b", "a\\b", "é:x", "a\nb", &"a".repeat(129)] {
            assert!(CapabilityName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CapabilityName::parse("deploy:prod/eu").is_ok());
    }
}
