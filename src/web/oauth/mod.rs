//! The documents and endpoints that OAuth clients know by their RFCs.

#![expect(clippy::missing_errors_doc, reason = "each operation lists its errors as responses, for the description")]

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

/// Returns true if errors of a path have the form of RFC 6749 §5.2, also those that no endpoint makes: libraries take a body
/// without `error` for success.
pub(super) fn owns(path: &str) -> bool {
    ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/authorize"].contains(&path)
}

/// Adds what no endpoint answers: the form of its errors is the same.
pub(super) fn with_the_rest(endpoints: Router) -> Router {
    let unknown = any(async || error::not_served(StatusCode::NOT_FOUND));
    endpoints.method_not_allowed_fallback(wrong_method).route("/oauth/{*rest}", unknown)
}

async fn wrong_method(uri: Uri) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    // The documents are no endpoints of OAuth.
    if uri.path().starts_with("/oauth/") { error::not_served(status) } else { status.into_response() }
}
