//! `aims audit`: works beside a running service.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    domain::{
        Timestamp,
        audit::{Head, hex},
    },
    service::{
        Caller,
        audit::{
            self,
            archive::{self, Archive, ArchiveError},
        },
    },
    store::{Db, Mode},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Walk the whole chain; exit code 1 and the first bad record when it does not hold.
    Verify(Verify),
    /// Move old records to a file, which `verify --archive` still proves.
    Archive(ToArchive),
}

#[derive(Args)]
pub(super) struct Verify {
    /// Walk this archive first; repeated, oldest first. The last must lead to where the database's records begin.
    #[arg(long, value_name = "FILE")]
    archive: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ToArchive {
    /// Move what happened before this moment (RFC 3339), or day in UTC, which must be 48 hours ago.
    #[arg(long, value_name = "DATE")]
    before: String,
    /// The file to make; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    match command {
        Command::Verify(arguments) => verify(&arguments, &config).await,
        Command::Archive(arguments) => {
            let before = Timestamp::parse_lenient(&arguments.before).ok_or("--before must be a date (RFC 3339)")?;
            let app = App::open_beside(config, Environment::system()).await?;
            let archived = archive::archive(app.services(), &Caller::system(), before, &arguments.to).await;
            app.close().await;
            report(archived.map_err(|error| named(error, &arguments.to))?, &arguments)
        }
    }
}

fn report(archived: Option<Archive>, ToArchive { to, json: as_json, .. }: &ToArchive) -> Result<ExitCode, Failure> {
    let records = archived.map_or(0, |Archive { first_seq, last }| last.seq - first_seq + 1);
    match archived {
        Some(Archive { first_seq, last }) if *as_json => say(json!({
            "records": records, "first_seq": first_seq, "last_seq": last.seq, "last_hash": hex(&last.hash),
        }))?,
        None if *as_json => say(json!({ "records": 0 }))?,
        Some(Archive { first_seq, last }) => say(format_args!(
            "Moved {records} records to {}: seq {first_seq} to {}, head {}",
            to.display(),
            last.seq,
            hex(&last.hash)
        ))?,
        None => say("Nothing happened before that date; no file was made")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A file's error does not name it.
fn named(error: ArchiveError, file: &Path) -> Failure {
    match error {
        ArchiveError::File(error) => format!("cannot use the archive {}: {error}", file.display()).into(),
        other => other.into(),
    }
}

async fn verify(arguments: &Verify, config: &Config) -> Result<ExitCode, Failure> {
    let mut archived: Option<Archive> = None;
    for path in &arguments.archive {
        let found = verify_archive(path, archived.map(|before| before.last))?;
        archived = Some(Archive { first_seq: archived.map_or(found.first_seq, |first| first.first_seq), ..found });
    }
    let db = Db::open(&config.database, Mode::Read).await?;
    let found = audit::verify(&db).await?;
    if let Some(archived) = archived.map(|archived| archived.last).filter(|last| *last != found.start) {
        let place = |head: Head| format!("seq {} ({})", head.seq, hex(&head.hash));
        let (end, start) = (place(archived), place(found.start));
        return Err(format!("the archives end at {end}, but the database goes on from {start}").into());
    }
    let hash = hex(&found.head.hash);
    if arguments.json {
        let broken = found.broken.map(|broken| json!({ "seq": broken.seq, "reason": broken.reason }));
        let verdict = json!({
            "valid": found.broken.is_none(), "records": found.head.seq, "archived": found.start.seq, "head_hash": hash,
            "first_bad": broken,
        });
        say(verdict)?;
    }
    match found.broken {
        None => {
            if !arguments.json {
                let moved = found.start.seq;
                let unproved = archived.map_or(moved, |archived| archived.first_seq - 1);
                let of_them = match (moved, unproved) {
                    (0, _) => String::new(),
                    (_, 0) => format!(", {moved} of them archived"),
                    _ => format!(", {moved} of them archived, {unproved} not proved here: name their archives"),
                };
                say(format_args!("The audit log holds: {} records{of_them}, head {hash}", found.head.seq))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(broken) => Err(format!("the audit log does not hold at seq {}: {}", broken.seq, broken.reason).into()),
    }
}

/// Walks an archive that goes on from `before`.
fn verify_archive(path: &Path, before: Option<Head>) -> Result<Archive, Failure> {
    let shown = path.display();
    let found = archive::read(path, before).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Ok(found.map_err(|broken| format!("{shown} does not hold at seq {}: {}", broken.seq, broken.reason))?)
}
