//! How soon a revocation on one node is felt on the others, and what they carry together.
//!
//! `cargo bench --bench serve -- nodes --database postgres://… [--nodes N] [--revocations N] [--seconds N]
//! [--connections N] [--quota PERCENT]`
//!
//! Starts the optimised `aims` several times over one empty PostgreSQL database, and then, once for each revocation, has the
//! first node issue a token, sees every other node take it, has the first node revoke it, and from the moment of that answer
//! on asks every other node until it refuses. Prints the median, the 99th percentile and the longest of these times, in ms.
//! A token that a node still takes after 5 s fails the run. The times include one request to the node.
//!
//! Then has keys exchanged for tokens and tokens introspected on one node, on two, and so on, each for a fixed time on connections
//! that the nodes share, and prints what they answered in all, and how busy all processors of the machine were (`/proc/stat`, proc(5)): where that is near
//! 100 %, it is the machine that bounds what the nodes can do.

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

/// What is asked of several nodes together: one thing that is written, and one that is only read.
const MEASURED: [&str; 2] = ["exchange ES256", "introspection"];
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Options {
    /// An empty PostgreSQL database.
    #[arg(long)]
    database: String,
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..))]
    nodes: u8,
    /// Tokens to revoke.
    #[arg(long, default_value_t = 1_000)]
    revocations: usize,
    /// Measured time of each number of nodes, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Connections that the nodes share.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// How much of one processor each node may have, in percent; by default as much as there is. Where all nodes together have
    /// less than the machine, they show what several machines would.
    #[arg(long)]
    quota: Option<u32>,
}

/// Measures, and prints what came of it.
pub fn run(options: &Options) -> Result<(), Failure> {
    let installation = Installation::new(Path::new(SCRATCH));
    let installation = installation.with("DATABASE_URL", &options.database).with("MASTER_KEY", MASTER_KEY);
    let made = installation.bootstrap(&[])?;
    let mut nodes: Vec<Process> = (0..options.nodes).map(|_| installation.start()).collect::<Result<_, _>>()?;
    if let Some(percent) = options.quota {
        nodes.iter_mut().try_for_each(|node| node.limit(percent))?;
    }
    let (first, others) = nodes.split_first().ok_or("no nodes")?;
    operations::run(revoke(first, others, &made, options.revocations))?;
    for operation in
        operations::all(first.address, &made)?.iter().filter(|operation| MEASURED.contains(&operation.name))
    {
        let mut alone = None;
        for count in 1..=nodes.len() {
            let nodes = nodes.get(..count).unwrap_or_default();
            let connections = options.connections / count;
            let (rate, busy) = together(nodes, operation, connections, Duration::from_secs(options.seconds))?;
            let (share, busy) = (rate / *alone.get_or_insert(rate), busy * 100.0);
            println!(
                "{}, nodes {count}: {rate:.0}/s, {share:.2} of one node; processors busy {busy:.0} %",
                operation.name
            );
        }
    }
    Ok(())
}

/// The rate of all nodes together, and the share of the machine's processor time that was used.
fn together(
    nodes: &[Process],
    operation: &Operation,
    connections: usize,
    duration: Duration,
) -> Result<(f64, f64), Failure> {
    let (busy_before, all_before) = processors()?;
    let measured: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            nodes.iter().map(|node| scope.spawn(move || measure(node, operation, connections, 1, duration))).collect();
        running
            .into_iter()
            .map(|node| node.join().unwrap_or_else(|_| Err("the load generator panicked".into())))
            .collect()
    });
    let (busy, all) = processors()?;
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

/// The processor time of the whole machine: what was used, and all there was.
fn processors() -> Result<(f64, f64), Failure> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).ok_or("no processor times")?;
    let times = line.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    // Without the last two, which the first ones include.
    let all: f64 = times.iter().take(8).sum();
    let idle: f64 = times.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

async fn revoke(first: &Process, others: &[Process], made: &Value, revocations: usize) -> Result<(), Failure> {
    let (id, key) = (member(made, "agent_id")?, member(made, "api_key")?);

    let client = Client::new();
    let mut times = Vec::with_capacity(revocations);
    for _ in 0..revocations {
        let grant = client.post(format!("{}/oauth/token", url(first))).basic_auth(&id, Some(&key));
        let issued: Value = grant.form(&[("grant_type", "client_credentials")]).send().await?.json().await?;
        let token = member(&issued, "access_token")?;
        for node in others {
            if ask(&client, node, &token).await? != StatusCode::OK {
                return Err("a node does not take a fresh token".into());
            }
        }
        let revoked = client.post(format!("{}/oauth/revoke", url(first))).basic_auth(&id, Some(&key));
        revoked.form(&[("token", &token)]).send().await?.error_for_status()?;
        let answered = Instant::now();
        for node in others {
            while ask(&client, node, &token).await? != StatusCode::UNAUTHORIZED {
                if answered.elapsed() > PATIENCE {
                    return Err("a node still takes a revoked token".into());
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

async fn ask(client: &Client, node: &Process, token: &str) -> Result<StatusCode, Failure> {
    Ok(client.get(format!("{}/agents?limit=1", url(node))).bearer_auth(token).send().await?.status())
}

fn url(node: &Process) -> String {
    format!("http://{}", node.address)
}
