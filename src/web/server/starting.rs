//! Responds while the service starts, which takes long if it migrates a large database or waits for a node that does.
//!
//! Probes get their response at once: the process is alive and not ready. Other requests wait for a moment, so that a
//! usual start delays them instead of failing them.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Json,
    extract::ConnectInfo,
    response::{IntoResponse, Response},
};
use http::{Method, Request};
use hyper::body::Incoming;
use tokio::{sync::watch, time::timeout};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

use super::security_headers;
use crate::{
    clock::Environment,
    domain::Error,
    service::health::Report,
    web::{
        api::health::{self, HEALTH, Health, LIVEZ, READYZ},
        demand::API_PREFIX,
        failure::Failure,
        json_errors::ErrorContext,
        request::request_id,
    },
};

/// The service that takes over.
pub(super) type Successor = BoxCloneSyncService<Request<Incoming>, Response, Infallible>;

/// How long a request waits for the start to end. Short, so that waiting connections leave room for probes.
const WAIT: Duration = Duration::from_secs(2);

/// The service for connections that are accepted during the start. It hands over to `successor` once there is one.
pub(super) fn service(
    env: Environment,
    successor: watch::Receiver<Option<Successor>>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
    service_fn(move |mut request: Request<Incoming>| {
        let (env, mut successor) = (env.clone(), successor.clone());
        async move {
            let wait = if is_probe(&request) { Duration::ZERO } else { WAIT };
            let started = timeout(wait, successor.wait_for(Option::is_some)).await;
            let started = started.ok().and_then(Result::ok).and_then(|successor| successor.clone());
            if let Some(successor) = started {
                return successor.oneshot(request).await;
            }
            let tracked = request_id::track(&env, None, is_probe(&request), &mut request);
            let mut response = tracked.finish(async { respond(&request) }).await;
            security_headers::set(response.headers_mut());
            Ok(response)
        }
    })
}

/// Returns true for a check that must not wait.
fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(path(request), LIVEZ | READYZ)
}

fn path<B>(request: &Request<B>) -> &str {
    let path = request.uri().path();
    path.strip_prefix(API_PREFIX).unwrap_or(path)
}

fn respond<B>(request: &Request<B>) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path(request) {
        HEALTH | LIVEZ if is_read => Json(Health::OK).into_response(),
        READYZ if is_read => {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let with_reasons = peer.is_some_and(|peer| health::may_see_reasons(peer.0, request.headers()));
            health::respond(&Report::failing("database", "the service is opening the database"), with_reasons)
        }
        _ => ErrorContext::of(request).render(Failure(Error::Unavailable(None)).into_response()),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::oneshot,
    };

    use super::*;
    use crate::{
        telemetry::metrics::Gauge,
        web::server::serve::{Limits, Server, serve},
    };

    async fn send(address: SocketAddr, requests: &[&str]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (last, first) = requests.split_last().unwrap();
        for path in first {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        }
        stream
            .write_all(format!("GET {last} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut responses = String::new();
        stream.read_to_string(&mut responses).await.unwrap();
        responses
    }

    #[tokio::test]
    async fn probes_are_answered_and_other_requests_wait_for_a_while() {
        let minute = Duration::from_mins(1);
        let limits = Limits {
            header_timeout: minute,
            request_timeout: minute,
            max_connections: 10,
            max_requests: 10,
            drain: Duration::ZERO,
            body_bytes: 10,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (start, started) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let mut server = Server::from(listener);
            server.during(started, &Environment::system(), &limits).await.unwrap();
            let router = Router::new().fallback(get(|| async { "the service itself" }));
            serve(server, router, &limits, &Gauge::noop(), std::future::pending()).await;
        });
        assert!(send(address, &["/livez"]).await.starts_with("HTTP/1.1 200"));
        let ready = send(address, &["/api/v1/readyz"]).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"database\""), "{ready}");
        // In vain.
        let (health, agents) = tokio::join!(send(address, &["/_health"]), send(address, &["/agents"]));
        assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("{\"status\":\"ok\"}"), "{health}");
        assert!(agents.starts_with("HTTP/1.1 503") && agents.contains("retry-after: 1\r\n"), "{agents}");
        // A connection from before the start is over.
        let mut early = TcpStream::connect(address).await.unwrap();
        early.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut buffer = [0; 4_096];
        let read = early.read(&mut buffer).await.unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
        early.write_all(b"GET /agents HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        start.send(()).unwrap();
        let mut response = String::new();
        early.read_to_string(&mut response).await.unwrap();
        assert!(response.ends_with("the service itself"), "{response}");
        assert!(send(address, &["/livez", "/agents"]).await.ends_with("the service itself"));
    }
}
