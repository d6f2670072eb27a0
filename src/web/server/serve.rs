//! Serves HTTP/1.1 with limits on connections and headers, and shuts down without cutting off requests.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use axum::{extract::ConnectInfo, response::Response};
use futures_util::future;
use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinError, JoinSet},
    time::{self, Instant},
};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{
    starting::{self, Successor},
    timeouts::WriteTimeout,
};
use crate::{clock::Environment, telemetry::metrics::Gauge, web::request::access_log};

/// Maximum size of a request's head in bytes. An access token with many capabilities takes a few thousand.
const HEAD_BYTES: usize = 32 * 1_024;
/// How many connections may wait to be accepted. If the queue is full, the operating system drops the first packet of
/// further connections, and clients send it again only after a second.
const BACKLOG: u32 = 4_096;
/// How long to wait before accepting again after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often to log that connections cannot be accepted.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Limits on connections and requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the head of a request may take to arrive, and how long a connection may be idle between two requests.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive, how long it may then take until the response starts, and how long
    /// a client may accept no more data of a response.
    pub request_timeout: Duration,
    /// Maximum number of open connections. Further ones wait until one closes.
    pub max_connections: usize,
    /// Maximum number of requests in progress. Further ones are rejected.
    pub max_requests: usize,
    /// How long requests in progress may take to finish at shutdown.
    pub drain: Duration,
    /// Maximum size of a request body in bytes.
    pub body_bytes: usize,
}

/// Listens on an address.
///
/// # Errors
/// If the address is in use or does not belong to this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Allows a restart to reuse a port whose connections are still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A service that responds to every HTTP request.
pub trait HttpService:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves HTTP/1.1 until `shutdown` completes, then until the requests in progress have their responses, but no longer
/// than [`Limits::drain`]. `open` shows the number of connections. Requests carry their peer's address as
/// `ConnectInfo<SocketAddr>` in their extensions.
pub async fn serve(
    listener: impl Into<Server>,
    service: impl HttpService,
    limits: &Limits,
    open: &Gauge,
    shutdown: impl Future<Output = ()>,
) {
    let mut server = listener.into();
    server.replaced.send_replace(Some(BoxCloneSyncService::new(service.clone())));
    server.accept_until(service, limits, open, shutdown).await;
    server.drain(limits, open).await;
}

/// A listener with its open connections.
pub struct Server {
    listener: TcpListener,
    connections: JoinSet<()>,
    graceful: GracefulShutdown,
    /// The service for the connections that were accepted during the start, once there is one.
    replaced: watch::Sender<Option<Successor>>,
    last_logged: Option<Instant>,
}

impl From<TcpListener> for Server {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            connections: JoinSet::new(),
            graceful: GracefulShutdown::new(),
            replaced: watch::Sender::new(None),
            last_logged: None,
        }
    }
}

impl Server {
    /// Responds to health checks during `start`, and lets other requests wait for the service for a while.
    pub async fn during<T>(&mut self, start: impl Future<Output = T>, env: &Environment, limits: &Limits) -> T {
        let starting = starting::service(env.clone(), self.replaced.subscribe());
        self.accept_until(starting, limits, &Gauge::noop(), start).await
    }

    async fn accept_until<T>(
        &mut self,
        service: impl HttpService,
        limits: &Limits,
        open: &Gauge,
        end: impl Future<Output = T>,
    ) -> T {
        let mut end = pin!(end);
        let Self { listener, connections, graceful, last_logged, .. } = self;
        loop {
            show(open, connections);
            tokio::select! {
                ended = &mut end => return ended,
                Some(ended) = connections.join_next() => report(ended),
                (stream, peer) = accept(listener, last_logged), if connections.len() < limits.max_connections => {
                    let connection = graceful.watch(connection(stream, peer, service.clone(), limits));
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            failed(peer, &error);
                        }
                    });
                }
            }
        }
    }

    async fn drain(self, limits: &Limits, open: &Gauge) {
        let Self { listener, mut connections, graceful, .. } = self;
        // The operating system now refuses connections instead of queueing them.
        drop(listener);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
                show(open, &connections);
            }
        };
        if time::timeout(limits.drain, future::join(graceful.shutdown(), drained)).await.is_err() {
            tracing::warn!(connections = connections.len(), "cut off requests that were still running");
        }
        connections.shutdown().await;
    }
}

/// Returns the next connection. While the machine has no room for one, waits and logs that now and then; `last_logged`
/// outlives the call, which may be cancelled.
async fn accept(listener: &TcpListener, last_logged: &mut Option<Instant>) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if last_logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
                    *last_logged = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections");
                }
                time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Returns true if only the one connection failed, before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection<S: HttpService>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: &Limits,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY; responses may be delayed");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        service.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, limits.request_timeout)), service)
}

/// Shows how many connections are open.
fn show(open: &Gauge, connections: &JoinSet<()>) {
    open.set(u32::try_from(connections.len()).unwrap_or(u32::MAX));
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request panicked");
    }
}

/// Logs why a connection ended early. To a request that is not valid HTTP, hyper has responded by itself.
fn failed(peer: SocketAddr, error: &hyper::Error) {
    tracing::debug!(%error, "connection failed");
    if error.is_parse() && !error.is_parse_version_h2() {
        let is_large = error.is_parse_too_large();
        let status = if is_large { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        access_log::malformed(peer.ip(), status);
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves a small and a large response until the test ends.
    async fn start(request_timeout: Duration) -> SocketAddr {
        let limits = Limits {
            header_timeout: Duration::from_mins(1),
            request_timeout,
            max_connections: 10,
            max_requests: 10,
            drain: Duration::ZERO,
            body_bytes: 10,
        };
        let router = Router::new()
            .route("/small", get(|| async { "small" }))
            .route("/large", get(|| async { "x".repeat(64 << 20) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { serve(listener, router, &limits, &Gauge::noop(), std::future::pending()).await });
        address
    }

    async fn send(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let address = start(Duration::from_mins(1)).await;
        let head = format!("GET /small HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(HEAD_BYTES));
        let response = send(address, &head).await;
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_response_is_disconnected() {
        let address = start(Duration::from_millis(200)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // More than the buffers of both sides hold.
        let written = time::timeout(Duration::from_secs(20), client.write_all(&vec![b'x'; 64 << 20])).await;
        assert!(written.expect("the connection ends").is_err());
    }
}
