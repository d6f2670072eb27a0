//! The public keys of an agent: a section of the page of its keys, and a form for more.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tower_sessions::Session;

use crate::{
    domain::{Error, PublicKeyId, Result, Timestamp, credential::public_key::PublicKey, text::json},
    service::credentials::public_keys,
    web::{
        console::{
            Shared,
            agents::{Head, find, parse_id},
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Frame, Moment, Page, back_to, html},
            },
        },
        failure::Failure,
    },
};

/// A public key as the table shows it.
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

/// The form for public keys.
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

/// Registers public keys. What was typed is not given back: it may be a private key that somebody took for a public one.
pub(in crate::web::console) async fn register(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let registered = match parse(form.get("jwk")) {
        Ok(keys) => public_keys::register(&services, &admin, agent.id, keys).await,
        Err(error) => Err(error),
    };
    match registered {
        Ok(keys) => {
            let many = if keys.len() == 1 {
                "The public key is".to_owned()
            } else {
                format!("{} public keys are", keys.len())
            };
            let message = format!("{many} registered. {} can sign assertions now.", agent.name);
            back_to(&session, &format!("/console/agents/{}/keys", agent.id), message).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = match error {
                Error::Invalid(fields) => {
                    let told = fields.first().map_or("", |field| field.invalid.message.as_str());
                    Problems::one("jwk", told)
                }
                other => Problems::from_error(other, "jwk")?,
            };
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            Ok(html(status, &NewPage { frame: frame.at("agents"), head, problems }))
        }
    }
}

/// Reads public keys; a private key is an error.
pub(in crate::web::console) fn parse(text: &str) -> Result<Vec<public_keys::AssertionKey>> {
    let read = json::read(text.as_bytes());
    let keys =
        read.map_err(|error| Error::field(&["jwk"], json::invalid(&error, "A JSON Web Key is a JSON object")))?;
    public_keys::parse(&keys)
}

/// Removes a public key.
pub(in crate::web::console) async fn remove(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((agent, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let agent = parse_id(&agent)?;
    let id = PublicKeyId::parse(&id).ok_or(Error::NotFound("Public key"))?;
    public_keys::remove(&services, &admin, agent, id).await?;
    let message = "The public key is removed, and the tokens that were issued for it have ended.";
    back_to(&session, &format!("/console/agents/{agent}/keys"), message).await
}
