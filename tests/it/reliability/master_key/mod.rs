//! The master key: rotation beside the running service, interruptions at every step, and where keys come from.

mod command;
mod file;
mod interrupted;
mod rotation;

use serde_json::Value;

use crate::support::{Aims, Exit};

const ROTATE: [&str; 2] = ["master-key", "rotate"];
const STATUS: [&str; 3] = ["master-key", "status", "--json"];

/// A master key whose digits repeat this pair.
fn key(pair: &str) -> String {
    pair.repeat(32)
}

/// The key of [`Aims::new`] and of the test server.
fn old() -> String {
    key("0f")
}

fn new() -> String {
    key("1e")
}

/// Asserts that all values are sealed with the newest key, which also seals new ones. Returns the status.
#[track_caller]
fn assert_all_newest(status: &Exit) -> Value {
    let status = status.json();
    assert_eq!(status["sealing"], status["newest"], "{status}");
    for (kind, counts) in status["values"].as_object().unwrap() {
        assert_eq!((&counts["previous"], &counts["unknown"]), (&Value::from(0), &Value::from(0)), "{kind}: {status}");
    }
    status
}

/// Runs a command and asserts that it succeeds and shows none of these keys.
async fn succeeds(aims: &Aims, arguments: &[&str], keys: &[&str]) -> Exit {
    let exit = aims.run(arguments).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for key in keys {
        assert!(!exit.stdout.contains(key) && !exit.stderr.contains(key), "{exit:?}");
    }
    exit
}
