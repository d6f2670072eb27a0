//! Opaque secrets that are shown once and looked up by their hash: setup links, recovery codes and temporary passwords.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::clock::Environment;

/// A random secret text. Only its hash is stored.
pub struct OpaqueSecret(SecretString);

impl OpaqueSecret {
    /// Generates 256 random bits, encoded for a URL.
    #[must_use]
    pub fn for_url(env: &Environment) -> Self {
        Self(URL_SAFE_NO_PAD.encode(env.random::<32>()).into())
    }

    /// Generates 80 random bits to write down: four groups of four letters and digits, without similar-looking
    /// characters (Crockford's base 32).
    #[must_use]
    pub fn for_people(env: &Environment) -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let characters = env.random::<16>().map(|byte| DIGITS.get(usize::from(byte % 32)).map_or('0', |&d| d.into()));
        let groups: Vec<String> = characters.chunks(4).map(|group| group.iter().collect()).collect();
        Self(groups.join("-").into())
    }

    /// Parses a secret that a person typed. Ignores case, spaces and dashes.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        let plain: Vec<char> = text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let groups: Vec<String> = plain.chunks(4).map(|group| group.iter().collect()).collect();
        Self(groups.join("-").into())
    }

    /// Returns the secret, for the one response that reveals it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the hash that is stored, and by which a presented secret is looked up.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.expose())
    }

    /// Returns the hash of a presented secret.
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
    fn typed_secrets_match_in_any_case_and_spacing() {
        let secret = OpaqueSecret::for_people(&Environment::system());
        let typed = secret.expose().to_uppercase().replace('-', " ");
        assert_eq!(OpaqueSecret::typed(&typed).hash(), secret.hash());
        assert_eq!(secret.expose().len(), 19);
        assert_ne!(OpaqueSecret::for_url(&Environment::system()).expose().len(), 0);
    }
}
