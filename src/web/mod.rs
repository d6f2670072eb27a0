//! The faces: the JSON API and the documents, and how they are served.

mod admission;
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

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use failure::Failure;
use http::{StatusCode, Uri};
use tower::{Layer, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{clock::Environment, domain::Error, service::Services};
use admission::Admission;
use client_ip::TrustedProxies;
use oauth::metadata;
use routes::RateLimits;
use serve::Limits;

/// Where the API is mounted besides the root; the path that the documentation names.
pub const API_PREFIX: &str = "/api/v1";

/// Everything that is served. The API's layers stand around its router as a whole: around each route they would be copied, one
/// within the other, with every request.
pub fn router(services: &Arc<Services>, limits: &RateLimits, proxies: TrustedProxies, bounds: &Limits) -> Router {
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
    let admission = Admission::new(bounds.max_requests, bounds.request_timeout);
    let bounds = (
        CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            Failure(Error::internal("a handler panicked")).into_response()
        }),
        DefaultBodyLimit::max(bounds.body_bytes),
    );
    let api = (from_fn_with_state((hint, admission.clone()), api::error::render), bounds).layer(api);
    console::router(services, limits)
        .layer((from_fn_with_state(admission, console::finish), bounds))
        .fallback_service(api)
        .layer(from_fn_with_state((services.env.clone(), proxies), answer))
}

/// What every request and every answer goes through.
async fn answer(
    State((env, proxies)): State<(Environment, TrustedProxies)>,
    mut request: Request,
    next: Next,
) -> Response {
    client_ip::note(&proxies, &mut request);
    let noted = request_id::note(&env, &mut request);
    let mut response = noted.answer(next.run(request)).await;
    security_headers::set(response.headers_mut());
    response
}
