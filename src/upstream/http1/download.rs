//! The body of an answer on its way to the client; it owns the connection that it comes from.
//!
//! At its last byte the connection goes back to the pool, before anybody asks for more. An answer that is over while
//! its request's body still goes on ends the upload, so the rest can never be taken for a request.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadHalf};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connection::Connection;
use super::exchange::poll_read_with;
use crate::exchange::memory;
use crate::exchange::{Body, BodyError, without_misplaced_trailers};
use crate::upstream::connect::Stream;
use crate::upstream::upload::UploadState;
use crate::wire::{Part, ResponseBody};

/// Bytes of one read where a server is known to send a lot.
const BULK: usize = 128 * 1024;
/// A read of so many bytes says that more are waiting.
const MANY: usize = 16 * 1024;

/// Where a body comes from.
pub(super) enum Source {
    /// The request is over.
    Whole { connection: Box<Connection>, persistent: bool },
    /// The request is still being sent.
    Half(Half),
    /// Nothing more comes.
    Over,
}

/// The reading side of a connection that another task writes to: it is not used again.
pub(super) struct Half {
    pub(super) stream: ReadHalf<Stream>,
    pub(super) upload: Arc<UploadState>,
    /// The task that writes.
    pub(super) writes: AbortHandle,
}

impl Drop for Half {
    fn drop(&mut self) {
        self.upload.stop();
        // It may wait for a server that reads nothing more, where it does not hear of the stop.
        self.writes.abort();
    }
}

/// A body being read.
pub(super) struct Download {
    source: Source,
    body: ResponseBody,
    /// What was read and not decoded.
    raw: Bytes,
    /// The last read brought as much as it could.
    many: bool,
}

impl Download {
    /// The body `body`, of which `raw` was read, from `source`.
    pub(super) fn body(source: Source, body: ResponseBody, raw: Bytes) -> Body {
        let many = raw.len() >= MANY / 2;
        let mut download = Self { source, body, raw, many };
        if download.body.is_over() {
            download.finish();
            return Body::empty();
        }
        Body::boxed(download)
    }

    /// Gives the connection back, or closes it.
    fn finish(&mut self) {
        let source = std::mem::replace(&mut self.source, Source::Over);
        if let Source::Whole { connection, persistent: true } = source
            && self.raw.is_empty()
        {
            connection.release(Instant::now());
        }
        self.raw = Bytes::new();
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.source = Source::Over;
        error
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let many = &mut self.many;
        let most = self.body.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(BULK);
        match &mut self.source {
            Source::Whole { connection, .. } => read(cx, &mut connection.stream, many, most),
            Source::Half(Half { stream, upload, .. }) => {
                if upload.poll_failed(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::other("the request's body has failed")));
                }
                read(cx, stream, many, most)
            }
            Source::Over => Poll::Ready(Ok(Bytes::new())),
        }
    }
}

/// Reads once: into the worker's own buffer, or, where a lot is coming, right into what is passed on.
fn read<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    many: &mut bool,
    most: usize,
) -> Poll<io::Result<Bytes>> {
    if !*many || most < MANY || memory::is_scarce() {
        let read = ready!(poll_read_with(cx, stream, Bytes::copy_from_slice))?;
        *many = read.len() >= MANY;
        return Poll::Ready(Ok(read));
    }
    let mut buf = BytesMut::with_capacity(most.min(BULK));
    let Poll::Ready(read) = pin!(stream.read_buf(&mut buf)).poll(cx) else {
        // Whatever comes next may be little: it gets no large buffer to sit in.
        *many = false;
        return Poll::Pending;
    };
    *many = read? >= MANY;
    Poll::Ready(Ok(buf.freeze()))
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            match this.body.take(&mut this.raw) {
                Ok(Part::Data(data)) => {
                    if this.body.is_over() {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Part::Trailers(trailers)) => {
                    this.finish();
                    let trailers = without_misplaced_trailers(Frame::trailers(trailers));
                    return Poll::Ready(Some(Ok(trailers)));
                }
                Ok(Part::End) => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Ok(Part::More) => {}
                Err(reason) => {
                    return Poll::Ready(Some(Err(this.fail(BodyError::Malformed(reason)))));
                }
            }
            match ready!(this.poll_read(cx)) {
                Ok(read) if read.is_empty() => {
                    let whole = this.body.ends_with_the_stream();
                    this.source = Source::Over;
                    if whole {
                        this.body = ResponseBody::nothing();
                        return Poll::Ready(None);
                    }
                    let error =
                        io::Error::new(io::ErrorKind::UnexpectedEof, "closed inside the answer");
                    return Poll::Ready(Some(Err(BodyError::Source(error.into()))));
                }
                Ok(read) => this.raw = read,
                Err(error) => {
                    return Poll::Ready(Some(Err(this.fail(BodyError::Source(error.into())))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
