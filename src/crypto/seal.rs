//! Sealing: what is secret in the database is encrypted under one master key that is not in the database.

use std::{fmt, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString, zeroize::Zeroizing};

use super::hex;
use crate::clock::Environment;

/// The first byte of everything sealed, so that a later form can be told from this one.
const VERSION: u8 = 1;

/// The key that seals the others: 256 bits, used with AES-256-GCM (NIST SP 800-38D).
///
/// Nonces are random, which is safe up to 2^32 sealings under one key; AIMS seals a handful of signing keys, and a secret for each
/// administrator with an authenticator app.
#[derive(Clone)]
pub struct MasterKey(Arc<SecretBox<[u8; 32]>>);

impl MasterKey {
    /// Makes a new key.
    #[must_use]
    pub fn generate(env: &Environment) -> Self {
        Self(Arc::new(SecretBox::init_with(|| env.random())))
    }

    /// Reads a key of exactly 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        SecretBox::try_init_with(|| hex::decode(text).ok_or(())).ok().map(|key| Self(Arc::new(key)))
    }

    /// The key as 64 hexadecimal digits, for the file that keeps it.
    #[must_use]
    pub fn to_hex(&self) -> SecretString {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
        let mut text = String::with_capacity(64);
        text.extend(self.0.expose_secret().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
        text.into()
    }

    /// Encrypts `plaintext`: a version byte, a random 96-bit nonce, the ciphertext and its 128-bit tag.
    ///
    /// `purpose` is authenticated and not stored: what is sealed for one purpose does not open for another, so it
    /// cannot be moved from one row to another.
    ///
    /// # Errors
    /// When `plaintext` exceeds what the cipher takes (64 GiB).
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
    /// When it was sealed under another key or for another purpose, or is altered or truncated: which of them cannot be
    /// told.
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

/// Something could not be sealed, or does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open: another master key, another purpose, or it was altered")]
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
    fn only_the_same_key_and_purpose_open() {
        let env = Environment::system();
        let key = MasterKey::generate(&env);
        let sealed = key.seal(&env, PURPOSE, b"secret").unwrap();
        assert_eq!(opened(&key, PURPOSE, &sealed).unwrap(), b"secret");
        assert_eq!(opened(&key, "signing-key:b", &sealed), None);
        assert_eq!(opened(&MasterKey::generate(&env), PURPOSE, &sealed), None);
        assert_ne!(sealed, key.seal(&env, PURPOSE, b"secret").unwrap(), "the nonce is fresh");
    }

    #[test]
    fn an_altered_or_truncated_value_does_not_open() {
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
    fn a_master_key_survives_its_file() {
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
    fn a_master_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", MasterKey::from_hex(&"ab".repeat(32)).unwrap()), "MasterKey([REDACTED])");
    }

    proptest! {
        #[test]
        fn anything_sealed_opens_again(plaintext: Vec<u8>, purpose: String) {
            let env = Environment::system();
            let key = MasterKey::generate(&env);
            prop_assert_eq!(opened(&key, &purpose, &key.seal(&env, &purpose, &plaintext).unwrap()), Some(plaintext));
        }

        #[test]
        fn noise_does_not_open(noise: Vec<u8>) {
            prop_assert_eq!(opened(&MasterKey::generate(&Environment::system()), PURPOSE, &noise), None);
        }
    }
}
