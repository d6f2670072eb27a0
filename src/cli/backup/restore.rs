//! `aims restore`

use std::{
    env::temp_dir,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::secrets::Key;
use crate::{
    app::master_key::backup as master_key,
    cli::{Failure, say},
    clock::Environment,
    config::Config,
    domain::audit::hex,
    service::backup::{
        Source,
        restore::{self, Options, Verified},
        undone::Since,
    },
};

#[expect(clippy::struct_excessive_bools, reason = "independent options of a command")]
#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Backup to restore.
    file: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Delete the data that the database holds, and restore the backup in its place.
    #[arg(long)]
    replace: bool,
    /// Let access tokens that were issued before go on working, also those that were revoked after the backup. Without it, all
    /// of them end, and agents must get new ones.
    #[arg(long)]
    keep_tokens: bool,
    /// Change nothing: verify the backup, and show which revocations the restore would undo.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let source = Source::open(&arguments.file, &arguments.key.read()?)?;
    let key_to_write = master_key::missing(&config.master_key, source.header().master_key.as_ref()).await?;
    let options = Options { replace: arguments.replace, keep_tokens: arguments.keep_tokens };
    let prepared = restore::prepare(source, &config.database, options, &temp_dir(), &Environment::system()).await?;
    let (verified, since) = (prepared.verified.clone(), prepared.since.clone());
    if !arguments.dry_run {
        if let Some((path, key)) = &key_to_write {
            master_key::put_back(path, key)?;
        }
        prepared.put().await?;
    }
    let wrote_key = key_to_write.as_ref().filter(|_| !arguments.dry_run).map(|(path, _)| path.as_path());
    if arguments.json {
        report_json(&arguments, &verified, since, wrote_key)
    } else {
        report(&arguments, &verified, since, wrote_key)
    }?;
    Ok(ExitCode::SUCCESS)
}

fn report_json(
    arguments: &Arguments,
    verified: &Verified,
    since: Option<Since>,
    wrote_key: Option<&Path>,
) -> Result<(), Failure> {
    let header = &verified.header;
    let (undone, unknown) = match since {
        Some(Since::Known { undone, .. }) => (Some(undone), None),
        Some(Since::Unknown(reason)) => (None, Some(reason)),
        None => (None, Some("the database was empty".to_owned())),
    };
    say(json!({
        "restored": !arguments.dry_run, "made_at": header.made_at, "aims": header.aims, "schema": header.schema,
        "head_seq": header.head.seq, "head_hash": hex(&header.head.hash), "rows": verified.rows,
        "sha256": verified.sha256, "tokens_ended": !arguments.keep_tokens, "undone": undone, "undone_unknown": unknown,
        "master_key_file": wrote_key,
    }))
}

fn report(
    arguments: &Arguments,
    verified: &Verified,
    since: Option<Since>,
    wrote_key: Option<&Path>,
) -> Result<(), Failure> {
    let header = &verified.header;
    let rows = |table: &str| verified.rows.get(table).copied().unwrap_or_default();
    let (verb, would) = if arguments.dry_run { ("Would restore", "would undo") } else { ("Restored", "undoes") };
    say(format_args!(
        "{verb} {} agents, {} API keys and the audit log up to seq {} (head {}) from a backup made at {}",
        rows("agents"),
        rows("api_keys"),
        header.head.seq,
        hex(&header.head.hash),
        header.made_at,
    ))?;
    if let Some(path) = wrote_key {
        say(format_args!("Wrote the master key to {}", path.display()))?;
    }
    if !arguments.keep_tokens {
        say("Every access token and console session ends: agents must get new tokens, and people sign in again")?;
    }
    match since {
        Some(Since::Known { undone, .. }) if undone.is_empty() => {
            say("Nothing was revoked, suspended or deleted after the backup")?;
        }
        Some(Since::Known { undone, .. }) => {
            say(format_args!("This {would} what happened after the backup. Repeat what must stay:"))?;
            for event in undone {
                let kind = event.target_type.unwrap_or_default();
                let target = event.target_id.or(event.agent).unwrap_or_default();
                say(format_args!("  {}  {:<28} {kind} {target} {}", event.at, event.event, event.details))?;
            }
        }
        Some(Since::Unknown(reason)) => tell_unknown(&reason)?,
        None => tell_unknown("the database was empty")?,
    }
    if arguments.dry_run { Ok(()) } else { say("Run `aims audit verify`, then start the service") }
}

fn tell_unknown(reason: &str) -> Result<(), Failure> {
    say(format_args!(
        "What was revoked, suspended or deleted after the backup works again, and AIMS cannot tell what that is: {reason}. \
         Find it in your own records, and repeat it"
    ))
}
