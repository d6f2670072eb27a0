//! `aims bootstrap`, and the output of the first start of `aims serve`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::cli::{Failure, say};
use crate::{
    app::{App, master_key::create_secret_file},
    clock::Environment,
    config::Config,
    domain::PublicUrl,
    service::bootstrap::AdministratorKey,
    store::{Db, Location, Mode, capabilities},
};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Create another API key for an administrator agent whose keys are all lost. With SQLite, stop the service first.
    #[arg(long)]
    new_key: bool,
}

pub(in crate::cli) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
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
        // The key must be shown even if standard error is closed.
        let _ = writeln!(io::stderr(), "aims: warning: {warning}");
    }
    let outcome = make(&app, &arguments, &public_url, &database).await;
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Reads without the lock that a running service holds. Returns false if the database cannot be read.
async fn is_set_up(database: &Location) -> bool {
    let answer = async {
        let db = Db::open(database, Mode::Read).await?;
        Ok::<_, Failure>(capabilities::has_administrator(db.read().await?.conn()).await?)
    };
    answer.await.unwrap_or(false)
}

fn say_nothing_was_changed(arguments: &Arguments) -> Result<(), Failure> {
    let nothing = "an administrator already exists; nothing was changed";
    let json = json!({ "created": false, "message": nothing });
    say(if arguments.json { json.to_string() } else { nothing.to_owned() })
}

async fn make(app: &App, arguments: &Arguments, public_url: &PublicUrl, database: &Location) -> Result<(), Failure> {
    if !arguments.new_key && app.is_set_up().await? {
        return say_nothing_was_changed(arguments);
    }
    let reveal = if arguments.json { None } else { Some(Reveal::prepare(database)?) };
    let made = if arguments.new_key {
        app.recover().await?
    } else {
        app.bootstrap().await?.ok_or("another process created the administrator at the same time")?
    };
    let setup_url = app.setup_url().await?;
    match reveal {
        Some(reveal) => {
            if let Some(written) = reveal.show(&made, setup_url.as_ref(), public_url)? {
                say(written)?;
            }
        }
        None => say(json!({
            "created": true,
            "agent_id": made.agent,
            "api_key": made.raw_key.expose(),
            "setup_url": setup_url.as_ref().map(ExposeSecret::expose_secret),
        }))?,
    }
    Ok(())
}

/// Where the administrator's key is shown: on the terminal, or in a file that only its owner can read.
pub(in crate::cli) enum Reveal {
    Terminal,
    File(Prepared),
}

/// The file for the key. It has a temporary name until the key is in it, so that two starts in one folder do not clash.
pub(in crate::cli) struct Prepared {
    file: File,
    own: PathBuf,
    path: PathBuf,
}

impl Reveal {
    /// Checks that the key can be shown before it is created, so that it cannot be lost.
    pub(in crate::cli) fn prepare(database: &Location) -> Result<Self, Failure> {
        if io::stdout().is_terminal() {
            return Ok(Self::Terminal);
        }
        let path = match database {
            Location::Sqlite(path) => path.with_extension("bootstrap"),
            Location::Postgres(_) => PathBuf::from("aims.bootstrap"),
        };
        let prepared = Prepared::at(path.clone())
            .map_err(|error| format!("cannot create {} for the administrator's key: {error}", path.display()))?;
        Ok(Self::File(prepared))
    }

    /// Shows the key once. Returns a message if it was written to a file.
    pub(in crate::cli) fn show(
        self,
        made: &AdministratorKey,
        setup_url: Option<&SecretString>,
        public_url: &PublicUrl,
    ) -> io::Result<Option<String>> {
        let key = made.raw_key.expose();
        let facts = [
            "The administrator's API key. It is shown only once: store it safely.".to_owned(),
            String::new(),
            format!("agent id  {}", made.agent),
            format!("API key   {key}"),
        ];
        let console = setup_url.map_or_else(String::new, |url| {
            format!(
                "\n\nOpen this link within one hour to create the first owner of the console:\n\n{}",
                url.expose_secret()
            )
        });
        let (exchange, agents) = (public_url.at("/api/v1/auth/token"), public_url.at("/api/v1/agents"));
        let text = format!(
            "{}{console}\n\nExchange the key for an access token, and list the agents (needs jq):\n\n\
             TOKEN=$(curl -s -X POST {exchange} -H 'X-API-Key: {key}' | jq -r .access_token)\n\
             curl -s {agents} -H \"Authorization: Bearer $TOKEN\"\n",
            boxed(&facts)
        );
        match self {
            Self::Terminal => io::stdout().write_all(text.as_bytes()).map(|()| None),
            Self::File(prepared) => {
                let path = prepared.publish(&text)?;
                let (link, them) =
                    if setup_url.is_some() { (" and the setup link were", "them") } else { (" was", "it") };
                Ok(Some(format!(
                    "the administrator's key{link} written to {}; read {them}, then delete the file",
                    path.display()
                )))
            }
        }
    }
}

impl Prepared {
    /// Never overwrites a file with a key. An empty file is a remnant of an earlier version.
    fn at(path: PathBuf) -> io::Result<Self> {
        match path.metadata() {
            Ok(found) if found.len() > 0 => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => {}
        }
        let own = path.with_extension(format!("bootstrap-{}", Environment::system().uuid()));
        Ok(Self { file: create_secret_file(&own)?, own, path })
    }

    /// Writes the text and renames the file, or keeps the temporary name if the final one is taken.
    fn publish(mut self, text: &str) -> io::Result<PathBuf> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        if fs::hard_link(&self.own, &self.path).is_ok() {
            return Ok(self.path.clone());
        }
        Ok(std::mem::take(&mut self.own))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // The file is empty, or has a second name. If removal fails, only its owner can read it.
        let _ = fs::remove_file(&self.own);
    }
}

fn boxed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let rule = "─".repeat(width + 2);
    let rows: Vec<_> = lines.iter().map(|line| format!("│ {line:width$} │")).collect();
    format!("┌{rule}┐\n{}\n└{rule}┘", rows.join("\n"))
}
