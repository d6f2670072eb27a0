//! Whether a database is still what was seen before another one takes its place. Preparing that takes minutes.

use super::{
    columns::{On, describe, on},
    loader::LoadError,
};
use crate::{domain::audit::Head, store::audit::chain_hash};

/// What a database held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No data.
    Nothing,
    /// An audit log that ends here. Every change adds a record.
    Head(Head),
    /// Something that cannot be read.
    Unreadable,
}

/// Checks that the database holds what was seen. The caller keeps others from writing.
pub(super) async fn require(mut on: On<'_>, seen: Seen) -> Result<(), LoadError> {
    const HEAD: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    let expected = match seen {
        Seen::Nothing => None,
        Seen::Head(head) => Some(head),
        Seen::Unreadable => return Ok(()),
    };
    let found: Option<(i64, Vec<u8>)> = match describe(on.reborrow(), "audit_head").await? {
        Some(_) => on!(on, |c| sqlx::query_as(HEAD).fetch_optional(c).await)?,
        None => None,
    };
    let found = found.map(|(seq, hash)| Head { seq, hash: chain_hash(&hash) }).filter(|head| *head != Head::EMPTY);
    if found == expected { Ok(()) } else { Err(LoadError::Changed) }
}
