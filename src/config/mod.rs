//! The settings, read from the environment and `.env`. All mistakes are reported at once; secrets are redacted.

mod env_file;
mod parse;
mod table;
mod traces;

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
    crypto::{MasterKey, MasterKeys, envelope::Recipient},
    domain::{
        PublicUrl, Schedule,
        audit::RefusalBounds,
        token::{LIFE_MAX, SigningAlgorithm},
    },
    store::db::Location,
    telemetry::traces::Collector,
    web::server::serve::Limits,
};
use parse::HINT;
pub use table::{SECTIONS, Section, Setting, settings};

/// Largest request body, in bytes.
const BODY_BYTES: usize = 1024 * 1024;

/// An invalid setting: its name, what is wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How access tokens are signed.
#[derive(Clone, Debug)]
pub enum Signing {
    /// A generated key pair.
    Asymmetric(SigningAlgorithm),
    /// A shared secret (HS256).
    SharedSecret(SecretString),
}

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// From the environment.
    Value(MasterKeys),
    /// From a file.
    File {
        /// The file that holds it.
        path: PathBuf,
        /// Whether the first start creates the file, and a rotation changes it. Not if other nodes may have copies.
        may_create: bool,
    },
    /// From the output of a program.
    Command(KeyCommand),
}

/// A program that prints the master key, and its arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCommand(Vec<String>);

impl KeyCommand {
    /// Returns the program, followed by its arguments.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for KeyCommand {
    /// Arguments may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyCommand").field(&self.0.first()).finish_non_exhaustive()
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Scheduled backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// When they are made.
    pub schedule: Schedule,
    /// The folder of the files.
    pub folder: PathBuf,
    /// How many of them are kept.
    pub keep: usize,
    /// Recipients of the backups. Empty if backups are not encrypted.
    pub recipients: Vec<Recipient>,
}

/// The validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Location of the database.
    pub database: Location,
    /// Address to listen on.
    pub listen_addr: SocketAddr,
    /// Address that serves metrics, if any.
    pub metrics_addr: Option<SocketAddr>,
    /// The URL that clients use.
    pub public_url: PublicUrl,
    /// Whether `PUBLIC_URL` or `LISTEN_ADDR` is set, so that the public URL is not only a default.
    pub address_is_set: bool,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose scripts may call the JSON API.
    pub cors_origins: Vec<HeaderValue>,
    /// How access tokens are signed.
    pub signing: Signing,
    /// How long a signing key signs before it is rotated; `None` turns automatic rotation off.
    pub signing_key_rotation: Option<Duration>,
    /// Lifetime of access tokens.
    pub token_life: Duration,
    /// Longest chain of agents that act on behalf of one another.
    pub delegation_depth: usize,
    /// Whether keys of external issuers may be fetched from private addresses and over plain HTTP.
    pub federation_allow_private: bool,
    /// How long a rotated API key still works by default.
    pub rotation_grace: Duration,
    /// Token exchanges and sign-ins per minute, for each client network.
    pub rate_limit_auth: NonZeroU32,
    /// Other requests per minute, for each client network.
    pub rate_limit_api: NonZeroU32,
    /// Limits on refusals with an audit record of their own.
    pub refusals: RefusalBounds,
    /// Capacity of the live view, in agents.
    pub agents_in_memory: usize,
    /// Where the master key comes from.
    pub master_key: MasterKeySource,
    /// Limits on connections and requests.
    pub serving: Limits,
    /// The scheduled backups, if any.
    pub backups: Option<Backups>,
    /// Filter of log lines.
    pub log_level: String,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Where traces are sent, if anywhere.
    pub traces: Option<Collector>,
    shown: Vec<(&'static str, String)>,
}

impl Config {
    /// Reads the environment, and the file `.env` in the working directory for settings that the environment lacks.
    ///
    /// # Errors
    /// All settings that cannot be read or, if there are none, all that are invalid.
    pub fn from_env() -> Result<Self, Vec<Problem>> {
        let (mut values, mut problems) = match env_file::read(Path::new(".env")) {
            Ok(values) => (values, Vec::new()),
            Err(problems) => (HashMap::new(), problems),
        };
        for Setting { name, .. } in settings() {
            match env::var(name) {
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => drop(values.insert((*name).to_owned(), value)),
                Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => problems.push(Problem(format!("{name} is not UTF-8"))),
            }
        }
        if problems.is_empty() { Self::load(|name| values.get(name).cloned()) } else { Err(problems) }
    }

    /// Reads settings through `lookup`. An empty value counts as not set.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn load(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { lookup: &lookup, problems: Vec::new() };
        let database = reader.parsed("DATABASE_URL", parse::database);
        let listen_addr = reader.parsed("LISTEN_ADDR", parse::listen_addr);
        let metrics_addr = reader.parsed("METRICS_ADDR", parse::metrics_addr);
        let address_is_set = reader.set("PUBLIC_URL").or_else(|| reader.set("LISTEN_ADDR")).is_some();
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
        let backups = reader.backups();
        let log_level = reader.parsed("LOG_LEVEL", parse::log_level);
        let log_format = reader.parsed("LOG_FORMAT", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be text or json".to_owned()),
        });
        let traces = traces::read(&mut reader);
        let mut shown: Vec<_> = settings().map(|setting| (setting.name, reader.shown(setting))).collect();
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
                metrics_addr: metrics_addr?,
                public_url: public_url?,
                address_is_set,
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
                backups: backups.ok()?,
                log_level: log_level?,
                log_format: log_format?,
                traces: traces?,
                shown,
            })
        })();
        config.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Returns every setting with its value; secrets are redacted.
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
        let default = settings().find(|setting| setting.name == name).map(|setting| setting.default);
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
        let previous = self.set("MASTER_KEY_PREVIOUS");
        let [key, file, command] = ["MASTER_KEY", "MASTER_KEY_FILE", "MASTER_KEY_COMMAND"].map(|name| self.set(name));
        let exclusive = [("MASTER_KEY", &key), ("MASTER_KEY_FILE", &file), ("MASTER_KEY_COMMAND", &command)];
        let mut given = exclusive.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return self.check(first, Err(format!("and {second} exclude each other")));
        }
        if previous.is_some() && key.is_none() {
            let wrong = "goes with MASTER_KEY; a file or a command gives the previous key on a second line";
            return self.check("MASTER_KEY_PREVIOUS", Err(wrong.to_owned()));
        }
        match (key, command) {
            (Some(key), _) => self.master_keys(&key, previous.as_deref()).map(MasterKeySource::Value),
            (None, Some(command)) => {
                let words = self.check("MASTER_KEY_COMMAND", parse::command(&command));
                words.map(KeyCommand).map(MasterKeySource::Command)
            }
            (None, None) => {
                let may_create = matches!(database?, Location::Sqlite(_));
                let beside = match database? {
                    Location::Sqlite(path) => Some(default_master_key(path)),
                    // HS256 needs no master key, so this file is never opened.
                    Location::Postgres(_) if matches!(signing, None | Some(Signing::SharedSecret(_))) => {
                        Some(PathBuf::from("aims.master-key"))
                    }
                    Location::Postgres(_) => None,
                };
                let path = file.map(PathBuf::from).or(beside);
                let path = path.ok_or_else(|| {
                    format!("or MASTER_KEY_FILE or MASTER_KEY_COMMAND must be set with PostgreSQL; {HINT}")
                });
                self.check("MASTER_KEY", path).map(|path| MasterKeySource::File { path, may_create })
            }
        }
    }

    /// The error says nothing: the problem is noted.
    fn backups(&mut self) -> Result<Option<Backups>, ()> {
        let schedule = self.parsed("BACKUP_SCHEDULE", parse::schedule);
        let keep = self.number("BACKUP_KEEP", 1, 10_000).and_then(|keep| usize::try_from(keep).ok());
        let recipients = self.parsed("BACKUP_ENCRYPT_TO", parse::recipients);
        let folder = self.set("BACKUP_DIR").map(PathBuf::from);
        match (schedule.ok_or(())?, folder) {
            (None, _) => Ok(None),
            (Some(_), None) => {
                self.problems.push(Problem("BACKUP_DIR must be set when BACKUP_SCHEDULE is set".to_owned()));
                Err(())
            }
            (Some(schedule), Some(folder)) => {
                Ok(Some(Backups { schedule, folder, keep: keep.ok_or(())?, recipients: recipients.ok_or(())? }))
            }
        }
    }

    fn master_keys(&mut self, key: &str, previous: Option<&str>) -> Option<MasterKeys> {
        let wrong = || format!("must be 64 hexadecimal digits; {HINT}");
        let key = self.check("MASTER_KEY", MasterKey::from_hex(key).ok_or_else(wrong));
        let Some(previous) = previous else { return key.map(MasterKeys::one) };
        let previous = self.check("MASTER_KEY_PREVIOUS", MasterKey::from_hex(previous).ok_or_else(wrong));
        let both = MasterKeys::two(key?, previous?).ok_or_else(|| "must differ from MASTER_KEY".to_owned());
        self.check("MASTER_KEY_PREVIOUS", both)
    }

    fn shown(&self, setting: &Setting) -> String {
        match (self.set(setting.name), setting.name) {
            (Some(_), "JWT_SECRET_KEY" | "MASTER_KEY" | "MASTER_KEY_PREVIOUS" | "OTEL_EXPORTER_OTLP_HEADERS") => {
                "(set, not shown)".to_owned()
            }
            (Some(command), "MASTER_KEY_COMMAND") => parse::program(&command),
            (Some(url), "DATABASE_URL") => without_password(&url),
            (Some(value), _) => value,
            (None, _) if setting.default.is_empty() => "(not set)".to_owned(),
            (None, _) => format!("{} (default)", setting.default),
        }
    }
}

/// Returns the default path of the master key for an SQLite database.
#[must_use]
pub fn default_master_key(database: &Path) -> PathBuf {
    database.with_extension("master-key")
}

/// Removes the user, the password and the parameters, which may include a password.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://(not shown)@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
