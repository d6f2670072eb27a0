//! Every setting: read from the environment and `.env`, checked all at once, secrets redacted.

mod env_file;
mod parse;

use std::{
    collections::HashMap,
    env, fmt,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::HeaderValue;
use ipnet::IpNet;
use secrecy::SecretString;

use crate::{
    crypto::MasterKey,
    domain::{
        PublicUrl,
        audit::RefusalBounds,
        token::{LIFE_MAX, SigningAlgorithm},
    },
    store::db::Location,
    web::server::serve::Limits,
};
use parse::HINT;

/// A setting: its name, what it is when not set, and what it means.
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// The value when not set.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! settings {
    ($($name:literal, $default:literal, $meaning:literal;)+) => {
        /// Every setting. `README.md` shows the same table.
        pub const SETTINGS: &[Setting] = &[$(Setting { name: $name, default: $default, meaning: $meaning }),+];
    };
}

settings! {
    "DATABASE_URL", "sqlite:///./aims.db", "`sqlite:///./relative.db`, `sqlite:////absolute.db`, `postgres://user:password@host/name`, or `postgres:///name?host=/socket/folder`";
    "LISTEN_ADDR", "127.0.0.1:8000", "Address and port to listen on";
    "PUBLIC_URL", "http://localhost:8000", "The URL that clients use, without a path. Issuer and audience of access tokens, exactly as written. By default with the port of `LISTEN_ADDR`";
    "TRUSTED_PROXIES", "", "Addresses and networks, separated by commas, whose `X-Forwarded-For` is believed";
    "CORS_ORIGINS", "", "Origins such as `https://app.example`, separated by commas, whose pages may call the JSON API and introspection from a browser";
    "JWT_ALGORITHM", "ES256", "Signs access tokens: `ES256`, `EdDSA`, `RS256`, or `HS256` with `JWT_SECRET_KEY`";
    "JWT_SECRET_KEY", "", "Shared secret of at least 32 bytes; switches to `HS256`";
    "SIGNING_KEY_ROTATION_DAYS", "30", "How long a key signs access tokens before the next one does, 1 to 365; 0: until `aims signing-keys rotate`";
    "JWT_EXPIRATION_MINUTES", "30", "Life of an access token, 1 to 1440";
    "DELEGATION_DEPTH_MAX", "5", "How many agents may act for another one after the other, 0 to 16; 0: none may";
    "FEDERATION_ALLOW_PRIVATE_ADDRESSES", "false", "`true`: foreign issuers may be asked for their keys at loopback, link-local and private addresses, and over http";
    "KEY_ROTATION_GRACE_HOURS", "24", "How long a rotated API key still works, 0 to 720";
    "RATE_LIMIT_AUTH_PER_MINUTE", "20", "Token exchanges and sign-ins per minute and client address";
    "RATE_LIMIT_API_PER_MINUTE", "60", "Other requests per minute and client address";
    "AUDIT_REFUSALS_PER_MINUTE", "60", "Refusals recorded one by one, per minute and client address, agent or account; the rest are counted";
    "AUDIT_REFUSALS_TOTAL_PER_MINUTE", "1000", "Refusals recorded one by one, per minute on each node, 100 to 1000000000. Parts are reserved for agents, for people and their accounts, and for networks with few refusals";
    "MASTER_KEY", "", "64 hexadecimal digits that seal the signing keys in the database";
    "MASTER_KEY_FILE", "aims.master-key", "File that holds the master key; by default beside the SQLite database, made at the first start. PostgreSQL needs this or `MASTER_KEY`";
    "AGENTS_IN_MEMORY", "16384", "Most agents that are remembered, 1024 to 16777216, as a rule at 1.3 KiB each; whoever else comes is read from the database";
    "MAX_CONNECTIONS", "4096", "Most connections at a time, 1 to 65536; a further one takes the place of one that its client has left idle, or waits";
    "MAX_REQUESTS", "1024", "Most requests at a time, 1 to 65536; further ones are answered with 503 and `Retry-After`. While most are turned away, a sixteenth of it";
    "HEADER_TIMEOUT_SECONDS", "10", "How long a request's headers may take, and a connection may idle, 1 to 600";
    "REQUEST_TIMEOUT_SECONDS", "30", "How long a request may take to arrive, and then until its answer begins, 1 to 600";
    "DRAIN_SECONDS", "9", "How long requests may take to finish at the end, 0 to 600";
    "LOG_LEVEL", "info", "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `aims=debug`";
    "LOG_FORMAT", "text", "`text` or `json`";
}

/// Largest body that is read, in bytes.
const BODY_BYTES: usize = 1024 * 1024;

/// A setting that is not valid: its name, what is wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What signs access tokens.
#[derive(Clone, Debug)]
pub enum Signing {
    /// A generated key pair.
    Asymmetric(SigningAlgorithm),
    /// A shared secret, with HS256.
    SharedSecret(SecretString),
}

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// From the environment.
    Value(MasterKey),
    /// From a file.
    File {
        /// The file.
        path: PathBuf,
        /// Whether the first start makes it.
        may_create: bool,
    },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Every setting, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the database is.
    pub database: Location,
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// The URL that clients use.
    pub public_url: PublicUrl,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose scripts may read the answers of the JSON API.
    pub cors_origins: Vec<HeaderValue>,
    /// What signs access tokens.
    pub signing: Signing,
    /// How long a key signs access tokens; `None` for as long as nobody rotates it.
    pub signing_key_rotation: Option<Duration>,
    /// Life of an access token.
    pub token_life: Duration,
    /// How many agents may act for a token's subject one after another.
    pub delegation_depth: usize,
    /// Whether foreign issuers may be asked at private addresses.
    pub federation_allow_private: bool,
    /// How long a rotated key still works.
    pub rotation_grace: Duration,
    /// Token exchanges per minute and client network.
    pub rate_limit_auth: NonZeroU32,
    /// Other requests per minute and client network.
    pub rate_limit_api: NonZeroU32,
    /// How many refusals are recorded one by one.
    pub refusals: RefusalBounds,
    /// Most agents that the live view holds.
    pub agents_in_memory: usize,
    /// Where the master key comes from.
    pub master_key: MasterKeySource,
    /// What bounds connections and requests.
    pub serving: Limits,
    /// What is logged.
    pub log_level: String,
    /// How it looks.
    pub log_format: LogFormat,
    shown: Vec<(&'static str, String)>,
}

impl Config {
    /// Reads the environment of the process, and `.env` in the working directory for what the environment leaves out.
    ///
    /// # Errors
    /// All settings that cannot be read, or else all that are invalid.
    pub fn from_env() -> Result<Self, Vec<Problem>> {
        let (mut values, mut problems) = match env_file::read(Path::new(".env")) {
            Ok(values) => (values, Vec::new()),
            Err(problems) => (HashMap::new(), problems),
        };
        for Setting { name, .. } in SETTINGS {
            match env::var(name) {
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => drop(values.insert((*name).to_owned(), value)),
                Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => problems.push(Problem(format!("{name} is not UTF-8"))),
            }
        }
        if problems.is_empty() { Self::load(|name| values.get(name).cloned()) } else { Err(problems) }
    }

    /// Reads settings from anywhere; an empty value counts as not set.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { lookup: &lookup, problems: Vec::new() };
        let database = reader.parsed("DATABASE_URL", parse::database);
        let listen_addr = reader.parsed("LISTEN_ADDR", parse::listen_addr);
        let default_url = listen_addr.map(|address| format!("http://localhost:{}", address.port()));
        let public_url = reader.set("PUBLIC_URL").or(default_url);
        let public_url = public_url.and_then(|url| reader.check("PUBLIC_URL", parse::public_url(&url)));
        let trusted_proxies = reader.parsed("TRUSTED_PROXIES", parse::networks);
        let cors_origins = reader.parsed("CORS_ORIGINS", parse::origins);
        let signing = reader.signing();
        let signing_key_days = reader.number("SIGNING_KEY_ROTATION_DAYS", 0, 365);
        let token_life = reader.minutes("JWT_EXPIRATION_MINUTES", 1, LIFE_MAX.as_secs() / 60);
        let delegation_depth =
            reader.number("DELEGATION_DEPTH_MAX", 0, 16).and_then(|depth| usize::try_from(depth).ok());
        let federation_allow_private = reader.parsed("FEDERATION_ALLOW_PRIVATE_ADDRESSES", parse::truth);
        let rotation_grace = reader.number("KEY_ROTATION_GRACE_HOURS", 0, 720).map(|h| Duration::from_secs(h * 3_600));
        let rate_limit_auth = reader.parsed("RATE_LIMIT_AUTH_PER_MINUTE", parse::rate);
        let rate_limit_api = reader.parsed("RATE_LIMIT_API_PER_MINUTE", parse::rate);
        let refusals_each = reader.parsed("AUDIT_REFUSALS_PER_MINUTE", parse::rate);
        let refusals_total = reader.number("AUDIT_REFUSALS_TOTAL_PER_MINUTE", 100, 1_000_000_000);
        let master_key = reader.master_key(database.as_ref(), signing.as_ref());
        let agents_in_memory = reader.number("AGENTS_IN_MEMORY", 1_024, 16_777_216);
        let max_connections = reader.number("MAX_CONNECTIONS", 1, 65_536);
        let max_requests = reader.number("MAX_REQUESTS", 1, 65_536);
        let header_timeout = reader.seconds("HEADER_TIMEOUT_SECONDS", 1);
        let request_timeout = reader.seconds("REQUEST_TIMEOUT_SECONDS", 1);
        let drain = reader.seconds("DRAIN_SECONDS", 0);
        let log_level = reader.parsed("LOG_LEVEL", parse::log_level);
        let log_format = reader.parsed("LOG_FORMAT", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be text or json".to_owned()),
        });
        let mut shown: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, reader.shown(setting))).collect();
        for (name, value) in &mut shown {
            match (*name, &public_url, &master_key) {
                ("PUBLIC_URL", Some(url), _) => url.as_str().clone_into(value),
                ("MASTER_KEY_FILE", _, Some(MasterKeySource::File { path, .. })) => *value = path.display().to_string(),
                _ => {}
            }
        }
        let problems = std::mem::take(&mut reader.problems);
        let config = (|| {
            Some(Self {
                database: database?,
                listen_addr: listen_addr?,
                public_url: public_url?,
                trusted_proxies: trusted_proxies?,
                cors_origins: cors_origins?,
                signing: signing?,
                signing_key_rotation: Some(signing_key_days?)
                    .filter(|&days| days > 0)
                    .map(|days| Duration::from_hours(days * 24)),
                token_life: token_life?,
                delegation_depth: delegation_depth?,
                federation_allow_private: federation_allow_private?,
                rotation_grace: rotation_grace?,
                rate_limit_auth: rate_limit_auth?,
                rate_limit_api: rate_limit_api?,
                refusals: RefusalBounds { each: refusals_each?.get(), total: u32::try_from(refusals_total?).ok()? },
                agents_in_memory: usize::try_from(agents_in_memory?).ok()?,
                master_key: master_key?,
                serving: Limits {
                    header_timeout: header_timeout?,
                    request_timeout: request_timeout?,
                    max_connections: usize::try_from(max_connections?).ok()?,
                    max_requests: usize::try_from(max_requests?).ok()?,
                    drain: drain?,
                    body_bytes: BODY_BYTES,
                },
                log_level: log_level?,
                log_format: log_format?,
                shown,
            })
        })();
        config.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Every setting with its value; secrets are not shown.
    #[must_use]
    pub fn describe(&self) -> &[(&'static str, String)] {
        &self.shown
    }
}

struct Reader<'l> {
    lookup: &'l dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn set(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn check<T>(&mut self, name: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|wrong| self.problems.push(Problem(format!("{name} {wrong}")))).ok()
    }

    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let default = SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.default);
        let text = self.set(name).unwrap_or_else(|| default.unwrap_or_default().to_owned());
        self.check(name, parse(&text))
    }

    fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        self.parsed(name, |text| match u64::from_str(text) {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        })
    }

    fn minutes(&mut self, name: &str, min: u64, max: u64) -> Option<Duration> {
        self.number(name, min, max).map(Duration::from_mins)
    }

    fn seconds(&mut self, name: &str, min: u64) -> Option<Duration> {
        self.number(name, min, 600).map(Duration::from_secs)
    }

    fn signing(&mut self) -> Option<Signing> {
        let secret = self.set("JWT_SECRET_KEY");
        let chosen = self.set("JWT_ALGORITHM");
        let algorithm = self.parsed("JWT_ALGORITHM", |text| {
            SigningAlgorithm::parse(text).ok_or_else(|| "must be ES256, EdDSA, RS256 or HS256".to_owned())
        });
        match (secret, algorithm?) {
            (Some(_), algorithm) if chosen.is_some() && algorithm != SigningAlgorithm::Hs256 => {
                let wrong = "must be HS256, or not be set, when JWT_SECRET_KEY is set".to_owned();
                self.check("JWT_ALGORITHM", Err(wrong))
            }
            (Some(secret), _) => self.check("JWT_SECRET_KEY", parse::secret(secret)).map(Signing::SharedSecret),
            (None, SigningAlgorithm::Hs256) => {
                self.check("JWT_SECRET_KEY", Err("must be set when JWT_ALGORITHM is HS256".to_owned()))
            }
            (None, algorithm) => Some(Signing::Asymmetric(algorithm)),
        }
    }

    fn master_key(&mut self, database: Option<&Location>, signing: Option<&Signing>) -> Option<MasterKeySource> {
        match (self.set("MASTER_KEY"), self.set("MASTER_KEY_FILE")) {
            (Some(_), Some(_)) => self.check("MASTER_KEY", Err("and MASTER_KEY_FILE exclude each other".to_owned())),
            (Some(key), None) => {
                let key = MasterKey::from_hex(&key).map(MasterKeySource::Value);
                self.check("MASTER_KEY", key.ok_or_else(|| format!("must be 64 hexadecimal digits; {HINT}")))
            }
            (None, file) => {
                let may_create = matches!(database?, Location::Sqlite(_));
                let beside = match database? {
                    Location::Sqlite(path) => Some(default_master_key(path)),
                    // A shared secret signs without a master key, so the file that is named here is never opened.
                    Location::Postgres(_) if matches!(signing, None | Some(Signing::SharedSecret(_))) => {
                        Some(PathBuf::from("aims.master-key"))
                    }
                    Location::Postgres(_) => None,
                };
                let path = file.map(PathBuf::from).or(beside);
                let path = path.ok_or_else(|| format!("or MASTER_KEY_FILE must be set with PostgreSQL; {HINT}"));
                self.check("MASTER_KEY", path).map(|path| MasterKeySource::File { path, may_create })
            }
        }
    }

    fn shown(&self, setting: &Setting) -> String {
        match (self.set(setting.name), setting.name) {
            (Some(_), "JWT_SECRET_KEY" | "MASTER_KEY") => "(set, not shown)".to_owned(),
            (Some(url), "DATABASE_URL") => without_password(&url),
            (Some(value), _) => value,
            (None, _) if setting.default.is_empty() => "(not set)".to_owned(),
            (None, _) => format!("{} (default)", setting.default),
        }
    }
}

/// Where the master key of an SQLite database is when nothing else is said.
#[must_use]
pub fn default_master_key(database: &Path) -> PathBuf {
    database.with_extension("master-key")
}

/// Leaves out the user, the password and the parameters, one of which may be a password.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://(not shown)@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
