//! The load generator.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, time};

use crate::{
    Failure,
    histogram::Histogram,
    http::Connection,
    operations::Operation,
    server::{self, Process},
};

/// Load before the measurement starts.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long to wait for outstanding responses after the measurement. A hanging server never sends them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of one operation at one number of connections.
pub struct Measured {
    pub latencies: Histogram,
    pub failures: u64,
    /// The first failure, as text.
    pub example: Option<String>,
    pub server_cpu: Duration,
    pub client_cpu: Duration,
    elapsed: Duration,
}

impl Measured {
    pub fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// Converts a CPU time to µs per request.
    pub fn per_request(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.latencies.count().max(1) as f64
    }
}

/// The measured period. Only responses that arrive within it are counted.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
}

#[derive(Default)]
struct Tally {
    latencies: Histogram,
    failures: u64,
    example: Option<String>,
}

impl Tally {
    fn fail(&mut self, what: impl FnOnce() -> String) {
        self.failures += 1;
        self.example.get_or_insert_with(what);
    }
}

/// Puts load on a server for a fixed time.
pub fn measure(
    process: &Process,
    operation: &Operation,
    connections: usize,
    threads: usize,
    duration: Duration,
) -> Result<Measured, Failure> {
    let start = Instant::now() + WARM_UP;
    let window = Window { start, end: start + duration };
    let total = Mutex::new(Tally::default());
    let cpu = || Ok::<_, Failure>((process.cpu()?, server::cpu("self")?));
    let (before, after) = thread::scope(|scope| {
        for thread in 0..threads.min(connections) {
            let (operation, total) = (operation.clone(), &total);
            // Connections are assigned to threads round-robin.
            let share = (thread..connections).step_by(threads);
            scope.spawn(move || {
                let tally = drive(process.address, &operation, share, window);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                match tally {
                    Ok(tally) => {
                        total.latencies.merge(&tally.latencies);
                        total.failures += tally.failures;
                        total.example = total.example.take().or(tally.example);
                    }
                    Err(error) => total.fail(|| error.to_string()),
                }
            });
        }
        thread::sleep(window.start.saturating_duration_since(Instant::now()));
        let before = cpu();
        thread::sleep(window.end.saturating_duration_since(Instant::now()));
        (before, cpu())
    });
    let ((server_before, client_before), (server_after, client_after)) = (before?, after?);
    let Tally { latencies, failures, example } = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Measured {
        latencies,
        failures,
        example,
        server_cpu: server_after.saturating_sub(server_before),
        client_cpu: client_after.saturating_sub(client_before),
        elapsed: duration,
    })
}

/// Runs one thread's connections.
fn drive(
    address: SocketAddr,
    operation: &Operation,
    connections: impl Iterator<Item = usize>,
    window: Window,
) -> io::Result<Tally> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let tasks: Vec<_> = connections
        .map(|connection| {
            let ended = request_until_end(address, operation.clone(), connection, window, tally.clone());
            let deadline = time::Instant::from_std(window.end + DRAIN_TIMEOUT);
            runtime.spawn(async move { time::timeout_at(deadline, ended).await })
        })
        .collect();
    for task in tasks {
        let ended = match runtime.block_on(task) {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "no response".to_owned(),
            Err(error) => error.to_string(),
        };
        tally.lock().unwrap_or_else(PoisonError::into_inner).fail(|| ended);
    }
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *tally))
}

/// Sends one request after another over one connection until the time is over.
async fn request_until_end(
    address: SocketAddr,
    operation: Operation,
    first: usize,
    window: Window,
    tally: Arc<Mutex<Tally>>,
) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    for turn in first.. {
        let request = operation.request(turn);
        let began = Instant::now();
        if began >= window.end {
            break;
        }
        let response = connection.send(&request).await?;
        let arrived = Instant::now();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        if !response.is_success() {
            tally.fail(|| response.describe());
        } else if arrived >= window.start && arrived < window.end {
            tally.latencies.record(arrived - began);
        }
    }
    Ok(())
}
