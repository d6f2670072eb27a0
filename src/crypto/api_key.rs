//! API keys: generation, the checksum that detects mistyped keys without a database lookup, and the stored hash.

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};

use super::hex;
use crate::clock::Environment;

const SCHEME: &str = "aims_";
/// Base62 digits in a 256-bit number: 62^42 < 2^256 < 62^43.
const SECRET_DIGITS: usize = 43;
/// Base62 digits in a 32-bit number: 62^5 < 2^32 < 62^6.
const CHECKSUM_DIGITS: usize = 6;
/// Length of the part that the checksum covers: everything before it.
const CHECKED_LEN: usize = SCHEME.len() + SECRET_DIGITS;
const LEN: usize = CHECKED_LEN + CHECKSUM_DIGITS;
/// Length of a key in the format of the seed service: 256 bits as hexadecimal digits, without a checksum.
const PREDECESSOR_LEN: usize = SCHEME.len() + 64;

/// The secret of an API key. It is shown once, at creation; only its [`KeyHash`] is stored.
///
/// The format is `aims_`, 256 random bits as 43 base62 digits, and the CRC-32 of those 48 characters as 6 base62
/// digits. The prefix and the checksum let secret scanners identify leaked keys reliably, and let AIMS reject mistyped
/// and invented keys without a database lookup.
pub struct RawApiKey(SecretString);

impl RawApiKey {
    /// Length of the part that can be displayed.
    const PREFIX_LEN: usize = SCHEME.len() + 8;

    /// Generates a new key.
    #[must_use]
    pub fn generate(env: &Environment) -> Self {
        let mut number = Zeroizing::new(env.random::<32>());
        let digits = Zeroizing::new(base62::<SECRET_DIGITS>(number.as_mut_slice()));
        // Allocate the full length at once. Reallocation would leave a copy of the secret in freed memory.
        let mut text = String::with_capacity(LEN);
        text.push_str(SCHEME);
        text.extend(digits.iter().copied().map(char::from));
        let checksum = checksum(&text);
        text.extend(checksum.map(char::from));
        Self(text.into())
    }

    /// Parses a key that a client presents, in the format of [`Self::generate`] or in that of the seed service (`aims_`
    /// and 64 lowercase hexadecimal digits), whose keys can be imported. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let secret = text.strip_prefix(SCHEME)?.as_bytes();
        let plausible = match text.len() {
            LEN => {
                let (checked, digits) = text.split_at_checked(CHECKED_LEN)?;
                secret.iter().all(u8::is_ascii_alphanumeric) && digits.as_bytes() == checksum(checked)
            }
            PREDECESSOR_LEN => secret.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            _ => false,
        };
        plausible.then(|| Self(text.into()))
    }

    /// Returns the secret, for the one response that reveals it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the hash that is stored, and by which a presented key is looked up.
    ///
    /// A fast, unsalted hash is sufficient, because 256 random bits cannot be guessed.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.expose()).into())
    }

    /// Returns the first 13 characters, which can be stored and displayed to distinguish keys.
    ///
    /// Eight of them are digits of the secret. They reveal 48 of the 256 bits in base62 and 32 in hexadecimal, so more
    /// than 200 bits stay unknown.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.expose().get(..Self::PREFIX_LEN).unwrap_or_default()
    }
}

impl fmt::Debug for RawApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawApiKey([REDACTED])")
    }
}

/// The SHA-256 hash of the full text of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Parses 64 hexadecimal digits, the format in which the seed service stores a hash; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

fn checksum(checked: &str) -> [u8; CHECKSUM_DIGITS] {
    base62(&mut crc32fast::hash(checked.as_bytes()).to_be_bytes())
}

/// Formats a big-endian number as exactly `N` digits of `0-9A-Za-z`, most significant first. Destroys `number`: it
/// becomes the quotient that did not fit, which is zero for every `N` used here.
fn base62<const N: usize>(number: &mut [u8]) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut *number {
            let dividend = u16::from_be_bytes([remainder, *byte]);
            // Both results fit into a byte, because the previous remainder is less than 62.
            [_, *byte] = (dividend / 62).to_be_bytes();
            [_, remainder] = (dividend % 62).to_be_bytes();
        }
        *digit = match remainder {
            0..=9 => b'0' + remainder,
            10..=35 => b'A' + (remainder - 10),
            _ => b'a' + (remainder - 36),
        };
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Rng, SystemClock};

    struct Fixed([u8; 32]);

    impl Rng for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.0);
        }
    }

    fn key_from(number: [u8; 32]) -> RawApiKey {
        RawApiKey::generate(&Environment::new(Arc::new(SystemClock), Arc::new(Fixed(number))))
    }

    /// A bitwise CRC-32/ISO-HDLC, to check the library against.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    /// Decodes base62.
    fn number(digits: &str) -> u64 {
        const ALPHABET: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        digits.chars().fold(0, |number, digit| number * 62 + ALPHABET.find(digit).unwrap() as u64)
    }

    #[test]
    fn the_smallest_and_the_largest_number_have_the_same_length() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of CRC-32/ISO-HDLC");
        // 2^256 - 1 in base62, computed with arbitrary-precision arithmetic.
        let most = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";
        for (bytes, digits) in [([0; 32], "0".repeat(43).as_str()), ([0xff; 32], most)] {
            let key = key_from(bytes);
            assert_eq!(key.expose().get(..48), Some(format!("aims_{digits}").as_str()));
            assert_eq!(number(&key.expose()[48..]), u64::from(crc32(&key.expose().as_bytes()[..48])));
        }
    }

    #[test]
    fn keys_of_the_seed_service_are_accepted() {
        let text = format!("aims_{}", "0123456789abcdef".repeat(4));
        let key = RawApiKey::parse(&text).unwrap();
        assert_eq!(key.expose(), text);
        assert_eq!(key.prefix(), "aims_01234567");
        for bad in [text.to_uppercase(), text.replace('f', "F"), text.replace('f', "g"), format!("{text}0")] {
            assert!(RawApiKey::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn malformed_keys_are_rejected() {
        let good = key_from([7; 32]);
        let good = good.expose();
        let multibyte = format!("{}é{}", &good[..47], &good[49..]);
        for bad in ["", "aims_", &good[..53], &format!("{good}0"), &format!(" {good}"), &good[5..], &multibyte] {
            assert!(RawApiKey::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_the_sha_256_of_the_full_text() {
        let text = format!("aims_{}", "0".repeat(64));
        let expected = KeyHash::from_hex("d229ed78a3fc240707890fef400f45a1afb52fd3e3aea881714448b564483f64");
        assert_eq!(Some(RawApiKey::parse(&text).unwrap().hash()), expected);
        assert_eq!(KeyHash::from_hex("00"), None);
    }

    #[test]
    fn debug_output_does_not_reveal_the_key() {
        assert_eq!(format!("{:?}", key_from([7; 32])), "RawApiKey([REDACTED])");
    }

    proptest! {
        #[test]
        fn a_generated_key_can_be_parsed(number: [u8; 32]) {
            let key = key_from(number);
            let text = key.expose();
            prop_assert_eq!(text.len(), 54);
            prop_assert!(text.starts_with("aims_") && text[5..].bytes().all(|b| b.is_ascii_alphanumeric()));
            prop_assert_eq!(key.prefix(), &text[..13]);
            prop_assert_eq!(RawApiKey::parse(text).map(|read| read.hash()), Some(key.hash()));
        }

        #[test]
        fn keys_with_a_changed_character_are_rejected(number: [u8; 32], place in 0_usize..54, other in "[0-9A-Za-z]") {
            let mut text = key_from(number).expose().to_owned();
            prop_assume!(text[place..=place] != other);
            text.replace_range(place..=place, &other);
            prop_assert!(RawApiKey::parse(&text).is_none());
        }
    }
}
