//! Opaque secrets that are handed out once and looked up by their hash: setup links and recovery codes.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::clock::Environment;

/// A random text that whoever holds it may use. Only its hash is kept.
pub struct OpaqueSecret(SecretString);

impl OpaqueSecret {
    /// 256 random bits, for URLs.
    #[must_use]
    pub fn for_url(env: &Environment) -> Self {
        Self(URL_SAFE_NO_PAD.encode(env.random::<32>()).into())
    }

    /// 80 random bits in four groups of four letters and digits, none of which looks like another (Crockford's base 32):
    /// to be written down.
    #[must_use]
    pub fn for_people(env: &Environment) -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let characters = env.random::<16>().map(|byte| DIGITS.get(usize::from(byte % 32)).map_or('0', |&d| d.into()));
        let groups: Vec<String> = characters.chunks(4).map(|group| group.iter().collect()).collect();
        Self(groups.join("-").into())
    }

    /// Reads what somebody typed from paper: without regard to case, spaces and dashes.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        let plain: Vec<char> = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let groups: Vec<String> = plain.chunks(4).map(|group| group.iter().collect()).collect();
        Self(groups.join("-").into())
    }

    /// The secret itself, for the one answer that reveals it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored, and what a presented secret is looked up by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.expose())
    }

    /// The hash of a secret that somebody presents.
    #[must_use]
    pub fn hash_of(presented: &str) -> [u8; 32] {
        Sha256::digest(presented).into()
    }
}

impl fmt::Debug for OpaqueSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueSecret([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_recognised_however_it_is_typed() {
        let secret = OpaqueSecret::for_people(&Environment::system());
        let typed = secret.expose().to_uppercase().replace('-', " ");
        assert_eq!(OpaqueSecret::typed(&typed).hash(), secret.hash());
        assert_eq!(secret.expose().len(), 19);
        assert_ne!(OpaqueSecret::for_url(&Environment::system()).expose().len(), 0);
    }
}
