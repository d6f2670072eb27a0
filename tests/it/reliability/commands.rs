//! Commands: output, exit codes and the files that they create.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

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
    setup_link_leads_to_the_service,
    lost_factors_are_reset_on_the_host,
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
async fn completions_complete_subcommands_and_options() {
    let db = Database::sqlite();
    // Completions and manual pages are made while a package is built, without settings.
    let aims = Aims::new(&db).with("LISTEN_ADDR", "invalid");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = aims.run(&["completions", shell]).await;
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(script.stdout.contains("reset-factors"), "{shell}: {}", script.stdout);
        fs::write(db.folder.path().join(shell), script.stdout).unwrap();
    }
    assert_eq!(aims.run(&["completions", "tcsh"]).await.code, Some(2));
    for (words, expected) in [("aims adm", "admin"), ("aims admin reset-f", "reset-factors"), ("aims man --t", "--to")]
    {
        let (start, word) = words.rsplit_once(' ').unwrap();
        let complete = format!(
            "source ./bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _aims aims '{word}' '{}'; echo ${{COMPREPLY[@]}}",
            start.rsplit(' ').next().unwrap(),
        );
        let bash = Command::new("bash").args(["-c", &complete]).current_dir(db.folder.path()).output().unwrap();
        assert_eq!(String::from_utf8(bash.stdout).unwrap().trim(), expected, "{words}");
    }
}

#[tokio::test]
async fn manual_pages_describe_every_command() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LISTEN_ADDR", "invalid");
    let main = aims.run(&["man"]).await;
    assert_eq!((main.code, main.stderr.as_str()), (Some(0), ""));
    assert!(main.stdout.contains(".TH aims 1"), "{}", main.stdout);

    let folder = db.folder.path().join("share/man1");
    let path = folder.to_str().unwrap();
    // The second run replaces the pages, as an upgrade does.
    for _ in 0..2 {
        assert_eq!(aims.run(&["man", "--to", path]).await.code, Some(0));
    }
    let mut documented: Vec<_> = fs::read_to_string("docs/cli.md")
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .map(|command| format!("{}.1", command.replace(' ', "-")))
        .collect();
    let entries = fs::read_dir(&folder).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    documented.sort();
    pages.sort();
    assert_eq!(pages, documented);
    assert_eq!(fs::read_to_string(folder.join("aims.1")).unwrap(), main.stdout);

    let file = db.folder.path().join("file");
    fs::write(&file, "").unwrap();
    aims.run(&["man", "--to", file.to_str().unwrap()]).await.fails_with("cannot write the pages to");
}

#[tokio::test]
async fn failure_to_write_output_is_reported() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for command in [
        &["openapi"][..],
        &["completions", "bash"],
        &["man"],
        &["check-config"],
        &["bootstrap", "--json"],
        &["bootstrap"],
        &["audit", "verify"],
    ] {
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
        &["migrate"],
        &["migrate", "--check"],
    ] {
        let exit = aims.run(command).await;
        exit.fails_with(&looked);
        exit.fails_with("DATABASE_URL");
        assert_eq!(fs::read_dir(db.folder.path()).unwrap().count(), 0, "{command:?}");
    }
}

async fn setup_link_leads_to_the_service(db: Database) {
    let serving = Aims::new(&db).with("LISTEN_ADDR", "127.0.0.1:0").with("PUBLIC_URL", "https://aims.example");
    let elsewhere = serving.with("LISTEN_ADDR", "").with("PUBLIC_URL", "");
    serving.run(&["bootstrap", "--json"]).await.json();
    // Without its settings and before it ran, its address is not known, and the default would be a guess.
    let unknown = elsewhere.run(&["setup-token"]).await;
    assert_eq!(unknown.code, Some(0), "{unknown:?}");
    assert!(unknown.stdout.contains("\n/console/setup?token="), "{unknown:?}");
    assert!(unknown.stdout.contains("neither PUBLIC_URL nor LISTEN_ADDR is set"), "{unknown:?}");
    assert!(!unknown.stdout.contains("http"), "{unknown:?}");
    let json = elsewhere.run(&["setup-token", "--json"]).await.json();
    assert!(json["setup_url"].is_null() && json["setup_path"].as_str().unwrap().starts_with("/console/setup?token="));

    serving.serve().await.stop().await;
    let known = elsewhere.run(&["setup-token"]).await;
    assert!(known.stdout.contains("\nhttps://aims.example/console/setup?token="), "{known:?}");
    assert!(known.stdout.contains("Earlier links no longer work"), "{known:?}");
    // The settings of the command take precedence.
    let told = elsewhere.with("LISTEN_ADDR", "127.0.0.1:8010").run(&["setup-token", "--json"]).await.json();
    assert!(told["setup_url"].as_str().unwrap().starts_with("http://localhost:8010/console/setup?token="), "{told}");
}

async fn lost_factors_are_reset_on_the_host(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    aims.run(&["admin", "create", "ada", "--role", "operator", "--json"]).await.json();
    let process = aims.serve().await;
    aims.run(&["admin", "reset-factors", "nobody"]).await.fails_with("no administrator is named nobody");
    aims.run(&["admin", "reset-factors", "ada"]).await.fails_with("ada has no such second factor");
    let columns = "(id, administrator_id, credential_id, credential, name, created_at)";
    let id = if db.is_sqlite() { "randomblob(16)" } else { "gen_random_uuid()" };
    let credential = if db.is_sqlite() { "x'01'" } else { "'\\x01'" };
    db.execute(&format!(
        "INSERT INTO passkeys {columns} SELECT {id}, id, {credential}, '{{}}', 'laptop', 1 FROM administrators"
    ))
    .await;
    db.execute("UPDATE administrators SET totp_enabled_at = 1").await;
    let listed = aims.run(&["admin", "list", "--json"]).await.json();
    assert_eq!((&listed[0]["authenticator"], &listed[0]["passkeys"]), (&json!(true), &json!(1)));
    let both = aims.run(&["admin", "reset-factors", "ada", "--passkeys", "--authenticator"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
    let reset = aims.run(&["admin", "reset-factors", "ada", "--passkeys"]).await;
    assert_eq!((reset.code, reset.stdout.as_str()), (Some(0), "passkeys of ada removed; they are signed out\n"));
    let reset = aims.run(&["admin", "reset-factors", "ada"]).await;
    assert_eq!(reset.stdout, "authenticator app and recovery codes of ada removed; they are signed out\n");
    assert!(aims.run(&["admin", "list"]).await.stdout.contains("no second factor"));
    assert_eq!(db.count("SELECT COUNT(*) FROM passkeys").await, 0);
    let records = db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'administrator.factor_changed'").await;
    assert_eq!(records, 2);
    process.stop().await;
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
