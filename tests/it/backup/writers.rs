//! A backup while others write: every change that was acknowledged before it began is in it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

use super::{path, restore, verified};
use crate::{
    support::{Aims, Client, Database},
    with_timeout,
};

const WRITERS: usize = 16;
/// Changes that are acknowledged before the backup begins.
const BEFORE: usize = 100;

#[tokio::test]
async fn sqlite_to_sqlite() {
    with_timeout(nothing_acknowledged_is_lost(Database::sqlite(), Database::sqlite())).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn sqlite_to_postgres() {
    with_timeout(nothing_acknowledged_is_lost(Database::sqlite(), Database::postgres().await)).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn postgres_to_sqlite() {
    with_timeout(nothing_acknowledged_is_lost(Database::postgres().await, Database::sqlite())).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn postgres_to_postgres() {
    with_timeout(nothing_acknowledged_is_lost(Database::postgres().await, Database::postgres().await)).await;
}

/// The names of agents whose creation was acknowledged.
#[derive(Default)]
struct Acknowledged {
    names: Mutex<HashSet<String>>,
    more: Notify,
}

async fn nothing_acknowledged_is_lost(source: Database, target: Database) {
    let aims = Aims::new(&source);
    let admin_key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&admin_key).await;
    let acknowledged = Arc::new(Acknowledged::default());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(admin.clone(), writer, acknowledged.clone()));
    }
    loop {
        let more = acknowledged.more.notified();
        if acknowledged.names.lock().unwrap().len() >= BEFORE {
            break;
        }
        more.await;
    }
    let before = acknowledged.names.lock().unwrap().clone();
    let file = path(&source, "a.backup");
    let made = aims.run(&["backup", "--to", &file, "--json"]).await.json();
    let after = acknowledged.names.lock().unwrap().clone();
    assert!(after.len() > before.len(), "the writers must go on during the backup");
    writers.shutdown().await;
    // The chain goes on, with the record of the backup.
    verified(&aims).await;
    let records = admin.get("/audit?action=backup.created").await.expect(200);
    assert_eq!(records.as_array().unwrap().len(), 1);
    let details = crate::support::details(&records[0]);
    assert_eq!((&details["sha256"], &details["head_seq"]), (&made["sha256"], &made["head_seq"]));
    process.stop().await;

    let restored = restore(&target, &file, &[]).await.json();
    assert_eq!((&restored["restored"], &restored["head_hash"]), (&json!(true), &made["head_hash"]));
    let there = Aims::new(&target);
    let found = verified(&there).await;
    assert!(found["records"].as_i64() > made["head_seq"].as_i64(), "the restore is recorded");
    let names: HashSet<_> = target.texts("SELECT name FROM agents").await.into_iter().collect();
    let lost: Vec<_> = before.difference(&names).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // Of the changes during the backup, each is there with its record, or not at all.
    let created = "SELECT COUNT(*) FROM audit_log WHERE action = 'agent.created'";
    assert_eq!(usize::try_from(target.count(created).await).unwrap(), names.len());

    let process = there.serve().await;
    process.client().with_token(admin.token()).get("/agents").await.refused(401, "Invalid or expired token");
    let admin = process.client().login(&admin_key).await;
    let name = before.iter().next().unwrap();
    let found = admin.get(&format!("/agents?q={name}&limit=500")).await.expect(200);
    assert!(found.as_array().unwrap().iter().any(|agent| agent["name"] == *name), "the text index finds it");
    admin.post("/agents", json!({ "name": "later", "owner": "tests" })).await.expect(201);
    let record = &admin.get("/audit?action=backup.restored").await.expect(200)[0];
    assert_eq!(crate::support::details(record)["head_hash"], made["head_hash"]);
    process.stop().await;
    verified(&there).await;
}

async fn write(admin: Client, writer: usize, acknowledged: Arc<Acknowledged>) {
    for n in 0.. {
        let name = format!("w{writer}-{n}");
        admin.post("/agents", json!({ "name": name, "owner": "tests" })).await.expect(201);
        acknowledged.names.lock().unwrap().insert(name);
        acknowledged.more.notify_one();
    }
}
