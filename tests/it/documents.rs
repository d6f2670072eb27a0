//! The documents: generated pages, links and lengths.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Markdown file for people, relative to the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "deploy", "docs", "docs/decisions", "examples"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn generated_pages_match_the_code() {
    for page in ["configuration", "cli", "audit-events", "metrics"] {
        let file = format!("docs/{page}.md");
        let generated = Command::new(env!("CARGO_BIN_EXE_aims")).args(["docs", page]).output().unwrap();
        assert!(generated.status.success(), "{generated:?}");
        let generated = String::from_utf8(generated.stdout).unwrap();
        assert!(generated == read(&file), "{file} is outdated; run: cargo run -- docs {page} > {file}");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut checked = 0;
    let mut broken = Vec::new();
    for document in documents() {
        for target in links(&read(&document)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(path, a)| (path, Some(a)));
            let path = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let exists = root().join(&path).exists();
            if !exists || anchor.is_some_and(|anchor| !anchors(&read(&path)).contains(anchor)) {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 50, "the search found only {checked} links");
}

#[test]
fn files_of_the_code_that_documents_name_exist() {
    let mut checked = 0;
    let mut missing = Vec::new();
    for document in documents() {
        let text = read(&document);
        // What stands between backticks is every second part.
        for name in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let path = name.split("::").next().unwrap_or(name);
            let is_file = path.starts_with(|c: char| c.is_ascii_lowercase())
                && path.contains('/')
                && Path::new(path).extension().is_some_and(|extension| extension == "rs")
                && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_/.".contains(&byte));
            if !is_file {
                continue;
            }
            checked += 1;
            if !["", "src", "src/service"].iter().any(|folder| root().join(folder).join(path).exists()) {
                missing.push(format!("{}: {name}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(checked > 20, "the search found only {checked} files");
}

#[test]
fn documents_stay_short() {
    for (file, most) in [("README.md", 150), ("BENCHMARKS.md", 120)] {
        let lines = read(file).lines().count();
        assert!(lines <= most, "{file} has {lines} lines, {most} allowed");
    }
}

/// The targets of inline links and images outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let targets = |line: &str| {
        let after_text = line.split("](").skip(1);
        after_text.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect::<Vec<_>>()
    };
    prose(text).flat_map(targets).collect()
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The anchors of the headings, as Markdown viewers derive them.
fn anchors(text: &str) -> HashSet<String> {
    let headings =
        prose(text).filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_search_for_links_finds_them() {
    let text = "# A heading: here\n[a](b.md#c) and ![d](e.png)\n```sh\n[no](x)\n```\n[f](#a-heading-here)\n";
    assert_eq!(links(text), ["b.md#c", "e.png", "#a-heading-here"]);
    assert!(anchors(text).contains("a-heading-here"));
}
