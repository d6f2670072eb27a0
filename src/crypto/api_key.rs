//! API keys: how they are made, how a made-up one is told before the database is asked, and what is kept of them.

use std::fmt;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};

use super::hex;
use crate::clock::Environment;

const SCHEME: &str = "aims_";
/// Base62 digits of a 256-bit number: 62^42 < 2^256 < 62^43.
const SECRET_DIGITS: usize = 43;
/// Base62 digits of a 32-bit number: 62^5 < 2^32 < 62^6.
const CHECKSUM_DIGITS: usize = 6;
/// Characters before the checksum, all of which it covers.
const CHECKED_LEN: usize = SCHEME.len() + SECRET_DIGITS;
const LEN: usize = CHECKED_LEN + CHECKSUM_DIGITS;
/// Characters of a key in the predecessor's form: 256 bits as hexadecimal digits, without a checksum.
const PREDECESSOR_LEN: usize = SCHEME.len() + 64;

/// An API key as its holder has it. A secret: it is shown once, when made, and only its [`KeyHash`] is kept.
///
/// `aims_`, 256 random bits as 43 base62 digits, and the CRC-32 of those 48 characters as 6 more. The scheme and the
/// checksum let secret scanners find a leaked key and be sure of it, and let AIMS refuse a mistyped or invented one
/// without a database read.
pub struct RawApiKey(SecretString);

impl RawApiKey {
    /// Characters of a key that may be displayed.
    const PREFIX_LEN: usize = SCHEME.len() + 8;

    /// Makes a new key.
    #[must_use]
    pub fn generate(env: &Environment) -> Self {
        let mut number = Zeroizing::new(env.random::<32>());
        let digits = Zeroizing::new(base62::<SECRET_DIGITS>(number.as_mut_slice()));
        // Room for the whole key from the start: growing would leave a copy of the secret in freed memory.
        let mut text = String::with_capacity(LEN);
        text.push_str(SCHEME);
        text.extend(digits.iter().copied().map(char::from));
        let checksum = checksum(&text);
        text.extend(checksum.map(char::from));
        Self(text.into())
    }

    /// Reads what a caller presents: a key as [`Self::generate`] makes it, or one in the predecessor's form (`aims_`
    /// and 64 lowercase hexadecimal digits), which an imported database may hold. `None` for what cannot be a key.
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

    /// The key itself, for the one answer that reveals it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored, and what a presented key is looked up by.
    ///
    /// A plain hash suffices, because there is no dictionary of 256-bit random numbers to try.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.expose()).into())
    }

    /// The first 13 characters, which may be stored and displayed to tell keys apart.
    ///
    /// Eight of them are secret digits. In base62 they give away 48 of the 256 bits, in the predecessor's hexadecimal
    /// form 32: more than 200 stay unknown either way.
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

/// The SHA-256 of an API key's whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Reads 64 hexadecimal digits, the form in which the predecessor stores a hash; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

fn checksum(checked: &str) -> [u8; CHECKSUM_DIGITS] {
    base62(&mut crc32fast::hash(checked.as_bytes()).to_be_bytes())
}

/// Writes the big-endian `number` with exactly `N` digits of `0-9A-Za-z`, most significant first, and leaves it divided
/// down to what did not fit: zero, for every `N` used here.
fn base62<const N: usize>(number: &mut [u8]) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in &mut *number {
            let dividend = u16::from_be_bytes([remainder, *byte]);
            // Both fit into a byte, because the remainder carried in is below 62.
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

    /// CRC-32/ISO-HDLC bit by bit, to hold the library's table against.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    /// The reverse of base62, for checksums.
    fn number(digits: &str) -> u64 {
        const ALPHABET: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        digits.chars().fold(0, |number, digit| number * 62 + ALPHABET.find(digit).unwrap() as u64)
    }

    #[test]
    fn the_smallest_and_the_largest_number_fill_the_same_width() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of CRC-32/ISO-HDLC");
        // 2^256 - 1 in base62, from arbitrary-precision arithmetic.
        let most = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";
        for (bytes, digits) in [([0; 32], "0".repeat(43).as_str()), ([0xff; 32], most)] {
            let key = key_from(bytes);
            assert_eq!(key.expose().get(..48), Some(format!("aims_{digits}").as_str()));
            assert_eq!(number(&key.expose()[48..]), u64::from(crc32(&key.expose().as_bytes()[..48])));
        }
    }

    #[test]
    fn the_predecessors_keys_are_still_read() {
        let text = format!("aims_{}", "0123456789abcdef".repeat(4));
        let key = RawApiKey::parse(&text).unwrap();
        assert_eq!(key.expose(), text);
        assert_eq!(key.prefix(), "aims_01234567");
        for bad in [text.to_uppercase(), text.replace('f', "F"), text.replace('f', "g"), format!("{text}0")] {
            assert!(RawApiKey::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let good = key_from([7; 32]);
        let good = good.expose();
        let multibyte = format!("{}é{}", &good[..47], &good[49..]);
        for bad in ["", "aims_", &good[..53], &format!("{good}0"), &format!(" {good}"), &good[5..], &multibyte] {
            assert!(RawApiKey::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_sha_256_of_the_whole_text() {
        let text = format!("aims_{}", "0".repeat(64));
        let expected = KeyHash::from_hex("d229ed78a3fc240707890fef400f45a1afb52fd3e3aea881714448b564483f64");
        assert_eq!(Some(RawApiKey::parse(&text).unwrap().hash()), expected);
        assert_eq!(KeyHash::from_hex("00"), None);
    }

    #[test]
    fn a_key_does_not_print_itself() {
        assert_eq!(format!("{:?}", key_from([7; 32])), "RawApiKey([REDACTED])");
    }

    proptest! {
        #[test]
        fn a_made_key_is_read_back(number: [u8; 32]) {
            let key = key_from(number);
            let text = key.expose();
            prop_assert_eq!(text.len(), 54);
            prop_assert!(text.starts_with("aims_") && text[5..].bytes().all(|b| b.is_ascii_alphanumeric()));
            prop_assert_eq!(key.prefix(), &text[..13]);
            prop_assert_eq!(RawApiKey::parse(text).map(|read| read.hash()), Some(key.hash()));
        }

        #[test]
        fn one_changed_character_is_refused(number: [u8; 32], place in 0_usize..54, other in "[0-9A-Za-z]") {
            let mut text = key_from(number).expose().to_owned();
            prop_assume!(text[place..=place] != other);
            text.replace_range(place..=place, &other);
            prop_assert!(RawApiKey::parse(&text).is_none());
        }
    }
}
