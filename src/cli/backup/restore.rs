//! `aims restore`

use std::{env::temp_dir, fs, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::secrets::Key;
use crate::{
    app::master_key::backup::{self as master_key, Restored},
    cli::{Failure, say},
    clock::Environment,
    config::Config,
    domain::audit::hex,
    service::backup::{
        Source,
        restore::{self, Options, Secrets, Verified},
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
    /// Restore without the master key, because it is lost. Removes what only that key decrypts: signing keys and
    /// authenticator apps. People sign in with their password alone, or with a passkey.
    #[arg(long, conflicts_with = "keep_tokens")]
    lost_master_key: bool,
    /// Change nothing: verify the backup, and show which revocations the restore would undo.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(arguments: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let source = Source::open(&arguments.file, &arguments.key.read()?)?;
    if arguments.lost_master_key && source.header().master_key.is_some() {
        return Err("the backup contains the master key; leave out --lost-master-key".into());
    }
    // A lost key need not be readable.
    let master_key = if arguments.lost_master_key {
        Restored::default()
    } else {
        master_key::restored(&config.master_key, source.header().master_key.as_ref()).await?
    };
    let secrets = match (arguments.keep_tokens, arguments.lost_master_key) {
        (true, _) => Secrets::Tokens,
        (false, false) => Secrets::NoTokens,
        (false, true) => Secrets::NoMasterKey,
    };
    let options = Options { replace: arguments.replace, secrets };
    let (keys, env) = (master_key.keys.as_ref(), Environment::system());
    let prepared = restore::prepare(source, &config.database, options, keys, &temp_dir(), &env).await?;
    let mut outcome = Outcome {
        verified: prepared.verified.clone(),
        since: prepared.since.clone(),
        authenticators_removed: prepared.authenticators_removed,
        wrote_key: None,
    };
    if !arguments.dry_run {
        if let Some((path, key)) = master_key.to_write {
            master_key::put_back(&path, &key)?;
            outcome.wrote_key = Some(path);
        }
        if let Err(error) = prepared.put().await {
            if let Some(path) = &outcome.wrote_key {
                fs::remove_file(path)?;
            }
            return Err(error.into());
        }
    }
    if arguments.json { outcome.report_json(&arguments) } else { outcome.report(&arguments) }?;
    Ok(ExitCode::SUCCESS)
}

/// What was restored, or would be.
struct Outcome {
    verified: Verified,
    since: Option<Since>,
    authenticators_removed: u64,
    wrote_key: Option<PathBuf>,
}

impl Outcome {
    fn report_json(self, arguments: &Arguments) -> Result<(), Failure> {
        let (header, rows) = (&self.verified.header, &self.verified.rows);
        let (undone, unknown) = match self.since {
            Some(Since::Known { undone, .. }) => (Some(undone), None),
            Some(Since::Unknown { reason, .. }) => (None, Some(reason)),
            None => (None, Some(EMPTY.to_owned())),
        };
        say(json!({
            "restored": !arguments.dry_run, "made_at": header.made_at, "aims": header.aims, "schema": header.schema,
            "head_seq": header.head.seq, "head_hash": hex(&header.head.hash), "rows": rows,
            "sha256": self.verified.sha256, "tokens_ended": !arguments.keep_tokens, "undone": undone,
            "undone_unknown": unknown, "master_key_file": self.wrote_key,
            "authenticators_removed": self.authenticators_removed,
        }))
    }

    fn report(self, arguments: &Arguments) -> Result<(), Failure> {
        let header = &self.verified.header;
        let rows = |table: &str| self.verified.rows.get(table).copied().unwrap_or_default();
        let (verb, would) = if arguments.dry_run { ("Would restore", "would undo") } else { ("Restored", "undoes") };
        say(format_args!(
            "{verb} {} agents, {} API keys and the audit log up to seq {} (head {}) from a backup made at {}",
            rows("agents"),
            rows("api_keys"),
            header.head.seq,
            hex(&header.head.hash),
            header.made_at,
        ))?;
        if let Some(path) = &self.wrote_key {
            say(format_args!("Wrote the master key to {}", path.display()))?;
        }
        if !arguments.keep_tokens {
            say("Every access token and console session ends: agents must get new tokens, and people sign in again")?;
        }
        if self.authenticators_removed > 0 {
            say(format_args!(
                "Authenticator apps removed: {}. These people sign in with their password alone, or with a passkey, until \
                 they add the app again",
                self.authenticators_removed
            ))?;
        }
        match self.since {
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
            Some(Since::Unknown { reason, .. }) => tell_unknown(&reason)?,
            None => tell_unknown(EMPTY)?,
        }
        if arguments.dry_run { Ok(()) } else { say("Run `aims audit verify`, then start the service") }
    }
}

const EMPTY: &str = "the database was empty";

fn tell_unknown(reason: &str) -> Result<(), Failure> {
    say(format_args!(
        "What was revoked, suspended or deleted after the backup works again, and AIMS cannot tell what that is: {reason}. \
         Find it in your own records, and repeat it"
    ))
}
