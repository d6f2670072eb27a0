//! Serves a router over connections that cannot be held open for nothing, and ends without cutting a request.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use axum::{extract::ConnectInfo, response::Response};
use futures_util::future;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinError,
    time::{self, Instant},
};
use tower::{Service, ServiceExt};

use super::{
    connections::{Attention, Connections},
    patience::Patience,
};
use crate::domain::credential::network::network;

/// Most bytes of a request's head; an access token with many capabilities takes a few thousand.
const HEAD_BYTES: usize = 32 * 1_024;
/// How many connections may wait to be accepted; the operating system may hold fewer, and drops the first packet of further ones,
/// which is sent again only after a second.
const BACKLOG: u32 = 4_096;
/// How long to wait before the next attempt, when the machine has no room for another connection or every connection is at work.
const PAUSE: Duration = Duration::from_millis(100);
/// How often to log that the machine has no room for another connection.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// What bounds connections and requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the head of a request may take to arrive, and a connection may idle between two requests.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive, its work until the answer begins, and how long a client may leave an answer
    /// without taking any more of it.
    pub request_timeout: Duration,
    /// Most connections at a time. A further one waits for one that ends, or that its client has left idle.
    pub max_connections: usize,
    /// Most requests at a time; further ones are turned away.
    pub max_requests: usize,
    /// How long requests that are under way may take to finish at the end.
    pub drain: Duration,
    /// Largest body, in bytes.
    pub body_bytes: usize,
}

/// Takes an address.
///
/// # Errors
/// When somebody else has it, or it is none of this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port that was given up a moment ago may be taken again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What answers requests.
pub trait Answers:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Serves HTTP/1.1 until `shutdown` completes, and then until running requests are answered, but no longer than
/// [`Limits::drain`]. Requests find their peer as `ConnectInfo<SocketAddr>` in their extensions, and the attention of their
/// connection, without which it counts as one that waits for its client.
pub async fn serve(listener: TcpListener, answers: impl Answers, limits: &Limits, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::new(limits.max_connections);
    let mut newcomer = None;
    let mut logged = None;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.next_ended() => report(ended),
            accepted = accept(&listener, &mut logged), if newcomer.is_none() => {
                newcomer = accepted;
                if newcomer.is_none() {
                    connections.make_room();
                }
            }
            () = time::sleep(PAUSE), if newcomer.is_some() => {}
        }
        if newcomer.is_some() && connections.is_full() {
            connections.make_room();
        } else if let Some((stream, peer)) = newcomer.take() {
            let serve = |attention| graceful.watch(connection(stream, peer, attention, answers.clone(), limits));
            connections.open(network(peer.ip()), serve);
        }
    }
    // From here on the operating system refuses connections, instead of queueing them for nobody.
    drop((listener, newcomer));
    let drained = async {
        while let Some(ended) = connections.next_ended().await {
            report(ended);
        }
    };
    if time::timeout(limits.drain, future::join(graceful.shutdown(), drained)).await.is_err() {
        tracing::warn!(connections = connections.count(), "cut off requests that were still running");
    }
    connections.cut().await;
}

/// Returns the next connection, or `None` after a pause if the machine has no room for one. `logged` is when that was last logged.
async fn accept(listener: &TcpListener, logged: &mut Option<Instant>) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Some(accepted),
            Err(error) if gone_already(&error) => {}
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
                    *logged = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections");
                }
                time::sleep(PAUSE).await;
                return None;
            }
        }
    }
}

/// Whether it is only the one connection that failed, before it was accepted.
fn gone_already(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection<S: Answers>(
    stream: TcpStream,
    peer: SocketAddr,
    attention: Attention,
    answers: S,
    limits: &Limits,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "answers may be delayed");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        // However long the connection was idle before, its client is at it again.
        attention.wait();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(attention.clone());
        answers.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Patience::new(stream, limits.request_timeout)), service)
}

fn report(ended: Result<Result<(), hyper::Error>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection broke"),
        Err(error) if error.is_cancelled() => tracing::debug!("gave up a connection that was left idle"),
        Err(error) => tracing::error!(%error, "a request panicked"),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Serves something small and something large until the test ends.
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
        tokio::spawn(async move { serve(listener, router, &limits, std::future::pending()).await });
        address
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let address = start(Duration::from_mins(1)).await;
        let head = format!("GET /small HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(HEAD_BYTES));
        let answer = ask(address, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn who_does_not_take_the_answer_loses_the_connection() {
        let address = start(Duration::from_millis(200)).await;
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // It says more than can be buffered for whoever does not listen while he speaks.
        let said = time::timeout(Duration::from_secs(20), deaf.write_all(&vec![b'x'; 64 << 20])).await;
        assert!(said.expect("the connection ends").is_err());
    }
}
