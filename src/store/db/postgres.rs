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
    Db,
    location::{Mode, OpenError},
    pool::{CONNECTION_TIMEOUT, Lease, Pool},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The application name of connections, as `pg_stat_activity` shows it.
const APPLICATION: &str = "aims";

/// Session settings.
///
/// - A node that dies while it writes holds the end of the audit chain. `idle_in_transaction_session_timeout` releases
///   it before the statements of the nodes that wait for it reach their `statement_timeout`.
/// - The keepalive settings, in seconds, free the connections of dead nodes.
/// - `jit`: PostgreSQL would compile statements that it expects to read many rows, but every statement here stops after
///   a few.
/// - `client_min_messages`: otherwise each start would log that the migration table exists already.
const SESSION: [(&str, &str); 7] = [
    ("statement_timeout", "10s"),
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

/// Opens the database at `url`. In [`Mode::Write`] applies the migrations.
pub(super) async fn open(url: &SecretString, mode: Mode) -> Result<Db, OpenError> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(OpenError::Connect)?;
    // The brackets of an IPv6 address belong to the URL and not to the address (RFC 3986, section 3.2.2).
    let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    let options = match address {
        Some(address) => options.host(&address),
        None => options,
    };
    let options = options.application_name(APPLICATION).options(SESSION);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECTION_TIMEOUT);
    let pool = Pool::new(pool, options.clone());
    let opened = future::join_all((0..AT_START).map(|_| pool.acquire())).await;
    // One open connection is enough to start.
    match opened.into_iter().reduce(Result::or) {
        Some(Ok(connection)) if mode == Mode::Write => migrate(connection).await?,
        // The pool retries a refused connection until its timeout, and then reports only the timeout.
        Some(Err(sqlx::Error::PoolTimedOut)) => {
            return Err(OpenError::Server(server(&options), why_unreachable(&options).await));
        }
        Some(Err(error)) => return Err(OpenError::Server(server(&options), error)),
        Some(Ok(_)) | None => {}
    }
    Ok(Db::Postgres(pool))
}

/// Applies the migrations, without a time limit.
///
/// If the schema changed, the connections of running nodes are closed afterwards: a statement that was prepared before
/// a table changed fails for the lifetime of its connection.
async fn migrate(mut lease: Lease<Postgres>) -> Result<(), OpenError> {
    /// Only one of the nodes that start at the same time migrates and closes connections.
    const LOCK: &str = "SELECT pg_advisory_lock(hashtext('aims_migrations'))";
    let mut borrowed = lease.borrow();
    let connection = borrowed.begin();
    if applied(connection).await == i64::try_from(MIGRATIONS.iter().count()).ok() {
        MIGRATIONS.run(connection).await?;
        borrowed.end();
        return Ok(());
    }
    lease.discard();
    let mut borrowed = lease.borrow();
    let connection = borrowed.begin();
    connection.execute("SET statement_timeout = 0").await.map_err(OpenError::Connect)?;
    connection.execute(LOCK).await.map_err(OpenError::Connect)?;
    let before = applied(connection).await;
    MIGRATIONS.run(&mut *connection).await?;
    if applied(connection).await != before {
        // The schema is up to date at this point. sqlx replaces the connections of other nodes after 30 minutes at the
        // latest.
        if let Err(error) = close_others(connection).await {
            tracing::warn!(%error, "nodes of an older version may fail to read until their connections are renewed");
        }
    }
    Ok(())
}

/// Returns the number of applied migrations, or `None` before the first one.
async fn applied(connection: &mut PgConnection) -> Option<i64> {
    sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations").fetch_one(connection).await.ok()
}

/// Closes the connections of other nodes while they are idle, so that hardly any request fails. In the second half of
/// [`CONNECTION_TIMEOUT`], closes connections between any two statements. A connection that is busy the whole time
/// stays open.
async fn close_others(connection: &mut PgConnection) -> sqlx::Result<()> {
    const OTHERS: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user \
        AND application_name = $1 AND pid <> pg_backend_pid() AND wait_event IS DISTINCT FROM 'advisory'";
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
