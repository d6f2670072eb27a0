//! All SQL. Functions of this layer return domain types, and know neither policy nor the time.
//!
//! One SQL text serves SQLite and PostgreSQL. The macro `db::dispatch!` runs it on the driver behind the connection.
//!
//! A function that only reads takes a [`Conn`]. A function that writes what the live view reads takes a [`Tx`] and
//! marks the change in it, so that every node drops its cached copy at the commit. `tests/it/store/invalidation.rs`
//! checks every such function.

pub mod agents;
pub mod answers;
pub mod audit;
pub mod backup;
pub mod capabilities;
pub mod credentials;
pub mod db;
pub mod names;
pub mod people;
pub mod principals;
pub mod seed;
pub mod tokens;
mod writer;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};
use tokio::{sync::watch, time::interval};

use crate::{
    domain::{AgentId, ApiKeyId, Error, Result, Timestamp, audit::Event},
    telemetry::metrics::Metrics,
};

pub use db::changes::Changes;
pub use db::sqlite_file::{FileReplaced, SqliteFiles, give_to_service};
pub use db::{Conn, Db, Location, Mode, OpenError, PooledConn};
pub use writer::{OnCommit, Tx};

/// How often the files of the database are checked. Each commit checks them as well.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The database: connections for reads, and the writer that all changes go through. Clones share them.
#[derive(Clone)]
pub struct Store {
    db: Db,
    writer: writer::Writer,
    commits: watch::Receiver<()>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Starts the writer of an open database. `on_commit` is called with the changes of each commit, before any caller
    /// gets a response.
    #[must_use]
    pub fn start(db: Db, on_commit: OnCommit) -> Self {
        Self::start_with(db, on_commit, Arc::new(Metrics::off()))
    }

    /// Like [`Store::start`], and counts in `metrics`.
    #[must_use]
    pub fn start_with(db: Db, on_commit: OnCommit, metrics: Arc<Metrics>) -> Self {
        let (committed, commits) = watch::channel(());
        let writer = writer::Writer::start(db.clone(), on_commit, committed, metrics.writer.clone());
        Self { db, writer, commits, metrics }
    }

    /// Returns the metrics of this process.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns how much work waits for the writer, and how much may wait.
    #[must_use]
    pub fn queue(&self) -> (usize, usize) {
        self.writer.queue()
    }

    /// Returns a channel that is notified of every commit of this process, after its callers got their responses.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<()> {
        self.commits.clone()
    }

    /// Returns a connection for reads.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no connection is free in time.
    pub async fn read(&self) -> Result<PooledConn> {
        self.db.read().await
    }

    /// Returns a connection for reads of key usage and authentication counts, after writing the counts that were still
    /// in memory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no connection is free in time.
    pub async fn read_usage(&self) -> Result<PooledConn> {
        self.writer.save_usage().await?;
        self.db.read().await
    }

    /// Runs `unit` in a transaction and returns once its changes and audit records are durable.
    ///
    /// # Errors
    /// The error of `unit`, after its changes were undone. [`Error::Unavailable`] if the commit fails or too
    /// much work is waiting.
    pub async fn write<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(unit, writer::TRANSACTION_TIMEOUT).await
    }

    /// Like [`Store::write`], without a time limit. Nobody else can write in the meantime.
    ///
    /// # Errors
    /// See [`Store::write`].
    pub async fn write_without_limit<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(unit, Duration::MAX).await
    }

    /// Like [`Store::write`], but waits for a place if the queue is full.
    ///
    /// # Errors
    /// See [`Store::write`].
    pub async fn write_in_turn<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write_in_turn(unit, writer::TRANSACTION_TIMEOUT).await
    }

    /// Appends an audit record. If it records the use of an API key, counts that use.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; see [`Store::write`].
    pub async fn record(&self, event: Event, used: Option<ApiKeyId>) -> Result<()> {
        self.writer.record(event, used).await
    }

    /// Notes that an agent used a capability that it holds. Written with the usage of keys, at most a second later.
    pub fn used_capability(&self, agent: AgentId, capability: &str, at: Timestamp) {
        self.writer.used_capability(agent, capability, at);
    }

    /// Returns once a file of the database was deleted, moved or replaced. Checks every second.
    pub async fn files_replaced(&self) -> FileReplaced {
        let mut ticks = interval(FILE_CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            if let Ok(Some(replaced)) = self.db.replaced_file() {
                return replaced;
            }
        }
    }

    /// Returns once the writer has stopped: after [`Store::close`], or because of a bug.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// Finishes the waiting work, then closes all connections.
    pub async fn close(self) {
        self.writer.finish().await;
        self.db.close().await;
    }

    /// Returns the database, for its listener and its files.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("db", &self.db).finish_non_exhaustive()
    }
}

impl From<sqlx::Error> for Error {
    /// Maps a database that does not respond to [`Error::Unavailable`], and everything that a retry cannot fix to
    /// [`Error::Internal`].
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::ColumnDecode { .. } | E::ColumnNotFound(_) | E::Decode(_) | E::Encode(_) | E::TypeNotFound { .. } => {
                Self::Internal(Box::new(error))
            }
            E::Database(ref rejection) if is_permanent(rejection.as_ref()) => Self::Internal(Box::new(error)),
            _ => Self::Unavailable(Some(Box::new(error))),
        }
    }
}

/// Returns true if a retry would fail in the same way: a value cannot be stored (SQLSTATE class 22), a constraint is
/// violated (23), or the statement is invalid (42).
fn is_permanent(rejection: &dyn DatabaseError) -> bool {
    /// SQLite's primary result code, the lowest byte of the extended codes.
    const CONSTRAINT: i32 = 19;
    if let Some(rejection) = rejection.try_downcast_ref::<PgDatabaseError>() {
        return ["22", "23", "42"].iter().any(|class| rejection.code().starts_with(class));
    }
    rejection.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xFF == CONSTRAINT)
}

/// Converts the result of parsing a stored value. An invalid value is an internal error.
fn stored<T, E>(what: &'static str, parsed: std::result::Result<T, E>) -> Result<T> {
    parsed.map_err(|_| Error::internal(format!("the database holds an unknown {what}")))
}

/// Splits rows into chunks of a few fixed sizes, so that few different multi-row statements need to be prepared.
fn even_chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = [64, 16, 4, 1].into_iter().find(|&size| size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn chunks_contain_all_rows_in_order() {
        let rows: Vec<_> = (0..150).collect();
        let chunks: Vec<_> = super::even_chunks(&rows).collect();
        assert_eq!(chunks.concat(), rows);
        assert!(chunks.iter().all(|chunk| [64, 16, 4, 1].contains(&chunk.len())));
    }
}
