//! What there is to know about the token service before the first request (RFC 8414), and about AIMS's own API as a
//! protected resource (RFC 9728).

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use http::{Uri, header::CACHE_CONTROL};
use serde_json::{Value, json};

use crate::{
    domain::capability::builtin,
    service::{Services, Settings, clients, dpop},
};

const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";
const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// The grant type of RFC 7523 §2.1.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The grant type of RFC 8693 §2.1.
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CACHED: [(http::HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=300")];

/// The path of a public URL: empty for one without.
#[must_use]
pub fn path_of(public_url: &str) -> String {
    let path = public_url.parse::<Uri>().map(|url| url.path().trim_end_matches('/').to_owned());
    path.unwrap_or_default()
}

/// Where the documents are besides at the root, for an issuer with a path, each with the path it stands for: the issuer's
/// path follows `/.well-known/…` (RFC 8414 §3.1, RFC 9728 §3.1).
#[must_use]
pub fn aliases(public_url: &str) -> [(String, &'static str); 3] {
    let path = path_of(public_url);
    [AUTHORIZATION_SERVER, OPENID, PROTECTED_RESOURCE].map(|document| (format!("{document}{path}"), document))
}

/// Where clients find [`protected_resource`].
#[must_use]
pub fn protected_resource_url(public_url: &str) -> String {
    let path = path_of(public_url);
    let origin = public_url.strip_suffix(path.as_str()).unwrap_or(public_url);
    format!("{origin}{PROTECTED_RESOURCE}{path}")
}

fn server(settings: &Settings, algorithm: &str) -> Value {
    let issuer = &settings.issuer;
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let algorithms = clients::ALGORITHMS;
    json!({
        "issuer": issuer,
        // There is no interactive grant, but clients exist that refuse a document without this.
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        // RFC 8414 demands this one (section 2), and that it be not empty (section 3.2). `none` is the registered type that promises
        // neither code nor token, so that clients of interactive grants still see that there are none.
        "response_types_supported": ["none"],
        "token_endpoint": format!("{issuer}/oauth/token"),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "grant_types_supported": ["client_credentials", TOKEN_EXCHANGE, JWT_BEARER],
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "introspection_endpoint": format!("{issuer}/oauth/introspect"),
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "scopes_supported": scopes(),
        "service_documentation": format!("{issuer}/docs"),
        "protected_resources": [issuer],
        // What OpenID Connect Discovery demands besides; no ID token is ever issued.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
    })
}

fn scopes() -> Vec<&'static str> {
    builtin::ALL.iter().map(|(name, _)| *name).chain([builtin::TOKENS_INTROSPECT]).collect()
}

/// What the token service offers (RFC 8414)
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "OAuth", operation_id = "authorization_server_metadata",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn authorization_server(State(services): State<Arc<Services>>) -> impl IntoResponse {
    (CACHED, Json(server(&services.settings, services.keyring.get().algorithm().as_str())))
}

/// The same, where clients of `OpenID` Connect look for it
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "OAuth", operation_id = "openid_configuration",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn openid(State(services): State<Arc<Services>>) -> impl IntoResponse {
    (CACHED, Json(server(&services.settings, services.keyring.get().algorithm().as_str())))
}

/// What AIMS's own API demands (RFC 9728)
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource", tag = "OAuth", operation_id = "protected_resource_metadata",
    responses((status = 200, description = "The metadata.", body = serde_json::Value))
)]
pub async fn protected_resource(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let issuer = &services.settings.issuer;
    let document = json!({
        "resource": issuer,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "scopes_supported": scopes(),
        "resource_name": "AIMS",
        "resource_documentation": format!("{issuer}/docs"),
    });
    (CACHED, Json(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_issuer_follows_the_well_known_part() {
        assert_eq!(
            aliases("https://aims.example/a/b").map(|(path, _)| path),
            [
                "/.well-known/oauth-authorization-server/a/b",
                "/.well-known/openid-configuration/a/b",
                "/.well-known/oauth-protected-resource/a/b",
            ]
        );
        assert_eq!(
            protected_resource_url("https://aims.example/a"),
            "https://aims.example/.well-known/oauth-protected-resource/a"
        );
        assert_eq!(
            protected_resource_url("https://aims.example"),
            "https://aims.example/.well-known/oauth-protected-resource"
        );
    }
}
