//! The console: pages for administrators, over the same use cases as the API. It works without JavaScript.

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

use super::{failure::Failure, routes::RateLimits, server::admission::TimeLimit};
use crate::{domain::Error, service::Services};

/// What every handler is handed.
type Shared = State<Arc<Services>>;

/// The pages that every page leads to: a name for `aria-current`, where, what it is called, and its icon.
pub(super) const NAVIGATION: &[(&str, &str, &str, &str)] = &[
    ("overview", "/console", "Overview", "overview"),
    ("agents", "/console/agents", "Agents", "agent"),
    ("keys", "/console/keys", "API keys", "key"),
    ("capabilities", "/console/capabilities", "Capabilities", "capability"),
    ("resources", "/console/resources", "Resources", "resource"),
    ("signing-keys", "/console/signing-keys", "Signing keys", "signing"),
    ("audit", "/console/audit", "Audit log", "audit"),
    ("administrators", "/console/administrators", "Administrators", "people"),
    ("account", "/console/account", "Your account", "person"),
];

/// The console, guarded and limited page by page.
pub(super) fn router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    let pages = routes::router(services, limits)
        .layer(from_fn_with_state(services.clone(), guard::same_origin))
        .layer(session::layer(services));
    Router::new().merge(pages).merge(assets::router()).route("/", get(|| async { Redirect::to("/console") }))
}

/// Renders every error as a page, also those that the layers around the pages make.
pub(super) async fn finish(State(limit): State<TimeLimit>, request: Request, next: Next) -> Response {
    allow_own_files(error::render(limit, request, next).await)
}

/// Whether a path is one of the console's.
pub(super) fn owns(path: &str) -> bool {
    path == "/" || is_page(path)
}

/// Whether a path is that of a page, or of what belongs to pages.
fn is_page(path: &str) -> bool {
    path.strip_prefix("/console").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The page for somebody whose request is not taken up.
pub(super) fn turn_away(asked: &Parts, error: Error) -> Response {
    allow_own_files(error::describe(asked, Failure(error).into_response(), &[]))
}

/// Pages load this server's own files and nothing else, post to it and nowhere else, and no script of theirs turns text
/// into markup but through the one policy that htmx uses.
fn allow_own_files(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
        trusted-types aims";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // Without a referrer, browsers would send `Origin: null` with forms.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
