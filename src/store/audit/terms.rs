//! Terms: hashes of the fields of an audit record that a filter can name.

use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use crate::domain::{Timestamp, audit::Filter};

/// A 64-bit hash of a field and its value. The term of an agent as actor and its term as subject differ in the last bit only, so
/// that both are in the same bucket.
pub(super) type Term = u64;

#[derive(Clone, Copy)]
pub(super) enum Field {
    Actor = 1,
    /// The agent that a record is about, if it is not the actor.
    Subject,
    Action,
    ResourceType,
    ResourceId,
    Outcome,
}

/// Stored in the index: a change here requires that it is built again.
pub(super) fn term(field: Field, value: &[u8]) -> Term {
    let (hashed, last) = match field {
        Field::Subject => (Field::Actor, 1),
        field => (field, 0),
    };
    let digest = Sha256::new().chain_update([hashed as u8]).chain_update(value).finalize();
    let hash: Term = digest.iter().take(8).fold(0, |term, byte| term << 8 | u64::from(*byte));
    hash & !1 | last
}

/// The columns of a record that a filter can name.
#[derive(Clone, FromRow)]
pub(super) struct Described {
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) actor: Option<Uuid>,
    pub(super) subject: Option<Uuid>,
    pub(super) action: String,
    pub(super) resource_type: Option<String>,
    pub(super) resource_id: Option<String>,
    pub(super) success: i32,
}

impl Described {
    pub(super) fn terms(&self) -> impl Iterator<Item = Term> {
        let subject = self.subject.filter(|subject| self.actor != Some(*subject));
        let of = |field, value: Option<&[u8]>| value.map(|value| term(field, value));
        [
            of(Field::Actor, self.actor.as_ref().map(|id| id.as_bytes().as_slice())),
            of(Field::Subject, subject.as_ref().map(|id| id.as_bytes().as_slice())),
            of(Field::Action, Some(self.action.as_bytes())),
            of(Field::ResourceType, self.resource_type.as_deref().map(str::as_bytes)),
            of(Field::ResourceId, self.resource_id.as_deref().map(str::as_bytes)),
            of(Field::Outcome, Some(&[u8::from(self.success != 0)])),
        ]
        .into_iter()
        .flatten()
    }
}

/// A filter in the form in which the index is searched: a record matches if it has at least one term of each list and lies in the
/// time range.
pub(super) struct Wanted {
    pub(super) terms: Vec<Vec<Term>>,
    pub(super) from: Option<i64>,
    pub(super) until: Option<i64>,
}

impl Wanted {
    /// Returns `None` if the filter matches every record.
    pub(super) fn by(filter: &Filter) -> Option<Self> {
        let one = |field, value: &[u8]| vec![term(field, value)];
        let involving =
            |id: Uuid| [Field::Actor, Field::Subject].map(|field| term(field, id.as_bytes().as_slice())).to_vec();
        let terms: Vec<_> = [
            filter.actor.map(|id| one(Field::Actor, id.0.as_bytes())),
            filter.involving.map(|id| involving(id.0)),
            filter.action.as_ref().map(|action| one(Field::Action, action.as_bytes())),
            filter.resource_type.as_ref().map(|kind| one(Field::ResourceType, kind.as_bytes())),
            filter.resource_id.as_ref().map(|id| one(Field::ResourceId, id.as_bytes())),
            filter.success.map(|success| one(Field::Outcome, &[u8::from(success)])),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (from, until) = (filter.from.map(Timestamp::as_micros), filter.until.map(Timestamp::as_micros));
        (!terms.is_empty() || from.is_some() || until.is_some()).then_some(Self { terms, from, until })
    }
}
