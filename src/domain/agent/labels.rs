//! Labels: keys with values that people and programs attach to agents, to select them by.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::domain::{invalid::Invalid, text};

/// The labels of an agent: at most [`Labels::MAX`] keys, each with a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Maximum number of labels of an agent.
    pub const MAX: usize = 32;
    /// Maximum length of a key, in characters.
    pub const KEY_MAX: usize = 63;
    /// Maximum length of a value, in characters.
    pub const VALUE_MAX: usize = 128;
    /// A regular expression for keys, without anchors.
    pub const KEY_PATTERN: &str = "[a-z0-9][a-z0-9._/-]{0,62}";

    /// Validates labels: keys match [`Self::KEY_PATTERN`]; values are lines of up to [`Self::VALUE_MAX`] characters that
    /// neither begin nor end with a space.
    ///
    /// # Errors
    /// If a key or a value is not valid, a key is repeated, or there are more than [`Self::MAX`] labels.
    pub fn parse<'t>(pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, Invalid> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            let key = parse_key(key)?;
            let value = text::trimmed(value, Self::VALUE_MAX)
                .map_err(|invalid| Invalid::new(invalid.kind(), format!("Value of {key}: {}", invalid.message())))?;
            if let Some(key) = labels.insert(key.clone(), value).map(|_| key) {
                return Err(Invalid::new("duplicate", format!("The key {key} should be given once")));
            }
        }
        Self(labels).checked()
    }

    fn checked(self) -> Result<Self, Invalid> {
        if self.0.len() > Self::MAX {
            return Err(Invalid::new("too_long", format!("An agent should have at most {} labels", Self::MAX)));
        }
        Ok(self)
    }

    /// Reads labels from lines such as `env=prod`. Spaces around keys and values, and empty lines, are ignored.
    ///
    /// # Errors
    /// As for [`Self::parse`], or if a line has no `=`.
    pub fn parse_lines(text: &str) -> Result<Self, Invalid> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let pairs = lines.map(|line| line.split_once('=').ok_or_else(|| Invalid::new("label", LINE)));
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        Self::parse(pairs.into_iter().map(|(key, value)| (key.trim(), value.trim())))
    }

    /// Returns the text that [`Self::parse_lines`] reads.
    #[must_use]
    pub fn to_lines(&self) -> String {
        self.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("\n")
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Returns keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns those of these labels whose keys `is_wanted`.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(key, _)| is_wanted(key)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Adds other labels, which replace those with the same key.
    ///
    /// # Errors
    /// If there are more than [`Self::MAX`].
    pub fn with(mut self, others: &Self) -> Result<Self, Invalid> {
        self.0.extend(others.0.clone());
        self.checked()
    }

    /// Returns true if there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What to write for a label.
const LINE: &str = "Write each label as key=value, for example env=prod";

impl fmt::Display for Labels {
    /// Writes the labels like a selector that requires them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={}", if number == 0 { "" } else { "," }, Quoted(value))?;
        }
        Ok(())
    }
}

/// Validates a key.
///
/// # Errors
/// If it does not match [`Labels::KEY_PATTERN`].
pub fn parse_key(text: &str) -> Result<String, Invalid> {
    let allowed = |byte: u8| is_key_start(byte) || matches!(byte, b'.' | b'_' | b'/' | b'-');
    let starts = text.bytes().next().is_some_and(is_key_start);
    if starts && text.len() <= Labels::KEY_MAX && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new("label_key", format!("The key of a label should match '^{}$'", Labels::KEY_PATTERN)))
}

const fn is_key_start(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Returns true for the characters of values that selectors contain without quotes.
pub(super) const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '@' | '+' | '-')
}

/// A value as a selector contains it after `=`: in quotes if necessary.
pub(super) struct Quoted<'v>(pub(super) &'v str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_accepted_exactly_up_to_their_limits() {
        for key in ["a", "0", "a.b_c/d-e", "team", &"k".repeat(63)] {
            assert_eq!(Labels::parse([(key, "v")]).unwrap().get(key), Some("v"), "{key}");
        }
        for key in ["", "A", "-a", ".a", "_a", "/a", "a b", "a=b", "é", "aé", &"k".repeat(64)] {
            assert_eq!(Labels::parse([(key, "v")]).unwrap_err().kind(), "label_key", "{key}");
        }
        for value in ["", "x", "Zoë, \"the\" first", "команда", "❤\u{FE0F}", &"é".repeat(128)] {
            assert_eq!(Labels::parse([("k", value)]).unwrap().get("k"), Some(value));
        }
        for value in [" x", "x ", " ", "\u{A0}", "a\nb", "a\u{202E}b", "a\0", &"é".repeat(129)] {
            assert!(Labels::parse([("k", value)]).is_err(), "{value:?}");
        }
        let keys: Vec<_> = (0..33).map(|number| format!("k{number}")).collect();
        let labels = |count: usize| Labels::parse(keys.iter().take(count).map(|key| (key.as_str(), "v")));
        assert!(labels(32).is_ok() && labels(33).is_err() && labels(0).unwrap().is_empty());
        assert_eq!(Labels::parse([("a", "1"), ("a", "2")]).unwrap_err().kind(), "duplicate");
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let labels = Labels::parse_lines("\n team = Zoë & co \n env=a=b\r\nempty=\n").unwrap();
        assert_eq!(labels.to_lines(), "empty=\nenv=a=b\nteam=Zoë & co");
        assert_eq!(labels.to_string(), "empty=,env=\"a=b\",team=\"Zoë & co\"");
        assert_eq!(Labels::parse_lines(&labels.to_lines()).unwrap(), labels);
        assert!(Labels::parse_lines("").unwrap().is_empty());
        assert_eq!(Labels::parse_lines("env").unwrap_err().kind(), "label");
    }
}
