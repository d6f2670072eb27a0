//! The one table of routes: what each demands of its caller, which rate limit counts it, and which other origins may read it.
//!
//! The router, the security section of the OpenAPI document and the authorisation test are all made from it, so a route
//! cannot be served without a decision.

use std::sync::Arc;

use axum::Router;
use http::Method;
use utoipa::openapi::{
    ContentBuilder, OpenApi, PathItem, Paths, Ref, RefOr, Response, path::Operation, security::SecurityRequirement,
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{
    api::{
        agents::{self, delegates},
        audit, capabilities,
        credentials::{api_keys, federated_identities, public_keys},
        health, resources,
        tokens::{self, live_tokens},
    },
    guard::Guard,
    oauth::{self, endpoints, jwks, metadata},
    server::rate_limit::RateLimit,
};
use crate::service::{Action, Services};

/// What a route demands of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: anybody may call it.
    Nothing,
    /// An API key in `X-API-Key`.
    ApiKey,
    /// A client that authenticates itself (RFC 6749 §2.3).
    Client,
    /// A client that authenticates itself and may do the act, or an access token that allows it.
    ClientOr(Action),
    /// An access token that allows the act.
    Action(Action),
}

/// Which rate limit counts a route's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// None.
    Never,
    /// The limit on authentications.
    Auth,
    /// The limit on everything else.
    Api,
}

/// Whose scripts may read a route's answers in a browser, besides those of AIMS's own origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every origin's.
    Any,
    /// Those of the origins that the setting `CORS_ORIGINS` names.
    Configured,
    /// Nobody else's.
    None,
}

/// The rate limits, each shared by all routes that it counts.
#[derive(Clone)]
pub struct RateLimits {
    /// Counts authentications.
    pub auth: RateLimit,
    /// Counts everything else.
    pub api: RateLimit,
}

type Entry = (Demand, Limited, Origins, UtoipaMethodRouter<Arc<Services>>);

/// Every route of the JSON API; served at the root and under `/api/v1`.
fn api() -> Vec<Entry> {
    use Demand::{ApiKey, Nothing};
    use Limited::{Auth, Never};
    use Origins::Configured;
    vec![
        (Nothing, Never, Configured, routes!(health::health)),
        (ApiKey, Auth, Configured, routes!(tokens::exchange)),
        demanding(Action::CreateAgent, routes!(agents::create)),
        demanding(Action::ListAgents, routes!(agents::list)),
        demanding(Action::ReadAgent, routes!(agents::get)),
        demanding(Action::UpdateAgent, routes!(agents::update)),
        demanding(Action::SuspendAgent, routes!(agents::suspend)),
        demanding(Action::ReactivateAgent, routes!(agents::reactivate)),
        demanding(Action::RevokeAgent, routes!(agents::revoke)),
        demanding(Action::DeleteAgent, routes!(agents::delete)),
        demanding(Action::ListTokens, routes!(live_tokens::list)),
        demanding(Action::RevokeTokens, routes!(live_tokens::revoke)),
        demanding(Action::CreateKey, routes!(api_keys::create)),
        demanding(Action::ListKeys, routes!(api_keys::list)),
        demanding(Action::RotateKey, routes!(api_keys::rotate)),
        demanding(Action::RevokeKey, routes!(api_keys::revoke)),
        demanding(Action::CreateKey, routes!(public_keys::register)),
        demanding(Action::ListKeys, routes!(public_keys::list)),
        demanding(Action::RevokeKey, routes!(public_keys::remove)),
        demanding(Action::CreateKey, routes!(federated_identities::add)),
        demanding(Action::ListKeys, routes!(federated_identities::list)),
        demanding(Action::RevokeKey, routes!(federated_identities::remove)),
        demanding(Action::AddDelegate, routes!(delegates::add)),
        demanding(Action::ListDelegates, routes!(delegates::list)),
        demanding(Action::RemoveDelegate, routes!(delegates::remove)),
        demanding(Action::CreateCapability, routes!(capabilities::create)),
        demanding(Action::ListCapabilities, routes!(capabilities::list)),
        demanding(Action::ListGrants, routes!(capabilities::held_by)),
        demanding(Action::GrantCapability, routes!(capabilities::grant)),
        demanding(Action::UngrantCapability, routes!(capabilities::ungrant)),
        demanding(Action::ManageResources, routes!(resources::create)),
        demanding(Action::ListResources, routes!(resources::list)),
        demanding(Action::ListResources, routes!(resources::get)),
        demanding(Action::ManageResources, routes!(resources::update)),
        demanding(Action::ManageResources, routes!(resources::delete)),
        demanding(Action::ReadAudit, routes!(audit::list)),
        demanding(Action::ReadAudit, routes!(audit::of_agent)),
    ]
}

/// The endpoints and documents of OAuth; served below the public URL only.
fn oauth() -> Vec<Entry> {
    use Demand::{Client, ClientOr, Nothing};
    use Limited::{Api, Auth, Never};
    use Origins::{Any, Configured};
    vec![
        (Client, Auth, Any, routes!(endpoints::token)),
        (Client, Auth, Any, routes!(endpoints::revoke)),
        // A resource server asks with every request that it receives.
        (ClientOr(Action::IntrospectToken), Never, Configured, routes!(endpoints::introspect)),
        // A browser navigates to it; no script reads it.
        (Nothing, Api, Origins::None, routes!(endpoints::authorize)),
        (Nothing, Api, Any, routes!(jwks::jwks)),
        (Nothing, Api, Any, routes!(metadata::authorization_server)),
        (Nothing, Api, Any, routes!(metadata::openid)),
        (Nothing, Api, Any, routes!(metadata::protected_resource)),
    ]
}

const fn demanding(action: Action, router: UtoipaMethodRouter<Arc<Services>>) -> Entry {
    (Demand::Action(action), Limited::Api, Origins::Configured, router)
}

/// A route as the authorisation test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The method.
    pub method: Method,
    /// The path, with `{placeholders}`.
    pub path: String,
    /// What it demands.
    pub demand: Demand,
    /// Whose scripts may read its answers.
    pub origins: Origins,
    /// Whether it is served below [`super::API_PREFIX`], and described there.
    pub is_prefixed: bool,
}

/// Lists every route and what it demands.
#[must_use]
pub fn list() -> Vec<Listed> {
    let mut listed = Vec::new();
    for (entries, is_prefixed) in [(api(), true), (oauth(), false)] {
        for (demand, _, origins, (_, paths, _)) in entries {
            for (path, mut item) in paths.paths {
                let methods = operations(&mut item).map(|(method, _)| method).collect::<Vec<_>>();
                let listing = |method| Listed { method, path: path.clone(), demand, origins, is_prefixed };
                listed.extend(methods.into_iter().map(listing));
            }
        }
    }
    listed
}

/// The JSON API as a router, guarded and limited route by route.
pub(super) fn api_router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    assemble(api(), services, limits)
}

/// The endpoints and documents of OAuth as a router.
pub(super) fn oauth_router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    assemble(oauth(), services, limits)
}

fn assemble(entries: Vec<Entry>, services: &Arc<Services>, limits: &RateLimits) -> Router {
    let routes =
        entries.into_iter().fold(OpenApiRouter::new(), |router, (demand, limited, _, (schemas, paths, methods))| {
            let methods = methods.layer(Guard::layer(services.clone(), demand));
            let methods = match limited {
                Limited::Never => methods,
                Limited::Auth => limits.auth.count(methods),
                Limited::Api => limits.api.count(methods),
            };
            router.routes((schemas, paths, methods))
        });
    routes.split_for_parts().0.with_state(services.clone())
}

/// The routes as described: the API under `prefix`, and what OAuth has at the root.
pub(super) fn described(prefix: &str) -> OpenApi {
    let described = |entries: Vec<Entry>| {
        entries.into_iter().fold(OpenApiRouter::new(), |router, (demand, limited, _, (schemas, mut paths, methods))| {
            describe(&mut paths, demand, limited);
            router.routes((schemas, paths, methods))
        })
    };
    OpenApiRouter::new().nest(prefix, described(api())).merge(described(oauth())).into_openapi()
}

/// Writes into the description what the table decided.
fn describe(paths: &mut Paths, demand: Demand, limited: Limited) {
    for (path, item) in &mut paths.paths {
        for (_, operation) in operations(item) {
            let refusals: &[(&str, &str)] = match demand {
                Demand::Nothing => {
                    operation.security = Some(vec![]);
                    &[]
                }
                Demand::ApiKey => {
                    operation.security = Some(vec![SecurityRequirement::new::<_, _, &str>("apiKey", [])]);
                    &[("401", "The key is unknown or has ended."), ("403", "The agent may not act.")]
                }
                Demand::Client => {
                    operation.security = Some(by_client().into());
                    &[]
                }
                Demand::ClientOr(action) => {
                    let bearer = SecurityRequirement::new("bearer", [action.demands()]);
                    operation.security = Some([bearer].into_iter().chain(by_client()).collect());
                    &[]
                }
                Demand::Action(action) => {
                    operation.security = Some(vec![SecurityRequirement::new("bearer", [action.demands()])]);
                    &[
                        ("401", "The access token is missing, or is not or no longer valid (RFC 6750 section 3)."),
                        (
                            "403",
                            "The token lacks the required capability, or the caller lacks authority that the agent holds.",
                        ),
                    ]
                }
            };
            let limit = (limited != Limited::Never).then_some(("429", "Too many requests; see `Retry-After`."));
            // Whoever asks whether the service runs is never turned away.
            let busy = (!path.ends_with(health::PATH))
                .then_some(("503", "Too much is under way, or the database fails; see `Retry-After`."));
            let body = operation.request_body.as_ref();
            let large = body.map(|_| ("413", "The body is too large."));
            let is_json = matches!(body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
            let no_json = is_json.then_some(("415", "The body is described as something other than JSON."));
            for &(status, text) in refusals.iter().chain(&large).chain(&no_json).chain(&limit).chain(&busy) {
                operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(text)));
            }
            describe_errors(operation, oauth::owns(path));
        }
    }
}

/// By HTTP Basic, or within the form, which no scheme describes.
fn by_client() -> [SecurityRequirement; 2] {
    [SecurityRequirement::new::<_, _, &str>("client", []), SecurityRequirement::default()]
}

/// Every error has one of three bodies.
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
