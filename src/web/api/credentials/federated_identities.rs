//! Foreign issuers that vouch for an agent, on the wire.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

use crate::{
    domain::{
        Error, FederatedIdentityId, Timestamp,
        credential::federation::{FederatedIdentity, Trust},
        text,
    },
    service::credentials::federation,
    web::{
        api::{Shared, agents::agent_id},
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody},
            fields::Fields,
        },
    },
};

/// A foreign issuer that vouches for an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = FederatedIdentity)]
pub struct FederatedIdentityBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: FederatedIdentityId,
    /// The `iss` of its tokens.
    issuer: String,
    /// Where its keys are; null: where its discovery document says.
    jwks_uri: Option<String>,
    /// Whom its tokens must be for.
    audience: String,
    /// What they must say besides.
    claims: BTreeMap<String, String>,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<FederatedIdentity> for FederatedIdentityBody {
    fn from(identity: FederatedIdentity) -> Self {
        let Trust { issuer, jwks_uri, audience, claims } = identity.trust;
        Self { id: identity.id, issuer, jwks_uri, audience, claims, created_at: identity.created_at }
    }
}

/// A foreign issuer to trust.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `Trust` is what it is read into")]
pub struct AddFederatedIdentity {
    /// The `iss` of its tokens, compared byte by byte. An https URL with a discovery document below it, unless `jwks_uri` is given.
    #[schema(min_length = 1, max_length = 2_048, pattern = "{line}")]
    issuer: String,
    /// Where its keys are: an https URL.
    #[schema(min_length = 1, max_length = 2_048, format = "uri")]
    jwks_uri: Option<String>,
    /// Whom its tokens must be for: one of their `aud`.
    #[schema(min_length = 1, max_length = 2_048, pattern = "{line}")]
    audience: String,
    /// What they must say besides, to the letter: 1 to 20 claims that are texts, such as `sub`.
    #[schema(schema_with = claims)]
    claims: BTreeMap<String, String>,
}

fn claims() -> Object {
    let text = |max: usize| {
        let line = ObjectBuilder::new().schema_type(Type::String).pattern(Some(text::line_pattern()));
        line.min_length(Some(1)).max_length(Some(max))
    };
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("What they must say besides, to the letter, such as `sub`."))
        .property_names(Some(text(128)))
        .additional_properties(Some(text(Trust::TEXT_MAX)))
        .min_properties(Some(1))
        .max_properties(Some(Trust::CLAIMS_MAX))
        .build()
}

impl FromBody for Trust {
    fn read(fields: &mut Fields) -> Option<Self> {
        let issuer = fields.required("issuer", Self::parse_issuer);
        let jwks_uri = fields.optional("jwks_uri", Self::parse_jwks_uri);
        let audience = fields.required("audience", Self::parse_audience);
        let claims = fields.required_value("claims", |value: &Value| Self::parse_claims(value));
        Some(Self { issuer: issuer?, jwks_uri, audience: audience?, claims: claims? })
    }
}

/// Trust a foreign issuer to vouch for an agent
///
/// A token of that issuer that is for `audience` and says what `claims` asks for then authenticates the agent at the token endpoint
/// (grant type `urn:ietf:params:oauth:grant-type:jwt-bearer`, RFC 7523): Kubernetes, GitHub Actions, SPIFFE, any `OpenID` Connect
/// provider. At most 20 for an agent. Refused when the agent holds authority that you lack, or when another agent does with whose
/// identity this one overlaps: issuer and audience are the same, and there is no claim of which the two demand different values.
#[utoipa::path(
    post, path = "/agents/{id}/federated-identities", tag = "API keys", operation_id = "add_federated_identity",
    params(("id" = String, Path)), request_body = AddFederatedIdentity,
    responses(
        (status = 201, description = "It is trusted from now on.", body = FederatedIdentityBody),
        (status = 400, description = "The agent is revoked, or is the caller's own, and the caller's key is limited."),
        (status = 404, description = "There is no such agent."),
        (status = 409, description = "The agent has 20 already."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn add(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    Body(trust): Body<Trust>,
) -> Result<(StatusCode, Json<FederatedIdentityBody>), Failure> {
    let added = federation::add(&services, &caller, agent_id(&agent)?, trust).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

/// List the foreign issuers that vouch for an agent
#[utoipa::path(
    get, path = "/agents/{id}/federated-identities", tag = "API keys", operation_id = "list_federated_identities",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Oldest first.", body = [FederatedIdentityBody]),
        (status = 404, description = "There is no such agent."),
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

/// Trust a foreign issuer no more
///
/// Tokens that were issued at its word end at once. You may always remove those of your own agent; of another agent only if it
/// holds no authority that you lack.
#[utoipa::path(
    delete, path = "/agents/{id}/federated-identities/{identity_id}", tag = "API keys",
    operation_id = "remove_federated_identity",
    params(("id" = String, Path), ("identity_id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = 400, description = "Without it no active holder of `admin:*` could authenticate, or be sure to for a day."),
        (status = 404, description = "There is no such agent, or it has no such identity."),
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
