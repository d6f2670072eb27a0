//! Validation of text that people enter: length limits, and no characters that can deceive a reader or a terminal.

pub mod json;
pub mod public_url;
pub mod uri;

use super::invalid::Invalid;

/// Inclusive ranges of characters.
type Ranges = &'static [(char, char)];

/// Control characters (category Cc). A line contains none.
const CONTROLS: Ranges = &[('\0', '\u{1F}'), ('\u{7F}', '\u{9F}')];

/// Control characters that a paragraph cannot contain: all except tab, line feed and carriage return.
const CONTROLS_WITHIN_LINES: Ranges = &[('\0', '\u{8}'), ('\u{B}', '\u{C}'), ('\u{E}', '\u{1F}'), ('\u{7F}', '\u{9F}')];

/// Control characters that a paragraph can contain.
const BREAKS: Ranges = &[('\t', '\n'), ('\r', '\r')];

/// Characters that can deceive a reader: bidirectional controls, line and paragraph separators, and invisible
/// characters such as soft hyphens, fillers and tags.
const DECEPTIVE: Ranges = &[
    ('\u{AD}', '\u{AD}'),
    ('\u{34F}', '\u{34F}'),
    ('\u{61C}', '\u{61C}'),
    ('\u{115F}', '\u{1160}'),
    ('\u{17B4}', '\u{17B5}'),
    ('\u{180E}', '\u{180E}'),
    ('\u{200B}', '\u{200F}'),
    ('\u{2028}', '\u{202E}'),
    ('\u{2060}', '\u{206F}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{FEFF}', '\u{FEFF}'),
    ('\u{FFA0}', '\u{FFA0}'),
    ('\u{FFF0}', '\u{FFFB}'),
    ('\u{1BCA0}', '\u{1BCA3}'),
    ('\u{1D173}', '\u{1D17A}'),
    ('\u{E0000}', '\u{E00FF}'),
    ('\u{E01F0}', '\u{E0FFF}'),
];

/// The spaces among the characters that a line can contain.
const SPACES: Ranges = &[
    (' ', ' '),
    ('\u{A0}', '\u{A0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200A}'),
    ('\u{202F}', '\u{202F}'),
    ('\u{205F}', '\u{205F}'),
    ('\u{3000}', '\u{3000}'),
];

/// Characters that are allowed but invisible by themselves: spaces, variation selectors, the blank Braille pattern and
/// the null notehead.
const BLANK: Ranges = &[
    (' ', ' '),
    ('\u{A0}', '\u{A0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{180B}', '\u{180F}'),
    ('\u{2000}', '\u{200A}'),
    ('\u{202F}', '\u{202F}'),
    ('\u{205F}', '\u{205F}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{FE00}', '\u{FE0F}'),
    ('\u{1D159}', '\u{1D159}'),
    ('\u{E0100}', '\u{E01EF}'),
];

fn is_in(ranges: Ranges, c: char) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&c))
}

/// Returns a regular expression (ECMA-262, flag `u`) for the text that [`line()`] accepts, ignoring its length.
#[must_use]
pub fn line_pattern() -> String {
    format!("^[^{}]*$", line_class())
}

/// Returns the characters that [`line()`] rejects, as the contents of a character class.
fn line_class() -> String {
    class(&[CONTROLS, DECEPTIVE])
}

/// Returns a regular expression (ECMA-262, flag `u`) for the text that [`trimmed()`] accepts, ignoring its length.
#[must_use]
pub fn trimmed_pattern() -> String {
    let (line, spaces) = (line_class(), class(&[SPACES]));
    format!("^([^{spaces}{line}]([^{line}]*[^{spaces}{line}])?)?$")
}

/// Returns a regular expression (ECMA-262, flag `u`) for the text that [`name()`] accepts, ignoring its length.
#[must_use]
pub fn name_pattern() -> String {
    format!("^(?![{}]*$)[^{}]*$", class(&[BLANK]), class(&[CONTROLS, DECEPTIVE]))
}

/// Returns a regular expression (ECMA-262, flag `u`) for the text that [`paragraph()`] accepts, ignoring its length.
#[must_use]
pub fn paragraph_pattern() -> String {
    format!("^(?![{}]+$)[^{}]*$", class(&[BREAKS, BLANK]), class(&[CONTROLS_WITHIN_LINES, DECEPTIVE]))
}

/// Returns the contents of a character class. Characters above U+FFFF are not escaped, because engines differ in the
/// syntax.
fn class(tables: &[Ranges]) -> String {
    let escaped = |c: char| if c <= '\u{FFFF}' { format!("\\u{:04X}", u32::from(c)) } else { c.to_string() };
    let range = |&(first, last): &(char, char)| {
        if first == last { escaped(first) } else { format!("{}-{}", escaped(first), escaped(last)) }
    };
    tables.iter().flat_map(|ranges| ranges.iter()).map(range).collect()
}

/// Validates a line of `min` to `max` characters without control, bidirectional or invisible characters.
///
/// # Errors
/// If the text is too short or too long, or contains such a character.
pub fn line(text: &str, min: usize, max: usize) -> Result<String, Invalid> {
    check(text, min, max, CONTROLS)
}

/// Validates a name: a line of 1 to `max` characters, at least one of them visible.
///
/// # Errors
/// As for [`line()`], or if no character is visible.
pub fn name(text: &str, max: usize) -> Result<String, Invalid> {
    visible(line(text, 1, max)?)
}

/// Validates a line of up to `max` characters that neither begins nor ends with a space, so that two lines that look the
/// same are the same.
///
/// # Errors
/// As for [`line()`], or if the first or last character is a space.
pub fn trimmed(text: &str, max: usize) -> Result<String, Invalid> {
    let line = line(text, 0, max)?;
    if line.trim() != line {
        return Err(Invalid::new("string_spaces", "String should not begin or end with a space"));
    }
    Ok(line)
}

/// Validates text of up to `max` characters, which can contain line breaks and tabs. It is empty or contains a visible
/// character.
///
/// # Errors
/// As for [`name()`].
pub fn paragraph(text: &str, max: usize) -> Result<String, Invalid> {
    let text = check(text, 0, max, CONTROLS_WITHIN_LINES)?;
    if text.is_empty() { Ok(text) } else { visible(text) }
}

fn visible(text: String) -> Result<String, Invalid> {
    if text.chars().all(|c| is_in(BLANK, c) || is_in(CONTROLS, c)) {
        return Err(Invalid::Blank);
    }
    Ok(text)
}

fn check(text: &str, min: usize, max: usize, controls: Ranges) -> Result<String, Invalid> {
    let length = text.chars().count();
    if length < min {
        return Err(Invalid::TooShort(min));
    }
    if length > max {
        return Err(Invalid::TooLong(max));
    }
    if text.chars().any(|c| is_in(controls, c) || is_in(DECEPTIVE, c)) {
        return Err(Invalid::ForbiddenCharacters);
    }
    Ok(text.to_owned())
}

/// Validates a JSON document of up to `max` bytes. Returns it unchanged.
///
/// # Errors
/// If the text is too long, or [`json::read`] rejects it.
pub fn json(text: &str, max: usize) -> Result<String, Invalid> {
    if text.len() > max {
        return Err(Invalid::TooLong(max));
    }
    match json::read::<serde_json::Value>(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(json::invalid(&error, "String should contain a JSON document")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_characters_are_rejected_and_all_scripts_are_accepted() {
        for good in ["Zoë", "команда", "運用", "a b", "❤\u{FE0F}", "葛\u{E0100}城", "한글", "e\u{0301}"]
        {
            assert_eq!(name(good, 128).unwrap(), good);
        }
        for bad in [
            "a\u{202E}b",
            "a\u{2066}b",
            "a\0b",
            "a\x1b[31m",
            "a\nb",
            "a\u{200B}b",
            "a\u{AD}b",
            "a\u{3164}",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\u{85}b",
            "a\u{E0041}",
            "a\u{180E}b",
            "a\u{FFF9}b",
            "",
        ] {
            assert!(line(bad, 1, 128).is_err(), "{bad:?}");
        }
        assert!(paragraph("two\u{2029}paragraphs", 20).is_err());
        assert!(paragraph("two\nlines", 20).is_ok());
        assert!(paragraph("two\x07lines", 20).is_err());
    }

    #[test]
    fn blank_text_is_rejected_except_an_empty_paragraph() {
        for blank in [
            " ",
            "\u{A0}",
            "\u{1680}",
            "\u{2003}\u{3000}",
            "\u{202F}\u{205F}",
            "\u{2800}",
            "\u{FE0F}",
            " \u{E0100} ",
            "\u{180B}",
            "\u{1D159}",
            "\u{115F}\u{1160}",
            "\u{3164}",
            "\u{FFA0}",
            "\u{AD}",
            "\u{E0020}\u{E007F}",
            "\u{34F}",
            "\u{2028}",
            "\u{2029}",
        ] {
            assert!(name(blank, 128).is_err(), "{blank:?}");
            assert!(paragraph(blank, 128).is_err(), "{blank:?}");
        }
        assert!(paragraph(" \n\t\r\n", 128).is_err());
        assert_eq!(paragraph("", 128).unwrap(), "");
        assert_eq!(line(" ", 1, 128).unwrap(), " ");
    }

    #[test]
    fn the_tables_contain_every_space_and_control_character() {
        for c in '\0'..=char::MAX {
            assert_eq!(c.is_control(), is_in(CONTROLS, c), "{c:?}");
            assert!(!c.is_whitespace() || [BLANK, CONTROLS, DECEPTIVE].iter().any(|&ranges| is_in(ranges, c)), "{c:?}");
            let may_be_in_line = !is_in(CONTROLS, c) && !is_in(DECEPTIVE, c);
            assert_eq!(c.is_whitespace() && may_be_in_line, is_in(SPACES, c), "{c:?}");
        }
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(line(&"é".repeat(128), 1, 128).is_ok());
        assert!(line(&"é".repeat(129), 1, 128).is_err());
    }
}
