//! Server-sent events for pages with live updates.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::Stream;

use crate::{
    service::{Action, Services, people::sessions},
    web::console::guard::Admin,
};

/// Interval of keep-alive comments on an idle stream; shorter than the idle timeout of common proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Returns true if the session that opened a stream is still active and authorized.
pub(in crate::web::console) async fn may_watch(services: &Services, admin: &Admin) -> bool {
    sessions::is_valid(services, admin, Action::ReadAudit).await.unwrap_or(false)
}

/// Tells nginx, and proxies that follow its example, to pass on each event at once.
const UNBUFFERED: [(&str, &str); 1] = [("x-accel-buffering", "no")];

/// Returns a response that streams events.
pub(in crate::web::console) fn stream_events(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    (UNBUFFERED, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}
