//! The public keys that verify access tokens.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, StatusCode,
    header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH},
};

use crate::service::Services;

/// Get the signing keys
///
/// Returns the public keys that verify access tokens, as a JSON Web Key Set (RFC 7517 section 5). The set is empty if
/// tokens are signed with a shared secret.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "Tokens", operation_id = "jwks",
    responses(
        (status = 200, description = "The key set.", body = serde_json::Value),
        (status = 304, description = "The keys match the entity tag in `If-None-Match`."),
    )
)]
pub async fn jwks(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    let keyring = services.keyring.get();
    let tag = keyring.jwks_tag();
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    let headers = [(CACHE_CONTROL, "public, max-age=300"), (ETAG, tag)];
    if known.into_iter().any(|known| known == tag || known == "*") {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Json(keyring.jwks().clone())).into_response()
}
