//! Versions of the objects that clients edit, so that no edit overwrites another unseen.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{
    crypto::hex,
    domain::{Agent, Capability, Error, ProtectedResource, Result, Timestamp},
};

/// The version of an object. It changes whenever a field changes that clients can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version([u8; 16]);

impl Version {
    /// Parses what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(Self).filter(|version| version.to_string() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object with a version.
pub trait Versioned {
    /// Returns the version.
    fn version(&self) -> Version;
}

/// The versions of an object that a change may be made to.
#[derive(Clone, Debug, Default)]
pub enum Expected {
    /// Every version.
    #[default]
    Any,
    /// One of these.
    OneOf(Vec<Version>),
}

impl Expected {
    /// Checks the current object. Only decides inside the transaction of the change.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub(in crate::service) fn check(&self, current: &impl Versioned) -> Result<()> {
        match self {
            Self::OneOf(versions) if !versions.contains(&current.version()) => Err(Error::Stale),
            Self::Any | Self::OneOf(_) => Ok(()),
        }
    }
}

impl Versioned for Agent {
    fn version(&self) -> Version {
        Fields::of("agent")
            .bytes(self.id.0.as_bytes())
            .text(self.name.as_str())
            .text(&self.owner)
            .text(&self.description)
            .text(self.status.as_str())
            .text(self.agent_type.as_str())
            .text(&self.metadata_json)
            .time(self.created_at)
            .time(self.updated_at)
            .optional_time(self.suspended_at)
            .optional_time(self.revoked_at)
            // Last and not counted, so that an agent without labels keeps the version that it always had.
            .pairs(self.labels.iter())
            .version()
    }
}

impl Versioned for ProtectedResource {
    fn version(&self) -> Version {
        Fields::of("resource")
            .bytes(self.id.0.as_bytes())
            .text(self.identifier.as_str())
            .text(&self.name)
            .text(self.capabilities.as_scope())
            .time(self.created_at)
            .time(self.updated_at)
            .version()
    }
}

impl Versioned for Capability {
    fn version(&self) -> Version {
        Fields::of("capability")
            .bytes(self.id.0.as_bytes())
            .text(self.name.as_str())
            .text(&self.description)
            .time(self.created_at)
            .version()
    }
}

/// The hash of an object's fields. Each has its length in front, so that no two lists of fields look alike.
struct Fields(Sha256);

impl Fields {
    fn of(kind: &str) -> Self {
        Self(Sha256::new()).text(kind)
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(self.0.chain_update(bytes.len().to_be_bytes()).chain_update(bytes))
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn time(self, time: Timestamp) -> Self {
        self.bytes(&time.as_micros().to_be_bytes())
    }

    fn optional_time(self, time: Option<Timestamp>) -> Self {
        match time {
            Some(time) => self.time(time),
            None => self.bytes(&[]),
        }
    }

    fn pairs<'p>(self, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Self {
        pairs.fold(self, |fields, (key, value)| fields.text(key).text(value))
    }

    fn version(self) -> Version {
        Version(self.0.finalize().first_chunk().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CapabilityId, CapabilityName};

    fn capability(name: &str, description: &str) -> Capability {
        Capability {
            id: CapabilityId(uuid::Uuid::from_u128(1)),
            name: CapabilityName::parse(name).unwrap(),
            description: description.to_owned(),
            created_at: Timestamp::from_micros(5),
        }
    }

    #[test]
    fn a_version_changes_with_every_field() {
        let version = capability("a:b", "c").version();
        assert_eq!(capability("a:b", "c").version(), version);
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        for other in [capability("a:b", "d"), capability("a:bc", ""), capability("a:b", "cc")] {
            assert_ne!(other.version(), version, "{other:?}");
        }
        let later = Capability { created_at: Timestamp::from_micros(6), ..capability("a:b", "c") };
        assert_ne!(later.version(), version);
        assert!(Expected::Any.check(&later).is_ok());
        assert!(matches!(Expected::OneOf(vec![version]).check(&later), Err(Error::Stale)));
        assert!(Expected::OneOf(vec![version, later.version()]).check(&later).is_ok());
        assert!(matches!(Expected::OneOf(vec![]).check(&later), Err(Error::Stale)));
    }
}
