//! The rooms of the house know only those before them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each room with the rooms it may name.
const ROOMS: [(&str, &[&str]); 9] = [
    ("domain", &["domain"]),
    ("clock", &["domain", "clock"]),
    ("crypto", &["domain", "clock", "crypto"]),
    ("store", &["domain", "crypto", "store"]),
    ("service", &["domain", "clock", "crypto", "store", "service"]),
    ("web", &["domain", "clock", "service", "web"]),
    ("config", &["domain", "crypto", "store", "web", "config"]),
    ("app", &["domain", "clock", "crypto", "store", "service", "web", "config", "app"]),
    ("cli", &["domain", "clock", "store", "service", "web", "config", "app", "cli"]),
];

#[test]
fn every_room_knows_only_those_before_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    assert!(files.len() > 40, "the walk found only {} files", files.len());
    let mut trespasses = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).expect("a room that the plan lacks");
        for named in rooms_named(&fs::read_to_string(&file).unwrap()) {
            if !allowed.contains(&named.as_str()) {
                trespasses.push(format!("{} names {named}", inside.display()));
            }
        }
    }
    assert!(trespasses.is_empty(), "{trespasses:#?}");
}

#[test]
fn no_limit_has_sqlite_plan_a_prepared_statement_anew() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let bare = |file: &PathBuf| fs::read_to_string(file).unwrap().contains("LIMIT $");
    let found: Vec<_> = files.into_iter().filter(bare).collect();
    assert!(found.is_empty(), "a bound number needs a sign, `LIMIT +$1`: {found:?}");
}

/// Closing any descriptor of the database drops SQLite's locks, so a module that opens files by path must not open the database.
#[test]
fn only_known_modules_open_files() {
    /// Each module with the reason that it cannot open the database.
    const KNOWN: [(&str, &str); 6] = [
        ("app/master_key.rs", "asks the store whether the file is the database"),
        ("cli/bootstrap.rs", "creates new files only"),
        ("config/env_file.rs", "reads `.env` before the database is opened"),
        ("store/audit/archive.rs", "creates new files, and reads archives before the database is opened"),
        ("store/seed.rs", "its caller asks the store whether the file is the database"),
        ("store/db/sqlite_file.rs", "opens the lock file"),
    ];
    const OPENING: [&str; 5] = ["File::open", "OpenOptions::new", "fs::copy", "fs::read(", "fs::write("];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let opens = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        OPENING.iter().any(|opening| text.contains(opening))
    };
    let found: Vec<_> = files.iter().filter(|file| !file.ends_with("tests.rs") && opens(file)).collect();
    let unknown = found.iter().filter(|file| !KNOWN.iter().any(|(known, _)| file.ends_with(known)));
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&PathBuf>::new());
    assert!(found.len() > 3, "the search finds only {found:?}");
}

/// The rooms that a file names: after `crate::`, or in the braces of `use crate::{…}`.
fn rooms_named(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => named.push(first_word(&std::mem::take(&mut item))),
                    _ if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            named.push(first_word(&item));
        } else {
            named.push(first_word(rest));
        }
    }
    named.retain(|room| !room.is_empty());
    named
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_walk_finds_what_is_named() {
    let text = "use crate::{\n    domain::{Agent, error::Error},\n    store::db,\n};\nlet x = crate::web::API_PREFIX;";
    assert_eq!(rooms_named(text), ["domain", "store", "web"]);
}
