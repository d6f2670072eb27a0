//! Whole databases as a stream of rows: a consistent snapshot is read, and loaded into a new database.
//!
//! Both databases have the same tables and columns, so one stream fits both. Columns are read from the schema. A table that
//! is neither in [`TABLES`] nor in [`LEFT_OUT`] fails a test.

mod columns;
mod loader;
mod postgres;
mod scratch;
mod snapshot;
mod sqlite;
pub mod state;
mod unchanged;

use tokio::sync::mpsc;

use super::db::Conn;
use crate::{
    domain::{Error, Result, audit::Head},
    store::{
        audit,
        db::{dispatch, sqlite::MIGRATIONS},
    },
};

pub use loader::{Counts, LoadError};
pub use postgres::PostgresTarget;
pub use scratch::Scratch;
pub use snapshot::{Facts, Snapshot};
pub use sqlite::SqliteTarget;
pub use unchanged::Seen;

/// The tables of a backup. A table comes after those that it refers to.
pub const TABLES: [&str; 39] = [
    "agents",
    "agent_labels",
    "api_keys",
    "capabilities",
    "agent_capabilities",
    "audit_log",
    "audit_head",
    "audit_start",
    "audit_names",
    "audit_archives",
    "signing_keys",
    "imports",
    "administrators",
    "totp_secrets",
    "recovery_codes",
    "passkeys",
    "sign_in_failures",
    "known_networks",
    "overview_marks",
    "audit_views",
    "invitations",
    "service_address",
    "api_key_uses",
    "activity",
    "activity_kinds",
    "agent_activity",
    "capability_uses",
    "agent_counts",
    "resources",
    "revoked_tokens",
    "public_keys",
    "spent_assertions",
    "delegations",
    "delegated_tokens",
    "delegated_token_links",
    "federated_identities",
    "bulk_acts",
    "bulk_act_agents",
    "master_key",
];

/// The tables that a backup leaves out, each with the reason.
pub const LEFT_OUT: [(&str, &str); 10] = [
    ("_sqlx_migrations", "the new database is migrated itself"),
    ("sessions", "a restore ends every session of the console"),
    ("setup_tokens", "a setup link is valid for an hour; another one is created with a command"),
    ("audit_runs", "a part of the index of the audit log, which is built again"),
    ("audit_index", "a part of the index of the audit log, which is built again"),
    ("audit_spans", "always empty"),
    ("agents_text", "the text index of agents, which is built again"),
    ("agents_to_index", "the agents that the text index lacks"),
    ("request_answers", "answers to requests that the restored database may not have seen"),
    ("backup_state", "describes the backups of one database; a restored one has none yet"),
];

/// Columns that only one of the databases has, and that are filled again.
const DERIVED: [(&str, &str); 1] = [("agents", "number")];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer of up to 64 bits.
    Integer,
    /// Text.
    Text,
    /// Bytes. The identifiers of PostgreSQL are 16 of them.
    Bytes,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// A table and its columns, which are in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A value. It may be a hash or a sealed secret, so it cannot be printed.
#[derive(Clone)]
pub enum Cell {
    /// No value.
    Null,
    /// An integer.
    Integer(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A row, with a value for each column of its table.
pub type Row = Vec<Cell>;

/// A part of the stream.
pub enum Part {
    /// The rows that follow belong to this table.
    Table(Table),
    /// Some rows.
    Rows(Vec<Row>),
    /// The stream is complete. Without it, the stream was interrupted.
    End,
}

/// Creates the channel of a stream. It holds a few batches of rows, so that its memory does not grow with the database.
#[must_use]
pub fn stream() -> (mpsc::Sender<Part>, mpsc::Receiver<Part>) {
    mpsc::channel(4)
}

/// Returns the schema that this version of AIMS writes: its last migration.
#[must_use]
pub fn latest_schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Returns true if a version of AIMS up to this one wrote such a schema.
#[must_use]
pub fn knows_schema(version: i64) -> bool {
    MIGRATIONS.version_exists(version)
}

/// Returns the schema of a database; `None` if it has no tables of AIMS.
///
/// # Errors
/// If the database fails.
async fn schema(mut conn: Conn<'_>) -> Result<Option<i64>> {
    const VERSION: &str = "SELECT MAX(version) FROM _sqlx_migrations";
    if !has_table(conn.reborrow(), "_sqlx_migrations").await? || !has_table(conn.reborrow(), "audit_head").await? {
        return Ok(None);
    }
    Ok(dispatch!(conn, |c| sqlx::query_scalar(VERSION).fetch_one(c).await)?)
}

/// Returns the head of a database's audit chain if the database holds anything.
///
/// # Errors
/// If the database fails.
pub async fn head_of_data(mut conn: Conn<'_>) -> Result<Option<Head>> {
    if schema(conn.reborrow()).await?.is_none() {
        return Ok(None);
    }
    Ok(Some(audit::head(conn).await?).filter(|head| *head != Head::EMPTY))
}

async fn has_table(conn: Conn<'_>, name: &str) -> Result<bool> {
    const SQLITE: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1";
    const POSTGRES: &str = "SELECT COUNT(to_regclass($1))";
    let sql = if matches!(conn, Conn::Sqlite(_)) { SQLITE } else { POSTGRES };
    let found: i64 = dispatch!(conn, |c| sqlx::query_scalar(sql).bind(name).fetch_one(c).await)?;
    Ok(found > 0)
}

fn unknown(what: &str) -> Error {
    Error::internal(format!("the database has {what} that this version of AIMS does not know"))
}
