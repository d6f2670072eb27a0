//! The audit log, as stored: rows in the order of the chain, and the chain's head.

pub mod index;
mod listing;

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    db::{Conn, on},
    even_chunks,
};
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
fn chain_hash(stored: &[u8]) -> ChainHash {
    stored.try_into().unwrap_or([0xFF; 32])
}

/// The end of the chain, locked until the transaction ends: nodes on one PostgreSQL append one after another.
pub(super) async fn lock_head(conn: Conn<'_>) -> sqlx::Result<Head> {
    const SQLITE: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    const POSTGRES: &str = "SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE";
    let (seq, hash): (i64, Vec<u8>) = match conn {
        Conn::Sqlite(c) => sqlx::query_as(SQLITE).fetch_one(c).await?,
        Conn::Postgres(c) => sqlx::query_as(POSTGRES).fetch_one(c).await?,
    };
    Ok(Head { seq, hash: chain_hash(&hash) })
}

/// Moves the end of the chain; fails when somebody else has moved it.
pub(super) async fn advance_head(conn: Conn<'_>, from: Head, to: Head) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE audit_head SET seq = $2, hash = $3 WHERE id = 1 AND seq = $1";
    if from == to {
        return Ok(());
    }
    let moved = on!(conn, |c| sqlx::query(SQL)
        .bind(from.seq)
        .bind(to.seq)
        .bind(to.hash.as_slice())
        .execute(c)
        .await?
        .rows_affected());
    if moved == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Adds records that have their place in the chain.
pub(super) async fn append(mut conn: Conn<'_>, records: &[Record]) -> sqlx::Result<()> {
    const SQL: &str = "INSERT INTO audit_log (seq, id, at, actor, subject, action, resource_type, resource_id, \
        details, ip, success, request_id, prev_hash, hash) ";
    for chunk in even_chunks(records) {
        on!(&mut conn, |c| {
            let mut query = QueryBuilder::new(SQL);
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
            query.build().execute(c).await?;
        });
    }
    Ok(())
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
