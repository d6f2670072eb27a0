//! Request IDs, which correlate a response with its log lines and audit records, and response times.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue};
use tracing::{Instrument, Span};

use crate::{clock::Environment, domain::RequestId};

pub(in crate::web) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DURATION: HeaderName = HeaderName::from_static("x-request-duration-ms");

/// A request in progress.
pub(in crate::web) struct Tracked {
    id: RequestId,
    started: Instant,
    span: Span,
}

/// Assigns an ID to a request: the client's `X-Request-Id` if it is valid, or a new one.
pub(in crate::web) fn track(env: &Environment, request: &mut Request) -> Tracked {
    let started = Instant::now();
    let sent = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::parse);
    let id = sent.unwrap_or_else(|| env.uuid().into());
    request.extensions_mut().insert(id.clone());
    // Without the query, which may contain secrets. At debug level, because an enabled span costs as much as checking a
    // token; errors are logged with the request ID anyway.
    let span =
        tracing::debug_span!("request", id = id.as_str(), method = %request.method(), path = request.uri().path());
    Tracked { id, started, span }
}

impl Tracked {
    /// Awaits the response and adds `X-Request-Id` and `X-Request-Duration-Ms`.
    pub(in crate::web) async fn finish(self, response: impl Future<Output = Response>) -> Response {
        let mut response = response.instrument(self.span.clone()).await;
        let milliseconds = self.started.elapsed().as_secs_f64() * 1_000.0;
        self.span.in_scope(|| tracing::debug!(status = response.status().as_u16(), milliseconds, "responded"));
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(self.id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Ok(milliseconds) = HeaderValue::try_from(format!("{milliseconds:.2}")) {
            headers.insert(DURATION, milliseconds);
        }
        response
    }
}
