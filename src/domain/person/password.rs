//! Passwords of administrators: long, not composed by rules, not among those everybody tries (NIST SP 800-63B §3.1.1.2).

use secrecy::{ExposeSecret, SecretString};

use super::administrator::Username;
use crate::domain::error::Invalid;

/// Fewest characters.
pub const MIN_LEN: usize = 15;
/// Most characters.
pub const MAX_LEN: usize = 128;

/// Words that the most common passwords are made of. None of them alone is long enough, so what is refused is a password
/// that holds little else.
const COMMON: &str = include_str!("common_words.txt");

/// A password that may be set.
#[derive(Clone, Debug)]
pub struct NewPassword(SecretString);

impl NewPassword {
    /// Checks a password that `username` wants to have. Every character counts, spaces too.
    ///
    /// # Errors
    /// When it is too short, too long, too common, or the username.
    pub fn parse(text: &str, username: &Username) -> Result<Self, Invalid> {
        let length = text.chars().count();
        if length < MIN_LEN {
            return Err(Invalid::new(
                "string_too_short",
                format!("Use at least {MIN_LEN} characters; a sentence does"),
            ));
        }
        if length > MAX_LEN {
            return Err(Invalid::new("string_too_long", format!("Use at most {MAX_LEN} characters")));
        }
        let folded = text.to_lowercase();
        let name = username.as_str();
        if folded == name || folded.replace(name, "").chars().count() < 4 {
            return Err(Invalid::new("password_is_username", "The password must not be the username"));
        }
        if is_common(&folded) {
            return Err(Invalid::new(
                "password_common",
                "This is one of the passwords that are tried first; use another",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The password, for hashing.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Whether little is left once common words, digits in a row and repetitions are taken away.
fn is_common(folded: &str) -> bool {
    let plain: String = folded.chars().map(unleet).filter(|c| c.is_alphanumeric()).collect();
    is_repetition(folded)
        || is_run(folded)
        || is_run(&plain)
        || [plain, folded.to_owned()].into_iter().any(|text| remainder(text) < 4)
}

/// One to five characters over and over.
fn is_repetition(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    (1..=5).any(|period| characters.iter().skip(period).zip(&characters).all(|(a, b)| a == b))
}

/// Characters that follow each other in the alphabet or on a keyboard, either way, such as `abcdefghijklmno`.
fn is_run(text: &str) -> bool {
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

fn remainder(mut text: String) -> usize {
    for word in COMMON.lines().filter(|word| !word.is_empty()) {
        text = text.replace(word, "");
    }
    text.retain(|c| !c.is_ascii_digit() && !c.is_ascii_punctuation() && c != ' ');
    text.chars().count()
}

/// The letter that a digit or sign often stands for.
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
    fn a_sentence_is_taken_and_what_everybody_tries_is_not() {
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
