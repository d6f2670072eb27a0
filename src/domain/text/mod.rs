//! Text that people type: bounded in length, free of characters that deceive a reader or a terminal.

pub mod json;
pub mod public_url;
pub mod uri;

use super::error::Invalid;

/// Ranges of characters, both ends included.
type Ranges = &'static [(char, char)];

/// Control characters (category Cc): none is allowed in a line.
const CONTROLS: Ranges = &[('\0', '\u{1F}'), ('\u{7F}', '\u{9F}')];

/// Control characters that are not allowed in a paragraph: all but tab, line feed and carriage return.
const CONTROLS_WITHIN_LINES: Ranges = &[('\0', '\u{8}'), ('\u{B}', '\u{C}'), ('\u{E}', '\u{1F}'), ('\u{7F}', '\u{9F}')];

/// The other ones.
const BREAKS: Ranges = &[('\t', '\n'), ('\r', '\r')];

/// Characters that deceive a reader: bidirectional controls, line and paragraph separators, and characters without a shape, such
/// as soft hyphens, fillers and tags.
const DECEIVING: Ranges = &[
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

/// Characters that are allowed and show nothing by themselves: spaces, variation selectors, the blank Braille pattern and the
/// empty note head.
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

/// The texts that [`line()`] reads, whatever their length, as a regular expression (ECMA-262 with the flag `u`).
#[must_use]
pub fn line_pattern() -> String {
    format!("^[^{}]*$", class(&[CONTROLS, DECEIVING]))
}

/// The texts that [`name()`] reads, whatever their length, as a regular expression.
#[must_use]
pub fn name_pattern() -> String {
    format!("^(?![{}]*$)[^{}]*$", class(&[BLANK]), class(&[CONTROLS, DECEIVING]))
}

/// The texts that [`paragraph()`] reads, whatever their length, as a regular expression.
#[must_use]
pub fn paragraph_pattern() -> String {
    format!("^(?![{}]+$)[^{}]*$", class(&[BREAKS, BLANK]), class(&[CONTROLS_WITHIN_LINES, DECEIVING]))
}

/// The inside of a character class. Characters beyond U+FFFF are not escaped, because engines differ in how they escape them.
fn class(tables: &[Ranges]) -> String {
    let escaped = |c: char| if c <= '\u{FFFF}' { format!("\\u{:04X}", u32::from(c)) } else { c.to_string() };
    let range = |&(first, last): &(char, char)| {
        if first == last { escaped(first) } else { format!("{}-{}", escaped(first), escaped(last)) }
    };
    tables.iter().flat_map(|ranges| ranges.iter()).map(range).collect()
}

/// One line of text of `min` to `max` characters: no control, bidirectional or invisible characters.
///
/// # Errors
/// Says which bound or character class the text breaks.
pub fn line(text: &str, min: usize, max: usize) -> Result<String, Invalid> {
    check(text, min, max, CONTROLS)
}

/// A name: one line of 1 to `max` characters, at least one of them visible.
///
/// # Errors
/// As [`line()`], and when the text is blank.
pub fn name(text: &str, max: usize) -> Result<String, Invalid> {
    visible(line(text, 1, max)?)
}

/// Text of up to `max` characters that may hold line breaks and tabs. Unless empty, it holds a visible character.
///
/// # Errors
/// As [`name()`].
pub fn paragraph(text: &str, max: usize) -> Result<String, Invalid> {
    let text = check(text, 0, max, CONTROLS_WITHIN_LINES)?;
    if text.is_empty() { Ok(text) } else { visible(text) }
}

fn visible(text: String) -> Result<String, Invalid> {
    if text.chars().all(|c| is_in(BLANK, c) || is_in(CONTROLS, c)) {
        return Err(Invalid::new("string_blank", "String should contain a visible character"));
    }
    Ok(text)
}

fn check(text: &str, min: usize, max: usize, controls: Ranges) -> Result<String, Invalid> {
    let length = text.chars().count();
    if length < min {
        return Err(Invalid::too_short(min));
    }
    if length > max {
        return Err(Invalid::too_long(max));
    }
    if text.chars().any(|c| is_in(controls, c) || is_in(DECEIVING, c)) {
        return Err(Invalid::new(
            "string_characters",
            "String should not contain control, bidirectional or invisible characters",
        ));
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
        Err(error) => Err(json::invalid(&error, "String should contain a JSON document")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_text_is_refused_and_foreign_scripts_are_not() {
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
    fn a_name_shows_something_and_a_paragraph_shows_something_or_is_empty() {
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
    fn every_space_and_every_control_is_known() {
        for c in '\0'..=char::MAX {
            assert_eq!(c.is_control(), is_in(CONTROLS, c), "{c:?}");
            assert!(!c.is_whitespace() || [BLANK, CONTROLS, DECEIVING].iter().any(|&ranges| is_in(ranges, c)), "{c:?}");
        }
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert!(line(&"é".repeat(128), 1, 128).is_ok());
        assert!(line(&"é".repeat(129), 1, 128).is_err());
    }
}
