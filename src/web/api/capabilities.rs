//! Capabilities on the wire.

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    agents::agent_id,
    paging::{self, parse_cursor},
};
use crate::{
    domain::{Capability, CapabilityId, CapabilityName, Error, Limit, Timestamp, capability::Position},
    service::agents::capabilities::{self, NewCapability},
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody, FromQuery, Query},
            fields::Fields,
        },
    },
};

/// A capability.
#[derive(Serialize, ToSchema)]
#[schema(as = Capability)]
pub struct CapabilityBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: CapabilityId,
    /// Unique name, also the scope in tokens.
    #[schema(value_type = String)]
    name: CapabilityName,
    /// What it allows.
    description: String,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Capability> for CapabilityBody {
    fn from(capability: Capability) -> Self {
        Self {
            id: capability.id,
            name: capability.name,
            description: capability.description,
            created_at: capability.created_at,
        }
    }
}

/// A capability to register.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `NewCapability` is what it is read into")]
pub struct CreateCapability {
    /// Unique name, by custom `resource:action`; characters as RFC 6749 section 3.3 allows in a scope.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[\x21\x23-\x5B\x5D-\x7E]+$")]
    name: String,
    /// What it allows.
    #[schema(max_length = 2_000, pattern = "{paragraph}", default = "")]
    description: Option<String>,
}

impl FromBody for NewCapability {
    fn read(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", CapabilityName::parse);
        let description = fields.optional("description", Capability::parse_description);
        Some(Self { name: name?, description: description.unwrap_or_default() })
    }
}

/// A capability to grant.
#[derive(ToSchema)]
pub struct GrantCapability {
    /// The capability.
    #[schema(format = "uuid")]
    capability_id: String,
}

impl FromBody for GrantCapability {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { capability_id: fields.required("capability_id", |text| Ok(text.to_owned()))? })
    }
}

/// Which capabilities to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Listing` is what it is read into")]
pub struct ListCapabilities {
    /// Items on a page.
    #[param(minimum = 1, maximum = 500, default = 500)]
    limit: Option<u16>,
    /// Where the page starts: taken from the `Link` of the page before.
    #[param(pattern = "^([A-Za-z0-9_-]{32})?$")]
    cursor: Option<String>,
}

/// A listing as asked for.
pub struct Listing {
    limit: Limit,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            // Clients that know no pages are to find by name what they look for.
            limit: fields.chosen("limit", Limit::parse).unwrap_or(Limit::of(Limit::MAX)),
            after: fields.optional("cursor", parse_cursor),
        })
    }
}

fn capability_id(text: &str) -> Result<CapabilityId, Failure> {
    Ok(CapabilityId::parse(text).ok_or(Error::NotFound("Capability"))?)
}

/// Register a capability
#[utoipa::path(
    post, path = "/capabilities", tag = "Capabilities", operation_id = "create_capability",
    request_body = CreateCapability,
    responses(
        (status = 201, description = "The capability.", body = CapabilityBody),
        (status = 409, description = "The name is taken."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(
    State(services): Shared,
    caller: Authorized,
    Body(new): Body<NewCapability>,
) -> Result<(StatusCode, Json<CapabilityBody>), Failure> {
    let capability = capabilities::create(&services, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(capability.into())))
}

/// List capabilities
///
/// In the order of registration, page by page: `Link` with `rel="next"` (RFC 8288) leads on.
#[utoipa::path(
    get, path = "/capabilities", tag = "Capabilities", operation_id = "list_capabilities",
    params(ListCapabilities),
    responses(
        (status = 200, description = "The capabilities.", body = [CapabilityBody]),
        (status = 422, description = "A parameter is not valid."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Query(Listing { limit, after }): Query<Listing>,
) -> Result<Response, Failure> {
    let page = capabilities::list(&services, &caller, after, limit).await?;
    Ok(paging::respond(&uri, page, CapabilityBody::from))
}

/// List the capabilities of an agent
#[utoipa::path(
    get, path = "/agents/{id}/capabilities", tag = "Capabilities", operation_id = "list_agent_capabilities",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The capabilities, by name.", body = [CapabilityBody]),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn held_by(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
) -> Result<Json<Vec<CapabilityBody>>, Failure> {
    let held = capabilities::held_by(&services, &caller, agent_id(&agent)?).await?;
    Ok(Json(held.into_iter().map(CapabilityBody::from).collect()))
}

/// Grant a capability to an agent
#[utoipa::path(
    post, path = "/agents/{id}/capabilities", tag = "Capabilities", operation_id = "grant_capability",
    params(("id" = String, Path)), request_body = GrantCapability,
    responses(
        (status = 201, description = "The capability.", body = CapabilityBody),
        (status = 400, description = "The agent is yourself."),
        (status = 404, description = "There is no such agent or capability."),
        (status = 409, description = "The agent holds it already, or would hold more than a token can carry: 4,096 characters of names."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn grant(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    Body(grant): Body<GrantCapability>,
) -> Result<(StatusCode, Json<CapabilityBody>), Failure> {
    let capability = capability_id(&grant.capability_id)?;
    let granted = capabilities::grant(&services, &caller, agent_id(&agent)?, capability).await?;
    Ok((StatusCode::CREATED, Json(granted.into())))
}

/// Take a capability from an agent
///
/// Its tokens lose the capability at once.
#[utoipa::path(
    delete, path = "/agents/{id}/capabilities/{capability_id}", tag = "Capabilities",
    operation_id = "revoke_capability",
    params(("id" = String, Path), ("capability_id" = String, Path)),
    responses(
        (status = 204, description = "The agent no longer holds it."),
        (status = 400, description = "The agent is yourself, or this is `admin:*`, and no other active holder can authenticate."),
        (status = 404, description = "There is no such agent or capability, or the agent does not hold it."),
    )
)]
pub async fn ungrant(
    State(services): Shared,
    caller: Authorized,
    Path((agent, capability)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    capabilities::ungrant(&services, &caller, agent_id(&agent)?, capability_id(&capability)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
