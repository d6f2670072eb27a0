//! The protected resources endpoints.

use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shared,
    answer::Answer,
    conditions::{IfMatch, IfNoneMatch, Keyed},
    paging::{self, DEFAULT_LIMIT},
};
use crate::{
    domain::{
        Error, Limit, ProtectedResource, ProtectedResourceId, ResourceUri, Result, Timestamp,
        token::protected_resource::Position,
    },
    service::{
        Expected,
        core::conditions::Versioned,
        tokens::resources::{self, NewResource, ResourceEdit},
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

/// A protected resource.
#[derive(Serialize, ToSchema)]
#[schema(as = Resource)]
pub struct ResourceBody {
    /// ID.
    #[schema(value_type = String)]
    id: ProtectedResourceId,
    /// URI that clients send as `resource`, and the audience of its tokens.
    #[schema(value_type = String)]
    identifier: ResourceUri,
    /// Display name.
    name: String,
    /// The capabilities that its tokens can carry, separated by spaces.
    scope: String,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the name or the scope was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<ProtectedResource> for ResourceBody {
    fn from(resource: ProtectedResource) -> Self {
        Self {
            id: resource.id,
            identifier: resource.identifier,
            name: resource.name,
            scope: resource.capabilities.as_scope().to_owned(),
            created_at: resource.created_at,
            updated_at: resource.updated_at,
        }
    }
}

body_schemas! {
    NewResource => "CreateResource", "A new protected resource.";
    ResourceEdit => "EditResource", "Changes to a protected resource. Omitted fields are not changed.";
}
query_parameters!(Listing);

impl FromBody for NewResource {
    fn read(fields: &mut Fields) -> Option<Self> {
        const IDENTIFIER: &str = "An absolute URI without a fragment (RFC 8707 section 2).";
        const SCOPE: &str = "The capabilities that its tokens can carry, separated by spaces. At most 100, all \
            registered. By default there are none.";
        let identifier =
            fields.doc(IDENTIFIER, || schema::uri(ResourceUri::MAX_LEN)).required("identifier", ResourceUri::parse);
        let name = fields
            .doc("Display name.", || schema::name(ProtectedResource::NAME_MAX))
            .required("name", ProtectedResource::parse_name);
        let capabilities = fields
            .doc(SCOPE, || schema::scope().default(Some("".into())))
            .optional("scope", ProtectedResource::parse_capabilities);
        Some(Self { identifier: identifier?, name: name?, capabilities: capabilities.unwrap_or_default() })
    }
}

impl FromBody for ResourceEdit {
    fn read(fields: &mut Fields) -> Option<Self> {
        const SCOPE: &str = "The capabilities that its future tokens can carry, separated by spaces. Existing tokens \
            are not affected.";
        Some(Self {
            name: fields
                .doc("Display name.", || schema::name(ProtectedResource::NAME_MAX))
                .optional("name", ProtectedResource::parse_name),
            capabilities: fields.doc(SCOPE, schema::scope).optional("scope", ProtectedResource::parse_capabilities),
            expected: Expected::Any,
        })
    }
}

/// The query parameters of a listing.
pub struct Listing {
    limit: Limit,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { limit: paging::read_limit(fields, DEFAULT_LIMIT), after: paging::read_cursor(fields) })
    }
}

fn resource_id(text: &str) -> Result<ProtectedResourceId, Failure> {
    Ok(ProtectedResourceId::parse(text).ok_or(Error::NotFound("Resource"))?)
}

/// Create a protected resource
///
/// Clients request tokens for it with the parameter `resource` (RFC 8707). These tokens are not valid for any other
/// resource.
#[utoipa::path(
    post, path = "/resources", tag = "Resources", operation_id = "create_resource",
    request_body = NewResource,
    responses(
        (status = 201, description = "The resource.", body = ResourceBody),
        (status = 404, description = "A capability does not exist."),
        (status = 409, description = "The identifier is in use."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(State(services): Shared, caller: Authorized, new: Keyed<NewResource>) -> Result<Response, Failure> {
    let created = |resource: &ProtectedResource| answer(StatusCode::CREATED, resource);
    new.once(created, |new, once| resources::create(&services, &caller, new, once)).await
}

fn answer(status: StatusCode, resource: &ProtectedResource) -> Result<Answer> {
    Answer::new(status, Some(resource.version()), &ResourceBody::from(resource.clone()))
}

/// List protected resources
///
/// Returns protected resources in the order in which they were created, one page at a time. The header `Link` with
/// `rel="next"` (RFC 8288) leads to the next page.
#[utoipa::path(
    get, path = "/resources", tag = "Resources", operation_id = "list_resources",
    params(Listing),
    responses(
        (status = 200, description = "The resources.", body = [ResourceBody]),
        (status = 422, description = "A query parameter is not valid."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Query(Listing { limit, after }): Query<Listing>,
) -> Result<Response, Failure> {
    let page = resources::list(&services, &caller, after, limit).await?;
    Ok(paging::respond(&uri, page, ResourceBody::from))
}

/// Get a protected resource
#[utoipa::path(
    get, path = "/resources/{id}", tag = "Resources", operation_id = "get_resource",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The resource.", body = ResourceBody),
        (status = 404, description = "The resource does not exist."),
    )
)]
pub async fn get(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    known: IfNoneMatch,
) -> Result<Response, Failure> {
    let resource = resources::get(&services, &caller, resource_id(&id)?).await?;
    known.answer(resource.version(), &ResourceBody::from(resource))
}

/// Edit a protected resource
///
/// The identifier cannot be changed, because tokens contain it.
#[utoipa::path(
    patch, path = "/resources/{id}", tag = "Resources", operation_id = "update_resource",
    params(("id" = String, Path)), request_body = ResourceEdit,
    responses(
        (status = 200, description = "The updated resource.", body = ResourceBody),
        (status = 404, description = "The resource or a capability does not exist."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn update(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Body(edit): Body<ResourceEdit>,
) -> Result<Answer, Failure> {
    let edited = resources::update(&services, &caller, resource_id(&id)?, ResourceEdit { expected, ..edit }).await?;
    Ok(answer(StatusCode::OK, &edited)?)
}

/// Delete a protected resource
///
/// No more tokens are issued for it. Existing tokens stay valid until they expire or are revoked.
#[utoipa::path(
    delete, path = "/resources/{id}", tag = "Resources", operation_id = "delete_resource",
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "The resource is deleted."),
        (status = 404, description = "The resource does not exist."),
    )
)]
pub async fn delete(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Failure> {
    resources::delete(&services, &caller, resource_id(&id)?, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
