//! A full disk, a process that is killed, and output that nobody reads.

use std::fs;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, sleep, timeout},
};

use super::{back_up, path, restore, verified};
use crate::{
    both,
    support::{Aims, Database},
};

both!(a_full_disk_leaves_no_backup_behind);

/// KiB that a file may have on the full disk.
const DISK: u64 = 96;

/// Bytes that cannot be compressed to less than [`DISK`].
async fn fill(aims: &Aims, key: &str) {
    let process = aims.serve().await;
    let admin = process.client().login(key).await;
    for n in 0..8 {
        let noise: String =
            (0..64).map(|_| uuid::Uuid::from_bytes(rand()).simple().to_string()).collect::<Vec<_>>().concat();
        for part in 0..16 {
            let body = json!({ "name": format!("a{n}-{part}"), "owner": "tests", "metadata_json": json!({ "noise": noise, "n": n }).to_string() });
            admin.post("/agents", body).await.expect(201);
        }
    }
    process.stop().await;
}

fn rand() -> [u8; 16] {
    use aims::clock::{Rng, SystemRng};
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes);
    bytes
}

async fn a_full_disk_leaves_no_backup_behind(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    fill(&aims, &key).await;
    let names = || {
        let entries = fs::read_dir(db.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| !name.to_string_lossy().starts_with("aims.db")).count()
    };
    let before = names();
    // The service has the database open, so the command need not enlarge any other file.
    let process = aims.serve().await;
    aims.with_max_file_size(8)
        .run(&["backup", "--to", &path(&db, "a.backup")])
        .await
        .fails_with("cannot write the backup to");
    assert_eq!(names(), before, "no part of a file may be left");
    aims.run_with_output_to("/dev/full", &["backup", "--to", "-"])
        .await
        .fails_with("cannot write the backup to standard output");
    process.stop().await;

    let file = back_up(&aims, &db, "b.backup").await;
    if db.is_sqlite() {
        let target = Database::sqlite();
        Aims::new(&target)
            .with_max_file_size(DISK)
            .run(&["restore", &file])
            .await
            .fails_with("cannot restore the backup");
        assert!(!target.sqlite_file().exists(), "nothing may be restored");
        Aims::new(&db)
            .with_max_file_size(DISK)
            .run(&["restore", &file, "--replace"])
            .await
            .fails_with("cannot restore");
        verified(&aims).await;
    }
}

#[tokio::test]
async fn a_backup_goes_through_a_pipe() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let mut child = aims.spawn(&["backup", "--to", "-"]);
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    fs::write(path(&db, "piped.backup"), bytes).unwrap();
    let valid = aims.run(&["backup", "verify", &path(&db, "piped.backup"), "--json"]).await.json();
    assert_eq!(valid["valid"], true);
    // Nobody reads.
    let mut child = aims.spawn(&["backup", "--to", "-"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}

/// The process waits for the rest of the backup, which comes through a pipe, when it is killed.
#[tokio::test]
async fn a_restore_that_is_killed_changes_nothing_on_sqlite() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    let later = aims.serve().await;
    let admin = later.client().login(&key).await;
    admin.post("/agents", json!({ "name": "later", "owner": "tests" })).await.expect(201);
    later.stop().await;
    let before = fs::read(db.sqlite_file()).unwrap();

    let pipe = path(&db, "pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = aims.spawn(&["restore", &pipe, "--replace"]);
    let bytes = fs::read(&file).unwrap();
    let mut half = tokio::fs::OpenOptions::new().write(true).open(&pipe).await.unwrap();
    half.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
    half.flush().await.unwrap();
    let scratch = db.folder.path().join("aims.db.restoring");
    until(async || fs::metadata(&scratch).is_ok_and(|found| found.len() > 0)).await;
    child.kill().await.unwrap();
    drop(half);
    assert_eq!(fs::read(db.sqlite_file()).unwrap(), before);
    verified(&aims).await;

    // The next try works, and leaves nothing else behind.
    restore(&db, &file, &["--replace"]).await.json();
    assert!(!scratch.exists());
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'later'").await, 0);
    verified(&aims).await;
}

/// The process waits for a lock, in the transaction that replaces the tables, when it is killed.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn a_restore_that_is_killed_changes_nothing_on_postgres() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    let later = aims.serve().await;
    let admin = later.client().login(&key).await;
    admin.post("/agents", json!({ "name": "later", "owner": "tests" })).await.expect(201);
    later.stop().await;

    let mut other = PgConnection::connect(&db.url).await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("LOCK TABLE audit_head IN ACCESS SHARE MODE").await.unwrap();
    // What a killed process leaves there is deleted with the folder.
    let in_own_folder = aims.with("TMPDIR", db.folder.path().to_str().unwrap());
    let mut child = in_own_folder.spawn(&["restore", &file, "--replace"]);
    let waiting =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(async || db.count(waiting).await > 0).await;
    child.kill().await.unwrap();
    other.close().await.unwrap();
    until(async || db.count("SELECT COUNT(*) FROM agents WHERE name = 'later'").await == 1).await;
    verified(&aims).await;

    restore(&db, &file, &["--replace"]).await.json();
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'later'").await, 0);
    verified(&aims).await;
}

/// Waits until a condition holds.
async fn until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), waiting).await.expect("the condition must hold");
}
