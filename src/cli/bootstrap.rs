//! `aims bootstrap`, and what the first start of `aims serve` shows.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::{App, create_secret_file},
    clock::Environment,
    config::Config,
    service::bootstrap::FirstAdministrator,
    store::db::Location,
};

#[derive(Args)]
pub(super) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let (public_url, database) = (config.public_url.clone(), config.database.clone());
    let app = App::open(config, Environment::system()).await?;
    let outcome = make(&app, &arguments, &public_url, &database).await;
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn make(app: &App, arguments: &Arguments, public_url: &str, database: &Location) -> Result<(), Failure> {
    if app.is_set_up().await? {
        let nothing = "an administrator exists; nothing was changed";
        let json = json!({ "created": false, "message": nothing });
        return say(if arguments.json { json.to_string() } else { nothing.to_owned() });
    }
    let reveal = if arguments.json { None } else { Some(Reveal::prepare(database)?) };
    let made = app.bootstrap().await?.ok_or("another process made the administrator at this moment")?;
    match reveal {
        Some(reveal) => reveal.show(&made, public_url)?,
        None => say(json!({ "created": true, "agent_id": made.agent, "api_key": made.raw_key.expose() }))?,
    }
    Ok(())
}

/// Where the first administrator's key will be shown: on the terminal, or else in a file that only its owner can read.
pub(super) enum Reveal {
    Terminal,
    File { file: File, path: PathBuf },
}

impl Reveal {
    /// Makes sure that the key can be shown, before there is one that would be lost.
    pub(super) fn prepare(database: &Location) -> Result<Self, Failure> {
        if io::stdout().is_terminal() {
            return Ok(Self::Terminal);
        }
        let path = match database {
            Location::Sqlite(path) => path.with_extension("bootstrap"),
            Location::Postgres(_) => PathBuf::from("aims.bootstrap"),
        };
        let file = create_secret_file(&path)
            .map_err(|error| format!("cannot create {} for the first administrator's key: {error}", path.display()))?;
        Ok(Self::File { file, path })
    }

    /// Shows the key, once.
    pub(super) fn show(self, made: &FirstAdministrator, public_url: &str) -> io::Result<()> {
        let key = made.raw_key.expose();
        let facts = [
            "The first administrator. This key is shown once: keep it safe.".to_owned(),
            String::new(),
            format!("agent id  {}", made.agent),
            format!("API key   {key}"),
        ];
        let text = format!(
            "{}\n\nExchange the key for an access token, and list the agents:\n\n\
             TOKEN=$(curl -s -X POST {public_url}/api/v1/auth/token -H 'X-API-Key: {key}' | cut -d'\"' -f4)\n\
             curl -s {public_url}/api/v1/agents -H \"Authorization: Bearer $TOKEN\"\n",
            boxed(&facts)
        );
        match self {
            Self::Terminal => io::stdout().write_all(text.as_bytes()),
            Self::File { mut file, path } => {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                let path = path.display();
                tracing::info!(%path, "the first administrator's key was written to a file; read it, then delete it");
                Ok(())
            }
        }
    }
}

fn boxed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let rule = "─".repeat(width + 2);
    let rows: String = lines.iter().map(|line| format!("│ {line:width$} │\n")).collect();
    format!("┌{rule}┐\n{rows}└{rule}┘")
}
