//! Commands: output, exit codes and the files that they create.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    both,
    support::{Aims, Database},
};

both!(
    bootstrap_shows_the_key_once,
    bootstrap_prints_where_the_key_is,
    concurrent_bootstraps_create_one_key,
    first_start_writes_the_key_to_a_private_file,
    newer_database_is_reported,
);

#[tokio::test]
async fn every_command_has_help() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for command in [
        vec![],
        vec!["serve"],
        vec!["bootstrap"],
        vec!["audit"],
        vec!["audit", "verify"],
        vec!["openapi"],
        vec!["admin"],
        vec!["admin", "create"],
        vec!["setup-token"],
    ] {
        let help = aims.run(&[command.as_slice(), &["--help"]].concat()).await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command:?}");
        assert!(help.stdout.contains("Usage: aims"), "{help:?}");
    }
    assert_eq!(aims.run(&["check-config", "--help"]).await.code, Some(0));
    assert_eq!(aims.run(&["--version"]).await.code, Some(0));
}

#[tokio::test]
async fn usage_errors_and_failures_have_different_exit_codes() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for wrong in
        [&["explode"][..], &["--explode"], &["serve", "--json"], &["audit"], &["audit", "explode"], &["serve", "x"]]
    {
        let exit = aims.run(wrong).await;
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(exit.stderr.contains("Usage: aims"), "{exit:?}");
    }
    assert!(!db.sqlite_file().exists(), "wrong usage must have no effect");
}

#[tokio::test]
async fn openapi_command_prints_json() {
    let db = Database::sqlite();
    let described = Aims::new(&db).run(&["openapi"]).await.json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3."));
    assert!(described["paths"]["/api/v1/agents"].is_object());
}

#[tokio::test]
async fn failure_to_write_output_is_reported() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for command in [&["openapi"][..], &["check-config"], &["bootstrap", "--json"], &["bootstrap"], &["audit", "verify"]]
    {
        aims.run_with_output_to("/dev/full", command).await.fails_with("cannot write to standard output");
    }
}

async fn bootstrap_shows_the_key_once(db: Database) {
    let aims = Aims::new(&db);
    let first = aims.run(&["bootstrap", "--json"]).await;
    let created = first.json();
    let key = created["api_key"].as_str().unwrap();
    assert_eq!((&created["created"], created["agent_id"].as_str().unwrap().len()), (&json!(true), 36));
    assert!(key.starts_with("aims_"));
    assert!(!first.stderr.contains(key), "{first:?}");

    let second = aims.run(&["bootstrap", "--json"]).await;
    let nothing = second.json();
    assert_eq!(nothing["created"], false);
    assert!(nothing.get("api_key").is_none() && nothing.get("agent_id").is_none(), "{nothing}");
    let plain = aims.run(&["bootstrap"]).await;
    assert_eq!((plain.code, plain.stdout.contains("nothing was changed")), (Some(0), true), "{plain:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(secret_files(&aims.folder, "bootstrap"), Vec::<String>::new(), "no file must be created without a key");

    let process = aims.serve().await;
    process.client().login(key).await.get("/agents").await.expect(200);
    process.stop().await;
}

async fn bootstrap_prints_where_the_key_is(db: Database) {
    let aims = Aims::new(&db);
    let file = db.folder.path().join("aims.bootstrap");
    for (command, what) in [
        (&["bootstrap"][..], "key and the setup link were written to "),
        (&["bootstrap", "--new-key"], "key and the setup link were written to "),
    ] {
        let created = aims.run(command).await;
        assert_eq!((created.code, created.stdout.lines().count()), (Some(0), 1), "{created:?}");
        assert!(created.stdout.contains(what) && created.stdout.contains("aims.bootstrap"), "{created:?}");
        assert!(
            !created.stdout.contains("aims_") && fs::read_to_string(&file).unwrap().contains("aims_"),
            "{created:?}"
        );
        fs::remove_file(&file).unwrap();
    }
}

/// On SQLite, only one process gets the database; the others report that it is in use.
async fn concurrent_bootstraps_create_one_key(db: Database) {
    let aims = Aims::new(&db);
    let runs = join_all((0..6).map(|_| aims.run(&["bootstrap"]))).await;
    let written: Vec<_> = runs.iter().filter(|run| run.stdout.contains("aims.bootstrap")).collect();
    assert_eq!(written.len(), 1, "{runs:?}");
    let files: Vec<_> = fs::read_dir(db.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    let files: Vec<_> =
        files.iter().map(|name| name.to_str().unwrap()).filter(|name| name.contains("bootstrap")).collect();
    assert_eq!(files, ["aims.bootstrap"], "{runs:?}");
    let text = fs::read_to_string(db.folder.path().join("aims.bootstrap")).unwrap();
    let key =
        text.split_whitespace().find(|word| word.starts_with("aims_")).expect("the file must contain a key").to_owned();
    let process = aims.serve().await;
    process.client().login(&key).await;
    process.stop().await;
}

async fn first_start_writes_the_key_to_a_private_file(db: Database) {
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    let file = db.folder.path().join("aims.bootstrap");
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let key = text.split_whitespace().find(|word| word.starts_with("aims_")).unwrap().to_owned();
    process.client().login(&key).await.get("/agents").await.expect(200);
    assert!(process.log().contains("aims.bootstrap"), "the log must name the file");
    let stopped = process.stop().await;
    assert_eq!(stopped.code, Some(0));
    assert!(!stopped.stderr.contains(&key[..12]), "the log must not contain the key: {stopped:?}");

    // The file was read and deleted, as it asks. The second start creates no other.
    fs::remove_file(&file).unwrap();
    let process = aims.serve().await;
    process.client().login(&key).await;
    process.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn secret_files_are_private() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    aims.bootstrap().await;
    let master = db.folder.path().join("aims.master-key");
    for file in [&master, &db.sqlite_file()] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    // The next start uses the same file.
    let before = fs::read(&master).unwrap();
    aims.serve().await.stop().await;
    assert_eq!(fs::read(&master).unwrap(), before);
}

#[tokio::test]
async fn command_in_the_wrong_directory_creates_nothing() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("DATABASE_URL", "");
    let looked = db.folder.path().join("aims.db").display().to_string();
    for command in [
        &["setup-token"][..],
        &["admin", "create", "bob", "--role", "owner"],
        &["admin", "list"],
        &["signing-keys", "list"],
        &["audit", "archive", "--before", "2020-01-01", "--to", "archive"],
        &["audit", "verify"],
        &["bootstrap", "--new-key"],
    ] {
        let exit = aims.run(command).await;
        exit.fails_with(&looked);
        exit.fails_with("DATABASE_URL");
        assert_eq!(fs::read_dir(db.folder.path()).unwrap().count(), 0, "{command:?}");
    }
}

async fn newer_database_is_reported(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let checksum = if db.is_sqlite() { "x'00'" } else { "'\\x00'" };
    db.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'from the future', CURRENT_TIMESTAMP, TRUE, {checksum}, 0)"
    ))
    .await;
    for command in [&[][..], &["bootstrap", "--new-key"]] {
        aims.run(command).await.fails_with("newer version of AIMS");
    }
}

#[tokio::test]
async fn second_process_on_a_database_file_is_reported() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    for command in [&[][..], &["bootstrap", "--new-key"]] {
        aims.run(command).await.fails_with("is in use by another AIMS process");
    }
    process.client().get("/_health").await.expect(200);
    process.kill().await;
    // A killed process leaves no lock behind.
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn port_in_use_is_reported() {
    let db = Database::sqlite();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let aims = Aims::new(&db).with("LISTEN_ADDR", &address);
    aims.run(&[]).await.fails_with(&format!("cannot listen on {address}"));
    assert!(!db.sqlite_file().exists(), "a failed start must create nothing");
}

#[tokio::test]
async fn service_works_when_its_log_is_not_read() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LOG_LEVEL", "trace");
    let key = aims.bootstrap().await;
    let mut process = aims.serve().await;
    process.close_log().await;
    let admin = process.client().login(&key).await;
    admin.post("/agents", json!({ "name": "unseen", "owner": "o" })).await.expect(201);
    assert_eq!(process.stop().await.code, Some(0));
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).permissions().mode() & 0o777
}

fn secret_files(folder: &Path, extension: &str) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let named = files.filter(|file| file.extension().is_some_and(|found| found == extension));
    named.map(|file| file.display().to_string()).collect()
}
