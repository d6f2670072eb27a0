//! Measures each operation under load and compares it with a bare axum handler in the same run.
//!
//! `cargo bench --bench serve [-- [--operation NAME] [--connections N,...] [--seconds N] [--quick]]`
//!
//! Starts the optimised `aims` as its own process on a fresh SQLite database under `target/tmp`, with default settings
//! except that the rate limits are practically off; again for each other signing algorithm; and again in a build that
//! issues tokens without audit records, which shows the cost of the audit log and takes some minutes to compile the
//! first time. Also starts itself as a bare `axum::serve` with one constant JSON response. Then, for each number of
//! connections, sends requests for a fixed time over keep-alive HTTP/1.1 connections, one request at a time on each. A
//! failed request or a status other than 2xx fails the run.
//!
//! | Column        | Unit | Meaning                                                                         |
//! |---------------|------|---------------------------------------------------------------------------------|
//! | `requests/s`  | 1/s  | Responses that arrived within the measured time, after an unmeasured warm-up    |
//! | `p50`, `p99`  | ms   | From before the request is written until the response is read; at most 1.6 % too high |
//! | `of bare`     | %    | `requests/s` as a share of the bare handler's at the same number of connections |
//! | `server µs`   | µs   | CPU time of the server per request, user and system; resolution 10 ms per run   |
//! | `client µs`   | µs   | CPU time of the load generator per request; it shares the machine               |
//!
//! Limits. Client and server share the CPUs, so on a small machine both bound the rate: `requests/s` is at most the
//! generator's threads divided by `client µs`, and never the capacity of the server alone. The load is closed: each
//! connection waits for its response, so latencies under overload differ from those of an open arrival process. The
//! figures depend on the disk's flush time, which is measured and printed first. Compare ratios within one run, not
//! times of different machines.

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
#[group(skip)]
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

/// Measures the selected operations, prints the table and writes it to a file.
pub fn run(options: &Options) -> Result<(), Failure> {
    let duration = Duration::from_secs(if options.quick { 1 } else { options.seconds });
    let cores = available_parallelism()?.get();
    let unaudited = if options.wants(UNAUDITED) {
        Some(server::build_unaudited(&Path::new(SCRATCH).with_file_name("unaudited"))?)
    } else {
        None
    };
    // The same number of threads for the clients as for the server.
    let threads = (cores / 2).max(1);
    let scratch = tempfile::tempdir_in(SCRATCH)?;
    let flush = Flush::time(scratch.path())?;
    let load_before = fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned();
    println!("processors {cores}, load before {load_before}, generator threads {threads}");
    flush.print();
    println!("measured for {} s each", duration.as_secs());

    let start = |program: Option<&Path>, name: &str, (setting, value): (&str, &str)| {
        let directory = scratch.path().join(name);
        fs::create_dir(&directory)?;
        let installation = Installation::new(&directory).with(setting, value);
        let installation = if let Some(program) = program { installation.program(program) } else { installation };
        let bootstrap = installation.bootstrap(&[])?;
        Ok::<_, Failure>((installation.start()?, bootstrap))
    };
    let mut measured = vec![(Rc::new(Process::start_bare()?), operations::hello())];
    let (process, bootstrap) = start(None, "ES256", ES256)?;
    let process = Rc::new(process);
    measured.extend(
        operations::all(process.address, &bootstrap)?.into_iter().map(|operation| (process.clone(), operation)),
    );
    for (name, signing) in OTHER_ALGORITHMS {
        if options.wants(name) {
            let (process, bootstrap) = start(None, name, signing)?;
            let operation = operations::exchanges(name, process.address, &bootstrap)?;
            measured.push((Rc::new(process), operation));
        }
    }
    if let Some(program) = unaudited {
        let (process, bootstrap) = start(Some(&program), UNAUDITED, ES256)?;
        let operation = operations::exchanges(UNAUDITED, process.address, &bootstrap)?;
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
        "fdatasync_4kib_ms": millis(flush.idle),
        "fdatasync_4kib_beside_a_busy_processor_ms": millis(flush.busy),
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
