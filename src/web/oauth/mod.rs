//! OAuth endpoints and discovery documents.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses in the OpenAPI document")]

mod client;
pub mod endpoints;
pub mod error;
pub mod jwks;
pub mod metadata;
mod parameters;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{StatusCode, Uri};

/// Returns true if every error below a path must have the form of RFC 6749 §5.2, including those of the server itself.
/// Some client libraries treat a body without `error` as success.
pub(super) fn owns(path: &str) -> bool {
    ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/authorize"].contains(&path)
}

/// Adds OAuth errors for unknown paths and methods.
pub(super) fn with_fallbacks(endpoints: Router) -> Router {
    let unknown = any(async || error::not_served(StatusCode::NOT_FOUND));
    endpoints.method_not_allowed_fallback(method_not_allowed).route("/oauth/{*rest}", unknown)
}

async fn method_not_allowed(uri: Uri) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    // The discovery documents are not OAuth endpoints.
    if uri.path().starts_with("/oauth/") { error::not_served(status) } else { status.into_response() }
}
