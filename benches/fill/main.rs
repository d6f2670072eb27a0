//! Fills a database with a fleet, and measures what listings, searches and audit filters cost on it.
//!
//! `cargo bench --bench fill -- --database URL --agents N --records N`
//!
//! fills an empty database (PostgreSQL: one that exists): agents, two keys and five grants for each, and a valid chain
//! of audit records.
//!
//! `cargo bench --bench fill -- --measure --database URL [--database URL]...`
//!
//! measures each operation on each of the databases that were filled so, one database after another, and prints a
//! table. A figure is the time of one call of the service's use case, without HTTP and JSON, in ms: the median and the
//! 99th percentile over calls with different agents and places. Caches are warm: each operation runs a few times before
//! it counts.
//!
//! `cargo test` runs this file too, without `--bench`; it then does nothing.

#![expect(unreachable_pub, reason = "a benchmark has no outside")]

mod fleet;
mod load;
mod measure;

use std::{env, process::ExitCode};

use aims::config::Config;
use clap::Parser;
use fleet::Fleet;

/// Whatever ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Options {
    /// Where: `sqlite:////PATH` or `postgres://…`, as in `DATABASE_URL`.
    #[arg(long, required = true)]
    database: Vec<String>,
    /// Agents to make.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    agents: u64,
    /// Audit records to make.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
    /// Measure databases that were filled before.
    #[arg(long)]
    measure: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let outcome = if env::args().any(|argument| argument == "--bench") {
        run(&Options::parse())
    } else {
        println!("skipped: runs only under `cargo bench --bench fill`");
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

fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    if options.measure {
        return runtime.block_on(measure::compare(&options.database));
    }
    let fleet = Fleet { agents: options.agents, records: options.records };
    for url in &options.database {
        runtime.block_on(load::fill(url, fleet))?;
    }
    Ok(())
}

/// Settings for a database, as the service reads them.
fn config(url: &str) -> Result<Config, Failure> {
    let settings = [("DATABASE_URL", url.to_owned()), ("MASTER_KEY", "0f".repeat(32))];
    let value = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    Config::load(value).map_err(|error| format!("{error:?}").into())
}
