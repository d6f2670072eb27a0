//! Retention: moves old audit records to a file that can still be verified. The chain continues from the last archived
//! record.

use std::{io, path::Path, time::Duration};

use crate::{
    domain::{
        Error, Result, Timestamp,
        audit::{ArchivedRange, AuditAction, Break, Head, Record},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::audit::{
        self,
        archive::{Reader, Writer},
    },
};

/// Minimum age of archived records, because active tokens are read from younger ones.
pub const KEPT: Duration = Duration::from_hours(48);
/// Records per read and per removal.
const BATCH: i64 = 1_000;

/// The contents of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The position of the first record.
    pub first_seq: i64,
    /// The last record.
    pub last: Head,
}

/// Why nothing was archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The date is too recent.
    #[error("records of the last 48 hours stay in the database; choose an earlier date")]
    TooRecent,
    /// The file cannot be written or read.
    #[error("cannot use the archive: {0}")]
    File(#[from] io::Error),
    /// The chain is broken, which an archive would hide.
    #[error("the audit log is broken at seq {}: {}", .0.seq, .0.reason)]
    Broken(Break),
    /// The database failed, or records were archived concurrently.
    #[error("{0}")]
    Store(#[from] Error),
}

/// Moves records to a new file at `path`, up to the first one that is not older than `before`. Returns `None` if there
/// are none. First the file becomes durable, then the audit record of the archive, and only then are records removed.
///
/// # Errors
/// See [`ArchiveError`]. The audit log is unchanged then.
pub async fn archive(
    services: &Services,
    caller: &Caller,
    before: Timestamp,
    path: &Path,
) -> Result<Option<Archive>, ArchiveError> {
    services.permit(caller, Action::ArchiveAudit).await?;
    if before > services.env.now().minus(KEPT) {
        return Err(ArchiveError::TooRecent);
    }
    // An earlier run may have been interrupted before all records were removed.
    remove_archived(services).await?;
    let start = audit::start(services.store.read().await?.conn()).await?;
    let (last, last_at) = write(services, start, before, path).await?;
    if last == start {
        return Ok(None);
    }
    // The file will soon be the only copy, so it is read back.
    let archived = read(path, Some(start))?;
    if archived != Ok(Archive { first_seq: start.seq + 1, last }) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file does not contain what was written").into());
    }
    // The folder says nothing to those who read the log, and the file may be moved.
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
    services
        .change(caller, Action::ArchiveAudit, move |act| {
            Box::pin(async move {
                if !audit::move_start(act.conn(), start, last).await? {
                    return Err(Error::Conflict("Somebody else archived records in the meantime".into()));
                }
                let archived = ArchivedRange {
                    first_seq: start.seq + 1,
                    last_seq: last.seq,
                    last_at: Some(last_at),
                    archived_at: Some(act.now),
                    file,
                };
                audit::archives::insert(act.conn(), &archived).await?;
                act.audit(AuditAction::AuditArchived, None, None, Record::archive_details(start.seq + 1, last));
                Ok(())
            })
        })
        .await?;
    remove_archived(services).await?;
    Ok(Some(Archive { first_seq: start.seq + 1, last }))
}

/// Writes the file. Returns the last record and its time.
async fn write(
    services: &Services,
    start: Head,
    before: Timestamp,
    path: &Path,
) -> Result<(Head, Timestamp), ArchiveError> {
    let mut read = services.store.read().await?;
    let mut writer = Writer::create(path)?;
    let (mut head, mut last_at) = (start, before);
    'log: loop {
        let records = audit::chain(read.conn(), head.seq + 1, BATCH).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let seq = head.seq + 1;
            let record = record.ok_or(ArchiveError::Broken(Break { seq, reason: "the record cannot be read" }))?;
            if record.at >= before {
                break 'log;
            }
            head.check(&record).map_err(ArchiveError::Broken)?;
            last_at = record.at;
            writer.add(record)?;
        }
    }
    if head != start {
        writer.finish()?;
    }
    Ok((head, last_at))
}

/// Removes the archived records in small transactions, so that other writes do not wait long.
async fn remove_archived(services: &Services) -> Result<()> {
    loop {
        let removed =
            services.store.write(|tx| Box::pin(async move { audit::remove_archived(tx.conn(), BATCH).await })).await?;
        if removed == 0 {
            break;
        }
    }
    audit::index::forget_archived(&services.store).await
}

/// Reads an archive and verifies that its records are consecutive parts of one chain, which continues from `after` if
/// it is given. The inner error is the first invalid record.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, after: Option<Head>) -> io::Result<Result<Archive, Break>> {
    let mut archive = after.map(|last| Archive { first_seq: last.seq + 1, last });
    for record in Reader::open(path)? {
        let record = record?;
        let seq = record.seq;
        let before = if seq == 1 { Head::EMPTY } else { Head { seq: seq - 1, hash: record.prev_hash } };
        let archive = archive.get_or_insert(Archive { first_seq: seq, last: before });
        if let Err(broken) = archive.last.check(&record) {
            return Ok(Err(broken));
        }
    }
    archive
        .filter(|archive| archive.last.seq >= archive.first_seq)
        .map(Ok)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file has no records"))
}
