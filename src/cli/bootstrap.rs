//! `aims bootstrap`, and what the first start of `aims serve` shows.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::{App, create_secret_file},
    clock::Environment,
    config::Config,
    service::bootstrap::AdministratorKey,
    store::{Db, Location, Mode, capabilities},
};

#[derive(Args)]
pub(super) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Make another key for an administrator, when every key of theirs is lost. The service must not be running on
    /// SQLite.
    #[arg(long)]
    new_key: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let (public_url, database) = (config.public_url.clone(), config.database.clone());
    if !arguments.new_key && is_set_up(&database).await {
        say_nothing_was_changed(&arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.new_key {
        database.require()?;
    }
    let app = App::open(config, Environment::system()).await?;
    if let Some(warning) = app.warning() {
        // Where nobody reads it, the key is still to be shown.
        let _ = writeln!(io::stderr(), "aims: warning: {warning}");
    }
    let outcome = make(&app, &arguments, &public_url, &database).await;
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Asks without the lock that a running service holds. A database that cannot be read is not set up.
async fn is_set_up(database: &Location) -> bool {
    let answer = async {
        let db = Db::open(database, Mode::Read).await?;
        Ok::<_, Failure>(capabilities::has_administrator(db.read().await?.conn()).await?)
    };
    answer.await.unwrap_or(false)
}

fn say_nothing_was_changed(arguments: &Arguments) -> Result<(), Failure> {
    let nothing = "an administrator exists; nothing was changed";
    let json = json!({ "created": false, "message": nothing });
    say(if arguments.json { json.to_string() } else { nothing.to_owned() })
}

async fn make(app: &App, arguments: &Arguments, public_url: &str, database: &Location) -> Result<(), Failure> {
    if !arguments.new_key && app.is_set_up().await? {
        return say_nothing_was_changed(arguments);
    }
    let reveal = if arguments.json { None } else { Some(Reveal::prepare(database)?) };
    let made = if arguments.new_key {
        app.recover().await?
    } else {
        app.bootstrap().await?.ok_or("another process made the administrator at this moment")?
    };
    let setup_url = app.setup_url().await?;
    match reveal {
        Some(reveal) => reveal.show(&made, setup_url.as_ref(), public_url)?,
        None => say(json!({
            "created": true,
            "agent_id": made.agent,
            "api_key": made.raw_key.expose(),
            "setup_url": setup_url.as_ref().map(ExposeSecret::expose_secret),
        }))?,
    }
    Ok(())
}

/// Where an administrator's key will be shown: on the terminal, or else in a file that only its owner can read.
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
        let file = create_unless_written(&path)
            .map_err(|error| format!("cannot create {} for the administrator's key: {error}", path.display()))?;
        Ok(Self::File { file, path })
    }

    /// Shows the key, once.
    pub(super) fn show(
        self,
        made: &AdministratorKey,
        setup_url: Option<&SecretString>,
        public_url: &str,
    ) -> io::Result<()> {
        let key = made.raw_key.expose();
        let facts = [
            "The administrator's key. It is shown this once: keep it safe.".to_owned(),
            String::new(),
            format!("agent id  {}", made.agent),
            format!("API key   {key}"),
        ];
        let console = setup_url.map_or_else(String::new, |url| {
            format!("\n\nThe console: open this within the hour to become its first owner.\n\n{}", url.expose_secret())
        });
        let text = format!(
            "{}{console}\n\nExchange the key for an access token, and list the agents:\n\n\
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
                tracing::info!(%path, "the administrator's key was written to a file; read it, then delete it");
                Ok(())
            }
        }
    }
}

/// An empty file is what a start that ended early left behind; one that holds a key is never overwritten.
fn create_unless_written(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|file| file.len() == 0) {
        fs::remove_file(path)?;
    }
    create_secret_file(path)
}

fn boxed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let rule = "─".repeat(width + 2);
    let rows: Vec<_> = lines.iter().map(|line| format!("│ {line:width$} │")).collect();
    format!("┌{rule}┐\n{}\n└{rule}┘", rows.join("\n"))
}
