//! The commands of `aims`.
//!
//! Exit codes: 0 success, 1 refused or failed (with the reason on standard error), 2 wrong usage.

mod admin;
mod audit;
mod bootstrap;
mod check_config;
mod docs;
mod import_seed;
mod log;
mod openapi;
mod serve;
mod signing_keys;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::config::Config;

/// AIMS: a self-hosted identity service for fleets of AI agents.
///
/// AIMS reads its settings from the environment and from the file `.env` in the working directory. `aims check-config`
/// shows them.
#[derive(Parser)]
#[command(name = "aims", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the console and the API. This is the default command. The first start sets up the database.
    Serve,
    /// Set up the database and the first administrator without serving. A second run changes nothing.
    Bootstrap(bootstrap::Arguments),
    /// Manage the administrators who sign in to the console.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Create a link to set up the first owner of the console. Refused once an administrator exists.
    SetupToken(admin::Format),
    /// List and rotate the keys that sign access tokens.
    #[command(subcommand)]
    SigningKeys(signing_keys::Command),
    /// Verify and archive the audit log.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Import the SQLite database of the predecessor into a new database.
    ImportSeed(import_seed::Arguments),
    /// Print the OpenAPI description of the JSON API.
    Openapi,
    /// Check the settings and print those in force, without secrets.
    CheckConfig,
    /// Print a generated page of the documentation.
    #[command(subcommand)]
    Docs(docs::Page),
}

/// A failure that is reported in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    log::redact_panics();
    // clap exits by itself after `--help` (0) and wrong usage (2).
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    if matches!(command, Command::Serve) {
        serve::warm_up();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve => serve::run(config()?).await,
            Command::Bootstrap(arguments) => bootstrap::run(arguments, config()?).await,
            Command::Admin(command) => admin::run(command, config()?).await,
            Command::SetupToken(format) => admin::setup_token(format, config()?).await,
            Command::SigningKeys(command) => signing_keys::run(command, config()?).await,
            Command::Audit(command) => audit::run(command, config()?).await,
            Command::ImportSeed(arguments) => import_seed::run(arguments, config()?).await,
            Command::Openapi => openapi::run(),
            Command::CheckConfig => check_config::run(&config()?),
            Command::Docs(page) => docs::run(&page),
        }
    });
    outcome.unwrap_or_else(|failure| fail(&failure))
}

fn fail(failure: &Failure) -> ExitCode {
    log::tell(format_args!("aims: {failure}"));
    ExitCode::FAILURE
}

/// Writes a line to standard output. `println!` would panic if the pipe is closed or the disk is full.
fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("cannot write to standard output: {error}").into())
}

fn config() -> Result<Config, Failure> {
    Config::from_env().map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        format!("invalid settings:{}", lines.concat()).into()
    })
}
