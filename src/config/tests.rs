use super::*;

fn load(settings: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let settings: HashMap<_, _> = settings.iter().copied().collect();
    Config::load(|name| settings.get(name).map(|&value| value.to_owned()))
}

fn problems(settings: &[(&str, &str)]) -> String {
    load(settings).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn sqlite_path(url: &str) -> PathBuf {
    match load(&[("DATABASE_URL", url)]).unwrap().database {
        Location::Sqlite(path) => path,
        Location::Postgres(_) => panic!("{url}"),
    }
}

#[test]
fn nothing_needs_to_be_set() {
    let config = load(&[]).unwrap();
    assert_eq!(config.listen_addr.to_string(), "127.0.0.1:8000");
    assert_eq!(config.public_url.as_str(), "http://localhost:8000");
    assert_eq!((config.token_life.as_secs(), config.rotation_grace.as_secs()), (1_800, 86_400));
    assert_eq!((config.rate_limit_auth.get(), config.rate_limit_api.get()), (20, 60));
    assert!(matches!(config.signing, Signing::Asymmetric(SigningAlgorithm::Es256)));
    let MasterKeySource::File { path, may_create: true } = config.master_key else { panic!() };
    assert_eq!(path, Path::new("./aims.master-key"));
}

#[test]
fn every_spelling_of_a_database_is_understood() {
    for (url, path) in [
        ("sqlite:///./aims.db", "./aims.db"),
        ("sqlite:///aims.db", "aims.db"),
        ("sqlite:////var/lib/aims.db", "/var/lib/aims.db"),
        ("sqlite://aims.db", "aims.db"),
        ("sqlite:aims.db", "aims.db"),
        ("sqlite+aiosqlite:///./aims.db", "./aims.db"),
    ] {
        assert_eq!(sqlite_path(url), Path::new(path), "{url}");
    }
    for url in [
        "postgres://u:p@h/d",
        "postgresql://u:p@h/d",
        "postgresql+asyncpg://u:p@h/d",
        "Postgres://u:p@h/d",
        "postgres://u:p@[::1]:5432/d",
        "postgres://u:p%40%2F%3F%23@h/d",
        "postgres://u:p@ss@h/d",
        "postgres:///d?host=/var/run/postgresql",
        "postgres://u:p@/d?host=/var/run/postgresql",
        "postgres://%2Fvar%2Frun%2Fpostgresql/d",
        "postgres://u@h/d?options=-c%20search_path%3Da&user=a@b",
    ] {
        let config = load(&[("DATABASE_URL", url), ("MASTER_KEY", &"ab".repeat(32))]).unwrap();
        assert!(matches!(config.database, Location::Postgres(_)), "{url}");
    }
    for url in
        ["mysql://x", "sqlite://", "sqlite::memory:", "sqlite:///x?mode=ro", "aims.db", "postgres:", "sqlite:///d/"]
    {
        assert!(problems(&[("DATABASE_URL", url)]).starts_with("DATABASE_URL must"), "{url}");
    }
}

/// Part of a password must not be used as a host or logged as a parameter.
#[test]
fn a_password_that_is_not_encoded_is_refused() {
    for url in [
        "postgres://u:canary/x@h/d",
        "postgres://u:12/canary@h/d",
        "postgres://u:12?canary@h/d",
        "postgres://u:12#canary@h/d",
        "postgres://u:p@canary/x@h/d",
        "postgres://u:p@h:canary/d",
        "postgres://u:p@[::1/d",
        "postgres://u:canary@/d",
        "postgres://h/d?password=can@ry",
    ] {
        let told = problems(&[("DATABASE_URL", url)]);
        assert!(told.starts_with("DATABASE_URL must be postgres://") && !told.contains("can"), "{url}: {told}");
    }
}

#[test]
fn addresses_to_listen_on_are_read() {
    for (text, address) in [
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::]:8000", "[::]:8000"),
        ("[::1]:8000", "[::1]:8000"),
        ("localhost:8000", "127.0.0.1:8000"),
    ] {
        let config = load(&[("LISTEN_ADDR", text)]).unwrap();
        assert_eq!(config.listen_addr.to_string(), address);
        assert_eq!(config.public_url.as_str(), format!("http://localhost:{}", config.listen_addr.port()));
    }
    for (text, address) in [("", None), (" ", None), ("[::1]:9464", Some("[::1]:9464"))] {
        let config = load(&[("METRICS_ADDR", text)]).unwrap();
        assert_eq!(config.metrics_addr.map(|address| address.to_string()).as_deref(), address);
    }
    for text in ["::1:8000", "[::1]", "127.0.0.1", "aims.example:80", "127.0.0.1:65536"] {
        assert!(problems(&[("LISTEN_ADDR", text)]).starts_with("LISTEN_ADDR must"), "{text}");
    }
}

#[test]
fn trusted_proxies_are_networks() {
    let config = load(&[("TRUSTED_PROXIES", "10.0.0.0/8, ::ffff:192.0.2.1,2001:db8::/32")]).unwrap();
    let networks: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
}

#[test]
fn every_bad_value_is_named_and_all_at_once() {
    let bad = [
        ("LISTEN_ADDR", "8000"),
        ("METRICS_ADDR", "9464"),
        ("PUBLIC_URL", "https://user@host"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, nonsense"),
        ("CORS_ORIGINS", "https://app.example, *"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_EXPIRATION_MINUTES", "0"),
        ("KEY_ROTATION_GRACE_HOURS", "-1"),
        ("RATE_LIMIT_AUTH_PER_MINUTE", "0"),
        ("RATE_LIMIT_API_PER_MINUTE", "many"),
        ("AUDIT_REFUSALS_PER_MINUTE", "1.5"),
        ("AUDIT_REFUSALS_TOTAL_PER_MINUTE", "99"),
        ("AGENTS_IN_MEMORY", "1000"),
        ("MASTER_KEY", "abc"),
        ("MAX_CONNECTIONS", "0"),
        ("HEADER_TIMEOUT_SECONDS", "601"),
        ("LOG_LEVEL", "aims=loud=x"),
        ("LOG_FORMAT", "xml"),
    ];
    let problems = problems(&bad);
    for (name, _) in bad {
        assert!(problems.contains(&format!("{name} ")), "{name} is not in:\n{problems}");
    }
    assert_eq!(problems.lines().count(), bad.len());
}

#[test]
fn a_log_level_is_one() {
    for level in ["warn", "DEBUG", "off", "aims=debug", "warn,aims=trace", "info,sqlx=warn"] {
        assert_eq!(load(&[("LOG_LEVEL", level)]).unwrap().log_level, level);
    }
    // As the name of a part of the program these would silence every other.
    for level in ["loud", "warning", "aims", "info,loud", "aims=loud"] {
        assert!(problems(&[("LOG_LEVEL", level)]).starts_with("LOG_LEVEL must be error, warn, "), "{level}");
    }
}

#[test]
fn public_urls_are_issuers() {
    for url in ["https://id.example", "https://id.example/", "HTTP://H:1/"] {
        let config = load(&[("PUBLIC_URL", url)]).unwrap();
        assert_eq!(config.public_url.as_str(), url);
        assert!(config.describe().contains(&("PUBLIC_URL", url.to_owned())));
    }
    for url in ["id.example", "ftp://x", "https://x?y", "https://x#y", "/x"] {
        assert!(problems(&[("PUBLIC_URL", url)]).starts_with("PUBLIC_URL must be an http or https URL"), "{url}");
    }
    for url in ["https://id.example/aims", "https://id.example/aims/", "https://id.example//"] {
        assert!(problems(&[("PUBLIC_URL", url)]).starts_with("PUBLIC_URL must have no path"), "{url}");
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let config = load(&[("CORS_ORIGINS", "https://app.example, http://localhost:6274,")]).unwrap();
    assert_eq!(config.cors_origins, ["https://app.example", "http://localhost:6274"]);
    assert!(load(&[]).unwrap().cors_origins.is_empty());
    for other in [
        "*",
        "null",
        "app.example",
        "https://app.example/",
        "https://app.example:443",
        "https://APP.example",
        "https://user@app.example",
        "https://*.example",
        "file:///x",
        "ftp://app.example",
    ] {
        assert!(problems(&[("CORS_ORIGINS", other)]).contains(&format!("{other:?} is not an origin")), "{other}");
    }
}

#[test]
fn a_shared_secret_must_be_one() {
    let strong = "0123456789abcdef0123456789abcdef";
    assert!(matches!(load(&[("JWT_SECRET_KEY", strong)]).unwrap().signing, Signing::SharedSecret(_)));
    assert!(load(&[("JWT_SECRET_KEY", strong), ("JWT_ALGORITHM", "HS256")]).is_ok());
    assert!(problems(&[("JWT_SECRET_KEY", strong), ("JWT_ALGORITHM", "ES256")]).contains("JWT_ALGORITHM"));
    assert!(problems(&[("JWT_ALGORITHM", "HS256")]).contains("JWT_SECRET_KEY must be set"));
    for weak in
        ["short", "change-me-in-production-please-do-it-now", "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE", &"a".repeat(40)]
    {
        assert!(problems(&[("JWT_SECRET_KEY", weak)]).contains("openssl rand -hex 32"), "{weak}");
    }
}

#[test]
fn postgres_needs_a_master_key() {
    let postgres = ("DATABASE_URL", "postgres://u:p@h/d");
    assert!(problems(&[postgres]).contains("MASTER_KEY or MASTER_KEY_FILE or MASTER_KEY_COMMAND must be set"));
    let config = load(&[postgres, ("MASTER_KEY_FILE", "/run/key")]).unwrap();
    assert!(matches!(config.master_key, MasterKeySource::File { may_create: false, .. }));
    assert!(problems(&[("MASTER_KEY", &"ab".repeat(32)), ("MASTER_KEY_FILE", "x")]).contains("exclude each other"));
}

#[test]
fn a_master_key_comes_from_one_place() {
    let [key, other] = ["ab".repeat(32), "cd".repeat(32)];
    let value = ("MASTER_KEY", key.as_str());
    for (first, second) in [
        (value, ("MASTER_KEY_FILE", "x")),
        (value, ("MASTER_KEY_COMMAND", "x")),
        (("MASTER_KEY_FILE", "x"), ("MASTER_KEY_COMMAND", "x")),
    ] {
        let told = problems(&[first, second]);
        assert_eq!(told, format!("{} and {} exclude each other", first.0, second.0));
    }
    let both = load(&[value, ("MASTER_KEY_PREVIOUS", &other)]).unwrap().master_key;
    let MasterKeySource::Value(keys) = both else { panic!() };
    assert_eq!(keys.all().count(), 2);
    assert!(problems(&[value, ("MASTER_KEY_PREVIOUS", &key)]).starts_with("MASTER_KEY_PREVIOUS must differ"));
    assert!(problems(&[value, ("MASTER_KEY_PREVIOUS", "ab")]).starts_with("MASTER_KEY_PREVIOUS must be 64"));
    for alone in [vec![], vec![("MASTER_KEY_FILE", "x")], vec![("MASTER_KEY_COMMAND", "x")]] {
        let told = problems(&[alone, vec![("MASTER_KEY_PREVIOUS", other.as_str())]].concat());
        assert!(told.starts_with("MASTER_KEY_PREVIOUS goes with MASTER_KEY"), "{told}");
    }
    let both_wrong = problems(&[("MASTER_KEY", "x"), ("MASTER_KEY_PREVIOUS", "y")]);
    assert_eq!(both_wrong.lines().count(), 2, "{both_wrong}");
}

#[test]
fn a_command_is_split_at_its_spaces_only() {
    let config = load(&[("MASTER_KEY_COMMAND", "/usr/bin/kms  decrypt\t--key=canary")]).unwrap();
    let MasterKeySource::Command(command) = &config.master_key else { panic!() };
    assert_eq!(command.words(), ["/usr/bin/kms", "decrypt", "--key=canary"]);
    let shown = format!("{config:?}{:?}", config.describe());
    assert!(shown.contains("/usr/bin/kms (arguments not shown)") && !shown.contains("canary"), "{shown}");
    for command in ["cat 'a b'", "cat \"a\"", "cat $HOME/key", "cat a | head", "a; b", "a && b", "cat < key", "cat `x`"]
    {
        let told = problems(&[("MASTER_KEY_COMMAND", command)]);
        assert!(told.starts_with("MASTER_KEY_COMMAND runs without a shell"), "{command}: {told}");
    }
}

#[test]
fn no_secret_is_shown() {
    let canary = "canary7canary7canary7canary7canary7";
    let key = "c4".repeat(32);
    let shared = load(&[("JWT_SECRET_KEY", canary), ("MASTER_KEY", &key)]).unwrap();
    let postgres = load(&[("DATABASE_URL", &format!("postgres://u:{canary}@h/d")), ("MASTER_KEY", &key)]).unwrap();
    let parameter =
        load(&[("DATABASE_URL", &format!("postgres://h/d?password={canary}")), ("MASTER_KEY", &key)]).unwrap();
    let previous = load(&[("MASTER_KEY", &"ab".repeat(32)), ("MASTER_KEY_PREVIOUS", &key)]).unwrap();
    for config in [shared, postgres, parameter, previous] {
        let shown = format!("{config:?}{:?}", config.describe());
        assert!(!shown.contains("canary") && !shown.contains(&key), "{shown}");
    }
    let wrong = [("JWT_SECRET_KEY", "canary"), ("MASTER_KEY", "canary"), ("MASTER_KEY_PREVIOUS", "canary")];
    assert!(!problems(&wrong).contains("canary"));
    assert!(!problems(&[("MASTER_KEY_COMMAND", "canary $x")]).contains("canary"));
}

#[test]
fn backups_are_scheduled_with_a_folder_and_recipients() {
    let recipient = age::x25519::Identity::generate().to_public();
    assert!(load(&[("BACKUP_DIR", "/backups")]).unwrap().backups.is_none());
    let set = [("BACKUP_SCHEDULE", "daily 03:00"), ("BACKUP_DIR", "/backups"), ("BACKUP_KEEP", "3")];
    let backups = load(&set).unwrap().backups.unwrap();
    assert_eq!((backups.schedule, backups.keep), (Schedule::Daily { minute: 180 }, 3));
    for (name, value, expected) in [
        ("BACKUP_SCHEDULE", "hourly", "BACKUP_SCHEDULE must be a time such as daily 03:00 or every 6h"),
        ("BACKUP_DIR", "", "BACKUP_DIR must be set when BACKUP_SCHEDULE is set"),
        ("BACKUP_KEEP", "0", "BACKUP_KEEP must be a whole number from 1 to 10000"),
        ("BACKUP_ENCRYPT_TO", "x", "BACKUP_ENCRYPT_TO must hold recipients of age; number 1 is not an age recipient"),
    ] {
        let settings: Vec<_> = set.iter().copied().filter(|(set, _)| *set != name).chain([(name, value)]).collect();
        assert!(problems(&settings).contains(expected), "{}", problems(&settings));
    }
    let two = format!("{recipient}, AGE-SECRET-KEY-1NOTSHOWN");
    let problem = problems(&[("BACKUP_ENCRYPT_TO", &two)]);
    assert!(problem.contains("number 2 is a private key") && !problem.contains("NOTSHOWN"), "{problem}");
}
