//! Parsers of settings. An error continues a sentence that starts with the setting's name.

use std::{net::SocketAddr, num::NonZeroU32, path::Path, str::FromStr};

use http::HeaderValue;
use ipnet::IpNet;
use secrecy::SecretString;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::Url;

use crate::{
    crypto::envelope::Recipient,
    domain::{PublicUrl, Schedule, credential::network},
    store::db::Location,
};

/// How to create a secret.
pub(super) const HINT: &str = "create one with: openssl rand -hex 32";
/// Parts of placeholder secrets that are common in examples.
const PLACEHOLDERS: [&str; 6] = ["change-me", "change_me", "changeme", "change me", "change-in", "your-secret"];

/// Accepts plain URLs and those of `SQLAlchemy`, which may name a driver (`sqlite+aiosqlite`).
pub(super) fn database(url: &str) -> Result<Location, String> {
    const ALLOWED: &str = "must be sqlite:///path or postgres://user:password@host/name";
    let (scheme, rest) = url.split_once(':').ok_or(ALLOWED)?;
    match scheme.split('+').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "sqlite" => {
            let path = match rest.strip_prefix("///") {
                Some(path) => path,
                None => rest.strip_prefix("//").unwrap_or(rest),
            };
            if path.contains(['?', '#']) {
                return Err("must name a file only, without parameters".to_owned());
            }
            if path.is_empty() || path.ends_with('/') || path.contains(":memory:") {
                return Err("must name a file: AIMS does not support in-memory databases".to_owned());
            }
            Ok(Location::Sqlite(Path::new(path).to_owned()))
        }
        "postgres" | "postgresql" if rest.len() > 2 && rest.starts_with("//") => postgres(&format!("postgres:{rest}")),
        _ => Err(ALLOWED.to_owned()),
    }
}

/// An unencoded character in a password can turn the rest of it into the host or a parameter, both of which are shown.
fn postgres(url: &str) -> Result<Location, String> {
    const ALLOWED: &str = "must be postgres://user:password@host/name, with @ : / ? # in a user name or password written as \
        %40 %3A %2F %3F %23";
    let (hierarchy, parameters) = url.split_once('?').unwrap_or((url, ""));
    let hierarchy = hierarchy.strip_prefix("postgres://").unwrap_or_default();
    let (authority, path) = hierarchy.split_once('/').unwrap_or((hierarchy, ""));
    let is_ambiguous =
        url.contains('#') || path.contains('@') || (parameters.contains('@') && !authority.contains('@'));
    // `Url` cannot parse a user without a host; the parameter then replaces the host.
    let is_elsewhere = parameters.split('&').any(|parameter| parameter.starts_with("host="));
    let url = if authority.ends_with('@') && is_elsewhere {
        format!("postgres://{authority}localhost/{path}?{parameters}")
    } else {
        url.to_owned()
    };
    if is_ambiguous || Url::parse(&url).is_err() {
        return Err(ALLOWED.to_owned());
    }
    Ok(Location::Postgres(url.into()))
}

pub(super) fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8000 or [::]:8000".to_owned())
}

/// No address turns the metrics off.
pub(super) fn metrics_addr(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() { Ok(None) } else { listen_addr(text).map(Some) }
}

pub(super) fn public_url(text: &str) -> Result<PublicUrl, String> {
    PublicUrl::parse(text).map_err(str::to_owned)
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    network::parse_networks(text).map_err(|part| format!("must hold addresses and networks; {part:?} is neither"))
}

/// Origins as browsers write them, because they are compared exactly. Wildcards are refused: a page that calls the API holds a
/// token, so the operator knows which pages those are.
pub(super) fn origins(text: &str) -> Result<Vec<HeaderValue>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let origin = |part: &str| {
        let is_origin = Url::parse(part).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.origin().ascii_serialization() == part
                && !part.contains('*')
        });
        let value = HeaderValue::from_str(part).ok().filter(|_| is_origin);
        value.ok_or_else(|| {
            format!("must hold origins such as https://app.example, without a path; {part:?} is not an origin")
        })
    };
    parts.map(origin).collect()
}

pub(super) fn schedule(text: &str) -> Result<Option<Schedule>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Schedule::parse(text).map(Some).ok_or_else(|| "must be a time such as daily 03:00 or every 6h".to_owned())
}

/// The error repeats nothing: somebody may have entered a private key.
pub(super) fn recipients(text: &str) -> Result<Vec<Recipient>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let recipient = |(number, part): (usize, &str)| {
        Recipient::parse(part).map_err(|wrong| format!("must hold recipients of age; number {number} {wrong}"))
    };
    (1..).zip(parts).map(recipient).collect()
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

pub(super) fn rate(text: &str) -> Result<NonZeroU32, String> {
    const MAX: u32 = 1_000_000_000;
    let rate = NonZeroU32::from_str(text).ok().filter(|rate| rate.get() <= MAX);
    rate.ok_or_else(|| format!("must be a whole number from 1 to {MAX}"))
}

/// Rejects unknown words: the filter would read one as a module name and silence all others.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let allowed = || "must be error, warn, info, debug or trace, or directives such as aims=debug".to_owned();
    let mut directives = text.split(',').map(str::trim);
    let known = directives.all(|directive| directive.contains('=') || LevelFilter::from_str(directive).is_ok());
    if !known {
        return Err(allowed());
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|_| allowed())
}

pub(super) fn secret(secret: String) -> Result<SecretString, String> {
    let lower = secret.to_ascii_lowercase();
    if PLACEHOLDERS.iter().any(|placeholder| lower.contains(placeholder)) {
        return Err(format!("is a well-known placeholder; {HINT}"));
    }
    if secret.len() < 32 {
        return Err(format!("must be at least 32 bytes; {HINT}"));
    }
    if secret.bytes().all(|byte| Some(byte) == secret.bytes().next()) {
        return Err(format!("is one character repeated; {HINT}"));
    }
    Ok(secret.into())
}

/// Splits a command at its spaces. A shell would give more characters a meaning, and a value with such a character would
/// not do here what it does there, so it is rejected.
pub(super) fn command(text: &str) -> Result<Vec<String>, String> {
    if text.contains(['\'', '"', '\\', '`', '$', '|', '&', ';', '<', '>', '(', ')', '*', '?']) {
        return Err(
            "runs without a shell: it must hold a program and arguments, separated by spaces, without quotes and \
            other special characters; put anything else in a script"
                .to_owned(),
        );
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Returns the program of a command. Its arguments may hold a secret.
pub(super) fn program(command: &str) -> String {
    match command.split_once(char::is_whitespace) {
        Some((program, _)) => format!("{program} (arguments not shown)"),
        None => command.to_owned(),
    }
}
