//! Receives a request's body before the request is admitted.
//!
//! A client that sends a head and then little else occupies a connection, but no place among the requests in progress;
//! otherwise a few hundred such clients would have all others rejected. Only the first [`BUFFERED`] bytes are received
//! in advance, which bounds memory and lets an unauthorized client be refused before the rest of a large body is read.

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::BytesMut;
use futures_util::{StreamExt, stream};

use super::timeouts::RequestTimeout;
use crate::domain::{Error, Result};

/// Bytes of a body to receive in advance: many times the size of a token request.
const BUFFERED: usize = 16 * 1_024;

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Arrived {
    /// Head and body.
    Whole,
    /// The head, and the first [`BUFFERED`] bytes of the body or less.
    Partial,
}

/// Waits for the body of a request, or the beginning of a large one. On error the returned request has an empty body.
pub(in crate::web) async fn wait(request: Request, timeout: RequestTimeout) -> (Request, Result<Arrived>) {
    if request.body().is_end_stream() {
        return (request, Ok(Arrived::Whole));
    }
    let (parts, body) = request.into_parts();
    let (body, arrived) = match timeout.run(receive(body)).await.flatten() {
        Ok((body, arrived)) => (body, Ok(arrived)),
        Err(error) => (Body::empty(), Err(error)),
    };
    (Request::from_parts(parts, body), arrived)
}

async fn receive(body: Body) -> Result<(Body, Arrived)> {
    let mut rest = body.into_data_stream();
    // Chunks are copied into one buffer, because each keeps the whole buffer alive that it was received in.
    let mut received = BytesMut::new();
    while received.len() < BUFFERED {
        let Some(chunk) = rest.next().await else { return Ok((received.freeze().into(), Arrived::Whole)) };
        let chunk = chunk.map_err(|_| Error::Refused("The body could not be read"))?;
        if received.is_empty() && rest.is_end_stream() {
            return Ok((chunk.into(), Arrived::Whole));
        }
        received.extend_from_slice(&chunk);
    }
    Ok((Body::from_stream(stream::iter([Ok(received.freeze())]).chain(rest)), Arrived::Partial))
}
