//! The connection that writes, and the transactions on it.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use crate::{
    domain::audit::{Head, Record},
    store::{
        agents, audit,
        db::{Conn, Db, PooledConn, on},
    },
};

/// How long a connection to PostgreSQL may have been unused and is still taken to work.
const TRUSTED: Duration = Duration::from_millis(10);

/// How far the transaction has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Transaction {
    /// There is none.
    None,
    Begun,
    /// Its first unit was begun, and no other.
    Unit,
    /// There is a savepoint in front of its last unit.
    Savepoint,
}

/// The connection that writes. The writer keeps it: to return it to its pool after every batch costs a round trip to the
/// database, and to fetch it again another.
pub(super) struct WriteConn {
    connection: PooledConn,
    transaction: Transaction,
    /// Whether this batch had to begin again.
    began_again: bool,
    /// The end of the chain, as this connection last saw or left it.
    head: Option<Head>,
    /// Whether somebody else moved it when this connection last looked.
    is_shared: bool,
    /// When it was last at work.
    used: Instant,
}

impl WriteConn {
    pub(super) async fn open(db: &Db) -> sqlx::Result<Self> {
        let connection = db.writer().await?;
        Ok(Self {
            connection,
            transaction: Transaction::None,
            began_again: false,
            head: None,
            is_shared: false,
            used: Instant::now(),
        })
    }

    /// The same connection for another batch, or another one in place of one that was cut while nobody used it.
    pub(super) async fn again(mut self, db: &Db) -> sqlx::Result<Self> {
        if let PooledConn::Postgres(lease) = &mut self.connection
            && self.used.elapsed() >= TRUSTED
            && !lease.is_answering().await
        {
            lease.spoil();
            return Self::open(db).await;
        }
        self.began_again = false;
        Ok(self)
    }

    pub(super) fn conn(&mut self) -> Conn<'_> {
        self.connection.conn()
    }

    /// Begins a transaction that appends to the audit log, unless one is under way: gives the end of the chain, which nobody
    /// else moves while it lasts, so that nodes on one PostgreSQL append one after another. On SQLite it holds the write lock
    /// from its first statement: a plain `BEGIN` would fail later, when a read turns into a write while another process writes.
    ///
    /// Several statements go as one text wherever they can: each text is a round trip, to a server or to SQLite's thread.
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

    /// Appends records as a transaction of their own, with one round trip, where nobody else was seen to move the end of the
    /// chain; `false`, with nothing written, when somebody has.
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

    /// Appends records to what the transaction did, and makes all of it durable.
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

    /// Begins a unit, which [`WriteConn::undo`] takes back. The first of a transaction needs no savepoint: nothing else is lost with
    /// it. To undo it gives up the end of the chain, and to be given it again can take as long as other nodes please, so that this
    /// is done once in a batch and not for each unit that is refused.
    pub(super) async fn begin_unit(&mut self) -> sqlx::Result<()> {
        const FIRST: &str = "SAVEPOINT unit";
        const LATER: &str = "RELEASE SAVEPOINT unit; SAVEPOINT unit";
        self.begin().await?;
        if self.transaction == Transaction::Begun && !self.began_again {
            self.transaction = Transaction::Unit;
            return Ok(());
        }
        let statements = if self.transaction == Transaction::Savepoint { LATER } else { FIRST };
        self.transaction = Transaction::Savepoint;
        match self.conn() {
            Conn::Sqlite(mut c) => sqlx::query(statements).execute(c.begin()).await.map(drop),
            // Without parameters PostgreSQL takes several statements, but not as one that is prepared.
            Conn::Postgres(mut c) => sqlx::raw_sql(statements).execute(c.begin()).await.map(drop),
        }
    }

    /// Undoes what the last unit did.
    pub(super) async fn undo(&mut self) -> sqlx::Result<()> {
        let has_savepoint = self.transaction == Transaction::Savepoint;
        let statement = if has_savepoint { "ROLLBACK TO SAVEPOINT unit" } else { "ROLLBACK" };
        on!(self.conn(), |c| sqlx::query(statement).execute(c).await.map(drop))?;
        if !has_savepoint {
            self.began_again = true;
            self.end();
        }
        Ok(())
    }

    /// Notes that the transaction has ended.
    fn end(&mut self) {
        (self.transaction, self.used) = (Transaction::None, Instant::now());
    }

    fn in_transaction(&self) -> bool {
        self.transaction != Transaction::None
    }

    /// Whether units were begun in the transaction.
    pub(super) fn has_units(&self) -> bool {
        self.transaction >= Transaction::Unit
    }
}

impl Drop for WriteConn {
    /// A transaction that was not committed ends with its connection, in whatever state an error left the two.
    fn drop(&mut self) {
        if self.in_transaction() {
            self.connection.spoil();
        }
    }
}
