//! Measures the service when it is offered three times the load that it can carry.
//!
//! `cargo bench --bench serve -- overload [--seconds N] [--connections N]`
//!
//! Uses a fresh SQLite database and default settings, except for the rate limits. First measures the capacity: key
//! exchanges on 32 connections, one request at a time on each. Then offers three times that rate, on a fixed schedule
//! that does not wait for responses, over many connections in turn. If a request's connection is still busy, it is sent
//! as soon as the connection is free, but its time is measured from when it was due; the last column shows the 99th
//! percentile measured from when it was sent. Prints how many requests got a token, how many were rejected with 503 or
//! 429 and `Retry-After`, and how soon. Any other response fails the run. Finally repeats the exchanges on 32
//! connections while 500 people sign in to the console at once and retry about when they are told to, until all are
//! signed in; and then the same with exchanges at half of the capacity.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{sync::oneshot, task::JoinSet, time};

use crate::{
    Failure, SCRATCH,
    histogram::Histogram,
    http::{Connection, Response},
    machine::Flush,
    millis,
    operations::{self, Operation},
    server::{Installation, Process},
};

/// Connections of the capacity measurement.
const CAPACITY_CONNECTIONS: usize = 32;
/// Offered load as a multiple of the capacity.
const OVERLOAD: f64 = 3.0;
/// People who sign in at once.
const PEOPLE: usize = 500;
const MIB: f64 = 1_048_576.0;

#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// Measured time of each row, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Connections of the overload; must be below `MAX_CONNECTIONS`, beyond which connections are not served.
    #[arg(long, default_value_t = 4_000)]
    connections: usize,
}

/// The result of one load.
#[derive(Default)]
struct Outcome {
    succeeded: Times,
    rejected: Times,
    elapsed: Duration,
}

/// Response times.
#[derive(Default)]
struct Times {
    since_due: Histogram,
    since_sent: Histogram,
}

/// When a request was due, and when it was sent.
#[derive(Clone, Copy)]
struct Sent {
    due: Instant,
    sent: Instant,
}

impl Sent {
    fn now() -> Self {
        let now = Instant::now();
        Self { due: now, sent: now }
    }
}

impl Times {
    fn record(&mut self, sent: Sent) {
        self.since_due.record(sent.due.elapsed());
        self.since_sent.record(sent.sent.elapsed());
    }

    /// Prints a row: the rate, the median and 99th percentile from when requests were due, and the 99th percentile from
    /// when they were sent.
    fn print(&self, what: &str, elapsed: Duration) {
        let rate = self.since_due.count() as f64 / elapsed.as_secs_f64();
        let [p50, p99] = [0.50, 0.99].map(|share| millis(self.since_due.quantile(share)));
        let sent = millis(self.since_sent.quantile(0.99));
        println!("{what:<58} {rate:>8.0}/s {p50:>9.3} {p99:>9.3} {sent:>10.3}");
    }
}

impl Outcome {
    fn rate(&self) -> f64 {
        self.succeeded.since_due.count() as f64 / self.elapsed.as_secs_f64()
    }

    fn print(&self, what: &str) {
        self.succeeded.print(what, self.elapsed);
        if self.rejected.since_due.count() > 0 {
            self.rejected.print("  turned away", self.elapsed);
        }
    }
}

/// Collects results. Clones share them.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<Outcome>>);

impl Tally {
    /// Records a response: either the wanted status, or a rejection with `Retry-After`, which is returned.
    fn count(&self, response: &Response<'_>, wanted: u16, sent: Sent) -> Result<Option<Duration>, Failure> {
        let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = response.header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        match response.status {
            status if status == wanted => outcome.succeeded.record(sent),
            429 | 503 if wait.is_some() => outcome.rejected.record(sent),
            _ => return Err(response.describe().into()),
        }
        Ok(wait)
    }

    fn end(&self, elapsed: Duration) -> Outcome {
        let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome { elapsed, ..std::mem::take(&mut *outcome) }
    }
}

/// Runs the measurements and prints one row after another.
pub fn run(options: &Options) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(SCRATCH)?;
    let installation = Installation::new(scratch.path());
    let bootstrap = installation.bootstrap(&[])?;
    let process = installation.start()?;
    let exchange = operations::exchanges("exchange", process.address, &bootstrap)?;
    let duration = Duration::from_secs(options.seconds);
    operations::run(async {
        // Creates the console's owner, who signs in later.
        operations::console_session(&mut Connection::open(process.address).await?, &bootstrap).await?;
        Flush::time(scratch.path())?.print();
        println!("{:<58} {:>10} {:>9} {:>9} {:>10}", "exchanges", "answered", "p50 ms", "p99 ms", "since sent");
        let lasting = async || time::sleep(duration).await;
        let carried = load(&process, &exchange, CAPACITY_CONNECTIONS, None, lasting()).await?;
        carried.print("32 connections, as many as it can");
        print_memory(&process)?;
        let offered = carried.rate() * OVERLOAD;
        let over = load(&process, &exchange, options.connections, Some(offered), lasting()).await?;
        over.print(&format!("{offered:.0}/s on {} connections", options.connections));
        print_memory(&process)?;
        let half = carried.rate() / 2.0;
        for (what, rate) in [("32 connections, as many as it can", None), ("half as many", Some(half))] {
            let alone = load(&process, &exchange, CAPACITY_CONNECTIONS, rate, lasting()).await?;
            alone.print(what);
            let address = process.address;
            let (sender, receiver) = oneshot::channel();
            let people = thread::spawn(move || {
                let signed_in = operations::run(sign_in_at_once(address));
                let _ = sender.send(());
                signed_in
            });
            let everybody = async { receiver.await.unwrap_or_default() };
            let busy = load(&process, &exchange, CAPACITY_CONNECTIONS, rate, everybody).await?;
            let signed_in = people.join().map_err(|_| "the sign-ins panicked")??;
            busy.print(&format!("{what}, while {PEOPLE} sign in at once"));
            signed_in.print("  sign-ins");
            let [alone, busy] = [&alone, &busy].map(|outcome| millis(outcome.succeeded.since_due.quantile(0.99)));
            println!("  p99 beside sign-ins: {:.2} of that without", busy / alone);
        }
        print_memory(&process)
    })
}

/// Sends requests until `end`, at the given rate, or on each connection as soon as it has its response.
async fn load(
    process: &Process,
    operation: &Operation,
    connections: usize,
    rate: Option<f64>,
    end: impl Future<Output = ()>,
) -> Result<Outcome, Failure> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(process.address).await?);
    }
    let (tally, ended) = (Tally::default(), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, mut connection) in open.into_iter().enumerate() {
        let (operation, tally, ended) = (operation.clone(), tally.clone(), ended.clone());
        tasks.spawn(async move {
            for turn in 0.. {
                let number = number + turn * connections;
                let due = match rate {
                    Some(rate) => {
                        let due = began + Duration::from_secs_f64(number as f64 / rate);
                        time::sleep_until(due.into()).await;
                        due
                    }
                    // The request is due now. Timers fire only at the next millisecond.
                    None => Instant::now(),
                };
                let sent = Sent { due, sent: Instant::now() };
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let request = operation.request(number);
                tally.count(&connection.send(&request).await?, 200, sent)?;
            }
            Ok::<_, Failure>(())
        });
    }
    end.await;
    let outcome = tally.end(began.elapsed());
    ended.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(outcome)
}

/// Signs everybody in at once. Those who are rejected retry about when they are told to.
async fn sign_in_at_once(address: SocketAddr) -> Result<Outcome, Failure> {
    let (tally, began) = (Tally::default(), Instant::now());
    let mut tasks = JoinSet::new();
    for person in 0..PEOPLE {
        let tally = tally.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let request = operations::console_sign_in();
            loop {
                let sent = Sent::now();
                match tally.count(&connection.send(&request).await?, 303, sent)? {
                    None => return Ok::<_, Failure>(()),
                    // Spread the retries a little.
                    Some(wait) => time::sleep(wait + wait.mul_f64(person as f64 / PEOPLE as f64)).await,
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(tally.end(began.elapsed()))
}

fn print_memory(process: &Process) -> Result<(), Failure> {
    let memory = process.memory()?;
    let [resident, peak] = [memory.resident, memory.peak].map(|bytes| bytes as f64 / MIB);
    println!("  memory: resident {resident:.1} MiB, peak {peak:.1} MiB");
    Ok(())
}
