//! The capabilities and grants endpoints.

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Shared, agents::agent_id, paging};
use crate::{
    domain::{Capability, CapabilityId, CapabilityName, Error, Limit, Timestamp, capability::Position},
    service::agents::capabilities::{self, NewCapability},
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody, FromQuery, Query},
            fields::Fields,
            schema::{self, body_schemas, query_parameters},
        },
    },
};

/// A capability.
#[derive(Serialize, ToSchema)]
#[schema(as = Capability)]
pub struct CapabilityBody {
    /// ID.
    #[schema(value_type = String)]
    id: CapabilityId,
    /// Unique name, which is also the scope value in tokens.
    #[schema(value_type = String)]
    name: CapabilityName,
    /// What the capability permits.
    description: String,
    /// When it was created.
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

body_schemas! {
    NewCapability => "CreateCapability", "A new capability.";
    GrantCapability => "GrantCapability", "A capability to grant.";
}
query_parameters!(Listing);

impl FromBody for NewCapability {
    fn read(fields: &mut Fields) -> Option<Self> {
        const NAME: &str = "Unique name, by convention `resource:action`. The characters are those of an OAuth scope \
            (RFC 6749 section 3.3).";
        let name = || {
            let pattern = schema::pattern(r"^[\x21\x23-\x5B\x5D-\x7E]+$");
            pattern.min_length(Some(1)).max_length(Some(CapabilityName::MAX_LEN))
        };
        let name = fields.doc(NAME, name).required("name", CapabilityName::parse);
        let description = fields
            .doc("What the capability permits.", || {
                schema::paragraph(Capability::DESCRIPTION_MAX).default(Some("".into()))
            })
            .optional("description", Capability::parse_description);
        Some(Self { name: name?, description: description.unwrap_or_default() })
    }
}

/// The capability to grant.
pub struct GrantCapability {
    capability_id: String,
}

impl FromBody for GrantCapability {
    fn read(fields: &mut Fields) -> Option<Self> {
        let id = fields.doc("ID of the capability.", || schema::format("uuid"));
        Some(Self { capability_id: id.required("capability_id", |text| Ok(text.to_owned()))? })
    }
}

/// The query parameters of a listing.
pub struct Listing {
    limit: Limit,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            // As many as possible, for clients that look a capability up by name and do not follow pages.
            limit: paging::read_limit(fields, Limit::of(Limit::MAX)),
            after: paging::read_cursor(fields),
        })
    }
}

fn capability_id(text: &str) -> Result<CapabilityId, Failure> {
    Ok(CapabilityId::parse(text).ok_or(Error::NotFound("Capability"))?)
}

/// Create a capability
#[utoipa::path(
    post, path = "/capabilities", tag = "Capabilities", operation_id = "create_capability",
    request_body = NewCapability,
    responses(
        (status = 201, description = "The capability.", body = CapabilityBody),
        (status = 409, description = "The name is in use."),
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
/// Returns capabilities in the order in which they were created, one page at a time. The header `Link` with
/// `rel="next"` (RFC 8288) leads to the next page.
#[utoipa::path(
    get, path = "/capabilities", tag = "Capabilities", operation_id = "list_capabilities",
    params(Listing),
    responses(
        (status = 200, description = "The capabilities.", body = [CapabilityBody]),
        (status = 422, description = "A query parameter is not valid."),
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

/// List an agent's capabilities
#[utoipa::path(
    get, path = "/agents/{id}/capabilities", tag = "Capabilities", operation_id = "list_agent_capabilities",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The capabilities, sorted by name.", body = [CapabilityBody]),
        (status = 404, description = "The agent does not exist."),
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
        (status = 400, description = "The agent is the caller."),
        (status = 404, description = "The agent or the capability does not exist."),
        (status = 409, description = "The agent already holds the capability, or the names of its capabilities would \
            exceed the 4,096 characters that fit in a token."),
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

/// Revoke a capability from an agent
///
/// Takes effect immediately, also for tokens that were already issued.
#[utoipa::path(
    delete, path = "/agents/{id}/capabilities/{capability_id}", tag = "Capabilities",
    operation_id = "revoke_capability",
    params(("id" = String, Path), ("capability_id" = String, Path)),
    responses(
        (status = 204, description = "The capability is revoked from the agent."),
        (status = 400, description = "The agent is the caller, or the last active agent with `admin:*` that can \
            authenticate."),
        (status = 404, description = "The agent or the capability does not exist, or the agent does not hold the \
            capability."),
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
