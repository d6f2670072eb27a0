//! The table of all API and OAuth routes with their demands.
//!
//! The router, the security section of the OpenAPI document, the CORS rules and the authorization tests are all derived
//! from this table, so no route can be served without declaring its demands.

mod headers;

use std::sync::Arc;

use axum::Router;
use http::Method;
use utoipa::openapi::{
    ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, path::Operation, security::SecurityRequirement,
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{
    api::{
        agents::{self, delegates, labels},
        audit, capabilities,
        credentials::{api_keys, federated_identities, public_keys},
        health, resources,
        tokens::{self, live_tokens},
    },
    demand::{Demand, Limited, Listed, Origins},
    guard::Guard,
    oauth::{self, endpoints, jwks, metadata},
    server::rate_limit::RateLimit,
};
use crate::service::{Action, Services};

/// The rate limits, each shared by all routes it applies to.
#[derive(Clone)]
pub struct RateLimits {
    /// The limit on authentication.
    pub auth: RateLimit,
    /// The limit on everything else.
    pub api: RateLimit,
}

type Methods = UtoipaMethodRouter<Arc<Services>>;

/// A row of the table.
struct Entry {
    demand: Demand,
    limited: Limited,
    origins: Origins,
    /// True if a client may send `Idempotency-Key`.
    is_repeatable: bool,
    /// True if the object has an entity tag.
    is_versioned: bool,
    router: Methods,
}

impl Entry {
    const fn new(demand: Demand, limited: Limited, origins: Origins, router: Methods) -> Self {
        Self { demand, limited, origins, is_repeatable: false, is_versioned: false, router }
    }

    fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    fn versioned(self) -> Self {
        Self { is_versioned: true, ..self }
    }
}

/// The routes of the JSON API, served at the root and below `/api/v1`.
fn api() -> Vec<Entry> {
    use Demand::{ApiKey, Nothing};
    use Limited::{Auth, Never};
    use Origins::Configured;
    vec![
        Entry::new(Nothing, Never, Configured, routes!(health::health)),
        Entry::new(Nothing, Never, Configured, routes!(health::livez)),
        Entry::new(Nothing, Never, Configured, routes!(health::readyz)),
        Entry::new(ApiKey, Auth, Configured, routes!(tokens::exchange)),
        guarded(Action::CreateAgent, routes!(agents::create)).repeatable().versioned(),
        guarded(Action::ListAgents, routes!(agents::list)),
        guarded(Action::UpdateAgent, routes!(labels::label)),
        guarded(Action::ReadAgent, routes!(agents::get)).versioned(),
        guarded(Action::UpdateAgent, routes!(agents::update)).versioned(),
        guarded(Action::SuspendAgent, routes!(agents::suspend)).versioned(),
        guarded(Action::ReactivateAgent, routes!(agents::reactivate)).versioned(),
        guarded(Action::RevokeAgent, routes!(agents::revoke)).versioned(),
        guarded(Action::DeleteAgent, routes!(agents::delete)).versioned(),
        guarded(Action::ListTokens, routes!(live_tokens::list)),
        guarded(Action::RevokeTokens, routes!(live_tokens::revoke)),
        guarded(Action::CreateKey, routes!(api_keys::create)).repeatable(),
        guarded(Action::ListKeys, routes!(api_keys::list)),
        guarded(Action::RotateKey, routes!(api_keys::rotate)).repeatable(),
        guarded(Action::RevokeKey, routes!(api_keys::revoke)),
        guarded(Action::CreateKey, routes!(public_keys::register)).repeatable(),
        guarded(Action::ListKeys, routes!(public_keys::list)),
        guarded(Action::RevokeKey, routes!(public_keys::remove)),
        guarded(Action::CreateKey, routes!(federated_identities::add)).repeatable(),
        guarded(Action::ListKeys, routes!(federated_identities::list)),
        guarded(Action::RevokeKey, routes!(federated_identities::remove)),
        guarded(Action::AddDelegate, routes!(delegates::add)).repeatable(),
        guarded(Action::ListDelegates, routes!(delegates::list)),
        guarded(Action::RemoveDelegate, routes!(delegates::remove)),
        guarded(Action::CreateCapability, routes!(capabilities::create)).repeatable().versioned(),
        guarded(Action::ListCapabilities, routes!(capabilities::list)),
        guarded(Action::ListCapabilities, routes!(capabilities::get)).versioned(),
        guarded(Action::UpdateCapability, routes!(capabilities::update)).versioned(),
        guarded(Action::DeleteCapability, routes!(capabilities::delete)).versioned(),
        guarded(Action::ListGrants, routes!(capabilities::held_by)),
        guarded(Action::GrantCapability, routes!(capabilities::grant)).repeatable(),
        guarded(Action::UngrantCapability, routes!(capabilities::ungrant)),
        guarded(Action::ManageResources, routes!(resources::create)).repeatable().versioned(),
        guarded(Action::ListResources, routes!(resources::list)),
        guarded(Action::ListResources, routes!(resources::get)).versioned(),
        guarded(Action::ManageResources, routes!(resources::update)).versioned(),
        guarded(Action::ManageResources, routes!(resources::delete)).versioned(),
        guarded(Action::ReadAudit, routes!(audit::list)),
        guarded(Action::ReadAudit, routes!(audit::of_agent)),
    ]
}

/// The OAuth endpoints and discovery documents, served at the root only.
fn oauth() -> Vec<Entry> {
    use Demand::{Client, ClientOr, Nothing};
    use Limited::{Api, Auth, Never};
    use Origins::{Any, Configured};
    vec![
        Entry::new(Client, Auth, Any, routes!(endpoints::token)),
        Entry::new(Client, Auth, Any, routes!(endpoints::revoke)),
        // Not rate-limited, because a resource server introspects a token for every request it receives.
        Entry::new(ClientOr(Action::IntrospectToken), Never, Configured, routes!(endpoints::introspect)),
        // Browsers navigate here; scripts have no reason to read it.
        Entry::new(Nothing, Api, Origins::None, routes!(endpoints::authorize)),
        Entry::new(Nothing, Api, Any, routes!(jwks::jwks)),
        Entry::new(Nothing, Api, Any, routes!(metadata::authorization_server)),
        Entry::new(Nothing, Api, Any, routes!(metadata::openid)),
        Entry::new(Nothing, Api, Any, routes!(metadata::protected_resource)),
    ]
}

const fn guarded(action: Action, router: Methods) -> Entry {
    Entry::new(Demand::Action(action), Limited::Api, Origins::Configured, router)
}

/// Returns every route.
#[must_use]
pub fn list() -> Vec<Listed> {
    let mut listed = Vec::new();
    for (entries, is_prefixed) in [(api(), true), (oauth(), false)] {
        for Entry { demand, origins, is_repeatable, is_versioned, router: (_, paths, _), .. } in entries {
            for (path, mut item) in paths.paths {
                let methods = operations(&mut item).map(|(method, _)| method).collect::<Vec<_>>();
                let listing = |method| {
                    let path = path.clone();
                    Listed { method, path, demand, origins, is_prefixed, is_repeatable, is_versioned }
                };
                listed.extend(methods.into_iter().map(listing));
            }
        }
    }
    listed
}

/// Builds the router of the JSON API, with a guard and a rate limit around each route.
pub(super) fn api_router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    assemble(api(), services, limits)
}

/// Builds the router of the OAuth endpoints and discovery documents.
pub(super) fn oauth_router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    assemble(oauth(), services, limits)
}

fn assemble(entries: Vec<Entry>, services: &Arc<Services>, limits: &RateLimits) -> Router {
    let routes =
        entries.into_iter().fold(OpenApiRouter::new(), |router, Entry { demand, limited, router: route, .. }| {
            let (schemas, paths, methods) = route;
            let methods = methods.layer(Guard::layer(services.clone(), demand));
            let methods = match limited {
                Limited::Never => methods,
                Limited::Auth => limits.auth.apply(methods),
                Limited::Api => limits.api.apply(methods),
            };
            router.routes((schemas, paths, methods))
        });
    routes.split_for_parts().0.with_state(services.clone())
}

/// Returns the OpenAPI document of all routes, with the API below `prefix`.
pub(super) fn described(prefix: &str) -> OpenApi {
    let described = |entries: Vec<Entry>| {
        entries.into_iter().fold(OpenApiRouter::new(), |router, mut entry| {
            describe(&mut entry);
            router.routes(entry.router)
        })
    };
    OpenApiRouter::new().nest(prefix, described(api())).merge(described(oauth())).into_openapi()
}

/// Adds the demands of a route and its common errors to its OpenAPI operations.
fn describe(entry: &mut Entry) {
    let &mut Entry { demand, limited, is_repeatable, is_versioned, router: (_, ref mut paths, _), .. } = entry;
    for (path, item) in &mut paths.paths {
        for (method, operation) in operations(item) {
            if is_repeatable {
                headers::describe_repetition(operation);
            }
            if is_versioned {
                headers::describe_version(&method, operation, is_repeatable);
            }
            let denied: &[(&str, &str)] = match demand {
                Demand::Nothing => {
                    operation.security = Some(vec![]);
                    &[]
                }
                Demand::ApiKey => {
                    operation.security = Some(vec![SecurityRequirement::new::<_, _, &str>("apiKey", [])]);
                    &[
                        ("401", "The API key is invalid, expired or revoked."),
                        ("403", "The agent is suspended or revoked."),
                    ]
                }
                Demand::Client => {
                    operation.security = Some(client_authentication().into());
                    &[]
                }
                Demand::ClientOr(action) => {
                    let bearer = SecurityRequirement::new("bearer", [action.demands()]);
                    operation.security = Some([bearer].into_iter().chain(client_authentication()).collect());
                    &[]
                }
                Demand::Action(action) => {
                    operation.security = Some(vec![SecurityRequirement::new("bearer", [action.demands()])]);
                    &[
                        ("401", "The access token is missing, invalid or expired (RFC 6750 section 3)."),
                        (
                            "403",
                            "The token lacks the required capability, or the agent holds a capability that the \
                            caller lacks.",
                        ),
                    ]
                }
            };
            let rate_limited = (limited != Limited::Never)
                .then_some(("429", "The rate limit is exceeded. Retry after `Retry-After` seconds."));
            // Health checks are never rejected.
            let is_health_check = [health::HEALTH, health::LIVEZ, health::READYZ].contains(&path.as_str());
            let busy = (!is_health_check).then_some((
                "503",
                "The service is overloaded or the database is unavailable. Retry after `Retry-After` seconds.",
            ));
            let body = operation.request_body.as_ref();
            let too_large = body.map(|_| ("413", "The body is too large."));
            let is_json = matches!(body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
            let not_json = is_json.then_some(("415", "The media type of the body is not JSON."));
            for &(status, text) in denied.iter().chain(&too_large).chain(&not_json).chain(&rate_limited).chain(&busy) {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(text)));
            }
            describe_errors(operation, oauth::owns(path));
        }
    }
}

/// HTTP Basic, or parameters in the form, which OpenAPI cannot express as a security scheme.
fn client_authentication() -> [SecurityRequirement; 2] {
    [SecurityRequirement::new::<_, _, &str>("client", []), SecurityRequirement::default()]
}

/// Sets the schema of error bodies.
fn describe_errors(operation: &mut Operation, is_oauth: bool) {
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response)
            && response.content.is_empty()
        {
            let schema = match status.as_str() {
                _ if is_oauth => "OAuthError",
                "422" => "ValidationError",
                _ => "Error",
            };
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
            response.content.insert("application/json".to_owned(), RefOr::T(content));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
