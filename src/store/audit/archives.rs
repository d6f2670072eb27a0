//! Which files records were moved to.

use sqlx::FromRow;

use crate::{
    domain::{Result, Timestamp, audit::ArchivedRange},
    store::db::{Conn, dispatch, execute},
};

#[derive(FromRow)]
struct Row {
    first_seq: i64,
    last_seq: i64,
    last_at: Option<i64>,
    archived_at: Option<i64>,
    file: Option<String>,
}

impl From<Row> for ArchivedRange {
    fn from(row: Row) -> Self {
        Self {
            first_seq: row.first_seq,
            last_seq: row.last_seq,
            last_at: row.last_at.map(Timestamp::from_micros),
            archived_at: row.archived_at.map(Timestamp::from_micros),
            file: row.file,
        }
    }
}

/// Stores which records a file contains.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, archived: &ArchivedRange) -> Result<()> {
    const SQL: &str = "INSERT INTO audit_archives (last_seq, first_seq, last_at, archived_at, file) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (last_seq) DO NOTHING";
    execute!(
        conn,
        sqlx::query(SQL)
            .bind(archived.last_seq)
            .bind(archived.first_seq)
            .bind(archived.last_at.map(Timestamp::as_micros))
            .bind(archived.archived_at.map(Timestamp::as_micros))
            .bind(archived.file.as_deref())
    )?;
    Ok(())
}

/// Returns the file that contains a record. `i64::MAX` stands for the last archived record.
///
/// # Errors
/// When the database fails.
pub async fn holding(mut conn: Conn<'_>, seq: i64) -> Result<Option<ArchivedRange>> {
    const HOLDING: &str = "SELECT * FROM audit_archives WHERE last_seq >= $1 ORDER BY last_seq LIMIT 1";
    const LAST: &str = "SELECT * FROM audit_archives WHERE last_seq <= $1 ORDER BY last_seq DESC LIMIT 1";
    let archived = super::start(conn.reborrow()).await?.seq;
    let (sql, seq) = if seq == i64::MAX { (LAST, archived) } else { (HOLDING, seq) };
    if seq < 1 || seq > archived {
        return Ok(None);
    }
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(sql).bind(seq).fetch_optional(c).await)?;
    // An earlier version archived these records, and stored nothing about the file.
    let unknown = ArchivedRange { first_seq: 1, last_seq: archived, last_at: None, archived_at: None, file: None };
    let found = row.map(ArchivedRange::from).filter(|found| sql == LAST || found.first_seq <= seq);
    Ok(Some(found.unwrap_or(unknown)))
}
