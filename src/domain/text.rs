//! Text that people type: bounded in length, free of characters that deceive a reader or a terminal.

use super::{error::Invalid, json};

/// Characters that reorder or hide what is displayed (Unicode bidirectional controls and zero-width marks).
const fn deceives(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// One line of text of `min` to `max` characters: no control and no bidirectional characters.
///
/// # Errors
/// Says which bound or character class the text breaks.
pub fn line(text: &str, min: usize, max: usize) -> Result<String, Invalid> {
    check(text, min, max, |_| false)
}

/// Text of up to `max` characters that may hold line breaks and tabs.
///
/// # Errors
/// As [`line()`].
pub fn paragraph(text: &str, max: usize) -> Result<String, Invalid> {
    check(text, 0, max, |c| matches!(c, '\n' | '\r' | '\t'))
}

fn check(text: &str, min: usize, max: usize, allowed: fn(char) -> bool) -> Result<String, Invalid> {
    let length = text.chars().count();
    if length < min {
        return Err(Invalid::too_short(min));
    }
    if length > max {
        return Err(Invalid::too_long(max));
    }
    if text.chars().any(|c| deceives(c) || (c.is_control() && !allowed(c))) {
        return Err(Invalid::new("string_characters", "String should not contain control or bidirectional characters"));
    }
    Ok(text.to_owned())
}

/// A JSON document of at most `max` bytes, kept as the text it came in.
///
/// # Errors
/// When the text is too long, or [`json::read`] refuses it.
pub fn json(text: &str, max: usize) -> Result<String, Invalid> {
    if text.len() > max {
        return Err(Invalid::too_long(max));
    }
    match json::read::<serde_json::Value>(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(json::invalid(&error, "String should hold a JSON document")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_text_is_refused_and_foreign_scripts_are_not() {
        for good in ["Zoë", "команда", "運用", "a b"] {
            assert_eq!(line(good, 1, 128).unwrap(), good);
        }
        for bad in ["a\u{202E}b", "a\u{2066}b", "a\0b", "a\x1b[31m", "a\nb", "a\u{200B}b", ""] {
            assert!(line(bad, 1, 128).is_err(), "{bad:?}");
        }
        assert!(paragraph("two\nlines", 20).is_ok());
        assert!(paragraph("two\x07lines", 20).is_err());
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert!(line(&"é".repeat(128), 1, 128).is_ok());
        assert!(line(&"é".repeat(129), 1, 128).is_err());
    }
}
