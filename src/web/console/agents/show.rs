//! Pages of an agent: overview, timeline and connection guide.

mod deleted;
mod graph;

use std::cmp::Reverse;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};

use self::graph::Graph;
use super::{
    Head, find,
    list::{self, label_texts},
    parse_id,
};
use crate::{
    domain::{AgentStatus, ApiKey, Error, Limit, Timestamp, audit::Start},
    service::{
        agents::{activity, capabilities, impact},
        audit,
        credentials::api_keys,
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            audit::{Ending, Row, rows},
            credentials::snippets::{Snippet, snippets},
            guard::Admin,
            page::{
                chart::Chart,
                frame::{Frame, Moment, Page},
                query::{Params, Query},
                range::{self, Choice, Range},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// API keys that the overview lists.
const KEYS: usize = 5;

#[derive(Template)]
#[template(path = "agents/overview.html")]
struct OverviewPage {
    frame: Frame,
    head: Head,
    description: String,
    /// Each label, with a link to the agents that have it.
    labels: Vec<(String, String)>,
    metadata_json: String,
    /// The first keys, those that work first.
    keys: Vec<Key>,
    key_count: usize,
    usable_keys: usize,
    /// Why no key works, whatever its own state.
    blocked: Option<&'static str>,
    capabilities: Vec<Held>,
    graph: Graph,
    chart: Chart,
    ranges: Vec<Choice>,
    latest: Vec<Row>,
}

/// An API key in the overview of its agent.
struct Key {
    id: String,
    name: String,
    prefix: String,
    /// The word for the state, which is also the name of its style.
    state: &'static str,
    label: &'static str,
    last_used: Option<Moment>,
    expires: Option<Moment>,
}

/// A capability that the agent holds.
struct Held {
    id: String,
    name: String,
    description: String,
    last_used: Option<Moment>,
}

impl Key {
    fn of(key: &ApiKey, agent: AgentStatus, now: Timestamp) -> Self {
        let state = key.state(agent, now);
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            prefix: key.key_prefix.clone(),
            state: state.as_str(),
            label: state.label(),
            last_used: key.last_used_at.map(|at| Moment::at(at, now)),
            expires: key.validity().ends_at().map(|at| Moment::at(at, now)),
        }
    }

    fn icon(&self) -> &'static str {
        if self.state == "blocked" { "suspended" } else { self.state }
    }
}

/// The ranges that the chart offers.
const RANGES: [Range; 4] = [Range::Day, Range::Week, Range::Month, Range::Quarter];

/// The query of the overview. A deleted agent's records have pages.
pub(in crate::web::console) struct Asked {
    range: Range,
    before: Option<i64>,
}

impl FromQuery for Asked {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { range: range::read(fields, &RANGES), before: fields.optional("cursor", parse_cursor) })
    }
}

/// Shows the overview of an agent, or what is left of one that was deleted.
pub(in crate::web::console) async fn overview(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
    Query(asked, params): Query<Asked>,
) -> Result<Response, Failure> {
    let agent = match find(&services, &admin, &id).await {
        Err(Error::NotFound(_)) => {
            return deleted::page(&services, &admin, frame, parse_id(&id)?, asked.before, &params).await;
        }
        found => found?,
    };
    let now = services.env.now();
    let blocked = match agent.status {
        AgentStatus::Active => None,
        AgentStatus::Suspended => Some("agent suspended"),
        AgentStatus::Revoked => Some("agent revoked"),
    };
    let mut keys = api_keys::list(&services, &admin, agent.id).await?;
    keys.sort_by_key(|key| (key.state(agent.status, now).has_ended(), Reverse(key.created_at)));
    let held = capabilities::held_by(&services, &admin, agent.id).await?;
    let connections = impact::connections(&services, &admin, agent.id, graph::SHOWN).await?;
    let latest = audit::of_agent(&services, &admin, agent.id, Start::Before(i64::MAX), Limit::of(6)).await?;
    let buckets = activity::read(&services, &admin, agent.id, asked.range).await?;
    let log = |from: Timestamp, until: Timestamp, refused: bool| {
        let outcome = if refused { "outcome=refused&" } else { "" };
        Some(format!("/console/audit?actor={}&{outcome}from={from}&until={until}", agent.id))
    };
    let path = format!("/console/agents/{}", agent.id);
    let page = OverviewPage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "overview").await?,
        usable_keys: keys.iter().filter(|key| key.state(agent.status, now).works()).count(),
        key_count: keys.len(),
        keys: keys.iter().take(KEYS).map(|key| Key::of(key, agent.status, now)).collect(),
        blocked,
        capabilities: held
            .iter()
            .map(|one| Held {
                id: one.id.to_string(),
                name: one.name.to_string(),
                description: one.description.clone(),
                last_used: one.last_used_at.map(|at| Moment::at(at, now)),
            })
            .collect(),
        chart: Chart::of_activity("activity", asked.range, &buckets, log),
        ranges: range::choices(&path, &params, &RANGES, asked.range),
        graph: Graph::of(agent.name.as_str(), &connections),
        description: agent.description,
        labels: label_texts(&agent.labels).into_iter().map(|text| (agents_with(&text), text)).collect(),
        metadata_json: agent.metadata_json,
        latest: rows(&services, &admin, latest.items).await?,
    };
    Ok(Page(page).into_response())
}

/// Returns a link to the agents with a label.
fn agents_with(label: &str) -> String {
    Params::default().with("selector", label).href(list::PATH)
}

#[derive(Template)]
#[template(path = "agents/timeline.html")]
struct TimelinePage {
    frame: Frame,
    head: Head,
    records: Vec<Row>,
    next: Option<String>,
    ending: Option<Ending>,
}

/// The cursor of a timeline.
pub(in crate::web::console) struct Place(pub(in crate::web::console) Option<i64>);

impl FromQuery for Place {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.optional("cursor", parse_cursor)))
    }
}

/// Shows the audit records that involve an agent.
pub(in crate::web::console) async fn timeline(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
    Query(Place(before), params): Query<Place>,
) -> Result<Response, Failure> {
    let agent = match find(&services, &admin, &id).await {
        Err(Error::NotFound(_)) => {
            return deleted::page(&services, &admin, frame, parse_id(&id)?, before, &params).await;
        }
        found => found?,
    };
    let start = Start::Before(before.unwrap_or(i64::MAX));
    let page = audit::of_agent(&services, &admin, agent.id, start, Limit::of(50)).await?;
    let path = format!("/console/agents/{}/timeline", agent.id);
    let ending = if page.next.is_some() { None } else { Ending::of(&services, &admin, None).await? };
    Ok(Page(TimelinePage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "timeline").await?,
        next: page.next.map(|next| params.with("cursor", &next.encode()).href(&path)),
        records: rows(&services, &admin, page.items).await?,
        ending,
    })
    .into_response())
}

#[derive(Template)]
#[template(path = "agents/connect.html")]
struct ConnectPage {
    frame: Frame,
    head: Head,
    snippets: Vec<Snippet>,
    issuer: String,
    jwks_uri: String,
}

/// Shows how to connect an agent.
pub(in crate::web::console) async fn connect(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let issuer = &services.settings.issuer;
    Ok(Page(ConnectPage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "connect").await?,
        snippets: snippets(issuer, "aims_…"),
        issuer: issuer.as_str().to_owned(),
        jwks_uri: issuer.at("/.well-known/jwks.json"),
    }))
}
