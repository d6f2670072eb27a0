//! Finds credentials in text by their shape.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

const REDACTED: &str = "[redacted]";
/// Shortest run of letters and digits that is taken for a random secret: 256 bits take 43 characters of base 64 or 62.
const RANDOM_LEN: usize = 40;
/// Length of 256 bits as hexadecimal digits.
const HEX_LEN: usize = 64;

/// The group `keep` is preserved, to show the reader what was redacted.
const PATTERN: &str = r#"(?x)
    # User and password of a URL. A password that is not encoded may hold slashes.
    (?<url>://) [^\s"'\\<>]* @
    # Values of a query, a form or a fragment.
  | (?<query>[?&\#][A-Za-z0-9_.~%\[\]-]+=) [^&\s"'\\\#]*
    # The Authorization header, and a URL that holds one.
  | (?<scheme>\b(?i:bearer|basic|dpop)(?:\s|%20|\+)+) [^\s"'\\,;&]{6,}
    # The session cookie.
  | (?<cookie>\baims=) [A-Za-z0-9_%+/=-]{16,}
    # Values named password or secret, with and without quotes.
  | (?<quoted>(?i:password|passwd|secret)\w*["'\\]*\s*[:=]\s*(?:Some\()?\\?") (?:[^"\\]|\\[^"])*
  | (?<name>(?i:password|passwd|secret)\w*["'\\]*\s*[:=]\s*(?:Some\()?["'\\]*) [^\s"'\\&,;)]+
    # API keys, beyond the part that may be shown.
  | aims(?:_|%5[Ff])[A-Za-z0-9]{9,}
    # JWTs and parts of them.
  | eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*
    # Random values: setup links, signatures and master keys, also percent-encoded.
  | (?<random>[A-Za-z0-9_%-]{40,})
"#;

#[expect(clippy::expect_used, reason = "the pattern does not change, and tests compile it")]
static SECRETS: LazyLock<Regex> = LazyLock::new(|| Regex::new(PATTERN).expect("a valid pattern"));

/// Returns the text with everything that looks like a credential redacted.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    SECRETS.replace_all(text, |found: &Captures<'_>| {
        let whole = found.get(0).map_or("", |found| found.as_str());
        if found.name("random").is_some() && !is_secret(&decoded(whole)) {
            return whole.to_owned();
        }
        let kept = ["url", "query", "scheme", "cookie", "quoted", "name"].into_iter().find_map(|name| found.name(name));
        let end = if found.name("url").is_some() { "@" } else { "" };
        format!("{}{REDACTED}{end}", kept.map_or("", |kept| kept.as_str()))
    })
}

/// Returns true for text that looks random, or that holds a secret once decoded.
fn is_secret(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.bytes().any(|byte| test(&byte));
    let is_mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    let is_hex = text.len() >= HEX_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (text.len() >= RANDOM_LEN && is_mixed) || is_hex || text.contains("aims_") || text.contains("eyJ")
}

/// Decodes every `%XX` that stands for an ASCII character.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        if let (Some(byte), Some(rest)) = (byte, part.get(2..)) {
            decoded.push(byte.into());
            decoded.push_str(rest);
        } else {
            decoded.push('%');
            decoded.push_str(part);
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "aims_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3aB4cD5eF6gH7";
    const OLD_KEY: &str = "aims_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4";
    const SETUP: &str = "Zm9vYmFyLWJhei1xdXV4LTEyMzQ1Njc4OTAtYWJjZGU";

    #[test]
    fn credentials_are_redacted_wherever_they_stand() {
        let encoded: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        let secrets = [KEY, OLD_KEY, TOKEN, SETUP, &"0f".repeat(32), &encoded, &KEY.replace('_', "%5F")];
        for secret in secrets {
            for text in [
                secret.to_owned(),
                format!("request{{path=/agents/{secret}/keys}}: answered"),
                format!("{{\"path\":\"/agents/{secret}\",\"status\":404}}"),
                format!("\"Bearer {secret}\""),
                format!("authorization: Bearer%20{secret}"),
                format!("GET /x?key={secret}&other={secret}#at={secret}"),
                format!("cookie: a=b; __Host-aims={secret}; c=d"),
                format!("\u{1b}[3mpath\u{1b}[0m\u{1b}[2m=\u{1b}[0m/{secret}"),
            ] {
                let shown = redact(&text);
                assert!(shown.contains(REDACTED), "{text} came out as {shown}");
                for part in secret.as_bytes().windows(14).map(|part| str::from_utf8(part).unwrap()) {
                    assert!(!shown.contains(part), "{text} came out as {shown}");
                }
            }
        }
    }

    #[test]
    fn what_surrounds_a_secret_stays() {
        for (text, shown) in [
            ("postgres://someone:p4ss/w:rd@db.example/aims failed", "postgres://[redacted]@db.example/aims failed"),
            ("/console/setup?token=short&next=/x y", "/console/setup?token=[redacted]&next=[redacted] y"),
            ("Authorization: Basic eDp5eg== sent", "Authorization: Basic [redacted] sent"),
            (
                "options { user: \"u\", password: Some(\"p4ss\"), port: 1 }",
                "options { user: \"u\", password: Some(\"[redacted]\"), port: 1 }",
            ),
            ("password: Some(\"p4 ss, wörd\"), port: 1", "password: Some(\"[redacted]\"), port: 1"),
            (
                "{\"message\":\"password: \\\"p4 ss\\\" is wrong\"}",
                "{\"message\":\"password: \\\"[redacted]\\\" is wrong\"}",
            ),
            ("host=h password=p4ss port=1", "host=h password=[redacted] port=1"),
            ("{\"id\":\"a\",\"path\":\"/x?a=b\"}", "{\"id\":\"a\",\"path\":\"/x?a=[redacted]\"}"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "2026-01-01T12:00:00.000000Z  INFO aims::cli::serve: serving listen=127.0.0.1:8000 public_url=https://aims.test",
            "request{id=019b7a3e-7b1c-7e43-9b1c-0242ac120002 method=GET path=/agents/019b7a3e-7b1c-7e43-9b1c-0242ac120002}",
            "cannot use the master key file /var/lib/aims/aims.master-key: Permission denied (os error 13)",
            "key aims_0aB1cD2e is shown by its first characters",
            "MASTER_KEY or MASTER_KEY_FILE must be set with PostgreSQL; create one with: openssl rand -hex 32",
            "violates constraint \"a_constraint_of_a_table_with_a_rather_long_name_1\"",
            "http://[::1]:8000/agents",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
