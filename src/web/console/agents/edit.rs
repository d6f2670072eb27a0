//! Editing an agent.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{Head, find, parse_id};
use crate::{
    domain::{Agent, AgentType, Error, Invalid, agent::labels::Labels},
    service::{
        Expected,
        agents::{self, AgentEdit},
        core::conditions::{Version, Versioned},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Page, html, unprocessable},
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
    head: Head,
    values: Values,
    problems: Problems,
    /// The stored values, if another administrator has changed the agent in the meantime.
    stored: Option<Values>,
}

/// The values of the form fields.
struct Values {
    owner: String,
    agent_type: String,
    description: String,
    metadata_json: String,
    labels: String,
    version: String,
}

impl Values {
    fn of(agent: &Agent) -> Self {
        Self {
            owner: agent.owner.clone(),
            agent_type: agent.agent_type.as_str().to_owned(),
            description: agent.description.clone(),
            metadata_json: agent.metadata_json.clone(),
            labels: agent.labels.to_lines(),
            version: agent.version().to_string(),
        }
    }

    fn submitted(form: &Form) -> Self {
        let value = |name| form.get(name).to_owned();
        Self {
            owner: value("owner"),
            agent_type: value("agent_type"),
            description: value("description"),
            metadata_json: value("metadata_json"),
            labels: value("labels"),
            version: value("version"),
        }
    }
}

/// An empty field means no metadata.
pub(super) fn parse_metadata(text: &str) -> Result<String, Invalid> {
    if text.trim().is_empty() { Ok("{}".to_owned()) } else { Agent::parse_metadata(text) }
}

fn parse_version(text: &str) -> Result<Expected, Invalid> {
    let version = Version::parse(text).ok_or_else(|| Invalid::new("version", "Reload the page and try again"))?;
    Ok(Expected::OneOf(vec![version]))
}

fn read_edit(fields: &mut Fields) -> AgentEdit {
    AgentEdit {
        owner: fields.optional("owner", |text| Agent::parse_owner(text.trim())),
        agent_type: fields.optional("agent_type", AgentType::parse),
        description: fields.optional("description", Agent::parse_description),
        metadata_json: fields.optional("metadata_json", parse_metadata),
        labels: fields.optional("labels", Labels::parse_lines),
        expected: fields.optional("version", parse_version).unwrap_or_default(),
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
    let head = Head::of(&services, &admin, &agent, "edit").await?;
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
    let before = agents::get(&services, &admin, id).await?;
    let updated = match form.read(|fields| Some(read_edit(fields))) {
        Ok(edit) => agents::update(&services, &admin, id, edit).await,
        Err(error) => Err(error),
    };
    let error = match updated {
        Ok(agent) => {
            let path = format!("/console/agents/{id}");
            let saved = Flash::done(format!("{} saved.", agent.name));
            if agent.owner == before.owner {
                return saved.redirect(&session, &path).await;
            }
            let message =
                format!("{} saved. Its owner is now {}, before it was {}.", agent.name, agent.owner, before.owner);
            let undo = vec![("owner".to_owned(), before.owner)];
            return Flash { message, ..saved }.undo(path.clone(), undo).redirect(&session, &path).await;
        }
        Err(error) => error,
    };
    let (frame, mut values) = (frame.at("agents"), Values::submitted(&form));
    let agent = agents::get(&services, &admin, id).await?;
    let head = Head::of(&services, &admin, &agent, "edit").await?;
    if matches!(error, Error::Stale) {
        const MESSAGE: &str = "Somebody else changed this agent in the meantime. Compare both versions, then save \
            again to overwrite.";
        let problems = Problems::general(MESSAGE);
        let stored = Values::of(&agent);
        values.version.clone_from(&stored.version);
        let page = EditPage { frame, head, values, problems, stored: Some(stored) };
        return Ok(html(http::StatusCode::CONFLICT, &page));
    }
    let problems = Problems::from_error(error, "")?;
    Ok(unprocessable(&EditPage { frame, head, values, problems, stored: None }))
}
