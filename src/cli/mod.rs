//! The commands of `aims`.
//!
//! Exit codes: 0 success, 1 refused or failed (with one line on standard error that says why), 2 wrong usage.

mod admin;
mod audit;
mod bootstrap;
mod check_config;
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
/// Settings come from the environment and from a file `.env` in the working directory; `aims check-config` lists them.
#[derive(Parser)]
#[command(name = "aims", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (this is also what `aims` alone does). The first start sets everything up.
    Serve,
    /// Make the first administrator without serving. A second run changes nothing.
    Bootstrap(bootstrap::Arguments),
    /// Add, list, and let in or keep out the people who sign in to the console.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Make a link that sets up the first administrator, while there is none.
    SetupToken(admin::Format),
    /// Look at the keys that sign access tokens, and rotate them.
    #[command(subcommand)]
    SigningKeys(signing_keys::Command),
    /// Prove the audit log.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Bring over the SQLite database of the service that AIMS replaces, once, into a fresh database.
    ImportSeed(import_seed::Arguments),
    /// Print the OpenAPI description of the API.
    Openapi,
    /// Check the settings and show what is in force; secrets are not shown.
    CheckConfig,
}

/// A failure that the operator is told in one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    log::redact_panics();
    // clap answers `--help` and wrong usage itself, with 0 and 2.
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
        }
    });
    outcome.unwrap_or_else(|failure| fail(&failure))
}

fn fail(failure: &Failure) -> ExitCode {
    log::tell(format_args!("aims: {failure}"));
    ExitCode::FAILURE
}

/// Writes a line of the command's answer. `println!` would panic where there is no room for it, or no reader.
fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("cannot write to standard output: {error}").into())
}

fn config() -> Result<Config, Failure> {
    Config::from_env().map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        format!("the settings are not valid:{}", lines.concat()).into()
    })
}
