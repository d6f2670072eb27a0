//! The SQLite files while the service runs: outside readers, aliases of the path, deleted files and a full disk.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Aims, Client, Database, Exit, Process};

const ROUNDS: usize = 30;

/// Any reader, such as `sqlite3 aims.db ".backup …"`, deletes the WAL when it closes the database and sees no other
/// process's lock. The service must hold that lock however it was started. Otherwise it continues to write to a deleted
/// file.
#[tokio::test]
async fn outside_readers_cause_no_loss() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let admin_key = aims.bootstrap().await;
    let mut revoked: Option<String> = None;
    for round in 0..ROUNDS {
        let process = aims.serve().await;
        if let Some(key) = revoked {
            let response = process.client().exchange(&key).await;
            assert_ne!(response.status, 200, "round {}: a revoked key must stay revoked", round - 1);
        }
        let admin = process.client().login(&admin_key).await;
        let (agent, key) = agent_with_key(&admin, &format!("round-{round}")).await;
        let wal = identity(&wal_of(&db)).unwrap();

        assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, i64::try_from(round).unwrap() + 2);
        assert!(is_locked_by(&process, &db.sqlite_file()), "round {round}: the service must hold a lock");
        assert_eq!(identity(&wal_of(&db)).ok(), Some(wal), "round {round}: the WAL must not be deleted");

        admin.post(&format!("/agents/{agent}/revoke"), json!({})).await.expect(200);
        process.kill().await;
        revoked = Some(key);
    }
}

#[tokio::test]
async fn database_is_locked_under_every_name() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    let elsewhere = TempDir::new().unwrap();
    symlink(db.sqlite_file(), elsewhere.path().join("link.db")).unwrap();
    symlink(elsewhere.path().join("link.db"), db.folder.path().join("link-to-link.db")).unwrap();
    symlink(db.folder.path(), elsewhere.path().join("folder")).unwrap();
    let name = db.folder.path().file_name().unwrap().to_str().unwrap();
    for other in [
        "./aims.db".to_owned(),
        format!("../{name}/aims.db"),
        format!("/{}", elsewhere.path().join("link.db").display()),
        "./link-to-link.db".to_owned(),
        format!("/{}", elsewhere.path().join("folder/aims.db").display()),
    ] {
        let second = aims.with("DATABASE_URL", &format!("sqlite:///{other}")).run(&[]).await;
        second.fails_with("is in use by another AIMS process");
    }

    // SQLite would write to a different WAL for each name, so one process would not see the changes of the other.
    fs::hard_link(db.sqlite_file(), elsewhere.path().join("hard.db")).unwrap();
    let hard = format!("sqlite:///{}", elsewhere.path().join("hard.db").display());
    for url in [&hard, &db.url] {
        aims.with("DATABASE_URL", url).run(&[]).await.fails_with("has another name (a hard link)");
    }
    process.client().get("/_health").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn database_mounted_without_its_directory_is_rejected() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    let elsewhere = TempDir::new().unwrap();
    let (file, folder) = (elsewhere.path().join("aims.db"), elsewhere.path().join("folder"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&folder).unwrap();
    let bind = |from: &Path, to: &Path| format!("mount --bind {} {}", from.display(), to.display());

    let Some(alone) = aims.with_mount(&bind(&db.sqlite_file(), &file)).await else {
        eprintln!("left out: the kernel does not let this test mount a file");
        return;
    };
    let url = format!("sqlite:///{}", file.display());
    alone.with("DATABASE_URL", &url).run(&[]).await.fails_with("is mounted without its folder");

    let with_folder = aims.with_mount(&bind(db.folder.path(), &folder)).await.expect("mounting worked above");
    let url = format!("sqlite:///{}", folder.join("aims.db").display());
    with_folder.with("DATABASE_URL", &url).run(&[]).await.fails_with("is in use by another AIMS process");
    process.stop().await;
}

#[tokio::test]
async fn changes_are_not_acknowledged_after_files_are_removed() {
    for (file, other) in
        [("aims.db-wal", None), ("aims.db", None), ("aims.db", Some("copy.db")), ("aims.db.lock", None)]
    {
        let db = Database::sqlite();
        let aims = Aims::new(&db);
        let admin_key = aims.bootstrap().await;
        let process = aims.serve().await;
        let admin = process.client().login(&admin_key).await;
        let path = db.folder.path().join(file);
        match other {
            None => fs::remove_file(&path).unwrap(),
            Some(copy) => {
                db.execute(&format!("VACUUM INTO '{}'", db.folder.path().join(copy).display())).await;
                fs::rename(db.folder.path().join(copy), &path).unwrap();
            }
        }
        // Alternatively, the service may have ended already, which does not acknowledge the change either.
        let request =
            admin.request(reqwest::Method::POST, "/agents").json(&json!({ "name": "late", "owner": "tests" }));
        if let Ok(response) = request.send().await {
            assert_eq!(response.status(), 503, "{file}");
        }
        let exit = process.wait().await;
        exit.fails_with("was deleted, moved or replaced while AIMS was using it");
        exit.fails_with(file);
    }
}

#[tokio::test]
async fn idle_service_ends_after_files_are_removed() {
    let db = Database::sqlite();
    let process = Aims::new(&db).serve().await;
    fs::remove_file(db.sqlite_file()).unwrap();
    process.wait().await.fails_with("was deleted, moved or replaced");
}

#[tokio::test]
async fn database_file_is_private_whatever_its_name() {
    let db = Database::sqlite();
    for name in ["aims.db", "file:a&mode=ro%41.db", "spaces and ü.db"] {
        // A DATABASE_URL contains the path verbatim.
        let file = db.folder.path().join(name);
        let aims = Aims::new(&db).with("DATABASE_URL", &format!("sqlite:///{}", file.display()));
        let process = aims.serve().await;
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let mode = fs::metadata(format!("{}{suffix}", file.display())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}{suffix}");
        }
        assert_eq!(process.stop().await.code, Some(0));
        aims.run(&["audit", "verify"]).await;
    }
}

/// A dangling symbolic link: the first start creates the database at its target.
#[tokio::test]
async fn database_is_created_at_the_target_of_a_link() {
    let db = Database::sqlite();
    fs::create_dir(db.folder.path().join("data")).unwrap();
    symlink("data/real.db", db.sqlite_file()).unwrap();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let process = aims.serve().await;
    assert!(db.folder.path().join("data/real.db-wal").exists());
    process.stop().await;
}

#[tokio::test]
async fn commands_reject_the_database_as_another_file() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = db.sqlite_file();
    aims.run(&["import-seed", file.to_str().unwrap()]).await.fails_with("is the database of this service");
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", file.display());
        let as_key = aims.with("MASTER_KEY", "").with("MASTER_KEY_FILE", &file);
        as_key.run(&["bootstrap", "--new-key"]).await.fails_with("does not hold 64 hexadecimal digits");
    }
}

#[tokio::test]
async fn full_disk_loses_no_acknowledged_change() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.with_max_file_size(1_024).serve().await;
    let admin = process.client().login(&key).await;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    // Large descriptions fill the disk quickly.
    for n in 0..2_000 {
        let name = format!("full-{n}");
        let body = json!({ "name": name, "owner": "o", "description": "x".repeat(9_000) });
        let response = admin.post("/agents", body).await;
        match response.status.as_u16() {
            201 => acknowledged.push(name),
            503 => {
                assert!(response.header("retry-after").is_some(), "{response:?}");
                refused += 1;
            }
            _ => panic!("{response:?}"),
        }
        if refused == 20 {
            break;
        }
    }
    assert!(!acknowledged.is_empty() && refused == 20, "{} and {refused}", acknowledged.len());
    assert_full_disk_is_handled(&admin, &key).await;
    let stopped = process.stop().await;
    assert_eq!(stopped.code, Some(0), "{}", tail(&stopped));
    assert!(!stopped.stderr.contains("panicked"), "{}", tail(&stopped));

    let verified = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(verified["valid"], true, "{verified}");
    let process = aims.serve().await;
    let stored = db.texts("SELECT name FROM agents WHERE name LIKE 'full-%' ORDER BY created_at").await;
    let lost: Vec<_> = acknowledged.iter().filter(|name| !stored.contains(name)).collect();
    assert_eq!(lost, Vec::<&String>::new());
    let admin = process.client().login(&key).await;
    admin.post("/agents", json!({ "name": "there-is-room", "owner": "o" })).await.expect(201);
    process.stop().await;
    aims.run(&["audit", "verify", "--json"]).await.json();
}

/// Creates an agent with a key; returns its identifier and the key.
async fn agent_with_key(admin: &Client, name: &str) -> (String, String) {
    let agent = admin.post("/agents", json!({ "name": name, "owner": "tests" })).await.expect(201);
    let agent = agent["id"].as_str().unwrap().to_owned();
    let key = admin.post(&format!("/agents/{agent}/keys"), json!({})).await.expect(201);
    (agent, key["raw_key"].as_str().unwrap().to_owned())
}

fn wal_of(db: &Database) -> PathBuf {
    db.folder.path().join("aims.db-wal")
}

/// Returns device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Returns true if the kernel lists a lock of the process on the file.
fn is_locked_by(process: &Process, file: &Path) -> bool {
    let (pid, inode) = (process.id().to_string(), format!(":{}", identity(file).unwrap().1));
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| {
        let fields: Vec<_> = lock.split_whitespace().collect();
        fields.iter().any(|field| *field == pid) && fields.iter().any(|field| field.ends_with(&inode))
    })
}

/// While the disk is full, reads succeed and writes return 503.
async fn assert_full_disk_is_handled(admin: &Client, key: &str) {
    admin.get("/_health").await.expect(200);
    admin.get("/agents?limit=1").await.expect(200);
    let body = json!({ "name": "too-large", "owner": "o", "description": "x".repeat(9_000) });
    let written = admin.post("/agents", body).await;
    assert!(matches!(written.status.as_u16(), 201 | 503), "{written:?}");
    let exchanged =
        admin.send(admin.without_token().request(Method::POST, "/auth/token").header("X-API-Key", key)).await;
    assert!(matches!(exchanged.status.as_u16(), 200 | 503), "{exchanged:?}");
}

fn tail(exit: &Exit) -> String {
    let lines: Vec<_> = exit.stderr.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
