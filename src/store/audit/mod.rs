//! The stored audit log: its records, and the start and the end of their hash chain.

pub mod archive;
pub mod archives;
pub mod chart;
pub mod index;
mod listing;
mod lookup;
pub mod names;
pub mod rehearsal;
mod terms;
pub mod views;

use std::future::ready;

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Executor, FromRow, PgConnection, Sqlite, SqliteConnection, error::ErrorKind, query::Query,
    sqlite::SqliteArguments,
};
use uuid::Uuid;

use super::db::{Conn, dispatch, execute};
use crate::domain::{
    ActorId, AgentId, Result, Timestamp,
    audit::{ChainHash, Head, Record},
};

pub use listing::{after, list};

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
    /// Returns true if the row is the stored form of its record. Every number except 0 reads as success, but only 1 is written.
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

/// Reads a stored hash. One of another length, which only tampering can leave behind, becomes a hash that no record has.
pub(in crate::store) fn chain_hash(stored: &[u8]) -> ChainHash {
    stored.try_into().unwrap_or([0xFF; 32])
}

/// The numbers of rows for which there is a prepared statement. A statement skips the rows that are left NULL.
const SIZES: [usize; 15] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, MOST_ROWS];
const MOST_ROWS: usize = 256;

/// Appends records whose hashes follow `from`, and moves the head of the chain to the last of them. Returns false if the head is
/// not `from`; the caller must then roll the transaction back.
///
/// `around` holds statements to run before and after in the same round trips, of which there is one for each 256 records. In the
/// first string each statement ends with a semicolon, in the second each begins with one, and there are no others.
pub(super) async fn append_sqlite(
    c: &mut SqliteConnection,
    records: &[Record],
    mut from: Head,
    around: (&str, &str),
) -> sqlx::Result<bool> {
    // If the head is not `from`, this sets the column to NULL, and its NOT NULL constraint stops the statements that follow.
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

/// Executes a text of `statements` statements, and returns the number of rows that each affected.
pub(super) async fn carry_out(
    c: &mut SqliteConnection,
    query: Query<'_, Sqlite, SqliteArguments>,
    statements: usize,
) -> sqlx::Result<Vec<u64>> {
    let affected = c.fetch_many(query).try_filter_map(|step| ready(Ok(step.left().map(|done| done.rows_affected()))));
    let affected: Vec<u64> = affected.try_collect().await?;
    // If the connection breaks, results are missing, above all that of the final COMMIT.
    if affected.len() == statements { Ok(affected) } else { Err(sqlx::Error::RowNotFound) }
}

/// The maximum number of records in one statement to PostgreSQL: about as many as fit into one TLS record, which is one write to
/// the socket. sqlx 0.9.0 does not disable Nagle's algorithm (its issue 4335), so the second of two writes would wait up to 40 ms
/// until the first is acknowledged.
pub(super) const POSTGRES_ROWS: usize = 32;

/// As [`append_sqlite`], for PostgreSQL, with one statement for each [`POSTGRES_ROWS`] records. A statement is atomic by itself,
/// so up to that many records need no transaction. Each column is one array, so one text serves any number of rows.
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

/// Returns the head of the chain: the position and the hash of the last record.
///
/// # Errors
/// When the database fails.
pub async fn head(conn: Conn<'_>) -> Result<Head> {
    const SQL: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    let (seq, hash): (i64, Vec<u8>) = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_one(c).await)?;
    Ok(Head { seq, hash: chain_hash(&hash) })
}

/// Returns the time of the last record; `None` if there is none in the database.
///
/// # Errors
/// When the database fails.
pub async fn last_at(conn: Conn<'_>) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT at FROM audit_log ORDER BY seq DESC LIMIT 1";
    let at: Option<i64> = dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_optional(c).await)?;
    Ok(at.map(Timestamp::from_micros))
}

/// Returns the position and the hash of the last archived record, which the chain in the database continues from.
///
/// # Errors
/// When the database fails.
pub async fn start(conn: Conn<'_>) -> Result<Head> {
    const SQL: &str = "SELECT seq, hash FROM audit_start WHERE id = 1";
    let (seq, hash): (i64, Vec<u8>) = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_one(c).await)?;
    Ok(Head { seq, hash: chain_hash(&hash) })
}

/// Moves the start of the chain from `from` to `to`. Returns false if it does not start after `from` any more.
///
/// # Errors
/// When the database fails.
pub async fn move_start(conn: Conn<'_>, from: Head, to: Head) -> Result<bool> {
    const SQL: &str = "UPDATE audit_start SET seq = $2, hash = $3 WHERE id = 1 AND seq = $1";
    let moved = execute!(conn, sqlx::query(SQL).bind(from.seq).bind(to.seq).bind(to.hash.as_slice()))?;
    Ok(moved == 1)
}

/// Deletes up to `limit` archived records, oldest first, and returns how many.
///
/// # Errors
/// When the database fails.
pub async fn remove_archived(conn: Conn<'_>, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM audit_log WHERE seq <= (SELECT seq FROM audit_start WHERE id = 1) \
        AND seq < (SELECT MIN(seq) FROM audit_log) + $1";
    Ok(execute!(conn, sqlx::query(SQL).bind(limit))?)
}

/// Returns the record at a position.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: Conn<'_>, seq: i64) -> Result<Option<Record>> {
    const SQL: &str = "SELECT * FROM audit_log WHERE seq = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(seq).fetch_optional(c).await)?;
    Ok(row.map(Record::from))
}

/// Returns up to `limit` records in the order of the chain, starting at position `from`. A row that AIMS cannot have written,
/// because it does not read as a record, is `None`.
///
/// # Errors
/// When the database fails.
pub async fn chain(conn: Conn<'_>, from: i64, limit: i64) -> Result<Vec<Option<Record>>> {
    const SQL: &str = "SELECT * FROM audit_log WHERE seq >= $1 ORDER BY seq LIMIT +$2";
    Ok(dispatch!(conn, |c| {
        let rows = sqlx::query(SQL).bind(from).bind(limit).fetch_all(c).await?;
        Ok(rows.iter().map(|row| Row::from_row(row).ok().filter(Row::is_canonical).map(Record::from)).collect())
    })?)
}
