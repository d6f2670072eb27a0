//! The two databases behind one type.

pub mod changes;
mod engine;
pub mod listener;
mod location;
mod pool;
pub(super) mod postgres;
pub mod readiness;
mod schema;
pub(super) mod sql;
pub(super) mod sqlite;
pub(super) mod sqlite_file;

use std::{io, path::Path, sync::Arc};

use sqlx::{Postgres, Sqlite};
use tokio::time::timeout;

use crate::{domain::Result, telemetry::metrics};
pub use engine::Unfit;
pub use location::{Location, Mode, OpenError};
pub use pool::Connections;
use pool::{Borrowed, CONNECTION_TIMEOUT, Lease, Pool};
pub use schema::{Schema, Step};
use sqlite_file::{FileReplaced, SqliteFiles};

/// Runs one expression on the driver behind a connection: `dispatch!(conn, |c| query.fetch_all(c).await)?`.
///
/// The expression is the body of an async block, so `?` and `return` leave the block and not the function around the
/// macro. It has the type `sqlx::Result<T>`, which is also the type of the macro. After an error, or if the caller is
/// dropped while the statement runs, the pool tests the connection before anyone else gets it.
macro_rules! dispatch {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $crate::store::db::Conn::from($conn) {
            $crate::store::db::Conn::Sqlite(mut borrowed) => {
                let $c: &mut sqlx::SqliteConnection = borrowed.begin();
                let result: sqlx::Result<_> = async { $body }.await;
                if result.is_ok() {
                    borrowed.end();
                }
                result
            }
            $crate::store::db::Conn::Postgres(mut borrowed) => {
                let $c: &mut sqlx::PgConnection = borrowed.begin();
                let result: sqlx::Result<_> = async { $body }.await;
                if result.is_ok() {
                    borrowed.end();
                }
                result
            }
        }
    };
}
pub(super) use dispatch;

/// Executes a statement and returns the number of rows that it changed: `execute!(conn, sqlx::query(SQL).bind(id))?`.
macro_rules! execute {
    ($conn:expr, $query:expr) => {
        $crate::store::db::dispatch!($conn, |c| $query.execute(c).await.map(|done| done.rows_affected()))
    };
}
pub(super) use execute;

/// Connections to either database.
#[derive(Clone, Debug)]
pub enum Db {
    /// SQLite.
    Sqlite {
        /// One connection: SQLite has one writer at a time.
        writer: Pool<Sqlite>,
        /// Read-only connections.
        readers: Pool<Sqlite>,
        /// The files that this process writes to. `None` if it only reads.
        files: Option<Arc<SqliteFiles>>,
    },
    /// PostgreSQL.
    Postgres(Pool<Postgres>),
}

/// A borrowed connection, the argument of every store function that reads.
pub enum Conn<'c> {
    /// To SQLite.
    Sqlite(Borrowed<'c, Sqlite>),
    /// To PostgreSQL.
    Postgres(Borrowed<'c, Postgres>),
}

impl Conn<'_> {
    /// Borrows the connection again, for a shorter time.
    pub fn reborrow(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(c) => Conn::Sqlite(c.reborrow()),
            Self::Postgres(c) => Conn::Postgres(c.reborrow()),
        }
    }
}

impl<'c> From<&'c mut Conn<'_>> for Conn<'c> {
    fn from(conn: &'c mut Conn<'_>) -> Self {
        conn.reborrow()
    }
}

/// A connection that returns to its pool when dropped.
pub enum PooledConn {
    /// To SQLite.
    Sqlite(Lease<Sqlite>),
    /// To PostgreSQL.
    Postgres(Lease<Postgres>),
}

impl PooledConn {
    /// Borrows the connection for a store function.
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(lease) => Conn::Sqlite(lease.borrow()),
            Self::Postgres(lease) => Conn::Postgres(lease.borrow()),
        }
    }

    /// Closes the connection on drop, instead of returning it to its pool.
    pub(super) fn discard(&mut self) {
        match self {
            Self::Sqlite(lease) => lease.discard(),
            Self::Postgres(lease) => lease.discard(),
        }
    }
}

impl Location {
    /// Returns the maximum number of files that the service keeps open for this database.
    #[must_use]
    pub fn files(&self) -> u64 {
        match self {
            Self::Sqlite(_) => sqlite::open_files(),
            Self::Postgres(_) => postgres::OPEN_FILES,
        }
    }
}

impl Db {
    /// Opens the database. In [`Mode::Write`] also applies the migrations, and creates the database if it is an SQLite
    /// file. In the other modes the database must be migrated.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(location: &Location, mode: Mode) -> Result<Self, OpenError> {
        if mode != Mode::Write {
            location.require()?;
        }
        match location {
            Location::Sqlite(path) => sqlite::open(path, mode).await,
            Location::Postgres(url) => postgres::open(url, mode).await,
        }
    }

    /// Reads which migrations the database has, without changing anything.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn schema(location: &Location) -> Result<Schema, OpenError> {
        location.require()?;
        match location {
            Location::Sqlite(path) => sqlite::schema(path).await,
            Location::Postgres(url) => postgres::schema(url).await,
        }
    }

    /// Returns a connection for reads.
    ///
    /// # Errors
    /// [`crate::domain::Error::Unavailable`] if no connection is free in time.
    pub async fn read(&self) -> Result<PooledConn> {
        Ok(match self {
            Self::Sqlite { readers, .. } => PooledConn::Sqlite(readers.acquire().await?),
            Self::Postgres(pool) => PooledConn::Postgres(pool.acquire().await?),
        })
    }

    /// Returns the connection for writes.
    pub(super) async fn writer(&self) -> sqlx::Result<PooledConn> {
        Ok(match self {
            Self::Sqlite { writer, .. } => PooledConn::Sqlite(writer.acquire().await?),
            Self::Postgres(pool) => PooledConn::Postgres(pool.acquire().await?),
        })
    }

    /// Returns how the connections of each pool are used.
    #[must_use]
    pub fn connections(&self) -> Vec<(metrics::labels::Pool, Connections)> {
        match self {
            Self::Sqlite { writer, readers, .. } => {
                vec![
                    (metrics::labels::Pool::Write, writer.connections()),
                    (metrics::labels::Pool::Read, readers.connections()),
                ]
            }
            Self::Postgres(pool) => vec![(metrics::labels::Pool::Shared, pool.connections())],
        }
    }

    /// Returns true if other nodes may write to the same database, so that caches need a [`listener::Listener`].
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Returns the first database file that was deleted, moved or replaced. From then on writes are no longer durable.
    /// Always `None` for PostgreSQL, which manages its own files.
    ///
    /// # Errors
    /// An I/O error if the files cannot be inspected.
    pub fn replaced_file(&self) -> io::Result<Option<FileReplaced>> {
        match self {
            Self::Sqlite { files: Some(files), .. } => files.replaced(),
            Self::Sqlite { .. } | Self::Postgres(_) => Ok(None),
        }
    }

    /// Returns true if `path` is a file of the database, which nothing but SQLite may open.
    #[must_use]
    pub fn includes_file(&self, path: &Path) -> bool {
        matches!(self, Self::Sqlite { files: Some(files), .. } if files.include(path))
    }

    /// Closes the connections. Waits at most 5 seconds for statements that still run on reading connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, files } => {
                let _ = timeout(CONNECTION_TIMEOUT, readers.close()).await;
                if let Some(files) = files {
                    files.close().await;
                }
                // Close the writer last: only a writable connection checkpoints the WAL.
                writer.close().await;
            }
            Self::Postgres(pool) => drop(timeout(CONNECTION_TIMEOUT, pool.close()).await),
        }
    }
}
