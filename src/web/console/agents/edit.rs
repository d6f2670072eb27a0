//! Creating and editing an agent.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{Head, find, parse_id};
use crate::{
    domain::{Agent, AgentName, AgentType, Error, Timestamp},
    service::agents::{self, AgentEdit, NewAgent},
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Frame, Page, back_to, html, unprocessable},
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

#[derive(Template)]
#[template(path = "agents/edit.html")]
struct EditPage {
    frame: Frame,
    /// The agent to edit; `None` for a new one.
    head: Option<Head>,
    values: Values,
    problems: Problems,
    /// The stored values, if another administrator has changed the agent in the meantime.
    stored: Option<Values>,
}

/// The values of the form fields.
#[derive(Default)]
struct Values {
    name: String,
    owner: String,
    agent_type: String,
    description: String,
    metadata_json: String,
    version: String,
}

impl Values {
    fn of(agent: &Agent) -> Self {
        Self {
            name: agent.name.to_string(),
            owner: agent.owner.clone(),
            agent_type: agent.agent_type.as_str().to_owned(),
            description: agent.description.clone(),
            metadata_json: agent.metadata_json.clone(),
            version: agent.updated_at.as_micros().to_string(),
        }
    }

    fn submitted(form: &Form) -> Self {
        let value = |name| form.get(name).to_owned();
        Self {
            name: value("name"),
            owner: value("owner"),
            agent_type: value("agent_type"),
            description: value("description"),
            metadata_json: value("metadata_json"),
            version: value("version"),
        }
    }
}

/// Shows the form for a new agent.
pub(in crate::web::console) async fn new_page(frame: Frame) -> impl IntoResponse {
    let values = Values { agent_type: "llm".to_owned(), metadata_json: "{}".to_owned(), ..Values::default() };
    Page(EditPage { frame: frame.at("agents"), head: None, values, problems: Problems::default(), stored: None })
}

/// Creates an agent.
pub(in crate::web::console) async fn create(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let created = match form.read(read_new) {
        Ok(new) => agents::create(&services, &admin, new).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(agent) => {
            let path = format!("/console/agents/{}", agent.id);
            back_to(
                &session,
                &path,
                format!("{} created. Next, grant it capabilities and create an API key.", agent.name),
            )
            .await
        }
        Err(error) => {
            let problems = Problems::from_error(error, "name")?;
            let (frame, values) = (frame.at("agents"), Values::submitted(&form));
            Ok(unprocessable(&EditPage { frame, head: None, values, problems, stored: None }))
        }
    }
}

fn read_new(fields: &mut Fields) -> Option<NewAgent> {
    let name = fields.required("name", |text| AgentName::parse(text.trim()));
    let owner = fields.required("owner", |text| Agent::parse_owner(text.trim()));
    let agent_type = fields.required("agent_type", AgentType::parse);
    let description = fields.optional("description", Agent::parse_description);
    let metadata_json = fields.optional("metadata_json", parse_metadata);
    Some(NewAgent {
        name: name?,
        owner: owner?,
        agent_type: agent_type?,
        description: description.unwrap_or_default(),
        metadata_json: metadata_json.unwrap_or_else(|| "{}".to_owned()),
    })
}

/// An empty field means no metadata.
fn parse_metadata(text: &str) -> Result<String, crate::domain::Invalid> {
    if text.trim().is_empty() { Ok("{}".to_owned()) } else { Agent::parse_metadata(text) }
}

fn read_edit(fields: &mut Fields) -> AgentEdit {
    AgentEdit {
        owner: fields.optional("owner", |text| Agent::parse_owner(text.trim())),
        agent_type: fields.optional("agent_type", AgentType::parse),
        description: fields.optional("description", Agent::parse_description),
        metadata_json: fields.optional("metadata_json", parse_metadata),
        unchanged_since: fields.optional("version", |text| {
            let micros =
                text.parse().map_err(|_| crate::domain::Invalid::new("version", "Reload the page and try again"))?;
            Ok(Timestamp::from_micros(micros))
        }),
    }
}

/// Shows the form for an existing agent.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let head = Some(Head::of(&services, &admin, &agent, "edit").await?);
    let (frame, values) = (frame.at("agents"), Values::of(&agent));
    Ok(Page(EditPage { frame, head, values, problems: Problems::default(), stored: None }))
}

/// Edits an agent. If another administrator has changed it in the meantime, the page shows both versions.
pub(in crate::web::console) async fn update(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let updated = match form.read(|fields| Some(read_edit(fields))) {
        Ok(edit) => agents::update(&services, &admin, id, edit).await,
        Err(error) => Err(error),
    };
    let error = match updated {
        Ok(agent) => {
            return back_to(&session, &format!("/console/agents/{id}"), format!("{} saved.", agent.name)).await;
        }
        Err(error) => error,
    };
    let (frame, mut values) = (frame.at("agents"), Values::submitted(&form));
    let agent = agents::get(&services, &admin, id).await?;
    let head = Some(Head::of(&services, &admin, &agent, "edit").await?);
    if let Error::Conflict(message) = &error {
        let problems = Problems::general(format!("{message}. Compare both versions, then save again to overwrite."));
        let stored = Values::of(&agent);
        values.version.clone_from(&stored.version);
        let page = EditPage { frame, head, values, problems, stored: Some(stored) };
        return Ok(html(http::StatusCode::CONFLICT, &page));
    }
    let problems = Problems::from_error(error, "")?;
    Ok(unprocessable(&EditPage { frame, head, values, problems, stored: None }))
}
