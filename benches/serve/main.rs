//! What the service costs, under load and on large fleets.
//!
//! | Command, after `cargo bench --bench serve --` | What it does |
//! |---|---|
//! | (none)     | prints what each operation costs beside a bare axum handler: [`table`] |
//! | `overload` | offers three times the load that it can carry: [`overload`] |
//! | `nodes`    | several nodes on one PostgreSQL database: [`nodes`] |
//! | `fill`     | fills a database with a fleet and its history: [`fleet`] |
//! | `fleet`    | what the service costs on databases that were filled: [`fleet::served`] |
//! | `calls`    | the same of the calls behind lists, searches and filters: [`fleet::calls`] |
//!
//! Each starts the optimised `aims` as a process of its own. Linux only: processor times and memory come from `/proc`.
//! `cargo test` runs this file too, without `--bench`; it then does nothing.

#![expect(unreachable_pub, reason = "a benchmark has no outside")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]

mod fleet;
mod histogram;
mod http;
mod load;
mod machine;
mod nodes;
mod operations;
mod overload;
mod server;
mod table;

use std::{env, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// Whatever ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where files go while it runs: on a disk, which the system's temporary directory may not be.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
/// Seals the signing keys of databases that outlast a run.
const MASTER_KEY: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    table: table::Options,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    Overload(overload::Options),
    Nodes(nodes::Options),
    Fill(fleet::fill::Options),
    Fleet(fleet::served::Options),
    Calls(fleet::calls::Options),
}

fn main() -> ExitCode {
    let outcome = if env::args().any(|argument| argument == server::BARE) {
        server::serve_bare()
    } else if env::args().any(|argument| argument == "--bench") {
        let options = Options::parse();
        match &options.command {
            None => table::run(&options.table),
            Some(Command::Overload(options)) => overload::run(options),
            Some(Command::Nodes(options)) => nodes::run(options),
            Some(Command::Fill(options)) => fleet::fill::run(options),
            Some(Command::Fleet(options)) => fleet::served::run(options),
            Some(Command::Calls(options)) => fleet::calls::run(options),
        }
    } else {
        println!("skipped: measures only under `cargo bench --bench serve`");
        Ok(())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
