//! Terms: hashes of the fields of an audit record that a filter can name.

use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use crate::domain::{
    Timestamp,
    audit::{Filter, text_in},
};

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
    Request,
    Reason,
    Ip,
}

/// The version of the index in which records have a term for each field. Version 1 has none for `Request`, `Reason` and `Ip`.
pub(super) const VERSION: i64 = 2;

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
    pub(super) ip: Option<String>,
    pub(super) request_id: Option<String>,
    /// Read only for records with a term or a name in their details.
    pub(super) details: Option<String>,
}

impl Described {
    pub(super) fn terms(&self) -> impl Iterator<Item = Term> {
        let subject = self.subject.filter(|subject| self.actor != Some(*subject));
        let details = self.details.as_deref().filter(|_| self.success == 0);
        let reason = details.and_then(|details| text_in(details, "reason"));
        let of = |field, value: Option<&[u8]>| value.map(|value| term(field, value));
        [
            of(Field::Actor, self.actor.as_ref().map(|id| id.as_bytes().as_slice())),
            of(Field::Subject, subject.as_ref().map(|id| id.as_bytes().as_slice())),
            of(Field::Action, Some(self.action.as_bytes())),
            of(Field::ResourceType, self.resource_type.as_deref().map(str::as_bytes)),
            of(Field::ResourceId, self.resource_id.as_deref().map(str::as_bytes)),
            of(Field::Outcome, Some(&[u8::from(self.success != 0)])),
            of(Field::Request, self.request_id.as_deref().map(str::as_bytes)),
            of(Field::Reason, reason.as_deref().map(str::as_bytes)),
            of(Field::Ip, self.ip.as_deref().map(str::as_bytes)),
        ]
        .into_iter()
        .flatten()
    }
}

/// A filter in the form in which the index is searched: a record matches if it has at least one term of each list and lies in the
/// time range.
pub(super) struct Wanted {
    /// The version of the index that has all of these terms.
    pub(super) version: i64,
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
            filter.request.as_ref().map(|id| one(Field::Request, id.as_bytes())),
            filter.reason.as_ref().map(|reason| one(Field::Reason, reason.as_bytes())),
            filter.ip.as_ref().map(|ip| one(Field::Ip, ip.as_bytes())),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (from, until) = (filter.from.map(Timestamp::as_micros), filter.until.map(Timestamp::as_micros));
        let is_new = filter.request.is_some() || filter.reason.is_some() || filter.ip.is_some();
        let version = if is_new { VERSION } else { 1 };
        (!terms.is_empty() || from.is_some() || until.is_some()).then_some(Self { version, terms, from, until })
    }
}
