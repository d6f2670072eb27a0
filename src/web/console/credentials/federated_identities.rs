//! Federated identities of an agent: a section of its keys page, and a form to add one.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use tower_sessions::Session;

use crate::{
    domain::{
        AgentId, Error, FederatedIdentityId, Invalid, Result, Timestamp,
        credential::federation::{FederatedIdentity, Trust},
        token::Credential,
    },
    service::{
        Once, Services,
        credentials::{federation, key_facts},
    },
    web::{
        console::{
            Shared,
            agents::{Head, find},
            confirm::{ConfirmPage, Fact},
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Moment, Page, back_to, html},
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

pub(in crate::web::console) struct Row {
    pub(in crate::web::console) id: String,
    pub(in crate::web::console) issuer: String,
    pub(in crate::web::console) audience: String,
    pub(in crate::web::console) claims: Vec<(String, String)>,
    pub(in crate::web::console) added: Moment,
}

impl Row {
    pub(in crate::web::console) fn of(identity: FederatedIdentity, now: Timestamp) -> Self {
        Self {
            id: identity.id.to_string(),
            issuer: identity.trust.issuer,
            audience: identity.trust.audience,
            claims: identity.trust.claims.into_iter().collect(),
            added: Moment::at(identity.created_at, now),
        }
    }
}

#[derive(Template)]
#[template(path = "federated_identities/new.html")]
struct NewPage {
    frame: Frame,
    head: Head,
    form: Form,
    problems: Problems,
}

/// Shows the form for a new federated identity.
pub(in crate::web::console) async fn new_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    Ok(Page(NewPage { frame: frame.at("agents"), head, form: Form::default(), problems: Problems::default() }))
}

/// Adds a federated identity.
pub(in crate::web::console) async fn add(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let added = match form.read(read) {
        Ok(trust) => federation::add(&services, &admin, agent.id, trust, Once::each_time()).await,
        Err(error) => Err(error),
    };
    match added {
        Ok(identity) => {
            let message = format!(
                "Federated identity added. {} can authenticate with tokens from {}.",
                agent.name, identity.trust.issuer
            );
            back_to(&session, &format!("/console/agents/{}/keys", agent.id), message).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "")?;
            let head = Head::of(&services, &admin, &agent, "keys").await?;
            Ok(html(status, &NewPage { frame: frame.at("agents"), head, form, problems }))
        }
    }
}

fn read(fields: &mut Fields) -> Option<Trust> {
    let issuer = fields.required("issuer", |text| Trust::parse_issuer(text.trim()));
    let jwks_uri = fields.optional("jwks_uri", |text| {
        Some(text.trim()).filter(|text| !text.is_empty()).map(Trust::parse_jwks_uri).transpose()
    });
    let audience = fields.required("audience", |text| Trust::parse_audience(text.trim()));
    let claims = fields.required("claims", parse_claims);
    Some(Trust { issuer: issuer?, jwks_uri: jwks_uri.flatten(), audience: audience?, claims: claims? })
}

/// Parses one `name=value` claim per line.
fn parse_claims(text: &str) -> Result<BTreeMap<String, String>, Invalid> {
    let mut claims = Map::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) =
            line.split_once('=').ok_or_else(|| Invalid::new("claims", "Enter one claim per line, as name=value"))?;
        claims.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
    }
    Trust::parse_claims(&Value::Object(claims))
}

/// Returns the federated identity with the ID in a path.
async fn find_identity(services: &Services, admin: &Admin, agent: AgentId, id: &str) -> Result<FederatedIdentity> {
    let all = federation::list(services, admin, agent).await?;
    let id = FederatedIdentityId::parse(id);
    all.into_iter().find(|identity| Some(identity.id) == id).ok_or(Error::NotFound("Federated identity"))
}

/// Asks for confirmation before a federated identity is revoked.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((agent, id)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let identity = find_identity(&services, &admin, agent.id, &id).await?;
    let head = Head::of(&services, &admin, &agent, "keys").await?.manageable()?;
    let ending = key_facts::ending(&services, &admin, agent.id, Credential::FederatedIdentity(identity.id)).await?;
    let now = services.env.now();
    let row = Row::of(identity, now);
    let claims: Vec<_> = row.claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let last_used = ending.last_used_at.map(|at| Moment::at(at, now));
    let path = format!("/console/agents/{}", agent.id);
    let keys = format!("{path}/keys");
    Ok(Page(ConfirmPage {
        frame: frame.at("agents"),
        parents: vec![("Agents".to_owned(), "/console/agents".to_owned()), (head.name.clone(), keys.clone())],
        verb: "Revoke the federated identity",
        object: row.issuer,
        rest: format!(" of {}", head.name),
        note: "The agent can no longer authenticate with tokens of this issuer that have the claims below, and every \
               token that AIMS issued for them stops working immediately. You can add the identity again, but these \
               tokens stay revoked."
            .to_owned(),
        facts: vec![
            ("Agent", Fact::link(head.name, path.clone())),
            ("Audience", Fact::Code(row.audience)),
            ("Required claims", Fact::Code(claims.join(" "))),
            ("Added", Fact::Time(row.added)),
            ("Last used", Fact::time(last_used, "No use in the audit log")),
            ("Active tokens that end", Fact::tokens(ending.tokens)),
        ],
        action: format!("{path}/federated-identities/{}/remove", row.id),
        fields: Vec::new(),
        button: "Revoke federated identity",
        cancel: keys,
    }))
}

/// Revokes a federated identity.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((agent, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let identity = find_identity(&services, &admin, agent.id, &id).await?;
    federation::remove(&services, &admin, agent.id, identity.id).await?;
    let (issuer, path) = (identity.trust.issuer, format!("/console/agents/{}", agent.id));
    Flash::done(format!("Federated identity {issuer} of {} revoked, including the tokens issued for it.", agent.name))
        .link("View agent", &path)
        .redirect(&session, &format!("{path}/keys"))
        .await
}
