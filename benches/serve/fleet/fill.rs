//! Fills an empty database with a fleet. Writes to the database directly, but leaves the same rows as the service
//! would.
//!
//! `cargo bench --bench serve -- fill --database URL [--agents N] [--records N]`
//!
//! creates the agents, two keys and five grants for each, what the agents in use did for 90 days, and a valid chain of
//! audit records. A PostgreSQL database
//! must exist.

use std::{
    fmt::Write,
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use aims::{
    clock::Environment,
    domain::audit::Head,
    store::{Db, Location, Mode, Store, audit},
};
use clap::Args;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use super::{Fleet, HOUR, YEAR, config, usage};
use crate::Failure;

/// Rows per statement on SQLite and per chunk of a COPY on PostgreSQL.
const ROWS: usize = 250;
/// Rows per transaction on SQLite.
const TRANSACTION: usize = 250_000;
const CAPABILITIES: u64 = 20;
/// Length of the key prefix that is stored in the clear.
const PREFIX: usize = 13;

#[derive(Args)]
pub struct Options {
    /// Database URL, as in `DATABASE_URL`: `sqlite:////PATH` or `postgres://…`.
    #[arg(long)]
    database: String,
    /// Number of agents.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    agents: u64,
    /// Number of audit records.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let start = (Environment::system().now().as_micros() - YEAR) / HOUR * HOUR;
    let fleet = Fleet { agents: options.agents, records: options.records, start };
    tokio::runtime::Runtime::new()?.block_on(fill(&options.database, fleet))
}

pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Id(Uuid),
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Uuid> for Cell {
    fn from(value: Uuid) -> Self {
        Self::Id(value)
    }
}

pub(super) enum Sink {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Sink {
    async fn open(url: &str) -> Result<Self, Failure> {
        if let Location::Sqlite(path) = config(url)?.database {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            for pragma in ["synchronous = OFF", "cache_size = -1000000", "wal_autocheckpoint = 100000"] {
                connection.execute(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).await?;
            }
            return Ok(Self::Sqlite(connection));
        }
        let mut connection = PgConnection::connect(url).await?;
        connection.execute("SET synchronous_commit = off").await?;
        Ok(Self::Postgres(connection))
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => connection.execute(sql).await.map(drop)?,
            Self::Postgres(connection) => connection.execute(sql).await.map(drop)?,
        }
        Ok(())
    }

    /// Adds rows to a table, in order.
    pub(super) async fn fill(
        &mut self,
        table: &str,
        columns: &[&str],
        mut rows: impl Iterator<Item = Vec<Cell>>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        print!("{table:<20}");
        io::stdout().flush()?;
        let mut count = 0;
        match self {
            Self::Sqlite(connection) => {
                connection.execute("BEGIN IMMEDIATE").await?;
                loop {
                    let chunk: Vec<_> = rows.by_ref().take(ROWS).collect();
                    if chunk.is_empty() {
                        break;
                    }
                    insert(connection, table, columns, &chunk).await?;
                    count += chunk.len();
                    if count % TRANSACTION == 0 {
                        connection.execute("COMMIT").await?;
                        connection.execute("BEGIN IMMEDIATE").await?;
                    }
                }
                connection.execute("COMMIT").await?;
            }
            Self::Postgres(connection) => {
                let statement = format!("COPY {table} ({}) FROM STDIN", columns.join(", "));
                let mut copy = connection.copy_in_raw(&statement).await?;
                loop {
                    let mut text = String::new();
                    let mut taken = 0;
                    for row in rows.by_ref().take(ROWS) {
                        copy_line(&mut text, &row)?;
                        taken += 1;
                    }
                    if taken == 0 {
                        break;
                    }
                    count += taken;
                    copy.send(text.into_bytes()).await?;
                }
                copy.finish().await?;
            }
        }
        println!("{count:>12} rows {:>8.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    table: &str,
    columns: &[&str],
    rows: &[Vec<Cell>],
) -> Result<(), Failure> {
    let places = format!("({})", vec!["?"; columns.len()].join(", "));
    let places = vec![places.as_str(); rows.len()].join(", ");
    let sql = format!("INSERT INTO {table} ({}) VALUES {places}", columns.join(", "));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for cell in rows.iter().flatten() {
        query = match cell {
            Cell::Null => query.bind(None::<i64>),
            Cell::Int(value) => query.bind(*value),
            Cell::Text(value) => query.bind(value.as_str()),
            Cell::Bytes(value) => query.bind(value.as_slice()),
            Cell::Id(value) => query.bind(*value),
        };
    }
    query.execute(connection).await?;
    Ok(())
}

/// Appends a line of PostgreSQL's COPY text format. No value of the fleet contains a character that needs escaping.
fn copy_line(text: &mut String, row: &[Cell]) -> std::fmt::Result {
    for (number, cell) in row.iter().enumerate() {
        if number > 0 {
            text.push('\t');
        }
        match cell {
            Cell::Null => text.push_str("\\N"),
            Cell::Int(value) => write!(text, "{value}")?,
            Cell::Text(value) => text.push_str(value),
            Cell::Id(value) => write!(text, "{value}")?,
            Cell::Bytes(value) => {
                text.push_str("\\\\x");
                for byte in value {
                    write!(text, "{byte:02x}")?;
                }
            }
        }
    }
    text.push('\n');
    Ok(())
}

/// Fills the database, which must hold no agents of the fleet, and updates its indexes.
async fn fill(url: &str, fleet: Fleet) -> Result<(), Failure> {
    // Opening creates and migrates the database.
    let db = Db::open(&config(url)?.database, Mode::Write).await?;
    let head = audit::head(db.read().await?.conn()).await?;
    let mut sink = Sink::open(url).await?;
    fill_fleet(&mut sink, fleet).await?;
    fill_chain(&mut sink, fleet, head).await?;
    match sink {
        // Closing the last connection checkpoints the file, so the next open does not have to.
        Sink::Sqlite(connection) => connection.close().await?,
        Sink::Postgres(mut connection) => {
            let began = Instant::now();
            // Autovacuum would do this eventually.
            connection.execute("VACUUM ANALYZE").await?;
            println!("{:<20}{:>26.1} s", "vacuum analyze", began.elapsed().as_secs_f64());
        }
    }
    index(db).await
}

async fn fill_fleet(sink: &mut Sink, fleet: Fleet) -> Result<(), Failure> {
    let agents = (0..fleet.agents).map(|number| {
        let agent = fleet.agent(number);
        let (suspended, revoked) = (agent.status == "suspended", agent.status == "revoked");
        vec![
            agent.id.into(),
            agent.name.into(),
            agent.description.into(),
            agent.owner.into(),
            agent.status.into(),
            agent.agent_type.into(),
            r#"{"model":"m-1"}"#.into(),
            agent.created_at.into(),
            agent.created_at.into(),
            suspended.then_some(agent.created_at).into(),
            revoked.then_some(agent.created_at).into(),
            fleet.last_used_at(number).unwrap_or(0).into(),
        ]
    });
    let columns = [
        "id",
        "name",
        "description",
        "owner",
        "status",
        "agent_type",
        "metadata_json",
        "created_at",
        "updated_at",
        "suspended_at",
        "revoked_at",
        "last_used_at",
    ];
    sink.fill("agents", &columns, agents).await?;
    let counted = "(SELECT COUNT(*) FROM agents WHERE agents.status = agent_counts.status)";
    sink.execute(&format!("UPDATE agent_counts SET agents = {counted}")).await?;

    let keys = (0..fleet.agents * 2).map(|number| {
        let (agent, which) = (number / 2, number % 2);
        let created_at = fleet.created_at(agent);
        let key = Fleet::key(agent, which);
        let last_used_at = fleet.last_used_at(agent).filter(|_| which == 0);
        vec![
            fleet.key_id(agent, which).into(),
            fleet.agent_id(agent).into(),
            Cell::Bytes(Sha256::digest(&key).to_vec()),
            key.get(..PREFIX).unwrap_or_default().into(),
            format!("key-{which}").into(),
            (if which == 0 { "active" } else { "revoked" }).into(),
            created_at.into(),
            (which == 1).then_some(created_at).into(),
            fleet.expires_at(agent).filter(|_| which == 0).into(),
            last_used_at.into(),
            last_used_at.unwrap_or(created_at).into(),
        ]
    });
    let columns = [
        "id",
        "agent_id",
        "key_hash",
        "key_prefix",
        "name",
        "status",
        "created_at",
        "revoked_at",
        "expires_at",
        "last_used_at",
        "idle_since",
    ];
    sink.fill("api_keys", &columns, keys).await?;

    let capabilities = (0..CAPABILITIES).map(|number| {
        let name = format!("resource{number}:use").into();
        vec![Fleet::capability_id(number).into(), name, "".into(), fleet.created_at(0).into()]
    });
    sink.fill("capabilities", &["id", "name", "description", "created_at"], capabilities).await?;

    let grants = (0..fleet.agents * 5).map(|number| {
        let agent = number / 5;
        let capability = Fleet::capability_id((agent + number % 5 * 4) % CAPABILITIES);
        vec![fleet.agent_id(agent).into(), capability.into(), fleet.created_at(agent).into()]
    });
    sink.fill("agent_capabilities", &["agent_id", "capability_id", "granted_at"], grants).await?;
    usage::fill(sink, fleet).await
}

async fn fill_chain(sink: &mut Sink, fleet: Fleet, mut head: Head) -> Result<(), Failure> {
    let records = (0..fleet.records).map(|number| {
        let mut record = fleet.record(number);
        head = head.append(std::slice::from_mut(&mut record));
        vec![
            record.seq.into(),
            record.id.into(),
            record.at.as_micros().into(),
            record.actor.map(|id| id.0).into(),
            record.subject.map(|id| id.0).into(),
            record.action.into(),
            record.resource_type.into(),
            record.resource_id.into(),
            record.details.into(),
            record.ip.into(),
            i64::from(record.success).into(),
            record.request_id.into(),
            Cell::Bytes(record.prev_hash.to_vec()),
            Cell::Bytes(record.hash.to_vec()),
        ]
    });
    let columns = [
        "seq",
        "id",
        "at",
        "actor",
        "subject",
        "action",
        "resource_type",
        "resource_id",
        "details",
        "ip",
        "success",
        "request_id",
        "prev_hash",
        "hash",
    ];
    sink.fill("audit_log", &columns, records).await?;
    let hash = aims::domain::audit::hex(&head.hash);
    let hash = if matches!(sink, Sink::Sqlite(_)) { format!("x'{hash}'") } else { format!("decode('{hash}', 'hex')") };
    sink.execute(&format!("UPDATE audit_head SET seq = {}, hash = {hash} WHERE id = 1", head.seq)).await
}

/// Updates the indexes with the service's own code.
async fn index(db: Db) -> Result<(), Failure> {
    let store = Store::start(db, Arc::new(|_| ()));
    let began = Instant::now();
    // Any write indexes the agents that are waiting.
    store.write(|_| Box::pin(async { Ok(()) })).await?;
    println!("{:<20}{:>26.1} s", "text index", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let mut runs = 0;
    while audit::index::fill(&store).await? {
        runs += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{:<20}{runs:>12} runs {seconds:>8.1} s", "audit index");
    store.close().await;
    Ok(())
}
