//! One-time tasks of the operator: importing the predecessor's data and recovering access.

use std::fs;

use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection, raw_sql};

use crate::{
    both,
    support::{Aims, Database, details},
};

both!(
    imported_keys_still_work,
    operator_can_replace_a_lost_key,
    second_bootstrap_changes_nothing,
    signing_keys_can_be_rotated_while_the_service_runs,
);

/// Creates a database of the predecessor with its administrator and one key.
async fn predecessor(path: &std::path::Path, raw_key: &str) {
    let hash = aims::domain::audit::hex(&Sha256::digest(raw_key).into());
    let sql = format!(
        "CREATE TABLE agents (id TEXT, name TEXT, description TEXT, owner TEXT, status TEXT, agent_type TEXT,
             metadata_json TEXT, created_at TEXT, updated_at TEXT, suspended_at TEXT, revoked_at TEXT);
         CREATE TABLE api_keys (id TEXT, agent_id TEXT, key_prefix TEXT, key_hash TEXT, name TEXT, status TEXT,
             expires_at TEXT, created_at TEXT, rotated_at TEXT, revoked_at TEXT, last_used_at TEXT);
         CREATE TABLE capabilities (id TEXT, name TEXT, description TEXT, created_at TEXT);
         CREATE TABLE agent_capabilities (id TEXT, agent_id TEXT, capability_id TEXT, granted_by TEXT,
             granted_at TEXT);
         CREATE TABLE audit_logs (id TEXT, timestamp TEXT, agent_id TEXT, action TEXT, resource_type TEXT,
             resource_id TEXT, details_json TEXT, ip_address TEXT, success INTEGER);
         INSERT INTO agents VALUES ('a1', 'admin', '', 'system', 'active', 'orchestrator', '{{}}',
             '2025-01-01T00:00:00', '2025-01-01T00:00:00', NULL, NULL);
         INSERT INTO api_keys VALUES ('k1', 'a1', 'aims_012', '{hash}', 'admin-bootstrap', 'active', NULL,
             '2025-01-01T00:00:00', NULL, NULL, NULL);
         INSERT INTO capabilities VALUES ('c1', 'admin:*', '', '2025-01-01T00:00:00');
         INSERT INTO agent_capabilities VALUES ('g1', 'a1', 'c1', NULL, '2025-01-01T00:00:00');
         INSERT INTO audit_logs VALUES ('l1', '2025-01-01T00:00:00', 'a1', 'agent.created', 'agent', 'a1', '{{}}',
             '127.0.0.1', 1);"
    );
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    connection.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

async fn imported_keys_still_work(db: Database) {
    let raw_key = format!("aims_{}", "0123456789abcdef".repeat(4));
    let file = db.folder.path().join("predecessor.db");
    predecessor(&file, &raw_key).await;
    let before = fs::read(&file).unwrap();
    let aims = Aims::new(&db);
    aims.run(&["import-seed", file.to_str().unwrap(), "--label", "Source"]).await.fails_with("key=value");
    let labels = ["--label", "source=seed", "--label", "env=a b"];
    let imported = aims.run(&[&["import-seed", file.to_str().unwrap()], labels.as_slice()].concat()).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert!(imported.stdout.starts_with("agents: 1, API keys: 1, capabilities: 1 new"), "{imported:?}");
    assert_eq!(fs::read(&file).unwrap(), before, "the file must not change");
    aims.run(&["import-seed", file.to_str().unwrap()]).await.fails_with("was already imported");

    let process = aims.serve().await;
    let admin = process.client().login(&raw_key).await;
    let agents = admin.get("/agents").await.expect(200);
    assert_eq!((agents.as_array().unwrap().len(), &agents[0]["name"]), (1, &json!("admin")));
    assert_eq!(agents[0]["labels"], json!({ "source": "seed", "env": "a b" }));
    let found = admin.get("/agents?selector=source%3Dseed").await.expect(200);
    assert_eq!(found[0]["name"], "admin");
    let record = &admin.get("/audit?action=seed.imported").await.expect(200)[0];
    assert_eq!(details(record)["labels"], json!({ "source": "seed", "env": "a b" }));
    let oldest = admin.get("/audit?action=agent.created").await.expect(200);
    assert_eq!(oldest[0]["timestamp"], "2025-01-01T00:00:00.000000Z");
    process.stop().await;
    assert_eq!(aims.run(&["audit", "verify"]).await.code, Some(0));
}

#[tokio::test]
async fn predecessors_database_is_not_served_or_changed() {
    let db = Database::sqlite();
    predecessor(&db.sqlite_file(), &format!("aims_{}", "0".repeat(64))).await;
    let before = fs::read(db.sqlite_file()).unwrap();
    Aims::new(&db).run(&["serve"]).await.fails_with("aims import-seed");
    assert_eq!(fs::read(db.sqlite_file()).unwrap(), before);
}

async fn operator_can_replace_a_lost_key(db: Database) {
    let aims = Aims::new(&db);
    let error = if db.is_sqlite() { "cannot find the database" } else { "admin:*" };
    aims.run(&["bootstrap", "--new-key"]).await.fails_with(error);
    let lost = aims.bootstrap().await;
    let created = aims.run(&["bootstrap", "--new-key", "--json"]).await.json();
    let found = created["api_key"].as_str().unwrap();
    assert_ne!(found, lost);
    let process = aims.serve().await;
    let admin = process.client().login(found).await;
    let record = &admin.get("/audit?action=key.created&limit=1").await.expect(200)[0];
    assert!(record["details_json"].as_str().unwrap().contains("admin-recovery"), "{record}");
    process.stop().await;
}

async fn second_bootstrap_changes_nothing(db: Database) {
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    let second = aims.run(&["bootstrap", "--json"]).await;
    assert_eq!((second.code, &second.json()["created"]), (Some(0), &json!(false)), "{second:?}");
    process.stop().await;
}

async fn signing_keys_can_be_rotated_while_the_service_runs(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let server = aims.serve().await;
    let list = async || aims.run(&["signing-keys", "list", "--json"]).await.json();
    let states = |keys: &serde_json::Value| -> Vec<_> {
        let mut states: Vec<_> =
            keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect();
        states.sort();
        states
    };
    let before = list().await;
    assert_eq!(states(&before), ["next", "signs"]);
    assert!(!before.to_string().contains("private"));
    aims.run(&["signing-keys", "rotate"]).await.fails_with("Verifiers may not know the next key yet");
    aims.run(&["signing-keys", "rotate", "--now"]).await;
    let after = list().await;
    assert_eq!(states(&after), ["next", "signs"]);
    for gone in before.as_array().unwrap() {
        assert!(!after.to_string().contains(gone["kid"].as_str().unwrap()));
    }
    let signs = after.as_array().unwrap().iter().find(|key| key["state"] == "signs").unwrap();
    let text = aims.run(&["signing-keys", "list"]).await.stdout;
    assert!(text.contains(&format!("signs    since {}", signs["activated_at"].as_str().unwrap())), "{text}");
    // The service still responds, and loads the new keys on its next start at the latest.
    server.client().get("/.well-known/jwks.json").await.expect(200);
    server.stop().await;
    let server = aims.serve().await;
    let published = server.client().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(published["keys"][0]["kid"], signs["kid"]);
    server.stop().await;
}
