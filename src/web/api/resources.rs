//! Protected resources on the wire.

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
    paging::{self, DEFAULT_LIMIT, parse_cursor},
};
use crate::{
    domain::{
        Error, Limit, ProtectedResource, ProtectedResourceId, ResourceUri, Timestamp,
        token::protected_resource::Position,
    },
    service::tokens::resources::{self, NewResource, ResourceEdit},
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody, FromQuery, Query},
            fields::Fields,
        },
    },
};

/// A protected resource.
#[derive(Serialize, ToSchema)]
#[schema(as = Resource)]
pub struct ResourceBody {
    /// Identifier of the record.
    #[schema(value_type = String)]
    id: ProtectedResourceId,
    /// What clients name it by in `resource`, and the audience of its tokens.
    #[schema(value_type = String)]
    identifier: ResourceUri,
    /// What people call it.
    name: String,
    /// The capabilities that its tokens may carry, separated by spaces.
    scope: String,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When name or scope last changed.
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

/// A protected resource to register.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `NewResource` is what it is read into")]
pub struct CreateResource {
    /// An absolute URI without fragment (RFC 8707 section 2), compared byte by byte.
    #[schema(min_length = 1, max_length = 2_048, format = "uri")]
    identifier: String,
    /// What people call it.
    #[schema(min_length = 1, max_length = 128, pattern = "{name}")]
    name: String,
    /// The capabilities that its tokens may carry, separated by spaces; at most 100, all registered. None when left out.
    #[schema(pattern = "{scope}", default = "")]
    scope: Option<String>,
}

impl FromBody for NewResource {
    fn read(fields: &mut Fields) -> Option<Self> {
        let identifier = fields.required("identifier", ResourceUri::parse);
        let name = fields.required("name", ProtectedResource::parse_name);
        let capabilities = fields.optional("scope", ProtectedResource::parse_capabilities).unwrap_or_default();
        Some(Self { identifier: identifier?, name: name?, capabilities })
    }
}

/// Fields to edit; what is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `ResourceEdit` is what it is read into")]
pub struct EditResource {
    /// What people call it.
    #[schema(min_length = 1, max_length = 128, pattern = "{name}")]
    name: Option<String>,
    /// The capabilities that its tokens may carry from now on; tokens that were issued keep what they carry.
    #[schema(pattern = "{scope}")]
    scope: Option<String>,
}

impl FromBody for ResourceEdit {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            name: fields.optional("name", ProtectedResource::parse_name),
            capabilities: fields.optional("scope", ProtectedResource::parse_capabilities),
        })
    }
}

/// Which resources to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Listing` is what it is read into")]
pub struct ListResources {
    /// Items on a page.
    #[param(minimum = 1, maximum = 500, default = 100)]
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
            limit: fields.chosen("limit", Limit::parse).unwrap_or(DEFAULT_LIMIT),
            after: fields.optional("cursor", parse_cursor),
        })
    }
}

fn resource_id(text: &str) -> Result<ProtectedResourceId, Failure> {
    Ok(ProtectedResourceId::parse(text).ok_or(Error::NotFound("Resource"))?)
}

/// Register a protected resource
///
/// Clients then ask for tokens for it with `resource` (RFC 8707); such a token is accepted nowhere else.
#[utoipa::path(
    post, path = "/resources", tag = "Resources", operation_id = "create_resource",
    request_body = CreateResource,
    responses(
        (status = 201, description = "The resource.", body = ResourceBody),
        (status = 404, description = "A capability is not registered."),
        (status = 409, description = "The identifier is taken."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(
    State(services): Shared,
    caller: Authorized,
    Body(new): Body<NewResource>,
) -> Result<(StatusCode, Json<ResourceBody>), Failure> {
    let resource = resources::create(&services, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(resource.into())))
}

/// List protected resources
///
/// In the order of registration, page by page: `Link` with `rel="next"` (RFC 8288) leads on.
#[utoipa::path(
    get, path = "/resources", tag = "Resources", operation_id = "list_resources",
    params(ListResources),
    responses(
        (status = 200, description = "The resources.", body = [ResourceBody]),
        (status = 422, description = "A parameter is not valid."),
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

/// Read a protected resource
#[utoipa::path(
    get, path = "/resources/{id}", tag = "Resources", operation_id = "get_resource",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The resource.", body = ResourceBody),
        (status = 404, description = "There is no such resource."),
    )
)]
pub async fn get(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Json<ResourceBody>, Failure> {
    Ok(Json(resources::get(&services, &caller, resource_id(&id)?).await?.into()))
}

/// Edit a protected resource
///
/// Its identifier stays: tokens name it.
#[utoipa::path(
    patch, path = "/resources/{id}", tag = "Resources", operation_id = "update_resource",
    params(("id" = String, Path)), request_body = EditResource,
    responses(
        (status = 200, description = "The resource as it is now.", body = ResourceBody),
        (status = 404, description = "There is no such resource, or a capability is not registered."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn update(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    Body(edit): Body<ResourceEdit>,
) -> Result<Json<ResourceBody>, Failure> {
    Ok(Json(resources::update(&services, &caller, resource_id(&id)?, edit).await?.into()))
}

/// Remove a protected resource
///
/// No more tokens are issued for it; those that were live on until they expire or are revoked.
#[utoipa::path(
    delete, path = "/resources/{id}", tag = "Resources", operation_id = "delete_resource",
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such resource."),
    )
)]
pub async fn delete(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    resources::delete(&services, &caller, resource_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
