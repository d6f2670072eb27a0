//! `aims backup` and `aims restore`.

pub(super) mod restore;
mod secrets;
mod verify;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{Failure, log, say};
use crate::{
    app::master_key::backup as master_key,
    clock::Environment,
    config::Config,
    domain::audit::hex,
    service::backup::{self, Encryption, Made, Output, Recipient, Request},
    store::{Db, Mode, OpenError, Store},
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// File to create, or `-` for standard output. A file that exists is never overwritten.
    #[arg(long, value_name = "FILE", required = true)]
    to: Option<PathBuf>,
    /// Encrypt to this age recipient (`age1...`). Repeat for several recipients: each of them can decrypt.
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    encrypt_to: Vec<String>,
    /// Encrypt with the passphrase in this file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Include the master key. Only in an encrypted backup.
    #[arg(long)]
    with_master_key: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Restore a backup into a temporary database, verify its audit log, and delete it again.
    Verify(verify::Arguments),
}

pub(super) async fn run(mut arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    if let Some(Command::Verify(backup)) = arguments.command.take() {
        return verify::run(backup).await;
    }
    // Everything that can be wrong is found before the database is read.
    let encryption = encryption(&arguments)?;
    let output = match arguments.to {
        Some(path) if path.as_os_str() == "-" => Output::Stdout,
        Some(path) => Output::File(path),
        None => return Err("--to is missing".into()),
    };
    if output == Output::Stdout && io::stdout().is_terminal() {
        return Err("standard output is a terminal; redirect it to a file or a program".into());
    }
    let mut request = Request { output, encryption, master_key: None };
    if arguments.with_master_key {
        request.require_encryption()?;
        let keys = master_key::existing(&config.master_key).await?.ok_or("there is no master key to include")?;
        if keys.previous().is_some() {
            return Err("there are two master keys; finish `aims master-key rotate` first".into());
        }
        request.master_key = Some(keys.newest().clone());
    }
    let env = Environment::system();
    let db = match Db::open(&config.database, Mode::Beside).await {
        // One that cannot be written, or that is not migrated yet, can still be saved.
        Err(OpenError::Connect(_) | OpenError::File(..) | OpenError::Older { .. }) => {
            Db::open(&config.database, Mode::Snapshot).await?
        }
        opened => opened?,
    };
    let store = Store::start(db, Arc::new(|_| {}));
    let made = make(&store, &env, request).await;
    store.close().await;
    report(&made?, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn make(store: &Store, env: &Environment, request: Request) -> Result<Made, Failure> {
    let made = backup::create::make(store.db(), env, request).await?;
    if let Err(error) = backup::record(store, env, &made).await {
        let why = error.with_causes();
        log::tell(format_args!("aims: warning: the backup is complete, but the audit log does not record it: {why}"));
    }
    Ok(made)
}

fn encryption(arguments: &Arguments) -> Result<Encryption, Failure> {
    if let Some(path) = &arguments.passphrase_file {
        let text = secrets::read(path)?;
        let encryption = Encryption::with_passphrase(&text);
        return encryption.map_err(|wrong| format!("{} {wrong}", path.display()).into());
    }
    if arguments.encrypt_to.is_empty() {
        return Ok(Encryption::None);
    }
    let recipient =
        |text: &String| Recipient::parse(text).map_err(|wrong| Failure::from(format!("--encrypt-to {wrong}")));
    let recipients: Result<_, Failure> = arguments.encrypt_to.iter().map(recipient).collect();
    Ok(Encryption::To(recipients?))
}

fn report(made: &Made, as_json: bool) -> Result<(), Failure> {
    if as_json && made.file.is_some() {
        return say(serde_json::to_string(made)?);
    }
    let rows = |table: &str| made.rows.get(table).copied().unwrap_or_default();
    let encrypted = match made.encryption {
        "none" => "It is not encrypted.",
        _ if made.has_master_key => "It is encrypted, and contains the master key.",
        _ => "It is encrypted, and does not contain the master key.",
    };
    let text = format!(
        "Backed up {} agents, {} API keys and the audit log up to seq {}: {} bytes. {encrypted}",
        rows("agents"),
        rows("api_keys"),
        made.head.seq,
        made.bytes,
    );
    if made.file.is_some() {
        say(text)?;
        say(format_args!("Head of the audit log {}, SHA-256 of the content {}", hex(&made.head.hash), made.sha256))
    } else {
        // Standard output is the backup, and standard error shows no hashes.
        log::tell(text);
        Ok(())
    }
}
