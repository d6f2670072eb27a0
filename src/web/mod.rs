//! The web layer: the JSON API, the OAuth endpoints, the console, the API documentation, and the HTTP server.

pub mod api;
pub mod console;
pub mod demand;
pub mod docs;
pub mod failure;
pub mod guard;
pub mod json_errors;
pub mod oauth;
pub mod request;
pub mod routes;
pub mod server;

use std::{any::Any, convert::Infallible, sync::Arc};

use crate::{
    domain::{Error, Result},
    service::Services,
    telemetry::metrics::labels::Refusal,
};
use api::health;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
pub use demand::API_PREFIX;
use failure::Failure;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_LENGTH};
use hyper::body::Incoming;
use json_errors::ErrorContext;
use oauth::metadata;
use request::{
    client_ip::{self, TrustedProxies},
    request_id,
};
use routes::RateLimits;
use server::{
    admission::Admission,
    arrival::{self, Arrived},
    cors::Cors,
    host,
    matched::Routes,
    security_headers,
    serve::{HttpService, Limits},
    timeouts::RequestTimeout,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

/// Builds the service that responds to all requests.
pub fn service(
    services: &Arc<Services>,
    rate_limits: &RateLimits,
    proxies: TrustedProxies,
    origins: &[HeaderValue],
    limits: &Limits,
) -> impl HttpService {
    let entry = Arc::new(Entry {
        services: services.clone(),
        routes: Routes::new(),
        proxies,
        cors: Cors::new(routes::list(), origins),
        admission: Admission::new(limits.max_requests, health_paths()),
        timeout: RequestTimeout(limits.request_timeout),
        router: router(services, rate_limits, limits),
    });
    service_fn(move |request: Request<Incoming>| {
        let entry = entry.clone();
        async move { Ok::<_, Infallible>(entry.respond(request.map(Body::new)).await) }
    })
}

/// Builds the router. Layers common to all routes surround the router, because axum would clone layers of single routes
/// for every request.
fn router(services: &Arc<Services>, rate_limits: &RateLimits, limits: &Limits) -> Router {
    let api = routes::api_router(services, rate_limits);
    let oauth = oauth::with_fallbacks(routes::oauth_router(services, rate_limits));
    let api = Router::new()
        .nest(API_PREFIX, api.clone())
        .merge(api)
        .merge(oauth)
        .merge(docs::router(&services.settings.issuer));
    let api = api.fallback(|| async { StatusCode::NOT_FOUND });
    let metadata_url: Arc<str> = services.settings.issuer.at(metadata::PROTECTED_RESOURCE).into();
    let timeout = RequestTimeout(limits.request_timeout);
    let common = (
        CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            Failure(Error::internal("a handler panicked")).into_response()
        }),
        DefaultBodyLimit::max(limits.body_bytes),
    );
    let api = (from_fn_with_state((metadata_url, timeout), json_errors::render), common).layer(api);
    console::router(services, rate_limits)
        .layer((from_fn_with_state(timeout, console::finish), common))
        .fallback_service(api)
}

/// The paths of the health checks under both mounts of the API.
fn health_paths() -> Vec<String> {
    let paths = [health::HEALTH, health::LIVEZ, health::READYZ];
    paths.iter().flat_map(|path| ["", API_PREFIX].map(|prefix| format!("{prefix}{path}"))).collect()
}

/// The steps that every request and response passes through before and after the router.
struct Entry {
    services: Arc<Services>,
    routes: Routes,
    proxies: TrustedProxies,
    cors: Cors,
    admission: Admission,
    /// How long the body of a request may take to arrive.
    timeout: RequestTimeout,
    router: Router,
}

impl Entry {
    async fn respond(&self, mut request: Request) -> Response {
        let is_head = request.method() == Method::HEAD;
        let route = self.routes.find(request.method(), request.uri().path());
        let counted = self.services.metrics().begin(route.number);
        client_ip::record(&self.proxies, &mut request);
        let is_probe = self.admission.is_exempt(request.uri());
        let tracked = request_id::track(&self.services.env, route.template, is_probe, &mut request);
        let response = async {
            match host::check(&request) {
                Ok(()) => {
                    let (request, arrived) = arrival::wait(request, self.timeout).await;
                    self.cors.apply(request, |request| self.route(request, arrived)).await
                }
                // The request is rejected without its body.
                Err(error) => ErrorContext::of(&request).render(Failure(error).into_response()),
            }
        };
        let mut response = tracked.finish(response).await;
        security_headers::set(response.headers_mut());
        remove_zero_length(is_head, &mut response);
        counted.responded(response.status().as_u16());
        response
    }

    /// Routes a request, or rejects it if too many are in progress.
    async fn route(&self, request: Request, arrived: Result<Arrived>) -> Response {
        let place = arrived.and_then(|arrived| {
            let admitted = self.admission.admit(request.uri(), arrived);
            admitted.inspect_err(|_| self.services.metrics().refusals.increment(Refusal::Overloaded))
        });
        match place {
            Ok(_place) => self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
            Err(error) => reject(request, error),
        }
    }
}

/// Removes `Content-Length: 0` from responses to HEAD and from 304 responses. The header may only state the length of
/// the response to GET (RFC 9110 §8.6), but the router may compute it after removing the body.
fn remove_zero_length(is_head: bool, response: &mut Response) {
    let is_zero = response.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    if is_zero && (is_head || response.status() == StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// Returns the response to a request that is not routed. Under overload this is the most frequent response, so it is
/// kept cheap.
fn reject(request: Request, error: Error) -> Response {
    if console::owns(request.uri().path()) {
        console::reject(&request.into_parts().0, error)
    } else {
        ErrorContext::of(&request).render(Failure(error).into_response())
    }
}
