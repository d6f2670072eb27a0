//! Measures what metrics and the access log cost.
//!
//! `cargo bench --bench serve -- telemetry [--rounds N] [--seconds N] [--connections N]`
//!
//! Starts the optimised `aims` twice, each on a fresh SQLite database: once with `LOG_LEVEL=warn` and without metrics,
//! and once with the default log level, JSON lines to a file, and metrics that are scraped every second. Both log to
//! files. Exchanges keys with one and with the other in turn, in rounds of a fixed time, so that changes of the machine
//! affect both. Every second round begins with the other one. Prints the rate of each round, and the median of the
//! ratios within the rounds.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use crate::{
    Failure, SCRATCH,
    load::measure,
    machine::Flush,
    operations::{self, Operation},
    server::{Installation, Process},
};

/// Shows the addresses, and nothing of single requests.
const QUIET: &str = "warn,aims::cli::serve=info";
/// Time between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// Number of rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured time of each service in each round, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Number of connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

/// A service and what is sent to it.
struct Measured {
    process: Process,
    operation: Operation,
    metrics: Option<SocketAddr>,
}

/// Runs the rounds and prints the results.
pub fn run(options: &Options) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(SCRATCH)?;
    let threads = (available_parallelism()?.get() / 2).max(1);
    Flush::time(scratch.path())?.print();
    let start = |name: &str, settings: &[(&str, &str)]| start(&scratch.path().join(name), settings);
    let off = start("off", &[("LOG_LEVEL", QUIET)])?;
    let on = start("on", &[("METRICS_ADDR", "127.0.0.1:0")])?;
    if on.metrics.is_none() {
        return Err("the service does not serve metrics".into());
    }
    let duration = Duration::from_secs(options.seconds);
    let rate = |service: &Measured| {
        let measured = while_scraped(service.metrics, || {
            measure(&service.process, &service.operation, options.connections, threads, duration)
        })?;
        match measured.example {
            Some(example) => Err(Failure::from(format!("{} failed, for example: {example}", measured.failures))),
            None => Ok(measured.rate()),
        }
    };
    println!("exchange ES256, {} connections, {} s each", options.connections, options.seconds);
    println!("{:>5} {:>14} {:>14} {:>8}", "round", "without /s", "with /s", "ratio");
    let mut ratios = Vec::new();
    for round in 1..=options.rounds {
        let (without, with) = if round % 2 == 1 {
            let without = rate(&off)?;
            (without, rate(&on)?)
        } else {
            let with = rate(&on)?;
            (rate(&off)?, with)
        };
        println!("{round:>5} {without:>14.0} {with:>14.0} {:>7.1}%", with / without * 100.0);
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let bytes = fs::metadata(scratch.path().join("on/log"))?.len();
    println!("median ratio {:.1} %; the log with an access log has {bytes} bytes", median * 100.0);
    Ok(())
}

fn start(directory: &Path, settings: &[(&str, &str)]) -> Result<Measured, Failure> {
    fs::create_dir(directory)?;
    let installation = settings
        .iter()
        .fold(Installation::new(directory), |installation, (name, value)| installation.with(name, value));
    let bootstrap = installation.bootstrap(&[])?;
    let log = directory.join("log");
    let process = installation.start_logging_to(&log)?;
    let operation = operations::exchanges("exchange ES256", process.address, &bootstrap)?;
    let text = fs::read_to_string(&log)?;
    let line = text.lines().find(|line| line.contains("serving metrics"));
    let line: Option<Value> = line.map(serde_json::from_str).transpose()?;
    let metrics = line.as_ref().and_then(|line| line.get("listen")?.as_str()?.parse().ok());
    if metrics.is_some() {
        scrape(metrics)?;
    }
    Ok(Measured { process, operation, metrics })
}

/// Runs `work` while the metrics at an address, if there is one, are read every second.
fn while_scraped<T>(metrics: Option<SocketAddr>, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let mut next = Instant::now();
            while !is_over.load(Ordering::SeqCst) {
                if Instant::now() >= next {
                    scrape(metrics).map_err(|error| error.to_string())?;
                    next += SCRAPE_EVERY;
                }
                thread::sleep(Duration::from_millis(50));
            }
            Ok::<_, String>(())
        });
        let done = work();
        is_over.store(true, Ordering::SeqCst);
        scraping.join().map_err(|_| "the scraper panicked")??;
        done
    })
}

fn scrape(metrics: Option<SocketAddr>) -> Result<(), Failure> {
    let Some(address) = metrics else { return Ok(()) };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.contains("aims_tokens_issued_total") { Ok(()) } else { Err(format!("no metrics: {text}").into()) }
}
