//! Pages for API keys, including the one response that shows a key.

mod fleet;

use std::{convert::Infallible, ops::RangeInclusive, time::Duration};

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{Stream, stream};
use http::StatusCode;
use tower_sessions::Session;

use super::{
    federated_identities, public_keys,
    snippets::{Snippet, snippets},
};
use crate::{
    domain::{Agent, AgentStatus, ApiKey, ApiKeyId, ApiKeyStatus, Error, Invalid, KeyLimits, Result, Timestamp},
    service::{
        Services,
        core::updates::Updates,
        credentials::{
            api_keys::{self, CreatedApiKey, NewApiKey},
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
                frame::{Frame, Moment, Page, back_to, back_with_error, html},
                live::{may_watch, stream_events},
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

pub(in crate::web::console) use fleet::fleet;

pub(in crate::web::console) struct Row {
    id: String,
    agent_id: String,
    agent_name: String,
    name: String,
    prefix: String,
    /// A value of [`ApiKeyStatus`], or `expired`.
    status: &'static str,
    usable: bool,
    expires: Option<Moment>,
    /// End of the grace period of a rotated key.
    grace: Option<Moment>,
    last_used: Option<Moment>,
    last_ip: Option<String>,
    uses: i64,
    /// The restrictions, for people.
    limits: Vec<String>,
    /// True if the administrator may rotate and revoke it.
    may_manage: bool,
}

impl Row {
    fn of(key: &ApiKey, agent_name: String, may_manage: bool, uses: i64, now: Timestamp) -> Self {
        let moment = |at| Moment::at(at, now);
        let usable = key.validity().check(now).is_ok();
        let expired = key.status != ApiKeyStatus::Revoked && !usable;
        Self {
            id: key.id.to_string(),
            agent_id: key.agent_id.to_string(),
            agent_name,
            name: key.name.clone(),
            prefix: key.key_prefix.clone(),
            status: if expired { "expired" } else { key.status.as_str() },
            usable,
            expires: key.expires_at.map(moment),
            grace: key.grace_ends_at.filter(|_| usable && key.status == ApiKeyStatus::Rotated).map(moment),
            last_used: key.last_used_at.map(moment),
            last_ip: key.last_used_ip.clone(),
            uses,
            limits: describe_limits(&key.limits),
            may_manage,
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/console/agents/{}/keys/{}{rest}", self.agent_id, self.id)
    }
}

fn describe_limits(limits: &KeyLimits) -> Vec<String> {
    let scope = limits.capabilities.as_ref().map(|names| format!("Only {}", names.as_scope()));
    let networks: Vec<_> = limits.networks.iter().map(ToString::to_string).collect();
    let networks = (!networks.is_empty()).then(|| format!("Only from {}", networks.join(", ")));
    let life = limits.token_life.map(|seconds| format!("Token lifetime up to {seconds} s"));
    let uses =
        limits.uses_left.map(|left| if left == 1 { "1 use left".to_owned() } else { format!("{left} uses left") });
    [scope, networks, life, uses].into_iter().flatten().collect()
}

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
    keys.sort_by_key(|key| (key.validity().check(now).is_err(), std::cmp::Reverse(key.created_at)));
    let head = Head::of(&services, &admin, &agent, "keys").await?;
    let row = |key: &ApiKey| {
        Row::of(key, head.name.clone(), head.may_manage, uses.get(&key.id).copied().unwrap_or_default(), now)
    };
    Ok(Page(AgentKeysPage {
        frame: frame.at("agents"),
        keys: keys.iter().map(row).collect(),
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

#[derive(Template)]
#[template(path = "keys/created.html")]
struct CreatedPage {
    frame: Frame,
    head: Head,
    key_name: String,
    secret: String,
    done: String,
    first_use: String,
    snippets: Vec<Snippet>,
    /// End of the grace period of the replaced key.
    old_until: Option<Moment>,
}

impl CreatedPage {
    async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        agent: &Agent,
        created: &CreatedApiKey,
        old_until: Option<Timestamp>,
    ) -> Result<Self> {
        let now = services.env.now();
        let secret = created.raw_key.expose().to_owned();
        Ok(Self {
            frame: frame.at("agents"),
            head: Head::of(services, admin, agent, "keys").await?,
            key_name: created.key.name.clone(),
            done: format!("/console/agents/{}/keys", agent.id),
            first_use: format!("/console/agents/{}/keys/{}/first-use", agent.id, created.key.id),
            snippets: snippets(&services.settings.issuer, &secret),
            secret,
            old_until: old_until.map(|at| Moment::at(at, now)),
        })
    }
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
            let page = CreatedPage::of(&services, &admin, frame, &agent, &created, None).await?;
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

#[derive(Template)]
#[template(path = "keys/rotate.html")]
struct RotatePage {
    frame: Frame,
    head: Head,
    key: Row,
    problems: Problems,
}

/// Asks when the old key expires.
pub(in crate::web::console) async fn rotate_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let key = Row::of(&key, head.name.clone(), head.may_manage, 0, services.env.now());
    Ok(Page(RotatePage { frame: frame.at("agents"), head, key, problems: Problems::default() }))
}

/// Rotates a key and shows the new one once.
pub(in crate::web::console) async fn rotate(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    const HOUR: u64 = 3_600;
    let (agent, old) = find_key(&services, &admin, &id, &key).await?;
    let now = services.env.now();
    let grace = form.read(|fields| {
        fields.required("grace", |text| match text {
            "0" => Ok(Duration::ZERO),
            "1" => Ok(Duration::from_secs(HOUR)),
            "24" => Ok(Duration::from_secs(24 * HOUR)),
            "168" => Ok(Duration::from_secs(168 * HOUR)),
            _ => Err(Invalid::new("enum", "Choose when the old key expires")),
        })
    });
    let rotated = match grace {
        Ok(grace) => api_keys::rotate(&services, &admin, agent.id, old.id, Some(grace)).await,
        Err(error) => Err(error),
    };
    match rotated {
        Ok(rotation) => {
            let until = Some(now.plus(rotation.grace)).filter(|_| !rotation.grace.is_zero());
            let page = CreatedPage::of(&services, &admin, frame, &agent, &rotation.new, until).await?;
            Ok(Page(page).into_response())
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "")?;
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            let key = Row::of(&old, head.name.clone(), head.may_manage, 0, now);
            Ok(html(status, &RotatePage { frame: frame.at("agents"), head, key, problems }))
        }
    }
}

#[derive(Template)]
#[template(path = "keys/revoke.html")]
struct RevokePage {
    frame: Frame,
    head: Head,
    key: Row,
}

/// Asks for confirmation before a key is revoked.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    if key.status == ApiKeyStatus::Revoked {
        return Err(Error::Refused("Key already revoked").into());
    }
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let uses = api_keys::uses(&services, &admin, agent.id).await?.get(&key.id).copied().unwrap_or_default();
    let key = Row::of(&key, head.name.clone(), head.may_manage, uses, services.env.now());
    Ok(Page(RevokePage { frame: frame.at("agents"), head, key }))
}

/// Revokes a key, including a rotated key in its grace period.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let path = format!("/console/agents/{}/keys", agent.id);
    match api_keys::revoke(&services, &admin, agent.id, key.id).await {
        Ok(()) => {
            let message = format!("Key {} revoked, including its tokens.", key.name);
            back_to(&session, &path, message).await
        }
        Err(error @ Error::Refused(_)) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
    }
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
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Failure> {
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
