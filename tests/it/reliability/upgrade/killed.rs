//! The process is killed in each migration. Each is applied whole or not at all, and the next start continues.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::past::{Past, versions};
use crate::{
    both,
    support::{Aims, Database, Launched},
};

both!(a_migration_that_is_killed_is_done_again);

/// Stops a process in one migration, after its statements and before its commit.
pub(super) enum Hold {
    /// A trigger without end, and a connection that stays open: closing the last one would lock the file for a moment.
    Sqlite(SqliteConnection),
    /// A transaction that has added the row of the migration.
    Postgres(PgConnection),
}

impl Hold {
    pub(super) async fn at(version: i64, db: &Database) -> Self {
        if db.is_sqlite() {
            db.execute(&format!(
                "CREATE TRIGGER hold BEFORE INSERT ON _sqlx_migrations WHEN NEW.version = {version} BEGIN \
                 SELECT MAX(n) FROM (WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n FROM n); \
                 END"
            ))
            .await;
            let options: SqliteConnectOptions = db.sqlite_url().parse().unwrap();
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            connection.execute("SELECT COUNT(*) FROM sqlite_master").await.unwrap();
            return Self::Sqlite(connection);
        }
        let mut connection = PgConnection::connect(&db.url).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES ($1, '', TRUE, '', 0)";
        sqlx::query(insert).bind(version).execute(&mut connection).await.unwrap();
        Self::Postgres(connection)
    }

    /// Waits until the database has the migration `before`, and the process is held in the next one.
    pub(super) async fn until_reached(&self, process: &Launched, db: &Database, before: i64) {
        const WAITING: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND application_name = 'aims_starting' AND wait_event = 'transactionid'";
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            // In this order: between the two, the process may only get further.
            let is_next = applied(db).await >= before;
            let is_held = match self {
                Self::Sqlite(_) => is_next && is_writing(process.id()),
                Self::Postgres(_) => db.count(WAITING).await > 0,
            };
            if is_next && is_held {
                return;
            }
            assert!(Instant::now() < deadline, "it does not reach the migration after {before}: {}", process.log());
        }
    }

    pub(super) async fn release(self, db: &Database) {
        match self {
            Self::Sqlite(connection) => {
                db.execute("DROP TRIGGER hold").await;
                connection.close().await.unwrap();
            }
            Self::Postgres(mut connection) => drop(connection.execute("ROLLBACK").await.unwrap()),
        }
    }
}

/// Returns the newest migration that the database has.
async fn applied(db: &Database) -> i64 {
    db.count("SELECT MAX(version) FROM _sqlx_migrations").await
}

/// Returns true if the process has the lock for writing: byte 120 of the shared memory of the write-ahead log. A
/// connection that asks for the lock itself would keep the process from taking it.
fn is_writing(process: u32) -> bool {
    let process = process.to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|lock| matches!(&lock[..], [_, "POSIX", _, "WRITE", owner, _, "120", _] if *owner == process))
}

async fn a_migration_that_is_killed_is_done_again(db: Database) {
    let past = Past::make(db).await;
    let db = past.at(1).await;
    let aims = Aims::new(&db);
    for (before, version) in versions()
        .await
        .into_iter()
        .skip(1)
        .scan(1, |before, version| Some((std::mem::replace(before, version), version)))
    {
        let hold = Hold::at(version, &db).await;
        let process = aims.launch_command(&["migrate"]);
        hold.until_reached(&process, &db, before).await;
        process.kill().await;
        hold.release(&db).await;
        assert_eq!(applied(&db).await, before);
    }
    aims.run(&["migrate", "--check"]).await.fails_with("run: aims migrate");
    let process = aims.serve().await;
    let client = process.client();
    client.login(&past.worker.raw_key).await.get("/capabilities").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
    let verified = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(verified["valid"], true, "{verified}");
}
