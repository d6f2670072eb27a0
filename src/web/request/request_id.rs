//! What is told about each request: its ID and its duration in the response, its line in the access log, and its span.

use std::{sync::Arc, time::Instant};

use axum::response::Response;
use http::{HeaderName, HeaderValue, Request};
use tracing::Instrument;

use super::{
    access_log::{AccessLine, Line, shown_method, shown_path},
    client_ip::ClientIp,
};
use crate::{clock::Environment, domain::RequestId, service::Identity, telemetry::traces};

pub(in crate::web) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DURATION: HeaderName = HeaderName::from_static("x-request-duration-ms");

/// A request in progress.
pub(in crate::web) struct Tracked {
    id: RequestId,
    started: Instant,
    line: AccessLine,
    trace: traces::Span,
    /// Adds the request to the log lines that are written meanwhile.
    context: tracing::Span,
}

/// Assigns an ID to a request: the client's `X-Request-Id` if it is valid, or a new one. The address of the client must
/// be recorded already.
pub(in crate::web) fn track<B>(
    env: &Environment,
    route: Option<Arc<str>>,
    is_probe: bool,
    request: &mut Request<B>,
) -> Tracked {
    let started = Instant::now();
    let sent = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::parse);
    let id = sent.unwrap_or_else(|| env.uuid().into());
    let identity = Identity::default();
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(identity.clone());
    let (method, uri) = (request.method(), request.uri());
    let trace = traces::Span::of_request(method, route.as_deref(), &shown_path(uri), request.headers());
    let line = AccessLine::of(|| Line {
        method: method.clone(),
        route,
        uri: uri.clone(),
        id: id.clone(),
        client: request.extensions().get::<ClientIp>().map(|client| client.0),
        identity,
        trace_id: trace.trace_id(),
        is_probe,
        started,
    });
    // At debug level, because an enabled span costs as much as checking a token.
    let context =
        tracing::debug_span!("request", id = id.as_str(), method = shown_method(method), path = &*shown_path(uri));
    Tracked { id, started, line, trace, context }
}

impl Tracked {
    /// Awaits the response and adds `X-Request-Id` and `X-Request-Duration-Ms`.
    pub(in crate::web) async fn finish(self, response: impl Future<Output = Response>) -> Response {
        let mut response = self.trace.run(response.instrument(self.context)).await;
        let milliseconds = self.started.elapsed().as_secs_f64() * 1_000.0;
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(self.id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Ok(milliseconds) = HeaderValue::try_from(format!("{milliseconds:.2}")) {
            headers.insert(DURATION, milliseconds);
        }
        self.trace.responded(response.status());
        self.line.responded(response.status());
        response
    }
}
