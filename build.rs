//! Rebuilds the crate when a migration is added: `sqlx::migrate!` alone notices only edits.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
