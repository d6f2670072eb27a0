//! Backup and restore of the whole database, in one format for SQLite and PostgreSQL.
//!
//! A backup is a consistent snapshot, taken while the service runs. It is read, compressed, encrypted and written in constant
//! memory. A restore first loads it into a new SQLite database that nobody uses, migrates it and verifies its audit log. Only
//! then does it take the place of the old one: by renaming the file, or in one transaction of PostgreSQL.
//!
//! A backup is a stream of lines, compressed with gzip and, if asked, encrypted with age:
//!
//! 1. the header: the version of the format and of AIMS, the schema, the time, and the head of the audit chain;
//! 2. for each table its name and columns, and then its rows in the order of their primary key, as arrays;
//! 3. the trailer: the number of rows of each table, and the SHA-256 of everything before it.

pub mod create;
mod file;
mod format;
pub mod restore;
pub mod schedule;
mod source;
pub mod undone;

pub use crate::crypto::envelope::{Decryption, Encryption, Recipient};
pub use create::{Made, Output, Request};
pub use format::Header;
pub use source::{ReadError, Source};

use serde_json::json;

use super::{Services, core::act::Act};
use crate::{
    clock::Environment,
    domain::{
        Result, Timestamp,
        audit::{AuditAction, hex},
    },
    store::{Store, backup::state},
};

/// The first schema with the table of the last backups.
const STATE_SCHEMA: i64 = 22;

/// The last backups of this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// When the data of the last backup was read, scheduled or by hand; `None` if there is none yet.
    pub made_at: Option<Timestamp>,
    /// The size of that backup, in bytes.
    pub bytes: Option<i64>,
    /// When a scheduled backup failed, unless a later one succeeded.
    pub failed_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<String>,
    /// True if this service makes scheduled backups.
    pub is_scheduled: bool,
    /// True if the last backup is older than twice the interval of the schedule.
    pub is_overdue: bool,
}

/// Returns how the last backups ended.
///
/// # Errors
/// When the database fails.
pub async fn last(services: &Services) -> Result<Last> {
    let state = state::read(services.store.read().await?.conn()).await?;
    let (plan, now) = (services.settings.backups.as_ref(), services.env.now());
    // Before the first backup, the time counts from when it was due.
    let is_overdue = plan.zip(state.made_at.or(state.slot)).is_some_and(|(plan, since)| {
        let interval = plan.schedule.interval();
        since.plus(interval).plus(interval) < now
    });
    Ok(Last {
        made_at: state.made_at,
        bytes: state.bytes,
        failed_at: state.failed_at,
        failure: state.failure,
        is_scheduled: plan.is_some(),
        is_overdue,
    })
}

/// Records a backup that was made by hand.
///
/// # Errors
/// When the database fails.
pub async fn record(store: &Store, env: &Environment, made: &Made) -> Result<()> {
    let (env, made) = (env.clone(), made.clone());
    store.write(move |tx| Box::pin(async move { record_in(&mut Act::by_system(tx, env), &made, false).await })).await
}

async fn record_in(act: &mut Act<'_>, made: &Made, is_scheduled: bool) -> Result<()> {
    if made.schema >= STATE_SCHEMA {
        state::succeeded(act.conn(), made.made_at, i64::try_from(made.bytes).unwrap_or(i64::MAX)).await?;
    }
    let details = json!({
        "file": made.file, "bytes": made.bytes, "sha256": made.sha256, "head_seq": made.head.seq,
        "head_hash": hex(&made.head.hash), "encryption": made.encryption, "master_key": made.has_master_key,
        "scheduled": is_scheduled,
    });
    act.audit(AuditAction::BackupCreated, None, None, details);
    Ok(())
}
