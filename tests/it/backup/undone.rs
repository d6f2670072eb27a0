//! What a restore takes back.

use aims::{
    clock::Environment,
    service::backup::{
        Decryption, Source,
        restore::{self as restoring, Options, Prepared, Secrets},
    },
    store::Location,
};
use serde_json::{Value, json};

use super::{back_up, path, restore, verified};
use crate::{
    both,
    support::{Aims, Database},
};

both!(
    a_restore_names_what_it_undoes,
    an_unrelated_database_says_nothing_about_revocations,
    changes_since_a_restore_began_are_not_lost,
);

async fn a_restore_names_what_it_undoes(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let agent = async |name: &str| {
        let agent = admin.post("/agents", json!({ "name": name, "owner": "tests" })).await.expect(201);
        agent["id"].as_str().unwrap().to_owned()
    };
    let (suspended, deleted, revoked) = (agent("suspended").await, agent("deleted").await, agent("revoked").await);
    let leaked = admin.post(&format!("/agents/{suspended}/keys"), json!({})).await.expect(201);
    let capabilities = admin.get("/capabilities").await.expect(200);
    let capability = capabilities[0]["id"].as_str().unwrap();
    let grant = json!({ "capability_id": capability });
    admin.post(&format!("/agents/{suspended}/capabilities"), grant).await.expect(201);
    let file = back_up(&aims, &db, "a.backup").await;

    agent("new").await;
    admin.delete(&format!("/agents/{suspended}/keys/{}", leaked["id"].as_str().unwrap())).await.expect(204);
    admin.delete(&format!("/agents/{suspended}/capabilities/{capability}")).await.expect(204);
    admin.post(&format!("/agents/{suspended}/suspend"), json!({ "reason": "odd calls" })).await.expect(200);
    admin.post(&format!("/agents/{revoked}/revoke"), json!({})).await.expect(200);
    admin.delete(&format!("/agents/{deleted}")).await.expect(204);
    process.stop().await;
    aims.run(&["admin", "create", "zoe", "--role", "owner"]).await;

    let expected = [
        ("key.revoked", &suspended),
        ("capability.revoked", &suspended),
        ("agent.suspended", &suspended),
        ("agent.revoked", &revoked),
        ("agent.deleted", &deleted),
    ];
    let check = |undone: &Value| {
        let undone = undone.as_array().unwrap();
        let found: Vec<_> = undone.iter().map(|undone| undone["event"].as_str().unwrap()).collect();
        let events: Vec<_> = expected.iter().map(|(event, _)| *event).chain(["administrator.created"]).collect();
        assert_eq!(found, events);
        for ((_, agent), undone) in expected.iter().zip(undone) {
            assert_eq!(undone["agent"], **agent, "{undone}");
            assert!(undone["at"].as_str().unwrap().ends_with('Z'));
        }
        assert_eq!(undone[2]["details"]["reason"], "odd calls");
    };
    let shown = aims.run(&["restore", &file, "--replace", "--dry-run"]).await;
    assert!(shown.stdout.contains("would undo what happened after the backup"), "{shown:?}");
    assert!(shown.stdout.contains("agent.suspended") && shown.stdout.contains(&suspended), "{shown:?}");
    check(&restore(&db, &file, &["--replace", "--dry-run"]).await.json()["undone"]);
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'new'").await, 1, "nothing was changed");
    let before = verified(&aims).await;
    let restored = restore(&db, &file, &["--replace"]).await.json();
    check(&restored["undone"]);

    // It is all as it was.
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'new'").await, 0);
    let process = aims.serve().await;
    process.client().login(leaked["raw_key"].as_str().unwrap()).await;
    let admin = process.client().login(&key).await;
    admin.get(&format!("/agents/{deleted}")).await.expect(200);
    let record = &admin.get("/audit?action=backup.restored").await.expect(200)[0];
    let details = crate::support::details(record);
    assert_eq!((&details["replaced_hash"], &details["tokens_ended"]), (&before["head_hash"], &json!(true)));
    process.stop().await;
    verified(&aims).await;
}

async fn an_unrelated_database_says_nothing_about_revocations(db: Database) {
    let other = Database::sqlite();
    Aims::new(&other).bootstrap().await;
    let file = back_up(&Aims::new(&other), &other, "a.backup").await;
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let restored = restore(&db, &file, &["--replace"]).await.json();
    assert_eq!(restored["undone"], Value::Null);
    assert!(restored["undone_unknown"].as_str().unwrap().contains("does not continue the audit log"), "{restored}");
    // Nor does an empty one.
    let target = Database::sqlite();
    let exit = Aims::new(&target).run(&["restore", &path(&other, "a.backup")]).await;
    assert!(exit.stdout.contains("AIMS cannot tell what that is"), "{exit:?}");
}

/// Does the first part of a restore, which may take minutes.
async fn prepared(db: &Database, file: &str) -> Prepared {
    let source = Source::open(file.as_ref(), &Decryption::None).unwrap();
    let location =
        if db.is_sqlite() { Location::Sqlite(db.sqlite_file()) } else { Location::Postgres(db.url.clone().into()) };
    let options = Options { replace: true, secrets: Secrets::NoTokens };
    restoring::prepare(source, &location, options, None, db.folder.path(), &Environment::system()).await.unwrap()
}

/// Commands that work beside a service are not stopped by a restore.
async fn changes_since_a_restore_began_are_not_lost(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    let begun = prepared(&db, &file).await;
    assert_eq!(aims.run(&["admin", "create", "zoe", "--role", "owner"]).await.code, Some(0));
    let refused = begun.put().await.unwrap_err().to_string();
    assert!(refused.contains("the database has changed since the restore began"), "{refused}");
    assert_eq!(db.count("SELECT COUNT(*) FROM administrators").await, 1);
    verified(&aims).await;
    prepared(&db, &file).await.put().await.unwrap();
    assert_eq!(db.count("SELECT COUNT(*) FROM administrators").await, 0);
    // Nor are those of a database that does not continue the backup.
    let other = Database::sqlite();
    Aims::new(&other).bootstrap().await;
    let file = back_up(&Aims::new(&other), &other, "a.backup").await;
    let begun = prepared(&db, &file).await;
    assert_eq!(aims.run(&["admin", "create", "zoe", "--role", "owner"]).await.code, Some(0));
    let refused = begun.put().await.unwrap_err().to_string();
    assert!(refused.contains("the database has changed since the restore began"), "{refused}");
    assert_eq!(db.count("SELECT COUNT(*) FROM administrators").await, 1);
}

/// A node starts where there was nothing, or nobody, before.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_that_started_since_a_restore_began_are_not_replaced() {
    let source = Database::sqlite();
    Aims::new(&source).bootstrap().await;
    let file = back_up(&Aims::new(&source), &source, "a.backup").await;
    let db = Database::postgres().await;
    let begun = prepared(&db, &file).await;
    Aims::new(&db).bootstrap().await;
    let refused = begun.put().await.unwrap_err().to_string();
    assert!(refused.contains("the database has changed since the restore began"), "{refused}");

    let begun = prepared(&db, &file).await;
    let process = Aims::new(&db).serve().await;
    let refused = begun.put().await.unwrap_err().to_string();
    assert!(refused.contains("stop every node"), "{refused}");
    process.stop().await;
    verified(&Aims::new(&db)).await;
}
