//! Sealing: secrets in the database are encrypted with a master key that is stored outside it.

use std::{fmt, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString, zeroize::Zeroizing};

use super::hex;
use crate::clock::Environment;

/// The first byte of every sealed value, so that a later format can be distinguished.
const VERSION: u8 = 1;

/// The key that encrypts other secrets: 256 bits, used with AES-256-GCM (NIST SP 800-38D).
///
/// Nonces are random, which is safe for up to 2^32 values. AIMS seals a few signing keys, and one secret for each
/// administrator with an authenticator app.
#[derive(Clone)]
pub struct MasterKey(Arc<SecretBox<[u8; 32]>>);

impl MasterKey {
    /// Generates a new key.
    #[must_use]
    pub fn generate(env: &Environment) -> Self {
        Self(Arc::new(SecretBox::init_with(|| env.random())))
    }

    /// Parses a key of exactly 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        SecretBox::try_init_with(|| hex::decode(text).ok_or(())).ok().map(|key| Self(Arc::new(key)))
    }

    /// Returns the key as 64 hexadecimal digits, to write it to its file.
    #[must_use]
    pub fn to_hex(&self) -> SecretString {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
        let mut text = String::with_capacity(64);
        text.extend(self.0.expose_secret().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
        text.into()
    }

    /// Encrypts `plaintext`. The result is a version byte, a random 96-bit nonce, the ciphertext and its 128-bit tag.
    ///
    /// `purpose` is authenticated but not stored. A value sealed for one purpose cannot be opened for another, so it
    /// cannot be moved to another row.
    ///
    /// # Errors
    /// If `plaintext` exceeds the limit of the cipher (64 GiB).
    pub fn seal(&self, env: &Environment, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let cipher = self.cipher()?;
        let nonce = env.random::<NONCE_LEN>();
        let mut body = Zeroizing::new(plaintext.to_vec());
        let tag = cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut body)
            .map_err(|_| SealError)?;
        Ok([&[VERSION], nonce.as_slice(), &body, tag.as_ref()].concat())
    }

    /// Decrypts what [`Self::seal`] returned for the same `purpose`.
    ///
    /// # Errors
    /// If the value was sealed with another key or for another purpose, or was altered or truncated. These cases cannot
    /// be distinguished.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let [VERSION, rest @ ..] = sealed else { return Err(SealError) };
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plaintext = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(purpose), &mut body)
            .map_err(|_| SealError)?;
        Ok(plaintext.to_vec().into())
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, self.0.expose_secret()).map(LessSafeKey::new).map_err(|_| SealError)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([REDACTED])")
    }
}

/// A value could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value cannot be opened: it was altered or sealed with another master key")]
pub struct SealError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PURPOSE: &str = "signing-key:a";

    fn opened(key: &MasterKey, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        key.open(purpose, sealed).ok().map(|secret| secret.expose_secret().to_vec())
    }

    #[test]
    fn a_value_opens_only_with_its_key_and_purpose() {
        let env = Environment::system();
        let key = MasterKey::generate(&env);
        let sealed = key.seal(&env, PURPOSE, b"secret").unwrap();
        assert_eq!(opened(&key, PURPOSE, &sealed).unwrap(), b"secret");
        assert_eq!(opened(&key, "signing-key:b", &sealed), None);
        assert_eq!(opened(&MasterKey::generate(&env), PURPOSE, &sealed), None);
        assert_ne!(sealed, key.seal(&env, PURPOSE, b"secret").unwrap(), "the nonce is fresh");
    }

    #[test]
    fn altered_and_truncated_values_do_not_open() {
        let env = Environment::system();
        let key = MasterKey::generate(&env);
        let sealed = key.seal(&env, PURPOSE, b"secret").unwrap();
        for place in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            assert_eq!(opened(&key, PURPOSE, &altered), None, "byte {place}");
            assert_eq!(opened(&key, PURPOSE, &sealed[..place]), None, "first {place} bytes");
        }
    }

    #[test]
    fn a_master_key_can_be_written_and_parsed() {
        let env = Environment::system();
        let key = MasterKey::generate(&env);
        let text = key.to_hex();
        let sealed = key.seal(&env, PURPOSE, b"secret").unwrap();
        assert_eq!(opened(&MasterKey::from_hex(text.expose_secret()).unwrap(), PURPOSE, &sealed).unwrap(), b"secret");
        for bad in
            [String::new(), "0".repeat(63), "0".repeat(65), "g".repeat(64), format!("{}\n", text.expose_secret())]
        {
            assert!(MasterKey::from_hex(&bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_does_not_reveal_the_master_key() {
        assert_eq!(format!("{:?}", MasterKey::from_hex(&"ab".repeat(32)).unwrap()), "MasterKey([REDACTED])");
    }

    proptest! {
        #[test]
        fn any_sealed_value_opens(plaintext: Vec<u8>, purpose: String) {
            let env = Environment::system();
            let key = MasterKey::generate(&env);
            prop_assert_eq!(opened(&key, &purpose, &key.seal(&env, &purpose, &plaintext).unwrap()), Some(plaintext));
        }

        #[test]
        fn random_bytes_do_not_open(noise: Vec<u8>) {
            prop_assert_eq!(opened(&MasterKey::generate(&Environment::system()), PURPOSE, &noise), None);
        }
    }
}
