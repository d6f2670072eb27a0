//! The OpenAPI document and the page that displays it.

#![expect(clippy::indexing_slicing, reason = "indexing a JSON value gives null for what is missing")]

mod example;
mod page;

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::Bytes,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderValue,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use utoipa::{
    OpenApi,
    openapi::{
        self, Object, RefOr, Schema,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{
    demand::API_PREFIX,
    failure::Failure,
    json_errors::{ErrorBody, ValidationErrorBody},
    routes,
};
use crate::domain::{Error, PublicUrl, Result};

/// The paths of this module.
pub(super) const PATHS: [&str; 3] = [PAGE, PAGE_WITH_SLASH, DOCUMENT];
const PAGE: &str = "/docs";
const PAGE_WITH_SLASH: &str = "/docs/";
const DOCUMENT: &str = "/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AIMS",
        description = "Agent Identity Management System (AIMS): registers AI agents, issues their credentials, \
            exchanges a credential for a short-lived access token, decides what each agent may do, and keeps a \
            tamper-evident audit log.\n\nEvery path below `/api/v1` is also served without that prefix. Errors have \
            the body `{\"detail\": …}`, or problem details (RFC 9457) if the request accepts \
            `application/problem+json`. Errors below `/oauth/` have the body of RFC 6749. Times are RFC 3339 in UTC. \
            Every response has the headers `X-Request-Id` and `X-Request-Duration-Ms`.",
    ),
    components(schemas(ErrorBody, ValidationErrorBody)),
    tags(
        (name = "Tokens", description = "Exchange API keys for access tokens, and get the keys that verify tokens."),
        (name = "OAuth", description = "OAuth 2.0 endpoints and discovery documents."),
        (name = "Resources", description = "Protected resources that access tokens can be issued for."),
        (name = "Agents", description = "Agents, their tokens and their delegates."),
        (name = "API keys", description = "Credentials of agents: API keys, public keys and federated identities."),
        (name = "Capabilities", description = "Capabilities and their grants to agents."),
        (name = "Audit", description = "The audit log."),
        (name = "Health", description = "Health check."),
    )
)]
struct Description;

/// Returns the OpenAPI document.
#[must_use]
pub fn description() -> openapi::OpenApi {
    let mut description = Description::openapi();
    let components = description.components.get_or_insert_default();
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .description(Some(
                    "A token that is bound to a key uses the scheme `DPoP` and a proof in the header `DPoP` (RFC 9449).",
                ))
                .build(),
        ),
    );
    components
        .add_security_scheme("client", SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Basic).build()));
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    let mut description = description.merge_from(routes::described(API_PREFIX));
    flatten_objects(&mut description);
    description
}

/// Replaces schemas that combine several objects, such as a form and the client credentials in it, by a single object.
/// Viewers show fields only for plain objects.
fn flatten_objects(description: &mut openapi::OpenApi) {
    let Some(components) = &mut description.components else { return };
    let original = components.schemas.clone();
    for schema in components.schemas.values_mut() {
        let RefOr::T(Schema::AllOf(all)) = schema else { continue };
        let mut merged = Object::new();
        merged.description = all.description.take();
        for part in &all.items {
            let part = match part {
                RefOr::Ref(reference) => reference.ref_location.rsplit('/').next().and_then(|name| original.get(name)),
                part @ RefOr::T(_) => Some(part),
            };
            if let Some(RefOr::T(Schema::Object(part))) = part {
                merged.properties.extend(part.properties.clone());
                merged.required.extend(part.required.clone());
                merged.description = merged.description.or_else(|| part.description.clone());
            }
        }
        *schema = RefOr::T(Schema::Object(merged));
    }
    // Only ever a part of other schemas.
    components.schemas.remove("ClientForm");
}

/// Builds the router of `/docs` and `/openapi.json`.
#[expect(clippy::expect_used, reason = "the document does not depend on input, and tests build it")]
pub(super) fn router(address: &PublicUrl) -> Router {
    // Kept as text, which takes a tenth of the memory.
    let text = Bytes::from(description().to_json().expect("the document is valid JSON"));
    let shown = Arc::new(Shown { document: text.clone(), address: address.clone(), page: OnceLock::new() });
    let json = move || async move { ([(CONTENT_TYPE, "application/json")], text) };
    let page = move || async move { shown.respond() };
    Router::new()
        .route(PAGE, get(page.clone()))
        .route(PAGE_WITH_SLASH, get(page))
        .route(DOCUMENT, get(json))
        .route_layer(axum::middleware::map_response(allow_own_styles))
}

/// The page, which is rendered when it is requested for the first time.
struct Shown {
    document: Bytes,
    address: PublicUrl,
    page: OnceLock<Bytes>,
}

impl Shown {
    fn respond(&self) -> Response {
        if self.page.get().is_none() {
            match self.render() {
                Ok(page) => drop(self.page.set(page)),
                Err(error) => return Failure(error).into_response(),
            }
        }
        let page = self.page.get().cloned().unwrap_or_default();
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
    }

    fn render(&self) -> Result<Bytes> {
        let document = serde_json::from_slice(&self.document).map_err(|error| Error::Internal(Box::new(error)))?;
        let page = page::render(&document, &self.address).map_err(|error| Error::Internal(Box::new(error)))?;
        Ok(page.into())
    }
}

/// Allows the page to load styles and images from this server, and nothing else. It has no scripts.
async fn allow_own_styles(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
        frame-ancestors 'none'";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
