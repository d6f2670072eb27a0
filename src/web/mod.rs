//! The faces: the JSON API and the documents, and how they are served.

pub mod api;
pub mod client_ip;
pub mod console;
pub mod docs;
mod dpop;
pub mod extract;
pub mod failure;
pub mod fields;
pub mod guard;
pub mod oauth;
mod patience;
pub mod rate_limit;
pub mod request_id;
pub mod routes;
pub mod security_headers;
pub mod serve;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::get,
};
use failure::Failure;
use http::{StatusCode, Uri};
use tower::ServiceExt;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use crate::{domain::Error, service::Services};
use client_ip::TrustedProxies;
use oauth::metadata;
use routes::RateLimits;

/// Where the API is mounted besides the root; the path that the documentation names.
pub const API_PREFIX: &str = "/api/v1";

/// Everything that is served. A request passes the layers from the last to the first.
pub fn router(
    services: &Arc<Services>,
    limits: &RateLimits,
    proxies: TrustedProxies,
    request_timeout: Duration,
    body_bytes: usize,
) -> Router {
    let public_url = &services.settings.issuer;
    let api = routes::api_router(services, limits);
    let oauth = routes::oauth_router(services, limits);
    let mut api = Router::new().nest(API_PREFIX, api.clone()).merge(api).merge(oauth.clone()).merge(docs::router());
    let path = metadata::path_of(public_url);
    if !path.is_empty() {
        // For a proxy that keeps the path; one that takes it away asks at the root.
        api = Router::new().nest(&path, api.clone()).merge(api);
        for (path, document) in metadata::aliases(public_url) {
            let (same, document) = (oauth.clone(), Uri::from_static(document));
            api = api.route(
                &path,
                get(move |mut request: Request| {
                    *request.uri_mut() = document;
                    same.oneshot(request)
                }),
            );
        }
    }
    let api = api.fallback(|| async { StatusCode::NOT_FOUND });
    let hint: Arc<str> = metadata::protected_resource_url(public_url).into();
    let bounded = |router: Router| {
        router
            .layer(DefaultBodyLimit::max(body_bytes))
            .layer(CatchPanicLayer::custom(|_| Failure(Error::internal("a handler panicked")).into_response()))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, request_timeout))
    };
    bounded(api)
        .layer(from_fn_with_state(hint, api::error::render))
        .merge(console::finish(bounded(console::router(services, limits))))
        .layer(from_fn(security_headers::set))
        .layer(from_fn_with_state(proxies, client_ip::note))
        .layer(from_fn_with_state(services.env.clone(), request_id::note))
}
