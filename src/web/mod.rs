//! The faces: the console, the JSON API, the OAuth endpoints and the documents, and how they are served.

pub mod api;
pub mod console;
pub mod docs;
pub mod failure;
pub mod guard;
pub mod oauth;
pub mod request;
pub mod routes;
pub mod server;

use std::{any::Any, convert::Infallible, sync::Arc, time::Instant};

use crate::{
    clock::Environment,
    domain::{Error, Result},
    service::Services,
};
use api::{error::Asked, health};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use failure::Failure;
use futures_util::future::OptionFuture;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_LENGTH};
use hyper::body::Incoming;
use oauth::metadata;
use request::{
    client_ip::{self, TrustedProxies},
    request_id,
};
use routes::RateLimits;
use server::{
    admission::{Admission, TimeLimit},
    arrival::{self, Arrived},
    connections::Attention,
    cors::Cors,
    host, security_headers,
    serve::{Answers, Limits},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

/// Where the API is mounted besides the root; the path that the documentation names.
pub const API_PREFIX: &str = "/api/v1";

/// Everything that is served.
pub fn service(
    services: &Arc<Services>,
    limits: &RateLimits,
    proxies: TrustedProxies,
    origins: &[HeaderValue],
    bounds: &Limits,
) -> impl Answers {
    let front = Arc::new(Front {
        env: services.env.clone(),
        proxies,
        cors: Cors::new(origins),
        admission: Admission::new(bounds.max_requests, health_paths()),
        patience: TimeLimit(bounds.request_timeout),
        router: router(services, limits, bounds),
    });
    service_fn(move |request: Request<Incoming>| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(front.answer(request.map(Body::new)).await) }
    })
}

/// The API's layers stand around its router as a whole: around each route they would be copied, one within the other, with every
/// request.
fn router(services: &Arc<Services>, limits: &RateLimits, bounds: &Limits) -> Router {
    let api = routes::api_router(services, limits);
    let oauth = oauth::with_the_rest(routes::oauth_router(services, limits));
    let api = Router::new().nest(API_PREFIX, api.clone()).merge(api).merge(oauth).merge(docs::router());
    let api = api.fallback(|| async { StatusCode::NOT_FOUND });
    let hint: Arc<str> = services.settings.issuer.at(metadata::PROTECTED_RESOURCE).into();
    let limit = TimeLimit(bounds.request_timeout);
    let bounds = (
        CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            Failure(Error::internal("a handler panicked")).into_response()
        }),
        DefaultBodyLimit::max(bounds.body_bytes),
    );
    let api = (from_fn_with_state((hint, limit), api::error::render), bounds).layer(api);
    console::router(services, limits).layer((from_fn_with_state(limit, console::finish), bounds)).fallback_service(api)
}

/// Where the service says that it runs: as often as the API is mounted.
fn health_paths() -> Vec<String> {
    ["", API_PREFIX].map(|prefix| format!("{prefix}{}", health::PATH)).into()
}

/// What every request and every answer goes through.
struct Front {
    env: Environment,
    proxies: TrustedProxies,
    cors: Cors,
    admission: Admission,
    /// How long the body of a request may take to arrive.
    patience: TimeLimit,
    router: Router,
}

impl Front {
    async fn answer(&self, mut request: Request) -> Response {
        let attention = request.extensions_mut().remove::<Attention>();
        let is_head = request.method() == Method::HEAD;
        let named = host::check(&request);
        let (mut request, arrived) = match named {
            Ok(()) => arrival::wait(request, self.patience).await,
            // Its body is never read.
            Err(_) => (request, Ok(Arrived::Begun)),
        };
        let at_work = OptionFuture::from(attention.map(Attention::take_up)).await;
        client_ip::note(&self.proxies, &mut request);
        let noted = request_id::note(&self.env, &mut request);
        let started = noted.started();
        let answered = async {
            match named {
                Ok(()) => self.cors.answer(request, |request| self.take_up(request, arrived, started)).await,
                Err(error) => Asked::of(&request).describe(Failure(error).into_response()),
            }
        };
        let mut response = noted.answer(answered).await;
        security_headers::set(response.headers_mut());
        leave_length_out(is_head, &mut response);
        match at_work {
            Some(at_work) => at_work.until_made(response),
            None => response,
        }
    }

    /// Routes a request, or refuses it if no slot is free.
    async fn take_up(&self, request: Request, arrived: Result<Arrived>, now: Instant) -> Response {
        let place = arrived.and_then(|arrived| self.admission.place(request.uri(), arrived, now));
        match place {
            Ok(_place) => self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
            Err(error) => turn_away(request, error),
        }
    }
}

/// Removes a length of 0 from an answer to HEAD and from a 304, which may state only that of the answer to GET (RFC 9110 §8.6): the
/// router may have measured the answer after it removed the body.
fn leave_length_out(is_head: bool, response: &mut Response) {
    let says_zero = response.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    if says_zero && (is_head || response.status() == StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// Answers before the request has cost anything more: while there is too much to do, that is what most of it is.
fn turn_away(request: Request, error: Error) -> Response {
    if console::owns(request.uri().path()) {
        console::turn_away(&request.into_parts().0, error)
    } else {
        Asked::of(&request).describe(Failure(error).into_response())
    }
}
