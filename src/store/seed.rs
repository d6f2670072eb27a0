//! Reads the SQLite file of the predecessor, and marks it as imported. The file is never written to.
//!
//! Every value is read as text or NULL, because SQLite does not enforce column types. The importer parses the values.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, FromRow, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Tx, db::execute};
use crate::domain::{Result, Timestamp};

/// The name of the predecessor in the table `imports`.
const SOURCE: &str = "seed";

/// Why the file could not be read. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file does not exist or is not readable.
    #[error("cannot read the file {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The file is not an SQLite database, or is in use.
    #[error("cannot read the database {0}: {1}")]
    Database(PathBuf, #[source] sqlx::Error),
    /// Tables or columns are missing. The message lists all of them.
    #[error("{0} is not a database of the predecessor: {list}", list = .1.join("; "))]
    Schema(PathBuf, Vec<String>),
    /// A table contains a value that cannot be read as text.
    #[error("cannot read the table {0}: {1}")]
    Table(&'static str, #[source] sqlx::Error),
}

/// A table of the predecessor.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
}

/// Declares a table: the struct of its rows, its required columns, and the statement that reads them.
macro_rules! table {
    ($(#[$doc:meta])* $row:ident = $name:literal { $($column:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, FromRow)]
        pub struct $row {
            /// The number of the row in its table, from 1.
            pub row_number: i64,
            $(
                #[doc = concat!("The column `", stringify!($column), "`.")]
                pub $column: Option<String>,
            )+
        }

        impl $row {
            /// The name of the table.
            pub const TABLE: &'static str = $name;

            const DEFINITION: Table = Table { name: $name, columns: &[$(stringify!($column)),+] };

            const SELECT: &'static str = concat!(
                "SELECT ",
                $("CAST(", stringify!($column), " AS TEXT) AS ", stringify!($column), ", ",)+
                "ROW_NUMBER() OVER (ORDER BY rowid) AS row_number FROM ", $name, " ORDER BY rowid",
            );

            async fn all(conn: &mut SqliteConnection) -> Result<Vec<Self>, ReadError> {
                let rows = sqlx::query_as(Self::SELECT).fetch_all(conn).await;
                rows.map_err(|error| ReadError::Table(Self::TABLE, error))
            }
        }
    };
}

table! {
    /// An agent.
    AgentRow = "agents" {
        id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at, suspended_at,
        revoked_at,
    }
}

table! {
    /// An API key; `key_hash` is the SHA-256 of the raw key in hexadecimal digits.
    ApiKeyRow = "api_keys" {
        id, agent_id, key_prefix, key_hash, name, status, expires_at, created_at, rotated_at, revoked_at, last_used_at,
    }
}

table! {
    /// A capability.
    CapabilityRow = "capabilities" { id, name, description, created_at }
}

table! {
    /// A grant of a capability to an agent.
    GrantRow = "agent_capabilities" { id, agent_id, capability_id, granted_by, granted_at }
}

table! {
    /// An audit record; `agent_id` is the actor.
    AuditRow = "audit_logs" {
        id, timestamp, agent_id, action, resource_type, resource_id, details_json, ip_address, success,
    }
}

/// The contents of the predecessor's database. The rows of each table are in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Agents.
    pub agents: Vec<AgentRow>,
    /// API keys.
    pub api_keys: Vec<ApiKeyRow>,
    /// Capabilities.
    pub capabilities: Vec<CapabilityRow>,
    /// Grants.
    pub grants: Vec<GrantRow>,
    /// Audit records.
    pub audit: Vec<AuditRow>,
}

/// Reads a consistent snapshot of the file. The file is neither created nor changed.
///
/// # Errors
/// See [`ReadError`].
pub async fn read(path: &Path) -> Result<Contents, ReadError> {
    let database = |error| ReadError::Database(path.to_owned(), error);
    let options = options(path).map_err(|error| ReadError::File(path.to_owned(), error))?;
    let mut conn = options.connect().await.map_err(database)?;
    // One transaction, because the predecessor may still be running: a key must not appear without its agent.
    let mut snapshot = conn.begin().await.map_err(database)?;
    let problems = missing(&mut snapshot).await.map_err(database)?;
    if !problems.is_empty() {
        return Err(ReadError::Schema(path.to_owned(), problems));
    }
    let contents = Contents {
        agents: AgentRow::all(&mut snapshot).await?,
        api_keys: ApiKeyRow::all(&mut snapshot).await?,
        capabilities: CapabilityRow::all(&mut snapshot).await?,
        grants: GrantRow::all(&mut snapshot).await?,
        audit: AuditRow::all(&mut snapshot).await?,
    };
    snapshot.rollback().await.map_err(database)?;
    conn.close().await.map_err(database)?;
    Ok(contents)
}

fn options(path: &Path) -> io::Result<SqliteConnectOptions> {
    // Absolute, because names such as `file:…` and `:memory:` have a special meaning in SQLite.
    let path = path.canonicalize()?;
    let immutable = is_wal(&path)? && !wal_path(&path).try_exists()?;
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(5));
    // A file in WAL mode without a WAL was closed cleanly. SQLite would create the WAL even to read, and fail in a
    // read-only folder. With `immutable` it reads the file alone.
    Ok(options.immutable(immutable))
}

/// Returns true if the file is an SQLite database in WAL mode. The byte at offset 19 is its read version.
fn is_wal(path: &Path) -> io::Result<bool> {
    let mut header = Vec::with_capacity(20);
    File::open(path)?.take(20).read_to_end(&mut header)?;
    Ok(header.get(19) == Some(&2))
}

fn wal_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-wal");
    name.into()
}

/// Returns a message for each missing table and column.
async fn missing(conn: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    const COLUMNS: &str = "SELECT LOWER(name) FROM pragma_table_info($1)";
    let tables = [
        AgentRow::DEFINITION,
        ApiKeyRow::DEFINITION,
        CapabilityRow::DEFINITION,
        GrantRow::DEFINITION,
        AuditRow::DEFINITION,
    ];
    let mut problems = Vec::new();
    for table in tables {
        let present: Vec<String> = sqlx::query_scalar(COLUMNS).bind(table.name).fetch_all(&mut *conn).await?;
        if present.is_empty() {
            problems.push(format!("there is no table {}", table.name));
            continue;
        }
        let absent = table.columns.iter().filter(|&&column| !present.iter().any(|present| present == column));
        problems.extend(absent.map(|column| format!("the table {} lacks the column {column}", table.name)));
    }
    Ok(problems)
}

/// Marks the predecessor as imported. Returns false if it was imported before. Everything counts as changed, because an
/// import may add any number of agents.
///
/// # Errors
/// If the database fails.
pub async fn mark_imported(tx: &mut Tx, at: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO imports (source, imported_at) VALUES ($1, $2) ON CONFLICT (source) DO NOTHING";
    let inserted = execute!(tx.conn(), sqlx::query(SQL).bind(SOURCE).bind(at.as_micros()))?;
    tx.mark_everything_changed();
    Ok(inserted == 1)
}
