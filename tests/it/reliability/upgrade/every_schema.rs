//! Databases of every earlier schema are upgraded, and nothing in them is lost.

use aims::service::audit;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use super::past::{Past, migrations, versions};
use crate::{
    both,
    support::{Aims, Browser, Client, Database, PASSWORD, open},
};

both!(databases_of_every_earlier_schema_are_upgraded, processes_upgrade_earlier_databases);

/// Tables that must have as many rows after the upgrade as before.
const KEPT: [&str; 12] = [
    "agents",
    "api_keys",
    "capabilities",
    "agent_capabilities",
    "administrators",
    "sessions",
    "api_key_uses",
    "delegations",
    "federated_identities",
    "resources",
    "agent_activity",
    "capability_uses",
];

#[tokio::test]
async fn both_databases_have_the_same_migrations_each_in_a_transaction() {
    let described = |migrator: sqlx::migrate::Migrator| -> Vec<_> {
        assert!(migrator.iter().all(|migration| !migration.no_tx), "a migration must be all or nothing");
        migrator.iter().map(|migration| (migration.version, migration.description.clone())).collect()
    };
    let (sqlite, postgres) = (described(migrations("sqlite").await), described(migrations("postgres").await));
    assert_eq!(sqlite, postgres);
    assert!(sqlite.len() > 20);
}

async fn databases_of_every_earlier_schema_are_upgraded(db: Database) {
    let past = Past::make(db).await;
    for version in versions().await {
        let db = past.at(version).await;
        let before = counts(&db).await;
        let app = open(&db, &past.clock, &[]).await;
        for ((table, before), (_, after)) in before.into_iter().zip(counts(&db).await) {
            assert!(before.is_none() || before == after, "{table} of schema {version}: {before:?}, {after:?}");
        }
        let services = app.services().clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("http://{}", listener.local_addr().unwrap()));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app.serve(listener, async move { drop(stopped.await) }));

        keys_work_as_before(&past, &client, &format!("schema {version}")).await;
        let verified = audit::verify(services.store.db()).await.unwrap();
        assert_eq!(verified.broken, None, "schema {version}");
        drop(services);
        drop(stop);
        served.await.unwrap().unwrap();
    }
}

/// Keys, statuses, names and grants mean what they meant.
async fn keys_work_as_before(past: &Past, client: &Client, of: &str) {
    client.exchange(&past.suspended.raw_key).await.expect(403);
    client.exchange(&past.revoked.raw_key).await.expect(401);
    let worker = client.login(&past.worker.raw_key).await;
    worker.get("/capabilities").await.expect(200);
    worker.post("/agents", json!({ "name": "x", "owner": "o" })).await.expect(403);
    let admin = client.login(&past.admin_key).await;
    let found = admin.get("/agents?q=rest").await.expect(200);
    assert_eq!(names(&found), ["resting"], "{of}");
    for (status, expected) in
        [("active", &["admin", "worker", "delegate"][..]), ("suspended", &["resting"]), ("revoked", &["gone"])]
    {
        let agents = admin.get(&format!("/agents?status={status}")).await.expect(200);
        assert_eq!(names(&agents), expected, "{of}");
    }
    let keys = admin.get(&format!("/agents/{}/keys", past.revoked.id)).await.expect(200);
    assert!(keys.as_array().unwrap().iter().all(|key| key["status"] == "revoked"), "{of}: {keys}");
    admin.post(&format!("/agents/{}/suspend", past.worker.id), json!({})).await.expect(200);
    worker.get("/capabilities").await.expect(401);
    admin.post(&format!("/agents/{}/reactivate", past.worker.id), json!({})).await.expect(200);
}

fn names(agents: &Value) -> Vec<&str> {
    agents.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect()
}

/// The number of rows of each table, if it exists.
async fn counts(db: &Database) -> Vec<(&'static str, Option<i64>)> {
    let tables =
        if db.is_sqlite() { "SELECT name FROM sqlite_master" } else { "SELECT tablename::TEXT FROM pg_tables" };
    let tables = db.texts(tables).await;
    let mut counts = Vec::new();
    for table in KEPT {
        let exists = tables.iter().any(|name| name == table);
        let count = if exists { Some(db.count(&format!("SELECT COUNT(*) FROM {table}")).await) } else { None };
        counts.push((table, count));
    }
    counts
}

async fn processes_upgrade_earlier_databases(db: Database) {
    let past = Past::make(db).await;
    // Before the console, with it, and from the version before.
    for version in [1, 2, 20] {
        let db = past.at(version).await;
        let aims = Aims::new(&db);
        let process = aims.serve().await;
        keys_work_as_before(&past, &process.client(), &format!("schema {version}")).await;
        let browser = Browser::new(process.url.clone());
        let signed_in = browser.post("/console/sign-in", &[("username", "ada"), ("password", PASSWORD)]).await;
        if version == 1 {
            signed_in.expect(401);
        } else {
            signed_in.redirects_to("/console");
            browser.get("/console").await.expect(200).shows("worker");
        }
        let active = db.count("SELECT agents FROM agent_counts WHERE status = 'active'").await;
        assert_eq!(active, db.count("SELECT COUNT(*) FROM agents WHERE status = 'active'").await);
        assert_eq!(db.count("SELECT COUNT(*) FROM api_keys WHERE idle_since = 0").await, 0);
        assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'worker' AND last_used_at = 0").await, 0);
        if version > 3 {
            assert_eq!(db.count("SELECT COUNT(*) FROM resources WHERE normal_form IS NULL").await, 0);
            assert_eq!(db.count("SELECT COUNT(*) FROM federated_identities WHERE subject IS NULL").await, 0);
        }
        let log = process.log();
        assert_eq!(
            log.matches("migrated the database").count(),
            versions().await.iter().filter(|later| **later > version).count(),
            "{log}"
        );
        assert_eq!(process.stop().await.code, Some(0));
        let verified = aims.run(&["audit", "verify", "--json"]).await.json();
        assert_eq!(verified["valid"], true, "{verified}");
    }
}
