//! The file `.env`, read as data: nothing in it is expanded or executed. docs/operations.md describes the grammar.

use std::{collections::HashMap, fs, io, path::Path};

use super::{Problem, settings};

/// Reads the file, if it exists. If a name is set more than once, the last value counts.
///
/// # Errors
/// Lists each invalid line by its number and, if known, its name. Never quotes the line, which may hold a secret.
pub(super) fn read(path: &Path) -> Result<HashMap<String, String>, Vec<Problem>> {
    match fs::read(path) {
        Ok(bytes) => parse(&bytes),
        // A dangling link is an error; a missing file is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => Ok(HashMap::new()),
        Err(error) => Err(vec![Problem(format!(".env cannot be read: {error}"))]),
    }
}

fn parse(bytes: &[u8]) -> Result<HashMap<String, String>, Vec<Problem>> {
    if is_utf16(bytes) {
        return Err(vec![Problem(".env is UTF-16, as some editors of Windows write it; save it as UTF-8".to_owned())]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut values = HashMap::new();
    let mut problems = Vec::new();
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1..) {
        match parse_line(line) {
            Ok(Some((name, value))) => drop(values.insert(name.to_owned(), value)),
            Ok(None) => {}
            Err(wrong) => problems.push(Problem(format!(".env line {number}: {wrong}"))),
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// Returns true for text in UTF-16, which begins with a byte order mark or has a zero byte in each ASCII character.
fn is_utf16(bytes: &[u8]) -> bool {
    let [first, second, ..] = bytes else { return false };
    matches!((first, second), (0xff, 0xfe) | (0xfe, 0xff)) || (*first == 0) != (*second == 0)
}

fn parse_line(line: &[u8]) -> Result<Option<(&str, String)>, String> {
    let line = str::from_utf8(line).map_err(|_| "is not UTF-8")?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).map_or(line, str::trim_start);
    let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim_end(), value)) else {
        let first = line.split_whitespace().next().unwrap_or_default();
        let known = settings().find(|setting| setting.name == first);
        return Err(
            known.map_or("is not of the form NAME=value".to_owned(), |known| format!("{} lacks a =", known.name))
        );
    };
    if !is_name(name) {
        return Err(
            "the name before the = may only contain letters, digits and underscores, and no digit first".to_owned()
        );
    }
    match parse_value(value) {
        Ok(value) if value.contains(char::is_control) => Err(format!("{name} has a control character in its value")),
        Ok(value) => Ok(Some((name, value))),
        Err(wrong) => Err(format!("{name} {wrong}")),
    }
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn parse_value(written: &str) -> Result<String, &'static str> {
    let text = written.trim_start();
    let (value, rest) = if let Some(text) = text.strip_prefix('\'') {
        let (value, rest) = text.split_once('\'').ok_or("has no closing quote on its line")?;
        (value.to_owned(), rest)
    } else if let Some(text) = text.strip_prefix('"') {
        double_quoted(text).ok_or("has no closing quote on its line")?
    } else {
        let mut before_signs = written.match_indices('#').filter_map(|(at, _)| written.get(..at));
        let value = before_signs.find(|before| before.ends_with(char::is_whitespace)).unwrap_or(written);
        return Ok(value.trim().to_owned());
    };
    let comment = rest.trim_start();
    if comment.is_empty() || (comment.starts_with('#') && comment.len() < rest.len()) {
        Ok(value)
    } else {
        Err("has text after its closing quote")
    }
}

/// Returns the value and the text after its closing quote. A backslash escapes only a quote, a backslash or a dollar sign.
fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' if chars.as_str().starts_with(['"', '\\', '$']) => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> String {
        parse(format!("DATABASE_URL={line}").as_bytes()).unwrap().remove("DATABASE_URL").unwrap()
    }

    fn wrong(text: &[u8]) -> String {
        parse(text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_value_is_what_is_written() {
        for (written, read) in [
            ("postgres://u:pa$word@h/d", "postgres://u:pa$word@h/d"),
            ("${HOME}/$(id)/`id`", "${HOME}/$(id)/`id`"),
            (r"C:\new\table", r"C:\new\table"),
            ("  spaced out\t ", "spaced out"),
            ("a'b\"c", "a'b\"c"),
            ("a=b==", "a=b=="),
            ("p#ss", "p#ss"),
            ("value # comment", "value"),
            ("value\t#comment", "value"),
            (" # comment", ""),
            ("#no comment", "#no comment"),
            ("", ""),
            (r"'$word \n \\ # x'", r"$word \n \\ # x"),
            ("'a\"b' # comment", "a\"b"),
            ("\" a $word # b \"", " a $word # b "),
            (r#""\"a\" \\ \$word \n""#, r#""a" \ $word \n"#),
            ("\"\"", ""),
            ("ключ", "ключ"),
        ] {
            assert_eq!(value(written), read, "{written}");
        }
    }

    #[test]
    fn lines_are_read_in_every_common_form() {
        let text = "\u{feff}# comment\r\n\r\n  LOG_LEVEL = debug \r\nexport LOG_FORMAT='json'\r\n\texport\tA_1=x\nexport=y\nLOG_LEVEL=warn";
        let expected = [("LOG_LEVEL", "warn"), ("LOG_FORMAT", "json"), ("A_1", "x"), ("export", "y")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text.as_bytes()).unwrap(), HashMap::from(expected));
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"\xef\xbb\xbf").unwrap().is_empty());
    }

    #[test]
    fn the_example_in_the_documentation_is_read_as_it_says() {
        let page = include_str!("../../docs/operations.md");
        let (_, example) = page.split_once("```dotenv\n# A comment.\n").unwrap();
        let values = parse(example.split_once("```").unwrap().0.as_bytes()).unwrap();
        assert_eq!(values["LOG_FORMAT"], "json");
        assert_eq!(values["JWT_SECRET_KEY"], "anything but a single quote");
        assert!(values["MASTER_KEY_FILE"].starts_with(r#"in double quotes " \ and $ stand"#));
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        for (line, told) in [
            (&b"JWT_SECRET_KEY canary"[..], "JWT_SECRET_KEY lacks a ="),
            (b"export MASTER_KEY", "MASTER_KEY lacks a ="),
            (b"canary", "is not of the form NAME=value"),
            (b"my canary=x", "the name before the ="),
            (b"1canary=x", "the name before the ="),
            (b"=canary", "the name before the ="),
            (b"JWT_SECRET_KEY='canary", "JWT_SECRET_KEY has no closing quote"),
            (b"JWT_SECRET_KEY=\"canary\\\"", "JWT_SECRET_KEY has no closing quote"),
            (b"JWT_SECRET_KEY='canary'x", "JWT_SECRET_KEY has text after its closing quote"),
            (b"JWT_SECRET_KEY=\"canary\"#x", "JWT_SECRET_KEY has text after its closing quote"),
            (b"JWT_SECRET_KEY=canary\0", "JWT_SECRET_KEY has a control character"),
            (b"JWT_SECRET_KEY=canary\xff", "is not UTF-8"),
        ] {
            let text = [b"\xef\xbb\xbfLOG_LEVEL=info\r\n", line, b"\r\nLOG_FORMAT=text\n"].concat();
            let wrong = wrong(&text);
            assert!(wrong.starts_with(&format!(".env line 2: {told}")), "{wrong}");
            assert!(!wrong.contains("canary"), "{wrong}");
        }
        assert_eq!(wrong(b"x\n\ny\n").lines().count(), 2, "every wrong line is told");
        for text in [&b"\xff\xfeA\0=\0x\0"[..], b"\xfe\xff\0A\0=\0x", b"A\0=\0x\0", b"\0A\0=\0x"] {
            assert!(wrong(text).starts_with(".env is UTF-16"), "{text:?}");
        }
    }
}
