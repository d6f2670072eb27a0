//! `aims import-seed`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::cli::{Failure, say};
use crate::{app::App, clock::Environment, config::Config, domain::agent::labels::Labels, service::seed_import};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// SQLite file to import. AIMS only reads it.
    path: PathBuf,
    /// Label for every imported agent, such as `source=seed`. Can be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

pub(in crate::cli) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let labels = Labels::parse_lines(&arguments.labels.join("\n")).map_err(|invalid| invalid.message().into_owned())?;
    let app = App::open(config, Environment::system()).await?;
    let outcome = seed_import::run(app.services(), &arguments.path, labels).await;
    app.close().await;
    say(outcome?)?;
    Ok(ExitCode::SUCCESS)
}
