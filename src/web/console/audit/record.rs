//! A single record: on a page of its own, and beside the list.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde_json::Value;

use super::{
    filters::{self, LIST, Listing},
    row::{Row, agent, rows_of},
};
use crate::{
    domain::{
        ActorId, AgentId, ApiKeyId, Error, Limit, Result, Timestamp,
        audit::{ArchivedRange, Filter, Record, hex},
    },
    service::{
        Caller, Services,
        audit::{
            self,
            names::{self, Names},
            proof::{self, Proof},
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, is_htmx},
            page::{
                frame::{Frame, Moment, Page},
                query::{Params, Query},
            },
        },
        failure::Failure,
    },
};

/// Records of the same request that are shown.
const SAME_REQUEST: Limit = Limit::of(10);
const NOT_FOUND: Error = Error::NotFound("Audit record");

/// A record to show.
pub(super) enum Opened {
    Record(Box<Detail>),
    Archived { seq: i64, ending: Ending, close: String },
    Missing { seq: i64, close: String },
}

/// Everything about a record.
pub(super) struct Detail {
    pub(super) row: Row,
    pub(super) record: Record,
    pub(super) id: String,
    pub(super) hash: String,
    pub(super) prev_hash: String,
    pub(super) changes: Vec<Change>,
    pub(super) facts: Vec<Fact>,
    pub(super) proof: Proof,
    /// The other records of the same request.
    pub(super) same_request: Vec<Row>,
    pub(super) request_href: String,
    pub(super) newer: Option<(i64, String)>,
    pub(super) older: Option<(i64, String)>,
    /// The list without this record.
    pub(super) close: String,
}

/// A member of the details.
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) href: Option<String>,
    pub(super) at: Option<Moment>,
}

/// A changed field.
pub(super) struct Change {
    pub(super) field: String,
    pub(super) before: Side,
    pub(super) after: Side,
}

/// The value of a field before or after a change.
pub(super) struct Side {
    pub(super) text: String,
    /// Hash of the whole value, if the text is truncated.
    pub(super) sha256: Option<String>,
}

impl Side {
    fn of(change: &Value, value: &str, hash: &str) -> Self {
        Self {
            text: change.get(value).map(plain).unwrap_or_default(),
            sha256: change.get(hash).and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// Where the log in the database begins, and where the records before it are.
pub(in crate::web::console) struct Ending {
    pub(in crate::web::console) first_seq: i64,
    pub(in crate::web::console) last_seq: i64,
    pub(in crate::web::console) last_at: Option<Moment>,
    pub(in crate::web::console) archived_at: Option<Moment>,
    pub(in crate::web::console) file: Option<String>,
}

impl Ending {
    /// Returns `None` if no records were archived, or only records from before `from`.
    pub(in crate::web::console) async fn of(
        services: &Services,
        caller: &Caller,
        from: Option<Timestamp>,
    ) -> Result<Option<Self>> {
        let archived = audit::last_archived(services, caller).await?;
        let is_hidden = |archived: &ArchivedRange| from.zip(archived.last_at).is_some_and(|(from, last)| from > last);
        Ok(archived.filter(|archived| !is_hidden(archived)).map(|archived| Self::from(services, archived)))
    }

    fn from(services: &Services, archived: ArchivedRange) -> Self {
        let now = services.env.now();
        Self {
            first_seq: archived.first_seq,
            last_seq: archived.last_seq,
            last_at: archived.last_at.map(|at| Moment::at(at, now)),
            archived_at: archived.archived_at.map(|at| Moment::at(at, now)),
            file: archived.file,
        }
    }
}

impl Opened {
    /// Reads a record. The newer and the older record are the next ones that match the filter.
    pub(super) async fn of(
        services: &Services,
        caller: &Caller,
        filter: &Filter,
        params: &Params,
        seq: i64,
    ) -> Result<Self> {
        let close = params.with("record", "").href(LIST);
        match audit::get(services, caller, seq).await {
            Ok(record) => Ok(Self::Record(Box::new(Detail::of(services, caller, filter, params, record).await?))),
            Err(Error::NotFound(_)) => Ok(match audit::archived(services, caller, seq).await? {
                Some(archived) => Self::Archived { seq, ending: Ending::from(services, archived), close },
                None => Self::Missing { seq, close },
            }),
            Err(error) => Err(error),
        }
    }
}

impl Detail {
    async fn of(
        services: &Services,
        caller: &Caller,
        filter: &Filter,
        params: &Params,
        record: Record,
    ) -> Result<Self> {
        let names = names::of(services, caller, std::slice::from_ref(&record)).await?;
        let mut same = proof::same_request(services, caller, &record, SAME_REQUEST).await?;
        same.retain(|other| other.seq != record.seq);
        let mut rows = rows_of(services, caller, vec![record.clone()], params).await?;
        let (newer, older) = proof::neighbours(services, caller, filter, record.seq).await?;
        let filters = filters::filters(params);
        let href = |seq: i64| (seq, filters.href(&format!("{LIST}/{seq}")));
        let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
        let request = record.request_id.clone().unwrap_or_default();
        Ok(Self {
            row: rows.pop().ok_or(NOT_FOUND)?,
            id: record.id.to_string(),
            hash: hex(&record.hash),
            prev_hash: hex(&record.prev_hash),
            changes: changes(&details),
            facts: facts(&details, &names, services.env.now()),
            proof: proof::of(services, caller, &record).await?,
            same_request: rows_of(services, caller, same, &Params::default()).await?,
            request_href: Params::default().with("request", &request).href(LIST),
            newer: newer.map(href),
            older: older.map(href),
            close: params.with("record", "").href(LIST),
            record,
        })
    }

    /// What is known about the integrity of the record, and whether it is good.
    pub(super) fn verdict(&self) -> (bool, &'static str) {
        match self.proof {
            Proof { is_intact: false, .. } => (false, "The record was altered: it does not match its hash."),
            Proof { follows: Some(false), .. } => {
                (false, "The record matches its hash, but it does not continue from the record before it.")
            }
            Proof { is_followed: Some(false), .. } => {
                (false, "The record matches its hash, but the next record does not continue from it.")
            }
            Proof { is_verified: true, .. } => {
                (true, "The record matches its hash, and the whole chain was verified up to it.")
            }
            Proof { follows: Some(true), is_followed: Some(true), .. } => {
                (true, "The record matches its hash, and so do its links to the records before and after it.")
            }
            Proof { .. } => (true, "The record matches its hash."),
        }
    }
}

fn changes(details: &Value) -> Vec<Change> {
    let changes = details.get("changes").and_then(Value::as_object);
    let change = |(field, change): (&String, &Value)| Change {
        field: field.replace('_', " "),
        before: Side::of(change, "from", "from_sha256"),
        after: Side::of(change, "to", "to_sha256"),
    };
    changes.into_iter().flatten().filter(|(_, change)| change.is_object()).map(change).collect()
}

/// Returns the members of the details, in words: identifiers with names, and times as times.
fn facts(details: &Value, names: &Names, now: Timestamp) -> Vec<Fact> {
    let members = details.as_object().into_iter().flatten();
    let members = members.filter(|(name, value)| name.as_str() != "changes" && !value.is_null());
    members.map(|(name, value)| fact(name, value, details, names, now)).collect()
}

fn fact(name: &str, value: &Value, details: &Value, names: &Names, now: Timestamp) -> Fact {
    let plain_fact = |label: &str, text: String| Fact { name: label.to_owned(), text, href: None, at: None };
    let moment = |label: &str, at: Option<Timestamp>| match at {
        Some(at) => Fact { at: Some(Moment::at(at, now)), ..plain_fact(label, String::new()) },
        None => plain_fact(label, plain(value)),
    };
    let agent_fact = |label: &str| match value.as_str().and_then(AgentId::parse) {
        Some(id) => Fact { href: Some(agent(id)), ..plain_fact(label, names.actor_or_id(id.into())) },
        None => plain_fact(label, plain(value)),
    };
    let key_fact = |label: &str| {
        let key = value.as_str().and_then(ApiKeyId::parse).and_then(|id| Some((id, names.key(id)?)));
        match key {
            Some((id, key)) => {
                let href = format!("{}/keys/{id}", agent(key.agent));
                Fact { href: Some(href), ..plain_fact(label, key.label()) }
            }
            None => plain_fact(label, plain(value)),
        }
    };
    let time = || value.as_str().and_then(Timestamp::parse_lenient);
    match name {
        "exp" => moment("Token expires", value.as_i64().map(Timestamp::from_secs)),
        "expires_at" => moment("Expires", time()),
        "since" => moment("Counted since", time()),
        "act" => {
            let links = names::acting(details).into_iter();
            let links = links.map(|id| ActorId::parse(id).map_or_else(|| id.to_owned(), |id| names.actor_or_id(id)));
            plain_fact("Acting agents", links.collect::<Vec<_>>().join(", for "))
        }
        "sub" => agent_fact("Token subject"),
        "target_agent" => agent_fact("Agent"),
        "delegate" => agent_fact("Delegate"),
        "on_behalf_of" => agent_fact("On behalf of"),
        "old_key_id" => key_fact("Old key"),
        "new_key_id" => key_fact("New key"),
        "subject_credential" => key_fact("Credential of the subject"),
        "jti" => plain_fact("Token ID", plain(value)),
        "subject_jti" => plain_fact("Exchanged token ID", plain(value)),
        "aud" => plain_fact("Token audience", plain(value)),
        "epoch" => plain_fact("Token epoch", plain(value)),
        "scope" => plain_fact("Capabilities", plain(value)),
        "reason" => plain_fact("Reason", plain(value)),
        _ => plain_fact(&capitalized(&name.replace('_', " ")), plain(value)),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Formats a JSON value for people.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let shown = members.iter().filter(|(_, value)| !value.is_null());
            shown
                .map(|(name, value)| format!("{}: {}", name.replace('_', " "), plain(value)))
                .collect::<Vec<_>>()
                .join("\n")
        }
        other => other.to_string(),
    }
}

#[derive(Template)]
#[template(path = "audit/record.html")]
struct RecordPage {
    frame: Frame,
    open: Opened,
    is_page: bool,
}

impl RecordPage {
    /// The list that the record was opened from.
    fn close(&self) -> &str {
        match &self.open {
            Opened::Record(detail) => &detail.close,
            Opened::Archived { close, .. } | Opened::Missing { close, .. } => close,
        }
    }
}

#[derive(Template)]
#[template(path = "audit/detail.html")]
struct RecordFragment {
    open: Opened,
    is_page: bool,
}

/// Shows a record. The query contains the filters of the list that it was opened from.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    headers: HeaderMap,
    Path(seq): Path<String>,
    Query(listing, params): Query<Listing>,
) -> Result<Response, Failure> {
    let seq = seq.parse().map_err(|_| NOT_FOUND)?;
    let (filter, _) = listing.resolve(&services, &admin).await?;
    let open = Opened::of(&services, &admin, &filter, &params, seq).await?;
    if matches!(open, Opened::Missing { .. }) {
        return Err(NOT_FOUND.into());
    }
    if is_htmx(&headers) {
        return Ok(Page(RecordFragment { open, is_page: false }).into_response());
    }
    Ok(Page(RecordPage { frame: frame.at("audit"), open, is_page: true }).into_response())
}
