//! The chain: how a record seals all that came before it, and how a walk over records finds the first that does not hold.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{AuditAction, Record};

/// A SHA-256 digest that closes a link of the chain.
pub type ChainHash = [u8; 32];

/// A digest in lower-case hexadecimal digits.
#[must_use]
pub fn hex(digest: &ChainHash) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the first record names as its predecessor.
pub const GENESIS: ChainHash = [0; 32];

impl Record {
    /// What a record says of an archive that ends with `last`.
    #[must_use]
    pub fn archive_details(first_seq: i64, last: Head) -> Value {
        serde_json::json!({ "first_seq": first_seq, "last_seq": last.seq, "last_hash": hex(&last.hash) })
    }

    fn is_archived_up_to(&self, last: Head) -> bool {
        if self.action != AuditAction::AuditArchived.as_str() {
            return false;
        }
        let said = serde_json::from_str::<Value>(&self.details).unwrap_or_default();
        let first_seq = said.get("first_seq").and_then(Value::as_i64).unwrap_or_default();
        said == Self::archive_details(first_seq, last)
    }

    /// The hash this record must carry: SHA-256 over its canonical form and its predecessor's hash.
    ///
    /// The canonical form is the fields in the order of [`Record`], each as one byte that tells whether it is
    /// present, and if so its length in bytes (32 bits, big-endian) and the bytes: integers as 64 bits big-endian,
    /// UUIDs as their 16 bytes, texts in UTF-8, `success` as one byte. No two records share a canonical form.
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

/// Where the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Position of the last record; 0 when there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: ChainHash,
}

impl Head {
    /// The head of an empty chain.
    pub const EMPTY: Self = Self { seq: 0, hash: GENESIS };

    /// Gives each record its place and its hashes; returns where the chain ends with them.
    #[must_use]
    pub fn append(self, records: &mut [Record]) -> Self {
        records.iter_mut().fold(self, |head, record| {
            record.seq = head.seq + 1;
            record.prev_hash = head.hash;
            record.hash = record.expected_hash();
            Self { seq: record.seq, hash: record.hash }
        })
    }

    /// Checks that `record` continues the chain that ends here, and moves on to it.
    ///
    /// # Errors
    /// Names the first position that does not fit and why.
    pub fn check(&mut self, record: &Record) -> Result<(), Break> {
        let broken = |reason| Err(Break { seq: self.seq + 1, reason });
        if record.seq != self.seq + 1 {
            return broken("the record is missing or out of order");
        }
        if record.prev_hash != self.hash {
            return broken("the record does not continue the one before it");
        }
        if record.hash != record.expected_hash() {
            return broken("the record was altered");
        }
        *self = Self { seq: record.seq, hash: record.hash };
        Ok(())
    }
}

/// A walk over the records that are stored, whose chain begins where an archive ends.
#[derive(Debug)]
pub struct Walk {
    /// The last record that was archived.
    start: Head,
    /// The last record that holds; `None` before the first.
    head: Option<Head>,
    /// Whether a record was met that says what `start` is.
    is_start_recorded: bool,
}

impl Walk {
    /// Begins a walk over a chain that begins after `start`. Records of the archive may still be there.
    #[must_use]
    pub const fn from(start: Head) -> Self {
        Self { start, head: None, is_start_recorded: start.seq == 0 }
    }

    /// The last record that holds.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.unwrap_or(self.start)
    }

    /// Checks that `record` is the next, and moves on to it.
    ///
    /// # Errors
    /// Names the first position that does not fit and why.
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

    /// Checks that the log itself says why it begins where it does.
    ///
    /// # Errors
    /// When no record says that what came before was archived.
    pub const fn check_start(&self) -> Result<(), Break> {
        if self.is_start_recorded {
            return Ok(());
        }
        Err(Break { seq: self.start.seq + 1, reason: "no record says that those before it were archived" })
    }
}

/// The first place where the chain does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The position.
    pub seq: i64,
    /// What is wrong there.
    pub reason: &'static str,
}
