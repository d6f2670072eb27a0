//! The capabilities and grants endpoints.

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shared,
    agents::agent_id,
    answer::Answer,
    conditions::{IfMatch, IfNoneMatch, Keyed},
    paging,
};
use crate::{
    domain::{
        Capability, CapabilityId, CapabilityName, Error, Invalid, Limit, Result, Timestamp, capability::Position,
    },
    service::{
        agents::{
            capabilities::{self, NewCapability},
            capability_removal::{self, WithGrants},
        },
        core::conditions::Versioned,
    },
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
    CapabilityEdit => "UpdateCapability", "Changes to a capability. Its name never changes.";
}
query_parameters!(Listing, Deletion);

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

/// Changes to a capability.
pub struct CapabilityEdit {
    description: Option<String>,
}

impl FromBody for CapabilityEdit {
    fn read(fields: &mut Fields) -> Option<Self> {
        let description = fields.doc("What the capability permits.", || schema::paragraph(Capability::DESCRIPTION_MAX));
        Some(Self { description: description.optional("description", Capability::parse_description) })
    }
}

/// The query parameters of a deletion.
pub struct Deletion {
    with_grants: bool,
}

impl FromQuery for Deletion {
    fn read(fields: &mut Fields) -> Option<Self> {
        const WITH_GRANTS: &str = "`true` also revokes the capability from every agent that holds it and removes it from \
            every resource that names it. Otherwise such a capability is not deleted.";
        let with_grants = fields
            .doc(WITH_GRANTS, || schema::words(["true", "false"]))
            .chosen("with_grants", |text| text.parse().map_err(|_| Invalid::NotOneOf(&["true", "false"])));
        Some(Self { with_grants: with_grants.unwrap_or(false) })
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
    new: Keyed<NewCapability>,
) -> Result<Response, Failure> {
    let created = |capability: &Capability| answer(StatusCode::CREATED, capability);
    new.once(created, |new, once| capabilities::create(&services, &caller, new, once)).await
}

fn answer(status: StatusCode, capability: &Capability) -> Result<Answer> {
    Answer::new(status, Some(capability.version()), &CapabilityBody::from(capability.clone()))
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

/// Get a capability
#[utoipa::path(
    get, path = "/capabilities/{id}", tag = "Capabilities", operation_id = "get_capability",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The capability.", body = CapabilityBody),
        (status = 404, description = "The capability does not exist."),
    )
)]
pub async fn get(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    known: IfNoneMatch,
) -> Result<Response, Failure> {
    let capability = capabilities::get(&services, &caller, capability_id(&id)?).await?;
    known.answer(capability.version(), &CapabilityBody::from(capability))
}

/// Edit a capability
///
/// Only its description can change. Tokens carry the name, so a capability with another name is another capability.
#[utoipa::path(
    patch, path = "/capabilities/{id}", tag = "Capabilities", operation_id = "update_capability",
    params(("id" = String, Path)), request_body = CapabilityEdit,
    responses(
        (status = 200, description = "The updated capability.", body = CapabilityBody),
        (status = 404, description = "The capability does not exist."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn update(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Body(edit): Body<CapabilityEdit>,
) -> Result<Answer, Failure> {
    let id = capability_id(&id)?;
    let edited = capabilities::describe(&services, &caller, id, expected, edit.description).await?;
    Ok(answer(StatusCode::OK, &edited)?)
}

/// Delete a capability
///
/// A capability that an agent holds or a resource names is deleted only with `with_grants=true`, together with these
/// grants and mentions: all of it, or nothing. Takes effect immediately, also for tokens that were already issued.
/// Agents that hold a wildcard which includes the capability lose nothing. At most 10,000 agents can lose a capability
/// at once.
#[utoipa::path(
    delete, path = "/capabilities/{id}", tag = "Capabilities", operation_id = "delete_capability",
    params(("id" = String, Path), Deletion),
    responses(
        (status = 204, description = "The capability is deleted."),
        (status = 400, description = "AIMS itself checks the capability, or the caller holds it."),
        (status = 404, description = "The capability does not exist."),
        (status = 409, description = "The capability is in use. The error says by how many agents and resources."),
        (status = 422, description = "A query parameter is not valid."),
    )
)]
pub async fn delete(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Query(Deletion { with_grants }): Query<Deletion>,
) -> Result<StatusCode, Failure> {
    let with_grants = if with_grants { WithGrants::Yes } else { WithGrants::No };
    capability_removal::delete(&services, &caller, capability_id(&id)?, expected, with_grants).await?;
    Ok(StatusCode::NO_CONTENT)
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
    Ok(Json(held.into_iter().map(|held| held.capability.into()).collect()))
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
    grant: Keyed<GrantCapability>,
) -> Result<Response, Failure> {
    let agent = agent_id(&agent)?;
    // Without an entity tag: the address of the request is that of the agent's grants.
    let granted = |granted: &Capability| Answer::new(StatusCode::CREATED, None, &CapabilityBody::from(granted.clone()));
    let (services, caller) = (&services, &caller);
    let give = |grant: GrantCapability, once| async move {
        let id = CapabilityId::parse(&grant.capability_id).ok_or(Error::NotFound("Capability"))?;
        capabilities::grant(services, caller, agent, id, once).await
    };
    grant.once(granted, give).await
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
