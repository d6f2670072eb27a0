//! The SQLite files beside a running service: outside readers, second names, and files that are taken away.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Aims, Client, Database, Process};

const ROUNDS: usize = 30;

/// `sqlite3 aims.db ".backup …"` and every other reader deletes the WAL when it closes the database and finds no lock of another
/// process. The service must hold that lock however it was started, or it goes on writing to a deleted file.
#[tokio::test]
async fn an_outside_reader_costs_no_acknowledged_change() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let admin_key = aims.bootstrap().await;
    let mut revoked: Option<String> = None;
    for round in 0..ROUNDS {
        let process = aims.serve().await;
        if let Some(key) = revoked {
            let answer = process.client().exchange(&key).await;
            assert_ne!(answer.status, 200, "round {}: a revoked key works again", round - 1);
        }
        let admin = process.client().login(&admin_key).await;
        let (agent, key) = agent_with_key(&admin, &format!("round-{round}")).await;
        let wal = identity(&wal_of(&db)).unwrap();

        assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, i64::try_from(round).unwrap() + 2);
        assert!(is_locked_by(&process, &db.sqlite_file()), "round {round}: no lock on the database");
        assert_eq!(identity(&wal_of(&db)).ok(), Some(wal), "round {round}: the WAL was deleted");

        admin.post(&format!("/agents/{agent}/revoke"), json!({})).await.expect(200);
        process.kill().await;
        revoked = Some(key);
    }
}

#[tokio::test]
async fn no_second_process_serves_a_database_under_another_name() {
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
        second.failed("is in use by another AIMS process");
    }

    // SQLite would keep the changes of one name where the other does not see them.
    fs::hard_link(db.sqlite_file(), elsewhere.path().join("hard.db")).unwrap();
    let hard = format!("sqlite:///{}", elsewhere.path().join("hard.db").display());
    for url in [&hard, &db.url] {
        aims.with("DATABASE_URL", url).run(&[]).await.failed("has another name (a hard link)");
    }
    process.client().get("/_health").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_database_that_is_mounted_without_its_folder_is_refused() {
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
    alone.with("DATABASE_URL", &url).run(&[]).await.failed("is mounted without its folder");

    let with_folder = aims.with_mount(&bind(db.folder.path(), &folder)).await.expect("what was possible before");
    let url = format!("sqlite:///{}", folder.join("aims.db").display());
    with_folder.with("DATABASE_URL", &url).run(&[]).await.failed("is in use by another AIMS process");
    process.stop().await;
}

#[tokio::test]
async fn a_service_whose_files_are_taken_away_acknowledges_nothing_more() {
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
        // The service may have ended already, which does not acknowledge the change either.
        let request =
            admin.request(reqwest::Method::POST, "/agents").json(&json!({ "name": "late", "owner": "tests" }));
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), 503, "{file}");
        }
        let ended = process.ended().await;
        ended.failed("was deleted, moved or replaced while AIMS was using it");
        ended.failed(file);
    }
}

#[tokio::test]
async fn an_idle_service_whose_files_are_taken_away_ends() {
    let db = Database::sqlite();
    let process = Aims::new(&db).serve().await;
    fs::remove_file(db.sqlite_file()).unwrap();
    process.ended().await.failed("was deleted, moved or replaced");
}

#[tokio::test]
async fn a_database_is_made_for_its_owner_alone_whatever_its_name() {
    let db = Database::sqlite();
    for name in ["aims.db", "file:a&mode=ro%41.db", "spaces and ü.db"] {
        // A DATABASE_URL takes the path as it is.
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

/// A dangling link: the first start creates the database at its target.
#[tokio::test]
async fn a_database_is_made_where_a_link_leads() {
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
async fn commands_do_not_open_the_database_as_another_kind_of_file() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = db.sqlite_file();
    aims.run(&["import-seed", file.to_str().unwrap()]).await.failed("is the database of this service");
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", file.display());
        let as_key = aims.with("MASTER_KEY", "").with("MASTER_KEY_FILE", &file);
        as_key.run(&["bootstrap", "--new-key"]).await.failed("does not hold 64 hexadecimal digits");
    }
}

/// Registers an agent and makes a key for it; gives its identifier and the key.
async fn agent_with_key(admin: &Client, name: &str) -> (String, String) {
    let agent = admin.post("/agents", json!({ "name": name, "owner": "tests" })).await.expect(201);
    let agent = agent["id"].as_str().unwrap().to_owned();
    let key = admin.post(&format!("/agents/{agent}/keys"), json!({})).await.expect(201);
    (agent, key["raw_key"].as_str().unwrap().to_owned())
}

fn wal_of(db: &Database) -> PathBuf {
    db.folder.path().join("aims.db-wal")
}

/// Device and inode.
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
