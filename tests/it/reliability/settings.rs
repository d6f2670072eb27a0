//! Settings: validation, the `.env` file, and what the database URL and the master key refer to.

use std::{fs, os::unix::fs::PermissionsExt};

use tokio::net::{TcpListener, UnixListener};

use crate::{
    both,
    support::{Aims, Database, Exit},
};

both!(wrong_master_key_is_reported);

#[tokio::test]
async fn all_invalid_settings_are_reported_at_once() {
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
        let exit = aims.run(command).await;
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""), "{exit:?}");
        let lines: Vec<_> = exit.stderr.lines().collect();
        assert_eq!(lines[0], "aims: invalid settings:");
        assert_eq!(lines.len(), 1 + bad.len(), "{exit:?}");
        for (name, _) in bad {
            assert!(lines.iter().any(|line| line.starts_with(&format!("  {name} "))), "{name}: {exit:?}");
        }
        assert!(!exit.stderr.contains("hunter2") && !exit.stderr.contains("0123456789-secret"), "{exit:?}");
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
    for setting in aims::config::settings() {
        assert!(shown.stdout.contains(setting.name), "{}", setting.name);
    }
    assert!(shown.stdout.contains("db.example"), "{shown:?}");
}

#[tokio::test]
async fn invalid_env_file_lines_are_reported_without_their_content() {
    let db = Database::sqlite();
    let text = "LOG_LEVEL=info\nJWT_SECRET_KEY 'my-secret\nMASTER_KEY=\"my-secret\n";
    fs::write(db.folder.path().join(".env"), text).unwrap();
    for command in [&[][..], &["bootstrap"], &["check-config"]] {
        let exit = Aims::new(&db).run(command).await;
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""));
        assert!(exit.stderr.contains(".env line 2: JWT_SECRET_KEY lacks a ="), "{exit:?}");
        assert!(exit.stderr.contains(".env line 3: MASTER_KEY has no closing quote"), "{exit:?}");
        assert!(!exit.stderr.contains("my-secret"), "{exit:?}");
    }
}

#[tokio::test]
async fn env_file_is_not_expanded() {
    let db = Database::sqlite();
    let text = "\u{feff}# settings\r\nDATABASE_URL=sqlite:///./a$word.db # here\r\nexport PUBLIC_URL='https://aims.example/'\r\n\
        LOG_LEVEL=debug\r\nLOG_FORMAT=json\r\n";
    fs::write(db.folder.path().join(".env"), text).unwrap();
    // The environment takes precedence; an empty variable counts as not set.
    let aims = Aims::new(&db).with("DATABASE_URL", "").with("LOG_LEVEL", "warn").with("word", "expanded");
    let exit = aims.run(&["check-config"]).await;
    let expected = [
        ("DATABASE_URL", "sqlite:///./a$word.db"),
        ("PUBLIC_URL", "https://aims.example/"),
        ("LOG_LEVEL", "warn"),
        ("LOG_FORMAT", "json"),
    ];
    for (name, value) in expected {
        assert_eq!(setting_shown(&exit, name), value);
    }
    // The trailing slash of the URL is not doubled.
    let created = aims.run(&["bootstrap", "--json"]).await.json();
    assert!(
        created["setup_url"].as_str().unwrap().starts_with("https://aims.example/console/setup?token="),
        "{created}"
    );
    assert!(db.folder.path().join("a$word.db").exists());
    let files = fs::read_dir(db.folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(files.into_iter().all(|name| name.starts_with("a$word.") || name == ".env"));
    // Only the working directory is searched.
    let below = db.folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let mut aims = aims.with("LOG_LEVEL", "");
    aims.folder = below;
    assert_eq!(setting_shown(&aims.run(&["check-config"]).await, "LOG_LEVEL"), "info (default)");
}

#[tokio::test]
async fn unreadable_settings_are_reported() {
    let db = Database::sqlite();
    let file = db.folder.path().join(".env");
    let aims = Aims::new(&db);
    fs::create_dir(&file).unwrap();
    aims.run(&["check-config"]).await.reports_error(".env cannot be read");
    fs::remove_dir(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    aims.run(&["check-config"]).await.reports_error(".env cannot be read");
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"LOG_LEVEL=debug\nJWT_SECRET_KEY=canary\xff\n").unwrap();
    let exit = aims.run(&["check-config"]).await;
    exit.reports_error(".env line 2: is not UTF-8");
    assert!(!exit.stderr.contains("canary"), "{exit:?}");
    fs::remove_file(&file).unwrap();
    let exit = aims.run_with_raw("JWT_SECRET_KEY", b"canary\xff", &["check-config"]).await;
    exit.reports_error("JWT_SECRET_KEY is not UTF-8");
    assert!(!exit.stderr.contains("canary"), "{exit:?}");
    assert_eq!(aims.run(&["check-config"]).await.code, Some(0));
}

#[tokio::test]
async fn public_url_with_a_path_is_rejected() {
    let db = Database::sqlite();
    for url in ["https://host.example/aims", "https://host.example/aims/"] {
        for command in [&[][..], &["check-config"], &["bootstrap"]] {
            Aims::new(&db).with("PUBLIC_URL", url).run(command).await.reports_error("PUBLIC_URL must have no path");
        }
    }
    assert!(!db.sqlite_file().exists());
}

/// A URL may contain an IPv6 address or a socket directory.
#[tokio::test]
async fn postgres_address_may_be_ipv6_or_a_socket() {
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
    for (url, address) in at_socket
        .map(|url| (url, format!("{folder}:5433")))
        .into_iter()
        .chain([(format!("postgres://u:p@[::1]:{port}/d"), format!("[::1]:{port}"))])
    {
        let aims = Aims::new(&db).with("DATABASE_URL", &url);
        let reached = async {
            // PostgreSQL would not close the connection.
            loop {
                tokio::select! {
                    accepted = socket.accept() => drop(accepted.unwrap()),
                    accepted = tcp.accept() => drop(accepted.unwrap()),
                }
            }
        };
        let exit = tokio::select! {
            exit = aims.run(&[]) => exit,
            () = reached => unreachable!(),
        };
        exit.fails_with(&address);
        assert!(!exit.stderr.contains("u:p"), "{exit:?}");
        assert!(!exit.stderr.contains("lookup") && !exit.stderr.contains("No such file"), "{url}: {exit:?}");
    }
}

#[tokio::test]
async fn unreachable_database_server_is_reported() {
    let db = Database::sqlite();
    // A port that was just free.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let aims = Aims::new(&db).with("DATABASE_URL", &format!("postgres://someone:p4ssw0rd@{closed}/aims"));
    for command in [&[][..], &["bootstrap"], &["audit", "verify"]] {
        let exit = aims.run(command).await;
        exit.fails_with("cannot connect to the database");
        assert!(exit.stderr.contains("refused"), "the message must contain the cause: {exit:?}");
        assert!(!exit.stderr.contains("p4ssw0rd"), "{exit:?}");
    }
}

#[tokio::test]
async fn unusable_database_path_is_reported() {
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
            aims.run(command).await.fails_with("cannot use the database file");
        }
        aims.run(&["audit", "verify"]).await.fails_with("cannot ");
    }
    // A file that is not a database.
    let other = Aims::new(&db).with("DATABASE_URL", &format!("sqlite:///{}", file.display()));
    fs::write(&file, "this is no database, and long enough to be looked at ".repeat(100)).unwrap();
    other.run(&[]).await.fails_with("database");
    other.run(&["audit", "verify"]).await.fails_with("database");
    // No database at all: verification creates none.
    let none = Aims::new(&db);
    none.run(&["audit", "verify"]).await.fails_with("cannot ");
    assert!(!db.sqlite_file().exists());
}

#[tokio::test]
async fn unusable_key_path_is_reported() {
    let db = Database::sqlite();
    let nowhere = db.folder.path().join("nowhere/key");
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", nowhere.to_str().unwrap());
    aims.run(&[]).await.fails_with("cannot use the master key file");
    // An existing file is not overwritten, and no administrator is created if its key cannot be stored.
    let taken = db.folder.path().join("aims.bootstrap");
    fs::write(&taken, "mine").unwrap();
    Aims::new(&db).run(&[]).await.fails_with("aims.bootstrap");
    assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 0);
}

async fn wrong_master_key_is_reported(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let wrong = "ab".repeat(32);
    let exit = aims.with("MASTER_KEY", &wrong).run(&[]).await;
    exit.fails_with("master key");
    assert!(!exit.stderr.contains(&wrong), "{exit:?}");
    // The attempt does no harm.
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn missing_or_corrupt_master_key_file_is_reported() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    aims.bootstrap().await;
    let file = db.folder.path().join("aims.master-key");
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    aims.run(&[]).await.fails_with("aims.master-key is missing");
    assert!(!file.exists(), "no new key must be created");
    fs::write(&file, "nonsense-that-is-not-shown").unwrap();
    let exit = aims.run(&[]).await;
    exit.fails_with("does not hold 64 hexadecimal digits");
    assert!(!exit.stderr.contains("nonsense-that"), "{exit:?}");
    fs::write(&file, kept).unwrap();
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn new_database_with_an_old_master_key_is_reported() {
    const WARNING: &str = "already existed";
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    let process = aims.serve().await;
    assert!(!process.log().contains(WARNING), "{}", process.log());
    // A copy without the write-ahead log, which contains all data.
    for command in ["serve", "bootstrap"] {
        let copy = Database::sqlite();
        for file in ["aims.db", "aims.master-key"] {
            fs::copy(db.folder.path().join(file), copy.folder.path().join(file)).unwrap();
        }
        let copied = Aims::new(&copy).with("MASTER_KEY", "");
        let exit = if command == "serve" {
            copied.serve().await.stop().await
        } else {
            let exit = copied.run(&["bootstrap", "--json"]).await;
            exit.json();
            exit
        };
        assert!(exit.stderr.contains(WARNING) && exit.stderr.contains("aims.master-key"), "{command}: {exit:?}");
    }
    assert!(!process.stop().await.stderr.contains(WARNING));
    assert!(!aims.serve().await.stop().await.stderr.contains(WARNING));
}

#[tokio::test]
async fn master_key_readable_by_others_is_reported() {
    let db = Database::sqlite();
    let (path, key) = (db.folder.path().join("key"), "0f".repeat(32));
    fs::write(&path, &key).unwrap();
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", path.to_str().unwrap());
    for (mode, is_told) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let log = aims.serve().await.stop().await.stderr;
        let line = log.lines().find(|line| line.contains("can read the master key"));
        assert_eq!(line.is_some(), is_told, "{log}");
        assert!(line.is_none_or(|line| line.contains(path.to_str().unwrap()) && line.contains(&format!("{mode:04o}"))));
        assert!(!log.contains(&key), "{log}");
    }
}

/// Returns the value of a setting in the output of `check-config`.
fn setting_shown<'a>(exit: &'a Exit, name: &str) -> &'a str {
    let value = exit.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{exit:?}")).trim()
}
