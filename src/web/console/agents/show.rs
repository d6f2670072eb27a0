//! Pages of an agent: overview, timeline and connection guide.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};

use super::{Head, find};
use crate::{
    domain::{Limit, audit::Start},
    service::{agents::capabilities, audit, credentials::api_keys},
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            audit::{Row, rows},
            credentials::snippets::{Snippet, snippets},
            guard::Admin,
            page::{
                frame::{Frame, Moment, Page},
                query::Query,
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

#[derive(Template)]
#[template(path = "agents/overview.html")]
struct OverviewPage {
    frame: Frame,
    head: Head,
    description: String,
    metadata_json: String,
    keys: usize,
    usable_keys: usize,
    last_used: Option<Moment>,
    capabilities: Vec<String>,
    latest: Vec<Row>,
}

/// Shows the overview of an agent.
pub(in crate::web::console) async fn overview(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let now = services.env.now();
    let keys = api_keys::list(&services, &admin, agent.id).await?;
    let held = capabilities::held_by(&services, &admin, agent.id).await?;
    let latest = audit::of_agent(&services, &admin, agent.id, Start::Before(i64::MAX), Limit::of(6)).await?;
    Ok(Page(OverviewPage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "overview").await?,
        usable_keys: keys.iter().filter(|key| key.validity().check(now).is_ok()).count(),
        last_used: keys.iter().filter_map(|key| key.last_used_at).max().map(|at| Moment::at(at, now)),
        keys: keys.len(),
        capabilities: held.into_iter().map(|capability| capability.name.to_string()).collect(),
        description: agent.description,
        metadata_json: agent.metadata_json,
        latest: rows(&services, &admin, latest.items).await?,
    }))
}

#[derive(Template)]
#[template(path = "agents/timeline.html")]
struct TimelinePage {
    frame: Frame,
    head: Head,
    records: Vec<Row>,
    next: Option<String>,
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
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let start = Start::Before(before.unwrap_or(i64::MAX));
    let page = audit::of_agent(&services, &admin, agent.id, start, Limit::of(50)).await?;
    let path = format!("/console/agents/{}/timeline", agent.id);
    Ok(Page(TimelinePage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "timeline").await?,
        next: page.next.map(|next| params.with("cursor", &next.encode()).href(&path)),
        records: rows(&services, &admin, page.items).await?,
    }))
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
