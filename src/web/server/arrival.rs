//! Waits for a request's body before the request takes a place among those under way.
//!
//! Who sends a head, and then little or nothing, holds a connection and no more: else a few hundred of them would have everybody
//! else turned away. A body that is larger than nearly all arrives while its request is at work already, so that whoever may not
//! ask is refused before the rest is read, and memory stays bounded; few of these find a place at a time.

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::BytesMut;
use futures_util::{StreamExt, stream};

use super::admission::TimeLimit;
use crate::domain::{Error, Result};

/// How much of a body is waited for, in bytes: many times what a request for a token takes.
const AWAITED: usize = 16 * 1_024;

/// How much of a request is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Arrived {
    Whole,
    /// Its head, and at least [`AWAITED`] bytes of its body.
    Begun,
}

/// Waits for as much of a request as is waited for. Where that does not come, the request is fit for nothing but to say so.
pub(in crate::web) async fn wait(request: Request, limit: TimeLimit) -> (Request, Result<Arrived>) {
    if request.body().is_end_stream() {
        return (request, Ok(Arrived::Whole));
    }
    let (parts, body) = request.into_parts();
    let (body, arrived) = match limit.run(read(body)).await.flatten() {
        Ok((body, arrived)) => (body, Ok(arrived)),
        Err(error) => (Body::empty(), Err(error)),
    };
    (Request::from_parts(parts, body), arrived)
}

async fn read(body: Body) -> Result<(Body, Arrived)> {
    let mut rest = body.into_data_stream();
    // Copied together: each piece would hold on to the buffer that it came in.
    let mut read = BytesMut::new();
    while read.len() < AWAITED {
        let Some(piece) = rest.next().await else { return Ok((read.freeze().into(), Arrived::Whole)) };
        let piece = piece.map_err(|_| Error::Refused("The body could not be read"))?;
        if read.is_empty() && rest.is_end_stream() {
            return Ok((piece.into(), Arrived::Whole));
        }
        read.extend_from_slice(&piece);
    }
    Ok((Body::from_stream(stream::iter([Ok(read.freeze())]).chain(rest)), Arrived::Begun))
}
