//! Rebuilds the crate when a migration is added (`sqlx::migrate!` alone notices only edits), and names the console's
//! files by their content.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

const ASSETS: [(&str, &str); 5] = [
    ("HTMX", "htmx.min.js"),
    ("SCRIPT", "console.js"),
    ("STYLE", "console.css"),
    ("ICONS", "icons.svg"),
    ("FAVICON", "favicon.svg"),
];

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=templates");
    for (constant, file) in ASSETS {
        let path = Path::new("static").join(file);
        println!("cargo:rerun-if-changed={}", path.display());
        let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let digest = Sha256::digest(content);
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let (stem, kind) = file.split_once('.').unwrap_or((file, ""));
        println!("cargo:rustc-env=ASSET_{constant}={stem}-{digest}.{kind}");
    }
}
