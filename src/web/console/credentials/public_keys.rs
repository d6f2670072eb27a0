//! Public keys of an agent: a section of its keys page, and a form to add some.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tower_sessions::Session;

use crate::{
    domain::{AgentId, Error, PublicKeyId, Result, Timestamp, credential::public_key::PublicKey, token::Credential},
    service::{
        Once, Services,
        credentials::{key_facts, public_keys},
    },
    web::{
        console::{
            Shared,
            agents::{Head, find},
            confirm::{ConfirmPage, Fact},
            guard::Admin,
            page::{
                form::{self, Form, Problems, message},
                frame::{Flash, Frame, Moment, Page, back_to, html},
            },
        },
        failure::Failure,
    },
};

pub(in crate::web::console) struct Row {
    pub(in crate::web::console) id: String,
    pub(in crate::web::console) kid: String,
    pub(in crate::web::console) algorithm: String,
    pub(in crate::web::console) created: Moment,
}

impl Row {
    pub(in crate::web::console) fn of(key: &PublicKey, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            kid: key.kid.clone(),
            algorithm: key.jwk.get("alg").and_then(Value::as_str).unwrap_or_default().to_owned(),
            created: Moment::at(key.created_at, now),
        }
    }
}

#[derive(Template)]
#[template(path = "public_keys/new.html")]
struct NewPage {
    frame: Frame,
    head: Head,
    problems: Problems,
}

/// Shows the form for new public keys.
pub(in crate::web::console) async fn new_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    Ok(Page(NewPage { frame: frame.at("agents"), head, problems: Problems::default() }))
}

/// Adds public keys. The form is redisplayed without the input, which may be a private key pasted by mistake.
pub(in crate::web::console) async fn register(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let registered = match form::parse_public_keys(form.get("jwk")) {
        Ok(keys) => public_keys::register(&services, &admin, agent.id, keys, Once::each_time()).await,
        Err(error) => Err(error),
    };
    match registered {
        Ok(keys) => {
            let added = if keys.len() == 1 {
                "Public key added".to_owned()
            } else {
                format!("{} public keys added", keys.len())
            };
            let message = format!("{added}. {} can authenticate with signed assertions now.", agent.name);
            back_to(&session, &format!("/console/agents/{}/keys", agent.id), message).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = match error {
                Error::Invalid(fields) => {
                    Problems::one("jwk", fields.first().map_or_else(String::new, |field| message(&field.invalid)))
                }
                other => Problems::from_error(other, "jwk")?,
            };
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            Ok(html(status, &NewPage { frame: frame.at("agents"), head, problems }))
        }
    }
}

/// Returns the key with the ID in a path.
async fn find_key(services: &Services, admin: &Admin, agent: AgentId, id: &str) -> Result<PublicKey> {
    let all = public_keys::list(services, admin, agent).await?;
    let id = PublicKeyId::parse(id);
    all.into_iter().find(|key| Some(key.id) == id).ok_or(Error::NotFound("Public key"))
}

/// Asks for confirmation before a public key is revoked.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((agent, id)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let key = find_key(&services, &admin, agent.id, &id).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let ending = key_facts::ending(&services, &admin, agent.id, Credential::PublicKey(key.id)).await?;
    let now = services.env.now();
    let row = Row::of(&key, now);
    let last_used = ending.last_used_at.map(|at| Moment::at(at, now));
    let path = format!("/console/agents/{}", agent.id);
    let keys = format!("{path}/keys");
    Ok(Page(ConfirmPage {
        frame: frame.at("agents"),
        parents: vec![("Agents".to_owned(), "/console/agents".to_owned()), (head.name.clone(), keys.clone())],
        verb: "Revoke the public key",
        object: row.kid,
        rest: format!(" of {}", head.name),
        note: "The key and every token issued for it stop working immediately. You can add the key again, but these \
               tokens stay revoked."
            .to_owned(),
        facts: vec![
            ("Agent", Fact::link(head.name, path.clone())),
            ("Algorithm", Fact::Text(row.algorithm)),
            ("Added", Fact::Time(row.created)),
            ("Last used", Fact::time(last_used, "No use in the audit log")),
            ("Active tokens that end", Fact::tokens(ending.tokens)),
        ],
        action: format!("{path}/public-keys/{}/remove", row.id),
        fields: Vec::new(),
        button: "Revoke public key",
        cancel: keys,
    }))
}

/// Revokes a public key.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((agent, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let key = find_key(&services, &admin, agent.id, &id).await?;
    public_keys::remove(&services, &admin, agent.id, key.id).await?;
    let path = format!("/console/agents/{}", agent.id);
    Flash::done(format!("Public key {} of {} revoked, including the tokens issued for it.", key.kid, agent.name))
        .link("View agent", &path)
        .redirect(&session, &format!("{path}/keys"))
        .await
}
