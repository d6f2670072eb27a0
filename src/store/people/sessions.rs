//! Sessions of the console, failed sign-ins, and the networks that administrators signed in from.
//!
//! A session is looked up by the hash of its cookie value.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{Administrator, AdministratorId, Result, SessionId, Timestamp, person::administrator::Session},
    store::db::{Conn, dispatch, execute},
};

/// How long an unused session lasts.
pub const IDLE: Duration = Duration::from_mins(30);
/// How long a session lasts at most.
pub const ABSOLUTE: Duration = Duration::from_hours(12);

/// The earliest times of last use and sign-in of sessions that are valid.
#[derive(Clone, Copy, Debug)]
pub struct Oldest {
    seen: Timestamp,
    started: Timestamp,
}

impl Oldest {
    /// Sessions are valid at `now` if they were used within [`IDLE`] and started within [`ABSOLUTE`] before it.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { seen: now.minus(IDLE), started: now.minus(ABSOLUTE) }
    }
}

/// A session of an administrator.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// The administrator, who is enabled.
    pub administrator: Administrator,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    administrator_id: Uuid,
    started_at: i64,
    last_seen_at: i64,
    proved_at: i64,
    ip: Option<String>,
    user_agent: Option<String>,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        Self {
            id: SessionId(row.id),
            administrator: AdministratorId(row.administrator_id),
            signed_in_at: Timestamp::from_micros(row.started_at),
            last_seen_at: Timestamp::from_micros(row.last_seen_at),
            proved_at: Timestamp::from_micros(row.proved_at),
            ip: row.ip,
            user_agent: row.user_agent,
        }
    }
}

const COLUMNS: &str = "id, administrator_id, started_at, last_seen_at, proved_at, ip, user_agent";
const ALIVE: &str = "administrator_id IS NOT NULL AND proved_at IS NOT NULL AND last_seen_at > $2 AND started_at > $3";

/// Inserts an anonymous session. Returns false if the key is taken.
///
/// # Errors
/// If the database fails.
pub async fn insert(conn: Conn<'_>, key_hash: [u8; 32], id: SessionId, data: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO sessions (key_hash, id, data, started_at, last_seen_at) \
        VALUES ($1, $2, $3, $4, $4) ON CONFLICT (key_hash) DO NOTHING";
    let inserted =
        execute!(conn, sqlx::query(SQL).bind(key_hash.as_slice()).bind(id.0).bind(data).bind(now.as_micros()))?;
    Ok(inserted == 1)
}

/// Updates the data of a session. Does nothing if the session has ended.
///
/// # Errors
/// If the database fails.
pub async fn save(conn: Conn<'_>, key_hash: [u8; 32], data: &str) -> Result<()> {
    const SQL: &str = "UPDATE sessions SET data = $2 WHERE key_hash = $1";
    execute!(conn, sqlx::query(SQL).bind(key_hash.as_slice()).bind(data))?;
    Ok(())
}

/// Returns the data of a session.
///
/// # Errors
/// If the database fails.
pub async fn load(conn: Conn<'_>, key_hash: [u8; 32], oldest: Oldest) -> Result<Option<String>> {
    const SQL: &str = "SELECT data FROM sessions WHERE key_hash = $1 AND last_seen_at > $2 AND started_at > $3";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL)
        .bind(key_hash.as_slice())
        .bind(oldest.seen.as_micros())
        .bind(oldest.started.as_micros())
        .fetch_optional(c)
        .await)?)
}

/// Deletes an anonymous session. Signed-in sessions are ended with [`end`], together with an audit record.
///
/// # Errors
/// If the database fails.
pub async fn remove(conn: Conn<'_>, key_hash: [u8; 32]) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE key_hash = $1 AND administrator_id IS NULL";
    execute!(conn, sqlx::query(SQL).bind(key_hash.as_slice()))?;
    Ok(())
}

/// Deletes a session that is replaced by another one.
///
/// # Errors
/// If the database fails.
pub async fn replace(conn: Conn<'_>, key_hash: [u8; 32]) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE key_hash = $1";
    execute!(conn, sqlx::query(SQL).bind(key_hash.as_slice()))?;
    Ok(())
}

/// Signs an administrator in to a session. Returns false if the session does not exist.
///
/// # Errors
/// If the database fails.
pub async fn sign_in(conn: Conn<'_>, key_hash: [u8; 32], session: &Session) -> Result<bool> {
    const SQL: &str = "UPDATE sessions SET id = $2, administrator_id = $3, started_at = $4, last_seen_at = $5, \
        proved_at = $6, ip = $7, user_agent = $8 WHERE key_hash = $1";
    let updated = execute!(
        conn,
        sqlx::query(SQL)
            .bind(key_hash.as_slice())
            .bind(session.id.0)
            .bind(session.administrator.0)
            .bind(session.signed_in_at.as_micros())
            .bind(session.last_seen_at.as_micros())
            .bind(session.proved_at.as_micros())
            .bind(session.ip.as_deref())
            .bind(session.user_agent.as_deref())
    )?;
    Ok(updated == 1)
}

/// Returns the session with this key and its administrator, if the session is valid and the administrator enabled.
///
/// # Errors
/// If the database fails.
pub async fn by_key(conn: Conn<'_>, key_hash: [u8; 32], oldest: Oldest) -> Result<Option<SignedIn>> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE key_hash = $1 AND {ALIVE}");
    one(conn, sql, key_hash.as_slice(), oldest).await
}

/// Returns the session with this identifier and its administrator, if the session is valid and the administrator
/// enabled.
///
/// # Errors
/// If the database fails.
pub async fn signed_in(conn: Conn<'_>, id: SessionId, oldest: Oldest) -> Result<Option<SignedIn>> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = $1 AND {ALIVE}");
    one(conn, sql, id.0, oldest).await
}

async fn one<'k, K>(mut conn: Conn<'_>, sql: String, key: K, oldest: Oldest) -> Result<Option<SignedIn>>
where
    K: sqlx::Type<sqlx::Sqlite>
        + sqlx::Encode<'k, sqlx::Sqlite>
        + sqlx::Type<sqlx::Postgres>
        + sqlx::Encode<'k, sqlx::Postgres>
        + Send
        + 'k,
{
    let row: Option<Row> = dispatch!(&mut conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(key)
        .bind(oldest.seen.as_micros())
        .bind(oldest.started.as_micros())
        .fetch_optional(c)
        .await)?;
    let Some(session) = row.map(Session::from) else { return Ok(None) };
    let administrator = super::administrators::find(conn, session.administrator).await?;
    Ok(administrator.filter(Administrator::is_enabled).map(|administrator| SignedIn { session, administrator }))
}

/// Returns the valid sessions of an administrator, the most recently used first.
///
/// # Errors
/// If the database fails.
pub async fn of(conn: Conn<'_>, person: AdministratorId, oldest: Oldest) -> Result<Vec<Session>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE administrator_id = $1 AND {ALIVE} ORDER BY last_seen_at DESC, id"
    );
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(person.0)
        .bind(oldest.seen.as_micros())
        .bind(oldest.started.as_micros())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Session::from).collect())
}

/// Updates the last use of a session.
///
/// # Errors
/// If the database fails.
pub async fn touch(conn: Conn<'_>, id: SessionId, now: Timestamp, ip: Option<&str>) -> Result<()> {
    const SQL: &str = "UPDATE sessions SET last_seen_at = $2, ip = $3 WHERE id = $1";
    execute!(conn, sqlx::query(SQL).bind(id.0).bind(now.as_micros()).bind(ip))?;
    Ok(())
}

/// The sessions to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of them.
    All,
    /// All but this one.
    AllBut(SessionId),
    /// This one.
    One(SessionId),
}

/// Ends sessions of an administrator. Returns how many.
///
/// # Errors
/// If the database fails.
pub async fn end(conn: Conn<'_>, person: AdministratorId, ending: Ending) -> Result<u64> {
    const ALL: &str = "DELETE FROM sessions WHERE administrator_id = $1";
    const ALL_BUT: &str = "DELETE FROM sessions WHERE administrator_id = $1 AND id <> $2";
    const ONE: &str = "DELETE FROM sessions WHERE administrator_id = $1 AND id = $2";
    Ok(execute!(
        conn,
        match ending {
            Ending::All => sqlx::query(ALL).bind(person.0),
            Ending::AllBut(id) => sqlx::query(ALL_BUT).bind(person.0).bind(id.0),
            Ending::One(id) => sqlx::query(ONE).bind(person.0).bind(id.0),
        }
    )?)
}

/// Deletes at most `most` expired sessions and at most `most` failure counts that are older than `forgiven`. Returns
/// how many rows were deleted.
///
/// # Errors
/// If the database fails.
pub async fn sweep(mut conn: Conn<'_>, oldest: Oldest, forgiven: Timestamp, most: i64) -> Result<u64> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE key_hash IN \
        (SELECT key_hash FROM sessions WHERE last_seen_at <= $1 OR started_at <= $2 LIMIT +$3)";
    const FAILURES: &str = "DELETE FROM sign_in_failures WHERE subject_hash IN \
        (SELECT subject_hash FROM sign_in_failures WHERE last_at <= $1 ORDER BY last_at LIMIT +$2)";
    let sessions = execute!(
        &mut conn,
        sqlx::query(SESSIONS).bind(oldest.seen.as_micros()).bind(oldest.started.as_micros()).bind(most)
    )?;
    let failures = execute!(&mut conn, sqlx::query(FAILURES).bind(forgiven.as_micros()).bind(most))?;
    Ok(sessions + failures)
}

/// Consecutive failed sign-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Number of failures.
    pub count: i64,
    /// Time of the last failure.
    pub last_at: Timestamp,
}

/// Returns the failures of `subject`.
///
/// # Errors
/// If the database fails.
pub async fn failures(conn: Conn<'_>, subject: [u8; 32]) -> Result<Option<Failures>> {
    const SQL: &str = "SELECT failures, last_at FROM sign_in_failures WHERE subject_hash = $1";
    let row: Option<(i64, i64)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(subject.as_slice()).fetch_optional(c).await)?;
    Ok(row.map(|(count, last_at)| Failures { count, last_at: Timestamp::from_micros(last_at) }))
}

/// An account, a network or both, whose failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Hash of the account, the network or both.
    pub hash: [u8; 32],
    /// Hash of the account, if there is one.
    pub account: Option<[u8; 32]>,
}

/// Updates the failures of `subject`.
///
/// # Errors
/// If the database fails.
pub async fn put_failures(conn: Conn<'_>, subject: Subject, failures: Failures) -> Result<()> {
    const SQL: &str = "INSERT INTO sign_in_failures (subject_hash, account_hash, failures, last_at) \
        VALUES ($1, $2, $3, $4) \
        ON CONFLICT (subject_hash) DO UPDATE SET failures = excluded.failures, last_at = excluded.last_at";
    execute!(
        conn,
        sqlx::query(SQL)
            .bind(subject.hash.as_slice())
            .bind(subject.account.as_ref().map(<[u8; 32]>::as_slice))
            .bind(failures.count)
            .bind(failures.last_at.as_micros())
    )?;
    Ok(())
}

/// Deletes the failures of an account, from any network.
///
/// # Errors
/// If the database fails.
pub async fn forgive_account(conn: Conn<'_>, account: [u8; 32]) -> Result<()> {
    const SQL: &str = "DELETE FROM sign_in_failures WHERE account_hash = $1";
    execute!(conn, sqlx::query(SQL).bind(account.as_slice()))?;
    Ok(())
}

/// Deletes the failures of `subject`.
///
/// # Errors
/// If the database fails.
pub async fn forgive(conn: Conn<'_>, subject: [u8; 32]) -> Result<()> {
    const SQL: &str = "DELETE FROM sign_in_failures WHERE subject_hash = $1";
    execute!(conn, sqlx::query(SQL).bind(subject.as_slice()))?;
    Ok(())
}

/// Records that an administrator signed in from a network.
///
/// # Errors
/// If the database fails.
pub async fn know_network(conn: Conn<'_>, person: AdministratorId, network: &str, at: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO known_networks (administrator_id, network, last_at) VALUES ($1, $2, $3) \
        ON CONFLICT (administrator_id, network) DO UPDATE SET last_at = excluded.last_at";
    execute!(conn, sqlx::query(SQL).bind(person.0).bind(network).bind(at.as_micros()))?;
    Ok(())
}

/// Returns true if this administrator signed in from a network after `since`.
///
/// # Errors
/// If the database fails.
pub async fn knows_network(conn: Conn<'_>, person: AdministratorId, network: &str, since: Timestamp) -> Result<bool> {
    const SQL: &str =
        "SELECT COUNT(*) FROM known_networks WHERE administrator_id = $1 AND network = $2 AND last_at > $3";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL)
        .bind(person.0)
        .bind(network)
        .bind(since.as_micros())
        .fetch_one(c)
        .await)?;
    Ok(count > 0)
}

/// Returns true if any enabled administrator signed in from a network after `since`.
///
/// # Errors
/// If the database fails.
pub async fn anybody_knows_network(conn: Conn<'_>, network: &str, since: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM known_networks JOIN administrators ON administrators.id = administrator_id \
        WHERE network = $1 AND last_at > $2 AND disabled_at IS NULL";
    let count: i64 =
        dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(network).bind(since.as_micros()).fetch_one(c).await)?;
    Ok(count > 0)
}
