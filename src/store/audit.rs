//! The audit log, as stored: rows in the order of the chain, and the chain's head.

pub mod index;
mod listing;
mod lookup;
mod spans;
mod tail;
mod terms;

use std::future::ready;

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Executor, FromRow, PgConnection, Sqlite, SqliteConnection, error::ErrorKind, query::Query,
    sqlite::SqliteArguments,
};
use uuid::Uuid;

use super::db::{Conn, on};
use crate::domain::{
    ActorId, AgentId, Error, Result, Timestamp,
    audit::{ChainHash, Head, Record},
};

pub use listing::{after, list};
pub(super) use tail::Tail;

#[derive(FromRow)]
struct Row {
    seq: i64,
    id: Uuid,
    at: i64,
    actor: Option<Uuid>,
    subject: Option<Uuid>,
    action: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    details: String,
    ip: Option<String>,
    success: i32,
    request_id: Option<String>,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl Row {
    /// Whether the row is what its record would be stored as: any number but 0 reads as success, yet only 1 is written.
    const fn is_canonical(&self) -> bool {
        matches!(self.success, 0 | 1)
    }
}

impl From<Row> for Record {
    fn from(row: Row) -> Self {
        Self {
            seq: row.seq,
            id: row.id,
            at: Timestamp::from_micros(row.at),
            actor: row.actor.map(ActorId),
            subject: row.subject.map(AgentId),
            action: row.action,
            resource_type: row.resource_type,
            resource_id: row.resource_id,
            details: row.details,
            ip: row.ip,
            success: row.success != 0,
            request_id: row.request_id,
            prev_hash: chain_hash(&row.prev_hash),
            hash: chain_hash(&row.hash),
        }
    }
}

/// A hash that was tampered with until it has another length becomes one that no record has.
pub(super) fn chain_hash(stored: &[u8]) -> ChainHash {
    stored.try_into().unwrap_or([0xFF; 32])
}

/// How many rows a statement adds: each number has a text of its own, which is kept prepared. One that has rows to spare leaves
/// them without values, and passes over them.
const SIZES: [usize; 15] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, MOST_ROWS];
const MOST_ROWS: usize = 256;

/// Adds records that have their place in the chain after `from`, and moves its end behind them; `false`, with the transaction
/// to be undone, when it ends elsewhere. `around` are statements that go before and after with the same round trips, one for each
/// 256 records; there is a semicolon behind each of those before and in front of each of those after, and nowhere else.
pub(super) async fn append_sqlite(
    c: &mut SqliteConnection,
    records: &[Record],
    mut from: Head,
    around: (&str, &str),
) -> sqlx::Result<bool> {
    // The end of a chain may not be NULL, so that one which is not where it should be stops the text.
    const MOVE: &str = "UPDATE audit_head SET seq = CASE WHEN seq = ? AND hash = ? THEN ? END, hash = ? WHERE id = 1; ";
    const INSERT: &str = "INSERT INTO audit_log (seq, id, at, actor, subject, action, resource_type, resource_id, details, \
        ip, success, request_id, prev_hash, hash) SELECT * FROM (VALUES ";
    const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    const END: &str = ") WHERE column1 IS NOT NULL";
    let (mut before, after) = around;
    let mut chunks = records.chunks(MOST_ROWS).peekable();
    while let Some(chunk) = chunks.next() {
        let to = chunk.last().map_or(from, |last| Head { seq: last.seq, hash: last.hash });
        let size = SIZES.into_iter().find(|size| *size >= chunk.len()).unwrap_or(MOST_ROWS);
        let rows = [ROW].repeat(size).join(",");
        let sql = [before, MOVE, INSERT, &rows, END, if chunks.peek().is_none() { after } else { "" }].concat();
        let statements = sql.split(';').count();
        let mut query = sqlx::query(AssertSqlSafe(sql));
        query = query.bind(from.seq).bind(from.hash.as_slice()).bind(to.seq).bind(to.hash.as_slice());
        for record in chunk {
            query = query
                .bind(record.seq)
                .bind(record.id)
                .bind(record.at.as_micros())
                .bind(record.actor.map(|id| id.0))
                .bind(record.subject.map(|id| id.0))
                .bind(record.action.as_str())
                .bind(record.resource_type.as_deref())
                .bind(record.resource_id.as_deref())
                .bind(record.details.as_str())
                .bind(record.ip.as_deref())
                .bind(i32::from(record.success))
                .bind(record.request_id.as_deref())
                .bind(record.prev_hash.as_slice())
                .bind(record.hash.as_slice());
        }
        let affected = match carry_out(c, query, statements).await {
            Err(sqlx::Error::Database(error)) if error.kind() == ErrorKind::NotNullViolation => return Ok(false),
            affected => affected?,
        };
        let first = before.matches(';').count();
        if affected.get(first..first + 2) != Some(&[1, chunk.len() as u64]) {
            return Err(sqlx::Error::RowNotFound);
        }
        (before, from) = ("", to);
    }
    Ok(true)
}

/// Carries out a text of so many statements; gives how many rows each affected.
pub(super) async fn carry_out(
    c: &mut SqliteConnection,
    query: Query<'_, Sqlite, SqliteArguments>,
    statements: usize,
) -> sqlx::Result<Vec<u64>> {
    let affected = c.fetch_many(query).try_filter_map(|step| ready(Ok(step.left().map(|done| done.rows_affected()))));
    let affected: Vec<u64> = affected.try_collect().await?;
    // Each statement says that it was carried out, the last above all: a connection that broke says nothing more.
    if affected.len() == statements { Ok(affected) } else { Err(sqlx::Error::RowNotFound) }
}

/// Most records in one statement to PostgreSQL: about what fits into one record of TLS, which is one write to the connection.
/// sqlx 0.9.0 leaves Nagle's algorithm on (its issue 4335), and the second of two writes then waits for up to 40 ms until the
/// first is acknowledged.
pub(super) const POSTGRES_ROWS: usize = 32;

/// The same on PostgreSQL, with a statement for each [`POSTGRES_ROWS`] records. A list for each column does for any number of
/// rows. Where one statement is enough it needs no transaction, and there is nothing to undo.
pub(super) async fn append_postgres(c: &mut PgConnection, records: &[Record], mut from: Head) -> sqlx::Result<bool> {
    for chunk in records.chunks(POSTGRES_ROWS) {
        let to = chunk.last().map_or(from, |last| Head { seq: last.seq, hash: last.hash });
        if !append_few_postgres(c, chunk, from, to).await? {
            return Ok(false);
        }
        from = to;
    }
    Ok(true)
}

async fn append_few_postgres(c: &mut PgConnection, records: &[Record], from: Head, to: Head) -> sqlx::Result<bool> {
    const SQL: &str = "WITH moved AS (UPDATE audit_head SET seq = $15, hash = $16 \
        WHERE id = 1 AND seq = $17 AND hash = $18 RETURNING id) INSERT INTO audit_log (seq, id, at, actor, subject, action, \
        resource_type, resource_id, details, ip, success, request_id, prev_hash, hash) SELECT * FROM UNNEST($1::BIGINT[], \
        $2::UUID[], $3::BIGINT[], $4::UUID[], $5::UUID[], $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], \
        $11::INTEGER[], $12::TEXT[], $13::BYTEA[], $14::BYTEA[]) WHERE EXISTS (SELECT 1 FROM moved)";
    fn column<'r, T>(records: &'r [Record], value: impl Fn(&'r Record) -> T) -> Vec<T> {
        records.iter().map(value).collect()
    }
    let appended = sqlx::query(SQL)
        .bind(column(records, |record| record.seq))
        .bind(column(records, |record| record.id))
        .bind(column(records, |record| record.at.as_micros()))
        .bind(column(records, |record| record.actor.map(|id| id.0)))
        .bind(column(records, |record| record.subject.map(|id| id.0)))
        .bind(column(records, |record| record.action.as_str()))
        .bind(column(records, |record| record.resource_type.as_deref()))
        .bind(column(records, |record| record.resource_id.as_deref()))
        .bind(column(records, |record| record.details.as_str()))
        .bind(column(records, |record| record.ip.as_deref()))
        .bind(column(records, |record| i32::from(record.success)))
        .bind(column(records, |record| record.request_id.as_deref()))
        .bind(column(records, |record| record.prev_hash.as_slice()))
        .bind(column(records, |record| record.hash.as_slice()))
        .bind(to.seq)
        .bind(to.hash.as_slice())
        .bind(from.seq)
        .bind(from.hash.as_slice())
        .execute(c)
        .await?
        .rows_affected();
    Ok(u64::try_from(records.len()) == Ok(appended))
}

/// The end of the chain.
///
/// # Errors
/// When the database fails.
pub async fn head(conn: Conn<'_>) -> Result<Head> {
    const SQL: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    let (seq, hash): (i64, Vec<u8>) = on!(conn, |c| sqlx::query_as(SQL).fetch_one(c).await?);
    Ok(Head { seq, hash: chain_hash(&hash) })
}

/// The last record that was moved to an archive.
///
/// # Errors
/// When the database fails.
pub async fn start(conn: Conn<'_>) -> Result<Head> {
    const SQL: &str = "SELECT seq, hash FROM audit_start WHERE id = 1";
    let (seq, hash): (i64, Vec<u8>) = on!(conn, |c| sqlx::query_as(SQL).fetch_one(c).await?);
    Ok(Head { seq, hash: chain_hash(&hash) })
}

/// Has the chain begin after `to`; `false` when it no longer begins after `from`.
///
/// # Errors
/// When the database fails.
pub async fn move_start(conn: Conn<'_>, from: Head, to: Head) -> Result<bool> {
    const SQL: &str = "UPDATE audit_start SET seq = $2, hash = $3 WHERE id = 1 AND seq = $1";
    let moved = on!(conn, |c| sqlx::query(SQL)
        .bind(from.seq)
        .bind(to.seq)
        .bind(to.hash.as_slice())
        .execute(c)
        .await?
        .rows_affected());
    Ok(moved == 1)
}

/// Removes some of the records that are archived, the oldest first; gives how many.
///
/// # Errors
/// When the database fails.
pub async fn remove_archived(conn: Conn<'_>, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM audit_log WHERE seq <= (SELECT seq FROM audit_start WHERE id = 1) \
        AND seq < (SELECT MIN(seq) FROM audit_log) + $1";
    Ok(on!(conn, |c| sqlx::query(SQL).bind(limit).execute(c).await?.rows_affected()))
}

/// The record at a place in the chain.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: Conn<'_>, seq: i64) -> Result<Option<Record>> {
    const SQL: &str = "SELECT * FROM audit_log WHERE seq = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(seq).fetch_optional(c).await?);
    Ok(row.map(Record::from))
}

/// Records in the order of the chain, from position `from` on; `None` for a row that no service wrote, as it does not
/// read as a record.
///
/// # Errors
/// When the database fails.
pub async fn chain(conn: Conn<'_>, from: i64, limit: i64) -> Result<Vec<Option<Record>>> {
    const SQL: &str = "SELECT * FROM audit_log WHERE seq >= $1 ORDER BY seq LIMIT +$2";
    Ok(on!(conn, |c| {
        let rows = sqlx::query(SQL).bind(from).bind(limit).fetch_all(c).await.map_err(Error::from)?;
        rows.iter().map(|row| Row::from_row(row).ok().filter(Row::is_canonical).map(Record::from)).collect()
    }))
}
