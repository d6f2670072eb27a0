//! Measures the service calls behind lists, searches and filters on filled databases.
//!
//! `cargo bench --bench serve -- calls --database URL [--database URL]...`
//!
//! measures every call on each database in turn and prints a table. Each figure is the time of one service call,
//! without HTTP and JSON, in ms: the median and the 99th percentile over calls with different agents and start
//! positions. Each operation runs a few times before it is measured, so caches are warm.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use aims::{
    app::App,
    clock::Environment,
    domain::{
        AgentId, AgentStatus, AgentType, Limit, Timestamp,
        agent::{self, Position, Sort},
        audit::{self, Start},
    },
    service::{Caller, Services, agents as agent_service, audit as audit_service},
    store::{Location, agents, audit as audit_store},
};
use clap::Args;
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Fleet, config, scramble};
use crate::Failure;

/// Calls before the measurement starts.
const WARM_UP: u64 = 5;
/// Upper bound on calls of an operation. Slow operations stop after `TIME_LIMIT`, but not before `MIN_CALLS`.
const MAX_CALLS: u64 = 300;
const TIME_LIMIT: Duration = Duration::from_secs(3);
const MIN_CALLS: u64 = 20;
const PAGE: Limit = Limit::of(100);
/// Offset of page 10,000.
const DEEP_OFFSET: u64 = 999_900;

/// The times of one operation, sorted.
type Times = Vec<Duration>;

struct Bench {
    services: std::sync::Arc<Services>,
    caller: Caller,
    fleet: Fleet,
    head: i64,
    results: Vec<(&'static str, Times)>,
}

#[derive(Args)]
pub struct Options {
    /// Database URL, as in `DATABASE_URL`: `sqlite:////PATH` or `postgres://…`.
    #[arg(long, required = true)]
    database: Vec<String>,
}

/// Measures each database and prints the table.
pub fn run(options: &Options) -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(compare(&options.database))
}

async fn compare(urls: &[String]) -> Result<(), Failure> {
    let mut columns = Vec::new();
    for url in urls {
        let fleet = size(url).await?;
        let kind = url.split(':').next().unwrap_or_default();
        let title = format!("{kind} {} agents, {} records", fleet.agents, fleet.records);
        eprintln!("measuring {title}");
        columns.push((title, measure(url, fleet).await?));
    }
    print!("{:<44}", "");
    for (title, _) in &columns {
        print!(" | {title:^43}");
    }
    print!("\n{:<44}", "operation");
    for _ in &columns {
        print!(" | {:>13} {:>14} {:>14}", "median ms", "p99 ms", "calls");
    }
    println!();
    let Some((_, first)) = columns.first() else { return Ok(()) };
    for (row, (name, _)) in first.iter().enumerate() {
        print!("{name:<44}");
        for (_, results) in &columns {
            let Some((_, times)) = results.get(row) else { continue };
            print!(" | {:>13.2} {:>14.2} {:>14}", quantile(times, 50), quantile(times, 99), times.len());
        }
        println!();
    }
    Ok(())
}

fn quantile(times: &Times, percent: usize) -> f64 {
    let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// Counts the generated agents and records, and finds their start.
pub(super) async fn size(url: &str) -> Result<Fleet, Failure> {
    const AGENTS: &str =
        "SELECT COUNT(*), COALESCE(MIN(created_at), 0) FROM agents WHERE metadata_json = '{\"model\":\"m-1\"}'";
    const RECORDS: &str = "SELECT COUNT(*) FROM audit_log";
    let ((agents, start), records): ((i64, i64), i64) = if let Location::Sqlite(path) = config(url)?.database {
        let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await?;
        (
            sqlx::query_as(AGENTS).fetch_one(&mut connection).await?,
            sqlx::query_scalar(RECORDS).fetch_one(&mut connection).await?,
        )
    } else {
        let mut connection = PgConnection::connect(url).await?;
        (
            sqlx::query_as(AGENTS).fetch_one(&mut connection).await?,
            sqlx::query_scalar(RECORDS).fetch_one(&mut connection).await?,
        )
    };
    Ok(Fleet { agents: u64::try_from(agents)?, records: u64::try_from(records)?, start })
}

async fn measure(url: &str, fleet: Fleet) -> Result<Vec<(&'static str, Times)>, Failure> {
    let app = App::open(config(url)?, Environment::system()).await?;
    let services = app.services().clone();
    let head = audit_store::head(services.store.read().await?.conn()).await?.seq;
    let mut bench = Bench { services, caller: Caller::system(), fleet, head, results: Vec::new() };
    bench.listings().await?;
    bench.searches().await?;
    bench.audit().await?;
    Ok(bench.results)
}

impl Bench {
    async fn time<T, F>(&mut self, name: &'static str, call: impl Fn(u64) -> F) -> Result<(), Failure>
    where
        F: Future<Output = aims::domain::Result<T>>,
    {
        let mut times = Vec::new();
        let began = Instant::now();
        for number in 0..WARM_UP + MAX_CALLS {
            if began.elapsed() > TIME_LIMIT && number >= WARM_UP + MIN_CALLS {
                break;
            }
            let called = Instant::now();
            call(scramble(number)).await?;
            if number >= WARM_UP {
                times.push(called.elapsed());
            }
        }
        times.sort_unstable();
        self.results.push((name, times));
        Ok(())
    }

    async fn agents(
        &mut self,
        name: &'static str,
        sort: Sort,
        call: impl Fn(u64) -> (agent::Filter, Option<Position>),
    ) -> Result<(), Failure> {
        let (services, caller) = (self.services.clone(), self.caller.clone());
        self.time(name, |dice| {
            let (filter, after) = call(dice);
            let (services, caller) = (&services, &caller);
            async move { agent_service::list(services, caller, &filter, sort, after, PAGE).await }
        })
        .await
    }

    async fn listings(&mut self) -> Result<(), Failure> {
        let fleet = self.fleet;
        let position = move |number: u64| {
            let (created_at, id) = (Timestamp::from_micros(fleet.created_at(number)), AgentId(fleet.agent_id(number)));
            Some(Position { created_at, id, name: Fleet::name(number), last_used_at: None })
        };
        let everything = agent::Filter::default;
        let deep = move |dice: u64| position(DEEP_OFFSET.min(fleet.agents - 120) - dice % 20);
        self.agents("list: first page", Sort::Oldest, |_| (everything(), None)).await?;
        self.agents("list: page 10,000", Sort::Oldest, |dice| (everything(), deep(dice))).await?;
        self.agents("list: newest, first page", Sort::Newest, |_| (everything(), None)).await?;
        let far = move |dice: u64| position(120 + dice % 20);
        self.agents("list: newest, page 10,000", Sort::Newest, |dice| (everything(), far(dice))).await?;
        self.agents("list: by name, anywhere", Sort::Name, |dice| (everything(), position(dice % fleet.agents)))
            .await?;
        let anywhere = move |dice: u64| position(dice % fleet.agents);
        let status = |status| agent::Filter { status: Some(status), ..everything() };
        self.agents("list: suspended, anywhere", Sort::Newest, |dice| (status(AgentStatus::Suspended), anywhere(dice)))
            .await?;
        self.agents("list: active by name, anywhere", Sort::Name, |dice| (status(AgentStatus::Active), anywhere(dice)))
            .await?;
        let kind = || agent::Filter { agent_type: Some(AgentType::Tool), ..everything() };
        self.agents("list: tools backwards by name, anywhere", Sort::NameDescending, |dice| (kind(), anywhere(dice)))
            .await?;
        let owner = |owner: &str| agent::Filter { owner: Some(owner.to_owned()), ..everything() };
        self.agents("list: owner of many, anywhere", Sort::Oldest, |dice| (owner("platform"), anywhere(dice))).await?;
        self.agents("list: owner of few, by name", Sort::Name, |dice| (owner(&format!("team-{}", dice % 2_000)), None))
            .await?;
        self.agents("list: owner, status and type, anywhere", Sort::Newest, |dice| {
            let both = agent::Filter { agent_type: Some(AgentType::Llm), ..status(AgentStatus::Suspended) };
            (agent::Filter { owner: Some("platform".to_owned()), ..both }, anywhere(dice))
        })
        .await?;
        let unused = |unused| agent::Filter { unused: Some(unused), ..everything() };
        self.agents("list: last used first", Sort::LastUsed, |_| (everything(), None)).await?;
        self.agents("list: never used, newest first", Sort::Newest, |_| (unused(agent::Unused::Ever), None)).await?;
        self.agents("list: never used and suspended, by name", Sort::Name, |_| {
            (agent::Filter { status: Some(AgentStatus::Suspended), ..unused(agent::Unused::Ever) }, None)
        })
        .await?;
        let part = || agent::Filter { owner_part: Some("LATFOR".to_owned()), ..everything() };
        self.agents("list: part of an owner of many", Sort::Newest, |_| (part(), None)).await?;
        let services = self.services.clone();
        let services = &services;
        self.time("owners by prefix", |_| async move {
            agents::owners(services.store.read().await?.conn(), "team-1", Limit::of(20)).await
        })
        .await
    }

    async fn searches(&mut self) -> Result<(), Failure> {
        let fleet = self.fleet;
        let text = |text: &str| agent::Filter { text: Some(text.to_owned()), ..agent::Filter::default() };
        self.agents("search: one agent's name", Sort::Oldest, |dice| (text(&Fleet::name(dice % fleet.agents)), None))
            .await?;
        for (name, wanted) in [
            ("search: 3 agents in all", "ZEPPELIN"),
            ("search: one in 250", "quantum"),
            ("search: one in 100", "ledger"),
            ("search: one in 3", "invoice"),
            ("search: one in 20, all at the far end", "latecomers"),
            ("search: nobody", "xylophone"),
            ("search: nobody, of frequent parts", "teammailteam"),
            ("search: 2 characters, most", "in"),
            ("search: 2 characters, nobody (21,000 read)", "zq"),
        ] {
            self.agents(name, Sort::Oldest, |_| (text(wanted), None)).await?;
        }
        self.agents("search: one in 3, by name, anywhere", Sort::Name, |dice| {
            let after = Position {
                created_at: Timestamp::from_micros(0),
                id: AgentId(fleet.agent_id(0)),
                name: Fleet::name(dice % fleet.agents),
                last_used_at: None,
            };
            (text("invoice"), Some(after))
        })
        .await?;
        self.agents("search: one in 250, suspended, by name", Sort::Name, |_| {
            (agent::Filter { status: Some(AgentStatus::Suspended), ..text("quantum") }, None)
        })
        .await?;
        let services = self.services.clone();
        let services = &services;
        for (name, wanted) in
            [("count up to 10,000: one in 3", "invoice"), ("count up to 10,000: one in 250", "quantum")]
        {
            let filter = text(wanted);
            let filter = &filter;
            self.time(name, |_| async move {
                agents::count_up_to(services.store.read().await?.conn(), filter, 10_000).await
            })
            .await?;
        }
        Ok(())
    }

    async fn records(
        &mut self,
        name: &'static str,
        call: impl Fn(u64) -> (audit::Filter, Start),
    ) -> Result<(), Failure> {
        let (services, caller) = (self.services.clone(), self.caller.clone());
        self.time(name, |dice| {
            let (filter, start) = call(dice);
            let (services, caller) = (&services, &caller);
            async move { audit_service::list(services, caller, &filter, start, PAGE).await }
        })
        .await
    }

    async fn audit(&mut self) -> Result<(), Failure> {
        const NEWEST: Start = Start::Offset(0);
        let (fleet, head) = (self.fleet, self.head);
        let everything = audit::Filter::default;
        let id = move |number: u64| Some(AgentId(fleet.agent_id(number)));
        let actor = move |number: u64| audit::Filter { actor: id(number).map(Into::into), ..everything() };
        let action = |action: &str| audit::Filter { action: Some(action.to_owned()), ..everything() };
        let failed = || audit::Filter { success: Some(false), ..everything() };
        let hour = move |dice: u64| {
            let from = Timestamp::from_micros(fleet.record_at(dice % fleet.records));
            (Some(from), Some(from.plus(Duration::from_hours(1))))
        };
        let anywhere =
            move |dice: u64| Start::Before(i64::try_from(dice % u64::try_from(head).unwrap_or(1)).unwrap_or(0) + 1);
        self.records("audit: first page", |_| (everything(), NEWEST)).await?;
        let deep = i64::try_from(DEEP_OFFSET).unwrap_or(0).min(head - 120);
        self.records("audit: page 10,000", |_| (everything(), Start::Before(head - deep))).await?;
        self.records("audit: actor of 3 records", |_| (actor(fleet.quiet()), NEWEST)).await?;
        self.records("audit: actor of few records", |dice| (actor(dice % fleet.agents), NEWEST)).await?;
        self.records("audit: actor of 1 in 20, anywhere", |dice| (actor(Fleet::busy()), anywhere(dice))).await?;
        self.records("audit: nobody", |_| (actor(u64::from(u32::MAX)), NEWEST)).await?;
        self.records("audit: an agent's timeline", |dice| {
            (audit::Filter { involving: id(dice % fleet.agents), ..everything() }, NEWEST)
        })
        .await?;
        self.records("audit: frequent action, anywhere", |dice| (action("auth.token_issued"), anywhere(dice))).await?;
        self.records("audit: action of 1 in 3,000,000", |_| (action("signing_key.created"), NEWEST)).await?;
        self.records("audit: no such action", |_| (action("key.rotated"), NEWEST)).await?;
        self.records("audit: one resource", |dice| {
            let id = fleet.key_id(dice % fleet.agents, dice & 1).to_string();
            (audit::Filter { resource_id: Some(id), ..everything() }, NEWEST)
        })
        .await?;
        self.records("audit: failed, anywhere", |dice| (failed(), anywhere(dice))).await?;
        self.records("audit: an hour", |dice| {
            let (from, until) = hour(dice);
            (audit::Filter { from, until, ..everything() }, NEWEST)
        })
        .await?;
        self.records("audit: failed within an hour", |dice| {
            let (from, until) = hour(dice);
            (audit::Filter { from, until, ..failed() }, NEWEST)
        })
        .await?;
        self.records("audit: frequent actor, failed: never", |_| {
            (audit::Filter { success: Some(false), ..actor(Fleet::busy()) }, NEWEST)
        })
        .await?;
        self.records("audit: frequent actor and action, anywhere", |dice| {
            (audit::Filter { actor: id(Fleet::busy()).map(Into::into), ..action("auth.token_issued") }, anywhere(dice))
        })
        .await?;
        self.records("audit: agent changes of one agent", |dice| {
            (audit::Filter { involving: id(dice % fleet.agents), ..action("agent.updated") }, NEWEST)
        })
        .await?;
        let services = self.services.clone();
        let services = &services;
        let filter = failed();
        let filter = &filter;
        self.time("audit: failed, live tail", |_| async move {
            audit_store::after(&services.store, filter, head - 50, PAGE).await
        })
        .await
    }
}
