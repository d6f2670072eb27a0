//! The public keys that verify access tokens.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use http::header::CACHE_CONTROL;

use crate::service::Services;

/// The JSON Web Key Set (RFC 7517 §5). Empty when tokens are signed with a shared secret.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "Tokens", operation_id = "jwks",
    responses((status = 200, description = "The public keys.", body = serde_json::Value))
)]
pub async fn jwks(State(services): State<Arc<Services>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=300")], Json(services.keyring.jwks().clone()))
}
