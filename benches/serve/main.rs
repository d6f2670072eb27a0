//! Benchmarks of the service under load and on large fleets.
//!
//! | Command, after `cargo bench --bench serve --` | What it does |
//! |---|---|
//! | (none)     | measures each operation and compares it with a bare axum handler: [`table`] |
//! | `overload` | offers three times the load that the service can carry: [`overload`] |
//! | `nodes`    | measures several nodes on one PostgreSQL database: [`nodes`] |
//! | `telemetry` | compares the service with and without metrics and access log: [`telemetry`] |
//! | `fill`     | fills a database with a fleet and its history: [`fleet`] |
//! | `fleet`    | measures the service over a socket on filled databases: [`fleet::served`] |
//! | `console`  | measures the pages of the console on filled databases: [`fleet::console`] |
//! | `calls`    | measures the service calls behind lists, searches and filters: [`fleet::calls`] |
//!
//! Each starts the optimised `aims` as its own process. Linux only: CPU times and memory come from `/proc`.
//! `cargo test` also builds and runs this file, without `--bench`; it then does nothing.

#![expect(unreachable_pub, reason = "a benchmark is not a library")]
#![expect(clippy::cast_precision_loss, reason = "displayed figures, far below 2^52")]

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
mod telemetry;

use std::{env, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// Any error that ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Directory for files during a run. It is on a disk, unlike the system's temporary directory on some machines.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
/// Encrypts the signing keys of databases that are kept between runs.
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
    Telemetry(telemetry::Options),
    Fill(fleet::fill::Options),
    Fleet(fleet::served::Options),
    Calls(fleet::calls::Options),
    Console(fleet::console::Options),
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
            Some(Command::Telemetry(options)) => telemetry::run(options),
            Some(Command::Fill(options)) => fleet::fill::run(options),
            Some(Command::Fleet(options)) => fleet::served::run(options),
            Some(Command::Calls(options)) => fleet::calls::run(options),
            Some(Command::Console(options)) => fleet::console::run(options),
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
