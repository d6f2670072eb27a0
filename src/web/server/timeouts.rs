//! Timeouts for processing a request and for sending its response.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant, Sleep},
};

use crate::domain::{Error, Result};

/// How long a request may take until its response starts.
#[derive(Clone, Copy)]
pub(in crate::web) struct RequestTimeout(pub(in crate::web) Duration);

impl RequestTimeout {
    /// Runs `work`, and drops it if it takes too long.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on timeout.
    pub(in crate::web) async fn run<T>(self, work: impl Future<Output = T>) -> Result<T> {
        time::timeout(self.0, work).await.map_err(|_| Error::Unavailable(None))
    }
}

/// A stream whose writes fail with [`io::ErrorKind::TimedOut`] when the peer accepts no data for a while.
///
/// It wraps the TCP stream because HTTP considers a response sent once it is buffered. A client that requests something
/// large and never reads it would otherwise keep the connection and its memory for ever.
#[derive(Debug)]
pub(in crate::web) struct WriteTimeout<T> {
    stream: T,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    is_blocked: bool,
}

impl<T> WriteTimeout<T> {
    /// Wraps a stream; `limit` is how long a write may block.
    pub(in crate::web) fn new(stream: T, limit: Duration) -> Self {
        Self { stream, limit, timer: Box::pin(time::sleep(limit)), is_blocked: false }
    }

    fn bound<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.is_blocked = false;
            return written;
        }
        if !self.is_blocked {
            self.is_blocked = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bound(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_fails_when_the_peer_does_not_read() {
        let (near, _far) = duplex(4);
        let mut near = WriteTimeout::new(near, Duration::from_millis(50));
        let error = near.write_all(b"too much").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
