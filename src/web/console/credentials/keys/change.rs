//! Rotating and revoking one key.

use std::time::Duration;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    find_key,
    reveal::CreatedPage,
    row::{Holder, Row},
};
use crate::{
    domain::{Agent, ApiKey, ApiKeyStatus, Error, Invalid, Result, Timestamp},
    service::{
        Once,
        credentials::{api_keys, key_facts},
        tokens::live_tokens::Count,
    },
    web::{
        console::{
            Shared,
            agents::Head,
            guard::Admin,
            page::{
                error::is_own_path,
                form::{Form, Problems},
                frame::{Flash, Frame, Page, back_with_error, html},
                query::Query,
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// The list with its filters that an act returns to.
pub(in crate::web::console) struct Back(Option<String>);

impl Back {
    fn parse(path: &str) -> Self {
        let is_list = path.split('?').next() == Some("/console/keys");
        Self((is_list && is_own_path(path)).then(|| path.to_owned()))
    }

    fn or_keys_of(self, agent: &Agent) -> String {
        self.0.unwrap_or_else(|| format!("/console/agents/{}/keys", agent.id))
    }
}

impl FromQuery for Back {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(fields.optional("list", |path| Ok(Self::parse(path))).unwrap_or(Self(None)))
    }
}

fn row(key: &ApiKey, agent: &Agent, head: &Head, uses: i64, now: Timestamp) -> Row {
    let holder = Holder { name: &head.name, status: agent.status, may_manage: head.may_manage };
    Row::of(key, &holder, uses, now)
}

#[derive(Template)]
#[template(path = "keys/rotate.html")]
struct RotatePage {
    frame: Frame,
    head: Head,
    key: Row,
    back: String,
    problems: Problems,
}

/// Asks when the old key expires.
pub(in crate::web::console) async fn rotate_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    Query(back, _): Query<Back>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let key = row(&key, &agent, &head, 0, services.env.now());
    let back = back.or_keys_of(&agent);
    Ok(Page(RotatePage { frame: frame.at("agents"), head, key, back, problems: Problems::default() }))
}

/// Reads how long old keys still work.
pub(super) fn read_grace(fields: &mut Fields, name: &str) -> Option<Duration> {
    const HOUR: u64 = 3_600;
    fields.required(name, |text| match text {
        "0" => Ok(Duration::ZERO),
        "1" => Ok(Duration::from_secs(HOUR)),
        "24" => Ok(Duration::from_secs(24 * HOUR)),
        "168" => Ok(Duration::from_secs(168 * HOUR)),
        _ => Err(Invalid::new("enum", "Choose when the old key expires")),
    })
}

/// Rotates a key and shows the new one once.
pub(in crate::web::console) async fn rotate(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let (agent, old) = find_key(&services, &admin, &id, &key).await?;
    let now = services.env.now();
    let rotated = match form.read(|fields| read_grace(fields, "grace")) {
        Ok(grace) => api_keys::rotate(&services, &admin, agent.id, old.id, Some(grace), Once::each_time()).await,
        Err(error) => Err(error),
    };
    match rotated {
        Ok(rotation) => {
            let page = CreatedPage::of(&services, &admin, frame, &agent, &rotation.new).await?;
            let old = api_keys::get(&services, &admin, agent.id, rotation.old).await?;
            let until = Some(now.plus(rotation.grace)).filter(|_| !rotation.grace.is_zero());
            let page = match until {
                Some(until) => page.replacing(&old, &agent, until, now),
                None => page,
            };
            Ok(Page(page).into_response())
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "")?;
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            let key = row(&old, &agent, &head, 0, now);
            let back = Back::parse(form.get("list")).or_keys_of(&agent);
            Ok(html(status, &RotatePage { frame: frame.at("agents"), head, key, back, problems }))
        }
    }
}

#[derive(Template)]
#[template(path = "keys/revoke.html")]
struct RevokePage {
    frame: Frame,
    head: Head,
    key: Row,
    /// The active tokens that end with the key.
    ends: Count,
    back: String,
}

/// Shows what revoking a key ends, and asks for confirmation.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    Query(back, _): Query<Back>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    if key.status == ApiKeyStatus::Revoked {
        return Err(Error::Refused("Key already revoked").into());
    }
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let uses = api_keys::uses(&services, &admin, agent.id).await?.get(&key.id).copied().unwrap_or_default();
    let ends = key_facts::read(&services, &admin, agent.id, key.id).await?.ends;
    let key = row(&key, &agent, &head, uses, services.env.now());
    let back = back.or_keys_of(&agent);
    Ok(Page(RevokePage { frame: frame.at("agents"), head, key, ends, back }))
}

/// Revokes a key, including a rotated key in its grace period.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let path = Back::parse(form.get("list")).or_keys_of(&agent);
    match api_keys::revoke(&services, &admin, agent.id, key.id).await {
        Ok(()) => {
            let message = format!("Key {} of {} revoked, including its tokens.", key.name, agent.name);
            let page = format!("/console/agents/{}/keys/{}", agent.id, key.id);
            Flash::done(message).link("View key", page).redirect(&session, &path).await
        }
        Err(error @ Error::Refused(_)) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
    }
}
