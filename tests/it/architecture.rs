//! Rules of the source code: layers, import cycles, SQL and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each layer with the layers that it may import.
const LAYERS: [(&str, &[&str]); 10] = [
    ("domain", &["domain"]),
    ("clock", &["domain", "clock"]),
    ("telemetry", &["telemetry"]),
    ("crypto", &["domain", "clock", "crypto"]),
    ("store", &["domain", "crypto", "telemetry", "store"]),
    ("service", &["domain", "clock", "crypto", "telemetry", "store", "service"]),
    ("web", &["domain", "clock", "telemetry", "service", "web"]),
    ("config", &["domain", "crypto", "telemetry", "store", "web", "config"]),
    ("app", &["domain", "clock", "telemetry", "crypto", "store", "service", "web", "config", "app"]),
    ("cli", &["domain", "clock", "telemetry", "store", "service", "web", "config", "app", "cli"]),
];

type Module = Vec<String>;

#[test]
fn layers_import_only_lower_layers() {
    let source = Source::read();
    let mut forbidden = Vec::new();
    for (module, text) in &source.modules {
        let Some(layer) = module.first() else { continue };
        let (_, allowed) = LAYERS.iter().find(|(name, _)| name == layer).expect("a layer that the table lacks");
        for path in imports(text).iter().filter_map(|path| source.absolute(path, module)) {
            if !allowed.contains(&path[0].as_str()) {
                forbidden.push(format!("{} imports {}", module.join("::"), path.join("::")));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn modules_import_each_other_without_cycles() {
    let source = Source::read();
    let mut graph = BTreeMap::new();
    for (module, text) in &source.modules {
        let targets = imports(text).into_iter().filter_map(|path| source.target(&path, module));
        let others = targets.filter(|target| target != module).map(|target| target.join("::"));
        graph.insert(module.join("::"), others.collect::<BTreeSet<_>>());
    }
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 400, "the search found too few imports");
    // A module outside of every cycle runs out of imports, or of modules that import it.
    while let Some(outside) = outside_of_cycles(&graph) {
        graph.remove(&outside);
        for targets in graph.values_mut() {
            targets.remove(&outside);
        }
    }
    assert!(graph.is_empty(), "these modules import each other: {graph:#?}");
}

fn outside_of_cycles(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let is_imported = |module: &String| graph.values().any(|targets| targets.contains(module));
    let mut modules = graph.iter();
    modules.find(|(module, targets)| targets.is_empty() || !is_imported(module)).map(|(module, _)| module.clone())
}

#[test]
fn folders_stay_small() {
    const MOST: usize = 14;
    let mut folders = vec![source_folder()];
    while let Some(folder) = folders.pop() {
        let entries: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(entries.len() <= MOST, "{} has {} entries: group them by subject", folder.display(), entries.len());
        folders.extend(entries.into_iter().filter(|path| path.is_dir()));
    }
}

/// `SQLite` plans a prepared statement again for each value of a bare parameter after LIMIT.
#[test]
fn limit_parameters_have_a_sign() {
    let source = Source::read();
    let bare: Vec<_> = source.modules.iter().filter(|(_, text)| text.contains("LIMIT $")).map(|(m, _)| m).collect();
    assert!(bare.is_empty(), "write `LIMIT +$1`: {bare:?}");
}

/// Closing any descriptor of the database drops `SQLite`'s locks, so a module that opens files must not open the database.
#[test]
fn only_known_modules_open_files() {
    /// Each module with the reason that it cannot open the database.
    const KNOWN: [(&str, &str); 9] = [
        ("app::master_key::file", "its caller asks the store whether the file is the database"),
        ("cli::setup::bootstrap", "creates new files only"),
        ("config::env_file", "reads `.env` before the database is opened"),
        ("service::backup::file", "creates new files, and reads backups before a database is opened"),
        ("store::backup::scratch", "creates a new database file, which SQLite opens afterwards"),
        ("store::backup::sqlite", "syncs a new database that SQLite has closed"),
        ("store::audit::archive", "creates new files, and reads archives before the database is opened"),
        ("store::seed", "its caller asks the store whether the file is the database"),
        ("store::db::sqlite_file", "opens the lock file"),
    ];
    const OPENING: [&str; 5] = ["File::open", "OpenOptions::new", "fs::copy", "fs::read(", "fs::write("];
    let source = Source::read();
    let opens = |text: &str| OPENING.iter().any(|opening| text.contains(opening));
    let found: Vec<_> =
        source.modules.iter().filter(|(_, text)| opens(text)).map(|(module, _)| module.join("::")).collect();
    let unknown: Vec<_> = found.iter().filter(|module| !KNOWN.iter().any(|(known, _)| known == module)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(found.len() > 3, "the search found only {found:?}");
}

/// What is sealed must also be sealed anew when the master key is rotated: see `store::tokens::sealed`.
#[test]
fn only_known_modules_seal_values() {
    /// Each module with the reason that its values survive a rotation.
    const KNOWN: [(&str, &str); 6] = [
        ("crypto::totp", "seals for its caller"),
        ("service::core::act", "an answer is kept for a day; without its key it is not repeated"),
        ("service::master_key::rotation", "seals anew"),
        ("service::people::factors", "its column is listed; a setup that has begun is repeated"),
        ("service::tokens::new_signing_keys", "its column is listed"),
        ("service::tokens::signing_keys", "its column is listed"),
    ];
    let source = Source::read();
    let sealing = source.modules.iter().filter(|(_, text)| text.contains(".seal("));
    let found: Vec<_> = sealing.map(|(module, _)| module.join("::")).collect();
    assert_eq!(found, KNOWN.map(|(module, _)| module));
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules of the library with their text, without their tests.
struct Source {
    modules: BTreeMap<Module, String>,
    /// What `pub use` makes available, and where it is.
    exports: BTreeMap<Module, Module>,
}

impl Source {
    fn read() -> Self {
        let mut source = Self { modules: BTreeMap::new(), exports: BTreeMap::new() };
        let mut folders = vec![source_folder()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                    source.add(&path);
                }
            }
        }
        assert!(source.modules.len() > 100, "the walk found only {} modules", source.modules.len());
        for (module, text) in &source.modules {
            for statement in statements(text).filter(|statement| statement.starts_with("pub")) {
                for path in tree(&statement) {
                    if let (Some(name), Some(target)) = (path.last().cloned(), source.absolute(&path, module)) {
                        source.exports.insert([module.clone(), vec![name]].concat(), target);
                    }
                }
            }
        }
        source
    }

    fn add(&mut self, path: &Path) {
        let inside = path.strip_prefix(source_folder()).unwrap().with_extension("");
        let mut module: Module = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
            module.pop();
        }
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
        self.modules.entry(module).or_default().push_str(&text);
    }

    /// The path from the root of the crate; `None` for a path into another crate.
    fn absolute(&self, path: &[String], module: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => self.absolute(rest, module).or_else(|| Some([module, rest].concat())),
            "super" => {
                let parent = &module[..module.len() - 1];
                let rest_is_super = rest.first().is_some_and(|next| next == "super");
                if rest_is_super { self.absolute(rest, parent) } else { Some([parent, rest].concat()) }
            }
            _ => {
                let child = [module, &path[..1]].concat();
                self.modules.contains_key(&child).then(|| [module, path].concat())
            }
        }
        .filter(|path| !path.is_empty())
    }

    /// The module in which the named item is defined.
    fn target(&self, path: &[String], module: &[String]) -> Option<Module> {
        let mut path = self.absolute(path, module)?;
        while let Some((known, defined)) = (1..=path.len()).rev().find_map(|n| Some((n, self.exports.get(&path[..n])?)))
        {
            path = [defined.as_slice(), &path[known..]].concat();
        }
        (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|prefix| self.modules.contains_key(prefix))
    }
}

/// The `use` statements of a module, each on one line.
fn statements(text: &str) -> impl Iterator<Item = String> {
    let starts = |line: &str| line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "));
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = rest.lines().scan(0, |at, line| {
            let start = *at;
            *at += line.len() + 1;
            Some((start, line))
        });
        let (start, _) = at.into_iter().find(|(_, line)| starts(line))?;
        let (statement, after) = rest[start..].split_once(';')?;
        rest = after;
        Some(statement.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Every path that a module names: in its private `use` statements, and after `crate::` or `super::` in its code.
fn imports(text: &str) -> Vec<Module> {
    let mut paths: Vec<_> = statements(text)
        .filter(|statement| statement.starts_with("use "))
        .flat_map(|statement| tree(&statement))
        .collect();
    let code = text.lines().filter(|line| {
        !line.trim_start().starts_with("//")
            && !line.starts_with("use ")
            && !line.starts_with("pub")
            && !line.contains("pub(in")
    });
    for line in code {
        for start in ["crate::", "super::"] {
            for (at, _) in line.match_indices(start) {
                let end = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
                let path = line[at..].split(end).next().unwrap();
                let path: Module = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                if path.len() > 1 {
                    paths.push(path);
                }
            }
        }
    }
    paths
}

/// The paths of a `use` statement.
fn tree(statement: &str) -> Vec<Module> {
    let (_, text) = statement.split_once("use ").unwrap();
    let mut paths = Vec::new();
    expand(text, &[], &mut paths);
    paths
}

fn expand(text: &str, before: &[String], paths: &mut Vec<Module>) {
    let text = text.trim();
    let (head, group) = text.split_once('{').map_or((text, None), |(head, group)| (head, Some(group)));
    let head = head.split(" as ").next().unwrap();
    let named =
        head.split("::").map(str::trim).filter(|part| !part.is_empty() && (before.is_empty() || *part != "self"));
    let path: Module = before.iter().cloned().chain(named.map(str::to_owned)).collect();
    let Some(group) = group else {
        return paths.push(path);
    };
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&group[start..at], &path, paths);
                }
                start = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_parser_of_imports_finds_every_path() {
    let text = "use crate::{\n    domain::{self, Agent, error::Error},\n    store::db as database,\n};\nuse super::a;\n\
        fn f() {\n    let x = crate::web::API_PREFIX;\n}\n";
    let found: Vec<_> = imports(text).iter().map(|path| path.join("::")).collect();
    let expected = [
        "crate::domain",
        "crate::domain::Agent",
        "crate::domain::error::Error",
        "crate::store::db",
        "super::a",
        "crate::web::API_PREFIX",
    ];
    assert_eq!(found, expected);
}
