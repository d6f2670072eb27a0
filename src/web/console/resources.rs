//! Pages for protected resources: the services, other than AIMS, that accept tokens.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    Shared,
    capabilities::Place,
    confirm::{ConfirmPage, Fact, Link},
    guard::Admin,
    page::{
        form::{Form, Problems},
        frame::{Flash, Frame, Moment, Page, back_to, unprocessable},
        grouped,
        query::Query,
    },
};
use crate::{
    domain::{
        Capability, Error, Invalid, Limit, ProtectedResource, ProtectedResourceId, ResourceUri, Result, Timestamp,
        token::protected_resource::Position,
    },
    service::{
        Action, Expected, Once, Services,
        agents::{capabilities, listing},
        tokens::resources::{self, NewResource, ResourceEdit},
    },
    web::{api::paging::Cursor, failure::Failure},
};

const PATH: &str = "/console/resources";
const PER_PAGE: Limit = Limit::of(50);
/// Capabilities that are named before a resource is deleted.
const NAMED: usize = 8;
/// Agents that are counted for each of them at most.
const HOLDERS_MAX: i64 = 1_000;

fn path_of(id: ProtectedResourceId) -> String {
    format!("{PATH}/{id}")
}

struct Row {
    id: String,
    identifier: String,
    name: String,
    scope: String,
    created: Moment,
}

impl Row {
    fn of(resource: &ProtectedResource, now: Timestamp) -> Self {
        Self {
            id: resource.id.to_string(),
            identifier: resource.identifier.to_string(),
            name: resource.name.clone(),
            scope: resource.capabilities.as_scope().to_owned(),
            created: Moment::at(resource.created_at, now),
        }
    }
}

#[derive(Template)]
#[template(path = "resources/list.html")]
struct ListPage {
    frame: Frame,
    resources: Vec<Row>,
    next: Option<String>,
}

/// Lists resources.
pub(super) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Place(after), params): Query<Place<Position>>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let page = resources::list(&services, &admin, after, PER_PAGE).await?;
    let now = services.env.now();
    let next = page.next.map(|next| params.with("cursor", &next.encode()).href(PATH));
    let resources = page.items.iter().map(|resource| Row::of(resource, now)).collect();
    Ok(Page(ListPage { frame: frame.at("resources"), resources, next }))
}

#[derive(Template)]
#[template(path = "resources/new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    problems: Problems,
}

/// Shows the form for a new resource.
pub(super) async fn new_page(frame: Frame) -> impl IntoResponse {
    Page(NewPage { frame: frame.at("resources"), form: Form::default(), problems: Problems::default() })
}

/// Turns a missing capability into an error of the field `scope`. The resource itself is known to exist.
fn at_scope(error: Error) -> Error {
    match error {
        Error::NotFound(_) => {
            Error::field(&["scope"], Invalid::new("unknown", "One of these capabilities does not exist"))
        }
        other => other,
    }
}

/// Creates a resource.
pub(super) async fn create(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let new = form.read(|fields| {
        let identifier = fields.required("identifier", |text| ResourceUri::parse(text.trim()));
        let name = fields.required("name", |text| ProtectedResource::parse_name(text.trim()));
        let capabilities = fields.optional("scope", ProtectedResource::parse_capabilities).unwrap_or_default();
        Some(NewResource { identifier: identifier?, name: name?, capabilities })
    });
    let created = match new {
        Ok(new) => resources::create(&services, &admin, new, Once::each_time()).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(resource) => {
            Flash::done(format!("{} created. Agents can request tokens for it now.", resource.name))
                .link("View resource", path_of(resource.id))
                .redirect(&session, PATH)
                .await
        }
        Err(error) => {
            let problems = Problems::from_error(at_scope(error), "identifier")?;
            Ok(unprocessable(&NewPage { frame: frame.at("resources"), form, problems }))
        }
    }
}

#[derive(Template)]
#[template(path = "resources/show.html")]
struct ShowPage {
    frame: Frame,
    resource: Row,
    problems: Problems,
}

fn parse_id(id: &str) -> Result<ProtectedResourceId> {
    ProtectedResourceId::parse(id).ok_or(Error::NotFound("Resource"))
}

/// Shows a resource.
pub(super) async fn show(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let resource = resources::get(&services, &admin, parse_id(&id)?).await?;
    let resource = Row::of(&resource, services.env.now());
    Ok(Page(ShowPage { frame: frame.at("resources"), resource, problems: Problems::default() }))
}

/// Edits a resource.
pub(super) async fn update(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let present = resources::get(&services, &admin, id).await?;
    let edit = form.read(|fields| {
        let name = fields.required("name", |text| ProtectedResource::parse_name(text.trim()));
        let capabilities = fields.optional("scope", ProtectedResource::parse_capabilities);
        Some(ResourceEdit { name: Some(name?), capabilities, expected: Expected::Any })
    });
    let edited = match edit {
        Ok(edit) => resources::update(&services, &admin, id, edit).await,
        Err(error) => Err(error),
    };
    match edited {
        Ok(resource) => {
            let path = path_of(resource.id);
            Flash::done(format!("{} saved.", resource.name))
                .link("View resource", &path)
                .redirect(&session, &path)
                .await
        }
        Err(error) => {
            let problems = Problems::from_error(at_scope(error), "")?;
            let entered = |name: &str| form.get(name).to_owned();
            let resource =
                Row { name: entered("name"), scope: entered("scope"), ..Row::of(&present, services.env.now()) };
            Ok(unprocessable(&ShowPage { frame: frame.at("resources"), resource, problems }))
        }
    }
}

/// Asks for confirmation before a resource is deleted.
pub(super) async fn delete_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let resource = resources::get(&services, &admin, parse_id(&id)?).await?;
    let scope = allowed(&services, &admin, &resource).await?;
    let path = path_of(resource.id);
    Ok(Page(ConfirmPage {
        frame: frame.at("resources"),
        parents: vec![("Resources".to_owned(), PATH.to_owned()), (resource.name.clone(), path.clone())],
        verb: "Delete",
        object: resource.name,
        rest: String::new(),
        note: "Agents can no longer request tokens for it. Tokens already issued work until they expire or are \
               revoked. You can create it again with the same identifier."
            .to_owned(),
        facts: vec![
            ("Identifier", Fact::Code(resource.identifier.to_string())),
            ("Allowed scopes", scope),
            ("Created", Fact::Time(Moment::at(resource.created_at, services.env.now()))),
        ],
        action: format!("{path}/delete"),
        fields: Vec::new(),
        button: "Delete resource",
        cancel: path,
    }))
}

/// Returns the capabilities that tokens for a resource may carry, with the number of agents that hold each of them.
async fn allowed(services: &Services, admin: &Admin, resource: &ProtectedResource) -> Result<Fact> {
    let mut named = Vec::new();
    for name in resource.capabilities.iter().take(NAMED) {
        named.extend(listing::capability_named(services, admin, name).await?);
    }
    if named.is_empty() {
        return Ok(Fact::Text("None".to_owned()));
    }
    let ids: Vec<_> = named.iter().map(|capability| capability.id).collect();
    let holders = capabilities::count_holders(services, admin, &ids, HOLDERS_MAX).await?;
    let held_by = |count: i64| match count {
        1 => " (held by 1 agent)".to_owned(),
        HOLDERS_MAX.. => format!(" (held by {} or more agents)", grouped(HOLDERS_MAX)),
        count => format!(" (held by {count} agents)"),
    };
    let link = |capability: Capability| Link {
        name: capability.name.to_string(),
        path: format!("/console/capabilities/{}", capability.id),
        note: held_by(holders.get(&capability.id).copied().unwrap_or_default()),
    };
    let mut links: Vec<_> = named.into_iter().map(link).collect();
    let unnamed = resource.capabilities.iter().count().saturating_sub(NAMED);
    if let (1.., Some(last)) = (unnamed, links.last_mut()) {
        last.note = format!("{} and {unnamed} more", last.note);
    }
    Ok(Fact::Links(links))
}

/// Deletes a resource.
pub(super) async fn delete(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let resource = resources::get(&services, &admin, parse_id(&id)?).await?;
    resources::delete(&services, &admin, resource.id, Expected::Any).await?;
    back_to(&session, PATH, format!("{} deleted. AIMS issues no more tokens for it.", resource.name)).await
}
