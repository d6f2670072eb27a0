//! Retention: old records of the audit log move to a file that still proves them, and the log goes on from its end.

use std::{io, path::Path, time::Duration};

use crate::{
    domain::{
        Error, Result, Timestamp,
        audit::{AuditAction, Break, Head, Record},
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

/// Records that stay in any case: what tokens may still be live is read from them.
pub const KEPT: Duration = Duration::from_hours(48);
/// Records read, and removed, at a time.
const STRIDE: i64 = 1_000;

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Position of its first record.
    pub first_seq: i64,
    /// Its last record.
    pub last: Head,
}

/// Why nothing was archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Too young.
    #[error("records of the last 48 hours stay in the database; choose an earlier date")]
    TooRecent,
    /// The file cannot be used.
    #[error("cannot use the archive: {0}")]
    File(#[from] io::Error),
    /// The log does not hold, and an archive would hide it.
    #[error("the audit log does not hold at seq {}: {}", .0.seq, .0.reason)]
    Broken(Break),
    /// The database failed, or somebody else was quicker.
    #[error("{0}")]
    Store(#[from] Error),
}

/// Moves the records from before `before` to a new file at `path`, up to the first that is younger; `None` when there are none.
/// What it says of it in the log is durable before a record is removed, and the file before that.
///
/// # Errors
/// See [`ArchiveError`]; the log is as before then.
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
    // An earlier archive may have been interrupted before all was removed.
    remove_archived(services).await?;
    let start = audit::start(services.store.read().await?.conn()).await?;
    let last = write(services, start, before, path).await?;
    if last == start {
        return Ok(None);
    }
    // What is on the disk now is all that there will be.
    let archived = read(path, Some(start))?;
    if archived != Ok(Archive { first_seq: start.seq + 1, last }) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not read as it was written").into());
    }
    services
        .change(caller, Action::ArchiveAudit, move |act| {
            Box::pin(async move {
                if !audit::move_start(act.conn(), start, last).await? {
                    return Err(Error::Conflict("Somebody else archived the log meanwhile".into()));
                }
                act.audit(AuditAction::AuditArchived, None, None, Record::archive_details(start.seq + 1, last));
                Ok(())
            })
        })
        .await?;
    remove_archived(services).await?;
    Ok(Some(Archive { first_seq: start.seq + 1, last }))
}

async fn write(services: &Services, start: Head, before: Timestamp, path: &Path) -> Result<Head, ArchiveError> {
    let mut read = services.store.read().await?;
    let mut writer = Writer::create(path)?;
    let mut head = start;
    'log: loop {
        let records = audit::chain(read.conn(), head.seq + 1, STRIDE).await?;
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
            writer.add(record)?;
        }
    }
    if head != start {
        writer.finish()?;
    }
    Ok(head)
}

/// Removes what an archive holds, a little at a time, so that nobody waits long for the database.
async fn remove_archived(services: &Services) -> Result<()> {
    loop {
        let removed =
            services.store.write(|tx| Box::pin(async move { audit::remove_archived(tx.conn(), STRIDE).await })).await?;
        if removed == 0 {
            break;
        }
    }
    audit::index::forget_archived(&services.store).await
}

/// Reads an archive, and checks that its records are a part of one chain, that goes on from `after` where it is known; the inner error says where they are not.
///
/// # Errors
/// When it cannot be read at all.
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
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no record"))
}
