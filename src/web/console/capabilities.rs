//! Pages for capabilities and grants. A capability can be granted and revoked from its own page and from the page of an
//! agent.

pub(super) mod grants;
pub(super) mod list;
pub(super) mod removal;
pub(super) mod show;

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
        frame::{Flash, Frame, Moment, Page, back_to, back_with_error, html, unprocessable},
    },
};
use crate::{
    domain::{
        Capability, CapabilityId, CapabilityName, Error, Invalid, Limit, Result, Role, Timestamp, capability::builtin,
    },
    service::{
        Caller, Once, Services,
        agents::capabilities::{self, NewCapability},
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
    last_used: Option<Moment>,
    built_in: bool,
}

impl Row {
    fn of(capability: &Capability, holders: i64, last_used: Option<Timestamp>, now: Timestamp) -> Self {
        let name = capability.name.to_string();
        Self {
            id: capability.id.to_string(),
            description: capability.description.clone(),
            holders: bounded(holders),
            created: Moment::at(capability.created_at, now),
            last_used: last_used.map(|at| Moment::at(at, now)),
            built_in: builtin::is_checked(&name),
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
        Ok(new) => capabilities::create(&services, &admin, new, Once::each_time()).await,
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

/// Only owners can grant `admin:*`. The service enforces this; the page hides what would be denied.
fn may_grant(frame: &Frame, name: &CapabilityName) -> bool {
    let needed = if name.as_str() == builtin::ADMIN { Role::Owner } else { Role::Operator };
    frame.person.as_ref().is_some_and(|person| person.role >= needed)
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
            held: held.iter().map(|held| Row::of(held, 0, held.last_used_at, now)).collect(),
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
        Some(capability) => capabilities::grant(&services, &admin, agent, capability, Once::each_time()).await,
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
            let grants = format!("/console/agents/{}/grants", agent.id);
            let granted = vec![("capability".to_owned(), capability.id.to_string())];
            Flash::done(format!("{} revoked from {}, including its active tokens.", capability.name, agent.name))
                .undo(grants, granted)
                .redirect(&session, &path)
                .await
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
