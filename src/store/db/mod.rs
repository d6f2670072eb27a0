//! The two databases behind one type, and how each is opened.

pub mod changes;
pub(super) mod lender;
pub mod listener;
pub(super) mod sql;
pub(super) mod sqlite_file;
pub(super) mod writer;

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures_util::future;
use rustix::process::{Resource, getrlimit};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, Executor, PgConnection, Postgres, Sqlite, SqliteConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{self, timeout};

use lender::{Borrowed, Lease, Lender, PATIENCE};
use sqlite_file::{FileReplaced, SqliteFiles};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Runs one body on whichever driver holds the connection: `on!(conn, |c| query.execute(c).await)`. A connection that is given up
/// in the middle of it is not lent again before it is in order.
macro_rules! on {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $crate::store::db::Conn::from($conn) {
            $crate::store::db::Conn::Sqlite(mut borrowed) => {
                let $c: &mut sqlx::SqliteConnection = borrowed.begin();
                let answer = $body;
                borrowed.end();
                answer
            }
            $crate::store::db::Conn::Postgres(mut borrowed) => {
                let $c: &mut sqlx::PgConnection = borrowed.begin();
                let answer = $body;
                borrowed.end();
                answer
            }
        }
    };
}
pub(super) use on;

/// Prepared statements that the writing connection to SQLite keeps: more than there are sizes of multi-row statements.
const STATEMENTS: usize = 256;

/// After how many pages of 4 KiB SQLite moves what it logged into the database: a page that changes all the time is moved once.
const CHECKPOINT_PAGES: &str = "4000";

/// What connections to PostgreSQL call themselves.
const APPLICATION: &str = "aims";

/// How long PostgreSQL lets a statement run, and a transaction wait for its next one: a node that is lost while it writes holds
/// the end of the chain, and those that wait for it go on within the time that their statement has. And after how many seconds of
/// silence it asks whether there is still somebody, so that lost nodes do not use up its connections. It compiles no statement:
/// it would do so where it expects to read much, and all that is asked here ends after little. And it does not tell that what should
/// be there is there already, which would be logged with every start.
const SESSION: [(&str, &str); 7] = [
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("jit", "off"),
    ("client_min_messages", "warning"),
];

/// How many connections to PostgreSQL are opened at once at the start. One with TLS takes two times the 40 ms that Nagle's
/// algorithm waits for, and the writer keeps the first. Not more than the service cannot do without: one that the server has no room
/// for is tried for until its time is over.
const AT_START: usize = 2;

/// Most connections to PostgreSQL, besides the one that listens.
const POSTGRES_CONNECTIONS: u32 = 16;

/// Fewer open files than this are few.
const FEW_FILES: u64 = 256;

/// Number of SQLite read connections. Each uses a thread, memory, and open files that clients could otherwise use.
fn readers() -> u32 {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FEW_FILES) { 4 } else { 16 };
    u32::try_from(processors.clamp(4, most)).unwrap_or(4)
}

/// What the writing connection to SQLite keeps in memory of the database: KiB, written as a negative number.
const CACHE: &str = "-4096";
/// What each reading one keeps; the operating system keeps the rest, a system call away.
const READER_CACHE: &str = "-1024";

/// Where the database is.
#[derive(Clone, Debug)]
pub enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL; it may hold a password.
    Postgres(SecretString),
}

impl Location {
    /// Whether there is something to be opened, as far as files tell: only what sets AIMS up makes a database.
    ///
    /// # Errors
    /// [`OpenError::Missing`].
    pub fn require(&self) -> Result<(), OpenError> {
        match self {
            Self::Sqlite(path) if !path.exists() => {
                Err(OpenError::Missing(std::path::absolute(path).unwrap_or_else(|_| path.clone())))
            }
            Self::Sqlite(_) | Self::Postgres(_) => Ok(()),
        }
    }

    /// Most files that a service keeps open for it, by the limit of open files as it is now.
    #[must_use]
    pub fn files(&self) -> u64 {
        match self {
            // The database and its WAL for the writer, the connection that is kept open, and each reader, which may also sort in a
            // file; the index of the WAL, the lock, the folder.
            Self::Sqlite(_) => 2 + 2 + 3 * u64::from(readers()) + 3,
            // The one that listens, and another while one is replaced.
            Self::Postgres(_) => u64::from(POSTGRES_CONNECTIONS) + 2,
        }
    }
}

/// What the database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To change it: creates and migrates it. One process at a time on SQLite, whose live view could not follow another's changes.
    Write,
    /// To change what no process keeps in memory, beside one that writes.
    Beside,
    /// To read it as it is, also beside a process that writes.
    Read,
}

/// Why a database could not be opened; every message is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes to it.
    #[error("{0} is in use by another AIMS process")]
    InUse(PathBuf),
    /// There is no such file, and what it is asked for makes none.
    #[error(
        "cannot find the database {0}; run this in the folder of the service, or set DATABASE_URL as the service has it"
    )]
    Missing(PathBuf),
    /// The file has a second name in the file system.
    #[error(
        "the database file {0} has another name (a hard link), under which SQLite would keep its changes in another file; remove \
         that link: find it with `find / -xdev -samefile {0}`"
    )]
    HardLinked(PathBuf),
    /// The file is mounted without its folder.
    #[error(
        "the database file {0} is mounted without its folder; SQLite keeps recent changes in a file beside it, \
         so mount the folder instead"
    )]
    Mounted(PathBuf),
    /// The file or its folder cannot be used.
    #[error("cannot use the database file {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The database does not answer, or refuses.
    #[error("cannot open the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// The server of PostgreSQL does not answer, or refuses.
    #[error("cannot open the database at {0}: {1}")]
    Server(String, #[source] sqlx::Error),
    /// It is the database of the service that AIMS replaces, and stays as it is.
    #[error("{0} is the database of the predecessor; choose another DATABASE_URL and run: aims import-seed {0}")]
    Predecessor(PathBuf),
    /// A newer AIMS made it.
    #[error("the database was made by a newer version of AIMS (migration {0} is unknown here)")]
    Newer(i64),
    /// Its schema cannot be brought up to date.
    #[error("cannot bring the database up to date: {0}")]
    Migrate(#[source] MigrateError),
}

/// A pool of connections to either database.
#[derive(Clone, Debug)]
pub enum Db {
    /// SQLite: the one connection that writes, and those that read.
    Sqlite {
        /// At most one connection: SQLite has one writer.
        writer: Lender<Sqlite>,
        /// Read-only connections.
        readers: Lender<Sqlite>,
        /// What this process writes to; `None` when it only reads.
        files: Option<Arc<SqliteFiles>>,
    },
    /// PostgreSQL.
    Postgres(Lender<Postgres>),
}

/// A borrowed connection: what every store function takes.
pub enum Conn<'c> {
    /// To SQLite.
    Sqlite(Borrowed<'c, Sqlite>),
    /// To PostgreSQL.
    Postgres(Borrowed<'c, Postgres>),
}

impl Conn<'_> {
    /// Lends the connection on.
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

/// A connection that is given back when dropped.
pub enum PooledConn {
    /// To SQLite.
    Sqlite(Lease<Sqlite>),
    /// To PostgreSQL.
    Postgres(Lease<Postgres>),
}

impl PooledConn {
    /// Lends the connection to a store function.
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(lease) => Conn::Sqlite(lease.borrow()),
            Self::Postgres(lease) => Conn::Postgres(lease.borrow()),
        }
    }

    /// Has the connection closed in place of given back.
    pub(super) fn spoil(&mut self) {
        match self {
            Self::Sqlite(lease) => lease.spoil(),
            Self::Postgres(lease) => lease.spoil(),
        }
    }
}

impl Db {
    /// Opens the database; for [`Mode::Write`] also creates it where it is a file, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(location: &Location, mode: Mode) -> Result<Self, OpenError> {
        if mode != Mode::Write {
            location.require()?;
        }
        match location {
            Location::Sqlite(path) => {
                let resolved = sqlite_file::resolve(path)?;
                if is_foreign(&resolved).await {
                    return Err(OpenError::Predecessor(path.clone()));
                }
                Self::open_sqlite(&resolved, mode).await
            }
            Location::Postgres(url) => Self::open_postgres(url, mode).await,
        }
    }

    async fn open_sqlite(path: &Path, mode: Mode) -> Result<Self, OpenError> {
        let lock = match mode {
            Mode::Write => Some(sqlite_file::lock_for_writing(path)?),
            Mode::Beside | Mode::Read => None,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .synchronous(SqliteSynchronous::Full);
        let read_only = options.clone().read_only(true).pragma("cache_size", READER_CACHE);
        let writing = |options: SqliteConnectOptions| {
            options
                .journal_mode(SqliteJournalMode::Wal)
                .statement_cache_capacity(STATEMENTS)
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                .pragma("cache_size", CACHE)
                // What a savepoint may have to undo would else be written to a file that each larger batch makes anew.
                .pragma("temp_store", "MEMORY")
        };
        let writer_options = match mode {
            Mode::Write => writing(sqlite_file::creating(path, options)),
            Mode::Beside => writing(options),
            Mode::Read => read_only.clone(),
        };
        // Its thread cannot be lost.
        let untested = || SqlitePoolOptions::new().test_before_acquire(false);
        let one = untested().max_connections(1).idle_timeout(None).max_lifetime(None);
        let writer = Lender::new(one, writer_options);
        let mut first = writer.lend().await.map_err(OpenError::Connect)?;
        if mode == Mode::Write {
            let mut borrowed = first.borrow();
            let connection = borrowed.begin();
            // Whoever makes an index sorts all of its rows.
            connection.execute("PRAGMA temp_store = FILE").await.map_err(OpenError::Connect)?;
            SQLITE_MIGRATIONS.run(&mut *connection).await.map_err(not_migrated)?;
            connection.execute("PRAGMA temp_store = MEMORY").await.map_err(OpenError::Connect)?;
        }
        let files = match mode {
            Mode::Write | Mode::Beside => Some(Arc::new(SqliteFiles::open(path, lock, read_only.clone()).await?)),
            Mode::Read => None,
        };
        let readers = Lender::new(untested().max_connections(readers()).acquire_timeout(PATIENCE), read_only);
        Ok(Self::Sqlite { writer, readers, files })
    }

    async fn open_postgres(url: &SecretString, mode: Mode) -> Result<Self, OpenError> {
        let options: PgConnectOptions = url.expose_secret().parse().map_err(OpenError::Connect)?;
        // The brackets belong to the URL and not to the address (RFC 3986 §3.2.2).
        let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
        let options = match address {
            Some(address) => options.host(&address),
            None => options,
        };
        let options = options.application_name(APPLICATION).options(SESSION);
        let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(PATIENCE);
        let lender = Lender::new(pool, options.clone());
        let opened = future::join_all((0..AT_START).map(|_| lender.lend())).await;
        // One is enough to go on with.
        match opened.into_iter().reduce(Result::or) {
            Some(Ok(connection)) if mode == Mode::Write => migrate_postgres(connection).await?,
            // The pool tries a closed port again until its time is over, and then says no more than that.
            Some(Err(sqlx::Error::PoolTimedOut)) => {
                return Err(OpenError::Server(server(&options), why_unreachable(&options).await));
            }
            Some(Err(error)) => return Err(OpenError::Server(server(&options), error)),
            Some(Ok(_)) | None => {}
        }
        Ok(Self::Postgres(lender))
    }

    /// A connection for reads.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn read(&self) -> Result<PooledConn, crate::domain::Error> {
        Ok(match self {
            Self::Sqlite { readers, .. } => PooledConn::Sqlite(readers.lend().await?),
            Self::Postgres(lender) => PooledConn::Postgres(lender.lend().await?),
        })
    }

    /// The connection that writes.
    pub(super) async fn writer(&self) -> sqlx::Result<PooledConn> {
        Ok(match self {
            Self::Sqlite { writer, .. } => PooledConn::Sqlite(writer.lend().await?),
            Self::Postgres(lender) => PooledConn::Postgres(lender.lend().await?),
        })
    }

    /// Returns the file that this process writes to and that was deleted, moved or replaced, if there is one: writes are no longer
    /// durable then. `None` for PostgreSQL, which looks after its own files.
    ///
    /// # Errors
    /// When the file system cannot tell.
    pub fn replaced_file(&self) -> io::Result<Option<FileReplaced>> {
        match self {
            Self::Sqlite { files: Some(files), .. } => files.replaced(),
            Self::Sqlite { .. } | Self::Postgres(_) => Ok(None),
        }
    }

    /// Returns true if `path` leads to a file of the database, which nothing but SQLite may open.
    #[must_use]
    pub fn includes_file(&self, path: &Path) -> bool {
        matches!(self, Self::Sqlite { files: Some(files), .. } if files.include(path))
    }

    /// Closes the connections. What reads for somebody who is gone is not waited for any longer than [`PATIENCE`].
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, files } => {
                let _ = timeout(PATIENCE, readers.close()).await;
                if let Some(files) = files {
                    files.close().await;
                }
                // Close the writer last: only a writable connection checkpoints the WAL.
                writer.close().await;
            }
            Self::Postgres(lender) => drop(timeout(PATIENCE, lender.close()).await),
        }
    }
}

/// Brings the schema up to date, however long that takes. Where it was not, the connections of nodes that run are cut: a statement
/// that was prepared for a table as it was fails for as long as its connection lasts.
async fn migrate_postgres(mut lease: Lease<Postgres>) -> Result<(), OpenError> {
    /// Of nodes that start at once one migrates and cuts, and no other is cut that has begun.
    const ALONE: &str = "SELECT pg_advisory_lock(hashtext('aims_migrations'))";
    let mut borrowed = lease.borrow();
    let connection = borrowed.begin();
    if migrations(connection).await == i64::try_from(POSTGRES_MIGRATIONS.iter().count()).ok() {
        POSTGRES_MIGRATIONS.run(connection).await.map_err(not_migrated)?;
        borrowed.end();
        return Ok(());
    }
    lease.spoil();
    let mut borrowed = lease.borrow();
    let connection = borrowed.begin();
    connection.execute("SET statement_timeout = 0").await.map_err(OpenError::Connect)?;
    connection.execute(ALONE).await.map_err(OpenError::Connect)?;
    let before = migrations(connection).await;
    POSTGRES_MIGRATIONS.run(&mut *connection).await.map_err(not_migrated)?;
    if migrations(connection).await != before {
        // The schema is as it should be, and others come to it in half an hour at the latest.
        if let Err(error) = cut_others(connection).await {
            tracing::warn!(%error, "nodes of an older version may fail to read until their connections are renewed");
        }
    }
    Ok(())
}

/// How many migrations were applied; `None` before the first.
async fn migrations(connection: &mut PgConnection) -> Option<i64> {
    sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations").fetch_one(connection).await.ok()
}

/// Ends the connections of other nodes once nobody uses them, so that hardly a request notices. One that is always in use is ended
/// between two statements, in the end, and one that is busy for longer than [`PATIENCE`] stays.
async fn cut_others(connection: &mut PgConnection) -> sqlx::Result<()> {
    const OTHERS: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user \
        AND application_name = $1 AND pid <> pg_backend_pid() AND wait_event IS DISTINCT FROM 'advisory'";
    const CUT: &str = "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) AND NOT CASE \
        WHEN state = 'idle' AND state_change <= clock_timestamp() - make_interval(secs => $2) THEN pg_terminate_backend(pid) \
        ELSE FALSE END";
    const UNUSED: Duration = Duration::from_millis(50);
    let mut others: Vec<i32> = sqlx::query_scalar(OTHERS).bind(APPLICATION).fetch_all(&mut *connection).await?;
    let began = Instant::now();
    while !others.is_empty() && began.elapsed() < PATIENCE {
        let unused = if began.elapsed() < PATIENCE / 2 { UNUSED } else { Duration::ZERO };
        others = sqlx::query_scalar(CUT).bind(&others).bind(unused.as_secs_f64()).fetch_all(&mut *connection).await?;
        time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn not_migrated(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer(version),
        other => OpenError::Migrate(other),
    }
}

/// Whether the file holds agents and was never migrated by AIMS: both services choose the same default file, and
/// opening it to write would already change it.
async fn is_foreign(path: &Path) -> bool {
    const SQL: &str = "SELECT COUNT(*) = 1 AND MAX(name) = 'agents' FROM sqlite_master WHERE type = 'table' \
        AND name IN ('agents', '_sqlx_migrations')";
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    match SqliteConnection::connect_with(&options).await {
        Ok(mut connection) => sqlx::query_scalar(SQL).fetch_one(&mut connection).await.unwrap_or(false),
        Err(_) => false,
    }
}

/// Where the server is looked for; a host that begins with a slash is the folder of a socket.
fn server(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().map(|folder| folder.display().to_string());
    let host = match options.get_host() {
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    format!("{}:{}", socket.unwrap_or(host), options.get_port())
}

/// What one more attempt meets, where it meets anything but silence.
async fn why_unreachable(options: &PgConnectOptions) -> sqlx::Error {
    match timeout(Duration::from_secs(1), PgConnection::connect_with(options)).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}
