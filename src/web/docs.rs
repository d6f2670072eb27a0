//! The API's description, and the page that shows it.

use axum::{Router, body::Bytes, response::Response, routing::get};
use http::{
    HeaderValue,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use utoipa::{
    OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    API_PREFIX,
    api::error::{ErrorBody, ValidationErrorBody},
    routes,
    server::patterns,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AIMS",
        description = "Agent Identity Management System: registers agents, issues API keys, exchanges a key for a \
            short-lived access token, decides by capability what each agent may do, and keeps an audit log that can be \
            proven.\n\nEvery path below `/api/v1` is also served without that prefix. Errors are `{\"detail\": …}`; with \
            `Accept: application/problem+json` they are problem details (RFC 9457). Below `/oauth/` they are \
            those of RFC 6749. Times are RFC 3339 in UTC. Every response carries `X-Request-Id` and `X-Request-Duration-Ms`.",
    ),
    components(schemas(ErrorBody, ValidationErrorBody)),
    tags(
        (name = "Tokens", description = "Access tokens and the keys that verify them."),
        (name = "OAuth", description = "The token service as OAuth clients and resource servers know it."),
        (name = "Resources", description = "What tokens can be for besides AIMS itself."),
        (name = "Agents", description = "The identities that are managed."),
        (name = "API keys", description = "Agents' long-lived credentials."),
        (name = "Capabilities", description = "What agents may do."),
        (name = "Audit", description = "What happened."),
        (name = "Health", description = "Whether the service runs."),
    )
)]
struct Description;

/// The description of everything that is served.
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
                    "A token that is bound to a key is sent as `DPoP` instead, with a proof in the header `DPoP` (RFC 9449).",
                ))
                .build(),
        ),
    );
    components
        .add_security_scheme("client", SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Basic).build()));
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
    let mut description = description.merge_from(routes::described(API_PREFIX));
    patterns::expand(&mut description);
    description
}

/// `/docs` and `/openapi.json`.
#[expect(clippy::expect_used, reason = "the description is made of what every start makes it of")]
pub(super) fn router() -> Router {
    // As text it takes a tenth of the memory that it takes as a description.
    let text = Bytes::from(description().to_json().expect("a description is JSON"));
    let json = move || async move { ([(CONTENT_TYPE, "application/json")], text) };
    Router::new()
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")))
        .route("/openapi.json", get(json))
        .route_layer(axum::middleware::map_response(allow_own_scripts))
}

/// The page's own scripts and styles come from this server; nothing else may load or run.
async fn allow_own_scripts(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
        connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
