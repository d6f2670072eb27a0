//! Pages that follow what happens, by server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;

use crate::{
    service::{Action, Services, people::sessions},
    web::console::guard::Admin,
};

/// How often a connection that carries nothing shows that it is alive; shorter than proxies wait.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Whether whoever watches may still do so: a stream must not outlive the session that opened it.
pub(in crate::web::console) async fn may_watch(services: &Services, admin: &Admin) -> bool {
    sessions::is_alive(services, admin, Action::ReadAudit).await.unwrap_or(false)
}

/// Answers with a stream of events.
pub(in crate::web::console) fn answer<S>(events: S) -> Sse<impl Stream<Item = Result<Event, Infallible>>>
where
    S: Stream<Item = Result<Event, Infallible>> + Send + 'static,
{
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
