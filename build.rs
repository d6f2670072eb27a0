//! Rebuilds the crate when a migration is added (`sqlx::migrate!` notices only edits), and puts content hashes into the
//! names of the console's static files.

use std::{error::Error, fmt::Write, fs, path::Path};

use sha2::{Digest, Sha256};

const ASSETS: [(&str, &str); 5] = [
    ("HTMX", "htmx.min.js"),
    ("SCRIPT", "console.js"),
    ("STYLE", "console.css"),
    ("ICONS", "icons.svg"),
    ("FAVICON", "favicon.svg"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=templates");
    for (constant, file) in ASSETS {
        let path = Path::new("static").join(file);
        println!("cargo:rerun-if-changed={}", path.display());
        let digest = Sha256::digest(fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
        let (stem, kind) = file.split_once('.').unwrap_or((file, ""));
        let mut name = format!("{stem}-");
        for byte in digest.iter().take(6) {
            write!(name, "{byte:02x}")?;
        }
        println!("cargo:rustc-env=ASSET_{constant}={name}.{kind}");
    }
    Ok(())
}
