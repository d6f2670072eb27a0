//! How soon a revocation on one node is felt on the others.
//!
//! `cargo bench --bench nodes -- --database postgres://… [--nodes N] [--revocations N]`
//!
//! Starts the optimised `aims` several times over one empty PostgreSQL database, and then, once for each revocation, has the
//! first node issue a token, sees every other node take it, has the first node revoke it, and from the moment of that answer
//! on asks every other node until it refuses. Prints the median, the 99th percentile and the longest of these times, in ms.
//! A token that a node still takes after 5 s fails the run. The times include one request to the node.
//!
//! `cargo test` runs this file too, without `--bench`; it then does nothing.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use reqwest::{Client, StatusCode};
use serde_json::Value;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Options {
    /// An empty PostgreSQL database.
    #[arg(long)]
    database: String,
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..))]
    nodes: u8,
    /// Tokens to revoke.
    #[arg(long, default_value_t = 1_000)]
    revocations: usize,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let outcome = if env::args().any(|argument| argument == "--bench") {
        let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
        runtime.and_then(|runtime| runtime.block_on(run(&Options::parse())))
    } else {
        println!("skipped: measures only under `cargo bench --bench nodes`");
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

async fn run(options: &Options) -> Result<(), Failure> {
    let made = aims(&options.database).args(["bootstrap", "--json"]).stderr(Stdio::inherit()).output()?;
    let made: Value = serde_json::from_slice(&made.stdout)?;
    let (id, key) = (text(&made, "agent_id")?, text(&made, "api_key")?);
    let nodes: Vec<Node> = (0..options.nodes).map(|_| Node::start(&options.database)).collect::<Result<_, _>>()?;
    let (first, others) = nodes.split_first().ok_or("no nodes")?;

    let client = Client::new();
    let mut times = Vec::with_capacity(options.revocations);
    for _ in 0..options.revocations {
        let grant = client.post(format!("{}/oauth/token", first.url)).basic_auth(id, Some(key));
        let issued: Value = grant.form(&[("grant_type", "client_credentials")]).send().await?.json().await?;
        let token = text(&issued, "access_token")?;
        for node in others {
            if ask(&client, node, token).await? != StatusCode::OK {
                return Err("a node does not take a fresh token".into());
            }
        }
        let revoked = client.post(format!("{}/oauth/revoke", first.url)).basic_auth(id, Some(key));
        revoked.form(&[("token", token)]).send().await?.error_for_status()?;
        let answered = Instant::now();
        for node in others {
            while ask(&client, node, token).await? != StatusCode::UNAUTHORIZED {
                if answered.elapsed() > PATIENCE {
                    return Err("a node still takes a revoked token".into());
                }
            }
        }
        times.push(answered.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    println!("nodes {}, revocations {}", nodes.len(), times.len());
    println!(
        "felt everywhere after: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        millis(at(50)),
        millis(at(99)),
        millis(times.last())
    );
    Ok(())
}

async fn ask(client: &Client, node: &Node, token: &str) -> Result<StatusCode, Failure> {
    Ok(client.get(format!("{}/agents?limit=1", node.url)).bearer_auth(token).send().await?.status())
}

fn text<'v>(value: &'v Value, member: &str) -> Result<&'v str, Failure> {
    Ok(value.get(member).and_then(Value::as_str).ok_or_else(|| format!("an answer without {member}: {value}"))?)
}

/// A node; killed when dropped.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start(database: &str) -> Result<Self, Failure> {
        let mut child = aims(database).arg("serve").stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let listen = lines.by_ref().find_map(|line| {
            let entry: Value = serde_json::from_str(&line).ok()?;
            Some(entry.pointer("/fields/listen")?.as_str()?.to_owned())
        });
        // Read on for as long as it writes: a full pipe would stop it.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, url: format!("http://{}", listen.ok_or("aims does not start")?) })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn aims(database: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aims"));
    command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null()).envs([
        ("DATABASE_URL", database),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("PUBLIC_URL", "http://aims.test"),
        ("MASTER_KEY", "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"),
        ("RATE_LIMIT_AUTH_PER_MINUTE", "1000000000"),
        ("RATE_LIMIT_API_PER_MINUTE", "1000000000"),
        ("LOG_FORMAT", "json"),
    ]);
    command
}
