//! The gate between a backend's stream and hyper's HTTP/1 client connection.
//! What a backend sends is passed on while it is a response to the request at hand, to the letter; anything else makes the
//! exchange fail. The invariant: no byte behind a response is ever passed on, so none can answer the next request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunk::{ChunkScan, Chunked};
use super::head::{Head, HeadLimits, HeadScan};
use super::held::Held;

/// Interim responses in front of a final one.
const MAX_INTERIM: u8 = 32;

const EXPECTED: u8 = 1;
const HEAD_METHOD: u8 = 2;
const CONNECT_METHOD: u8 = 4;
const UPGRADE: u8 = 8;

/// The line between a [`ResponseGate`] and the pool that owns its connection.
#[derive(Debug, Default)]
pub struct ResponseControl {
    /// The request announced and not begun, as flags.
    next: AtomicU8,
    written: AtomicBool,
    replied: AtomicBool,
    poisoned: AtomicBool,
    violation: OnceLock<&'static str>,
}

impl ResponseControl {
    /// Announces the next request, before it is given to hyper: the framing of its response depends on it.
    pub fn expect(&self, method: &Method, upgrade_asked: bool) {
        let mut next = EXPECTED;
        if method == Method::HEAD {
            next |= HEAD_METHOD;
        } else if method == Method::CONNECT {
            next |= CONNECT_METHOD;
        }
        if upgrade_asked {
            next |= UPGRADE;
        }
        self.written.store(false, Ordering::Release);
        self.replied.store(false, Ordering::Release);
        self.next.store(next, Ordering::Release);
    }

    /// Whether a byte of the announced request was written: before that it can go out again on another connection,
    /// whatever it is.
    pub fn request_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Whether a byte of the response to the announced request has come.
    pub fn replied(&self) -> bool {
        self.replied.load(Ordering::Acquire)
    }

    /// Whether bytes came that answer no request: the connection must not be used again.
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// What was wrong with the response, if its exchange failed for that.
    pub fn violation(&self) -> Option<&'static str> {
        self.violation.get().copied()
    }
}

#[derive(Debug)]
enum Phase {
    /// No request is being answered.
    Idle,
    Head,
    Length(u64),
    Chunked(Box<ChunkScan>),
    /// The body ends where the stream ends.
    UntilEof,
    Tunnel,
    Broken(&'static str),
}

/// A backend's stream as hyper's client connection reads and writes it.
#[derive(Debug)]
pub struct ResponseGate<S> {
    io: S,
    held: Held,
    track: Track,
}

#[derive(Debug)]
struct Track {
    phase: Phase,
    scan: HeadScan,
    limits: HeadLimits,
    control: Arc<ResponseControl>,
    /// The request being answered, as flags.
    request: u8,
    interim: u8,
}

impl Track {
    /// How many of the bytes may be passed on. The rest is an incomplete head, or is lost, as the phase says.
    fn follow(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = data.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            match &mut self.phase {
                Phase::Idle => {
                    self.control.poisoned.store(true, Ordering::Release);
                    return at;
                }
                Phase::Head => match self.scan.response(rest, self.limits) {
                    Ok(None) => return at,
                    Ok(Some(head)) => match self.begin(&head) {
                        Ok(()) => at += head.len,
                        Err(reason) => {
                            self.phase = Phase::Broken(reason);
                            return at;
                        }
                    },
                    Err(violation) => {
                        self.phase = Phase::Broken(violation.reason);
                        return at;
                    }
                },
                Phase::Length(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |l| l.min(rest.len()));
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.phase = Phase::Idle;
                    }
                }
                Phase::Chunked(body) => {
                    let (taken, state) = body.scan(rest);
                    at += taken;
                    match state {
                        Chunked::More => {}
                        Chunked::Done => self.phase = Phase::Idle,
                        Chunked::Bad(reason) => {
                            self.phase = Phase::Broken(reason);
                            return at;
                        }
                    }
                }
                Phase::UntilEof | Phase::Tunnel => return data.len(),
                Phase::Broken(_) => return at,
            }
        }
    }

    /// How the body of a response is framed (RFC 9112 6.3).
    fn begin(&mut self, head: &Head) -> Result<(), &'static str> {
        self.scan = HeadScan::default();
        let asked = |flag| self.request & flag != 0;
        self.phase = match head.status {
            101 if asked(UPGRADE) => Phase::Tunnel,
            101 => return Err("switching protocols was not asked for"),
            100..=199 => {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err("too many interim responses");
                }
                Phase::Head
            }
            200..=299 if asked(CONNECT_METHOD) => Phase::Tunnel,
            204 | 304 => Phase::Idle,
            _ if asked(HEAD_METHOD) => Phase::Idle,
            _ if head.chunked => {
                Phase::Chunked(Box::new(ChunkScan::new(self.limits.max_header_fields)))
            }
            _ => match head.length {
                Some(0) => Phase::Idle,
                Some(length) => Phase::Length(length),
                None => Phase::UntilEof,
            },
        };
        Ok(())
    }
}

impl<S> ResponseGate<S> {
    /// Puts a gate in front of `io`.
    pub fn new(io: S, limits: HeadLimits) -> (Self, Arc<ResponseControl>) {
        let control = Arc::new(ResponseControl::default());
        let track = Track {
            phase: Phase::Idle,
            scan: HeadScan::default(),
            limits,
            control: Arc::clone(&control),
            request: 0,
            interim: 0,
        };
        (Self { io, held: Held::default(), track }, control)
    }

    /// The stream, and what was read from it and not passed on to hyper. After an upgrade it comes behind hyper's own
    /// `Parts::read_buf`.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.held.into_bytes())
    }

    /// The control of this gate.
    pub fn control(&self) -> &Arc<ResponseControl> {
        &self.track.control
    }

    fn arrived(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        if !matches!(self.track.phase, Phase::Idle) {
            self.track.control.replied.store(true, Ordering::Release);
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.held.is_empty() {
            let passed = self.track.follow(new);
            self.held.keep(new.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
        } else {
            self.held.keep(new);
            buf.set_filled(before);
            let passed = self.track.follow(self.held.waiting());
            self.held.approve(passed);
        }
        if matches!(self.track.phase, Phase::Idle | Phase::Broken(_)) {
            self.held.drop_waiting();
        }
    }

    /// The stream has ended: cleanly only where a response may end.
    fn ended(&mut self) -> io::Result<()> {
        let reason = match self.track.phase {
            Phase::Head if self.held.is_empty() => return Ok(()),
            Phase::Head => "backend closed inside a response head",
            Phase::Length(_) | Phase::Chunked(_) => "backend closed inside a response body",
            _ => return Ok(()),
        };
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason))
    }
}

impl<S: AsyncRead + Unpin> ResponseGate<S> {
    /// Begins the announced exchange with its first byte. Until then everything that comes is surplus, and what has come
    /// already must not be taken for its answer.
    fn begin_exchange(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !matches!(self.track.phase, Phase::Idle) {
            return Ok(());
        }
        let next = self.track.control.next.swap(0, Ordering::AcqRel);
        if next == 0 {
            return Ok(());
        }
        let mut scratch = [0; 64];
        let mut buf = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) => {
                if !buf.filled().is_empty() {
                    self.track.control.poisoned.store(true, Ordering::Release);
                }
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "idle connection was closed",
                ));
            }
        }
        if self.track.control.poisoned() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "surplus bytes before the request",
            ));
        }
        self.track.request = next;
        self.track.interim = 0;
        self.track.phase = Phase::Head;
        Ok(())
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.track.control.written.store(true, Ordering::Release);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ResponseGate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.held.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            match this.track.phase {
                Phase::Tunnel => return Pin::new(&mut this.io).poll_read(cx, buf),
                Phase::Broken(reason) => {
                    // Only the first reason counts, and it stays.
                    let _ = this.track.control.violation.set(reason);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                _ if this.track.control.poisoned() => return Poll::Ready(Ok(())),
                _ => {}
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            if buf.filled().len() == before {
                return Poll::Ready(this.ended());
            }
            this.arrived(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ResponseGate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_exchange(cx)?;
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_exchange(cx)?;
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for ResponseGate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        hyper::rt::Read::poll_read(Pin::new(&mut TokioIo::new(self.get_mut())), cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for ResponseGate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }
}
