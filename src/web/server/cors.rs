//! Which responses scripts of other origins may read (the CORS protocol of the Fetch standard). No rule allows cookies, and the
//! console has no rule.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{extract::Request, response::Response};
use futures_util::future::OptionFuture;
use http::{
    HeaderName, HeaderValue, Method,
    header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, LINK, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::web::{
    API_PREFIX,
    request::{
        dpop::{NONCE, PROOF},
        request_id::REQUEST_ID,
    },
    routes::{self, Origins},
};

/// Headers of requests that a browser asks permission for.
const TAKEN: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    PROOF,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("x-api-key"),
];
/// Headers of answers that a browser hides from scripts unless they are named.
const EXPOSED: [HeaderName; 5] = [WWW_AUTHENTICATE, NONCE, RETRY_AFTER, LINK, REQUEST_ID];
/// How long a browser may remember the answer to a preflight.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The rule of each path; `None` where no other origin may read.
pub(in crate::web) struct Cors(matchit::Router<Option<CorsLayer>>);

impl Cors {
    /// The rules of the table of routes, wherever each route is mounted. `configured` are the origins that may read what not
    /// every origin may.
    ///
    /// # Panics
    /// Never: the router has the same paths, and would not have been made.
    #[expect(clippy::expect_used, reason = "see above")]
    pub(in crate::web) fn new(configured: &[HeaderValue]) -> Self {
        let mut methods = BTreeMap::<String, (Origins, Vec<Method>)>::new();
        let mut add = |path: String, origins, method| {
            methods.entry(path).or_insert_with(|| (origins, Vec::new())).1.extend(method);
        };
        for route in routes::list() {
            let prefixed = route.is_prefixed.then(|| format!("{API_PREFIX}{}", route.path));
            for path in prefixed.into_iter().chain([route.path]) {
                add(path, route.origins, Some(route.method.clone()));
            }
        }
        // A client that looks for a document or an endpoint must be able to read the 404.
        for path in ["/oauth/{*rest}", "/.well-known/{*rest}"] {
            add(path.to_owned(), Origins::Any, None);
        }
        let mut rules = matchit::Router::new();
        for (path, (origins, methods)) in methods {
            let layer = layer(origins, configured).map(|layer| layer.allow_methods(methods));
            rules.insert(path, layer).expect("paths that do not conflict");
        }
        Self(rules)
    }

    /// Adds the headers that let a script read the response, if its origin may. Answers a preflight itself.
    pub(in crate::web) async fn answer<F>(&self, request: Request, answer: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let Some(layer) = self.rule_of(&request) else { return answer(request).await };
        let mut answer = Some(answer);
        let once = service_fn(move |request| {
            let answer = OptionFuture::from(answer.take().map(|answer| answer(request)));
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_default()) }
        });
        layer.layer(once).oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    fn rule_of(&self, request: &Request) -> Option<&CorsLayer> {
        let headers = request.headers();
        let is_preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        // The layer takes every OPTIONS for a preflight.
        if request.method() == Method::OPTIONS && !is_preflight {
            return None;
        }
        self.0.at(request.uri().path()).ok()?.value.as_ref()
    }
}

fn layer(origins: Origins, configured: &[HeaderValue]) -> Option<CorsLayer> {
    let origin = match origins {
        Origins::Any => Any.into(),
        Origins::Configured if !configured.is_empty() => AllowOrigin::list(configured.iter().cloned()),
        Origins::Configured | Origins::None => return None,
    };
    Some(CorsLayer::new().allow_origin(origin).allow_headers(TAKEN).expose_headers(EXPOSED).max_age(REMEMBERED))
}
