//! The page of a capability: its description and the agents that hold it.

use std::sync::Arc;

use askama::Template;
use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};
use tower_sessions::Session;

use super::{PER_PAGE, Row, find_capability, may_grant};
use crate::{
    domain::{
        self, Agent, AgentId, AgentStatus, AuthFailure, Capability, CapabilityId, Error, Invalid, Limit, Result,
        Timestamp,
        capability::{Holder, HolderFilter},
        text,
    },
    service::{
        Action, Expected, Once, Services,
        agents::{capabilities, named},
        overview,
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            agents::list::{Suggestion, malformed_status, read_selector, suggestions},
            guard::Admin,
            page::{
                csv,
                form::{Form, Problems, message},
                frame::{Flash, Frame, Moment, html, unprocessable},
                live::may_watch,
                query::{Chip, Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// Which holders to show.
#[derive(Default)]
pub(in crate::web::console) struct Holders {
    filter: HolderFilter,
    after: Option<AgentId>,
    /// Why the selector is not valid.
    malformed: Option<Invalid>,
}

impl FromQuery for Holders {
    fn read(fields: &mut Fields) -> Option<Self> {
        let (selector, malformed) = read_selector(fields);
        let filter = HolderFilter {
            text: fields.optional("q", |text| text::line(text.trim(), 0, 128)).filter(|text| !text.is_empty()),
            owner: fields.optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
            status: fields.optional("status", AgentStatus::parse),
            selector,
        };
        Some(Self { filter, after: fields.optional("cursor", parse_cursor), malformed })
    }
}

/// An agent that holds the capability.
struct HolderRow {
    name: String,
    path: String,
    owner: String,
    status: &'static str,
    granted: Moment,
    last_used: Option<Moment>,
    /// The page that asks whether to revoke the capability.
    removal: String,
}

#[derive(Template)]
#[template(path = "capabilities/show.html")]
struct ShowPage {
    frame: Frame,
    capability: Row,
    holders: Vec<HolderRow>,
    params: Params,
    owners: Vec<Suggestion>,
    chips: Vec<Chip>,
    next: Option<String>,
    export: String,
    form: Form,
    problems: Problems,
    /// Why the selector is not valid.
    malformed: Problems,
    may_grant: bool,
}

/// Returns the path of a capability's page.
pub(super) fn path_of(id: CapabilityId) -> String {
    format!("/console/capabilities/{id}")
}

impl ShowPage {
    async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        capability: &Capability,
        Holders { filter, after, malformed }: Holders,
        params: Params,
    ) -> Result<Self> {
        let id = capability.id;
        let holders = match malformed {
            Some(_) => domain::Page { items: Vec::new(), next: None },
            None => capabilities::holders(services, admin, id, &filter, after, PER_PAGE).await?,
        };
        let count = capabilities::count_holders(services, admin, &[id], overview::COUNT_MAX).await?.remove(&id);
        let last_used = capabilities::last_uses(services, admin, &[id]).await?.remove(&id);
        let (now, path, frame) = (services.env.now(), path_of(id), frame.at("capabilities"));
        let row = |Holder { agent, granted_at, last_used_at }: &Holder| HolderRow {
            name: agent.name.to_string(),
            path: format!("/console/agents/{}", agent.id),
            owner: agent.owner.clone(),
            status: agent.status.as_str(),
            granted: Moment::at(*granted_at, now),
            last_used: last_used_at.map(|at| Moment::at(at, now)),
            removal: params.href(&format!("{path}/holders/{}/remove", agent.id)),
        };
        Ok(Self {
            may_grant: may_grant(&frame, &capability.name),
            frame,
            capability: Row::of(capability, count.unwrap_or_default(), last_used, now),
            holders: holders.items.iter().map(row).collect(),
            next: holders.next.map(|next| params.with("cursor", &next.encode()).href(&path)),
            export: params.with("cursor", "").href(&format!("{path}/export")),
            chips: params
                .chips(&path, &[("q", "Name"), ("owner", "Owner"), ("selector", "Labels"), ("status", "Status")]),
            malformed: malformed.map_or_else(Problems::default, |invalid| Problems::one("selector", message(&invalid))),
            owners: suggestions(services, admin, params.get("owner")).await?,
            params,
            form: Form::default(),
            problems: Problems::default(),
        })
    }
}

/// Shows a capability and the agents that hold it.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(holders, params): Query<Holders>,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let status = if holders.malformed.is_some() { malformed_status(&headers) } else { StatusCode::OK };
    Ok(html(status, &ShowPage::of(&services, &admin, frame, &capability, holders, params).await?))
}

/// Edits the description of a capability.
pub(in crate::web::console) async fn describe(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let description =
        form.read(|fields| Some(fields.optional("description", Capability::parse_description).unwrap_or_default()));
    let described = match description {
        Ok(description) => {
            capabilities::describe(&services, &admin, capability.id, Expected::Any, Some(description)).await
        }
        Err(error) => Err(error),
    };
    match described {
        Ok(_) => {
            let (message, path) = (format!("Description of {} saved.", capability.name), path_of(capability.id));
            Flash::done(message).link(capability.name.as_str(), path.clone()).redirect(&session, &path).await
        }
        Err(error) => {
            let problems = Problems::from_error(error, "")?;
            let (holders, params) = (Holders::default(), Params::default());
            let page = ShowPage::of(&services, &admin, frame, &capability, holders, params).await?;
            Ok(unprocessable(&ShowPage { form, problems, ..page }))
        }
    }
}

/// Grants a capability to an agent by name or ID. Also undoes the removal of a grant.
pub(in crate::web::console) async fn grant(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let word = form.get("agent").trim().to_owned();
    let granted = grant_to(&services, &admin, capability.id, word).await;
    match granted {
        Ok(agent) => {
            let message = format!("{} granted.", capability.name);
            let flash = Flash::done(message).link(agent.name.as_str(), format!("/console/agents/{}", agent.id));
            flash.redirect(&session, &path_of(capability.id)).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "agents")?;
            let (holders, params) = (Holders::default(), Params::default());
            let page = ShowPage::of(&services, &admin, frame, &capability, holders, params).await?;
            Ok(html(status, &ShowPage { form, problems, ..page }))
        }
    }
}

async fn grant_to(services: &Services, admin: &Admin, id: CapabilityId, word: String) -> Result<Agent> {
    let listed = named::find(services, admin, &[word]).await?;
    let Some(agent) = listed.agents.first().copied() else {
        return Err(Error::field(&["agents"], Invalid::new("unknown", "No agent with this name or ID exists")));
    };
    capabilities::grant(services, admin, agent, id, Once::each_time()).await?;
    crate::service::agents::get(services, admin, agent).await
}

const COLUMNS: &str = "agent_id,name,owner,status,granted_at,last_used_at\r\n";

struct Download {
    services: Arc<Services>,
    admin: Admin,
    id: CapabilityId,
    filter: HolderFilter,
    after: Option<AgentId>,
}

/// Streams the holders that match the query as CSV.
pub(in crate::web::console) async fn export(
    State(services): Shared,
    admin: Admin,
    Path(id): Path<String>,
    Query(Holders { filter, after, malformed }, _): Query<Holders>,
) -> Result<Response, Failure> {
    if let Some(invalid) = malformed {
        return Err(Error::field(&["query", "selector"], invalid).into());
    }
    let id = find_capability(&services, &admin, &id).await?.id;
    let download = Download { services, admin, id, filter, after };
    let pages = stream::unfold((Some(download), true), |(download, is_first)| async move {
        if is_first {
            return Some((Ok(Bytes::from_static(COLUMNS.as_bytes())), (download, false)));
        }
        let mut download = download?;
        match download.next().await {
            Ok((text, true)) => Some((Ok(text), (Some(download), false))),
            Ok((text, false)) => Some((Ok(text), (None, false))),
            // The status is already sent, so closing the connection is the only way to signal an incomplete file.
            Err(error) => Some((Err(error), (None, false))),
        }
    });
    let headers =
        [(CONTENT_TYPE, "text/csv; charset=utf-8"), (CONTENT_DISPOSITION, "attachment; filename=\"holders.csv\"")];
    Ok((headers, Body::from_stream(pages)).into_response())
}

impl Download {
    /// Returns the next page, and whether another one follows.
    async fn next(&mut self) -> Result<(Bytes, bool)> {
        let limit = Limit::of(Limit::MAX);
        let page = capabilities::holders(&self.services, &self.admin, self.id, &self.filter, self.after, limit).await?;
        if !may_watch(&self.services, &self.admin).await {
            return Err(AuthFailure::NoSession.into());
        }
        self.after = page.next;
        let text: String = page.items.iter().map(row).collect();
        Ok((text.into(), page.next.is_some()))
    }
}

fn row(Holder { agent, granted_at, last_used_at }: &Holder) -> String {
    let cells = [
        agent.id.to_string(),
        agent.name.to_string(),
        agent.owner.clone(),
        agent.status.as_str().to_owned(),
        granted_at.to_string(),
        last_used_at.as_ref().map(Timestamp::to_string).unwrap_or_default(),
    ];
    csv::row(&cells)
}
