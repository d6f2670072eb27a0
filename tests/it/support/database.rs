//! A new database for each test.

use std::path::PathBuf;

use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// An empty database. A SQLite file is deleted when it is dropped.
pub struct Database {
    pub url: String,
    /// A directory for files of the test, including the SQLite file.
    pub folder: TempDir,
}

impl Database {
    pub fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite:///{}", folder.path().join("aims.db").display());
        Self { url, folder }
    }

    pub async fn postgres() -> Self {
        let server = std::env::var("AIMS_TEST_POSTGRES_URL").expect("AIMS_TEST_POSTGRES_URL; `tests/run` sets it");
        let name = format!("aims_{}", uuid::Uuid::from_bytes(random()).simple());
        let mut connection = PgConnection::connect(&server).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{base}/{name}"), folder: TempDir::new().unwrap() }
    }

    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite")
    }

    /// Executes SQL directly in the database.
    pub async fn execute(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
            connection.execute(sqlx::raw_sql(sql)).await.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            connection.execute(sqlx::raw_sql(sql)).await.unwrap();
            connection.close().await.unwrap();
        }
    }

    /// Makes the database reject every audit record.
    pub async fn break_audit(&self) {
        let sql = if self.is_sqlite() {
            "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'broken'); END"
        } else {
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$; \
             CREATE TRIGGER broken BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION broken()"
        };
        self.execute(sql).await;
    }

    /// Undoes [`Database::break_audit`].
    pub async fn repair_audit(&self) {
        let sql = if self.is_sqlite() {
            "DROP TRIGGER broken"
        } else {
            "DROP TRIGGER broken ON audit_log; DROP FUNCTION broken()"
        };
        self.execute(sql).await;
    }

    /// Runs a query that returns one number.
    pub async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        }
    }

    /// Runs a query that returns one column of text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = SqliteConnection::connect(&self.sqlite_url()).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
        }
    }

    pub fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("aims.db")
    }

    /// A URL that lets the test open its own connections.
    pub fn sqlite_url(&self) -> String {
        format!("sqlite://{}", self.sqlite_file().display())
    }
}

fn random() -> [u8; 16] {
    use aims::clock::{Rng, SystemRng};
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes);
    bytes
}
