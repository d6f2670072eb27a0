//! `aims master-key`. Works while the service runs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{Failure, say};
use crate::{
    app::{App, master_key::rotation},
    clock::Environment,
    config::{Config, MasterKeySource},
    service::{
        Caller,
        master_key::status::{self, Status, Tally},
    },
    store::tokens::sealed::Kind,
};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// Show which master key encrypts what. Keys are named by their IDs, which reveal nothing about them.
    Status(Format),
    /// Encrypt everything with a new master key, while the service runs. If it is interrupted, run it again.
    ///
    /// With SQLite and a master key file, this creates the new key. Otherwise give AIMS the new key and the previous one
    /// first, in `MASTER_KEY` and `MASTER_KEY_PREVIOUS`, or on two lines of the file or of the command's output.
    Rotate,
}

#[derive(Args)]
pub(in crate::cli) struct Format {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    crate::cli::log::start(&config)?;
    let source = source(&config.master_key);
    let app = App::open_beside(config, Environment::system()).await?;
    let outcome = match command {
        Command::Status(Format { json }) => show(&app, &source, json).await,
        Command::Rotate => rotate(&app).await,
    };
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn source(source: &MasterKeySource) -> String {
    match source {
        MasterKeySource::Value(_) => "MASTER_KEY".to_owned(),
        MasterKeySource::File { path, .. } => format!("the file {}", path.display()),
        MasterKeySource::Command(_) => "MASTER_KEY_COMMAND".to_owned(),
    }
}

async fn show(app: &App, source: &str, as_json: bool) -> Result<(), Failure> {
    let status = status::read(app.services(), &Caller::system()).await?;
    if as_json {
        return say(status.map_or_else(|| json!({ "sealing": null }), |status| to_json(&status, source)));
    }
    let Some(status) = status else {
        return say("There is no master key: tokens are signed with JWT_SECRET_KEY, and no secret is encrypted");
    };
    say(format_args!("Keys from          {source}"))?;
    say(format_args!("Newest             {}", status.newest))?;
    if let Some(previous) = status.previous {
        say(format_args!("Previous           {previous}"))?;
    }
    say(format_args!("Encrypts new data  {}", status.sealing))?;
    if let Some(rotation) = status.rotation {
        let state = rotation.completed_at.map_or("not complete".to_owned(), |at| format!("complete since {at}"));
        say(format_args!("Last rotation      {}, from {}, {state}", rotation.rotated_at, rotation.previous))?;
    }
    for Tally { kind, newest, previous, unknown } in status.tallies {
        let name = named(kind);
        say(format_args!("{name:<18} {newest} newest, {previous} previous, {unknown} cannot be decrypted"))?;
    }
    Ok(())
}

fn to_json(status: &Status, source: &str) -> serde_json::Value {
    let values = status.tallies.iter().map(|tally| {
        let counts = json!({ "newest": tally.newest, "previous": tally.previous, "unknown": tally.unknown });
        (tally.kind.as_str().to_owned(), counts)
    });
    json!({
        "source": source,
        "sealing": status.sealing.to_string(),
        "newest": status.newest.to_string(),
        "previous": status.previous.map(|id| id.to_string()),
        "rotated_at": status.rotation.map(|rotation| rotation.rotated_at),
        "completed_at": status.rotation.and_then(|rotation| rotation.completed_at),
        "values": values.collect::<serde_json::Map<_, _>>(),
    })
}

async fn rotate(app: &App) -> Result<(), Failure> {
    let rotated = rotation::rotate(app).await?;
    for (kind, count) in rotated.resealed {
        say(format_args!("{:<23} {count} encrypted again", named(kind)))?;
    }
    say(format_args!("The master key {} now encrypts everything", rotated.newest))?;
    match rotated.kept {
        Some(kept) => say(format_args!(
            "Store a copy of the new key. The previous key is in {}: backups made before now need it. Move it to where \
             you store such copies, or delete it",
            kept.display()
        )),
        None => say(
            "Remove the previous key from the settings of every node. Keep a copy for as long as you keep backups made \
             before now",
        ),
    }
}

const fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::SigningKeys => "Signing keys",
        Kind::Authenticators => "Authenticator apps",
    }
}
