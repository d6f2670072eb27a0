//! What is left of the service when it is offered three times what it can carry.
//!
//! `cargo bench --bench serve -- overload [--seconds N] [--connections N]`
//!
//! On a fresh SQLite database, with every setting as shipped but the rate limits. First the exchange of keys for tokens on 32
//! connections, one request after another: what the service can carry. Then three times as many exchanges a second as were
//! answered, by the clock, whether or not earlier ones were answered, on many connections in turn; one whose connection is still
//! busy is sent as soon as it is free, and its time counts from when it was due; the last column counts the 99th percentile from
//! when it was sent. Prints how many were answered with a token, how many were turned away with 503 or 429 and `Retry-After`, and
//! how soon; anything else fails the run. Last, the exchanges on 32 connections once more while 500 people sign in to the console
//! at once and come back about when told to, until the last of them is signed in; and the same with half as many exchanges a second
//! as the service can carry.

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
    http::{Answer, Connection},
    machine::Flush,
    millis,
    operations::{self, Operation},
    server::{Installation, Process},
};

/// Connections of the load that the service carries.
const CARRIED: usize = 32;
/// How many times that it is offered.
const TIMES: f64 = 3.0;
/// People who sign in at once.
const PEOPLE: usize = 500;
const MIB: f64 = 1_048_576.0;

#[derive(Args)]
pub struct Options {
    /// Measured time of each row, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Connections that offer too much; below `MAX_CONNECTIONS`, beyond which nobody is answered.
    #[arg(long, default_value_t = 4_000)]
    connections: usize,
}

/// What came of a load.
#[derive(Default)]
struct Outcome {
    answered: Times,
    turned_away: Times,
    elapsed: Duration,
}

/// How long answers took.
#[derive(Default)]
struct Times {
    since_due: Histogram,
    since_sent: Histogram,
}

/// When a request should have been sent, and when it was.
#[derive(Clone, Copy)]
struct Asked {
    due: Instant,
    sent: Instant,
}

impl Asked {
    fn now() -> Self {
        let now = Instant::now();
        Self { due: now, sent: now }
    }
}

impl Times {
    fn record(&mut self, asked: Asked) {
        self.since_due.record(asked.due.elapsed());
        self.since_sent.record(asked.sent.elapsed());
    }

    /// A row: how many a second, when half and when nearly all of them were answered, and the same of the latter since they
    /// were sent.
    fn say(&self, what: &str, elapsed: Duration) {
        let rate = self.since_due.count() as f64 / elapsed.as_secs_f64();
        let [p50, p99] = [0.50, 0.99].map(|share| millis(self.since_due.quantile(share)));
        let sent = millis(self.since_sent.quantile(0.99));
        println!("{what:<58} {rate:>8.0}/s {p50:>9.3} {p99:>9.3} {sent:>10.3}");
    }
}

impl Outcome {
    fn rate(&self) -> f64 {
        self.answered.since_due.count() as f64 / self.elapsed.as_secs_f64()
    }

    fn say(&self, what: &str) {
        self.answered.say(what, self.elapsed);
        if self.turned_away.since_due.count() > 0 {
            self.turned_away.say("  turned away", self.elapsed);
        }
    }
}

/// Counts answers while they arrive. Clones count together.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<Outcome>>);

impl Tally {
    /// Counts an answer that is what was wanted, or that turns its client away as it should: it gives how long to wait.
    fn count(&self, answer: &Answer<'_>, wanted: u16, asked: Asked) -> Result<Option<Duration>, Failure> {
        let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        match answer.status {
            status if status == wanted => outcome.answered.record(asked),
            429 | 503 if wait.is_some() => outcome.turned_away.record(asked),
            _ => return Err(answer.describe().into()),
        }
        Ok(wait)
    }

    fn end(&self, elapsed: Duration) -> Outcome {
        let mut outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome { elapsed, ..std::mem::take(&mut *outcome) }
    }
}

/// Measures, and prints one row after another.
pub fn run(options: &Options) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(SCRATCH)?;
    let installation = Installation::new(scratch.path());
    let made = installation.bootstrap(&[])?;
    let process = installation.start()?;
    let exchange = operations::exchanges("exchange", process.address, &made)?;
    let duration = Duration::from_secs(options.seconds);
    operations::run(async {
        // Makes the console's owner, who signs in later.
        operations::console_session(&mut Connection::open(process.address).await?, &made).await?;
        Flush::time(scratch.path())?.say();
        println!("{:<58} {:>10} {:>9} {:>9} {:>10}", "exchanges", "answered", "p50 ms", "p99 ms", "since sent");
        let lasting = async || time::sleep(duration).await;
        let carried = load(&process, &exchange, CARRIED, None, lasting()).await?;
        carried.say("32 connections, as many as it can");
        say_memory(&process)?;
        let offered = carried.rate() * TIMES;
        let over = load(&process, &exchange, options.connections, Some(offered), lasting()).await?;
        over.say(&format!("{offered:.0}/s on {} connections", options.connections));
        say_memory(&process)?;
        let half = carried.rate() / 2.0;
        for (what, rate) in [("32 connections, as many as it can", None), ("half as many", Some(half))] {
            let alone = load(&process, &exchange, CARRIED, rate, lasting()).await?;
            alone.say(what);
            let address = process.address;
            let (sender, receiver) = oneshot::channel();
            let people = thread::spawn(move || {
                let signed_in = operations::run(sign_in_at_once(address));
                let _ = sender.send(());
                signed_in
            });
            let everybody = async { receiver.await.unwrap_or_default() };
            let beside = load(&process, &exchange, CARRIED, rate, everybody).await?;
            let signed_in = people.join().map_err(|_| "the sign-ins panicked")??;
            beside.say(&format!("{what}, while {PEOPLE} sign in at once"));
            signed_in.say("  sign-ins");
            let [alone, beside] = [&alone, &beside].map(|outcome| millis(outcome.answered.since_due.quantile(0.99)));
            println!("  p99 beside sign-ins: {:.2} of that without", beside / alone);
        }
        say_memory(&process)
    })
}

/// Asks until `end`: at the given number of requests a second, or each connection as soon as it has its answer.
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
                    // Not even until now: timers wait for the next millisecond.
                    None => Instant::now(),
                };
                let asked = Asked { due, sent: Instant::now() };
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let request = operation.request(number);
                tally.count(&connection.ask(&request).await?, 200, asked)?;
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

/// Whoever is turned away comes back about when told to.
async fn sign_in_at_once(address: SocketAddr) -> Result<Outcome, Failure> {
    let (tally, began) = (Tally::default(), Instant::now());
    let mut tasks = JoinSet::new();
    for person in 0..PEOPLE {
        let tally = tally.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let request = operations::console_sign_in();
            loop {
                let asked = Asked::now();
                match tally.count(&connection.ask(&request).await?, 303, asked)? {
                    None => return Ok::<_, Failure>(()),
                    // No two people come back in the same moment.
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

fn say_memory(process: &Process) -> Result<(), Failure> {
    let memory = process.memory()?;
    let [resident, peak] = [memory.resident, memory.peak].map(|bytes| bytes as f64 / MIB);
    println!("  memory: resident {resident:.1} MiB, peak {peak:.1} MiB");
    Ok(())
}
