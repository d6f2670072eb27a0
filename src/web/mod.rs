//! The faces: the JSON API and the documents, and how they are served.

pub mod api;
pub mod client_ip;
pub mod console;
pub mod docs;
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
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
};
use failure::Failure;
use http::StatusCode;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

use crate::{domain::Error, service::Services};
use client_ip::TrustedProxies;
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
    let api = routes::api_router(services, limits);
    let api = Router::new()
        .nest(API_PREFIX, api.clone())
        .merge(api)
        .merge(routes::documents_router(services, limits))
        .merge(docs::router())
        .fallback(|| async { StatusCode::NOT_FOUND });
    let bounded = |router: Router| {
        router
            .layer(DefaultBodyLimit::max(body_bytes))
            .layer(CatchPanicLayer::custom(|_| Failure(Error::internal("a handler panicked")).into_response()))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, request_timeout))
    };
    bounded(api)
        .layer(from_fn(api::error::render))
        .merge(console::finish(bounded(console::router(services, limits))))
        .layer(from_fn(security_headers::set))
        .layer(from_fn_with_state(proxies, client_ip::note))
        .layer(from_fn_with_state(services.env.clone(), request_id::note))
}
