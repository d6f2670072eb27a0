//! `aims admin` and `aims setup-token`: administrators, managed from the host. Both work while the service runs.

use std::{
    io::{self, BufRead},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    domain::{Administrator, Error, Role, Username, person::password::NewPassword},
    service::{Caller, people::administrators},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create an administrator. Without `--password-stdin`, a password is generated and shown once.
    Create(Create),
    /// List the administrators.
    List(Format),
    /// Set an administrator's password, end their sessions and clear failed sign-ins.
    ResetPassword(ResetPassword),
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
    if format.json {
        let person = |person: &Administrator| {
            json!({
                "id": person.id,
                "username": person.username.as_str(),
                "display_name": person.display_name,
                "role": person.role.as_str(),
                "enabled": person.is_enabled(),
                "last_sign_in_at": person.last_sign_in_at,
            })
        };
        return say(json!(people.iter().map(person).collect::<Vec<_>>()));
    }
    for person in &people {
        let state = if person.is_enabled() { "" } else { "  disabled" };
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
    let outcome = app.setup_url().await;
    app.close().await;
    let Some(url) = outcome? else {
        return Err("an administrator already exists; see: aims admin list".into());
    };
    let url = secrecy::ExposeSecret::expose_secret(&url);
    if format.json {
        say(json!({ "setup_url": url }))?;
    } else {
        say(format_args!("Open this link within one hour to create the first owner:\n{url}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
