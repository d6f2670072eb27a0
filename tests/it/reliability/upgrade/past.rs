//! Databases as earlier versions left them: their schema is made by the migrations, and their rows are those of a running
//! service, as far as the schema has the columns.

use std::path::Path;

use aims::domain::Role;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection,
    migrate::{Migrate, Migrator},
    sqlite::SqliteConnectOptions,
};

use crate::support::{Agent, Database, Server, TestClock};

/// What a service left in its database.
pub(super) struct Past {
    source: Database,
    pub clock: TestClock,
    pub admin_key: String,
    pub worker: Agent,
    pub suspended: Agent,
    pub revoked: Agent,
    /// The rows of each table, as JSON. Empty for SQLite, which reads them from the file.
    rows: Vec<(String, String)>,
}

/// What is derived from other tables, or belongs to the tools.
const DERIVED: [&str; 7] = [
    "_sqlx_migrations",
    "agents_to_index",
    "audit_index",
    "audit_names",
    "audit_runs",
    "audit_spans",
    "sqlite_sequence",
];

/// Rows that no later version would leave: each with the last schema that allowed it.
const LEGACY: [(i64, &str); 2] = [
    // Revoking an agent did not revoke its rotated keys.
    (
        10,
        "UPDATE api_keys SET status = 'rotated', revoked_at = NULL, grace_ends_at = 9000000000000000 \
         WHERE agent_id IN (SELECT id FROM agents WHERE status = 'revoked')",
    ),
    // There was one signing key, which signed.
    (3, "DELETE FROM signing_keys WHERE created_at < (SELECT MAX(created_at) FROM signing_keys)"),
];

impl Past {
    /// Lets a service write a row of every kind.
    pub(super) async fn make(db: Database) -> Self {
        let server = Server::start(db).await;
        let worker = server.agent("worker", &["agents:read"]).await;
        let (suspended, revoked) = (server.agent("resting", &["mail:send"]).await, server.agent("gone", &[]).await);
        let delegate = server.agent("delegate", &["agents:read"]).await;
        let admin = &server.admin;
        let post = async |path: String, body: Value| admin.post(&path, body).await;
        post(format!("/agents/{}/keys", worker.id), json!({ "name": "limited", "expires_in_days": 30 })).await;
        let rotated = post(format!("/agents/{}/keys/{}/rotate", delegate.id, delegate.key_id), json!({})).await;
        rotated.expect(200);
        post(format!("/agents/{}/delegates", worker.id), json!({ "delegate_id": delegate.id })).await.expect(201);
        let trust = json!({ "issuer": "https://ci.example", "audience": "aims", "claims": { "sub": "repo:main" } });
        post(format!("/agents/{}/federated-identities", worker.id), trust).await.expect(201);
        let resource = json!({ "identifier": "https://mcp.example/tools", "name": "Tools", "scope": "agents:read" });
        post("/resources".to_owned(), resource).await.expect(201);
        post(format!("/agents/{}/suspend", suspended.id), json!({})).await.expect(200);
        post(format!("/agents/{}/revoke", revoked.id), json!({})).await.expect(200);
        server.signed_in("ada", Role::Owner).await;
        server.anonymous().exchange("aims_wrong").await.expect(401);
        server.save_usage().await;
        let (clock, admin_key) = (server.clock.clone(), server.admin_key.clone());
        let source = server.stop().await;
        let rows = if source.is_sqlite() { Vec::new() } else { rows(&source).await };
        Self { source, clock, admin_key, worker, suspended, revoked, rows }
    }

    /// Makes a database with the migrations up to `version`.
    pub(super) async fn at(&self, version: i64) -> Database {
        if !self.source.is_sqlite() {
            let db = Database::postgres().await;
            let mut target = PgConnection::connect(&db.url).await.unwrap();
            migrate(&mut target, "postgres", version).await;
            self.copy_postgres(&mut target).await;
            let legacy = legacy(version);
            target.execute(sqlx::raw_sql(AssertSqlSafe(legacy))).await.unwrap();
            target.close().await.unwrap();
            return db;
        }
        let db = Database::sqlite();
        let options =
            SqliteConnectOptions::new().filename(db.sqlite_file()).create_if_missing(true).foreign_keys(false);
        let mut target = SqliteConnection::connect_with(&options).await.unwrap();
        migrate(&mut target, "sqlite", version).await;
        self.copy_sqlite(&mut target).await;
        let legacy = legacy(version);
        target.execute(sqlx::raw_sql(AssertSqlSafe(legacy))).await.unwrap();
        target.close().await.unwrap();
        db
    }

    async fn copy_sqlite(&self, target: &mut SqliteConnection) {
        let attach = format!("ATTACH '{}' AS source", self.source.sqlite_file().display());
        target.execute(AssertSqlSafe(attach)).await.unwrap();
        for table in names(sqlx::query_scalar(SQLITE_TABLES).fetch_all(&mut *target).await.unwrap()) {
            let columns = format!(
                "SELECT name FROM pragma_table_info('{table}') \
                 WHERE name <> 'number' AND name IN (SELECT name FROM pragma_table_info('{table}', 'source'))"
            );
            let columns: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(columns)).fetch_all(&mut *target).await.unwrap();
            let columns = columns.join(", ");
            let copy =
                format!("DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {columns} FROM source.{table}");
            target.execute(sqlx::raw_sql(AssertSqlSafe(copy))).await.unwrap();
        }
        target.execute("DETACH source").await.unwrap();
    }

    async fn copy_postgres(&self, target: &mut PgConnection) {
        target.execute("SET session_replication_role = replica").await.unwrap();
        let known = names(sqlx::query_scalar(POSTGRES_TABLES).fetch_all(&mut *target).await.unwrap());
        for (table, rows) in self.rows.iter().filter(|(table, _)| known.contains(table)) {
            let columns: String =
                sqlx::query_scalar(POSTGRES_COLUMNS).bind(table).fetch_one(&mut *target).await.unwrap();
            target.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
            let copy = format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM json_populate_recordset(NULL::{table}, $1::JSON)"
            );
            sqlx::query(AssertSqlSafe(copy)).bind(rows).execute(&mut *target).await.unwrap();
        }
    }
}

const SQLITE_TABLES: &str =
    "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'agents\\_text%' ESCAPE '\\'";
const POSTGRES_TABLES: &str = "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'";
const POSTGRES_COLUMNS: &str = "SELECT STRING_AGG(column_name, ', ') FROM information_schema.columns \
    WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER'";

fn names(tables: Vec<String>) -> Vec<String> {
    tables.into_iter().filter(|table| !DERIVED.contains(&table.as_str())).collect()
}

fn legacy(version: i64) -> String {
    let rows = LEGACY.iter().filter(|(last, _)| version <= *last).map(|(_, sql)| format!("{sql};"));
    rows.collect::<String>() + "SELECT 1"
}

async fn rows(source: &Database) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for table in names(source.texts(POSTGRES_TABLES).await) {
        let json = source.texts(&format!("SELECT COALESCE(JSON_AGG(t), '[]')::TEXT FROM {table} t")).await.remove(0);
        rows.push((table, json));
    }
    rows
}

async fn migrate<C: Migrate>(target: &mut C, database: &str, version: i64) {
    migrations(database).await.run_direct(Some(version), target, false).await.unwrap();
}

/// Returns the migrations for a database: `sqlite` or `postgres`.
pub(super) async fn migrations(database: &str) -> Migrator {
    Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database)).await.unwrap()
}

/// Returns the numbers of all migrations.
pub(super) async fn versions() -> Vec<i64> {
    migrations("sqlite").await.iter().map(|migration| migration.version).collect()
}
