//! Rebuilds the crate when a migration is added (`sqlx::migrate!` notices only edits), joins the files of the console's
//! script and stylesheet, and puts content hashes into the names of its static files.

use std::{error::Error, fmt::Write, fs, path::Path};

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=templates");
    println!("cargo:rerun-if-changed=static");
    let script = join("static/script", "core.js", "page.js")?;
    asset("SCRIPT", "console.js", &format!("'use strict';\n(() => {{\n{script}}})();\n"))?;
    asset("STYLE", "console.css", &join("static/style", "base.css", "utilities.css")?)?;
    for (constant, file) in [("HTMX", "htmx.min.js"), ("ICONS", "icons.svg"), ("FAVICON", "favicon.svg")] {
        asset(constant, file, &read(&Path::new("static").join(file))?)?;
    }
    Ok(())
}

/// Joins the files of a folder by name, except that `first` comes first and `last` last.
fn join(folder: &str, first: &str, last: &str) -> Result<String, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rank = if name == first { 0 } else { 1 + u8::from(name == last) };
        files.push((rank, name, path));
    }
    files.sort();
    files.iter().map(|(.., path)| read(path)).collect()
}

/// Writes a static file to the build directory, where `assets.rs` includes it.
fn asset(constant: &str, file: &str, content: &str) -> Result<(), Box<dyn Error>> {
    let path = Path::new(&std::env::var("OUT_DIR")?).join(file);
    fs::write(&path, content)?;
    let (stem, kind) = file.split_once('.').unwrap_or((file, ""));
    let mut name = format!("{stem}-");
    for byte in Sha256::digest(content).iter().take(6) {
        write!(name, "{byte:02x}")?;
    }
    println!("cargo:rustc-env=ASSET_{constant}={name}.{kind}");
    Ok(())
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    Ok(fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?)
}
