//! Reads a consistent snapshot of a database while others write to it.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, ColumnIndex, ConnectOptions, Decode, Executor, PgConnection, SqliteConnection, Type};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Cell, Kind, Part, Row, TABLES,
    columns::{On, Stored, describe, on},
};
use crate::{
    domain::{Error, Result, audit::Head},
    store::{audit::chain_hash, db::Db},
};

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// Rows that SQLite's thread reads ahead. A row may have a MiB.
const ROWS_AHEAD: usize = 8;
/// The size of a batch, in rows and in bytes.
const BATCH: (usize, usize) = (256, 256 * 1024);

/// A snapshot: one read transaction on a connection of its own, because reading takes longer than a request may.
pub struct Snapshot {
    connection: Connection,
    facts: Facts,
}

enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Connection {
    fn on(&mut self) -> On<'_> {
        match self {
            Self::Sqlite(c) => On::Sqlite(c),
            Self::Postgres(c) => On::Postgres(c),
        }
    }
}

/// What a snapshot says about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The schema: the last migration.
    pub schema: i64,
    /// The end of the audit chain.
    pub head: Head,
    /// The public URL of the service that used the database last.
    pub public_url: Option<String>,
}

impl Snapshot {
    /// Begins a snapshot.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not respond; [`Error::Refused`] if it has no tables of AIMS.
    pub async fn begin(db: &Db) -> Result<Self> {
        let mut connection = match db {
            Db::Sqlite { readers, .. } => {
                let options = readers.options().as_ref().clone().row_buffer_size(ROWS_AHEAD);
                let mut connection = options.connect().await?;
                connection.execute("BEGIN").await?;
                Connection::Sqlite(connection)
            }
            Db::Postgres(pool) => {
                let connecting = timeout(CONNECTING, pool.options().connect()).await;
                let mut connection = connecting.map_err(|elapsed| Error::Unavailable(Some(elapsed.into())))??;
                // A slow reader of the backup must not end the snapshot, and one that is gone must.
                connection.execute("SET statement_timeout = 0").await?;
                connection.execute("SET idle_in_transaction_session_timeout = '10min'").await?;
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                Connection::Postgres(connection)
            }
        };
        let facts = facts(&mut connection).await?;
        Ok(Self { connection, facts })
    }

    /// Returns what the snapshot says about itself.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Sends all tables. Ends early, without [`Part::End`], if nobody receives.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn send(mut self, to: &mpsc::Sender<Part>) -> Result<()> {
        for name in TABLES {
            let Some(stored) = describe(self.connection.on(), name).await? else { continue };
            if to.send(Part::Table(stored.table.clone())).await.is_err() {
                return Ok(());
            }
            let sql = stored.select();
            on!(self.connection.on(), |c| {
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(c);
                let (mut batch, mut bytes) = (Vec::new(), 0);
                while let Some(row) = rows.try_next().await? {
                    let row = read(&row, &stored)?;
                    bytes += row.iter().map(size).sum::<usize>();
                    batch.push(row);
                    if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
                        bytes = 0;
                        if to.send(Part::Rows(std::mem::take(&mut batch))).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                if !batch.is_empty() && to.send(Part::Rows(batch)).await.is_err() {
                    return Ok(());
                }
            });
        }
        // If nobody receives, nobody is misled.
        let _ = to.send(Part::End).await;
        Ok(())
    }
}

async fn facts(connection: &mut Connection) -> Result<Facts> {
    const SCHEMA: &str = "SELECT MAX(version) FROM _sqlx_migrations";
    const HEAD: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    const ADDRESS: &str = "SELECT public_url FROM service_address WHERE id = 1";
    const NONE: Error = Error::Refused("the database has no tables of AIMS");
    if describe(connection.on(), "_sqlx_migrations").await.is_ok_and(|found| found.is_none())
        || describe(connection.on(), "audit_head").await?.is_none()
    {
        return Err(NONE);
    }
    let schema: Option<i64> = on!(connection.on(), |c| sqlx::query_scalar(SCHEMA).fetch_one(c).await)?;
    let (seq, hash): (i64, Vec<u8>) = on!(connection.on(), |c| sqlx::query_as(HEAD).fetch_one(c).await)?;
    let has_address = describe(connection.on(), "service_address").await?.is_some();
    let public_url =
        if has_address { on!(connection.on(), |c| sqlx::query_scalar(ADDRESS).fetch_optional(c).await)? } else { None };
    Ok(Facts { schema: schema.ok_or(NONE)?, head: Head { seq, hash: chain_hash(&hash) }, public_url })
}

fn read<'r, R>(row: &'r R, stored: &Stored) -> sqlx::Result<Row>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    Option<Vec<u8>>: Decode<'r, R::Database> + Type<R::Database>,
{
    let cell = |(at, kind)| {
        Ok(match kind {
            Kind::Integer => row.try_get::<Option<i64>, usize>(at)?.map(Cell::Integer),
            Kind::Text => row.try_get::<Option<String>, usize>(at)?.map(Cell::Text),
            Kind::Bytes => row.try_get::<Option<Vec<u8>>, usize>(at)?.map(Cell::Bytes),
        }
        .unwrap_or(Cell::Null))
    };
    stored.table.columns.iter().map(|column| column.kind).enumerate().map(cell).collect()
}

fn size(cell: &Cell) -> usize {
    size_of::<Cell>()
        + match cell {
            Cell::Null | Cell::Integer(_) => 0,
            Cell::Text(text) => text.len(),
            Cell::Bytes(bytes) => bytes.len(),
        }
}
