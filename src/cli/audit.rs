//! `aims audit`. Both commands work while the service runs.

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
    /// Verify the whole hash chain. If it is broken, name the first bad record and exit with 1.
    Verify(Verify),
    /// Move old records to a file that `verify --archive` can verify.
    Archive(ToArchive),
}

#[derive(Args)]
pub(super) struct Verify {
    /// Verify this archive first. Repeat for several archives, oldest first; the last one must end where the database
    /// begins.
    #[arg(long, value_name = "FILE")]
    archive: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ToArchive {
    /// Move records older than this time (RFC 3339) or day (UTC), at least 48 hours ago.
    #[arg(long, value_name = "DATE")]
    before: String,
    /// File to create (gzip, one JSON object per line). It must not exist.
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
        None => say("No records before that date; no file was created")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// I/O errors do not name their file.
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
        // Standard error shows no whole hash, because API keys are stored as such.
        let place = |head: Head| format!("seq {} ({:.16}…)", head.seq, hex(&head.hash));
        let (end, start) = (place(archived), place(found.start));
        return Err(format!("the archives end at {end}, but the database begins after {start}").into());
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
                    _ => format!(
                        ", {moved} of them archived, {unproved} not verified: pass their archives with --archive"
                    ),
                };
                say(format_args!("The audit log is valid: {} records{of_them}, head {hash}", found.head.seq))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(broken) => Err(format!("the audit log is broken at seq {}: {}", broken.seq, broken.reason).into()),
    }
}

/// Verifies an archive that continues from `before`.
fn verify_archive(path: &Path, before: Option<Head>) -> Result<Archive, Failure> {
    let shown = path.display();
    let found = archive::read(path, before).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Ok(found.map_err(|broken| format!("{shown} is broken at seq {}: {}", broken.seq, broken.reason))?)
}
