//! Measures the service over a socket on filled databases and compares each with the first, smallest one.
//!
//! `cargo bench --bench serve -- fleet --database URL [--database URL]... [--seconds N]`
//!
//! For each database, starts the service several times and prints the median time from start to first response. Then
//! authenticates the requested number of distinct agents, introspects each agent's token, and prints the memory of the
//! process before and after (proc(5)): `VmRSS`; `RssAnon`, which excludes file-backed pages; and `VmHWM`, the peak.
//!
//! Finally measures each operation over one connection. The databases alternate in nine turns of a third of the given
//! time each, so that compared figures come from the same moment. Prints medians over the turns: mean request time in
//! ms, its ratio to the first database in the same turn, and the server's CPU time per request in µs. "1,000 agents"
//! are spread over the whole fleet. "any" visits every agent once, so agents beyond the cache capacity are loaded from
//! the database. Expect that cost when all agents are active, not when most of them are idle.
//!
//! Creating agents leaves some in the database, and every operation leaves audit records.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Fleet, calls::size};
use crate::{
    Failure, MASTER_KEY, SCRATCH,
    http::{Connection, exchange, form, render, request_member},
    load::measure,
    millis,
    operations::{self, Agent, Operation},
    server::{Installation, Process},
};

/// Number of timed starts.
const STARTS: usize = 11;
/// Measurements of each operation. Several short ones, because a machine's speed changes from second to second.
const TURNS: usize = 9;
/// Active agents of a fleet that is mostly idle.
const ACTIVE_AGENTS: u64 = 1_000;
/// Connections used to authenticate agents.
const CONNECTIONS: usize = 32;
const MIB: f64 = 1_048_576.0;
/// A stride that visits every agent: it is odd and not divisible by 5, so coprime to any fleet size of the form
/// 2^a·5^b.
const STRIDE: u64 = 7_368_787;

#[derive(Args)]
pub struct Options {
    /// Database URL, as in `DATABASE_URL`: `sqlite:////PATH` or `postgres://…`. The smallest database first.
    #[arg(long, required = true)]
    database: Vec<String>,
    /// Total time of three turns of each operation, in seconds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Maximum number of agents that authenticate before memory is read.
    #[arg(long, default_value_t = 100_000)]
    authenticate: u64,
    /// `AGENTS_IN_MEMORY`; the service's default if absent.
    #[arg(long)]
    agents_in_memory: Option<u64>,
    /// Stop after reading the memory.
    #[arg(long)]
    memory: bool,
}

struct Served {
    title: String,
    process: Process,
    operations: Vec<Operation>,
}

/// Runs the measurements and prints the tables.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut all = Vec::new();
    for url in &options.database {
        all.push(serve(url, options)?);
    }
    if options.memory {
        return Ok(());
    }
    print!("\n{:<34}", "operation");
    for served in &all {
        print!(" | {:^42}", served.title);
    }
    print!("\n{:<34}", "");
    for _ in &all {
        print!(" | {:>12} {:>12} {:>16}", "mean ms", "of the first", "server µs");
    }
    println!();
    let names: Vec<_> = all.iter().flat_map(|served| &served.operations).map(|operation| operation.name).collect();
    let rows = names.len() / all.len();
    for (row, name) in names.into_iter().take(rows).enumerate() {
        let mut turns = vec![[const { Vec::new() }; 3]; all.len()];
        for _ in 0..TURNS {
            let mut first = None;
            for (served, [means, ratios, cpus]) in all.iter().zip(&mut turns) {
                let operation = served.operations.get(row).ok_or("databases differ in their operations")?;
                let measured = measure(&served.process, operation, 1, 1, Duration::from_secs(options.seconds) / 3)?;
                if let Some(example) = measured.example {
                    return Err(format!("{name}: {example}").into());
                }
                let mean = 1_000.0 / measured.rate();
                means.push(mean);
                ratios.push(mean / *first.get_or_insert(mean));
                cpus.push(measured.per_request(measured.server_cpu));
            }
        }
        print!("{name:<34}");
        for figures in turns {
            let [mean, ratio, cpu] = figures.map(median);
            print!(" | {mean:>12.3} {ratio:>12.2} {cpu:>16.1}");
        }
        println!();
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn serve(url: &str, options: &Options) -> Result<Served, Failure> {
    let mut installation =
        Installation::new(Path::new(SCRATCH)).with("DATABASE_URL", url).with("MASTER_KEY", MASTER_KEY);
    if let Some(agents) = options.agents_in_memory {
        installation = installation.with("AGENTS_IN_MEMORY", &agents.to_string());
    }
    let mut bootstrap = installation.bootstrap(&[])?;
    if bootstrap.get("created") != Some(&Value::Bool(true)) {
        bootstrap = installation.bootstrap(&["--new-key"])?;
    }
    operations::run(async {
        let fleet = size(url).await?;
        let kind = url.split(':').next().unwrap_or_default();
        let title = format!("{kind} {} agents, {} records", fleet.agents, fleet.records);
        println!("{title}");
        let mut starts = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            starts.push(time_to_first_answer(&installation).await?);
        }
        starts.sort_unstable();
        let (median, longest) = (starts.get(STARTS / 2).copied(), starts.last().copied());
        let [median, longest] = [median, longest].map(|time| time.map_or(0.0, millis));
        println!("  first answer after start: median {median:.0} ms, longest {longest:.0} ms of {STARTS}");

        let process = installation.start()?;
        print_memory("after start", &process)?;
        let mut connection = Connection::open(process.address).await?;
        let (admin, bearer) = operations::sign_in(&mut connection, &bootstrap).await?;
        let (agents, elapsed) = authenticate_all(&process, fleet, &admin, options.authenticate).await?;
        print_memory(&format!("after {agents} agents authenticated, {:.1} s", elapsed.as_secs_f64()), &process)?;
        // The service may have closed the first connection for being idle.
        let mut connection = Connection::open(process.address).await?;
        let operations = operations(&mut connection, fleet, &admin, &bearer, &bootstrap).await?;
        Ok(Served { title, process, operations })
    })
}

async fn time_to_first_answer(installation: &Installation) -> Result<Duration, Failure> {
    let began = Instant::now();
    let process = installation.start()?;
    let mut connection = Connection::open(process.address).await?;
    let response = connection.send(&render("GET", "/_health", "", "")).await?;
    if response.is_success() { Ok(began.elapsed()) } else { Err(response.describe().into()) }
}

fn print_memory(when: &str, process: &Process) -> Result<(), Failure> {
    let memory = process.memory()?;
    let [resident, anonymous, peak] = [memory.resident, memory.anonymous, memory.peak].map(|bytes| bytes as f64 / MIB);
    println!("  memory {when}: resident {resident:.1} MiB, anonymous {anonymous:.1} MiB, peak {peak:.1} MiB");
    Ok(())
}

/// Exchanges the keys of agents across the fleet and introspects each token.
async fn authenticate_all(
    process: &Process,
    fleet: Fleet,
    admin: &Agent,
    most: u64,
) -> Result<(usize, Duration), Failure> {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let address = process.address;
    let last = most.min(fleet.agents);
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (next, basic) = (next.clone(), admin.basic());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut count = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= last {
                    return Ok::<_, Failure>(count);
                }
                let agent = spread(fleet, number);
                let token = request_member(&mut connection, &exchange(&Fleet::key(agent, 0)), "access_token").await?;
                request_member(
                    &mut connection,
                    &form("/oauth/introspect", &basic, &format!("token={token}")),
                    "client_id",
                )
                .await?;
                count += 1;
            }
        });
    }
    let mut count = 0;
    while let Some(ended) = tasks.join_next().await {
        count += ended??;
    }
    Ok((count, began.elapsed()))
}

/// Maps consecutive numbers to distinct agents across the fleet that can authenticate.
fn spread(fleet: Fleet, number: u64) -> u64 {
    let first = number.wrapping_mul(STRIDE) % fleet.agents;
    (first..fleet.agents).chain(0..first).find(|agent| fleet.agent(*agent).status == "active").unwrap_or_default()
}

async fn operations(
    connection: &mut Connection,
    fleet: Fleet,
    admin: &Agent,
    bearer: &str,
    bootstrap: &Value,
) -> Result<Vec<Operation>, Failure> {
    let awake: Vec<u64> =
        (0..ACTIVE_AGENTS).map(|number| spread(fleet, fleet.agents / ACTIVE_AGENTS * number)).collect();
    let exchanges = awake.iter().map(|agent| exchange(&Fleet::key(*agent, 0))).collect();
    let mut introspections = Vec::with_capacity(awake.len());
    for agent in &awake {
        let token = request_member(connection, &exchange(&Fleet::key(*agent, 0)), "access_token").await?;
        introspections.push(form("/oauth/introspect", &admin.basic(), &format!("token={token}")));
    }
    let get = |path: &str| render("GET", path, bearer, "");
    let agent_path = |agent: u64| format!("/api/v1/agents/{}", fleet.agent_id(agent));
    let grants = |agent: &u64| {
        let agent = Agent { id: fleet.agent_id(*agent).to_string(), key: Fleet::key(*agent, 0) };
        form("/oauth/token", &agent.basic(), "grant_type=client_credentials")
    };
    let cookie = operations::console_session(connection, bootstrap).await?;
    let repeated = |name, path: &str| Operation::repeated(name, vec![get(path)]);
    let any = |name, request: fn(Fleet, u64, &str) -> Vec<u8>| {
        let bearer = bearer.to_owned();
        Operation::numbered(name, move |number| request(fleet, spread(fleet, number), &bearer))
    };
    Ok(vec![
        Operation::repeated("exchange, 1,000 agents", exchanges),
        Operation::repeated("credentials grant, 1,000 agents", awake.iter().map(grants).collect()),
        Operation::repeated("introspection, 1,000 agents", introspections),
        Operation::repeated("GET agent, 1,000 agents", awake.iter().map(|agent| get(&agent_path(*agent))).collect()),
        any("exchange, any agent", |_, agent, _| exchange(&Fleet::key(agent, 0))),
        any("GET agent, any", |fleet, agent, bearer| {
            render("GET", &format!("/api/v1/agents/{}", fleet.agent_id(agent)), bearer, "")
        }),
        repeated("list agents", "/api/v1/agents?limit=50"),
        repeated("list agents of an owner", "/api/v1/agents?limit=50&owner=platform"),
        any("search for a name", |_, agent, bearer| {
            render("GET", &format!("/api/v1/agents?limit=50&q={}", Fleet::name(agent)), bearer, "")
        }),
        repeated("search for a word in 1 of 3", "/api/v1/agents?limit=50&q=invoice"),
        repeated("audit log", "/api/v1/audit?limit=50"),
        repeated("audit log, failed", "/api/v1/audit?limit=50&success=false"),
        any("audit of an agent", |fleet, agent, bearer| {
            render("GET", &format!("/api/v1/agents/{}/audit?limit=20", fleet.agent_id(agent)), bearer, "")
        }),
        Operation::repeated("console agents", vec![render("GET", "/console/agents", &cookie, "")]),
        Operation::repeated("console audit log", vec![render("GET", "/console/audit", &cookie, "")]),
        operations::create_agents(bearer.to_owned()),
    ])
}
