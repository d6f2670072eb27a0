//! Ties a response, its log lines and its audit records together, and times the request.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue};
use tracing::{Instrument, Span};

use crate::{clock::Environment, domain::RequestId};

pub(in crate::web) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DURATION: HeaderName = HeaderName::from_static("x-request-duration-ms");

/// A request under way.
pub(in crate::web) struct Noted {
    id: RequestId,
    started: Instant,
    span: Span,
}

/// Takes over the client's `X-Request-Id`, or makes one.
pub(in crate::web) fn note(env: &Environment, request: &mut Request) -> Noted {
    let started = Instant::now();
    let sent = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::parse);
    let id = sent.unwrap_or_else(|| env.uuid().into());
    request.extensions_mut().insert(id.clone());
    // The path alone: a query may hold what no log should. Not at the level of errors, which say of which request they are: a
    // span that is kept costs as much as checking a token.
    let span =
        tracing::debug_span!("request", id = id.as_str(), method = %request.method(), path = request.uri().path());
    Noted { id, started, span }
}

impl Noted {
    /// When the request came.
    pub(in crate::web) const fn started(&self) -> Instant {
        self.started
    }

    /// Sets the identifier and `X-Request-Duration-Ms` on the response.
    pub(in crate::web) async fn answer(self, response: impl Future<Output = Response>) -> Response {
        let mut response = response.instrument(self.span.clone()).await;
        let milliseconds = self.started.elapsed().as_secs_f64() * 1_000.0;
        self.span.in_scope(|| tracing::debug!(status = response.status().as_u16(), milliseconds, "answered"));
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
