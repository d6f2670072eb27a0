//! Pages for API keys, including the one response that shows a key.

mod bulk;
mod change;
mod fleet;
mod leaked;
mod reveal;
mod row;
mod show;

use std::{ops::RangeInclusive, time::Duration};

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response, sse::Event},
};
use futures_util::stream;
use http::StatusCode;

use self::{
    reveal::CreatedPage,
    row::{Holder, Row},
};
use super::{federated_identities, public_keys};
use crate::{
    domain::{Agent, AgentStatus, ApiKey, ApiKeyId, Error, Invalid, KeyLimits, Result, Timestamp},
    service::{
        Services,
        core::updates::Updates,
        credentials::{
            api_keys::{self, NewApiKey},
            federation, public_keys as registered,
        },
    },
    web::{
        console::{
            Shared,
            agents::{Head, find, parse_id},
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Frame, Page, html},
                live::{may_watch, stream_events},
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

pub(in crate::web::console) use bulk::{confirm, revoke_all, rotate_all};
pub(in crate::web::console) use change::{revoke, revoke_page, rotate, rotate_page};
pub(in crate::web::console) use fleet::list;
pub(in crate::web::console) use leaked::find_leaked;
pub(in crate::web::console) use reveal::reveal_first;
pub(in crate::web::console) use show::{page, watch};

#[derive(Template)]
#[template(path = "keys/of_agent.html")]
struct AgentKeysPage {
    frame: Frame,
    head: Head,
    keys: Vec<Row>,
    public_keys: Vec<public_keys::Row>,
    federated_identities: Vec<federated_identities::Row>,
}

/// Lists the credentials of an agent.
pub(in crate::web::console) async fn of_agent(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let mut keys = api_keys::list(&services, &admin, agent.id).await?;
    let uses = api_keys::uses(&services, &admin, agent.id).await?;
    let public = registered::list(&services, &admin, agent.id).await?;
    let federated = federation::list(&services, &admin, agent.id).await?;
    let now = services.env.now();
    // Usable keys first, then newest first.
    keys.sort_by_key(|key| (key.state(agent.status, now).has_ended(), std::cmp::Reverse(key.created_at)));
    let head = Head::of(&services, &admin, &agent, "keys").await?;
    let holder = Holder { name: &head.name, status: agent.status, may_manage: head.may_manage };
    let row = |key: &ApiKey| Row::of(key, &holder, uses.get(&key.id).copied().unwrap_or_default(), now);
    let keys = keys.iter().map(row).collect();
    Ok(Page(AgentKeysPage {
        frame: frame.at("agents"),
        keys,
        public_keys: public.iter().map(|key| public_keys::Row::of(key, now)).collect(),
        federated_identities: federated.into_iter().map(|one| federated_identities::Row::of(one, now)).collect(),
        head,
    }))
}

#[derive(Template)]
#[template(path = "keys/new.html")]
struct NewKeyPage {
    frame: Frame,
    head: Head,
    form: Form,
    /// The ID of the new key. It makes the form idempotent.
    id: String,
    problems: Problems,
}

impl NewKeyPage {
    fn is_limited(&self) -> bool {
        ["scope", "allowed_networks", "token_life_seconds", "max_uses"]
            .iter()
            .any(|name| !self.form.get(name).is_empty())
    }

    fn chosen(&self, life: &str) -> bool {
        let chosen = self.form.get("life");
        if chosen.is_empty() { life == "90" } else { chosen == life }
    }
}

/// Shows the form for a new key.
pub(in crate::web::console) async fn new_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    if agent.status == AgentStatus::Revoked {
        return Err(Error::Refused("Agent has been revoked").into());
    }
    Ok(Page(NewKeyPage {
        frame: frame.at("agents"),
        head: Head::of(&services, &admin, &agent, "keys").await?.manageable()?,
        form: Form::default(),
        id: services.env.uuid().to_string(),
        problems: Problems::default(),
    }))
}

/// Creates a key and shows it once.
pub(in crate::web::console) async fn create(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let now = services.env.now();
    let key = ApiKeyId::parse(form.get("id")).unwrap_or(ApiKeyId(services.env.uuid()));
    let created = match form.read(|fields| read_new(fields, &form, now)) {
        Ok(new) => api_keys::create_with_id(&services, &admin, agent.id, key, new).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(created) => {
            let page = CreatedPage::of(&services, &admin, frame, &agent, &created).await?;
            Ok(Page(page).into_response())
        }
        Err(error) => {
            let status = match &error {
                Error::Conflict(_) => StatusCode::CONFLICT,
                Error::Denied(_) => StatusCode::FORBIDDEN,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let problems = Problems::from_error(error, "")?;
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            let id = services.env.uuid().to_string();
            Ok(html(status, &NewKeyPage { frame: frame.at("agents"), head, form, id, problems }))
        }
    }
}

fn read_new(fields: &mut Fields, form: &Form, now: Timestamp) -> Option<NewApiKey> {
    const DAY: u64 = 24 * 3_600;
    let name = fields.required("name", |text| ApiKey::parse_name(text.trim()));
    let expires_at = match form.get("life") {
        "never" => Some(None),
        "date" => fields.required("expires_on", |text| {
            let invalid = || Invalid::new("date_parsing", "Choose a date");
            // The key is valid until the end of the chosen day.
            let day = Timestamp::parse_day(text).ok_or_else(invalid)?.plus(Duration::from_secs(DAY - 1));
            if day <= now { Err(Invalid::NotInFuture) } else { Ok(Some(day)) }
        }),
        _ => fields.required("life", |text| match text {
            "7" | "30" | "90" => {
                let days: u64 = text.parse().map_err(|_| Invalid::new("enum", "Choose an expiry"))?;
                Ok(Some(now.plus(Duration::from_secs(days * DAY))))
            }
            _ => Err(Invalid::new("enum", "Choose an expiry")),
        }),
    };
    let limits = read_limits(fields);
    Some(NewApiKey { name: name?, expires_at: expires_at?, limits })
}

fn read_limits(fields: &mut Fields) -> KeyLimits {
    let number = |range: RangeInclusive<i64>| {
        move |text: &str| {
            let invalid =
                || Invalid::new("number", format!("Enter a whole number from {} to {}", range.start(), range.end()));
            text.parse().ok().filter(|number| range.contains(number)).ok_or_else(invalid)
        }
    };
    let life = non_empty(fields, "token_life_seconds", number(KeyLimits::TOKEN_LIFE));
    KeyLimits {
        capabilities: non_empty(fields, "scope", KeyLimits::parse_capabilities),
        networks: non_empty(fields, "allowed_networks", KeyLimits::parse_networks).unwrap_or_default(),
        token_life: life.and_then(|seconds| u32::try_from(seconds).ok()),
        uses_left: non_empty(fields, "max_uses", number(KeyLimits::USES)),
    }
}

/// Reads an optional field; an empty one counts as absent.
fn non_empty<T>(fields: &mut Fields, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
    let parse = |text: &str| Some(text.trim()).filter(|text| !text.is_empty()).map(parse).transpose();
    fields.optional(name, parse).flatten()
}

async fn find_key(services: &Services, admin: &Admin, id: &str, key: &str) -> Result<(Agent, ApiKey)> {
    let agent = find(services, admin, id).await?;
    let key = ApiKeyId::parse(key).ok_or(Error::NotFound("API key"))?;
    let key = api_keys::get(services, admin, agent.id, key).await?;
    Ok((agent, key))
}

/// Streams one event when the key is first used.
pub(in crate::web::console) async fn first_use(
    State(services): Shared,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let agent = parse_id(&id)?;
    let key = ApiKeyId::parse(&key).ok_or(Error::NotFound("API key"))?;
    api_keys::get(&services, &admin, agent, key).await?;
    let updates = Updates::of(&services);
    let events = stream::unfold(Some((services, updates)), move |state| {
        let admin = admin.clone();
        async move {
            let (services, mut updates) = state?;
            loop {
                let key = api_keys::get(&services, &admin, agent, key).await.ok()?;
                if !may_watch(&services, &admin).await {
                    return None;
                }
                if key.last_used_at.is_some() {
                    return Some((Ok(Event::default().event("used").data("used")), None));
                }
                if !updates.next().await {
                    return None;
                }
            }
        }
    });
    Ok(stream_events(events))
}
