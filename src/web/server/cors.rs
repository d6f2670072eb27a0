//! CORS: which origins' scripts may read which responses. No rule allows cookies, and the console has no rules.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{extract::Request, response::Response};
use futures_util::future::OptionFuture;
use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK, ORIGIN,
        RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::web::{
    api::{answer::REPLAYED, conditions::IDEMPOTENCY_KEY},
    demand::{API_PREFIX, Listed, Origins},
    request::{
        dpop::{NONCE, PROOF},
        request_id::REQUEST_ID,
    },
};

/// Request headers that a browser may send only if they are listed.
const ALLOWED: [HeaderName; 8] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    PROOF,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("x-api-key"),
];
/// Response headers that a browser hides from scripts unless they are listed.
const EXPOSED: [HeaderName; 7] = [WWW_AUTHENTICATE, NONCE, RETRY_AFTER, LINK, REQUEST_ID, ETAG, REPLAYED];
/// How long a browser may cache the response to a preflight.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The rule of each path, or `None` if no other origin may read its responses.
pub(in crate::web) struct Cors(matchit::Router<Option<CorsLayer>>);

impl Cors {
    /// Builds the rules of `routes` for all their mounts. `configured` are the origins for [`Origins::Configured`].
    ///
    /// # Panics
    /// Never: the router has the same paths and would have rejected conflicts.
    #[expect(clippy::expect_used, reason = "see above")]
    pub(in crate::web) fn new(routes: Vec<Listed>, configured: &[HeaderValue]) -> Self {
        let mut methods = BTreeMap::<String, (Origins, Vec<Method>)>::new();
        let mut add = |path: String, origins, method| {
            methods.entry(path).or_insert_with(|| (origins, Vec::new())).1.extend(method);
        };
        for route in routes {
            let prefixed = route.is_prefixed.then(|| format!("{API_PREFIX}{}", route.path));
            for path in prefixed.into_iter().chain([route.path]) {
                add(path, route.origins, Some(route.method.clone()));
            }
        }
        // A client that probes for a document or an endpoint must be able to read the 404.
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

    /// Responds to preflights, and adds the CORS headers to the response of `respond` for other requests.
    pub(in crate::web) async fn apply<F>(&self, request: Request, respond: impl FnOnce(Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let Some(layer) = self.rule_of(&request) else { return respond(request).await };
        let mut respond = Some(respond);
        let once = service_fn(move |request| {
            let response = OptionFuture::from(respond.take().map(|respond| respond(request)));
            async move { Ok::<_, Infallible>(response.await.unwrap_or_default()) }
        });
        layer.layer(once).oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    fn rule_of(&self, request: &Request) -> Option<&CorsLayer> {
        let headers = request.headers();
        let is_preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        // The layer treats every OPTIONS request as a preflight.
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
    Some(CorsLayer::new().allow_origin(origin).allow_headers(ALLOWED).expose_headers(EXPOSED).max_age(MAX_AGE))
}
