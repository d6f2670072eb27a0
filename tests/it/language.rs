//! Checks that no text for people contains wording that the project has replaced with plain English.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// Files and folders with text for people.
const SOURCES: [&str; 9] = [
    "templates",
    "static/script",
    "src",
    "docs",
    "deploy",
    "README.md",
    "BENCHMARKS.md",
    "examples/README.md",
    SNAPSHOTS,
];

const SNAPSHOTS: &str = "tests/it/api/snapshots";

const EXTENSIONS: [&str; 6] = ["html", "js", "rs", "sql", "md", "snap"];

/// Replaced phrases, as whole words.
const PHRASES: [&str; 35] = [
    "Whom or what",
    "Its id",
    "May do",
    "Take back",
    "What access tokens are signed with",
    "The next key is published before it signs",
    "The keys are lost to somebody",
    "Agents that may exchange this one's tokens",
    "by which they act",
    "Become the owner",
    "The same password again",
    "See what still uses it",
    "Decide what becomes of it",
    "Whether nothing is in the database",
    "a client that is at it",
    "nothing is as it should be without",
    "Mend what is marked below",
    "The old key still works for",
    "Until a day",
    "made of it",
    "Tell them the password",
    "on a way that you trust",
    "records hold,",
    "Nothing does.",
    "Not possible that way",
    "Nothing is called that",
    "the last of those that are good",
    "good for longer than a day",
    "makes its own agent no other one",
    "For how long it is counted",
    "turned away",
    "the endpoint that there is not yet",
    "What is known of",
    "several nodes together",
    "for ones by which",
];

/// Replaced labels. As ordinary words they are fine, so they count only as the whole text of an element or attribute.
const LABELS: [&str; 10] =
    ["When", "Who", "What", "From", "About", "Acts", "Works for", "No longer", "signs", "The whole log"];

#[test]
fn texts_contain_no_replaced_wording() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files);
    }
    assert!(files.len() > 200, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().display();
        let is_page = file.extension().is_some_and(|extension| extension == "html" || extension == "js");
        for (line, phrase) in replaced(&text, is_page) {
            found.push(format!("{name}:{line}: {phrase}"));
        }
    }
    assert!(found.is_empty(), "replaced wording:\n{}", found.join("\n"));
}

#[test]
fn phrases_are_found_as_whole_words_and_across_lines() {
    let text = "/// A sentence about a client that\n/// is at it, in a comment.\nlet text = \"Take \\\n    back\";\nTake backups.\n";
    assert_eq!(replaced(text, false), [(1, "a client that is at it"), (3, "Take back")]);
    let page = "<p>What About Acts</p>\n<th>Who</th>\n<td data-label=\"From\"></td>\n{% if key.state == \"signs\" %}";
    assert_eq!(replaced(page, true), [(2, "Who"), (3, "From")]);
    assert_eq!(replaced(page, false), []);
}

/// Returns the replaced wording in a text, each with its line.
fn replaced(text: &str, is_page: bool) -> Vec<(usize, &'static str)> {
    let (flat, lines) = flatten(text);
    let line_of = |offset: usize| lines.iter().rfind(|(start, _)| *start <= offset).map_or(1, |(_, line)| *line);
    let mut found = Vec::new();
    for phrase in PHRASES {
        let hits = flat.match_indices(phrase).filter(|(at, _)| are_words(&flat, *at..at + phrase.len()));
        found.extend(hits.map(|(at, _)| (at, phrase)));
    }
    for label in LABELS.iter().filter(|_| is_page) {
        for (before, after) in [(">", "<"), ("=\"", "\""), (", \"", "\""), ("(\"", "\"")] {
            let whole = format!("{before}{label}{after}");
            found.extend(flat.match_indices(&whole).map(|(at, _)| (at, *label)));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(at, phrase)| (line_of(at), phrase)).collect()
}

/// Joins the lines of a text with spaces, without indentation, comment markers and the backslash that continues a string.
/// Returns the joined text, and the offset at which each line starts.
fn flatten(text: &str) -> (String, Vec<(usize, usize)>) {
    let mut flat = String::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_start_matches(['/', '!', '*', '>', '#', '-']).trim_start();
        let line = line.strip_suffix('\\').unwrap_or(line).trim_end();
        lines.push((flat.len(), index + 1));
        flat.push_str(line);
        flat.push(' ');
    }
    (flat, lines)
}

fn are_words(text: &str, range: Range<usize>) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let phrase = &text[range.clone()];
    let starts = !text[..range.start].ends_with(is_word) || !phrase.starts_with(is_word);
    let ends = !text[range.end..].starts_with(is_word) || !phrase.ends_with(is_word);
    starts && ends
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
        files.push(path.to_owned());
    }
}
