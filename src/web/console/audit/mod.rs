//! Pages for the audit log: filtered list, single record and verification of the hash chain.

pub(super) mod export;
pub(super) mod tail;

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    Shared,
    guard::Admin,
    page::{
        form::message,
        frame::{Frame, Moment, Page, see_other, sentence, unprocessable},
        query::{Params, Query},
    },
};
use crate::{
    domain::{
        ActorId, AgentName, Error, Invalid, Limit, Result, Username,
        audit::{AuditAction, Filter, Record, Start, hex},
        text,
    },
    service::{
        Caller, Services, agents,
        audit::{self, Check},
        people::administrators,
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const PER_PAGE: Limit = Limit::of(50);

pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) at: Moment,
    pub(super) actor: Option<Link>,
    pub(super) target: Option<Link>,
    pub(super) action: String,
    pub(super) success: bool,
    pub(super) ip: Option<String>,
}

/// A link to the page of an agent, administrator or capability.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) href: String,
}

/// Converts records to table rows, with the names of actors and targets.
pub(super) async fn rows(services: &Services, caller: &Caller, records: Vec<Record>) -> Result<Vec<Row>> {
    let involved = |record: &Record| [record.actor, record.subject.map(Into::into)];
    let ids: Vec<_> = records.iter().flat_map(involved).flatten().collect();
    let names = audit::names(services, caller, &ids).await?;
    let now = services.env.now();
    let row = |record: Record| Row {
        seq: record.seq,
        at: Moment::at(record.at, now),
        actor: record.actor.map(|id| link(id, &names)),
        target: target(&record, &names),
        action: record.action,
        success: record.success,
        ip: record.ip,
    };
    Ok(records.into_iter().map(row).collect())
}

/// Falls back to the ID if the actor no longer exists.
fn link(id: ActorId, names: &HashMap<ActorId, String>) -> Link {
    let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    Link { name, href: format!("/console/audit?actor={id}") }
}

fn target(record: &Record, names: &HashMap<ActorId, String>) -> Option<Link> {
    if let Some(id) = record.subject {
        let name = names.get(&id.into()).cloned().unwrap_or_else(|| id.to_string());
        return Some(Link { name, href: format!("/console/agents/{id}") });
    }
    let id = record.resource_id.as_deref()?;
    match record.resource_type.as_deref()? {
        "capability" => {
            let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
            let name = details.get("capability").and_then(Value::as_str).unwrap_or(id).to_owned();
            Some(Link { name, href: format!("/console/capabilities/{id}") })
        }
        "administrator" => {
            let name = ActorId::parse(id).and_then(|id| names.get(&id).cloned());
            let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
            let recorded = || details.get("username").and_then(Value::as_str).unwrap_or(id).to_owned();
            Some(Link { name: name.unwrap_or_else(recorded), href: format!("/console/administrators/{id}") })
        }
        _ => None,
    }
}

/// The query of the list. The actor may be a name, which [`Listing::resolve`] looks up.
pub(super) struct Listing {
    filter: Filter,
    actor: Option<String>,
    before: Option<i64>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let line = |text: &str| text::line(text.trim(), 1, 128);
        let filter = Filter {
            actor: None,
            involving: None,
            action: fields.optional("action", line),
            resource_type: fields.optional("resource_type", line),
            resource_id: fields.optional("resource_id", line),
            success: fields.optional("outcome", |text| match text {
                "done" => Ok(true),
                "refused" => Ok(false),
                _ => Err(Invalid::NotOneOf(&["done", "refused"])),
            }),
            from: fields.optional("from", Filter::parse_from),
            until: fields.optional("until", Filter::parse_until),
        };
        let actor = fields.optional("actor", line);
        Some(Self { filter, actor, before: fields.optional("cursor", parse_cursor) })
    }
}

impl Listing {
    /// Looks up the actor by name or ID. An ID also finds records of a deleted agent.
    pub(super) async fn resolve(self, services: &Services, caller: &Caller) -> Result<(Filter, Start)> {
        let start = Start::Before(self.before.unwrap_or(i64::MAX));
        let Some(text) = self.actor else { return Ok((self.filter, start)) };
        let actor = match ActorId::parse(&text) {
            Some(id) => Some(id),
            None => by_name(services, caller, &text).await?,
        };
        let unknown =
            || Error::field(&["actor"], Invalid::new("unknown", format!("No agent or administrator is named {text}")));
        Ok((Filter { actor: Some(actor.ok_or_else(unknown)?), ..self.filter }, start))
    }
}

async fn by_name(services: &Services, caller: &Caller, text: &str) -> Result<Option<ActorId>> {
    if let Ok(name) = AgentName::parse(text) {
        match agents::by_name(services, caller, &name).await {
            Ok(agent) => return Ok(Some(agent.id.into())),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let Ok(username) = Username::parse(text) else { return Ok(None) };
    administrators::id_of(services, caller, &username).await.map(|id| id.map(Into::into))
}

#[derive(Template)]
#[template(path = "audit/list.html")]
struct ListPage {
    frame: Frame,
    records: Vec<Row>,
    params: Params,
    next: Option<String>,
    /// Path and start of the live view; `None` except on the first page.
    tail: Option<(String, i64)>,
    chain: Chain,
    problem: Option<String>,
}

impl ListPage {
    const ACTIONS: &'static [AuditAction] = AuditAction::ALL;

    fn is_filtered(&self) -> bool {
        self.params.pairs().iter().any(|(name, _)| name != "cursor")
    }
}

/// Shows the list of records.
pub(super) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(listing, params): Query<Listing>,
) -> Result<Response, Failure> {
    let chain = Chain::of(&services, &admin).await?;
    let (filter, start) = match listing.resolve(&services, &admin).await {
        Ok(resolved) => resolved,
        Err(Error::Invalid(fields)) => {
            let problem = fields.first().map(|field| sentence(message(&field.invalid)));
            let page = ListPage {
                frame: frame.at("audit"),
                records: Vec::new(),
                params,
                next: None,
                tail: None,
                chain,
                problem,
            };
            return Ok(unprocessable(&page));
        }
        Err(error) => return Err(error.into()),
    };
    let first = params.get("cursor").is_empty();
    let head = audit::head(&services, &admin).await?;
    let page = audit::list(&services, &admin, &filter, start, PER_PAGE).await?;
    let newest = page.items.first().map_or(head.seq, |record| record.seq.max(head.seq));
    let tail = first.then(|| (params.with("cursor", "").href("/console/audit/tail"), newest));
    let next = page.next.map(|next| params.with("cursor", &next.encode()).href("/console/audit"));
    let records = rows(&services, &admin, page.items).await?;
    let frame = frame.at("audit");
    Ok(Page(ListPage { frame, records, params, next, tail, chain, problem: None }).into_response())
}

#[derive(Template)]
#[template(path = "audit/chain.html")]
struct ChainFragment {
    chain: Chain,
}

/// The state of the hash chain.
struct Chain {
    records: i64,
    state: ChainState,
}

enum ChainState {
    Never,
    Running,
    Intact { records: i64, at: Moment, head: String },
    Broken { seq: i64, reason: &'static str, at: Moment },
    Failed { at: Moment },
}

impl Chain {
    async fn of(services: &Services, caller: &Caller) -> Result<Self> {
        let now = services.env.now();
        let state = match services.checker.state() {
            Check::Never => ChainState::Never,
            Check::Running { .. } => ChainState::Running,
            Check::Failed { at } => ChainState::Failed { at: Moment::at(at, now) },
            Check::Done { at, verification } => match verification.broken {
                Some(broken) => ChainState::Broken { seq: broken.seq, reason: broken.reason, at: Moment::at(at, now) },
                None => ChainState::Intact {
                    records: verification.head.seq,
                    at: Moment::at(at, now),
                    head: hex(&verification.head.hash),
                },
            },
        };
        Ok(Self { records: audit::head(services, caller).await?.seq, state })
    }
}

/// Renders the state of the hash chain. The page polls it while a verification is running.
pub(super) async fn chain(State(services): Shared, admin: Admin) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(ChainFragment { chain: Chain::of(&services, &admin).await? }))
}

/// Starts a verification of the hash chain.
pub(super) async fn verify(State(services): Shared, admin: Admin) -> Result<Response, Failure> {
    audit::begin_check(&services, &admin).await?;
    Ok(see_other("/console/audit"))
}

#[derive(Template)]
#[template(path = "audit/record.html")]
struct RecordPage {
    frame: Frame,
    row: Row,
    record: Record,
    id: String,
    at: Moment,
    hash: String,
    prev_hash: String,
    changes: Vec<Change>,
    /// Other members of the details.
    facts: Vec<(String, String)>,
    intact: bool,
    /// True if there is a later record.
    has_next: bool,
}

/// A changed field.
struct Change {
    field: String,
    before: Side,
    after: Side,
}

/// The value of a field before or after a change.
struct Side {
    text: String,
    /// Hash of the whole value, if the text is truncated.
    sha256: Option<String>,
}

impl Side {
    fn of(change: &Value, value: &str, hash: &str) -> Self {
        Self {
            text: change.get(value).map(plain).unwrap_or_default(),
            sha256: change.get(hash).and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// Shows a record.
pub(super) async fn record(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(seq): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let seq = seq.parse().map_err(|_| Error::NotFound("Audit record"))?;
    let record = audit::get(&services, &admin, seq).await?;
    let mut rows = rows(&services, &admin, vec![record.clone()]).await?;
    let row = rows.pop().ok_or(Error::NotFound("Audit record"))?;
    let details: Value = serde_json::from_str(&record.details).unwrap_or_default();
    let members = details.as_object().cloned().unwrap_or_default();
    let changes = members.get("changes").and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(Page(RecordPage {
        frame: frame.at("audit"),
        row,
        id: record.id.to_string(),
        at: Moment::at(record.at, services.env.now()),
        hash: hex(&record.hash),
        prev_hash: hex(&record.prev_hash),
        changes: changes
            .iter()
            .filter(|(_, change)| change.is_object())
            .map(|(field, change)| Change {
                field: field.clone(),
                before: Side::of(change, "from", "from_sha256"),
                after: Side::of(change, "to", "to_sha256"),
            })
            .collect(),
        facts: members
            .iter()
            .filter(|(name, value)| name.as_str() != "changes" && !value.is_null())
            .map(|(name, value)| (name.replace('_', " "), plain(value)))
            .collect(),
        intact: record.expected_hash() == record.hash,
        has_next: record.seq < audit::head(&services, &admin).await?.seq,
        record,
    }))
}

/// Formats a JSON value for people.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
