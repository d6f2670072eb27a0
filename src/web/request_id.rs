//! Ties a response, its log lines and its audit records together, and times the request.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

use crate::{clock::Environment, domain::RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DURATION: HeaderName = HeaderName::from_static("x-request-duration-ms");

/// Takes over the client's `X-Request-Id`, or makes one; sets it and `X-Request-Duration-Ms` on the response.
pub(super) async fn note(State(env): State<Environment>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let sent = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::parse);
    let id = sent.unwrap_or_else(|| env.uuid().into());
    request.extensions_mut().insert(id.clone());
    // The path alone: a query may hold what no log should.
    let span =
        tracing::info_span!("request", id = id.as_str(), method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span.clone()).await;
    let milliseconds = started.elapsed().as_secs_f64() * 1_000.0;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), milliseconds, "answered"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Ok(milliseconds) = HeaderValue::try_from(format!("{milliseconds:.2}")) {
        headers.insert(DURATION, milliseconds);
    }
    response
}
