//! What a restore takes back: what the replaced database recorded after the backup was made.

use serde::Serialize;
use serde_json::Value;

use crate::{
    domain::{
        Result, Timestamp,
        audit::{AuditAction, Head},
    },
    store::{Db, audit},
};

/// Records per read.
const BATCH: i64 = 1_000;

/// The events that took access away, or changed who can sign in. After a restore they have not happened.
const EVENTS: [AuditAction; 26] = [
    AuditAction::TokenRevoked,
    AuditAction::TokensRevoked,
    AuditAction::ResourceUpdated,
    AuditAction::ResourceDeleted,
    AuditAction::AgentSuspended,
    AuditAction::AgentRevoked,
    AuditAction::AgentDeleted,
    AuditAction::KeyRotated,
    AuditAction::KeyRevoked,
    AuditAction::PublicKeyRemoved,
    AuditAction::DelegateRemoved,
    AuditAction::FederatedIdentityRemoved,
    AuditAction::CapabilityDeleted,
    AuditAction::CapabilityRevoked,
    AuditAction::AdministratorCreated,
    AuditAction::AdministratorUpdated,
    AuditAction::AdministratorDisabled,
    AuditAction::AdministratorEnabled,
    AuditAction::PasswordChanged,
    AuditAction::FactorChanged,
    AuditAction::InvitationRenewed,
    AuditAction::InvitationWithdrawn,
    AuditAction::InvitationAccepted,
    AuditAction::SigningKeyWithdrawn,
    AuditAction::MasterKeyRotated,
    AuditAction::MasterKeyRetired,
];

/// An event that a restore takes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// When it happened.
    pub at: Timestamp,
    /// The event.
    pub event: String,
    /// The type of its target.
    pub target_type: Option<String>,
    /// The identifier of its target.
    pub target_id: Option<String>,
    /// The agent that it affected.
    pub agent: Option<String>,
    /// The details of its record.
    pub details: Value,
}

/// What is known about the time since the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Unknown {
        /// Why.
        reason: String,
        /// The end of the replaced audit log, if it can be read.
        head: Option<Head>,
    },
    /// Everything: these events are taken back.
    Known {
        /// The end of the replaced audit log.
        head: Head,
        /// The events, oldest first.
        undone: Vec<Undone>,
    },
}

impl Since {
    /// Returns the end of the replaced audit log, if it can be read.
    #[must_use]
    pub const fn head(&self) -> Option<Head> {
        match self {
            Self::Unknown { head, .. } => *head,
            Self::Known { head, .. } => Some(*head),
        }
    }
}

/// Reads what a database recorded after `head`.
///
/// # Errors
/// When the database fails.
pub(super) async fn since(db: &Db, head: Head) -> Result<Since> {
    let mut read = db.read().await?;
    let (start, end) = (audit::start(read.conn()).await?, audit::head(read.conn()).await?);
    let unknown = |reason: &str| Since::Unknown { reason: reason.to_owned(), head: Some(end) };
    if head.seq < start.seq {
        return Ok(unknown("the records since the backup were archived: look for the revocations in the archives"));
    }
    let continues = if head.seq == start.seq {
        head.hash == start.hash
    } else {
        audit::find(read.conn(), head.seq).await?.is_some_and(|record| record.hash == head.hash)
    };
    if !continues {
        return Ok(unknown("the replaced database does not continue the audit log of the backup"));
    }
    let (mut undone, mut seq) = (Vec::new(), head.seq);
    while seq < end.seq {
        let records = audit::chain(read.conn(), seq + 1, BATCH).await?;
        let Some(last) = records.iter().flatten().map(|record| record.seq).max() else { break };
        let events = EVENTS.map(AuditAction::as_str);
        let found =
            records.into_iter().flatten().filter(|record| record.success && events.contains(&record.action.as_str()));
        undone.extend(found.map(|record| Undone {
            at: record.at,
            event: record.action,
            target_type: record.resource_type,
            target_id: record.resource_id,
            agent: record.subject.map(|agent| agent.to_string()),
            details: serde_json::from_str(&record.details).unwrap_or_default(),
        }));
        seq = last;
    }
    Ok(Since::Known { head: end, undone })
}
