//! Creating an agent with its first capabilities and its first key, in one form.

use std::{collections::HashSet, time::Duration};

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tower_sessions::Session;

use super::edit::parse_metadata;
use crate::{
    domain::{
        Agent, AgentName, AgentType, ApiKey, ApiKeyId, CapabilityId, Error, Invalid, KeyLimits, Limit, Result, Role,
        Timestamp, agent::labels::Labels, capability::builtin,
    },
    service::{
        Services,
        agents::{
            self, NewAgent, capabilities,
            equip::{self, Equipped, NewEquipped},
        },
        credentials::api_keys::{self, NewApiKey},
    },
    web::{
        console::{
            Shared,
            credentials::keys::reveal_first,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Page, html},
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

/// The choices for the life of the key: value and label.
const LIVES: [(&str, &str); 5] =
    [("7", "In 7 days"), ("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year"), ("never", "Never")];
const DEFAULT_LIFE: &str = "90";

/// A capability that can be granted.
struct Offered {
    id: String,
    name: String,
    description: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "agents/new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    /// The ID of the new key. It makes the form idempotent.
    id: String,
    offered: Vec<Offered>,
    /// True if there are capabilities that the page does not list.
    more: bool,
    wants_key: bool,
    problems: Problems,
}

impl NewPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame, form: Form, problems: Problems) -> Result<Self> {
        let all = capabilities::list(services, admin, None, Limit::of(Limit::MAX)).await?;
        let chosen: HashSet<_> = form.all("capability").map(str::to_owned).collect();
        // Only owners can grant `admin:*`. The service enforces this; the page hides what would be denied.
        let may_grant = |name: &str| name != builtin::ADMIN || admin.0.administrator.role >= Role::Owner;
        let offered = all.items.into_iter().filter(|one| may_grant(one.name.as_str())).map(|one| {
            let id = one.id.to_string();
            Offered { chosen: chosen.contains(&id), id, name: one.name.to_string(), description: one.description }
        });
        let mut offered: Vec<_> = offered.collect();
        offered.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            frame: frame.at("agents"),
            id: services.env.uuid().to_string(),
            offered,
            more: all.next.is_some(),
            wants_key: form.pairs().is_empty() || form.is_checked("key"),
            form,
            problems,
        })
    }

    fn is_type(&self, kind: &str) -> bool {
        let chosen = self.form.get("agent_type");
        if chosen.is_empty() { kind == AgentType::Llm.as_str() } else { chosen == kind }
    }

    fn is_life(&self, life: &str) -> bool {
        let chosen = self.form.get("life");
        if chosen.is_empty() { life == DEFAULT_LIFE } else { chosen == life }
    }

    fn key_name(&self) -> &str {
        if self.form.pairs().is_empty() { "production" } else { self.form.get("key_name") }
    }

    fn has_more_fields(&self) -> bool {
        ["labels", "description", "metadata_json"].iter().any(|name| !self.form.get(name).is_empty())
    }
}

/// Shows the form for a new agent.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(NewPage::of(&services, &admin, frame, Form::default(), Problems::default()).await?))
}

/// Creates an agent, with the chosen capabilities and a key, which the response shows once.
pub(in crate::web::console) async fn submit(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let key = ApiKeyId::parse(form.get("id")).unwrap_or(ApiKeyId(services.env.uuid()));
    let now = services.env.now();
    let created = match form.read(|fields| read(fields, &form, key, now)) {
        Ok(new) => equip::create(&services, &admin, new).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(Equipped { agent, key: Some(key) }) => Ok(reveal_first(&services, &admin, frame, &agent, &key).await?),
        Ok(Equipped { agent, key: None }) => {
            let next = if form.all("capability").next().is_some() {
                "Next, create an API key or add a public key."
            } else {
                "Next, grant it capabilities and create an API key."
            };
            let path = format!("/console/agents/{}", agent.id);
            Flash::done(format!("{} created. {next}", agent.name)).redirect(&session, &path).await
        }
        Err(error) => {
            if let Some(agent) = created_before(&services, &admin, &form, key).await? {
                let path = format!("/console/agents/{}", agent.id);
                let message =
                    format!("{} was already created. If you did not save its key, create another one.", agent.name);
                let flash = Flash { good: false, ..Flash::done(message) };
                return flash.link("Create key", format!("{path}/keys/new")).redirect(&session, &path).await;
            }
            let status = match &error {
                Error::Denied(_) => StatusCode::FORBIDDEN,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let problems = Problems::from_error(error, "name")?;
            Ok(html(status, &NewPage::of(&services, &admin, frame, form, problems).await?))
        }
    }
}

/// Returns the agent that the same form created before: the browser may have submitted it twice.
async fn created_before(services: &Services, admin: &Admin, form: &Form, key: ApiKeyId) -> Result<Option<Agent>> {
    let Ok(name) = AgentName::parse(form.get("name").trim()) else { return Ok(None) };
    let agent = match agents::by_name(services, admin, &name).await {
        Err(Error::NotFound(_)) => return Ok(None),
        found => found?,
    };
    match api_keys::get(services, admin, agent.id, key).await {
        Ok(_) => Ok(Some(agent)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(fields: &mut Fields, form: &Form, key: ApiKeyId, now: Timestamp) -> Option<NewEquipped> {
    let name = fields.required("name", |text| AgentName::parse(text.trim()));
    let owner = fields.required("owner", |text| Agent::parse_owner(text.trim()));
    let agent_type = fields.required("agent_type", AgentType::parse);
    let description = fields.optional("description", Agent::parse_description);
    let metadata_json = fields.optional("metadata_json", parse_metadata);
    let labels = fields.optional("labels", Labels::parse_lines);
    let capabilities = fields.optional("capability", |_| read_capabilities(form)).unwrap_or_default();
    let key = if form.is_checked("key") { Some((key, read_key(fields, now)?)) } else { None };
    Some(NewEquipped {
        agent: NewAgent {
            name: name?,
            owner: owner?,
            agent_type: agent_type?,
            description: description.unwrap_or_default(),
            metadata_json: metadata_json.unwrap_or_else(|| "{}".to_owned()),
            labels: labels.unwrap_or_default(),
        },
        capabilities,
        key,
    })
}

fn read_capabilities(form: &Form) -> Result<Vec<CapabilityId>, Invalid> {
    let unknown = || Invalid::new("enum", "Choose capabilities from the list");
    form.all("capability").map(|id| CapabilityId::parse(id).ok_or_else(unknown)).collect()
}

fn read_key(fields: &mut Fields, now: Timestamp) -> Option<NewApiKey> {
    const DAY: u64 = 24 * 3_600;
    let name = fields.required("key_name", |text| ApiKey::parse_name(text.trim()));
    let expires_at = fields.required("life", |text| {
        let invalid = || Invalid::new("enum", "Choose an expiry");
        if !LIVES.iter().any(|(life, _)| *life == text) {
            return Err(invalid());
        }
        if text == "never" {
            return Ok(None);
        }
        let days: u64 = text.parse().map_err(|_| invalid())?;
        Ok(Some(now.plus(Duration::from_secs(days * DAY))))
    });
    Some(NewApiKey { name: name?, expires_at: expires_at?, limits: KeyLimits::default() })
}
