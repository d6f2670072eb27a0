//! The console: server-rendered pages for administrators, on top of the same services as the API. It works without
//! JavaScript.

mod agents;
mod audit;
mod capabilities;
mod credentials;
mod guard;
mod overview;
pub mod page;
mod people;
mod resources;
pub mod routes;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    extract::State,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use http::{
    HeaderValue,
    header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY},
    request::Parts,
};

use page::{assets, error, session};

use super::{failure::Failure, routes::RateLimits, server::timeouts::RequestTimeout};
use crate::{domain::Error, service::Services};

/// The state of every handler.
type Shared = State<Arc<Services>>;

/// The main navigation: section, path, label and icon.
pub(super) const NAVIGATION: &[(&str, &str, &str, &str)] = &[
    ("overview", "/console", "Overview", "overview"),
    ("agents", "/console/agents", "Agents", "agent"),
    ("keys", "/console/keys", "API keys", "key"),
    ("capabilities", "/console/capabilities", "Capabilities", "capability"),
    ("resources", "/console/resources", "Resources", "resource"),
    ("signing-keys", "/console/signing-keys", "Signing keys", "signing"),
    ("audit", "/console/audit", "Audit log", "audit"),
    ("administrators", "/console/administrators", "Administrators", "people"),
    ("account", "/console/account", "Account", "person"),
];

/// Returns the router of the console, with guards and rate limits.
pub(super) fn router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    let pages = routes::router(services, limits)
        .layer(from_fn_with_state(services.clone(), guard::same_origin))
        .layer(session::layer(services));
    Router::new().merge(pages).merge(assets::router()).route("/", get(|| async { Redirect::to("/console") }))
}

/// Renders every error as a page, including those of outer layers.
pub(super) async fn finish(State(limit): State<RequestTimeout>, request: Request, next: Next) -> Response {
    allow_own_files(error::render(limit, request, next).await)
}

/// Returns true if a path belongs to the console.
pub(super) fn owns(path: &str) -> bool {
    path == "/" || error::is_page(path)
}

/// Returns the error page for a request that is not routed.
pub(super) fn reject(asked: &Parts, error: Error) -> Response {
    allow_own_files(error::describe(asked, Failure(error).into_response(), &[]))
}

/// Sets a content security policy: pages load files only from this server, submit forms only to it, and create elements
/// from text only through the Trusted Types policy of `console.js`.
fn allow_own_files(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
        trusted-types aims";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // With `no-referrer`, browsers would send `Origin: null` with forms.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
