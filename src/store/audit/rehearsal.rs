//! A rehearsal of writing an audit record, for the readiness check.

use uuid::Uuid;

use super::{append_postgres, append_sqlite, head};
use crate::{
    domain::{
        Error, Result, Timestamp,
        audit::{GENESIS, Head, Record},
    },
    store::{
        Tx,
        db::{Conn, execute},
    },
};

/// The name of the event, which no reader ever sees.
const ACTION: &str = "audit.rehearsed";

/// Appends a record to the chain and takes it back, in the same transaction. It needs everything that a real record
/// needs, and its commit reaches the disk: SQLite writes nothing before the commit, so a transaction that is rolled back
/// would not notice a full disk.
///
/// # Errors
/// If the record cannot be written.
pub async fn rehearse(tx: &mut Tx, id: Uuid, at: Timestamp) -> Result<()> {
    let from = head(tx.conn()).await?;
    let mut records = [Record {
        seq: 0,
        id,
        at,
        actor: None,
        subject: None,
        action: ACTION.to_owned(),
        resource_type: None,
        resource_id: None,
        details: "{}".to_owned(),
        ip: None,
        success: true,
        request_id: None,
        prev_hash: GENESIS,
        hash: GENESIS,
    }];
    let to = from.append(&mut records);
    let appended = match tx.conn() {
        Conn::Sqlite(mut c) => append_sqlite(c.begin(), &records, from, ("", "")).await?,
        Conn::Postgres(mut c) => append_postgres(c.begin(), &records, from).await?,
    };
    if !appended {
        return Err(Error::internal("the end of the audit log is not where it was"));
    }
    take_back(tx.conn(), from, to).await
}

async fn take_back(mut conn: Conn<'_>, from: Head, to: Head) -> Result<()> {
    const REMOVE: &str = "DELETE FROM audit_log WHERE seq = $1";
    const MOVE: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1 AND seq = $3";
    let removed = execute!(&mut conn, sqlx::query(REMOVE).bind(to.seq))?;
    let moved = execute!(conn, sqlx::query(MOVE).bind(from.seq).bind(from.hash.as_slice()).bind(to.seq))?;
    if (removed, moved) == (1, 1) { Ok(()) } else { Err(Error::internal("the rehearsed record was not there")) }
}
