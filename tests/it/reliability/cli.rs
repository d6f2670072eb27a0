//! The operator's side: what the commands answer, and how each thing that can be wrong is told.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

use crate::{
    both,
    support::{Aims, Client, Database, Ended},
};

both!(
    bootstrap_shows_the_key_once,
    bootstrap_says_where_the_key_is,
    of_starts_at_once_one_leaves_the_key,
    the_first_start_reveals_the_key_to_its_owner_alone,
    a_wrong_master_key_is_told,
    a_newer_database_is_told,
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
async fn wrong_usage_is_told_from_failure() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for wrong in
        [&["explode"][..], &["--explode"], &["serve", "--json"], &["audit"], &["audit", "explode"], &["serve", "x"]]
    {
        let told = aims.run(wrong).await;
        assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(told.stderr.contains("Usage: aims"), "{told:?}");
    }
    assert!(!db.sqlite_file().exists(), "wrong usage changes nothing");
}

#[tokio::test]
async fn the_description_is_printed_as_json() {
    let db = Database::sqlite();
    let described = Aims::new(&db).run(&["openapi"]).await.json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3."));
    assert!(described["paths"]["/api/v1/agents"].is_object());
}

async fn bootstrap_shows_the_key_once(db: Database) {
    let aims = Aims::new(&db);
    let first = aims.run(&["bootstrap", "--json"]).await;
    let made = first.json();
    let key = made["api_key"].as_str().unwrap();
    assert_eq!((&made["created"], made["agent_id"].as_str().unwrap().len()), (&json!(true), 36));
    assert!(key.starts_with("aims_"));
    assert!(!first.stderr.contains(key), "{first:?}");

    let second = aims.run(&["bootstrap", "--json"]).await;
    let nothing = second.json();
    assert_eq!(nothing["created"], false);
    assert!(nothing.get("api_key").is_none() && nothing.get("agent_id").is_none(), "{nothing}");
    let plain = aims.run(&["bootstrap"]).await;
    assert_eq!((plain.code, plain.stdout.contains("nothing was changed")), (Some(0), true), "{plain:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(secret_files(&aims.folder, "bootstrap"), Vec::<String>::new(), "no file without a key to put into it");

    let process = aims.serve().await;
    process.client().login(key).await.get("/agents").await.expect(200);
    process.stop().await;
}

async fn bootstrap_says_where_the_key_is(db: Database) {
    let aims = Aims::new(&db);
    let file = db.folder.path().join("aims.bootstrap");
    for (command, what) in [
        (&["bootstrap"][..], "key and the link to the console were written to "),
        (&["bootstrap", "--new-key"], "key and the link to the console were written to "),
    ] {
        let made = aims.run(command).await;
        assert_eq!((made.code, made.stdout.lines().count()), (Some(0), 1), "{made:?}");
        assert!(made.stdout.contains(what) && made.stdout.contains("aims.bootstrap"), "{made:?}");
        assert!(!made.stdout.contains("aims_") && fs::read_to_string(&file).unwrap().contains("aims_"), "{made:?}");
        fs::remove_file(&file).unwrap();
    }
}

/// On SQLite only one of them gets the database; the others say so.
async fn of_starts_at_once_one_leaves_the_key(db: Database) {
    let aims = Aims::new(&db);
    let runs = join_all((0..6).map(|_| aims.run(&["bootstrap"]))).await;
    let written: Vec<_> = runs.iter().filter(|run| run.stdout.contains("aims.bootstrap")).collect();
    assert_eq!(written.len(), 1, "{runs:?}");
    let files: Vec<_> = fs::read_dir(db.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    let files: Vec<_> =
        files.iter().map(|name| name.to_str().unwrap()).filter(|name| name.contains("bootstrap")).collect();
    assert_eq!(files, ["aims.bootstrap"], "{runs:?}");
    let text = fs::read_to_string(db.folder.path().join("aims.bootstrap")).unwrap();
    let key = text.split_whitespace().find(|word| word.starts_with("aims_")).expect("a key in the file").to_owned();
    let process = aims.serve().await;
    process.client().login(&key).await;
    process.stop().await;
}

async fn the_first_start_reveals_the_key_to_its_owner_alone(db: Database) {
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    let file = db.folder.path().join("aims.bootstrap");
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let key = text.split_whitespace().find(|word| word.starts_with("aims_")).unwrap().to_owned();
    process.client().login(&key).await.get("/agents").await.expect(200);
    assert!(process.log().contains("aims.bootstrap"), "the log names the file");
    let stopped = process.stop().await;
    assert_eq!(stopped.code, Some(0));
    assert!(!stopped.stderr.contains(&key[..12]), "the key is logged: {stopped:?}");

    // Read and deleted, as the file says; the second start makes no other.
    fs::remove_file(&file).unwrap();
    let process = aims.serve().await;
    process.client().login(&key).await;
    process.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn what_is_secret_is_for_its_owner_alone() {
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
async fn a_new_database_beside_an_old_master_key_is_told() {
    const TOLD: &str = "was there already";
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    let process = aims.serve().await;
    assert!(!process.log().contains(TOLD), "{}", process.log());
    // A copy without the write-ahead log, in which everything is.
    for command in ["serve", "bootstrap"] {
        let copy = Database::sqlite();
        for file in ["aims.db", "aims.master-key"] {
            fs::copy(db.folder.path().join(file), copy.folder.path().join(file)).unwrap();
        }
        let copied = Aims::new(&copy).with("MASTER_KEY", "");
        let told = if command == "serve" {
            copied.serve().await.stop().await
        } else {
            let told = copied.run(&["bootstrap", "--json"]).await;
            told.json();
            told
        };
        assert!(told.stderr.contains(TOLD) && told.stderr.contains("aims.master-key"), "{command}: {told:?}");
    }
    assert!(!process.stop().await.stderr.contains(TOLD));
    assert!(!aims.serve().await.stop().await.stderr.contains(TOLD));
}

#[tokio::test]
async fn a_command_in_the_wrong_folder_makes_nothing() {
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
        let told = aims.run(command).await;
        told.failed(&looked);
        told.failed("DATABASE_URL");
        assert_eq!(fs::read_dir(db.folder.path()).unwrap().count(), 0, "{command:?}");
    }
}

#[tokio::test]
async fn all_bad_settings_are_told_at_once() {
    let db = Database::sqlite();
    let bad = [
        ("LISTEN_ADDR", "8000"),
        ("PUBLIC_URL", "nonsense"),
        ("TRUSTED_PROXIES", "nobody"),
        ("JWT_SECRET_KEY", "hunter2-hunter2"),
        ("MASTER_KEY", "0123456789-secret"),
        ("MAX_CONNECTIONS", "0"),
        ("LOG_FORMAT", "xml"),
    ];
    let aims = bad.iter().fold(Aims::new(&db), |aims, (name, value)| aims.with(name, value));
    for command in [&[][..], &["bootstrap"], &["audit", "verify"], &["check-config"]] {
        let told = aims.run(command).await;
        assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""), "{told:?}");
        let lines: Vec<_> = told.stderr.lines().collect();
        assert_eq!(lines[0], "aims: the settings are not valid:");
        assert_eq!(lines.len(), 1 + bad.len(), "{told:?}");
        for (name, _) in bad {
            assert!(lines.iter().any(|line| line.starts_with(&format!("  {name} "))), "{name}: {told:?}");
        }
        assert!(!told.stderr.contains("hunter2") && !told.stderr.contains("0123456789-secret"), "{told:?}");
    }
    assert!(!db.sqlite_file().exists());
}

#[tokio::test]
async fn check_config_shows_no_secret() {
    let db = Database::sqlite();
    let secret = "correct-horse-battery-staple-and-more";
    let aims = Aims::new(&db)
        .with("JWT_SECRET_KEY", secret)
        .with("DATABASE_URL", "postgres://someone:p4ssw0rd@db.example/aims");
    let shown = aims.run(&["check-config"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for hidden in [secret, "p4ssw0rd", &"0f".repeat(32)] {
        assert!(!shown.stdout.contains(hidden), "{shown:?}");
    }
    for setting in aims::config::SETTINGS {
        assert!(shown.stdout.contains(setting.name), "{}", setting.name);
    }
    assert!(shown.stdout.contains("db.example"), "{shown:?}");
}

/// The value of a setting that `check-config` shows.
fn shown<'a>(told: &'a Ended, name: &str) -> &'a str {
    let value = told.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{told:?}")).trim()
}

#[tokio::test]
async fn a_wrong_line_of_the_env_file_is_told_without_quoting_it() {
    let db = Database::sqlite();
    let text = "LOG_LEVEL=info\nJWT_SECRET_KEY 'my-secret\nMASTER_KEY=\"my-secret\n";
    fs::write(db.folder.path().join(".env"), text).unwrap();
    for command in [&[][..], &["bootstrap"], &["check-config"]] {
        let told = Aims::new(&db).run(command).await;
        assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""));
        assert!(told.stderr.contains(".env line 2: JWT_SECRET_KEY lacks a ="), "{told:?}");
        assert!(told.stderr.contains(".env line 3: MASTER_KEY has no closing quote"), "{told:?}");
        assert!(!told.stderr.contains("my-secret"), "{told:?}");
    }
}

#[tokio::test]
async fn the_env_file_is_data() {
    let db = Database::sqlite();
    let text = "\u{feff}# settings\r\nDATABASE_URL=sqlite:///./a$word.db # here\r\nexport PUBLIC_URL='https://aims.example/'\r\n\
        LOG_LEVEL=debug\r\nLOG_FORMAT=json\r\n";
    fs::write(db.folder.path().join(".env"), text).unwrap();
    // The environment takes precedence; an empty variable counts as not set.
    let aims = Aims::new(&db).with("DATABASE_URL", "").with("LOG_LEVEL", "warn").with("word", "expanded");
    let told = aims.run(&["check-config"]).await;
    let expected = [
        ("DATABASE_URL", "sqlite:///./a$word.db"),
        ("PUBLIC_URL", "https://aims.example/"),
        ("LOG_LEVEL", "warn"),
        ("LOG_FORMAT", "json"),
    ];
    for (name, value) in expected {
        assert_eq!(shown(&told, name), value);
    }
    // The link has one slash where the URL ends.
    let made = aims.run(&["bootstrap", "--json"]).await.json();
    assert!(made["setup_url"].as_str().unwrap().starts_with("https://aims.example/console/setup?token="), "{made}");
    assert!(db.folder.path().join("a$word.db").exists());
    let files = fs::read_dir(db.folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(files.into_iter().all(|name| name.starts_with("a$word.") || name == ".env"));
    // Only the working directory is searched.
    let below = db.folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let mut aims = aims.with("LOG_LEVEL", "");
    aims.folder = below;
    assert_eq!(shown(&aims.run(&["check-config"]).await, "LOG_LEVEL"), "info (default)");
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_told() {
    let db = Database::sqlite();
    let file = db.folder.path().join(".env");
    let aims = Aims::new(&db);
    fs::create_dir(&file).unwrap();
    aims.run(&["check-config"]).await.told(".env cannot be read");
    fs::remove_dir(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    aims.run(&["check-config"]).await.told(".env cannot be read");
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"LOG_LEVEL=debug\nJWT_SECRET_KEY=canary\xff\n").unwrap();
    let told = aims.run(&["check-config"]).await;
    told.told(".env line 2: is not UTF-8");
    assert!(!told.stderr.contains("canary"), "{told:?}");
    fs::remove_file(&file).unwrap();
    let told = aims.run_with_raw("JWT_SECRET_KEY", b"canary\xff", &["check-config"]).await;
    told.told("JWT_SECRET_KEY is not UTF-8");
    assert!(!told.stderr.contains("canary"), "{told:?}");
    assert_eq!(aims.run(&["check-config"]).await.code, Some(0));
}

#[tokio::test]
async fn a_public_url_with_a_path_is_refused() {
    let db = Database::sqlite();
    for url in ["https://host.example/aims", "https://host.example/aims/"] {
        for command in [&[][..], &["check-config"], &["bootstrap"]] {
            Aims::new(&db).with("PUBLIC_URL", url).run(command).await.told("PUBLIC_URL must have no path");
        }
    }
    assert!(!db.sqlite_file().exists());
}

/// The address that a URL names: an IPv6 address, or a socket.
#[tokio::test]
async fn postgres_is_found_at_every_kind_of_address() {
    let db = Database::sqlite();
    let sockets = db.folder.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let folder = sockets.to_str().unwrap();
    let socket = UnixListener::bind(sockets.join(".s.PGSQL.5433")).unwrap();
    let tcp = TcpListener::bind("[::1]:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let encoded = folder.replace('/', "%2F");
    let at_socket = [
        format!("postgres:///d?host={folder}&port=5433"),
        format!("postgres://u:p@/d?host={encoded}&port=5433"),
        format!("postgres://u:p@{encoded}:5433/d"),
    ];
    for (url, told) in at_socket
        .map(|url| (url, format!("{folder}:5433")))
        .into_iter()
        .chain([(format!("postgres://u:p@[::1]:{port}/d"), format!("[::1]:{port}"))])
    {
        let aims = Aims::new(&db).with("DATABASE_URL", &url);
        let reached = async {
            // Hanging up is not what PostgreSQL does.
            loop {
                tokio::select! {
                    accepted = socket.accept() => drop(accepted.unwrap()),
                    accepted = tcp.accept() => drop(accepted.unwrap()),
                }
            }
        };
        let ended = tokio::select! {
            ended = aims.run(&[]) => ended,
            () = reached => unreachable!(),
        };
        ended.failed(&told);
        assert!(!ended.stderr.contains("u:p"), "{ended:?}");
        assert!(!ended.stderr.contains("lookup") && !ended.stderr.contains("No such file"), "{url}: {ended:?}");
    }
}

async fn a_wrong_master_key_is_told(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let wrong = "ab".repeat(32);
    let told = aims.with("MASTER_KEY", &wrong).run(&[]).await;
    told.failed("master key");
    assert!(!told.stderr.contains(&wrong), "{told:?}");
    // Nothing is lost by the attempt.
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn a_lost_or_spoilt_master_key_file_is_told() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    aims.bootstrap().await;
    let file = db.folder.path().join("aims.master-key");
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    aims.run(&[]).await.failed("aims.master-key is missing");
    assert!(!file.exists(), "a new key would be of no use");
    fs::write(&file, "nonsense-that-is-not-shown").unwrap();
    let told = aims.run(&[]).await;
    told.failed("does not hold 64 hexadecimal digits");
    assert!(!told.stderr.contains("nonsense-that"), "{told:?}");
    fs::write(&file, kept).unwrap();
    aims.serve().await.stop().await;
}

async fn a_newer_database_is_told(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let checksum = if db.is_sqlite() { "x'00'" } else { "'\\x00'" };
    db.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'from the future', CURRENT_TIMESTAMP, TRUE, {checksum}, 0)"
    ))
    .await;
    for command in [&[][..], &["bootstrap", "--new-key"]] {
        aims.run(command).await.failed("newer version of AIMS");
    }
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_told() {
    let db = Database::sqlite();
    let file = db.folder.path().join("plain");
    fs::write(&file, "x").unwrap();
    for url in [
        format!("sqlite:///{}/aims.db", file.display()),
        "sqlite:////proc/aims.db".to_owned(),
        format!("sqlite:///{}", db.folder.path().join("nowhere/aims.db").display()),
        format!("sqlite:///{}", db.folder.path().display()),
    ] {
        let aims = Aims::new(&db).with("DATABASE_URL", &url);
        for command in [&[][..], &["bootstrap"]] {
            aims.run(command).await.failed("cannot use the database file");
        }
        aims.run(&["audit", "verify"]).await.failed("cannot ");
    }
    // A file that is no database.
    let other = Aims::new(&db).with("DATABASE_URL", &format!("sqlite:///{}", file.display()));
    fs::write(&file, "this is no database, and long enough to be looked at ".repeat(100)).unwrap();
    other.run(&[]).await.failed("database");
    other.run(&["audit", "verify"]).await.failed("database");
    // No database at all: verifying makes none.
    let none = Aims::new(&db);
    none.run(&["audit", "verify"]).await.failed("cannot ");
    assert!(!db.sqlite_file().exists());
}

#[tokio::test]
async fn a_place_where_no_key_can_be_put_is_told() {
    let db = Database::sqlite();
    let nowhere = db.folder.path().join("nowhere/key");
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", nowhere.to_str().unwrap());
    aims.run(&[]).await.failed("cannot use the master key file");
    // What would be overwritten is left alone, and no administrator is made whose key nobody has seen.
    let taken = db.folder.path().join("aims.bootstrap");
    fs::write(&taken, "mine").unwrap();
    Aims::new(&db).run(&[]).await.failed("aims.bootstrap");
    assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 0);
}

#[tokio::test]
async fn a_master_key_that_others_may_read_is_told() {
    let db = Database::sqlite();
    let (path, key) = (db.folder.path().join("key"), "0f".repeat(32));
    fs::write(&path, &key).unwrap();
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", path.to_str().unwrap());
    for (mode, is_told) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let log = aims.serve().await.stop().await.stderr;
        let line = log.lines().find(|line| line.contains("may read the master key"));
        assert_eq!(line.is_some(), is_told, "{log}");
        assert!(line.is_none_or(|line| line.contains(path.to_str().unwrap()) && line.contains(&format!("{mode:04o}"))));
        assert!(!log.contains(&key), "{log}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_told() {
    let db = Database::sqlite();
    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let aims = Aims::new(&db).with("DATABASE_URL", &format!("postgres://someone:p4ssw0rd@{closed}/aims"));
    for command in [&[][..], &["bootstrap"], &["audit", "verify"]] {
        let told = aims.run(command).await;
        told.failed("cannot open the database");
        assert!(told.stderr.contains("refused"), "says what is wrong: {told:?}");
        assert!(!told.stderr.contains("p4ssw0rd"), "{told:?}");
    }
}

#[tokio::test]
async fn a_second_process_on_one_file_is_told() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let process = aims.serve().await;
    for command in [&[][..], &["bootstrap", "--new-key"]] {
        aims.run(command).await.failed("is in use by another AIMS process");
    }
    process.client().get("/_health").await.expect(200);
    process.kill().await;
    // A killed process leaves no lock behind.
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let db = Database::sqlite();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let aims = Aims::new(&db).with("LISTEN_ADDR", &address);
    aims.run(&[]).await.failed(&format!("cannot listen on {address}"));
    assert!(!db.sqlite_file().exists(), "nothing is set up by a start that fails");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.with_largest_file(1_024).serve().await;
    let admin = process.client().login(&key).await;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    // Large descriptions fill it soon.
    for n in 0..2_000 {
        let name = format!("full-{n}");
        let body = json!({ "name": name, "owner": "o", "description": "x".repeat(9_000) });
        let answer = admin.post("/agents", body).await;
        match answer.status.as_u16() {
            201 => acknowledged.push(name),
            503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
        if refused == 20 {
            break;
        }
    }
    assert!(!acknowledged.is_empty() && refused == 20, "{} and {refused}", acknowledged.len());
    full_disk_answers(&admin, &key).await;
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

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_told() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    for command in [&["openapi"][..], &["check-config"], &["bootstrap", "--json"], &["bootstrap"], &["audit", "verify"]]
    {
        aims.run_into("/dev/full", command).await.failed("cannot write to standard output");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_harms_nothing() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LOG_LEVEL", "trace");
    let key = aims.bootstrap().await;
    let mut process = aims.serve().await;
    process.close_log().await;
    let admin = process.client().login(&key).await;
    admin.post("/agents", json!({ "name": "unseen", "owner": "o" })).await.expect(201);
    assert_eq!(process.stop().await.code, Some(0));
}

/// While the disk is full, what reads still works and what writes says so.
async fn full_disk_answers(admin: &Client, key: &str) {
    admin.get("/_health").await.expect(200);
    admin.get("/agents?limit=1").await.expect(200);
    let body = json!({ "name": "too-large", "owner": "o", "description": "x".repeat(9_000) });
    let written = admin.post("/agents", body).await;
    assert!(matches!(written.status.as_u16(), 201 | 503), "{written:?}");
    let exchanged =
        admin.send(admin.without_token().request(Method::POST, "/auth/token").header("X-API-Key", key)).await;
    assert!(matches!(exchanged.status.as_u16(), 200 | 503), "{exchanged:?}");
}

fn tail(ended: &Ended) -> String {
    let lines: Vec<_> = ended.stderr.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).permissions().mode() & 0o777
}

fn secret_files(folder: &Path, extension: &str) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let named = files.filter(|file| file.extension().is_some_and(|found| found == extension));
    named.map(|file| file.display().to_string()).collect()
}
