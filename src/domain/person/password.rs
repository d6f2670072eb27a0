//! Passwords of administrators: a minimum length, no composition rules, and a check for common passwords
//! (NIST SP 800-63B §3.1.1.2).

use secrecy::{ExposeSecret, SecretString};

use super::administrator::Username;
use crate::domain::invalid::Invalid;

/// Minimum length, in characters.
pub const MIN_LEN: usize = 15;
/// Maximum length, in characters.
pub const MAX_LEN: usize = 128;

/// The words in the most common passwords. Almost all are shorter than [`MIN_LEN`], so a password is rejected if it
/// contains little besides such words.
const COMMON: &str = include_str!("common_words.txt");

/// A new password that meets the rules.
#[derive(Clone, Debug)]
pub struct NewPassword(SecretString);

impl NewPassword {
    /// Validates a new password for `username`. Spaces are kept.
    ///
    /// # Errors
    /// If the password is too short, too long, too common, or little more than the username.
    pub fn parse(text: &str, username: &Username) -> Result<Self, Invalid> {
        let length = text.chars().count();
        if length < MIN_LEN {
            return Err(Invalid::new(
                "string_too_short",
                format!("Use at least {MIN_LEN} characters, for example a short sentence"),
            ));
        }
        if length > MAX_LEN {
            return Err(Invalid::new("string_too_long", format!("Use at most {MAX_LEN} characters")));
        }
        let folded = text.to_lowercase();
        let name = username.as_str();
        if folded == name || folded.replace(name, "").chars().count() < 4 {
            return Err(Invalid::new("password_is_username", "The password must be different from the username"));
        }
        if is_common(&folded) {
            return Err(Invalid::new("password_common", "This password is too common. Choose a different one"));
        }
        Ok(Self(text.into()))
    }

    /// Returns the password, for hashing.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Returns true if the password is a repetition or a sequence, or is short without its common words, digits and
/// punctuation.
fn is_common(folded: &str) -> bool {
    let plain: String = folded.chars().map(unleet).filter(|c| c.is_alphanumeric()).collect();
    is_repetition(folded)
        || is_sequence(folded)
        || is_sequence(&plain)
        || [plain, folded.to_owned()].into_iter().any(|text| length_without_common(text) < 4)
}

/// Returns true if the text repeats a group of one to five characters.
fn is_repetition(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    (1..=5).any(|period| characters.iter().skip(period).zip(&characters).all(|(a, b)| a == b))
}

/// Returns true if the text is a sequence of the alphabet or the keyboard in either direction, such as
/// `abcdefghijklmno`.
fn is_sequence(text: &str) -> bool {
    const ROWS: [&str; 6] = [
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
        "01234567890123456789012345678901234567890123456789",
        "12345678901234567890",
        "qwertyuiopasdfghjklzxcvbnmqwertyuiop",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
        "q1w2e3r4t5y6u7i8o9p0",
    ];
    let backwards: String = text.chars().rev().collect();
    text.len() >= 4 && ROWS.iter().any(|row| row.contains(text) || row.contains(&backwards))
}

fn length_without_common(mut text: String) -> usize {
    for word in COMMON.lines().filter(|word| !word.is_empty()) {
        text = text.replace(word, "");
    }
    text.retain(|c| !c.is_ascii_digit() && !c.is_ascii_punctuation() && c != ' ');
    text.chars().count()
}

/// Returns the letter that a digit or punctuation mark often replaces.
const fn unleet(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_accepted_and_common_passwords_are_rejected() {
        let username = Username::parse("zoe.admin").unwrap();
        for good in [
            "a quiet river at dawn",
            "Tr0mbone-Lighthouse-9",
            "коричневая лисица прыгает",
            "運用の安全は文章で守ります、十五字",
        ] {
            assert!(NewPassword::parse(good, &username).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "fourteen chars",
            &"x".repeat(129),
            "aaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "passwordpassword",
            "Password1234567",
            "P@ssw0rdP@ssw0rd",
            "qwertyuiopasdfgh",
            "123456789012345",
            "1234567890123456789",
            "letmein letmein letmein",
            "adminadminadmin123",
            "zoe.adminzoe.admin",
            "ZOE.ADMIN-ZOE.ADMIN",
            "iloveyouiloveyou!",
            "abcdefghijklmnop",
            "1qaz2wsx3edc4rfv",
            "correcthorsebatterystaple",
        ] {
            assert!(NewPassword::parse(bad, &username).is_err(), "{bad:?}");
        }
    }
}
