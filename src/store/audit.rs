//! The audit log, as stored: rows in the order of the chain, and the chain's head.

pub mod index;
mod listing;
mod spans;

use sqlx::{FromRow, PgConnection, QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::db::{Conn, on};
use crate::domain::{
    ActorId, AgentId, Error, Result, Timestamp,
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

/// Adds records that have their place in the chain, and moves its end behind them; fails when somebody else has moved it.
pub(super) async fn append(conn: Conn<'_>, records: &[Record], from: Head, to: Head) -> sqlx::Result<()> {
    if from == to {
        return Ok(());
    }
    match conn {
        Conn::Sqlite(c) => append_sqlite(c, records, from, to).await,
        Conn::Postgres(c) => append_postgres(c, records, from, to).await,
    }
}

/// Each number of rows has a statement of its own, which is kept prepared.
async fn append_sqlite(c: &mut SqliteConnection, records: &[Record], from: Head, to: Head) -> sqlx::Result<()> {
    const ROWS: usize = 64;
    const SQL: &str = "INSERT INTO audit_log (seq, id, at, actor, subject, action, resource_type, resource_id, details, \
        ip, success, request_id, prev_hash, hash) ";
    let mut chunks = records.chunks(ROWS).peekable();
    while let Some(chunk) = chunks.next() {
        let mut query = QueryBuilder::<Sqlite>::new(SQL);
        query.push_values(chunk, |mut row, record| {
            row.push_bind(record.seq)
                .push_bind(record.id)
                .push_bind(record.at.as_micros())
                .push_bind(record.actor.map(|id| id.0))
                .push_bind(record.subject.map(|id| id.0))
                .push_bind(&record.action)
                .push_bind(record.resource_type.as_deref())
                .push_bind(record.resource_id.as_deref())
                .push_bind(&record.details)
                .push_bind(record.ip.as_deref())
                .push_bind(i32::from(record.success))
                .push_bind(record.request_id.as_deref())
                .push_bind(record.prev_hash.as_slice())
                .push_bind(record.hash.as_slice());
        });
        let mut rows = chunk.len();
        if chunks.peek().is_none() {
            query.push("; UPDATE audit_head SET seq = ").push_bind(to.seq);
            query.push(", hash = ").push_bind(to.hash.as_slice());
            query.push(" WHERE id = 1 AND seq = ").push_bind(from.seq);
            rows += 1;
        }
        must_be(rows, query.build().execute(&mut *c).await?.rows_affected())?;
    }
    Ok(())
}

/// One statement, with a list for each column, does for any number of rows.
async fn append_postgres(c: &mut PgConnection, records: &[Record], from: Head, to: Head) -> sqlx::Result<()> {
    const SQL: &str = "WITH moved AS (UPDATE audit_head SET seq = $15, hash = $16 WHERE id = 1 AND seq = $17 RETURNING id) \
        INSERT INTO audit_log (seq, id, at, actor, subject, action, resource_type, resource_id, details, ip, success, \
        request_id, prev_hash, hash) SELECT * FROM UNNEST($1::BIGINT[], $2::UUID[], $3::BIGINT[], $4::UUID[], $5::UUID[], \
        $6::TEXT[], $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::INTEGER[], $12::TEXT[], $13::BYTEA[], \
        $14::BYTEA[]) WHERE EXISTS (SELECT 1 FROM moved)";
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
        .execute(c)
        .await?
        .rows_affected();
    must_be(records.len(), appended)
}

fn must_be(rows: usize, affected: u64) -> sqlx::Result<()> {
    if u64::try_from(rows) == Ok(affected) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
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
    const SQL: &str = "SELECT * FROM audit_log WHERE seq >= $1 ORDER BY seq LIMIT $2";
    Ok(on!(conn, |c| {
        let rows = sqlx::query(SQL).bind(from).bind(limit).fetch_all(c).await.map_err(Error::from)?;
        rows.iter().map(|row| Row::from_row(row).ok().filter(Row::is_canonical).map(Record::from)).collect()
    }))
}
