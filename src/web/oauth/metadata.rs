//! Discovery documents: the authorization server metadata (RFC 8414) and the protected resource metadata of AIMS's own
//! API (RFC 9728).

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use http::header::CACHE_CONTROL;
use serde_json::{Value, json};

use crate::{
    domain::capability::builtin,
    service::{
        Services, Settings,
        tokens::{clients, dpop},
    },
};

/// Path of [`protected_resource`].
pub const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// The grant type of RFC 7523 §2.1.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The grant type of RFC 8693 §2.1.
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CACHED: [(http::HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=300")];

fn server(settings: &Settings, algorithm: &str) -> Value {
    let issuer = &settings.issuer;
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let algorithms = clients::ALGORITHMS;
    json!({
        "issuer": issuer.as_str(),
        // There are no interactive grants, but some clients reject a document without this member.
        "authorization_endpoint": issuer.at("/oauth/authorize"),
        // RFC 8414 requires this member (§2) and forbids an empty list (§3.2). `none` is the registered type that
        // returns neither a code nor a token, so clients still see that there are no interactive grants.
        "response_types_supported": ["none"],
        "token_endpoint": issuer.at("/oauth/token"),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "grant_types_supported": ["client_credentials", TOKEN_EXCHANGE, JWT_BEARER],
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "jwks_uri": issuer.at("/.well-known/jwks.json"),
        "introspection_endpoint": issuer.at("/oauth/introspect"),
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": issuer.at("/oauth/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "scopes_supported": scopes(),
        "service_documentation": issuer.at("/docs"),
        "protected_resources": [issuer.as_str()],
        // OpenID Connect Discovery also requires these. AIMS issues no ID tokens.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
    })
}

fn scopes() -> Vec<&'static str> {
    builtin::ALL.iter().map(|(name, _)| *name).chain([builtin::TOKENS_INTROSPECT]).collect()
}

/// Get the authorization server metadata
///
/// Describes the OAuth endpoints and what they support (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "OAuth",
    operation_id = "authorization_server_metadata",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn authorization_server(State(services): State<Arc<Services>>) -> impl IntoResponse {
    (CACHED, Json(server(&services.settings, services.keyring.get().algorithm().as_str())))
}

/// Get the `OpenID` Connect discovery document
///
/// Returns the authorization server metadata at the path where `OpenID` Connect clients expect it. AIMS issues no ID
/// tokens.
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "OAuth", operation_id = "openid_configuration",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn openid(State(services): State<Arc<Services>>) -> impl IntoResponse {
    (CACHED, Json(server(&services.settings, services.keyring.get().algorithm().as_str())))
}

/// Get the protected resource metadata
///
/// Describes the API of AIMS as an OAuth protected resource (RFC 9728).
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource", tag = "OAuth", operation_id = "protected_resource_metadata",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn protected_resource(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let issuer = &services.settings.issuer;
    let document = json!({
        "resource": issuer.as_str(),
        "authorization_servers": [issuer.as_str()],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "scopes_supported": scopes(),
        "resource_name": "AIMS",
        "resource_documentation": issuer.at("/docs"),
    });
    (CACHED, Json(document))
}
