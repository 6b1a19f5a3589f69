//! The request on its way out: head, then body, framed as the head says (RFC 9112, 6 and 7.1).
//!
//! What was announced is kept to: a body that is shorter or longer than its `Content-Length` ends the exchange.

use std::cell::Cell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{
    CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::upstream::proxy::AbsoluteForm;
use crate::upstream::upload::Upload;

/// Capacity of a spare buffer that is kept.
const MAX_SPARE: usize = 16 * 1024;

thread_local! {
    /// Heads are usually written at once, so one buffer serves all exchanges of a worker.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The connection does not take any more.
    Connection(io::Error),
    /// The body has failed, or is not what was announced.
    Body,
}

/// A request being sent.
pub(super) struct Sending {
    /// The head and the size lines of chunks, written up to `at`.
    out: Vec<u8>,
    at: usize,
    /// What follows `out`.
    data: Bytes,
    /// What follows `data`.
    tail: &'static [u8],
    framing: Framing,
    unflushed: bool,
    written: bool,
    took_body: bool,
}

enum Framing {
    Length(u64),
    Chunked,
    /// Everything is in the buffers.
    Over,
}

impl Sending {
    /// Begins with the head of `request`, in absolute form for a proxy. Its body gets the framing that its fields
    /// announce.
    pub(super) fn new(request: &http::Request<Upload>, absolute: Option<&AbsoluteForm>) -> Self {
        let mut out = SPARE.take();
        out.clear();
        encode_head(request, absolute, &mut out);
        let headers = request.headers();
        let framing = if request.body().state().is_none() {
            Framing::Over
        } else if headers.contains_key(TRANSFER_ENCODING) {
            Framing::Chunked
        } else {
            let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            Framing::Length(length.and_then(|length| length.parse().ok()).unwrap_or(0))
        };
        Self {
            out,
            at: 0,
            data: Bytes::new(),
            tail: b"",
            framing,
            unflushed: false,
            written: false,
            took_body: false,
        }
    }

    /// Whether a byte of it may have reached the server.
    pub(super) fn is_written(&self) -> bool {
        self.written
    }

    /// Whether something of the body was taken, so that it cannot be sent again.
    pub(super) fn took_body(&self) -> bool {
        self.took_body
    }

    /// Whether the server has been given all of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.framing, Framing::Over) && !self.has_bytes() && !self.unflushed
    }

    /// Sends what can be sent now; ready when all of it is.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        body: &mut Upload,
    ) -> Poll<Result<(), Stopped>> {
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        loop {
            // A first part of the body that is there already goes out together with the head.
            let starved = self.data.is_empty()
                && self.tail.is_empty()
                && !matches!(self.framing, Framing::Over)
                && self.poll_body(cx, body)?.is_pending();
            if self.has_bytes() {
                ready!(self.poll_write(cx, stream)).map_err(Stopped::Connection)?;
                continue;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(Stopped::Connection)?;
                self.unflushed = false;
            }
            if matches!(self.framing, Framing::Over) {
                self.give_back();
                return Poll::Ready(Ok(()));
            }
            if starved {
                return Poll::Pending;
            }
        }
    }

    /// Takes the next part of the body, or its end, into the buffers.
    fn poll_body(&mut self, cx: &mut Context<'_>, body: &mut Upload) -> Poll<Result<(), Stopped>> {
        let frame = ready!(Pin::new(body).poll_frame(cx));
        self.took_body = true;
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return Poll::Ready(Err(Stopped::Body)),
            None => {
                let complete = match std::mem::replace(&mut self.framing, Framing::Over) {
                    Framing::Length(left) => left == 0,
                    Framing::Chunked => {
                        self.out.extend_from_slice(b"0\r\n\r\n");
                        true
                    }
                    Framing::Over => true,
                };
                return Poll::Ready(if complete { Ok(()) } else { Err(Stopped::Body) });
            }
        };
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.framing {
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(0) => self.framing = Framing::Over,
                Some(rest) => *left = rest,
                None => return Poll::Ready(Err(Stopped::Body)),
            },
            Framing::Chunked => {
                // Writing to a vector does not fail.
                let _ = write!(self.out, "{:X}\r\n", data.len());
                self.tail = b"\r\n";
            }
            Framing::Over => {}
        }
        self.data = data;
        Poll::Ready(Ok(()))
    }

    fn has_bytes(&self) -> bool {
        self.at < self.out.len() || !self.data.is_empty() || !self.tail.is_empty()
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let out = self.out.get(self.at..).unwrap_or_default();
        let stream = Pin::new(stream);
        let taken = if self.data.is_empty() && self.tail.is_empty() {
            ready!(stream.poll_write(cx, out))?
        } else {
            let slices = [IoSlice::new(out), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written = true;
        self.unflushed = true;
        self.advance(taken);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, taken: usize) {
        let from_out = taken.min(self.out.len() - self.at);
        self.at += from_out;
        if self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
        }
        let from_data = (taken - from_out).min(self.data.len());
        self.data.advance(from_data);
        let from_tail = taken - from_out - from_data;
        self.tail = self.tail.get(from_tail..).unwrap_or_default();
    }

    fn give_back(&mut self) {
        let out = std::mem::take(&mut self.out);
        if out.capacity() <= MAX_SPARE {
            SPARE.set(out);
        }
    }
}

/// `method SP target SP HTTP/1.1`, and the fields with their names in title case: some old servers want them so.
fn encode_head(
    request: &http::Request<Upload>,
    absolute: Option<&AbsoluteForm>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    if let Some(absolute) = absolute {
        out.extend_from_slice(absolute.origin.as_bytes());
    }
    out.extend_from_slice(request.uri().path_and_query().map_or("/", |it| it.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        let value = match absolute {
            Some(absolute) if name == HOST => &absolute.host,
            _ => value,
        };
        encode_field(name, value, out);
    }
    if let Some(authorization) = absolute.and_then(|absolute| absolute.authorization.as_ref()) {
        encode_field(&PROXY_AUTHORIZATION, authorization, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let mut rest = name.as_str();
    // The only names that are not in title case anywhere (RFC 6455, 11.3).
    if let Some(behind) = rest.strip_prefix("sec-websocket-") {
        out.extend_from_slice(b"Sec-WebSocket-");
        rest = behind;
    }
    let mut first = true;
    out.extend(rest.bytes().map(|byte| {
        let byte = if first { byte.to_ascii_uppercase() } else { byte };
        first = byte == b'-';
        byte
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
