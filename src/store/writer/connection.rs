//! The connection for writes and its transaction.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use crate::{
    domain::audit::{Head, Record},
    store::{
        audit,
        db::{Conn, Db, PooledConn, execute},
        writer::agents,
    },
};

/// How long a connection to PostgreSQL may have been unused without being pinged before the next use.
const TRUSTED: Duration = Duration::from_millis(10);

/// The state of the transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Transaction {
    /// No transaction is open.
    None,
    Begun,
    /// The first unit was started, without a savepoint.
    Unit,
    /// The last unit was started after a savepoint.
    Savepoint,
}

/// The connection for writes. The writer keeps it between batches: to return it to the pool and to acquire it again
/// would each cost a round trip to the database.
pub(super) struct WriteConn {
    connection: PooledConn,
    transaction: Transaction,
    /// True after the transaction of this batch was rolled back and started again.
    restarted: bool,
    /// The end of the chain, as this connection last read or wrote it.
    head: Option<Head>,
    /// True if another node had moved the end of the chain when this connection last read it.
    is_shared: bool,
    /// When the last transaction ended.
    used: Instant,
}

impl WriteConn {
    pub(super) async fn open(db: &Db) -> sqlx::Result<Self> {
        let connection = db.writer().await?;
        Ok(Self {
            connection,
            transaction: Transaction::None,
            restarted: false,
            head: None,
            is_shared: false,
            used: Instant::now(),
        })
    }

    /// Returns this connection for the next batch, or a new one if this one was closed in the meantime.
    pub(super) async fn reuse(mut self, db: &Db) -> sqlx::Result<Self> {
        if let PooledConn::Postgres(lease) = &mut self.connection
            && self.used.elapsed() >= TRUSTED
            && !lease.is_alive().await
        {
            lease.discard();
            return Self::open(db).await;
        }
        self.restarted = false;
        Ok(self)
    }

    pub(super) fn conn(&mut self) -> Conn<'_> {
        self.connection.conn()
    }

    /// Starts a transaction unless one is open, and returns the end of the chain.
    ///
    /// The transaction locks the end of the chain, so that nodes on one PostgreSQL write one after another. On SQLite
    /// it takes the write lock with its first statement. After a plain `BEGIN` the transaction would fail at its first
    /// write if another process is writing.
    ///
    /// Statements are combined into one text where possible: each text is a round trip, to the server or to SQLite's
    /// thread.
    pub(super) async fn begin(&mut self) -> sqlx::Result<Head> {
        const SQLITE: &str = "BEGIN IMMEDIATE; SELECT seq, hash FROM audit_head WHERE id = 1";
        const POSTGRES: &str = "SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE";
        if let Some(head) = self.head.filter(|_| self.in_transaction()) {
            return Ok(head);
        }
        self.transaction = Transaction::Begun;
        let (seq, hash): (i64, Vec<u8>) = match self.conn() {
            Conn::Sqlite(mut c) => sqlx::query_as(SQLITE).fetch_one(c.begin()).await?,
            Conn::Postgres(mut c) => {
                let c = c.begin();
                sqlx::query("BEGIN").execute(&mut *c).await?;
                sqlx::query_as(POSTGRES).fetch_one(c).await?
            }
        };
        let head = Head { seq, hash: audit::chain_hash(&hash) };
        self.is_shared = self.head.replace(head).is_some_and(|known| known != head);
        Ok(head)
    }

    /// Appends records in a transaction of their own, with one round trip. Returns false and writes nothing if another
    /// node has moved the end of the chain, or is likely to.
    pub(super) async fn append(&mut self, records: &mut [Record]) -> sqlx::Result<bool> {
        let is_one_statement = !matches!(self.conn(), Conn::Postgres(_)) || records.len() <= audit::POSTGRES_ROWS;
        let is_sure = is_one_statement && !self.in_transaction() && !self.is_shared;
        let Some(from) = self.head.filter(|_| is_sure) else { return Ok(false) };
        let to = from.append(records);
        self.transaction = Transaction::Begun;
        let appended = match self.conn() {
            Conn::Sqlite(mut c) => {
                let appended =
                    audit::append_sqlite(c.begin(), records, from, ("BEGIN IMMEDIATE; ", "; COMMIT")).await?;
                if !appended {
                    sqlx::query("ROLLBACK").execute(c.begin()).await?;
                }
                appended
            }
            Conn::Postgres(mut c) => audit::append_postgres(c.begin(), records, from).await?,
        };
        self.end();
        if appended {
            self.head = Some(to);
        }
        Ok(appended)
    }

    /// Appends records and commits the transaction.
    pub(super) async fn commit(&mut self, records: &mut [Record]) -> sqlx::Result<()> {
        const COMMIT: &str = "COMMIT";
        let from = self.begin().await?;
        let to = from.append(records);
        let before = if self.has_units() { agents::INDEX_TEXT } else { "" };
        let appended = match self.conn() {
            Conn::Sqlite(mut c) if records.is_empty() => {
                let sql = [before, COMMIT].concat();
                let statements = sql.split(';').count();
                audit::carry_out(c.begin(), sqlx::query(AssertSqlSafe(sql)), statements).await.map(|_| true)?
            }
            Conn::Sqlite(mut c) => audit::append_sqlite(c.begin(), records, from, (before, "; COMMIT")).await?,
            Conn::Postgres(mut c) => {
                let appended = audit::append_postgres(c.begin(), records, from).await?;
                if appended {
                    sqlx::query(COMMIT).execute(c.begin()).await?;
                }
                appended
            }
        };
        if !appended {
            return Err(sqlx::Error::RowNotFound);
        }
        self.head = Some(to);
        self.end();
        Ok(())
    }

    /// Starts a unit, which [`WriteConn::undo`] can undo.
    ///
    /// The first unit of a transaction needs no savepoint, because a rollback loses nothing else. But a rollback also
    /// releases the end of the chain, and other nodes may take long before they release it in turn. So it happens once
    /// per batch: after a rollback the first unit gets a savepoint as well.
    pub(super) async fn begin_unit(&mut self) -> sqlx::Result<()> {
        const FIRST: &str = "SAVEPOINT unit";
        const LATER: &str = "RELEASE SAVEPOINT unit; SAVEPOINT unit";
        self.begin().await?;
        if self.transaction == Transaction::Begun && !self.restarted {
            self.transaction = Transaction::Unit;
            return Ok(());
        }
        let statements = if self.transaction == Transaction::Savepoint { LATER } else { FIRST };
        self.transaction = Transaction::Savepoint;
        match self.conn() {
            Conn::Sqlite(mut c) => sqlx::query(statements).execute(c.begin()).await.map(drop),
            // PostgreSQL accepts several statements in one text only if they are not prepared.
            Conn::Postgres(mut c) => sqlx::raw_sql(statements).execute(c.begin()).await.map(drop),
        }
    }

    /// Undoes the last unit.
    pub(super) async fn undo(&mut self) -> sqlx::Result<()> {
        let has_savepoint = self.transaction == Transaction::Savepoint;
        let statement = if has_savepoint { "ROLLBACK TO SAVEPOINT unit" } else { "ROLLBACK" };
        execute!(self.conn(), sqlx::query(statement))?;
        if !has_savepoint {
            self.restarted = true;
            self.end();
        }
        Ok(())
    }

    fn end(&mut self) {
        (self.transaction, self.used) = (Transaction::None, Instant::now());
    }

    fn in_transaction(&self) -> bool {
        self.transaction != Transaction::None
    }

    /// Returns true if the transaction contains units of work.
    pub(super) fn has_units(&self) -> bool {
        self.transaction >= Transaction::Unit
    }
}

impl Drop for WriteConn {
    /// Closes the connection if its transaction was not committed, because an error may have left it in any state.
    fn drop(&mut self) {
        if self.in_transaction() {
            self.connection.discard();
        }
    }
}
