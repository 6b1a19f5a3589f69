//! A kept-alive connection between two requests: its stream, and as little else as possible.
//!
//! hyper holds two buffers of 8 KiB for each connection, busy or not. A connection that asks for
//! nothing is taken from it, and goes to a new one with the first byte of the next request.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Door, Stream};
use super::overload::Pace;
use crate::exchange::memory::Held;

/// After so long without a request a connection rests: browsers ask for more within a second.
pub(super) const REST_AFTER: Duration = Duration::from_secs(2);
/// For the last words to a client that has asked for nothing.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what such a client still sends is read.
const MAX_UNREAD: u64 = 1 << 20;

/// Up to so many bytes, copying what is written together costs less than a gathering write.
const SMALL: usize = 4096;

thread_local! {
    static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Waits for the next request, and returns its first bytes; `None` when the connection ends.
pub(super) async fn rest<S: Stream>(
    door: &Door,
    stream: &mut S,
    since: Instant,
) -> io::Result<Option<Bytes>> {
    let mut first = [0; 16];
    let read = async {
        match door.entry_point.timeouts.idle {
            Some(idle) => timeout_at(since + idle, stream.read(&mut first)).await.unwrap_or(Ok(0)),
            None => stream.read(&mut first).await,
        }
    };
    let count = tokio::select! {
        biased;
        count = read => count?,
        () = door.drain.told() => 0,
        () = door.tired(since) => 0,
    };
    if count == 0 {
        // The client may have left without waiting for it.
        let _ = timeout(FAREWELL, stream.shutdown()).await;
        return Ok(None);
    }
    Ok(Some(Bytes::copy_from_slice(first.get(..count).unwrap_or_default())))
}

/// Ends a connection that hyper has let go of without a word, as it does behind an upgrade that was not granted. What
/// the client still sends is read for a moment, so that it gets the answer and no reset.
pub(super) async fn leave<S: Stream>(stream: &mut S) -> io::Result<()> {
    let farewell = async {
        stream.shutdown().await?;
        let mut unread = stream.take(MAX_UNREAD);
        let mut scratch = [0; 1024];
        while unread.read(&mut scratch).await? > 0 {}
        Ok(())
    };
    timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
}

/// Where a lent stream comes back to.
pub(super) struct Home<S>(Arc<Mutex<Option<S>>>);

impl<S> Home<S> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Lends `stream` to somebody who will drop it.
    pub(super) fn lend(&self, stream: S, held: Option<&Arc<Held>>) -> Lent<S> {
        let home = Arc::clone(&self.0);
        Lent { stream: Some(stream), shut: false, pace: Pace::http1(held), home }
    }

    /// The stream, if it was given back.
    pub(super) fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A stream that goes home when it is dropped, unless it was shut down.
pub(super) struct Lent<S> {
    /// `None` while it is dropped, and never else.
    stream: Option<S>,
    shut: bool,
    pace: Pace,
    home: Arc<Mutex<Option<S>>>,
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        if !self.shut {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
        }
    }
}

impl<S: Unpin> Lent<S> {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>> {
        match &mut self.get_mut().stream {
            Some(stream) => Ok(Pin::new(stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.stream {
            Some(stream) => this.pace.poll_read(Pin::new(stream), cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pace.wrote();
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pace.wrote();
        let stream = self.stream()?;
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
            return stream.poll_write_vectored(cx, bufs);
        }
        TOGETHER.with_borrow_mut(|together| {
            together.clear();
            for buf in bufs {
                together.extend_from_slice(buf);
            }
            stream.poll_write(cx, together)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        self.stream()?.poll_shutdown(cx)
    }
}
