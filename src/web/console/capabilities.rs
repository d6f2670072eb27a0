//! Pages for capabilities and grants. A capability can be granted and revoked from its own page and from the page of an
//! agent.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    Shared,
    agents::{Head, find, parse_id},
    guard::Admin,
    overview::bounded,
    page::{
        form::{Form, Problems},
        frame::{Frame, Moment, Page, back_to, back_with_error, html, unprocessable},
        query::Query,
    },
};
use crate::{
    domain::{
        AgentId, AgentName, Capability, CapabilityId, CapabilityName, Error, Invalid, Limit, Result, Role, Timestamp,
        capability::{Position, builtin},
    },
    service::{
        Action, Caller, Services,
        agents::{
            self,
            capabilities::{self, NewCapability},
        },
        overview,
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const PER_PAGE: Limit = Limit::of(50);

struct Row {
    id: String,
    name: String,
    description: String,
    holders: String,
    created: Moment,
    built_in: bool,
}

impl Row {
    fn of(capability: &Capability, holders: i64, now: Timestamp) -> Self {
        let name = capability.name.to_string();
        Self {
            id: capability.id.to_string(),
            description: capability.description.clone(),
            holders: bounded(holders),
            created: Moment::at(capability.created_at, now),
            built_in: builtin::ALL.iter().any(|(built_in, _)| *built_in == name),
            name,
        }
    }
}

/// The cursor of a page.
pub(super) struct Place<C>(pub(super) Option<C>);

impl<C: Cursor> FromQuery for Place<C> {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.optional("cursor", parse_cursor)))
    }
}

#[derive(Template)]
#[template(path = "capabilities/list.html")]
struct ListPage {
    frame: Frame,
    capabilities: Vec<Row>,
    next: Option<String>,
}

/// Lists capabilities.
pub(super) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Place(after), params): Query<Place<Position>>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let page = capabilities::list(&services, &admin, after, PER_PAGE).await?;
    let now = services.env.now();
    let ids: Vec<_> = page.items.iter().map(|capability| capability.id).collect();
    let holders = capabilities::count_holders(&services, &admin, &ids, overview::COUNT_MAX).await?;
    let count = |capability: &Capability| holders.get(&capability.id).copied().unwrap_or_default();
    let rows = page.items.iter().map(|capability| Row::of(capability, count(capability), now)).collect();
    let next = page.next.map(|next| params.with("cursor", &next.encode()).href("/console/capabilities"));
    Ok(Page(ListPage { frame: frame.at("capabilities"), capabilities: rows, next }))
}

#[derive(Template)]
#[template(path = "capabilities/new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    problems: Problems,
}

/// Shows the form for a new capability.
pub(super) async fn new_page(frame: Frame) -> impl IntoResponse {
    Page(NewPage { frame: frame.at("capabilities"), form: Form::default(), problems: Problems::default() })
}

/// Creates a capability.
pub(super) async fn create(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let new = form.read(|fields| {
        let name = fields.required("name", |text| CapabilityName::parse(text.trim()));
        let description = fields.optional("description", Capability::parse_description);
        Some(NewCapability { name: name?, description: description.unwrap_or_default() })
    });
    let created = match new {
        Ok(new) => capabilities::create(&services, &admin, new).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(capability) => {
            let path = format!("/console/capabilities/{}", capability.id);
            back_to(&session, &path, format!("{} created. You can grant it to agents now.", capability.name)).await
        }
        Err(error) => {
            let problems = Problems::from_error(error, "name")?;
            Ok(unprocessable(&NewPage { frame: frame.at("capabilities"), form, problems }))
        }
    }
}

#[derive(Template)]
#[template(path = "capabilities/show.html")]
struct ShowPage {
    frame: Frame,
    capability: Row,
    /// ID, name and status of each agent that holds it.
    holders: Vec<(String, String, &'static str)>,
    next: Option<String>,
    form: Form,
    problems: Problems,
    may_grant: bool,
}

/// Shows a capability and the agents that hold it.
pub(super) async fn show(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
    Query(Place(after), params): Query<Place<AgentId>>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let page = ShowPage::of(&services, &admin, frame, &capability, after).await?;
    let path = format!("/console/capabilities/{}", capability.id);
    let next = page.next.map(|next| params.with("cursor", &next).href(&path));
    Ok(Page(ShowPage { next, ..page }))
}

impl ShowPage {
    async fn of(
        services: &Services,
        caller: &Caller,
        frame: Frame,
        capability: &Capability,
        after: Option<AgentId>,
    ) -> Result<Self> {
        let holders = capabilities::holders(services, caller, capability.id, after, PER_PAGE).await?;
        let counts = capabilities::count_holders(services, caller, &[capability.id], overview::COUNT_MAX).await?;
        let count = counts.get(&capability.id).copied().unwrap_or_default();
        let agent =
            |agent: &crate::domain::Agent| (agent.id.to_string(), agent.name.to_string(), agent.status.as_str());
        let frame = frame.at("capabilities");
        Ok(Self {
            may_grant: may_grant(&frame, &capability.name),
            frame,
            capability: Row::of(capability, count, services.env.now()),
            holders: holders.items.iter().map(agent).collect(),
            next: holders.next.map(|next| next.encode()),
            form: Form::default(),
            problems: Problems::default(),
        })
    }
}

/// Only owners can grant `admin:*`. The service enforces this; the page hides what would be denied.
fn may_grant(frame: &Frame, name: &CapabilityName) -> bool {
    let needed = if name.as_str() == builtin::ADMIN { Role::Owner } else { Role::Operator };
    frame.person.as_ref().is_some_and(|person| person.role >= needed)
}

/// Edits the description of a capability.
pub(super) async fn describe(
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
        Ok(description) => capabilities::describe(&services, &admin, capability.id, description).await,
        Err(error) => Err(error),
    };
    match described {
        Ok(()) => {
            let path = format!("/console/capabilities/{}", capability.id);
            back_to(&session, &path, "Description saved.").await
        }
        Err(error) => {
            let problems = Problems::from_error(error, "")?;
            let page = ShowPage::of(&services, &admin, frame, &capability, None).await?;
            Ok(unprocessable(&ShowPage { form, problems, ..page }))
        }
    }
}

/// Grants a capability to an agent by name.
pub(super) async fn grant_by_name(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let granted = grant_to(&services, &admin, capability.id, form.get("agent").trim()).await;
    match granted {
        Ok(name) => {
            let path = format!("/console/capabilities/{}", capability.id);
            back_to(&session, &path, format!("{} granted to {name}.", capability.name)).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "agent")?;
            let page = ShowPage::of(&services, &admin, frame, &capability, None).await?;
            Ok(html(status, &ShowPage { form, problems, ..page }))
        }
    }
}

async fn grant_to(services: &Services, admin: &Admin, id: CapabilityId, name: &str) -> Result<AgentName> {
    let unknown = || Error::field(&["agent"], Invalid::new("unknown", "No agent with this name exists"));
    let name = AgentName::parse(name).map_err(|_| unknown())?;
    let agent = match agents::by_name(services, admin, &name).await {
        Err(Error::NotFound(_)) => return Err(unknown()),
        found => found?,
    };
    capabilities::grant(services, admin, agent.id, id).await?;
    Ok(name)
}

#[derive(Template)]
#[template(path = "capabilities/of_agent.html")]
struct GrantsPage {
    frame: Frame,
    head: Head,
    held: Vec<Row>,
    /// Capabilities that can still be granted: ID, name and description.
    offered: Vec<(String, String, String)>,
    more: bool,
    problems: Problems,
}

impl GrantsPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame, id: &str) -> Result<Self> {
        let agent = find(services, admin, id).await?;
        let now = services.env.now();
        let held = capabilities::held_by(services, admin, agent.id).await?;
        let all = capabilities::list(services, admin, None, Limit::of(Limit::MAX)).await?;
        let frame = frame.at("agents");
        let offered = all.items.iter().filter(|one| !held.iter().any(|held| held.id == one.id));
        let mut offered: Vec<_> = offered
            .filter(|capability| may_grant(&frame, &capability.name))
            .map(|one| (one.id.to_string(), one.name.to_string(), one.description.clone()))
            .collect();
        offered.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        Ok(Self {
            head: Head::of(services, admin, &agent, "grants").await?,
            held: held.iter().map(|capability| Row::of(capability, 0, now)).collect(),
            offered,
            more: all.next.is_some(),
            frame,
            problems: Problems::default(),
        })
    }
}

/// Shows the grants of an agent.
pub(super) async fn of_agent(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(GrantsPage::of(&services, &admin, frame, &id).await?))
}

/// Grants a capability to an agent.
pub(super) async fn grant(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = parse_id(&id)?;
    let missing = || Error::field(&["capability"], Invalid::new("enum", "Choose a capability"));
    let granted = match CapabilityId::parse(form.get("capability")) {
        Some(capability) => capabilities::grant(&services, &admin, agent, capability).await,
        None => Err(missing()),
    };
    match granted {
        Ok(capability) => {
            let path = format!("/console/agents/{agent}/grants");
            back_to(&session, &path, format!("{} granted. The next token will include it.", capability.name)).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "capability")?;
            let page = GrantsPage::of(&services, &admin, frame, &id).await?;
            Ok(html(status, &GrantsPage { problems, ..page }))
        }
    }
}

/// Revokes a capability from an agent.
pub(super) async fn ungrant(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((id, capability)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let capability = find_capability(&services, &admin, &capability).await?;
    let path = match form.get("back") {
        "capability" => format!("/console/capabilities/{}", capability.id),
        _ => format!("/console/agents/{}/grants", agent.id),
    };
    match capabilities::ungrant(&services, &admin, agent.id, capability.id).await {
        Ok(()) => {
            let message = format!("{} revoked from {}, including its active tokens.", capability.name, agent.name);
            back_to(&session, &path, message).await
        }
        // Agent and capability exist, so it is the grant that is missing.
        Err(error @ (Error::Refused(_) | Error::Denied(_) | Error::NotFound(_))) => {
            back_with_error(&session, &path, &error).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn find_capability(services: &Services, caller: &Caller, id: &str) -> Result<Capability> {
    let id = CapabilityId::parse(id).ok_or(Error::NotFound("Capability"))?;
    capabilities::get(services, caller, id).await
}
