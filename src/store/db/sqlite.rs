//! Opens an SQLite database.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};
use sqlx::{
    AssertSqlSafe, Connection, Executor, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Db,
    location::{Mode, OpenError},
    pool::{CONNECTION_TIMEOUT, Pool},
    schema::{APPLIED, Applied, Schema},
    sqlite_file::{self, SqliteFiles},
};

pub(in crate::store) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

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
    let (found, path) = (look_at(&resolved, path).await, &resolved);
    match (mode, found) {
        // The file is new, or opening it to write reports why it cannot be read.
        (Mode::Write, Ok(_) | Err(OpenError::Empty(_) | OpenError::Connect(_))) => {}
        (Mode::Snapshot, found) => drop(found?),
        (_, found) => found?.require_current()?,
    }
    let lock = match mode {
        Mode::Write => Some(sqlite_file::lock_for_writing(path)?),
        Mode::Beside => match sqlite_file::lock_for_writing(path) {
            Err(OpenError::InUse(_)) => None,
            lock => Some(lock?),
        },
        Mode::Read | Mode::Snapshot => None,
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
        Mode::Read | Mode::Snapshot => read_only.clone(),
    };
    // No test is needed: a connection to SQLite is a thread of this process and cannot be lost.
    let untested = || SqlitePoolOptions::new().test_before_acquire(false);
    let one = untested().max_connections(1).idle_timeout(None).max_lifetime(None);
    let writer = Pool::new(one, writer_options);
    let mut first = writer.acquire().await.map_err(OpenError::Connect)?;
    keep_temporary_files_beside(path, first.borrow().begin()).await;
    if mode == Mode::Write {
        let mut borrowed = first.borrow();
        let connection = borrowed.begin();
        // A migration that creates an index sorts all of its rows, which may not fit in memory.
        connection.execute("PRAGMA temp_store = FILE").await.map_err(OpenError::Connect)?;
        migrate(connection, &path.display().to_string()).await?;
        connection.execute("PRAGMA temp_store = MEMORY").await.map_err(OpenError::Connect)?;
    }
    let files = match mode {
        Mode::Write | Mode::Beside => Some(Arc::new(SqliteFiles::open(path, lock, read_only.clone()).await?)),
        Mode::Read | Mode::Snapshot => None,
    };
    let readers = Pool::new(untested().max_connections(readers()).acquire_timeout(CONNECTION_TIMEOUT), read_only);
    Ok(Db::Sqlite { writer, readers, files })
}

/// Makes this process create the temporary files of large sorts beside the database, which is writable even if the rest
/// of the file system is not. They contain copies of rows, so they also belong where only the owner can read.
async fn keep_temporary_files_beside(path: &Path, connection: &mut SqliteConnection) {
    let Some(folder) = path.parent().and_then(Path::to_str) else { return };
    // The pragma takes no parameters. SQLite has no other way to set this for one process, and otherwise uses /tmp.
    let pragma = format!("PRAGMA temp_store_directory = '{}'", folder.replace('\'', "''"));
    if let Err(error) = connection.execute(AssertSqlSafe(pragma)).await {
        tracing::debug!(%error, "temporary files are created in the system's folder");
    }
}

/// Reads which migrations the database has.
pub(super) async fn schema(path: &Path) -> Result<Schema, OpenError> {
    match look_at(&sqlite_file::resolve(path)?, path).await {
        Err(OpenError::Empty(_)) => Schema::of(&MIGRATIONS, &[], ""),
        found => found,
    }
}

/// Looks at an existing file as a reader: even opening it to write would change it, and it may belong to something else.
/// `named` is its path in the settings.
async fn look_at(path: &Path, named: &Path) -> Result<Schema, OpenError> {
    /// `SQLITE_NOTADB`.
    const NOT_A_DATABASE: &str = "26";
    let place = path.display().to_string();
    if !path.exists() {
        return Err(OpenError::Empty(place));
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(Duration::from_secs(5));
    let looked = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let found = (tables(&mut connection).await?, applied(&mut connection).await?);
        connection.close().await?;
        Ok(found)
    };
    match looked.await {
        Ok((_, applied)) if !applied.is_empty() => Schema::of(&MIGRATIONS, &applied, &place),
        Ok((tables, _)) if tables.iter().all(|table| table == "_sqlx_migrations") => Err(OpenError::Empty(place)),
        // Both services have the same default file name.
        Ok((tables, _)) if tables.iter().any(|table| table == "agents") => {
            Err(OpenError::Predecessor(named.to_owned()))
        }
        Ok(_) => Err(OpenError::Foreign(place)),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NOT_A_DATABASE) => {
            Err(OpenError::Foreign(place))
        }
        Err(error) => Err(OpenError::Connect(error)),
    }
}

/// Applies the pending migrations. The caller holds the lock of the file.
async fn migrate(connection: &mut SqliteConnection, place: &str) -> Result<(), OpenError> {
    let schema = Schema::of(&MIGRATIONS, &applied(connection).await.map_err(OpenError::Connect)?, place)?;
    for step in schema.pending() {
        let began = Instant::now();
        MIGRATIONS.run_to(step.version, &mut *connection).await?;
        step.log(began.elapsed());
    }
    Ok(())
}

/// Returns the applied migrations.
async fn applied(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Applied>> {
    let has_migrations = tables(connection).await?.iter().any(|table| table == "_sqlx_migrations");
    if has_migrations { sqlx::query_as(APPLIED).fetch_all(connection).await } else { Ok(Vec::new()) }
}

async fn tables(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    const SQL: &str = "SELECT name FROM sqlite_master WHERE type = 'table'";
    sqlx::query_scalar(SQL).fetch_all(connection).await
}
