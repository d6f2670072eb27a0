//! Tells at the start whether a server that speaks the protocol of PostgreSQL does what AIMS relies on.
//!
//! AIMS relies on notifications: without them, a node would not learn that another one suspended an agent. It relies on
//! advisory locks, so that one node migrates, and on the settings of its sessions. Several databases accept the
//! statements and ignore them, and a pooler that shares connections between transactions breaks all three. So this
//! module tries each one with two connections, instead of looking at names.

use sqlx::{
    AssertSqlSafe, Executor, FromRow, PgConnection, Postgres,
    postgres::{PgConnectOptions, PgDatabaseError, PgListener, PgPoolOptions, PgRow},
};
use tokio::time::timeout;

use super::pool::CONNECTION_TIMEOUT;

/// The first version that lets the owner of a database install `pg_trgm`.
const MINIMUM: u32 = 13;
/// Most characters of the server's own name to show.
const NAME: usize = 60;
/// The first key of the advisory lock that is tried. The second is the session that holds it, so that nodes that start
/// at the same time do not meet.
const LOCK: i32 = 0x4149_4d53;
/// The channel of the notification that is tried.
const CHANNEL: &str = "aims_probe";

/// Why AIMS cannot work with a server.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Another engine behind the protocol of PostgreSQL.
    #[error(
        "it has no working {lack}. AIMS needs PostgreSQL {MINIMUM} or newer, or SQLite; the server calls itself \
         \"{engine}\""
    )]
    Engine {
        /// What the server calls itself.
        engine: String,
        /// What it lacks.
        lack: &'static str,
    },
    /// An old PostgreSQL.
    #[error("it is PostgreSQL {0}, and AIMS needs version {MINIMUM} or newer; upgrade the server")]
    Old(u32),
    /// A pooler shares connections between transactions.
    #[error(
        "a connection pooler shares connections between transactions, such as PgBouncer with pool_mode = transaction. \
         AIMS needs connections of its own: let DATABASE_URL lead to PostgreSQL itself"
    )]
    Shared,
    /// A pooler ignores the settings of sessions.
    #[error(
        "a connection pooler ignores the session settings, such as PgBouncer with ignore_startup_parameters = options. \
         AIMS needs them: let DATABASE_URL lead to PostgreSQL itself"
    )]
    Ignoring,
    /// A pooler refuses the settings of sessions.
    #[error(
        "it refused the session settings, as connection poolers such as PgBouncer do ({0}); let DATABASE_URL lead to \
         PostgreSQL itself"
    )]
    Refusing(String),
    /// A read-only copy of another server.
    #[error("it is a standby, which is read-only; let DATABASE_URL lead to the primary server")]
    Standby,
}

/// Why a check ends early.
enum Stop {
    Unfit(Unfit),
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// What the server says about itself and the session.
#[derive(FromRow)]
struct Facts {
    engine: String,
    session: String,
    version: String,
    time_limit: String,
}

/// Returns why AIMS cannot work with the server, or `None` if it can. `first` is a connection that was opened with
/// `options`, which set `statement_timeout` to `time_limit`.
pub(super) async fn check(
    first: &mut PgConnection,
    options: &PgConnectOptions,
    time_limit: &str,
) -> sqlx::Result<Option<Unfit>> {
    match timeout(CONNECTION_TIMEOUT * 4, attempt(first, options, time_limit)).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(Stop::Unfit(unfit))) => Ok(Some(unfit)),
        Ok(Err(Stop::Failed(error))) => Err(error),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Returns the reason if a pooler refused to connect.
pub(super) fn why_refused(error: &sqlx::Error) -> Option<Unfit> {
    /// `protocol_violation`: PostgreSQL itself never responds to these settings with it.
    const REFUSED: &str = "08P01";
    let refusal = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    (refusal.code() == REFUSED).then(|| Unfit::Refusing(shown(refusal.message())))
}

async fn attempt(first: &mut PgConnection, options: &PgConnectOptions, time_limit: &str) -> Result<(), Stop> {
    let facts = match facts(first).await {
        Err(error) if is_unsupported(&error) => return Err(lacks("session functions", first).await),
        facts => facts?,
    };
    let engine = |lack| Stop::Unfit(Unfit::Engine { engine: shown(&facts.engine), lack });
    let Ok(version) = facts.version.parse::<u32>() else { return Err(engine("version number")) };
    if version / 10_000 < MINIMUM {
        return Err(Stop::Unfit(Unfit::Old(version / 10_000)));
    }
    // A connection of its own, as the one for notifications that the service opens later.
    let own = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECTION_TIMEOUT);
    let own = own.connect_lazy_with(options.clone());
    let mut second = PgListener::connect_with(&own).await?;
    let outcome = async {
        if is_shared(first, &mut second, &facts.session).await? {
            return Err(Stop::Unfit(Unfit::Shared));
        }
        if !unsupported_is_false(excludes(first, &mut second, &facts.session).await)? {
            return Err(engine("advisory locks"));
        }
        if !unsupported_is_false(notifies(first, &mut second, &facts.session).await)? {
            return Err(engine("LISTEN and NOTIFY"));
        }
        if facts.time_limit != time_limit {
            return Err(Stop::Unfit(Unfit::Ignoring));
        }
        Ok(())
    }
    .await;
    drop(second);
    let _ = timeout(CONNECTION_TIMEOUT, own.close()).await;
    outcome
}

/// All statements of this module use the simple protocol: a pooler that shares connections also loses prepared
/// statements, and would fail for that reason first.
async fn facts(connection: &mut PgConnection) -> sqlx::Result<Facts> {
    const SQL: &str = "SELECT version() AS engine, pg_backend_pid()::TEXT AS session, \
        current_setting('server_version_num') AS version, current_setting('statement_timeout') AS time_limit";
    Facts::from_row(&one(connection, SQL.to_owned()).await?)
}

/// Returns true if the two connections meet in one session of the server, or the first one changes its session.
async fn is_shared(first: &mut PgConnection, second: &mut PgListener, session: &str) -> Result<bool, Stop> {
    const SESSION: &str = "SELECT pg_backend_pid()::TEXT";
    // While the transaction is open, a pooler gives the second connection a session of its own: mostly the one that it
    // used last, which was the first connection's. If not, the first connection gets another one.
    let theirs = match one(&mut *second, format!("BEGIN; {SESSION}")).await {
        // A pooler that shares connections between statements refuses transactions.
        Err(error) if why_refused(&error).is_some() => return Ok(true),
        row => text(&row?)?,
    };
    let now = text(&one(first, SESSION.to_owned()).await?)?;
    second.execute(sqlx::raw_sql("ROLLBACK")).await?;
    Ok(theirs == session || now != session)
}

/// Returns true if a lock of one session keeps out the other.
async fn excludes(first: &mut PgConnection, second: &mut PgListener, session: &str) -> sqlx::Result<bool> {
    let call = |function| format!("SELECT {function}({LOCK}, {session})::TEXT");
    let first_has_it = text(&one(&mut *first, call("pg_try_advisory_lock")).await?)? == "true";
    let second_has_it = text(&one(second, call("pg_try_advisory_lock")).await?)? == "true";
    one(first, call("pg_advisory_unlock")).await?;
    Ok(first_has_it && !second_has_it)
}

/// Returns true if a notification of the first session reaches the second.
async fn notifies(first: &mut PgConnection, second: &mut PgListener, session: &str) -> Result<bool, Stop> {
    const READ_ONLY: &str = "25006";
    match second.listen(CHANNEL).await {
        Err(error) if code(&error) == Some(READ_ONLY) => return Err(Stop::Unfit(Unfit::Standby)),
        listening => listening?,
    }
    first.execute(sqlx::raw_sql(AssertSqlSafe(format!("NOTIFY {CHANNEL}, '{session}'")))).await?;
    let arrives = async {
        while let Some(notification) = second.try_recv().await? {
            if notification.payload() == session {
                return Ok(true);
            }
        }
        Ok(false)
    };
    timeout(CONNECTION_TIMEOUT, arrives).await.unwrap_or(Ok(false))
}

/// Returns an error that names what the server lacks and what it calls itself.
async fn lacks(lack: &'static str, connection: &mut PgConnection) -> Stop {
    let engine = one(connection, "SELECT version()".to_owned()).await.and_then(|row| text(&row));
    Stop::Unfit(Unfit::Engine { engine: shown(engine.as_deref().unwrap_or("nothing")), lack })
}

async fn one<'c>(connection: impl Executor<'c, Database = Postgres>, sql: String) -> sqlx::Result<PgRow> {
    connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await
}

fn text(row: &PgRow) -> sqlx::Result<String> {
    use sqlx::Row;
    row.try_get(0)
}

fn unsupported_is_false<E: Into<Stop>>(tried: Result<bool, E>) -> Result<bool, Stop> {
    match tried.map_err(Into::into) {
        Err(Stop::Failed(error)) if is_unsupported(&error) => Ok(false),
        tried => tried,
    }
}

/// Returns true if the server does not know the statement (SQLSTATE class 42), does not support it (0A), or responds
/// with something else than PostgreSQL.
fn is_unsupported(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::RowNotFound => true,
        _ => code(error).is_some_and(|code| code.starts_with("0A") || code.starts_with("42")),
    }
}

fn code(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// A text of the server for a message: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME).collect()
}
