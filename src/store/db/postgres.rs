//! Opens a PostgreSQL database.

use std::time::{Duration, Instant};

use futures_util::future;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, Executor, PgConnection, Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{self, timeout};

use super::{
    Db, engine,
    location::{Mode, OpenError},
    pool::{CONNECTION_TIMEOUT, Lease, Pool},
    schema::{APPLIED, Applied, Schema},
};

pub(in crate::store) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The application name of connections, as `pg_stat_activity` shows it.
pub(in crate::store) const APPLICATION: &str = "aims";
/// The application name of the connections of a node that checks and migrates the database before it uses it.
pub(in crate::store) const STARTING: &str = "aims_starting";

/// Time limit of a statement.
const TIME_LIMIT: &str = "10s";
/// How long a statement that reaches its limit takes to say so, at most.
const GRACE: Duration = Duration::from_secs(20);

/// Session settings.
///
/// - A node that dies while it writes holds the end of the audit chain. `idle_in_transaction_session_timeout` releases
///   it before the statements of the nodes that wait for it reach their `statement_timeout`.
/// - The keepalive settings, in seconds, free the connections of dead nodes.
/// - `jit`: PostgreSQL would compile statements that it expects to read many rows, but every statement here stops after
///   a few.
/// - `client_min_messages`: otherwise each start would log that the migration table exists already.
const SESSION: [(&str, &str); 7] = [
    ("statement_timeout", TIME_LIMIT),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("jit", "off"),
    ("client_min_messages", "warning"),
];

/// Connections that are opened in parallel at the start: the writer keeps one, and one is for reads. Opening one over
/// TLS takes twice the 40 ms of Nagle's algorithm. More would delay the start if the server has no room for them,
/// because the pool retries until its timeout.
const AT_START: usize = 2;

/// Maximum number of connections in the pool. The listener has its own.
const CONNECTIONS: u32 = 16;

/// Maximum number of files that a service keeps open for the database: the pool, the listener, and the listener's
/// successor while it reconnects.
pub(super) const OPEN_FILES: u64 = CONNECTIONS as u64 + 2;

/// Opens the database at `url`. In [`Mode::Write`] checks that the server is fit for AIMS, and applies the migrations.
pub(super) async fn open(url: &SecretString, mode: Mode) -> Result<Db, OpenError> {
    let options = options(url)?;
    if mode == Mode::Write {
        prepare(&options).await?;
    }
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECTION_TIMEOUT);
    let pool = Pool::new(pool, options.clone());
    let mut lease = first(&pool, AT_START).await?;
    if mode != Mode::Write {
        let mut borrowed = lease.borrow();
        let schema = read_existing(borrowed.begin(), &place(&options)).await?;
        if mode != Mode::Snapshot {
            schema.require_current()?;
        }
        borrowed.end();
    }
    Ok(Db::Postgres(pool))
}

/// Opens `count` connections. Returns one of them: one is enough to start.
async fn first(pool: &Pool<Postgres>, count: usize) -> Result<Lease<Postgres>, OpenError> {
    let options = pool.options();
    let opened = future::join_all((0..count).map(|_| pool.acquire())).await;
    match opened.into_iter().reduce(Result::or) {
        Some(Ok(lease)) => Ok(lease),
        // The pool retries a refused connection until its timeout, and then reports only the timeout.
        Some(Err(sqlx::Error::PoolTimedOut)) | None => Err(unreachable(&options, why_unreachable(&options).await)),
        Some(Err(error)) => Err(unreachable(&options, error)),
    }
}

/// Checks and migrates the database, on connections of their own: another node that migrates it closes those of the
/// nodes that use it.
async fn prepare(options: &PgConnectOptions) -> Result<(), OpenError> {
    let options = options.clone().application_name(STARTING);
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECTION_TIMEOUT);
    let pool = Pool::new(pool, options.clone());
    let mut lease = first(&pool, 1).await?;
    lease.discard();
    let mut borrowed = lease.borrow();
    let connection = borrowed.begin();
    check(connection, &options).await?;
    migrate(connection, &place(&options)).await
}

/// Reads which migrations the database has.
pub(super) async fn schema(url: &SecretString) -> Result<Schema, OpenError> {
    let options = options(url)?;
    let connecting = timeout(CONNECTION_TIMEOUT, PgConnection::connect_with(&options)).await;
    let connecting = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let mut connection = connecting.map_err(|error| unreachable(&options, error))?;
    let schema = read(&mut connection, &place(&options)).await;
    let _ = timeout(CONNECTION_TIMEOUT, connection.close()).await;
    schema
}

/// Returns how to connect to the database at `url`.
pub(in crate::store) fn options(url: &SecretString) -> Result<PgConnectOptions, OpenError> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(OpenError::Connect)?;
    // The brackets of an IPv6 address belong to the URL and not to the address (RFC 3986, section 3.2.2).
    let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    let options = match address {
        Some(address) => options.host(&address),
        None => options,
    };
    Ok(options.application_name(APPLICATION).options(SESSION))
}

async fn check(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<(), OpenError> {
    match engine::check(connection, options, TIME_LIMIT).await {
        Ok(None) => Ok(()),
        Ok(Some(unfit)) => Err(OpenError::Unfit(server(options), unfit)),
        Err(sqlx::Error::PoolTimedOut) => Err(unreachable(options, why_unreachable(options).await)),
        Err(error) => Err(OpenError::Server(server(options), error)),
    }
}

/// Applies the pending migrations, without a time limit. One of the nodes that start at the same time migrates, and the
/// others wait for it.
///
/// If the schema changed, the connections of running nodes are closed afterwards: a statement that was prepared before
/// a table changed fails for the lifetime of its connection.
async fn migrate(connection: &mut PgConnection, place: &str) -> Result<(), OpenError> {
    // A node that saw the last migration before the other connections were closed would open its own too early.
    lock(connection, Lock::Shared).await.map_err(OpenError::Connect)?;
    if read(connection, place).await?.pending().next().is_none() {
        return Ok(());
    }
    connection.execute("SELECT pg_advisory_unlock_all()").await.map_err(OpenError::Connect)?;
    lock(connection, Lock::Exclusive).await.map_err(OpenError::Connect)?;
    connection.execute("SET statement_timeout = 0").await.map_err(OpenError::Connect)?;
    // Another node may have migrated in the meantime.
    let schema = read(connection, place).await?;
    for step in schema.pending() {
        let began = Instant::now();
        MIGRATIONS.run_to(step.version, &mut *connection).await?;
        step.log(began.elapsed());
    }
    if schema.pending().next().is_some() {
        // The schema is up to date at this point. sqlx replaces the connections of other nodes after 30 minutes at the
        // latest.
        if let Err(error) = close_others(connection).await {
            tracing::warn!(%error, "nodes of an older version may fail to read until their connections are renewed");
        }
    }
    Ok(())
}

/// How a node holds the lock on the schema.
#[derive(Clone, Copy)]
enum Lock {
    /// Nobody migrates.
    Shared,
    /// Nobody else migrates, or reads the schema to start.
    Exclusive,
}

impl Lock {
    /// Returns the statements that take the lock: if it is free, and once it is free.
    const fn statements(self) -> (&'static str, &'static str) {
        match self {
            Self::Shared => (
                "SELECT pg_try_advisory_lock_shared(hashtext('aims_migrations'))",
                "SELECT pg_advisory_lock_shared(hashtext('aims_migrations'))",
            ),
            Self::Exclusive => (
                "SELECT pg_try_advisory_lock(hashtext('aims_migrations'))",
                "SELECT pg_advisory_lock(hashtext('aims_migrations'))",
            ),
        }
    }
}

/// Takes the lock on the schema. Waits without end while another node migrates, but not for a server that does not
/// respond.
async fn lock(connection: &mut PgConnection, lock: Lock) -> sqlx::Result<()> {
    /// `query_canceled`: the statement reached its time limit.
    const TIMED_OUT: &str = "57014";
    let (attempt, wait) = lock.statements();
    if sqlx::query_scalar(attempt).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    tracing::info!("waiting for another node, which migrates the database");
    loop {
        match timeout(GRACE, connection.execute(wait)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() == Some(TIMED_OUT) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        }
    }
}

/// Reads which migrations the database has.
async fn read(connection: &mut PgConnection, place: &str) -> Result<Schema, OpenError> {
    Schema::of(&MIGRATIONS, &applied(connection).await.map_err(OpenError::Connect)?.unwrap_or_default(), place)
}

/// Does the same, and requires that AIMS was set up.
async fn read_existing(connection: &mut PgConnection, place: &str) -> Result<Schema, OpenError> {
    const TABLES: &str = "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema())";
    let applied = applied(connection).await.map_err(OpenError::Connect)?.filter(|applied| !applied.is_empty());
    if let Some(applied) = applied {
        return Schema::of(&MIGRATIONS, &applied, place);
    }
    let has_tables: bool = sqlx::query_scalar(TABLES).fetch_one(connection).await.map_err(OpenError::Connect)?;
    Err(if has_tables { OpenError::Foreign(place.to_owned()) } else { OpenError::Empty(place.to_owned()) })
}

/// Returns the applied migrations, or `None` if there is no table of them.
async fn applied(connection: &mut PgConnection) -> sqlx::Result<Option<Vec<Applied>>> {
    const EXISTS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    if sqlx::query_scalar(EXISTS).fetch_one(&mut *connection).await? {
        return sqlx::query_as(APPLIED).fetch_all(connection).await.map(Some);
    }
    Ok(None)
}

/// Closes the connections of other nodes while they are idle, so that hardly any request fails. In the second half of
/// [`CONNECTION_TIMEOUT`], closes connections between any two statements. A connection that is busy the whole time
/// stays open.
async fn close_others(connection: &mut PgConnection) -> sqlx::Result<()> {
    const OTHERS: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user \
        AND application_name = $1";
    const CLOSE: &str = "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) AND NOT CASE \
        WHEN state = 'idle' AND state_change <= clock_timestamp() - make_interval(secs => $2) THEN pg_terminate_backend(pid) \
        ELSE FALSE END";
    const IDLE: Duration = Duration::from_millis(50);
    let mut others: Vec<i32> = sqlx::query_scalar(OTHERS).bind(APPLICATION).fetch_all(&mut *connection).await?;
    let began = Instant::now();
    while !others.is_empty() && began.elapsed() < CONNECTION_TIMEOUT {
        let idle = if began.elapsed() < CONNECTION_TIMEOUT / 2 { IDLE } else { Duration::ZERO };
        others = sqlx::query_scalar(CLOSE).bind(&others).bind(idle.as_secs_f64()).fetch_all(&mut *connection).await?;
        time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Returns the address of the database, without a secret.
fn place(options: &PgConnectOptions) -> String {
    format!("{}/{}", server(options), options.get_database().unwrap_or_else(|| options.get_username()))
}

/// Returns the error of a failed attempt to connect.
fn unreachable(options: &PgConnectOptions, error: sqlx::Error) -> OpenError {
    match engine::why_refused(&error) {
        Some(unfit) => OpenError::Unfit(server(options), unfit),
        None => OpenError::Server(server(options), error),
    }
}

/// Returns the address of the server, or the folder of its socket, with the port.
fn server(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().map(|folder| folder.display().to_string());
    let host = match options.get_host() {
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    format!("{}:{}", socket.unwrap_or(host), options.get_port())
}

/// Connects once more, and returns the error of that attempt.
async fn why_unreachable(options: &PgConnectOptions) -> sqlx::Error {
    match timeout(Duration::from_secs(1), PgConnection::connect_with(options)).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}
