//! What the service costs under load, beside a bare axum handler measured in the same run.
//!
//! `cargo bench --bench serve [-- [--operation NAME] [--connections N,...] [--seconds N] [--quick]]`
//!
//! Starts the optimised `aims` as its own process on a fresh SQLite database under `target/tmp`, with every setting as
//! shipped but the rate limits, which are out of the way; once more for each other signing algorithm; once more in a
//! build that issues tokens without recording them, which shows what the audit log costs and takes some minutes to make
//! the first time; and starts itself as a bare `axum::serve` with one constant JSON answer. Then, for each number of
//! connections, asks each for a fixed time over keep-alive HTTP/1.1 connections, one request at a time on each. A
//! request that fails, or is answered with anything but 2xx, fails the run.
//!
//! | Column        | Unit | What it says                                                                    |
//! |---------------|------|---------------------------------------------------------------------------------|
//! | `requests/s`  | 1/s  | Answers that arrived within the measured time, after a warm-up that is not counted |
//! | `p50`, `p99`  | ms   | From before the request is written to after the answer is read; at most 1.6 % too high |
//! | `of bare`     | %    | `requests/s` as a share of the bare handler's at as many connections            |
//! | `server µs`   | µs   | Processor time of the server, user and system, per request; resolved to 10 ms a run |
//! | `client µs`   | µs   | The same of the load generator, which shares the machine                        |
//!
//! Limits. Client and server share the processors, so where they are few the rates are bounded by both: `requests/s` is
//! at most the generator's threads divided by `client µs`, and never what the server does alone. The load is closed:
//! each connection waits for its answer, so latencies under overload are not those of arrivals that do not wait. The
//! figures depend on how long the disk takes to flush, which is measured and printed first. Compare ratios of one run,
//! not times of different machines.

use std::{
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    path::Path,
    rc::Rc,
    thread::available_parallelism,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    Failure, SCRATCH,
    load::{Measured, measure},
    machine::Flush,
    millis, operations,
    server::{self, Installation, Process},
};

const UNAUDITED: &str = "exchange unaudited";
const ES256: (&str, &str) = ("JWT_ALGORITHM", "ES256");
const OTHER_ALGORITHMS: [(&str, (&str, &str)); 3] = [
    ("exchange EdDSA", ("JWT_ALGORITHM", "EdDSA")),
    ("exchange RS256", ("JWT_ALGORITHM", "RS256")),
    ("exchange HS256", ("JWT_SECRET_KEY", "a secret of the benchmark, longer than 32 bytes")),
];

#[derive(Args)]
pub struct Options {
    /// Measure only operations whose name contains this; the bare handler is always measured.
    #[arg(long)]
    operation: Option<String>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values = ["1", "32", "256"])]
    connections: Vec<NonZeroUsize>,
    /// Measured time of each operation at each number of connections, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Measure for one second each.
    #[arg(long)]
    quick: bool,
}

impl Options {
    fn wants(&self, operation: &str) -> bool {
        self.operation.as_ref().is_none_or(|part| operation.contains(part))
    }
}

/// Measures everything that is wanted, and prints and writes the table.
pub fn run(options: &Options) -> Result<(), Failure> {
    let duration = Duration::from_secs(if options.quick { 1 } else { options.seconds });
    let cores = available_parallelism()?.get();
    let unaudited = if options.wants(UNAUDITED) {
        Some(server::build_unaudited(&Path::new(SCRATCH).with_file_name("unaudited"))?)
    } else {
        None
    };
    // As many for the clients as for the server.
    let threads = (cores / 2).max(1);
    let scratch = tempfile::tempdir_in(SCRATCH)?;
    let flush = Flush::time(scratch.path())?;
    let load_before = fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned();
    println!("processors {cores}, load before {load_before}, generator threads {threads}");
    flush.say();
    println!("measured for {} s each", duration.as_secs());

    let start = |program: Option<&Path>, name: &str, (setting, value): (&str, &str)| {
        let directory = scratch.path().join(name);
        fs::create_dir(&directory)?;
        let installation = Installation::new(&directory).with(setting, value);
        let installation = if let Some(program) = program { installation.program(program) } else { installation };
        let made = installation.bootstrap(&[])?;
        Ok::<_, Failure>((installation.start()?, made))
    };
    let mut measured = vec![(Rc::new(Process::start_bare()?), operations::hello())];
    let (process, made) = start(None, "ES256", ES256)?;
    let process = Rc::new(process);
    measured.extend(operations::all(process.address, &made)?.into_iter().map(|operation| (process.clone(), operation)));
    for (name, signing) in OTHER_ALGORITHMS {
        if options.wants(name) {
            let (process, made) = start(None, name, signing)?;
            let operation = operations::exchanges(name, process.address, &made)?;
            measured.push((Rc::new(process), operation));
        }
    }
    if let Some(program) = unaudited {
        let (process, made) = start(Some(&program), UNAUDITED, ES256)?;
        let operation = operations::exchanges(UNAUDITED, process.address, &made)?;
        measured.push((Rc::new(process), operation));
    }
    measured.retain(|(_, operation)| operation.name == operations::BARE || options.wants(operation.name));

    println!(
        "\n{:<18} {:>11} {:>11} {:>9} {:>9} {:>8} {:>10} {:>10}",
        "operation", "connections", "requests/s", "p50 ms", "p99 ms", "of bare", "server µs", "client µs"
    );
    let mut results = Vec::new();
    let mut failed = 0;
    for connections in options.connections.iter().map(|number| number.get()) {
        let mut reference = None;
        for (process, operation) in &measured {
            let measured = measure(process, operation, connections, threads, duration)?;
            let rate = measured.rate();
            let share = rate / *reference.get_or_insert(rate);
            show(operation.name, connections, &measured, share)?;
            failed += measured.failures;
            results.push(describe(operation.name, connections, &measured, share));
        }
    }

    let report = json!({
        "processors": cores,
        "generator_threads": threads,
        "load_before": load_before,
        "fdatasync_4kib_ms": millis(flush.alone),
        "fdatasync_4kib_beside_a_busy_processor_ms": millis(flush.beside_a_busy_processor),
        "seconds": duration.as_secs(),
        "results": results,
    });
    let path = Path::new(SCRATCH).with_file_name("bench-serve.json");
    fs::write(&path, format!("{report:#}\n"))?;
    println!("\nwritten to {}", path.display());
    if failed > 0 { Err(format!("{failed} requests failed").into()) } else { Ok(()) }
}

fn show(name: &str, connections: usize, measured: &Measured, share: f64) -> io::Result<()> {
    println!(
        "{name:<18} {connections:>11} {:>11.0} {:>9.3} {:>9.3} {:>7.1}% {:>10.1} {:>10.1}",
        measured.rate(),
        millis(measured.latencies.quantile(0.50)),
        millis(measured.latencies.quantile(0.99)),
        share * 100.0,
        measured.per_request(measured.server_cpu),
        measured.per_request(measured.client_cpu),
    );
    if let Some(example) = &measured.example {
        println!("  {} failed, for example: {example}", measured.failures);
    }
    io::stdout().flush()
}

fn describe(name: &str, connections: usize, measured: &Measured, share: f64) -> Value {
    json!({
        "operation": name,
        "connections": connections,
        "requests": measured.latencies.count(),
        "failures": measured.failures,
        "requests_per_second": measured.rate(),
        "p50_ms": millis(measured.latencies.quantile(0.50)),
        "p99_ms": millis(measured.latencies.quantile(0.99)),
        "share_of_bare": share,
        "server_cpu_us_per_request": measured.per_request(measured.server_cpu),
        "client_cpu_us_per_request": measured.per_request(measured.client_cpu),
    })
}
