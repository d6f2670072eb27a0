//! The federated identities endpoints.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Schema, Type},
};

use crate::{
    domain::{
        Error, FederatedIdentityId, Timestamp,
        credential::federation::{FederatedIdentity, Trust},
    },
    service::credentials::federation,
    web::{
        api::{Shared, agents::agent_id, answer::Answer, conditions::Keyed},
        failure::Failure,
        guard::Authorized,
        request::{
            extract::FromBody,
            fields::Fields,
            schema::{self, body_schemas},
        },
    },
};

/// An identity from another issuer with which an agent can authenticate.
#[derive(Serialize, ToSchema)]
#[schema(as = FederatedIdentity)]
pub struct FederatedIdentityBody {
    /// ID.
    #[schema(value_type = String)]
    id: FederatedIdentityId,
    /// `iss` of the issuer's tokens.
    issuer: String,
    /// URL of the issuer's keys. Null if they are found through its discovery document.
    jwks_uri: Option<String>,
    /// Required `aud` of the tokens.
    audience: String,
    /// Required claims and their exact values.
    claims: BTreeMap<String, String>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<FederatedIdentity> for FederatedIdentityBody {
    fn from(identity: FederatedIdentity) -> Self {
        let Trust { issuer, jwks_uri, audience, claims } = identity.trust;
        Self { id: identity.id, issuer, jwks_uri, audience, claims, created_at: identity.created_at }
    }
}

body_schemas! {
    Trust => "AddFederatedIdentity", "A new federated identity.";
}

fn claims() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(schema::line(1, 128)))
        .additional_properties(Some(Schema::from(schema::line(1, Trust::TEXT_MAX))))
        .min_properties(Some(1))
        .max_properties(Some(Trust::CLAIMS_MAX))
}

impl FromBody for Trust {
    fn read(fields: &mut Fields) -> Option<Self> {
        const ISSUER: &str =
            "The `iss` of the issuer's tokens. Unless `jwks_uri` is given, an https URL with a discovery document.";
        const CLAIMS: &str =
            "Required claims and their exact values, such as `sub`: 1 to 20 claims whose values are strings.";
        let text = || schema::line(1, Self::TEXT_MAX);
        let issuer = fields.doc(ISSUER, text).required("issuer", Self::parse_issuer);
        let jwks_uri = fields
            .doc("URL of the issuer's keys: an https URL.", || schema::uri(Self::TEXT_MAX))
            .optional("jwks_uri", Self::parse_jwks_uri);
        let audience = fields.doc("Required `aud` of the tokens.", text).required("audience", Self::parse_audience);
        let claims = fields.doc(CLAIMS, claims).required_value("claims", |value: &Value| Self::parse_claims(value));
        Some(Self { issuer: issuer?, jwks_uri, audience: audience?, claims: claims? })
    }
}

/// Add a federated identity
///
/// Trusts another issuer to identify the agent: Kubernetes, GitHub Actions, SPIFFE or any `OpenID` Connect provider. A
/// token of that issuer with the required audience and claims authenticates the agent at the token endpoint (grant type
/// `urn:ietf:params:oauth:grant-type:jwt-bearer`, RFC 7523). An agent can have at most 20 federated identities.
///
/// The caller must hold all capabilities of the agent. The caller must also hold all capabilities of every agent whose
/// federated identity overlaps with this one: both have the same issuer and audience, and no claim for which they
/// require different values.
#[utoipa::path(
    post, path = "/agents/{id}/federated-identities", tag = "API keys", operation_id = "add_federated_identity",
    params(("id" = String, Path)), request_body = Trust,
    responses(
        (status = 201, description = "The federated identity is added.", body = FederatedIdentityBody),
        (status = 400, description = "The agent is revoked, or is the caller and the caller's own key is restricted."),
        (status = 404, description = "The agent does not exist."),
        (status = 409, description = "The agent already has 20 federated identities."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn add(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    trust: Keyed<Trust>,
) -> Result<Response, Failure> {
    let agent = agent_id(&agent)?;
    let added =
        |added: &FederatedIdentity| Answer::new(StatusCode::CREATED, None, &FederatedIdentityBody::from(added.clone()));
    trust.once(added, |trust, once| federation::add(&services, &caller, agent, trust, once)).await
}

/// List an agent's federated identities
#[utoipa::path(
    get, path = "/agents/{id}/federated-identities", tag = "API keys", operation_id = "list_federated_identities",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The federated identities, oldest first.", body = [FederatedIdentityBody]),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
) -> Result<Json<Vec<FederatedIdentityBody>>, Failure> {
    let identities = federation::list(&services, &caller, agent_id(&agent)?).await?;
    Ok(Json(identities.into_iter().map(FederatedIdentityBody::from).collect()))
}

/// Revoke a federated identity
///
/// Ends the tokens that were issued for it immediately. Agents can always revoke their own federated identities. To
/// revoke one of another agent, the caller must hold all capabilities of that agent.
#[utoipa::path(
    delete, path = "/agents/{id}/federated-identities/{identity_id}", tag = "API keys",
    operation_id = "remove_federated_identity",
    params(("id" = String, Path), ("identity_id" = String, Path)),
    responses(
        (status = 204, description = "The federated identity is revoked."),
        (status = 400, description = "It is the last lasting credential of the last active agent with `admin:*`."),
        (status = 404, description = "The agent does not exist or does not have this federated identity."),
    )
)]
pub async fn remove(
    State(services): Shared,
    caller: Authorized,
    Path((agent, id)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let id = FederatedIdentityId::parse(&id).ok_or(Error::NotFound("Federated identity"))?;
    federation::remove(&services, &caller, agent_id(&agent)?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
