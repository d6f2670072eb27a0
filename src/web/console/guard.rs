//! Guards every page: rejects cross-site form submissions, authenticates the session and checks the role.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header::HOST, header::ORIGIN, request::Parts};
use tower_sessions::Session;

use super::page::session;
use crate::{
    domain::{AuthFailure, Error, PublicUrl, Result, text::uri},
    service::{
        Caller, Origin, Services,
        people::sessions::{self, SignedIn},
    },
    telemetry::{metrics::labels::Refusal, traces},
    web::{demand::Demand, failure::Failure, guard::origin},
};

/// Rejects unsafe requests that do not come from a page of this console. `SameSite` cookies alone do not stop requests
/// from another port or subdomain of the same site.
pub(super) async fn same_origin(State(services): State<Arc<Services>>, request: Request, next: Next) -> Response {
    let safe = [Method::GET, Method::HEAD].contains(request.method());
    if safe || is_same_origin(request.headers(), &services.settings.issuer) {
        next.run(request).await
    } else {
        services.metrics().refusals.increment(Refusal::CrossSite);
        Failure(Error::CrossSite).into_response()
    }
}

/// Browsers send `Sec-Fetch-Site` to secure and local addresses, and `Origin` with every form submission. A request with
/// neither does not come from a browser. Origins are compared as URLs (RFC 6454 §4).
fn is_same_origin(headers: &HeaderMap, public_url: &PublicUrl) -> bool {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = header("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else { return false };
    let Some((scheme, _)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    public_url.is_equivalent(origin)
        || host.is_some_and(|host| uri::are_equivalent(origin, &format!("{scheme}://{host}")))
}

/// Authenticates the session and checks the demand of the route.
pub(super) async fn admit(
    State((services, demand)): State<(Arc<Services>, Demand)>,
    session: Session,
    mut request: Request,
    next: Next,
) -> Response {
    let policy = traces::Span::stage("policy");
    let origin = origin(request.extensions());
    let authorizing = async {
        let result = signed_in(&services, &session, origin).await;
        let person = result.as_ref().ok().cloned();
        (person, admitted(&services, demand, result).await)
    };
    let (person, admitted) = policy.run(authorizing).await;
    drop(policy);
    let mut response = match admitted {
        Ok(admitted) => {
            request.extensions_mut().extend(admitted);
            next.run(request).await
        }
        Err(error) => Failure(error).into_response(),
    };
    // An outer layer renders error pages, which show the signed-in administrator as other pages do.
    if let Some(person) = person {
        response.extensions_mut().insert(person);
    }
    response
}

/// Finds out who is signed in when a request failed before [`admit`], so that the error page addresses them. Over a rate
/// limit nothing is read, because the limit protects the database.
pub(super) async fn identify(
    State(services): State<Arc<Services>>,
    session: Session,
    request: Request,
    next: Next,
) -> Response {
    let origin = origin(request.extensions());
    let mut response = next.run(request).await;
    let status = response.status();
    let is_known = response.extensions().get::<SignedIn>().is_some()
        || [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if (status.is_client_error() || status.is_server_error())
        && !is_known
        && let Ok(person) = signed_in(&services, &session, origin).await
    {
        response.extensions_mut().insert(person);
    }
    response
}

async fn signed_in(services: &Services, session: &Session, origin: Origin) -> Result<SignedIn> {
    match session.id() {
        Some(id) => sessions::authenticate(services, origin, session::key(&id)).await,
        None => Err(AuthFailure::NoSession.into()),
    }
}

async fn admitted(services: &Services, demand: Demand, session: Result<SignedIn>) -> Result<http::Extensions> {
    let mut extensions = http::Extensions::new();
    match (demand, session) {
        (Demand::Action(action), Ok(signed_in)) => {
            services.permit(&signed_in.caller, action).await?;
            extensions.insert(signed_in);
        }
        // Pages without a demand still show the signed-in administrator.
        (_, Ok(signed_in)) => drop(extensions.insert(signed_in)),
        (Demand::Action(_), Err(error)) => return Err(error),
        (_, Err(Error::Unauthenticated(_))) => {}
        (_, Err(error)) => return Err(error),
    }
    Ok(extensions)
}

/// The authenticated administrator, whose role meets the demand of the route.
#[derive(Clone)]
pub(super) struct Admin(pub(super) SignedIn);

impl std::ops::Deref for Admin {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0.caller
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let defect = || Failure(Error::internal("a handler without a demand requires an administrator"));
        parts.extensions.get::<SignedIn>().cloned().map(Self).ok_or_else(defect)
    }
}

/// Returns the first 256 characters of the `User-Agent` header.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(http::header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(256).collect())
}

/// Returns the path and query of the page that sent a request through htmx.
pub(super) fn page_of_htmx(headers: &HeaderMap) -> Option<&str> {
    let url = headers.get("hx-current-url")?.to_str().ok()?;
    let (_, rest) = url.split_once("://")?;
    rest.get(rest.find('/')?..)?.split('#').next()
}

/// Returns true if htmx sent the request, rather than the browser itself.
pub(super) fn is_htmx(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}
