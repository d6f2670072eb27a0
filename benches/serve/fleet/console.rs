//! Measures every list, filter, sort, chart and drawer of the console on filled databases.
//!
//! `cargo bench --bench serve -- console --database URL [--database URL]...`
//!
//! Signs in as an owner and requests each page over one connection, with different agents and positions, after a few
//! requests that warm the caches. Prints the median and the 99th percentile in ms, and marks pages above 150 ms at the
//! median or 500 ms at the 99th percentile.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use super::{Fleet, calls::size, scramble};
use crate::{
    Failure, MASTER_KEY, SCRATCH,
    http::{Connection, render},
    millis, operations,
    server::Installation,
};

/// Requests before the measurement starts.
const WARM_UP: u64 = 3;
const REQUESTS: u64 = 100;
/// Slow pages stop after this time, but not before `MIN_REQUESTS`.
const TIME_LIMIT: Duration = Duration::from_secs(5);
const MIN_REQUESTS: usize = 20;
/// The most that a page may take at the median and at the 99th percentile, in ms.
const BOUNDS: (f64, f64) = (150.0, 500.0);

#[derive(Args)]
pub struct Options {
    /// Database URL, as in `DATABASE_URL`: `sqlite:////PATH` or `postgres://…`.
    #[arg(long, required = true)]
    database: Vec<String>,
    /// Measure only pages whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Measures each database and prints a table for it.
pub fn run(options: &Options) -> Result<(), Failure> {
    options.database.iter().try_for_each(|url| measure(url, &options.only))
}

type PathOf = fn(Fleet, u64) -> String;

/// Pages without a variable part.
const FIXED: &[(&str, &str)] = &[
    ("overview, 24 h", "/console"),
    ("overview, 7 d", "/console?range=7d"),
    ("overview, 30 d", "/console?range=30d"),
    ("agents, newest", "/console/agents"),
    ("agents, by name", "/console/agents?sort=name"),
    ("agents, last used first", "/console/agents?sort=used"),
    ("agents, suspended", "/console/agents?status=suspended"),
    ("agents, owner of many", "/console/agents?owner=platform"),
    ("agents, owner of many, last used first", "/console/agents?owner=platform&sort=used"),
    ("agents, never used", "/console/agents?used=never"),
    ("agents, not used for 90 days", "/console/agents?used=90d"),
    ("agents, word in one of 3", "/console/agents?q=invoice"),
    ("agents, word in one of 250", "/console/agents?q=quantum"),
    ("agents, word in none", "/console/agents?q=xylophone"),
    ("keys, newest", "/console/keys"),
    ("keys, last used first", "/console/keys?sort=last_used"),
    ("keys, by expiry", "/console/keys?sort=expiry"),
    ("keys, active", "/console/keys?status=active"),
    ("keys, revoked", "/console/keys?status=revoked"),
    ("keys, blocked", "/console/keys?status=blocked"),
    ("keys, never used", "/console/keys?use=never"),
    ("keys, unused for 90 days", "/console/keys?use=unused_90d"),
    ("keys, never expiring", "/console/keys?expiry=never"),
    ("keys, expiring in 30 days", "/console/keys?expiry=30d"),
    ("keys, never expiring with admin:*", "/console/keys?expiry=never&admin=1"),
    ("keys, of an owner of many", "/console/keys?owner=platform"),
    ("keys, by a common name", "/console/keys?q=key-0"),
    ("capabilities", "/console/capabilities"),
    ("audit, newest", "/console/audit"),
    ("audit, last 24 h", "/console/audit?range=24h"),
    ("audit, last 30 days", "/console/audit?range=30d"),
    ("audit, failures", "/console/audit?outcome=failure"),
    ("audit, an event", "/console/audit?action=agent.updated"),
    ("audit, a rare event", "/console/audit?action=signing_key.created"),
    ("audit, an event and failure in 30 days", "/console/audit?action=auth.failed&outcome=failure&range=30d"),
    ("administrators", "/console/administrators"),
];

/// Pages that depend on the number of an agent.
const VARIED: &[(&str, PathOf)] = &[
    ("agents, exact name", |_, agent| format!("/console/agents?q={}", Fleet::name(agent))),
    ("agents, ID", |fleet, agent| format!("/console/agents?q={}", fleet.agent_id(agent))),
    ("agents, owner of few", |_, agent| format!("/console/agents?owner=team-{}", agent % 2_000)),
    ("agents, holders of a capability", |_, agent| {
        format!("/console/agents?capability={}", Fleet::capability_id(agent % 20))
    }),
    ("agent", |fleet, agent| format!("/console/agents/{}", fleet.agent_id(agent))),
    ("agent, 90 days", |fleet, agent| format!("/console/agents/{}?range=90d", fleet.agent_id(agent))),
    ("agent, timeline", |fleet, agent| format!("/console/agents/{}/timeline", fleet.agent_id(agent))),
    ("agent, keys", |fleet, agent| format!("/console/agents/{}/keys", fleet.agent_id(agent))),
    ("agent, grants", |fleet, agent| format!("/console/agents/{}/grants", fleet.agent_id(agent))),
    ("agent, suspend", |fleet, agent| {
        let active = (agent..fleet.agents).chain(0..agent).find(|agent| fleet.agent(*agent).status == "active");
        format!("/console/agents/{}/suspend", fleet.agent_id(active.unwrap_or_default()))
    }),
    ("key", |fleet, agent| format!("/console/agents/{}/keys/{}", fleet.agent_id(agent), fleet.key_id(agent, 0))),
    ("keys, by prefix", |_, agent| format!("/console/keys?q={}", Fleet::key(agent, 0).get(..12).unwrap_or_default())),
    ("keys, of an agent", |fleet, agent| format!("/console/keys?agent={}", fleet.agent_id(agent))),
    ("capability", |_, agent| format!("/console/capabilities/{}", Fleet::capability_id(agent % 20))),
    ("capability, impact", |_, agent| format!("/console/capabilities/{}/impact", Fleet::capability_id(agent % 20))),
    ("audit, of an agent", |fleet, agent| format!("/console/audit?agent={}", fleet.agent_id(agent))),
    ("audit, of an agent, failures", |fleet, agent| {
        format!("/console/audit?agent={}&outcome=failure", fleet.agent_id(agent))
    }),
    ("audit, of the busiest agent", |fleet, _| format!("/console/audit?agent={}", fleet.agent_id(Fleet::busy()))),
    ("audit, record", |fleet, dice| format!("/console/audit/{}", dice % fleet.records + 1)),
    ("palette, name", |_, agent| format!("/console/palette?q={}", Fleet::name(agent))),
    ("palette, part of a name", |_, agent| {
        format!("/console/palette?q={}", Fleet::name(agent).split('-').next().unwrap_or_default())
    }),
    ("palette, record number", |fleet, dice| format!("/console/palette?q={}", dice % fleet.records + 1)),
];

fn measure(url: &str, only: &str) -> Result<(), Failure> {
    let installation = Installation::new(Path::new(SCRATCH)).with("DATABASE_URL", url).with("MASTER_KEY", MASTER_KEY);
    let mut bootstrap = installation.bootstrap(&[])?;
    if bootstrap.get("created") != Some(&Value::Bool(true)) {
        bootstrap = installation.bootstrap(&["--new-key"])?;
    }
    operations::run(async {
        let fleet = size(url).await?;
        println!("{}, {} agents, {} records", url.split(':').next().unwrap_or_default(), fleet.agents, fleet.records);
        println!("{:<44} {:>10} {:>10} {:>9}", "page", "median ms", "p99 ms", "requests");
        let process = installation.start()?;
        let mut connection = Connection::open(process.address).await?;
        let cookie = operations::console_session(&mut connection, &bootstrap).await?;
        let fixed = FIXED.iter().map(|&(name, path)| (name, Page::Fixed(path)));
        let varied = VARIED.iter().map(|&(name, path)| (name, Page::Varied(path)));
        for (name, page) in fixed.chain(varied).filter(|(name, _)| name.contains(only)) {
            match times(&mut connection, &cookie, |dice| page.path(fleet, dice)).await {
                Ok(mut times) => print_times(name, &mut times),
                Err(error) => println!("{name:<44} {error}"),
            }
        }
        Ok(())
    })
}

enum Page {
    Fixed(&'static str),
    Varied(PathOf),
}

impl Page {
    fn path(&self, fleet: Fleet, dice: u64) -> String {
        match self {
            Self::Fixed(path) => (*path).to_owned(),
            Self::Varied(path) => path(fleet, dice % fleet.agents),
        }
    }
}

async fn times(
    connection: &mut Connection,
    cookie: &str,
    path: impl Fn(u64) -> String,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let began = Instant::now();
    for number in 0..WARM_UP + REQUESTS {
        if began.elapsed() > TIME_LIMIT && times.len() >= MIN_REQUESTS {
            break;
        }
        let path = path(scramble(number));
        let request = render("GET", &path, cookie, "");
        let sent = Instant::now();
        let response = connection.send(&request).await?;
        if !response.is_success() {
            return Err(format!("{path}: status {}", response.status).into());
        }
        if number >= WARM_UP {
            times.push(sent.elapsed());
        }
    }
    Ok(times)
}

fn print_times(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).copied().map_or(0.0, millis)
    };
    let (median, worst) = (at(50), at(99));
    let mark = if median > BOUNDS.0 || worst > BOUNDS.1 { "  too slow" } else { "" };
    println!("{name:<44} {median:>10.2} {worst:>10.2} {:>9}{mark}", times.len());
}
