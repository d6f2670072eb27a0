//! Opens an SQLite database.

use std::{num::NonZeroUsize, path::Path, sync::Arc, thread, time::Duration};

use rustix::process::{Resource, getrlimit};
use sqlx::{
    Connection, Executor, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Db,
    location::{Mode, OpenError},
    pool::{CONNECTION_TIMEOUT, Pool},
    sqlite_file::{self, SqliteFiles},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Prepared statements that the writing connection caches. There are fewer sizes of multi-row statements.
const STATEMENTS: usize = 256;

/// Size of the WAL, in pages of 4 KiB, after which SQLite copies it into the database. A page that changes all the time
/// is copied once per checkpoint, so a larger WAL means less copying.
const CHECKPOINT_PAGES: &str = "4000";

/// Page cache of the writing connection, in KiB. SQLite expects a negative number for KiB.
const WRITER_CACHE: &str = "-4096";
/// Page cache of each reading connection, in KiB. The operating system caches the rest of the file.
const READER_CACHE: &str = "-1024";

/// The limit of open files below which there are fewer readers.
const FEW_FILES: u64 = 256;

/// Returns the number of reading connections. Each one uses a thread, memory, and open files that clients could
/// otherwise use.
fn readers() -> u32 {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FEW_FILES) { 4 } else { 16 };
    u32::try_from(processors.clamp(4, most)).unwrap_or(4)
}

/// Returns the maximum number of files that a service keeps open for the database.
pub(super) fn open_files() -> u64 {
    const WRITER: u64 = 2;
    const KEEPER: u64 = 2;
    /// The database, its WAL and a temporary file for sorting.
    const READER: u64 = 3;
    /// The index of the WAL, the lock file and the folder.
    const SHARED: u64 = 3;
    WRITER + KEEPER + READER * u64::from(readers()) + SHARED
}

/// Opens the database at `path`. In [`Mode::Write`] creates the file if it does not exist and applies the migrations.
pub(super) async fn open(path: &Path, mode: Mode) -> Result<Db, OpenError> {
    let resolved = sqlite_file::resolve(path)?;
    if is_predecessor(&resolved).await {
        return Err(OpenError::Predecessor(path.to_owned()));
    }
    let path = &resolved;
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
            .pragma("cache_size", WRITER_CACHE)
            // Keeps the undo data of savepoints in memory. Otherwise each large batch would create a temporary file for
            // it.
            .pragma("temp_store", "MEMORY")
    };
    let writer_options = match mode {
        Mode::Write => writing(sqlite_file::creating(path, options)),
        Mode::Beside => writing(options),
        Mode::Read => read_only.clone(),
    };
    // No test is needed: a connection to SQLite is a thread of this process and cannot be lost.
    let untested = || SqlitePoolOptions::new().test_before_acquire(false);
    let one = untested().max_connections(1).idle_timeout(None).max_lifetime(None);
    let writer = Pool::new(one, writer_options);
    let mut first = writer.acquire().await.map_err(OpenError::Connect)?;
    if mode == Mode::Write {
        let mut borrowed = first.borrow();
        let connection = borrowed.begin();
        // A migration that creates an index sorts all of its rows, which may not fit in memory.
        connection.execute("PRAGMA temp_store = FILE").await.map_err(OpenError::Connect)?;
        MIGRATIONS.run(&mut *connection).await?;
        connection.execute("PRAGMA temp_store = MEMORY").await.map_err(OpenError::Connect)?;
    }
    let files = match mode {
        Mode::Write | Mode::Beside => Some(Arc::new(SqliteFiles::open(path, lock, read_only.clone()).await?)),
        Mode::Read => None,
    };
    let readers = Pool::new(untested().max_connections(readers()).acquire_timeout(CONNECTION_TIMEOUT), read_only);
    Ok(Db::Sqlite { writer, readers, files })
}

/// Returns true if the file has agents but no AIMS migrations. Both services have the same default file name, and even
/// opening the file to write would change it.
async fn is_predecessor(path: &Path) -> bool {
    const SQL: &str = "SELECT COUNT(*) = 1 AND MAX(name) = 'agents' FROM sqlite_master WHERE type = 'table' \
        AND name IN ('agents', '_sqlx_migrations')";
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    match SqliteConnection::connect_with(&options).await {
        Ok(mut connection) => sqlx::query_scalar(SQL).fetch_one(&mut connection).await.unwrap_or(false),
        Err(_) => false,
    }
}
