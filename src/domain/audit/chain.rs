//! The hash chain of audit records, and how it is verified.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{AuditAction, Record};

/// The SHA-256 hash of an audit record.
pub type ChainHash = [u8; 32];

/// Formats a hash as lowercase hexadecimal digits.
#[must_use]
pub fn hex(digest: &ChainHash) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The previous hash of the first record.
pub const GENESIS: ChainHash = [0; 32];

impl Record {
    /// Returns the details of the record of an archive that contains `first_seq` to `last`.
    #[must_use]
    pub fn archive_details(first_seq: i64, last: Head) -> Value {
        serde_json::json!({ "first_seq": first_seq, "last_seq": last.seq, "last_hash": hex(&last.hash) })
    }

    fn is_archived_up_to(&self, last: Head) -> bool {
        if self.action != AuditAction::AuditArchived.as_str() {
            return false;
        }
        let details = serde_json::from_str::<Value>(&self.details).unwrap_or_default();
        let first_seq = details.get("first_seq").and_then(Value::as_i64).unwrap_or_default();
        details == Self::archive_details(first_seq, last)
    }

    /// Computes the hash of this record: SHA-256 over its canonical form followed by the previous hash.
    ///
    /// The canonical form contains the fields in the order of [`Record`]. Each field is a byte that is 1 if the field
    /// is present and 0 if not; a present field continues with its length in bytes (32 bits, big-endian) and its bytes.
    /// Integers are 64 bits, big-endian; UUIDs are 16 bytes; text is UTF-8; `success` is one byte. No two records have
    /// the same canonical form.
    #[must_use]
    pub fn expected_hash(&self) -> ChainHash {
        let mut canonical = Canonical(Sha256::new());
        canonical.field(Some(&self.seq.to_be_bytes()));
        canonical.field(Some(self.id.as_bytes()));
        canonical.field(Some(&self.at.as_micros().to_be_bytes()));
        canonical.field(self.actor.as_ref().map(|id| id.0.as_bytes().as_slice()));
        canonical.field(self.subject.as_ref().map(|id| id.0.as_bytes().as_slice()));
        canonical.field(Some(self.action.as_bytes()));
        canonical.field(self.resource_type.as_deref().map(str::as_bytes));
        canonical.field(self.resource_id.as_deref().map(str::as_bytes));
        canonical.field(Some(self.details.as_bytes()));
        canonical.field(self.ip.as_deref().map(str::as_bytes));
        canonical.field(Some(&[u8::from(self.success)]));
        canonical.field(self.request_id.as_deref().map(str::as_bytes));
        canonical.0.update(self.prev_hash);
        canonical.0.finalize().into()
    }
}

struct Canonical(Sha256);

impl Canonical {
    fn field(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return self.0.update([0]) };
        self.0.update([1]);
        self.0.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.update(bytes);
    }
}

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Position of the last record; 0 for an empty chain.
    pub seq: i64,
    /// Hash of the last record.
    pub hash: ChainHash,
}

impl Head {
    /// The head of an empty chain.
    pub const EMPTY: Self = Self { seq: 0, hash: GENESIS };

    /// Assigns positions and hashes to records, in order. Returns the new head.
    #[must_use]
    pub fn append(self, records: &mut [Record]) -> Self {
        records.iter_mut().fold(self, |head, record| {
            record.seq = head.seq + 1;
            record.prev_hash = head.hash;
            record.hash = record.expected_hash();
            Self { seq: record.seq, hash: record.hash }
        })
    }

    /// Checks that `record` follows this head, and advances to it.
    ///
    /// # Errors
    /// If the record does not follow, with the position and the reason.
    pub fn check(&mut self, record: &Record) -> Result<(), Break> {
        let broken = |reason| Err(Break { seq: self.seq + 1, reason });
        if record.seq != self.seq + 1 {
            return broken("the record is missing or out of order");
        }
        if record.prev_hash != self.hash {
            return broken("the record does not follow the one before it");
        }
        if record.hash != record.expected_hash() {
            return broken("the record was altered");
        }
        *self = Self { seq: record.seq, hash: record.hash };
        Ok(())
    }
}

/// Verifies the stored records in order. The chain in the database starts where the last archive ends.
#[derive(Debug)]
pub struct ChainVerifier {
    /// The last record that was archived.
    start: Head,
    /// The last verified record; `None` before the first.
    head: Option<Head>,
    /// True once a verified record states that the records up to `start` were archived.
    is_start_recorded: bool,
}

impl ChainVerifier {
    /// Starts verifying a chain that begins after `start`. Archived records may still be present.
    #[must_use]
    pub const fn from(start: Head) -> Self {
        Self { start, head: None, is_start_recorded: start.seq == 0 }
    }

    /// Returns the position and hash of the last verified record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.unwrap_or(self.start)
    }

    /// Checks that `record` is the next in the chain, and advances to it.
    ///
    /// # Errors
    /// If the record is not the next, with the position and the reason.
    pub fn check(&mut self, record: &Record) -> Result<(), Break> {
        let is_archived = (1..=self.start.seq).contains(&record.seq);
        let before_archived = || Head { seq: record.seq - 1, hash: record.prev_hash };
        let mut head = match self.head {
            Some(head) => head,
            None if is_archived => before_archived(),
            None => self.start,
        };
        head.check(record)?;
        if head.seq == self.start.seq && head.hash != self.start.hash {
            return Err(Break { seq: head.seq, reason: "the record is not the one that was archived" });
        }
        self.is_start_recorded = self.is_start_recorded || record.is_archived_up_to(self.start);
        self.head = Some(head);
        Ok(())
    }

    /// Checks that the log itself records the archiving of everything before its start. Call it after the last record.
    ///
    /// # Errors
    /// If no verified record states that the earlier records were archived.
    pub const fn check_start(&self) -> Result<(), Break> {
        if self.is_start_recorded {
            return Ok(());
        }
        Err(Break { seq: self.start.seq + 1, reason: "no record states that the earlier records were archived" })
    }
}

/// The first position at which the chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The position.
    pub seq: i64,
    /// What is wrong.
    pub reason: &'static str,
}
