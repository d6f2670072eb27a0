//! `aims admin` and `aims setup-token`: administrators, managed from the host. Both work while the service runs.

use std::{
    io::{self, BufRead},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    domain::{Administrator, Error, Role, Username, person::password::NewPassword},
    service::{
        Caller,
        people::{
            administrators,
            factors::{self, Kind},
        },
    },
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create an administrator. Without `--password-stdin`, a password is generated and shown once.
    Create(Create),
    /// List the administrators.
    List(Format),
    /// Set an administrator's password, end their sessions and clear failed sign-ins.
    ResetPassword(ResetPassword),
    /// Remove lost second factors of an administrator and end their sessions. The password stays.
    ResetFactors(ResetFactors),
    /// Disable an administrator and end their sessions.
    Disable(Named),
    /// Enable a disabled administrator.
    Enable(Named),
}

#[derive(Args)]
pub(super) struct Create {
    /// Username to sign in with.
    username: String,
    /// Display name in the console. Defaults to the username.
    #[arg(long)]
    name: Option<String>,
    /// Role: `viewer`, `operator` or `owner`.
    #[arg(long, default_value = "viewer")]
    role: String,
    #[command(flatten)]
    password: Password,
}

#[derive(Args)]
pub(super) struct ResetPassword {
    /// Username of the administrator.
    username: String,
    /// Also remove their authenticator app, recovery codes and passkeys.
    #[arg(long)]
    every_factor: bool,
    #[command(flatten)]
    password: Password,
}

#[derive(Args)]
pub(super) struct ResetFactors {
    /// Username of the administrator.
    username: String,
    /// Remove only the authenticator app and its recovery codes.
    #[arg(long, conflicts_with = "passkeys")]
    authenticator: bool,
    /// Remove only the passkeys.
    #[arg(long)]
    passkeys: bool,
}

#[derive(Args)]
pub(super) struct Password {
    /// Read the password from the first line of standard input instead of generating one.
    #[arg(long)]
    password_stdin: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Format {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Named {
    /// Username of the administrator.
    username: String,
}

pub(super) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    let app = App::open_beside(config, Environment::system()).await?;
    let outcome = carry_out(&app, command).await;
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn carry_out(app: &App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create(app, arguments).await,
        Command::List(format) => list(app, &format).await,
        Command::ResetPassword(arguments) => reset_password(app, arguments).await,
        Command::ResetFactors(arguments) => reset_factors(app, arguments).await,
        Command::Disable(Named { username }) => {
            let person = find(app, &username).await?;
            administrators::disable(app.services(), &Caller::system(), person.id).await?;
            say(format_args!("{} is disabled and signed out", person.username))
        }
        Command::Enable(Named { username }) => {
            let person = find(app, &username).await?;
            administrators::enable(app.services(), &Caller::system(), person.id).await?;
            say(format_args!("{} can sign in again", person.username))
        }
    }
}

async fn create(app: &App, arguments: Create) -> Result<(), Failure> {
    let username = parse("the username", Username::parse(&arguments.username))?;
    let name = arguments.name.as_deref().unwrap_or(username.as_str());
    let (text, password) = arguments.password.choose(app, &username)?;
    let new = administrators::NewAdministrator {
        display_name: parse("the name", Administrator::parse_display_name(name))?,
        role: parse("the role", Role::parse(&arguments.role))?,
        password,
        username: username.clone(),
    };
    administrators::create(app.services(), &Caller::system(), new).await?;
    arguments.password.tell(&username, text)
}

async fn reset_password(app: &App, arguments: ResetPassword) -> Result<(), Failure> {
    let person = find(app, &arguments.username).await?;
    let (text, password) = arguments.password.choose(app, &person.username)?;
    let every_factor = arguments.every_factor;
    administrators::reset_password(app.services(), &Caller::system(), person.id, password, every_factor).await?;
    arguments.password.tell(&person.username, text)
}

async fn reset_factors(app: &App, arguments: ResetFactors) -> Result<(), Failure> {
    let person = find(app, &arguments.username).await?;
    let passkeys = administrators::passkey_counts(app.services(), &Caller::system()).await?;
    let held = [
        (Kind::Authenticator, !arguments.passkeys, person.totp_enabled_at.is_some()),
        (Kind::Passkeys, !arguments.authenticator, passkeys.contains_key(&person.id)),
    ];
    let chosen: Vec<Kind> =
        held.into_iter().filter(|(_, chosen, held)| *chosen && *held).map(|(kind, ..)| kind).collect();
    if chosen.is_empty() {
        return Err(format!("{} has no such second factor; nothing was changed", person.username).into());
    }
    for kind in chosen {
        factors::reset(app.services(), &Caller::system(), person.id, kind).await?;
        let what = if kind == Kind::Authenticator { "authenticator app and recovery codes" } else { "passkeys" };
        say(format_args!("{} of {} removed; they are signed out", what, person.username))?;
    }
    Ok(())
}

impl Password {
    /// Returns the password, and its text if it was generated and must be shown.
    fn choose(&self, app: &App, username: &Username) -> Result<(Option<String>, NewPassword), Failure> {
        if self.password_stdin {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            let line = line.trim_end_matches(['\r', '\n']);
            return Ok((None, parse("the password", NewPassword::parse(line, username))?));
        }
        let generated = administrators::generate_password(app.services());
        let password = parse("the password", NewPassword::parse(generated.expose(), username))?;
        Ok((Some(generated.expose().to_owned()), password))
    }

    fn tell(&self, username: &Username, generated: Option<String>) -> Result<(), Failure> {
        match (self.json, generated) {
            (true, password) => say(json!({ "username": username.as_str(), "password": password })),
            (false, Some(password)) => say(format_args!("Password of {username}, shown only once: {password}")),
            (false, None) => say(format_args!("{username} can sign in with the new password")),
        }
    }
}

async fn list(app: &App, format: &Format) -> Result<(), Failure> {
    let people = administrators::list(app.services(), &Caller::system()).await?;
    let passkeys = administrators::passkey_counts(app.services(), &Caller::system()).await?;
    let passkeys_of = |person: &Administrator| passkeys.get(&person.id).copied().unwrap_or_default();
    if format.json {
        let person = |person: &Administrator| {
            json!({
                "id": person.id,
                "username": person.username.as_str(),
                "display_name": person.display_name,
                "role": person.role.as_str(),
                "enabled": person.is_enabled(),
                "last_sign_in_at": person.last_sign_in_at,
                "authenticator": person.totp_enabled_at.is_some(),
                "passkeys": passkeys_of(person),
            })
        };
        return say(json!(people.iter().map(person).collect::<Vec<_>>()));
    }
    for person in &people {
        let lacks_factor = person.totp_enabled_at.is_none() && passkeys_of(person) == 0;
        let state = match (person.is_enabled(), lacks_factor) {
            (false, _) => "  disabled",
            (true, true) => "  no second factor",
            (true, false) => "",
        };
        say(format_args!("{:24} {:9} {}{state}", person.username.as_str(), person.role.as_str(), person.display_name))?;
    }
    if people.is_empty() { say("No administrators yet. Create a setup link with: aims setup-token") } else { Ok(()) }
}

async fn find(app: &App, username: &str) -> Result<Administrator, Failure> {
    let username = parse("the username", Username::parse(username))?;
    match administrators::by_username(app.services(), &Caller::system(), &username).await {
        Err(Error::NotFound(_)) => Err(format!("no administrator is named {username}").into()),
        found => Ok(found?),
    }
}

fn parse<T>(what: &str, parsed: Result<T, crate::domain::Invalid>) -> Result<T, Failure> {
    parsed.map_err(|invalid| format!("{what} is not valid: {}", invalid.message()).into())
}

pub(super) async fn setup_token(format: Format, config: Config) -> Result<ExitCode, Failure> {
    let app = App::open_beside(config, Environment::system()).await?;
    let outcome = async { Ok::<_, Error>((app.known_address().await?, app.setup_link().await?)) }.await;
    app.close().await;
    let (address, Some(path)) = outcome? else {
        return Err("an administrator already exists; see: aims admin list".into());
    };
    let path = path.expose_secret();
    let url = address.map(|address| address.at(path));
    if format.json {
        say(json!({ "setup_url": url, "setup_path": path }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match url {
        Some(url) => say(format_args!(
            "Open this link within one hour to create the first owner. Earlier links no longer work.\n{url}"
        ))?,
        None => say(format_args!(
            "Open this path on your AIMS server within one hour to create the first owner. Earlier links no longer \
             work.\n{path}\nThe address of the server is not known here: neither PUBLIC_URL nor LISTEN_ADDR is set, \
             and no server has used this database yet."
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}
