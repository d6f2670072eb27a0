//! The responses that show new keys, once.

use askama::Template;
use axum::response::{IntoResponse, Response};

use super::row::{Holder, Row};
use crate::{
    domain::{Agent, ApiKey, Result, Timestamp, credential::key_filter::ListedKey},
    service::{
        Services,
        credentials::{
            api_keys::{CreatedApiKey, Rotation},
            key_bulk::{Outcome, Unchanged},
        },
    },
    web::console::{
        agents::Head,
        credentials::snippets::{Snippet, snippets},
        guard::Admin,
        page::frame::{Frame, Moment, Page},
    },
};

#[derive(Template)]
#[template(path = "keys/created.html")]
pub(super) struct CreatedPage {
    frame: Frame,
    head: Head,
    key_name: String,
    secret: String,
    done: String,
    first_use: String,
    snippets: Vec<Snippet>,
    /// The replaced key and the end of its grace period.
    old: Option<(Row, Moment)>,
}

impl CreatedPage {
    pub(super) async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        agent: &Agent,
        created: &CreatedApiKey,
    ) -> Result<Self> {
        let secret = created.raw_key.expose().to_owned();
        Ok(Self {
            frame: frame.at("agents"),
            head: Head::of(services, admin, agent, "keys").await?,
            key_name: created.key.name.clone(),
            done: format!("/console/agents/{}/keys", agent.id),
            first_use: format!("/console/agents/{}/keys/{}/first-use", agent.id, created.key.id),
            snippets: snippets(&services.settings.issuer, &secret),
            secret,
            old: None,
        })
    }

    /// Adds the replaced key, which works until a time. The next page is then that of the replaced key, which shows
    /// whether it is still used.
    pub(super) fn replacing(self, old: &ApiKey, agent: &Agent, until: Timestamp, now: Timestamp) -> Self {
        let holder = Holder { name: agent.name.as_str(), status: agent.status, may_manage: true };
        let row = Row::of(old, &holder, 0, now);
        Self { done: row.path(""), old: Some((row, Moment::at(until, now))), ..self }
    }
}

/// Shows the first key of an agent that was created together with it.
pub(in crate::web::console) async fn reveal_first(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    agent: &Agent,
    created: &CreatedApiKey,
) -> Result<Response> {
    let page = CreatedPage::of(services, admin, frame, agent, created).await?;
    Ok(Page(CreatedPage { done: format!("/console/agents/{}", agent.id), ..page }).into_response())
}

/// A new key on the page that shows several.
struct NewKey {
    id: String,
    agent: String,
    name: String,
    secret: String,
}

#[derive(Template)]
#[template(path = "keys/rotated.html")]
pub(super) struct RotatedPage {
    frame: Frame,
    keys: Vec<NewKey>,
    /// All keys as JSON, and as `.env` files in one.
    json: String,
    env: String,
    /// When the old keys expire, unless at once.
    old_until: Option<Moment>,
    unchanged: Vec<(Row, String)>,
    missing: usize,
    done: String,
}

impl RotatedPage {
    /// Returns the texts that contain all keys: identifier, name and text.
    fn files(&self) -> [(&'static str, &'static str, &str); 2] {
        [("all-json", "JSON", &self.json), ("all-env", ".env", &self.env)]
    }

    pub(super) fn of(frame: Frame, outcome: Outcome<(ListedKey, Rotation)>, now: Timestamp, done: String) -> Self {
        let grace = outcome.done.first().map(|(_, rotation)| rotation.grace).filter(|grace| !grace.is_zero());
        let (mut json, mut env) = (Vec::new(), String::new());
        for (old, rotation) in &outcome.done {
            let secret = rotation.new.raw_key.expose();
            json.push(serde_json::json!({
                "agent": old.agent_name,
                "agent_id": old.key.agent_id,
                "name": old.key.name,
                "key_id": rotation.new.key.id,
                "replaces_key_id": rotation.old,
                "api_key": secret,
            }));
            let title = format!("# {}: {} (replaces {}…)\n", old.agent_name, old.key.name, old.key.key_prefix);
            env.push_str(&title);
            env.push_str("AIMS_API_KEY=");
            env.push_str(secret);
            env.push_str("\n\n");
        }
        let key = |(old, rotation): (ListedKey, Rotation)| NewKey {
            id: rotation.new.key.id.to_string(),
            agent: old.agent_name,
            name: old.key.name,
            secret: rotation.new.raw_key.expose().to_owned(),
        };
        Self {
            frame: frame.at("keys"),
            keys: outcome.done.into_iter().map(key).collect(),
            json: serde_json::to_string_pretty(&json).unwrap_or_default(),
            env: env.trim_end().to_owned(),
            old_until: grace.map(|grace| Moment::at(now.plus(grace), now)),
            unchanged: outcome.unchanged.into_iter().map(|one| described(one, now)).collect(),
            missing: outcome.missing,
            done,
        }
    }
}

/// Returns a key that was not changed and the reason.
pub(super) fn described(one: Unchanged, now: Timestamp) -> (Row, String) {
    (Row::listed(&one.listed, false, now), one.reason)
}
