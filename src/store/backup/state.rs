//! Which scheduled backup is being made by which node, and how the last ones ended.

use sqlx::FromRow;

use crate::{
    domain::{Result, Timestamp},
    store::db::{Conn, dispatch, execute},
};

/// The state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The time for which the last scheduled backup was due.
    pub slot: Option<Timestamp>,
    /// When the node that makes it last said so; `None` when it is done.
    pub working_at: Option<Timestamp>,
    /// When the data of the last backup was read.
    pub made_at: Option<Timestamp>,
    /// The size of that backup, in bytes.
    pub bytes: Option<i64>,
    /// When a scheduled backup failed, unless a later one succeeded.
    pub failed_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<String>,
}

#[derive(FromRow)]
struct Row {
    slot: Option<i64>,
    working_at: Option<i64>,
    made_at: Option<i64>,
    bytes: Option<i64>,
    failed_at: Option<i64>,
    failure: Option<String>,
}

/// Returns the state.
///
/// # Errors
/// If the database fails.
pub async fn read(conn: Conn<'_>) -> Result<State> {
    const SQL: &str = "SELECT slot, working_at, made_at, bytes, failed_at, failure FROM backup_state WHERE id = 1";
    let row: Row = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_one(c).await)?;
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    Ok(State {
        slot: time(row.slot),
        working_at: time(row.working_at),
        made_at: time(row.made_at),
        bytes: row.bytes,
        failed_at: time(row.failed_at),
        failure: row.failure,
    })
}

/// Claims a scheduled backup for this node. Returns false if another node did so since `seen` was read.
///
/// # Errors
/// If the database fails.
pub async fn claim(conn: Conn<'_>, seen: &State, slot: Timestamp, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE backup_state SET slot = $1, working_at = $2 WHERE id = 1 \
        AND COALESCE(slot, -1) = COALESCE($3, -1) AND COALESCE(working_at, -1) = COALESCE($4, -1)";
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_micros);
    let claimed = execute!(
        conn,
        sqlx::query(SQL)
            .bind(slot.as_micros())
            .bind(now.as_micros())
            .bind(micros(seen.slot))
            .bind(micros(seen.working_at))
    )?;
    Ok(claimed == 1)
}

/// Says that the node that claimed the backup for `slot` still makes it. Returns false if another node claimed it.
///
/// # Errors
/// If the database fails.
pub async fn keep(conn: Conn<'_>, slot: Timestamp, before: Timestamp, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE backup_state SET working_at = $3 WHERE id = 1 AND slot = $1 AND working_at = $2";
    let kept = execute!(conn, sqlx::query(SQL).bind(slot.as_micros()).bind(before.as_micros()).bind(now.as_micros()))?;
    Ok(kept == 1)
}

/// Ends the scheduled backup for `slot`, whatever became of it.
///
/// # Errors
/// If the database fails.
pub async fn done(conn: Conn<'_>, slot: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE backup_state SET working_at = NULL WHERE id = 1 AND slot = $1";
    execute!(conn, sqlx::query(SQL).bind(slot.as_micros()))?;
    Ok(())
}

/// Records a backup that succeeded.
///
/// # Errors
/// If the database fails.
pub async fn succeeded(conn: Conn<'_>, at: Timestamp, bytes: i64) -> Result<()> {
    const SQL: &str = "UPDATE backup_state SET made_at = $1, bytes = $2, failed_at = NULL, failure = NULL WHERE id = 1";
    execute!(conn, sqlx::query(SQL).bind(at.as_micros()).bind(bytes))?;
    Ok(())
}

/// Records a scheduled backup that failed.
///
/// # Errors
/// If the database fails.
pub async fn failed(conn: Conn<'_>, at: Timestamp, failure: &str) -> Result<()> {
    const SQL: &str = "UPDATE backup_state SET failed_at = $1, failure = $2 WHERE id = 1";
    execute!(conn, sqlx::query(SQL).bind(at.as_micros()).bind(failure))?;
    Ok(())
}
