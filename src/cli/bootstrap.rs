//! `aims bootstrap`, and what the first start of `aims serve` shows.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::{App, master_key::create_secret_file},
    clock::Environment,
    config::Config,
    domain::PublicUrl,
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

async fn make(app: &App, arguments: &Arguments, public_url: &PublicUrl, database: &Location) -> Result<(), Failure> {
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

/// Where an administrator's key will be shown: on the terminal, or else in a file that only its owner can read.
pub(super) enum Reveal {
    Terminal,
    File(Prepared),
}

/// A file that the key will be in. Until then it has a name of its own, so that no other start in this folder takes it away.
pub(super) struct Prepared {
    file: File,
    own: PathBuf,
    path: PathBuf,
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
        let prepared = Prepared::at(path.clone())
            .map_err(|error| format!("cannot create {} for the administrator's key: {error}", path.display()))?;
        Ok(Self::File(prepared))
    }

    /// Shows the key, once; says where it was written to, where nobody saw it.
    pub(super) fn show(
        self,
        made: &AdministratorKey,
        setup_url: Option<&SecretString>,
        public_url: &PublicUrl,
    ) -> io::Result<Option<String>> {
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
        let (exchange, agents) = (public_url.at("/api/v1/auth/token"), public_url.at("/api/v1/agents"));
        let text = format!(
            "{}{console}\n\nExchange the key for an access token, and list the agents:\n\n\
             TOKEN=$(curl -s -X POST {exchange} -H 'X-API-Key: {key}' | cut -d'\"' -f4)\n\
             curl -s {agents} -H \"Authorization: Bearer $TOKEN\"\n",
            boxed(&facts)
        );
        match self {
            Self::Terminal => io::stdout().write_all(text.as_bytes()).map(|()| None),
            Self::File(prepared) => {
                let path = prepared.publish(&text)?;
                let (link, them) =
                    if setup_url.is_some() { (" and the link to the console were", "them") } else { (" was", "it") };
                Ok(Some(format!(
                    "the administrator's key{link} written to {}; read {them}, then delete the file",
                    path.display()
                )))
            }
        }
    }
}

impl Prepared {
    /// A file that holds a key is never overwritten; one that is empty is what an earlier version left behind that ended early.
    fn at(path: PathBuf) -> io::Result<Self> {
        match path.metadata() {
            Ok(found) if found.len() > 0 => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => {}
        }
        let own = path.with_extension(format!("bootstrap-{}", Environment::system().uuid()));
        Ok(Self { file: create_secret_file(&own)?, own, path })
    }

    /// Writes the text and gives the file its name, or leaves it under its own where that name is taken by now.
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
        // Nothing is in it, or it is under another name as well. One that is left is empty or readable by its owner alone.
        let _ = fs::remove_file(&self.own);
    }
}

fn boxed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let rule = "─".repeat(width + 2);
    let rows: Vec<_> = lines.iter().map(|line| format!("│ {line:width$} │")).collect();
    format!("┌{rule}┐\n{}\n└{rule}┘", rows.join("\n"))
}
