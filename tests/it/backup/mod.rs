//! Backup, restore and verification, by command, as an operator uses them.

mod bad_input;
mod interrupted;
mod keys;
mod memory;
mod round_trip;
mod schedule;
mod undone;
mod writers;

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Aims, Database, Exit};

/// An age identity: the text of its file, and its recipient.
struct Identity {
    file: PathBuf,
    recipient: String,
}

impl Identity {
    /// Generates an identity and writes its file into the database's folder.
    fn new(db: &Database, name: &str) -> Self {
        use age::secrecy::ExposeSecret;
        let identity = age::x25519::Identity::generate();
        let file = db.folder.path().join(name);
        std::fs::write(&file, format!("# for a test\n{}\n", identity.to_string().expose_secret())).unwrap();
        Self { file, recipient: identity.to_public().to_string() }
    }

    fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }
}

/// Returns the path of a file in the database's folder.
fn path(db: &Database, name: &str) -> String {
    db.folder.path().join(name).to_str().unwrap().to_owned()
}

/// Makes a backup and returns its path.
async fn back_up(aims: &Aims, db: &Database, name: &str) -> String {
    let file = path(db, name);
    aims.run(&["backup", "--to", &file, "--json"]).await.json();
    file
}

async fn restore(target: &Database, file: &str, more: &[&str]) -> Exit {
    let arguments = [&["restore", file, "--json"], more].concat();
    Aims::new(target).run(&arguments).await
}

/// Asserts that the audit log of a database is valid, and returns what the command says about it.
async fn verified(aims: &Aims) -> Value {
    let found = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(found["valid"], true, "{found}");
    found
}
