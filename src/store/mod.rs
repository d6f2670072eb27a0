//! All SQL, and nothing but SQL: takes a connection, returns domain types. No policy, no clock.
//!
//! One SQL text serves SQLite and PostgreSQL; the macro `on!` runs it on whichever driver is at hand.

pub mod agents;
pub mod audit;
pub mod capabilities;
pub mod credentials;
pub mod db;
pub mod names;
pub mod people;
pub mod principals;
pub mod seed;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};
use tokio::{sync::watch, time::interval};

use crate::domain::{ApiKeyId, Error, Result, audit::Event};

pub use db::changes::Changes;
pub use db::sqlite_file::{FileReplaced, SqliteFiles};
pub use db::writer::Tx;
pub use db::{Conn, Db, Location, Mode, PooledConn};

/// How often an idle service checks the files of its database; each commit does, too.
const FILES_EVERY: Duration = Duration::from_secs(1);

/// The database, its one way in for changes, and its many for reads.
#[derive(Clone)]
pub struct Store {
    db: Db,
    writer: db::writer::Writer,
    commits: watch::Receiver<()>,
}

/// What is told of the changes of a commit, before any caller learns that it happened.
pub type OnCommit = Arc<dyn Fn(&Changes) + Send + Sync>;

impl Store {
    /// Starts the writer over an open database.
    #[must_use]
    pub fn start(db: Db, on_commit: OnCommit) -> Self {
        let (committed, commits) = watch::channel(());
        Self { writer: db::writer::Writer::start(db.clone(), on_commit, committed), commits, db }
    }

    /// Tells of every commit of this process that added to the audit log, once its callers are answered.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<()> {
        self.commits.clone()
    }

    /// A connection for reads.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when none can be had.
    pub async fn read(&self) -> Result<PooledConn> {
        self.db.read().await
    }

    /// A connection for reads that show how keys were used or how many tokens were issued, all that was answered included.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when none can be had.
    pub async fn read_usage(&self) -> Result<PooledConn> {
        self.writer.save_usage().await?;
        self.db.read().await
    }

    /// Runs `unit` in a transaction, together with the audit records it asks for, and returns once both are durable.
    ///
    /// # Errors
    /// What `unit` returns, after everything it did was undone; [`Error::Unavailable`] when the commit did not succeed
    /// or too much work is waiting.
    pub async fn write<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(unit, db::writer::LONGEST).await
    }

    /// As [`Store::write`], for what may take any time, while nobody else writes.
    ///
    /// # Errors
    /// As for [`Store::write`].
    pub async fn write_at_length<T, F>(&self, unit: F) -> Result<T>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(unit, Duration::MAX).await
    }

    /// Appends an audit record, and notes that it tells of a use of the API key `used`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as for [`Store::write`].
    pub async fn record(&self, event: Event, used: Option<ApiKeyId>) -> Result<()> {
        self.writer.record(event, used).await
    }

    /// Checks every second, and returns once the files of the database were deleted, moved or replaced.
    pub async fn files_replaced(&self) -> FileReplaced {
        let mut ticks = interval(FILES_EVERY);
        loop {
            ticks.tick().await;
            if let Ok(Some(replaced)) = self.db.replaced_file() {
                return replaced;
            }
        }
    }

    /// Returns when nothing can be written any more: after [`Store::close`], or because of a defect.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// Finishes the work that is waiting, then closes every connection.
    pub async fn close(self) {
        self.writer.finish().await;
        self.db.close().await;
    }

    /// The database, for those who listen to it.
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
    /// A database that fails to answer is an outage; an answer that cannot be understood is a defect, and so is a question that the
    /// database will refuse however often it is asked.
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::ColumnDecode { .. } | E::ColumnNotFound(_) | E::Decode(_) | E::Encode(_) | E::TypeNotFound { .. } => {
                Self::Internal(Box::new(error))
            }
            E::Database(ref refusal) if is_final(refusal.as_ref()) => Self::Internal(Box::new(error)),
            _ => Self::Unavailable(Some(Box::new(error))),
        }
    }
}

/// Whether the same question meets the same refusal again: it holds what cannot be stored (SQLSTATE class 22), breaks a
/// constraint (23) or is wrong in itself (42).
fn is_final(refusal: &dyn DatabaseError) -> bool {
    /// SQLite's primary result code, which the lowest byte of the others repeats.
    const CONSTRAINT: i32 = 19;
    if let Some(refusal) = refusal.try_downcast_ref::<PgDatabaseError>() {
        return ["22", "23", "42"].iter().any(|class| refusal.code().starts_with(class));
    }
    refusal.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xFF == CONSTRAINT)
}

/// Reads a stored word into its domain type.
fn stored<T, E>(what: &'static str, parsed: std::result::Result<T, E>) -> Result<T> {
    parsed.map_err(|_| Error::internal(format!("the database holds an unknown {what}")))
}

/// Cuts rows for multi-row statements into pieces of a few fixed sizes, so that each size's statement is prepared once.
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
    fn chunks_cover_all_rows_in_order() {
        let rows: Vec<_> = (0..150).collect();
        let chunks: Vec<_> = super::even_chunks(&rows).collect();
        assert_eq!(chunks.concat(), rows);
        assert!(chunks.iter().all(|chunk| [64, 16, 4, 1].contains(&chunk.len())));
    }
}
