//! `aims import-seed`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::cli::{Failure, say};
use crate::{app::App, clock::Environment, config::Config, service::seed_import};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// SQLite file to import. AIMS only reads it.
    path: PathBuf,
}

pub(in crate::cli) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let app = App::open(config, Environment::system()).await?;
    let outcome = seed_import::run(app.services(), &arguments.path).await;
    app.close().await;
    say(outcome?)?;
    Ok(ExitCode::SUCCESS)
}
