//! Measures how soon a revocation on one node takes effect on the others, and the throughput of several nodes.
//!
//! `cargo bench --bench serve -- nodes --database postgres://… [--nodes N] [--revocations N] [--seconds N]
//! [--connections N] [--quota PERCENT]`
//!
//! Starts the optimised `aims` several times on one empty PostgreSQL database. For each revocation, the first node
//! issues a token, every other node accepts it, and the first node revokes it. From that response on, every other node
//! is polled until it rejects the token. Prints the median, the 99th percentile and the maximum of these times, in ms;
//! each includes one request to the node. The run fails if a node still accepts a token after 5 s.
//!
//! Then measures key exchanges and introspections on one node, on two, and so on, for a fixed time each, over
//! connections divided among the nodes. Prints the total rate and the CPU use of the whole machine (`/proc/stat`,
//! proc(5)): near 100 %, the machine limits the rate.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::{
    Failure, MASTER_KEY, SCRATCH,
    http::member,
    load::measure,
    millis,
    operations::{self, Operation},
    server::{Installation, Process},
};

/// The measured operations: one that writes and one that only reads.
const MEASURED: [&str; 2] = ["exchange ES256", "introspection"];
/// Time limit for a node to start, and for a revocation to reach it.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// URL of an empty PostgreSQL database.
    #[arg(long)]
    database: String,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..))]
    nodes: u8,
    /// Number of tokens to revoke.
    #[arg(long, default_value_t = 1_000)]
    revocations: usize,
    /// Measured time for each number of nodes, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Total connections, divided among the nodes.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// CPU quota of each node, in percent of one CPU; unlimited by default. If all quotas together are below the
    /// machine's capacity, the result shows what separate machines would reach.
    #[arg(long)]
    quota: Option<u32>,
}

/// Runs the measurements and prints the results.
pub fn run(options: &Options) -> Result<(), Failure> {
    let installation = Installation::new(Path::new(SCRATCH));
    let installation = installation.with("DATABASE_URL", &options.database).with("MASTER_KEY", MASTER_KEY);
    let bootstrap = installation.bootstrap(&[])?;
    let mut nodes: Vec<Process> = (0..options.nodes).map(|_| installation.start()).collect::<Result<_, _>>()?;
    if let Some(percent) = options.quota {
        nodes.iter_mut().try_for_each(|node| node.limit(percent))?;
    }
    let (first, others) = nodes.split_first().ok_or("no nodes")?;
    operations::run(revoke(first, others, &bootstrap, options.revocations))?;
    for operation in
        operations::all(first.address, &bootstrap)?.iter().filter(|operation| MEASURED.contains(&operation.name))
    {
        let mut alone = None;
        for count in 1..=nodes.len() {
            let nodes = nodes.get(..count).unwrap_or_default();
            let connections = options.connections / count;
            let (rate, busy) = measure_nodes(nodes, operation, connections, Duration::from_secs(options.seconds))?;
            let (share, busy) = (rate / *alone.get_or_insert(rate), busy * 100.0);
            println!(
                "{}, nodes {count}: {rate:.0}/s, {share:.2} of one node; processors busy {busy:.0} %",
                operation.name
            );
        }
    }
    Ok(())
}

/// Returns the total rate of the nodes and the fraction of the machine's CPU time that was used.
fn measure_nodes(
    nodes: &[Process],
    operation: &Operation,
    connections: usize,
    duration: Duration,
) -> Result<(f64, f64), Failure> {
    let (busy_before, all_before) = cpu_times()?;
    let measured: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            nodes.iter().map(|node| scope.spawn(move || measure(node, operation, connections, 1, duration))).collect();
        running
            .into_iter()
            .map(|node| node.join().unwrap_or_else(|_| Err("the load generator panicked".into())))
            .collect()
    });
    let (busy, all) = cpu_times()?;
    let mut rate = 0.0;
    for measured in measured {
        let measured = measured?;
        if let Some(example) = measured.example {
            return Err(example.into());
        }
        rate += measured.rate();
    }
    Ok((rate, (busy - busy_before) / (all - all_before)))
}

/// Returns the machine's used and total CPU time.
fn cpu_times() -> Result<(f64, f64), Failure> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).ok_or("no processor times")?;
    let times = line.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    // The last two fields are already included in the first ones.
    let all: f64 = times.iter().take(8).sum();
    let idle: f64 = times.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

async fn revoke(first: &Process, others: &[Process], bootstrap: &Value, revocations: usize) -> Result<(), Failure> {
    let (id, key) = (member(bootstrap, "agent_id")?, member(bootstrap, "api_key")?);

    let client = Client::new();
    let mut times = Vec::with_capacity(revocations);
    for _ in 0..revocations {
        let grant = client.post(format!("{}/oauth/token", url(first))).basic_auth(&id, Some(&key));
        let issued: Value = grant.form(&[("grant_type", "client_credentials")]).send().await?.json().await?;
        let token = member(&issued, "access_token")?;
        for node in others {
            if request_status(&client, node, &token).await? != StatusCode::OK {
                return Err("a node rejects a new token".into());
            }
        }
        let revoked = client.post(format!("{}/oauth/revoke", url(first))).basic_auth(&id, Some(&key));
        revoked.form(&[("token", &token)]).send().await?.error_for_status()?;
        let answered = Instant::now();
        for node in others {
            while request_status(&client, node, &token).await? != StatusCode::UNAUTHORIZED {
                if answered.elapsed() > TIMEOUT {
                    return Err("a node still accepts a revoked token".into());
                }
            }
        }
        times.push(answered.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let millis = |time: Option<&Duration>| time.copied().map_or(0.0, millis);
    println!("nodes {}, revocations {}", others.len() + 1, times.len());
    println!(
        "felt everywhere after: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        millis(at(50)),
        millis(at(99)),
        millis(times.last())
    );
    Ok(())
}

async fn request_status(client: &Client, node: &Process, token: &str) -> Result<StatusCode, Failure> {
    Ok(client.get(format!("{}/agents?limit=1", url(node))).bearer_auth(token).send().await?.status())
}

fn url(node: &Process) -> String {
    format!("http://{}", node.address)
}
