//! The gate between a client's stream and hyper's HTTP/1 server connection.
//! It follows the messages in what the client sends and lets through whole validated heads and validated body bytes, in
//! place where they come in whole. A refused head is replaced by a stand-in request, and the service answers for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::chunk::{ChunkScan, Chunked};
use super::control::{GateControl, GateLimit, Rejection};
use super::head::{Head, HeadLimits, HeadScan, NOISE, Violation};
use super::held::Held;
use super::timer::LazySleep;

/// Bytes that are taken in while it is not decided whether they belong to a tunnel.
const MAX_UNDECIDED: usize = 64 * 1024;
/// How much of what a client still sends is read after our last byte, so that it gets the answer and no reset.
const LINGER_BYTES: usize = 1 << 20;
/// And for how long.
const LINGER_TIME: Duration = Duration::from_secs(1);

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";
/// The answer to HEAD has no body, the answer to a refused HEAD neither.
const STAND_IN_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";

/// How long a client may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct GateTimeouts {
    /// From the end of a response to the first byte of the next request: the connection is closed.
    pub idle: Option<Duration>,
    /// From the first byte of a head (for the first one: from the start of the connection) to its end, then the
    /// connection is closed; and to the end of its body, then the body fails with `TimedOut`.
    pub read: Option<Duration>,
    /// How `read` applies to bodies.
    pub body: BodyTimeout,
    /// From the call of the service to the last byte of its response: a write that is held up, or goes on, beyond it
    /// fails with `TimedOut`. A tunnel has no such limit.
    pub write: Option<Duration>,
    /// After so long without a request the server connection is told that the client has gone, although it has not:
    /// its stream is free for something that takes less memory (see [`GateControl::rests_since`]).
    pub rest: Option<Duration>,
    /// For a head alone, where that is less than `read`.
    pub head: Option<Duration>,
    /// When the first head must be there, if not before: a client may have taken its time already.
    pub head_by: Option<Instant>,
    /// How long a client may take nothing of what there is for it, then the write fails with `TimedOut`. A tunnel has
    /// no such limit.
    pub stall: Option<Duration>,
}

impl GateTimeouts {
    /// For a head, from its first byte on.
    fn of_head(&self) -> Option<Duration> {
        [self.read, self.head].into_iter().flatten().min()
    }
}

/// What the read timeout means for a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyTimeout {
    /// The whole request has to be there in time, as with Traefik's `readTimeout`.
    #[default]
    Total,
    /// No single wait for further bytes may take longer.
    PerRead,
}

/// A client's stream as hyper's server connection reads and writes it.
#[derive(Debug)]
pub struct RequestGate<S> {
    io: S,
    held: Held,
    track: Track,
    timeouts: GateTimeouts,
    timer: LazySleep,
    write_timer: LazySleep,
    /// When the message being read began, with its number.
    started: Option<(u64, Instant)>,
    /// Since when a body is being waited for.
    waiting: Option<Instant>,
    eof: bool,
    write_blocked: bool,
    flush_blocked: bool,
    /// Since when the client takes nothing.
    blocked: Option<Instant>,
    resting: bool,
    /// Bytes that may still be drained, once the write side is shut.
    linger: Option<usize>,
}

#[derive(Debug)]
enum Phase {
    Head,
    Length(u64),
    Chunked(Box<ChunkScan>),
    /// Behind a request that asked for an upgrade.
    Undecided,
    Tunnel,
    /// A head was refused; `true` once the stand-in took its place.
    Rejected(bool),
    /// A body broke the rules.
    Broken(&'static str),
    /// What came is no HTTP/1: nothing is passed on, nothing is answered.
    Noise,
}

/// Where the stream is, in messages.
#[derive(Debug)]
struct Track {
    phase: Phase,
    scan: HeadScan,
    limits: HeadLimits,
    control: Arc<GateControl>,
    /// The message being read asked for an upgrade.
    upgrade: bool,
    /// Messages read to their end.
    ended: u64,
    refused_head_request: bool,
}

impl Track {
    /// Follows the stream through bytes that continue it, and says how many of them may be passed on. The rest is an
    /// incomplete head, waits for a decision, or is lost, as the phase says.
    fn follow(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = data.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            match &mut self.phase {
                Phase::Head => match self.scan.request(rest, self.limits) {
                    Ok(None) => return at,
                    Ok(Some(head)) => {
                        at += head.len;
                        self.begin(&head);
                    }
                    Err(NOISE) if self.limits.close_on_noise && self.control.requests() == 0 => {
                        self.phase = Phase::Noise;
                        return at;
                    }
                    Err(violation) => {
                        self.reject(violation, rest);
                        return at;
                    }
                },
                Phase::Length(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |l| l.min(rest.len()));
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.end();
                    }
                }
                Phase::Chunked(body) => {
                    let (taken, state) = body.scan(rest);
                    at += taken;
                    match state {
                        Chunked::More => {}
                        Chunked::Done => self.end(),
                        Chunked::Bad(reason) => {
                            self.phase = Phase::Broken(reason);
                            return at;
                        }
                    }
                }
                Phase::Tunnel => return data.len(),
                Phase::Undecided | Phase::Rejected(_) | Phase::Broken(_) | Phase::Noise => {
                    return at;
                }
            }
        }
    }

    fn begin(&mut self, head: &Head) {
        self.scan = HeadScan::default();
        self.upgrade = head.upgrade;
        self.control.head_delivered(head.upgrade, head.close);
        match head.length {
            _ if head.chunked => {
                self.phase =
                    Phase::Chunked(Box::new(ChunkScan::new(self.limits.max_header_fields)));
            }
            Some(length) if length > 0 => self.phase = Phase::Length(length),
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        self.ended += 1;
        self.control.request_received();
        self.phase = if self.upgrade { Phase::Undecided } else { Phase::Head };
    }

    #[cold]
    fn reject(&mut self, violation: Violation, head: &[u8]) {
        let rejection = Rejection::new(violation, head);
        self.refused_head_request = rejection.method.as_deref() == Some("HEAD");
        self.control.reject(rejection);
        self.phase = Phase::Rejected(false);
    }

    fn in_body(&self) -> bool {
        matches!(self.phase, Phase::Length(_) | Phase::Chunked(_))
    }
}

impl<S> RequestGate<S> {
    /// Puts a gate in front of `io`. `prefix` was already read from it, for instance to find out the protocol.
    pub fn new(
        io: S,
        prefix: Bytes,
        limits: HeadLimits,
        timeouts: GateTimeouts,
    ) -> (Self, Arc<GateControl>) {
        let control = Arc::new(GateControl::new(timeouts.write));
        let track = Track {
            phase: Phase::Head,
            scan: HeadScan::default(),
            limits,
            control: Arc::clone(&control),
            upgrade: false,
            ended: 0,
            refused_head_request: false,
        };
        let mut gate = Self {
            io,
            held: Held::new(prefix),
            track,
            timeouts,
            timer: LazySleep::default(),
            write_timer: LazySleep::default(),
            started: None,
            waiting: None,
            eof: false,
            write_blocked: false,
            flush_blocked: false,
            blocked: None,
            resting: false,
            linger: None,
        };
        gate.follow_held();
        (gate, control)
    }

    /// The stream, and what was read from it and not passed on to hyper. After an upgrade it comes behind hyper's own
    /// `Parts::read_buf`.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.held.into_bytes())
    }

    /// The control of this gate.
    pub fn control(&self) -> &Arc<GateControl> {
        &self.track.control
    }

    fn follow_held(&mut self) {
        let passed = self.track.follow(self.held.waiting());
        self.held.approve(passed);
        self.settle();
    }

    /// Bytes have arrived in `buf` behind its first `before` ones.
    fn arrived(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        self.waiting = None;
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.held.is_empty() {
            let passed = self.track.follow(new);
            self.held.keep(new.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
            self.settle();
        } else {
            self.held.keep(new);
            buf.set_filled(before);
            self.follow_held();
        }
    }

    /// Brings what is held in line with the phase after the stream was followed.
    fn settle(&mut self) {
        match &mut self.track.phase {
            Phase::Rejected(announced @ false) => {
                *announced = true;
                let stand_in =
                    if self.track.refused_head_request { STAND_IN_HEAD } else { STAND_IN };
                self.held.replace_waiting(stand_in);
            }
            Phase::Broken(_) | Phase::Noise => self.held.drop_waiting(),
            _ => {}
        }
        if self.timeouts.of_head().is_some() {
            let inside = self.track.in_body()
                || (matches!(self.track.phase, Phase::Head) && !self.held.waiting().is_empty());
            let number = self.track.ended;
            if !inside {
                self.started = None;
            } else if self.started.is_none_or(|(of, _)| of != number) {
                self.started = Some((number, Instant::now()));
            }
        }
    }

    /// The limit that applies now.
    fn deadline(&self) -> Option<Instant> {
        let control = &self.track.control;
        let read = self.timeouts.read;
        let started = self.started.map(|(_, at)| at);
        match self.track.phase {
            Phase::Head if control.requests() == 0 => {
                let since = started.or_else(|| control.idle_since())?;
                let limit = self.timeouts.of_head().map(|limit| since + limit);
                [limit, self.timeouts.head_by].into_iter().flatten().min()
            }
            Phase::Head if started.is_some() => {
                // A head that was pipelined has its time when the requests before it have had theirs.
                Some(started?.max(control.idle_since()?) + self.timeouts.of_head()?)
            }
            Phase::Head if self.write_blocked => None,
            Phase::Head => {
                let rest = self.timeouts.rest.filter(|_| self.may_rest());
                let wait = [rest, self.timeouts.idle].into_iter().flatten().min()?;
                Some(control.idle_since()? + wait)
            }
            Phase::Length(_) | Phase::Chunked(_) => match self.timeouts.body {
                BodyTimeout::Total => Some(started?.max(control.current_since()?) + read?),
                BodyTimeout::PerRead => Some(self.waiting? + read?),
            },
            Phase::Undecided
            | Phase::Tunnel
            | Phase::Rejected(_)
            | Phase::Broken(_)
            | Phase::Noise => None,
        }
    }

    /// Whether nothing is left of what was exchanged so far.
    fn may_rest(&self) -> bool {
        matches!(self.track.phase, Phase::Head)
            && self.held.is_empty()
            && !self.write_blocked
            && !self.flush_blocked
            && self.track.control.requests() > 0
    }

    /// A client that always has one more byte never makes us wait: look at the clock, not only at the timer.
    fn is_overdue(&self) -> bool {
        self.started.is_some()
            && (self.timeouts.body == BodyTimeout::Total || !self.track.in_body())
            && self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    fn overdue(&mut self) -> io::Result<()> {
        if self.track.in_body() {
            self.track.control.body_overdue();
            return Err(io::Error::new(io::ErrorKind::TimedOut, "request body took too long"));
        }
        if self.timeouts.rest.is_some() && self.may_rest() {
            self.resting = true;
            self.track.control.rest();
        }
        let first = self.track.control.requests() == 0;
        let GateTimeouts { head, head_by, .. } = self.timeouts;
        let by = first && head_by.is_some_and(|by| by <= Instant::now());
        let in_head = first || self.started.is_some();
        if by || (in_head && head.is_some() && head == self.timeouts.of_head()) {
            self.track.control.reach(GateLimit::Head);
        }
        self.eof = true;
        self.held.drop_waiting();
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.track.phase, Phase::Tunnel | Phase::Rejected(_) | Phase::Broken(_)) {
            return Poll::Pending;
        }
        if self.timeouts.read.is_some() && self.track.in_body() && self.waiting.is_none() {
            self.waiting = Some(Instant::now());
        }
        let GateTimeouts { idle, read, rest, head, .. } = self.timeouts;
        let lull = [idle, read, rest, head].into_iter().flatten().min();
        ready!(self.timer.poll(cx, self.deadline(), lull));
        Poll::Ready(self.overdue())
    }

    /// Lets what waits behind an upgrade go where it was decided to go.
    fn decide(&mut self, cx: &Context<'_>) -> bool {
        match self.track.control.decision(cx.waker()) {
            None => return false,
            Some(true) => {
                self.track.phase = Phase::Tunnel;
                self.timer.clear();
            }
            Some(false) => self.track.phase = Phase::Head,
        }
        self.follow_held();
        true
    }

    /// Whether the client may still be sending what nobody will read.
    fn has_unread(&self) -> bool {
        match self.track.phase {
            _ if self.eof => false,
            Phase::Tunnel => false,
            Phase::Head => !self.held.is_empty(),
            _ => true,
        }
    }
}

impl<S: AsyncRead + Unpin> RequestGate<S> {
    /// Reads what may only be passed on later, and watches for the end of the stream meanwhile.
    fn poll_undecided(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while !self.eof && self.held.waiting().len() < MAX_UNDECIDED {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let new = buf.filled().get(before..).unwrap_or_default();
            self.eof = new.is_empty();
            self.held.keep(new);
            buf.set_filled(before);
        }
        // What was sent before the end still has a reader, once it is decided which one.
        if self.eof && self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, mut left: usize) -> Poll<()> {
        let mut scratch = [0; 8192];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && left > buf.filled().len() => {
                    left -= buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.linger = Some(left);
        let deadline = *self.waiting.get_or_insert_with(|| Instant::now() + LINGER_TIME);
        self.timer.poll(cx, Some(deadline), None)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestGate<S> {
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
                    this.track.control.fail_body(reason);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                // Not the end of the stream: hyper would drop the connection before the answer is out. It closes the
                // connection after the answer.
                Phase::Rejected(_) => return Poll::Pending,
                Phase::Noise => return Poll::Ready(Ok(())),
                Phase::Undecided => {
                    if this.decide(cx) {
                        continue;
                    }
                    return this.poll_undecided(cx, buf);
                }
                _ if this.eof => return Poll::Ready(Ok(())),
                _ => {}
            }
            if this.is_overdue() {
                return Poll::Ready(this.overdue());
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return this.poll_timer(cx),
            }
            if buf.filled().len() == before {
                this.eof = true;
                return Poll::Ready(Ok(()));
            }
            this.arrived(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RequestGate<S> {
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.write_blocked = result.is_pending();
        if result.is_ready() {
            self.blocked = None;
        }
        let Some(deadline) = self.track.control.write_deadline() else {
            return self.in_time(cx, result);
        };
        // A client that always takes one more byte never makes us wait.
        if result.is_ready() && deadline <= Instant::now() {
            return Poll::Ready(Err(too_slow()));
        }
        self.in_time(cx, result)
    }

    /// hyper asks neither for bytes to read nor the body for more while it cannot write, so the time is kept here.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            return result;
        }
        let stall = self.timeouts.stall.filter(|_| !matches!(self.track.phase, Phase::Tunnel));
        let stalled = stall.map(|stall| *self.blocked.get_or_insert_with(Instant::now) + stall);
        let deadline = [self.track.control.write_deadline(), stalled].into_iter().flatten().min();
        if deadline.is_none() {
            return result;
        }
        ready!(self.write_timer.poll(cx, deadline, None));
        if deadline == stalled {
            self.track.control.reach(GateLimit::Stall);
        }
        Poll::Ready(Err(too_slow()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestGate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.flush_blocked = result.is_pending();
        if result.is_ready() {
            this.blocked = None;
        }
        this.in_time(cx, result)
    }

    /// Shuts the write side, then reads for a moment what an unfinished or refused request still sends: closing a socket
    /// with unread bytes resets it, and the client may lose the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.resting {
            return Poll::Ready(Ok(()));
        }
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.has_unread() {
                return Poll::Ready(Ok(()));
            }
            this.waiting = None;
        }
        let left = this.linger.unwrap_or(LINGER_BYTES);
        this.poll_linger(cx, left).map(Ok)
    }
}

#[cold]
fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long to read the response")
}
