//! The commands of `aims`.
//!
//! Exit codes: 0 success, 1 refused or failed (with the reason on standard error), 2 wrong usage.

mod admin;
mod agents;
mod audit;
mod backup;
mod check;
mod keys;
mod log;
mod print;
mod serve;
mod setup;

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
    Bootstrap(setup::bootstrap::Arguments),
    /// Apply the pending migrations to the database without serving. With SQLite, stop the service first.
    Migrate(setup::migrate::Arguments),
    /// Manage the administrators who sign in to the console.
    #[command(subcommand)]
    Admin(admin::Command),
    /// List and label agents.
    #[command(subcommand)]
    Agents(agents::Command),
    /// Create a link to set up the first owner of the console. Refused once an administrator exists.
    SetupToken(admin::Format),
    /// List and rotate the keys that sign access tokens.
    #[command(subcommand)]
    SigningKeys(keys::signing::Command),
    /// Show and change the key that encrypts secrets in the database.
    #[command(subcommand)]
    MasterKey(keys::master::Command),
    /// Verify and archive the audit log.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Back up the whole database to a file, while the service runs. A backup of SQLite can be restored into PostgreSQL and
    /// the other way round.
    Backup(backup::Arguments),
    /// Restore a backup into the database that the settings name. Stop the service first.
    Restore(backup::restore::Arguments),
    /// Import the SQLite database of the predecessor into a new database.
    ImportSeed(setup::import_seed::Arguments),
    /// Print the OpenAPI description of the JSON API.
    Openapi,
    /// Check that a running service is ready. For containers.
    ///
    /// Asks `/readyz` of the service at `LISTEN_ADDR`, or at a URL. Exits with 1 and the reason if it is not ready or does
    /// not respond. Does not open the database.
    Healthcheck(check::health::Arguments),
    /// Check the settings and print those in force, without secrets.
    CheckConfig,
    /// Print a generated page of the documentation.
    #[command(subcommand)]
    Docs(print::docs::Page),
    /// Print a script that completes commands and options in a shell.
    Completions(print::completions::Arguments),
    /// Print the manual page of `aims`, or write one page for each command.
    Man(print::man::Arguments),
}

/// A failure that is reported in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let _flush = log::FlushAtEnd;
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
            Command::Serve => Box::pin(serve::run(config()?)).await,
            Command::Bootstrap(arguments) => setup::bootstrap::run(arguments, config()?).await,
            Command::Migrate(arguments) => setup::migrate::run(arguments, config()?).await,
            Command::Admin(command) => admin::run(command, config()?).await,
            Command::Agents(command) => agents::run(command, config()?).await,
            Command::SetupToken(format) => admin::setup_token(format, config()?).await,
            Command::SigningKeys(command) => keys::signing::run(command, config()?).await,
            Command::MasterKey(command) => keys::master::run(command, config()?).await,
            Command::Audit(command) => audit::run(command, config()?).await,
            Command::Backup(arguments) => backup::run(arguments, config()?).await,
            Command::Restore(arguments) => backup::restore::run(arguments, config()?).await,
            Command::ImportSeed(arguments) => setup::import_seed::run(arguments, config()?).await,
            Command::Openapi => print::openapi::run(),
            Command::Healthcheck(arguments) => check::health::run(arguments).await,
            Command::CheckConfig => check::settings::run(&config()?),
            Command::Docs(page) => print::docs::run(&page),
            Command::Completions(arguments) => print::completions::run(&arguments),
            Command::Man(arguments) => print::man::run(&arguments),
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
    write_out(format!("{line}\n").as_bytes())
}

/// Writes a text to standard output as it is.
fn write_out(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}").into())
}

fn config() -> Result<Config, Failure> {
    Config::from_env().map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        format!("invalid settings:{}", lines.concat()).into()
    })
}
