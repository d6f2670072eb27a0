//! What records are found by: each is known by a few hashes of what a filter may ask for.

use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use crate::domain::{
    Timestamp,
    audit::{Filter, Record},
};

/// A hash of what a record may be filtered by. That something was done by an agent, and to it, differs in the last bit alone, so that
/// one look finds either.
pub(super) type Term = u64;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Actor = 1,
    /// An agent that something happened to and that is not the actor.
    Subject,
    Action,
    ResourceType,
    ResourceId,
    Outcome,
}

pub(super) fn term(kind: Kind, value: &[u8]) -> Term {
    let (hashed, last) = match kind {
        Kind::Subject => (Kind::Actor, 1),
        kind => (kind, 0),
    };
    let digest = Sha256::new().chain_update([hashed as u8]).chain_update(value).finalize();
    let hash: Term = digest.iter().take(8).fold(0, |term, byte| term << 8 | u64::from(*byte));
    hash & !1 | last
}

/// What a record may be filtered by, as a row of the audit log.
#[derive(FromRow)]
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

/// A record as far as it can be found. Small: thousands are kept in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Findable {
    pub(super) seq: i64,
    pub(super) at: i64,
    /// A term of each [`Kind`], or 0.
    terms: [Term; 6],
}

impl Findable {
    fn new((seq, at): (i64, i64), agents: [Option<Uuid>; 2], words: [Option<&str>; 3], success: bool) -> Self {
        let [actor, subject] = agents;
        let [action, resource_type, resource_id] = words;
        let subject = subject.filter(|subject| actor != Some(*subject));
        let terms = [
            actor.map(|id| term(Kind::Actor, id.as_bytes())),
            subject.map(|id| term(Kind::Subject, id.as_bytes())),
            action.map(|word| term(Kind::Action, word.as_bytes())),
            resource_type.map(|word| term(Kind::ResourceType, word.as_bytes())),
            resource_id.map(|id| term(Kind::ResourceId, id.as_bytes())),
            Some(term(Kind::Outcome, &[u8::from(success)])),
        ];
        Self { seq, at, terms: terms.map(Option::unwrap_or_default) }
    }

    /// A place in the chain whose record is gone: what was archived, or should not be.
    pub(super) const fn gone(seq: i64) -> Self {
        Self { seq, at: i64::MIN, terms: [0; 6] }
    }

    pub(super) fn terms(&self) -> impl Iterator<Item = Term> {
        self.terms.into_iter().filter(|term| *term != 0)
    }
}

impl From<&Described> for Findable {
    fn from(row: &Described) -> Self {
        let words = [Some(row.action.as_str()), row.resource_type.as_deref(), row.resource_id.as_deref()];
        Self::new((row.seq, row.at), [row.actor, row.subject], words, row.success != 0)
    }
}

impl From<&Record> for Findable {
    fn from(record: &Record) -> Self {
        let agents = [record.actor.map(|id| id.0), record.subject.map(|id| id.0)];
        let words = [Some(record.action.as_str()), record.resource_type.as_deref(), record.resource_id.as_deref()];
        Self::new((record.seq, record.at.as_micros()), agents, words, record.success)
    }
}

/// What to look up for a filter: a record must hold one term of each list, and lie in the span of time.
pub(super) struct Wanted {
    pub(super) terms: Vec<Vec<Term>>,
    pub(super) from: Option<i64>,
    pub(super) until: Option<i64>,
}

impl Wanted {
    /// `None` when the filter shows everything, and there is nothing to look up.
    pub(super) fn by(filter: &Filter) -> Option<Self> {
        let actor = filter.actor.map(|id| vec![term(Kind::Actor, id.0.as_bytes())]);
        let involving = filter.involving.map(|id| [Kind::Actor, Kind::Subject].map(|kind| term(kind, id.0.as_bytes())));
        let action = filter.action.as_ref().map(|word| vec![term(Kind::Action, word.as_bytes())]);
        let resource_type = filter.resource_type.as_ref().map(|word| vec![term(Kind::ResourceType, word.as_bytes())]);
        let resource_id = filter.resource_id.as_ref().map(|id| vec![term(Kind::ResourceId, id.as_bytes())]);
        let outcome = filter.success.map(|success| vec![term(Kind::Outcome, &[u8::from(success)])]);
        let terms: Vec<_> = [actor, involving.map(Vec::from), action, resource_type, resource_id, outcome]
            .into_iter()
            .flatten()
            .collect();
        let (from, until) = (filter.from.map(Timestamp::as_micros), filter.until.map(Timestamp::as_micros));
        (!terms.is_empty() || from.is_some() || until.is_some()).then_some(Self { terms, from, until })
    }

    /// Whether a record may be one of them: two terms may share a hash.
    pub(super) fn may_be(&self, record: &Findable) -> bool {
        self.terms.iter().all(|list| list.iter().any(|term| record.terms.contains(term)))
            && self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at <= until)
    }
}
