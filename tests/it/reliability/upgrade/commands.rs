//! What commands say of a database that is not ready for them.

use std::fs;

use super::BEFORE_THE_INDEX;
use crate::{
    both,
    support::{Aims, Database, Exit},
};

both!(
    migrate_applies_what_is_pending,
    commands_do_not_migrate,
    empty_databases_are_reported,
    newer_databases_are_reported,
    databases_of_other_applications_are_reported,
    changed_migrations_are_reported,
);

/// Commands that read or change a database, and do not migrate it.
const COMMANDS: [&[&str]; 9] = [
    &["audit", "verify"],
    &["audit", "verify", "--json"],
    &["audit", "archive", "--before", "2020-01-01", "--to", "archive"],
    &["admin", "list"],
    &["admin", "create", "bob", "--role", "owner"],
    &["setup-token"],
    &["signing-keys", "list"],
    &["signing-keys", "rotate"],
    &["migrate", "--check"],
];

/// Commands that migrate.
const MIGRATING: [&[&str]; 4] = [&[], &["bootstrap"], &["bootstrap", "--new-key"], &["migrate"]];

/// Asserts that each command fails with the reason, and shows no error of the database itself.
async fn each_fails(aims: &Aims, commands: &[&[&str]], why: &str) {
    for command in commands {
        let exit = aims.run(command).await;
        exit.fails_with(why);
        for raw in ["error returned from database", "no such table", "does not exist", "sqlx", "relation"] {
            assert!(!exit.stderr.contains(raw), "{command:?}: {exit:?}");
        }
    }
}

async fn migrate_applies_what_is_pending(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let check = aims.run(&["migrate", "--check"]).await;
    assert_eq!((check.code, check.stderr.as_str()), (Some(0), ""), "{check:?}");
    assert!(check.stdout.starts_with("0001  foundation"), "{check:?}");
    assert!(!check.stdout.contains("pending"), "{check:?}");
    let up_to_date = aims.run(&["migrate"]).await;
    assert!(up_to_date.stdout.starts_with("The database is up to date: schema "), "{up_to_date:?}");

    db.execute(BEFORE_THE_INDEX).await;
    let check = aims.run(&["migrate", "--check"]).await;
    check.fails_with("run: aims migrate");
    let pending: Vec<_> = check.stdout.lines().filter(|line| line.ends_with("  pending")).collect();
    assert!(pending.len() == 1 && pending[0].starts_with("0021  delegations in order"), "{check:?}");
    let check = aims.run(&["migrate", "--check", "--json"]).await;
    assert_eq!(check.code, Some(1));
    let described: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!(described["pending"], serde_json::json!([21]));
    assert_eq!(
        db.count("SELECT COUNT(*) FROM _sqlx_migrations WHERE version = 21").await,
        0,
        "--check must not migrate"
    );

    let migrated = aims.run(&["migrate"]).await;
    assert!(migrated.code == Some(0) && migrated.stdout.ends_with("1 migration was applied\n"), "{migrated:?}");
    let line = migrated.stderr.lines().find(|line| line.contains("migrated the database")).expect("a line in the log");
    for part in ["version=21", "delegations in order", "duration_ms="] {
        assert!(line.contains(part), "{line}");
    }
    let json = aims.run(&["migrate", "--json"]).await.json();
    assert_eq!(json["schema"], json["before"]);
    let process = aims.serve().await;
    process.client().login(&key).await.get("/agents").await.expect(200);
    if db.is_sqlite() {
        aims.run(&["migrate"]).await.fails_with("is in use by another AIMS process");
    }
    assert_eq!(aims.run(&["migrate", "--check"]).await.code, Some(0), "it works beside the service");
    process.stop().await;
}

async fn commands_do_not_migrate(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    db.execute(BEFORE_THE_INDEX).await;
    each_fails(&aims, &COMMANDS, "run: aims migrate").await;
    assert_eq!(db.count("SELECT COUNT(*) FROM _sqlx_migrations WHERE version = 21").await, 0);
    let exit: Exit = aims.run(&["audit", "verify"]).await;
    assert!(exit.stderr.starts_with("aims: the database has schema 2"), "{exit:?}");
    aims.run(&["migrate"]).await;
    assert_eq!(aims.run(&["audit", "verify"]).await.code, Some(0));
}

async fn empty_databases_are_reported(db: Database) {
    let aims = Aims::new(&db);
    if db.is_sqlite() {
        fs::write(db.sqlite_file(), "").unwrap();
    }
    let (check, others) = COMMANDS.split_last().unwrap();
    each_fails(&aims, others, "is empty; check DATABASE_URL, or create the schema with: aims migrate").await;
    each_fails(&aims, &[check], "the database has schema 0").await;
    if db.is_sqlite() {
        assert_eq!(fs::read(db.sqlite_file()).unwrap(), b"", "nothing must be written");
    }
    let migrated = aims.run(&["migrate"]).await;
    assert!(migrated.code == Some(0) && migrated.stdout.contains("(before: 0)"), "{migrated:?}");
    assert!(aims.run(&["audit", "verify"]).await.stdout.contains("is valid: 0 records"));
    assert!(aims.bootstrap().await.starts_with("aims_"));
}

async fn newer_databases_are_reported(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let running = aims.serve().await;
    let known = db.count("SELECT MAX(version) FROM _sqlx_migrations").await;
    let checksum = if db.is_sqlite() { "x'00'" } else { "'\\x00'" };
    db.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'from the future', CURRENT_TIMESTAMP, TRUE, {checksum}, 0)"
    ))
    .await;
    let why = format!("the database has schema 9999, this version of AIMS knows up to {known}; use the newer version");
    each_fails(&aims, &COMMANDS, &why).await;
    each_fails(&aims, &MIGRATING, &why).await;
    // A node that runs already keeps serving.
    running.client().login(&key).await.get("/agents").await.expect(200);
    assert_eq!(running.stop().await.code, Some(0));
}

async fn databases_of_other_applications_are_reported(db: Database) {
    let aims = Aims::new(&db);
    if db.is_sqlite() {
        sqlx_file(&db).await;
    }
    db.execute("CREATE TABLE shop (id INTEGER)").await;
    // On PostgreSQL, AIMS may share a database, so `migrate` would set it up.
    let refused = if db.is_sqlite() { &COMMANDS[..] } else { COMMANDS.split_last().unwrap().1 };
    each_fails(&aims, refused, "is not a database of AIMS").await;
    if db.is_sqlite() {
        each_fails(&aims, &MIGRATING, "is not a database of AIMS").await;
    }
    // Another application may use the same library for its migrations.
    db.execute(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
         execution_time BIGINT NOT NULL)",
    )
    .await;
    let checksum = if db.is_sqlite() { "x'00'" } else { "'\\x00'" };
    db.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (20240101120000, 'shop', TRUE, {checksum}, 0)"
    ))
    .await;
    each_fails(&aims, &COMMANDS, "is not a database of AIMS").await;
    each_fails(&aims, &MIGRATING, "is not a database of AIMS").await;
    if db.is_sqlite() {
        fs::write(db.sqlite_file(), "These are notes. ".repeat(100)).unwrap();
        each_fails(&aims, &COMMANDS, "is not a database of AIMS").await;
        each_fails(&aims, &MIGRATING, "is not a database of AIMS").await;
        assert!(fs::read_to_string(db.sqlite_file()).unwrap().starts_with("These are notes."));
    }
}

/// Creates the file.
async fn sqlx_file(db: &Database) {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.sqlite_file()).create_if_missing(true);
    sqlx::SqliteConnection::connect_with(&options).await.unwrap().close().await.unwrap();
}

async fn changed_migrations_are_reported(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let checksum = if db.is_sqlite() { "x'00'" } else { "'\\x00'" };
    db.execute(&format!("UPDATE _sqlx_migrations SET checksum = {checksum} WHERE version = 4")).await;
    let why = "migration 4 of the database is not the one of this version of AIMS";
    each_fails(&aims, &COMMANDS, why).await;
    each_fails(&aims, &MIGRATING, why).await;
}
