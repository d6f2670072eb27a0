//! The console: server-rendered pages for administrators, on top of the same services as the API. It works without
//! JavaScript.

mod agents;
mod audit;
mod capabilities;
mod confirm;
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
    HeaderValue, Uri,
    header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY},
    request::Parts,
};

use page::{assets, error, frame::INVITATION, session};

use super::{failure::Failure, routes::RateLimits, server::timeouts::RequestTimeout};
use crate::{domain::Error, service::Services};

/// The state of every handler.
type Shared = State<Arc<Services>>;

/// Templates of paths that are not in the table of [`routes`].
pub(super) const OTHER_PATHS: [&str; 2] = ["/", "/console/static/{file}"];

/// A destination of the main navigation: section, path, label and icon.
pub(super) type Destination = (&'static str, &'static str, &'static str, &'static str);

/// The main navigation, in groups.
pub(super) const NAVIGATION: &[(&str, &[Destination])] = &[
    (
        "Fleet",
        &[
            ("overview", "/console", "Overview", "overview"),
            ("agents", "/console/agents", "Agents", "agent"),
            ("keys", "/console/keys", "API keys", "key"),
        ],
    ),
    (
        "Access",
        &[
            ("capabilities", "/console/capabilities", "Capabilities", "capability"),
            ("resources", "/console/resources", "Resources", "resource"),
        ],
    ),
    (
        "Security",
        &[
            ("audit", "/console/audit", "Audit log", "audit"),
            ("signing-keys", "/console/signing-keys", "Signing keys", "signing"),
        ],
    ),
    (
        "Settings",
        &[
            ("administrators", "/console/administrators", "Administrators", "people"),
            ("account", "/console/account", "Account", "person"),
        ],
    ),
];

/// Returns the router of the console, with guards and rate limits.
pub(super) fn router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    let pages = routes::router(services, limits)
        .layer(from_fn_with_state(services.clone(), guard::same_origin))
        .layer(from_fn_with_state(services.clone(), guard::identify))
        .layer(session::layer(services));
    Router::new().merge(pages).merge(assets::router()).route("/", get(|| async { Redirect::to("/console") }))
}

/// Renders every error as a page, including those of outer layers.
pub(super) async fn finish(State(limit): State<RequestTimeout>, request: Request, next: Next) -> Response {
    let holds_token = holds_token(request.uri());
    allow_own_files(error::render(limit, request, next).await, holds_token)
}

/// Returns true for an address that contains the token of an invitation link.
fn holds_token(uri: &Uri) -> bool {
    uri.path() == INVITATION && uri.query().is_some()
}

/// Returns true if a path belongs to the console.
pub(super) fn owns(path: &str) -> bool {
    path == "/" || error::is_page(path)
}

/// Returns the error page for a request that is not routed.
pub(super) fn reject(asked: &Parts, error: Error) -> Response {
    allow_own_files(error::describe(asked, Failure(error).into_response(), &[]), holds_token(&asked.uri))
}

/// Sets a content security policy: pages load files only from this server, submit forms only to it, and create elements
/// from text only through the Trusted Types policy of `static/script/core.js`.
fn allow_own_files(mut response: Response, holds_token: bool) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
        trusted-types aims";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // With `no-referrer`, browsers would send `Origin: null` with forms.
    let referrer = if holds_token { "no-referrer" } else { "same-origin" };
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
    response
}
