//! How soon a revocation on one node is felt on the others.
//!
//! `cargo bench --bench serve -- nodes --database postgres://… [--nodes N] [--revocations N]`
//!
//! Starts the optimised `aims` several times over one empty PostgreSQL database, and then, once for each revocation, has the
//! first node issue a token, sees every other node take it, has the first node revoke it, and from the moment of that answer
//! on asks every other node until it refuses. Prints the median, the 99th percentile and the longest of these times, in ms.
//! A token that a node still takes after 5 s fails the run. The times include one request to the node.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::{
    Failure, MASTER_KEY, SCRATCH,
    http::member,
    millis,
    server::{Installation, Process},
};

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
}

/// Measures, and prints what came of it.
pub fn run(options: &Options) -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(revoke(options))
}

async fn revoke(options: &Options) -> Result<(), Failure> {
    let installation = Installation::new(Path::new(SCRATCH));
    let installation = installation.with("DATABASE_URL", &options.database).with("MASTER_KEY", MASTER_KEY);
    let made = installation.bootstrap(&[])?;
    let (id, key) = (member(&made, "agent_id")?, member(&made, "api_key")?);
    let nodes: Vec<Process> = (0..options.nodes).map(|_| installation.start()).collect::<Result<_, _>>()?;
    let (first, others) = nodes.split_first().ok_or("no nodes")?;

    let client = Client::new();
    let mut times = Vec::with_capacity(options.revocations);
    for _ in 0..options.revocations {
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
    println!("nodes {}, revocations {}", nodes.len(), times.len());
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
