use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Counts, run};
use crate::{
    clock::Environment,
    crypto::Keyring,
    domain::{
        ActorId, AgentId, AgentStatus, ApiKeyId, ApiKeyStatus, AuthFailure, Error, Limit, PublicUrl, Timestamp,
        agent::{Sort, labels::Labels},
        audit::{Head, Record, RefusalBounds},
    },
    service::{
        Origin, Services, Settings,
        audit::verify,
        bootstrap,
        core::{principals::Principals, refusals::Refusals},
        tokens::{self, signing_keys::CurrentKeyring},
    },
    store::{Changes, Conn, Db, Location, Mode, Store, agents, audit, capabilities, credentials::api_keys},
};

const TABLES: &str = "
    CREATE TABLE agents (id VARCHAR(36) PRIMARY KEY, name VARCHAR(128), description TEXT, owner VARCHAR(128),
        status VARCHAR(20), agent_type VARCHAR(20), metadata_json TEXT, created_at DATETIME, updated_at DATETIME,
        suspended_at DATETIME, revoked_at DATETIME);
    CREATE TABLE api_keys (id VARCHAR(36) PRIMARY KEY, agent_id VARCHAR(36), key_prefix VARCHAR(8),
        key_hash VARCHAR(64), name VARCHAR(128), status VARCHAR(20), expires_at DATETIME, created_at DATETIME,
        rotated_at DATETIME, revoked_at DATETIME, last_used_at DATETIME);
    CREATE TABLE capabilities (id VARCHAR(36) PRIMARY KEY, name VARCHAR(128), description TEXT, created_at DATETIME);
    CREATE TABLE agent_capabilities (id VARCHAR(36) PRIMARY KEY, agent_id VARCHAR(36), capability_id VARCHAR(36),
        granted_by VARCHAR(36), granted_at DATETIME);
    CREATE TABLE audit_logs (id VARCHAR(36) PRIMARY KEY, timestamp DATETIME, agent_id VARCHAR(36),
        action VARCHAR(64), resource_type VARCHAR(64), resource_id VARCHAR(36), details_json TEXT,
        ip_address VARCHAR(45), success BOOLEAN);
";

const ADMIN: &str = "11111111-1111-4111-8111-111111111111";
const SLEEPER: &str = "22222222-2222-4222-8222-222222222222";
const ADMIN_KEY: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaa1";
const ROTATED_KEY: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaa4";

/// Returns a raw key in the predecessor's format, made of one digit.
fn raw_key(digit: char) -> String {
    format!("aims_{}", digit.to_string().repeat(64))
}

fn hash_of(digit: char) -> String {
    let digest: [u8; 32] = Sha256::digest(raw_key(digit)).into();
    crate::domain::audit::hex(&digest)
}

/// Three agents, one of them with an ID that is not a UUID, two capabilities, and records that are not sorted by time.
fn rows() -> String {
    let (k1, k2, k3, k4, k5) = (hash_of('1'), hash_of('2'), hash_of('3'), hash_of('4'), hash_of('5'));
    format!(
        "INSERT INTO agents VALUES
            ('{ADMIN}', 'admin', 'Boss', 'system', 'active', 'orchestrator', '{{\"a\": 1}}',
                '2025-01-01 10:00:00.000001', '2025-01-02 10:00:00', NULL, NULL),
            ('{SLEEPER}', 'sleeper', NULL, 'ops', 'suspended', 'llm', NULL,
                '2025-01-01T11:00:00', NULL, '2025-02-01T00:00:00+00:00', NULL),
            ('worker-7', 'worker', '', 'ops', 'active', 'tool', '{{}}', '2025-01-01 12:00:00', '2025-01-01 12:00:00',
                NULL, NULL);
        INSERT INTO api_keys VALUES
            ('{ADMIN_KEY}', '{ADMIN}', 'aims_111', '{k1}', 'admin-bootstrap', 'active', NULL,
                '2025-01-01 10:00:00', NULL, NULL, '2025-03-01 00:00:00'),
            ('key-2', '{SLEEPER}', 'aims_222', '{k2}', 'k', 'active', NULL, '2025-01-01 10:00:00', NULL, NULL, NULL),
            ('key-3', 'worker-7', 'aims_333', '{k3}', NULL, 'active', '2999-01-01', '2025-01-01 10:00:00', NULL, NULL,
                NULL),
            ('{ROTATED_KEY}', 'worker-7', 'aims_444', '{k4}', 'old', 'rotated', NULL, '2025-01-01 10:00:00',
                '2025-01-05 10:00:00', NULL, NULL),
            ('key-5', 'worker-7', 'aims_555', '{k5}', 'gone', 'revoked', NULL, '2025-01-01 10:00:00', NULL,
                '2025-01-06 10:00:00', NULL);
        INSERT INTO capabilities VALUES
            ('c0000000-0000-4000-8000-000000000001', 'admin:*', 'All', '2025-01-01 10:00:00'),
            ('cap-deploy', 'deploy:run', NULL, '2025-01-01 10:00:00');
        INSERT INTO agent_capabilities VALUES
            ('g1', '{ADMIN}', 'c0000000-0000-4000-8000-000000000001', NULL, '2025-01-01 10:00:00'),
            ('g2', 'worker-7', 'cap-deploy', '{ADMIN}', '2025-01-01 13:00:00'),
            ('g3', '{SLEEPER}', 'cap-deploy', 'nobody-known', '2025-01-01 13:00:00');
        INSERT INTO audit_logs VALUES
            ('d0000000-0000-4000-8000-000000000001', '2025-01-02 00:00:00', '{ADMIN}', 'agent.created', 'agent',
                'worker-7', '{{\"name\":  \"worker\"}}', '10.0.0.1', 1),
            ('a2', '2025-01-01 00:00:00', NULL, 'auth.failed', NULL, NULL, NULL, 'testclient', 0),
            ('a3', '2025-01-02 00:00:00', 'worker-7', 'auth.token_issued', 'api_key', 'key-3', '{{}}', NULL, 'true');"
    )
}

struct Fixture {
    dir: TempDir,
    services: Services,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::Sqlite(dir.path().join("aims.db")), Mode::Write).await.unwrap();
        let principals = Principals::new(1_024);
        let view = principals.clone();
        let store = Store::start(db, Arc::new(move |changes: &Changes| view.forget(changes)));
        let services = Services {
            store,
            principals,
            verified_tokens: crate::service::tokens::verified_tokens::VerifiedTokens::new(1_024),
            foreign_keys: crate::service::credentials::federation::foreign_keys::ForeignKeys::default(),
            refusals: Refusals::default(),
            passwords: crate::crypto::PasswordQueue::default(),
            master_key: None,
            checker: crate::service::audit::Checker::default(),
            readiness: crate::service::health::Readiness::default(),
            ending: tokio::sync::watch::Sender::new(false),
            dpop_nonces: crate::service::tokens::nonces::DpopNonces::new(crate::crypto::NonceKey::of_shared_secret(
                &"a secret".into(),
            )),
            keyring: CurrentKeyring::new(
                Keyring::shared_secret(&"a secret of more than 32 bytes, for tests".into()).unwrap(),
            ),
            env: Environment::system(),
            settings: Arc::new(Settings {
                signing: None,
                signing_key_rotation: None,
                issuer: PublicUrl::parse("http://localhost").unwrap(),
                token_life: Duration::from_mins(30),
                delegation_depth: 5,
                federation_allow_private: false,
                rotation_grace: Duration::from_hours(24),
                refusals: RefusalBounds { each: 100, total: 1_000 },
                backups: None,
            }),
        };
        Self { dir, services }
    }

    /// Writes a database of the predecessor.
    async fn file(&self, name: &str, sql: &[&str]) -> PathBuf {
        let path = self.dir.path().join(name);
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        for sql in sql {
            sqlx::raw_sql(AssertSqlSafe((*sql).to_owned())).execute(&mut conn).await.unwrap();
        }
        conn.close().await.unwrap();
        path
    }

    async fn seed(&self) -> PathBuf {
        self.file("seed.db", &[TABLES, &rows()]).await
    }

    /// Imports the usual rows after `change`, which must fail and leave nothing behind. Returns the error.
    async fn failed_import(&self, change: &str) -> String {
        let name = format!("{}.db", Uuid::from_bytes(self.services.env.random()));
        let path = self.file(&name, &[TABLES, &rows(), change]).await;
        let (before, head) = (self.names().await, self.head().await);
        let message = run(&self.services, &path, Labels::default()).await.unwrap_err().to_string();
        assert_eq!((self.names().await, self.head().await), (before, head), "{message}");
        message
    }

    async fn names(&self) -> Vec<String> {
        let mut read = self.services.store.read().await.unwrap();
        let page =
            agents::list(read.conn(), &crate::domain::agent::Filter::default(), Sort::Oldest, None, Limit::of(500))
                .await
                .unwrap();
        page.items.iter().map(|agent| agent.name.to_string()).collect()
    }

    async fn head(&self) -> Head {
        audit::head(self.services.store.read().await.unwrap().conn()).await.unwrap()
    }

    /// Returns all audit records, oldest first.
    async fn log(&self) -> Vec<Record> {
        let chain = audit::chain(self.services.store.read().await.unwrap().conn(), 0, 1_000_000).await.unwrap();
        chain.into_iter().map(|record| record.unwrap()).collect()
    }

    async fn exchange(&self, digit: char) -> Result<(), Error> {
        tokens::exchange(&self.services, &Origin::default(), &raw_key(digit)).await.map(drop)
    }

    async fn agent_named(&self, name: &str) -> AgentId {
        let mut read = self.services.store.read().await.unwrap();
        let page =
            agents::list(read.conn(), &crate::domain::agent::Filter::default(), Sort::Oldest, None, Limit::of(500))
                .await
                .unwrap();
        page.items.iter().find(|agent| agent.name.as_str() == name).unwrap().id
    }

    async fn assert_valid_chain(&self) {
        assert_eq!(verify(self.services.store.db()).await.unwrap().broken, None);
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_lenient(text).unwrap()
}

#[tokio::test]
async fn everything_is_imported_and_keys_keep_working() {
    let fixture = Fixture::new().await;
    let path = fixture.seed().await;
    let before = fs::read(&path).unwrap();
    let counts = run(&fixture.services, &path, Labels::default()).await.unwrap();
    let expected =
        Counts { agents: 3, api_keys: 5, capabilities: 2, capabilities_matched: 0, grants: 3, audit_records: 3 };
    assert_eq!(counts, expected);
    assert_eq!(
        counts.to_string(),
        "agents: 3, API keys: 5, capabilities: 2 new and 0 existing, grants: 3, audit records: 3"
    );
    assert_eq!(fs::read(&path).unwrap(), before, "the file is unchanged");

    let mut read = fixture.services.store.read().await.unwrap();
    let admin = agents::find(read.conn(), AgentId::parse(ADMIN).unwrap()).await.unwrap().unwrap();
    assert_eq!(admin.created_at, time("2025-01-01T10:00:00.000001Z"));
    assert_eq!(admin.metadata_json, "{\"a\": 1}");
    let sleeper = agents::find(read.conn(), AgentId::parse(SLEEPER).unwrap()).await.unwrap().unwrap();
    assert_eq!(sleeper.status, AgentStatus::Suspended);
    assert_eq!(sleeper.suspended_at, Some(time("2025-02-01")));
    assert_eq!((sleeper.description.as_str(), sleeper.metadata_json.as_str()), ("", "{}"));
    let rotated = api_keys::find(read.conn(), ApiKeyId::parse(ROTATED_KEY).unwrap()).await.unwrap().unwrap();
    assert_eq!(rotated.status, ApiKeyStatus::Rotated);
    assert_eq!(rotated.grace_ends_at, Some(time("2025-01-06T10:00:00Z")));
    assert_eq!(rotated.key_prefix, "aims_444");
    drop(read);

    fixture.exchange('1').await.unwrap();
    fixture.exchange('3').await.unwrap();
    for (digit, why) in [
        ('2', AuthFailure::AgentSuspended),
        ('4', AuthFailure::RotatedKeyExpired),
        ('5', AuthFailure::KeyRevoked),
        ('6', AuthFailure::InvalidKey),
    ] {
        let refusal = fixture.exchange(digit).await.unwrap_err();
        assert!(matches!(refusal, Error::Unauthenticated(failure) if failure == why), "{digit}: {refusal}");
    }
    fixture.assert_valid_chain().await;
}

#[tokio::test]
async fn keys_of_a_revoked_agent_are_revoked_unless_they_had_expired() {
    let fixture = Fixture::new().await;
    let change = "UPDATE agents SET status = 'revoked', revoked_at = '2025-01-05 12:00:00' WHERE id = 'worker-7';
        UPDATE api_keys SET status = 'active', revoked_at = NULL, expires_at = '2025-01-05 11:00:00'
        WHERE id = 'key-5'";
    let path = fixture.file("revoked.db", &[TABLES, &rows(), change]).await;
    run(&fixture.services, &path, Labels::default()).await.unwrap();
    let worker = fixture.agent_named("worker").await;
    let mut read = fixture.services.store.read().await.unwrap();
    let mut keys: Vec<_> = api_keys::list(read.conn(), worker)
        .await
        .unwrap()
        .into_iter()
        .map(|key| (key.key_prefix, key.status, key.revoked_at))
        .collect();
    keys.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
    let revoked = (ApiKeyStatus::Revoked, Some(time("2025-01-05T12:00:00Z")));
    let expected = [("aims_333", revoked), ("aims_444", revoked), ("aims_555", (ApiKeyStatus::Active, None))];
    assert_eq!(keys, expected.map(|(prefix, (status, at))| (prefix.to_owned(), status, at)));
}

#[tokio::test]
async fn ids_that_are_not_uuids_stay_consistent() {
    let fixture = Fixture::new().await;
    run(&fixture.services, &fixture.seed().await, Labels::default()).await.unwrap();
    let worker = fixture.agent_named("worker").await;
    assert_eq!(worker.0.get_version_num(), 8);
    let mut read = fixture.services.store.read().await.unwrap();
    assert_eq!(api_keys::list(read.conn(), worker).await.unwrap().len(), 3);
    let held = capabilities::held_by(read.conn(), worker).await.unwrap();
    assert_eq!(held[0].name.as_str(), "deploy:run");
    let filter = crate::domain::audit::Filter { involving: Some(worker), ..Default::default() };
    let page = audit::list(&fixture.services.store, &filter, crate::domain::audit::Start::Offset(0), Limit::of(500))
        .await
        .unwrap();
    assert_eq!(page.items.len(), 2, "one record as actor and one as subject");
}

#[tokio::test]
async fn records_are_chained_in_order_of_time_with_their_text_unchanged() {
    let fixture = Fixture::new().await;
    run(&fixture.services, &fixture.seed().await, Labels::default()).await.unwrap();
    let log = fixture.log().await;
    let actions: Vec<_> = log.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["auth.failed", "agent.created", "auth.token_issued", "seed.imported"]);
    assert_eq!((log[0].details.as_str(), log[0].ip.as_deref(), log[0].success), ("{}", Some("testclient"), false));
    assert_eq!(log[1].id.to_string(), "d0000000-0000-4000-8000-000000000001");
    assert_eq!(log[1].details, "{\"name\":  \"worker\"}");
    assert_eq!(log[1].actor, ActorId::parse(ADMIN));
    assert_eq!(log[1].resource_id.as_deref(), Some("worker-7"), "unchanged, for references from elsewhere");
    assert!(log[2].success);
    assert!(log[3].details.contains("\"audit_records\":3"), "{}", log[3].details);
    fixture.assert_valid_chain().await;
}

#[tokio::test]
async fn a_second_import_is_refused_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let path = fixture.seed().await;
    run(&fixture.services, &path, Labels::default()).await.unwrap();
    let (names, head) = (fixture.names().await, fixture.head().await);
    let other = fixture.file("other.db", &[TABLES]).await;
    for path in [path, other] {
        let message = run(&fixture.services, &path, Labels::default()).await.unwrap_err().to_string();
        assert_eq!(message, "nothing was imported: a database of the predecessor was already imported");
    }
    assert_eq!((fixture.names().await, fixture.head().await), (names, head));
    fixture.exchange('1').await.unwrap();
}

#[tokio::test]
async fn of_two_concurrent_imports_one_succeeds() {
    let fixture = Fixture::new().await;
    let path = fixture.seed().await;
    let import = || run(&fixture.services, &path, Labels::default());
    let (one, other) = tokio::join!(import(), import());
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(fixture.names().await.len(), 3);
    fixture.assert_valid_chain().await;
}

#[tokio::test]
async fn a_conflict_fails_the_whole_import() {
    let fixture = Fixture::new().await;
    bootstrap::run(&fixture.services).await.unwrap().unwrap();
    let message = fixture.failed_import("").await;
    assert!(message.contains("an agent named admin already exists"), "{message}");
    assert_eq!(fixture.names().await, ["admin"]);

    // The failed import does not affect the next one: not even its mark is left.
    let rename = "UPDATE agents SET name = 'boss' WHERE name = 'admin'";
    let path = fixture.file("renamed.db", &[TABLES, &rows(), rename]).await;
    let counts = run(&fixture.services, &path, Labels::default()).await.unwrap();
    assert_eq!((counts.capabilities, counts.capabilities_matched), (1, 1));
    let mut read = fixture.services.store.read().await.unwrap();
    let held = capabilities::held_by(read.conn(), AgentId::parse(ADMIN).unwrap()).await.unwrap();
    let present = capabilities::find_by_name(read.conn(), "admin:*").await.unwrap().unwrap();
    assert_eq!(held, [present], "the grant refers to the existing capability");
    fixture.assert_valid_chain().await;
}

#[tokio::test]
async fn the_error_names_a_conflict_of_ids_or_hashes() {
    let fixture = Fixture::new().await;
    run(&fixture.services, &fixture.seed().await, Labels::default()).await.unwrap();
    // Without the mark, the next import conflicts with the data of the first one.
    let unmarked = fixture.services.store.write(|tx| {
        Box::pin(async move {
            let Conn::Sqlite(mut conn) = tx.conn() else { return Err(Error::Unavailable(None)) };
            sqlx::raw_sql("DELETE FROM imports").execute(conn.begin()).await?;
            Ok(())
        })
    });
    unmarked.await.unwrap();
    let renamed = "UPDATE agents SET name = 'new-' || name";
    let moved = "UPDATE agents SET id = 'new-' || id; UPDATE api_keys SET agent_id = 'new-' || agent_id;
        UPDATE agent_capabilities SET agent_id = 'new-' || agent_id";
    for (change, expected) in [
        (renamed.to_owned(), format!("an agent with the id {ADMIN} already exists")),
        (format!("{renamed}; {moved}"), format!("an API key with the id {ADMIN_KEY} already exists")),
        (
            format!("{renamed}; {moved}; UPDATE api_keys SET id = 'new-' || id"),
            "(\"admin-bootstrap\") already exists".to_owned(),
        ),
        (
            format!("{renamed}; {moved}; DELETE FROM api_keys; UPDATE capabilities SET name = 'new-' || name"),
            "of the capability new-admin:* already exists, for admin:*".to_owned(),
        ),
    ] {
        let message = fixture.failed_import(&change).await;
        assert!(message.contains(&expected), "{message}");
    }
}

#[tokio::test]
async fn an_invalid_row_fails_the_whole_import_with_an_error_that_names_it() {
    let fixture = Fixture::new().await;
    for (change, expected) in [
        (
            "UPDATE agents SET status = 'asleep' WHERE name = 'sleeper'".to_owned(),
            format!(
                "the table agents, row 2 (id \"{SLEEPER}\"), status: \"asleep\" is not valid: Input should be one of"
            ),
        ),
        ("UPDATE agents SET name = 'a b'".to_owned(), "name: \"a b\" is not valid: String should match".to_owned()),
        ("UPDATE agents SET name = 'same'".to_owned(), "row 2".to_owned()),
        ("UPDATE agents SET agent_type = NULL".to_owned(), "agent_type: it is missing".to_owned()),
        ("UPDATE agents SET created_at = 'soon'".to_owned(), "created_at: \"soon\" is not an ISO 8601 time".to_owned()),
        ("UPDATE agents SET owner = 'a' || char(0)".to_owned(), "owner: it contains a NUL character".to_owned()),
        (
            "UPDATE api_keys SET key_hash = 'aims_xyz' WHERE id = 'key-3'".to_owned(),
            "the table api_keys, row 3 (id \"key-3\"), key_hash: it must have 64 hexadecimal digits".to_owned(),
        ),
        (
            format!("UPDATE api_keys SET key_hash = upper('{}')", hash_of('1')),
            "row 2 (id \"key-2\"), key_hash: an earlier row has the same value".to_owned(),
        ),
        ("UPDATE api_keys SET agent_id = 'x'".to_owned(), "agent_id: there is no agent \"x\"".to_owned()),
        ("UPDATE capabilities SET name = 'a b'".to_owned(), "capabilities, row 1".to_owned()),
        (
            "UPDATE agent_capabilities SET capability_id = 'x' WHERE id = 'g2'".to_owned(),
            "row 2 (id \"g2\"), capability_id: there is no capability \"x\"".to_owned(),
        ),
        (
            "INSERT INTO agent_capabilities SELECT 'g4', agent_id, capability_id, NULL, granted_at \
                FROM agent_capabilities WHERE id = 'g2'"
                .to_owned(),
            "row 4 (id \"g4\"), capability_id: an earlier row has the same value".to_owned(),
        ),
        (
            "UPDATE audit_logs SET success = 'perhaps' WHERE id = 'a2'".to_owned(),
            "the table audit_logs, row 2 (id \"a2\"), success: \"perhaps\" is neither true nor false".to_owned(),
        ),
        ("UPDATE audit_logs SET timestamp = NULL".to_owned(), "timestamp: it is missing".to_owned()),
    ] {
        let message = fixture.failed_import(&change).await;
        assert!(message.contains(&expected), "{change}: {message}");
    }
    assert_eq!(fixture.head().await, Head::EMPTY);
}

#[tokio::test]
async fn the_error_names_every_missing_table_and_column() {
    let fixture = Fixture::new().await;
    let change = "ALTER TABLE api_keys DROP COLUMN key_hash; ALTER TABLE agents DROP COLUMN owner;
        DROP TABLE audit_logs";
    let message = fixture.failed_import(change).await;
    for expected in [
        "the table api_keys lacks the column key_hash",
        "agents lacks the column owner",
        "there is no table audit_logs",
    ] {
        assert!(message.contains(expected), "{message}");
    }
    assert!(!message.contains("key_prefix"), "{message}");
}

#[tokio::test]
async fn files_that_are_not_databases_are_rejected_and_unchanged() {
    let fixture = Fixture::new().await;
    let absent = fixture.dir.path().join("absent.db");
    let message = run(&fixture.services, &absent, Labels::default()).await.unwrap_err().to_string();
    assert!(message.starts_with("cannot read the file"), "{message}");
    assert!(!absent.exists());
    for (name, content) in [("text.db", "not a database, but text that is longer than the header"), ("empty.db", "")] {
        let path = fixture.dir.path().join(name);
        fs::write(&path, content).unwrap();
        assert!(run(&fixture.services, &path, Labels::default()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let message = run(&fixture.services, fixture.dir.path(), Labels::default()).await.unwrap_err().to_string();
    assert!(message.starts_with("cannot read"), "{message}");
}

#[tokio::test]
async fn a_database_in_wal_mode_is_read_whether_it_is_open_or_closed() {
    let fixture = Fixture::new().await;
    let path = fixture.file("seed.db", &["PRAGMA journal_mode = WAL", TABLES, &rows()]).await;
    let closed = super::seed::read(&path).await.unwrap();
    assert_eq!(closed.agents.len(), 3);
    let log = fixture.dir.path().join("seed.db-wal");
    assert!(!log.exists(), "reading leaves nothing behind");

    // Another connection has it open, and the newest row is only in the WAL.
    let mut conn = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let add = "INSERT INTO capabilities VALUES ('new', 'new:one', '', '2025-01-01')";
    sqlx::raw_sql(add).execute(&mut conn).await.unwrap();
    let main = fs::read(&path).unwrap();
    assert_eq!(super::seed::read(&path).await.unwrap().capabilities.len(), 3);
    // A copy of both files, as after a crash.
    let copy = fixture.dir.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(&log, fixture.dir.path().join("copy.db-wal")).unwrap();
    assert_eq!(super::seed::read(&copy).await.unwrap().capabilities.len(), 3);
    assert_eq!(fs::read(&copy).unwrap(), main);
    conn.close().await.unwrap();
}

#[tokio::test]
async fn the_imported_administrator_stays_the_only_one() {
    let fixture = Fixture::new().await;
    run(&fixture.services, &fixture.seed().await, Labels::default()).await.unwrap();
    assert!(bootstrap::run(&fixture.services).await.unwrap().is_none());
    assert_eq!(fixture.names().await, ["admin", "sleeper", "worker"]);
}

#[tokio::test]
async fn similar_names_and_blank_owners_are_imported() {
    let fixture = Fixture::new().await;
    let twins = "INSERT INTO agents VALUES
        ('t1', 'Worker', ' ', '\u{3164}', 'active', 'tool', '{}', '2025-01-01 12:00:00', NULL, NULL, NULL),
        ('t2', 'w0rker', '', '', 'active', 'tool', '{\"a\": 1, \"a\": 2}', '2025-01-01 12:00:00', NULL, NULL, NULL)";
    let path = fixture.file("seed.db", &[TABLES, &rows(), twins]).await;
    assert_eq!(run(&fixture.services, &path, Labels::default()).await.unwrap().agents, 5);
    let mut names = fixture.names().await;
    names.sort_unstable();
    assert_eq!(names, ["Worker", "admin", "sleeper", "w0rker", "worker"]);
}

#[tokio::test]
async fn a_long_history_is_imported() {
    let fixture = Fixture::new().await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO audit_logs SELECT 'many-' || i, '2025-01-03 00:00:00', 'worker-7', 'auth.token_issued', 'api_key',
        'key-3', '{}', '10.0.0.1', 1 FROM n";
    let path = fixture.file("seed.db", &[TABLES, &rows(), many]).await;
    assert_eq!(run(&fixture.services, &path, Labels::default()).await.unwrap().audit_records, 20_003);
    fixture.assert_valid_chain().await;
}
