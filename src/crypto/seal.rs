//! Sealing: secrets in the database are encrypted with a master key that is stored outside it.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString, zeroize::Zeroizing};

use super::hex;
use crate::clock::Environment;

/// The first byte of every sealed value, so that a later format can be distinguished.
const VERSION: u8 = 1;
/// Context of the derivation of a key's ID.
const ID_PURPOSE: &[u8] = b"AIMS master key ID";

/// Returns the purpose of a sealed signing key. It binds the key to its ID, so that the keys in the database cannot be
/// swapped.
#[must_use]
pub fn signing_key_purpose(kid: &str) -> String {
    format!("signing-key:{kid}")
}

/// Returns the purpose of the sealed secret of an authenticator app. It binds the secret to its owner.
#[must_use]
pub fn authenticator_purpose(owner: &str) -> String {
    format!("totp:{owner}")
}

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

    /// Returns the ID of the key, which reveals nothing about the key.
    #[must_use]
    pub fn id(&self) -> MasterKeyId {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret()), ID_PURPOSE);
        MasterKeyId(tag.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes))
    }

    /// Encrypts `plaintext`. The result is a version byte, a random 96-bit nonce, the ciphertext and its 128-bit tag.
    ///
    /// `purpose` is authenticated but not stored. A value sealed for one purpose cannot be opened for another, so it
    /// cannot be moved to another row.
    ///
    /// # Errors
    /// If `plaintext` exceeds the limit of the cipher (64 GiB).
    pub fn seal(&self, env: &Environment, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.cipher()?, env, purpose, plaintext)
    }

    /// Decrypts what [`Self::seal`] returned for the same `purpose`.
    ///
    /// # Errors
    /// If the value was sealed with another key or for another purpose, or was altered or truncated. These cases cannot
    /// be distinguished.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        open(&self.cipher()?, purpose, sealed)
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

/// The keys that encrypt the answer to one request: derived with HKDF-SHA256 (RFC 5869) from a secret of its client and
/// from the master keys, if there are any. The secret or a master key alone opens no answer.
pub struct AnswerKeys(Vec<LessSafeKey>);

impl AnswerKeys {
    /// Derives the keys of the answer with this ID. The first master key seals, and any of them opens.
    ///
    /// # Errors
    /// Never in practice: the lengths are constant.
    pub fn derive<'m>(
        masters: impl IntoIterator<Item = &'m MasterKey>,
        secret: &[u8],
        id: &[u8; 32],
    ) -> Result<Self, SealError> {
        let derive = |salt: &[u8; 32]| -> Result<LessSafeKey, SealError> {
            let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
            let info: [&[u8]; 2] = [b"aims request answer 1", id];
            let expanded = extracted.expand(&info, &AES_256_GCM).map_err(|_| SealError)?;
            Ok(LessSafeKey::new(UnboundKey::from(expanded)))
        };
        let keys = masters.into_iter().map(|master| derive(master.0.expose_secret()));
        let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            keys.push(derive(&[0; 32])?);
        }
        Ok(Self(keys))
    }

    /// Encrypts an answer, in the form of [`MasterKey::seal`].
    ///
    /// # Errors
    /// If the answer exceeds the limit of the cipher.
    pub fn seal(&self, env: &Environment, answer: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(self.0.first().ok_or(SealError)?, env, ANSWER, answer)
    }

    /// Decrypts what [`Self::seal`] returned.
    ///
    /// # Errors
    /// See [`MasterKey::open`].
    pub fn open(&self, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        self.0.iter().find_map(|key| open(key, ANSWER, sealed).ok()).ok_or(SealError)
    }
}

/// The purpose of values that [`AnswerKeys`] seal. The keys themselves are bound to the answer's ID.
const ANSWER: &str = "request-answer";

fn seal(cipher: &LessSafeKey, env: &Environment, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = env.random::<NONCE_LEN>();
    let mut body = Zeroizing::new(plaintext.to_vec());
    let tag = cipher
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut body)
        .map_err(|_| SealError)?;
    Ok([&[VERSION], nonce.as_slice(), &body, tag.as_ref()].concat())
}

fn open(cipher: &LessSafeKey, purpose: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
    let [VERSION, rest @ ..] = sealed else { return Err(SealError) };
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plaintext = cipher
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(purpose), &mut body)
        .map_err(|_| SealError)?;
    Ok(plaintext.to_vec().into())
}

/// Identifies a master key: 64 bits of a hash. Operators compare it, and audit records contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterKeyId(u64);

impl MasterKeyId {
    /// Parses 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The master keys of a process: one, or two while a new key replaces the previous one.
///
/// Which of two keys seals new values is recorded in the database: see [`crate::service::master_key`].
#[derive(Clone, Debug)]
pub struct MasterKeys {
    newest: MasterKey,
    previous: Option<MasterKey>,
}

impl MasterKeys {
    /// Holds one key.
    #[must_use]
    pub const fn one(key: MasterKey) -> Self {
        Self { newest: key, previous: None }
    }

    /// Holds a new key and the one before it. Returns `None` if they are equal.
    #[must_use]
    pub fn two(newest: MasterKey, previous: MasterKey) -> Option<Self> {
        (newest.id() != previous.id()).then_some(Self { newest, previous: Some(previous) })
    }

    /// Parses the content of a master key file: the newest key, and on a second line the previous key, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.trim_end().lines();
        let newest = MasterKey::from_hex(lines.next()?.trim_end())?;
        let previous = lines.next().map(|line| MasterKey::from_hex(line).ok_or(())).transpose().ok()?;
        if lines.next().is_some() {
            return None;
        }
        match previous {
            None => Some(Self::one(newest)),
            Some(previous) => Self::two(newest, previous),
        }
    }

    /// Returns the content of a master key file.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(130));
        for key in self.all() {
            text.push_str(key.to_hex().expose_secret());
            text.push('\n');
        }
        text.as_str().into()
    }

    /// Returns the newest key.
    #[must_use]
    pub const fn newest(&self) -> &MasterKey {
        &self.newest
    }

    /// Returns the key before the newest one, if it is still known.
    #[must_use]
    pub const fn previous(&self) -> Option<&MasterKey> {
        self.previous.as_ref()
    }

    /// Returns all keys, the newest one first.
    pub fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.newest).chain(&self.previous)
    }

    /// Returns the key with this ID.
    #[must_use]
    pub fn find(&self, id: MasterKeyId) -> Option<&MasterKey> {
        self.all().find(|key| key.id() == id)
    }

    /// Returns the key that sealed a value.
    #[must_use]
    pub fn opener(&self, purpose: &str, sealed: &[u8]) -> Option<&MasterKey> {
        self.all().find(|key| key.open(purpose, sealed).is_ok())
    }

    /// Decrypts a value with the key that sealed it.
    ///
    /// # Errors
    /// See [`MasterKey::open`].
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        self.all().find_map(|key| key.open(purpose, sealed).ok()).ok_or(SealError)
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
    fn an_answer_opens_only_with_the_secret_the_master_key_and_the_id() {
        let env = Environment::system();
        let master = MasterKey::generate(&env);
        let other = MasterKey::generate(&env);
        let keys = |masters: &[&MasterKey], secret: &[u8], id| {
            AnswerKeys::derive(masters.iter().copied(), secret, &[id; 32]).unwrap()
        };
        let sealed = keys(&[&master, &other], b"secret", 1).seal(&env, b"answer").unwrap();
        for right in [keys(&[&master], b"secret", 1), keys(&[&other, &master], b"secret", 1)] {
            assert_eq!(right.open(&sealed).unwrap().expose_secret(), b"answer");
            assert!(right.open(&sealed[..sealed.len() - 1]).is_err());
        }
        for wrong in [
            keys(&[&master], b"secret", 2),
            keys(&[&master], b"secreT", 1),
            keys(&[&other], b"secret", 1),
            keys(&[], b"secret", 1),
        ] {
            assert!(wrong.open(&sealed).is_err());
        }
        let sealed = keys(&[], b"secret", 1).seal(&env, b"answer").unwrap();
        assert_eq!(keys(&[], b"secret", 1).open(&sealed).unwrap().expose_secret(), b"answer");
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

    #[test]
    fn one_or_two_keys_can_be_written_and_parsed() {
        let [a, b] = ["ab", "cd"].map(|pair| pair.repeat(32));
        let ids = |text: &str| MasterKeys::parse(text).map(|keys| keys.all().map(MasterKey::id).collect::<Vec<_>>());
        let [id_a, id_b] = [&a, &b].map(|text| MasterKey::from_hex(text).unwrap().id());
        for text in [a.clone(), format!("{a}\n"), format!("{a}\r\n"), format!("{a} \n\n")] {
            assert_eq!(ids(&text).unwrap(), [id_a], "{text:?}");
        }
        for text in [format!("{a}\n{b}"), format!("{a}\n{b}\n"), format!("{a}\r\n{b}\r\n")] {
            assert_eq!(ids(&text).unwrap(), [id_a, id_b], "{text:?}");
        }
        for bad in [
            String::new(),
            format!("\n{a}"),
            format!("{a}\n\n{b}"),
            format!("{a}\n{a}"),
            format!("{a} {b}"),
            format!("{a}\n{b}\n{}", "ef".repeat(32)),
            format!("{a}\n# the key before"),
        ] {
            assert!(ids(&bad).is_none(), "{bad:?}");
        }
        let both = MasterKeys::parse(&format!("{a}\n{b}")).unwrap();
        assert_eq!(both.to_text().expose_secret(), format!("{a}\n{b}\n"));
        assert!(!format!("{both:?}").contains("abab"), "{both:?}");
    }

    #[test]
    fn two_keys_open_the_values_of_both() {
        let env = Environment::system();
        let (old, new, other) = (MasterKey::generate(&env), MasterKey::generate(&env), MasterKey::generate(&env));
        let keys = MasterKeys::two(new.clone(), old.clone()).unwrap();
        for key in [&old, &new] {
            let sealed = key.seal(&env, PURPOSE, b"secret").unwrap();
            assert_eq!(keys.opener(PURPOSE, &sealed).unwrap().id(), key.id());
            assert_eq!(keys.open(PURPOSE, &sealed).unwrap().expose_secret(), b"secret");
            assert!(keys.open("signing-key:b", &sealed).is_err());
        }
        let sealed = other.seal(&env, PURPOSE, b"secret").unwrap();
        assert!(keys.opener(PURPOSE, &sealed).is_none() && keys.open(PURPOSE, &sealed).is_err());
        assert!(keys.find(old.id()).is_some() && keys.find(other.id()).is_none());
    }

    #[test]
    fn ids_tell_keys_apart_and_can_be_parsed() {
        let key = MasterKey::from_hex(&"0f".repeat(32)).unwrap();
        let id = key.id().to_string();
        assert_eq!(id.len(), 16);
        assert_eq!(MasterKeyId::parse(&id), Some(key.id()));
        assert_ne!(MasterKey::from_hex(&"f0".repeat(32)).unwrap().id(), key.id());
        assert!(MasterKeyId::parse("0f").is_none() && MasterKeyId::parse(&"g".repeat(16)).is_none());
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
