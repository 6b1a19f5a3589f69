//! What a request gate and the service behind hyper tell each other, out of band.
//! The invariant: heads are numbered by the gate as it passes them on, and by the service as it is called; a rejection
//! and a decision about a tunnel belong to one number, however far a client has pipelined ahead.

use std::task::Waker;

use http::StatusCode;
use tokio::time::{Duration, Instant};

use super::head::Violation;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a refused request's target that are kept for the log.
const MAX_TARGET: usize = 256;
/// Bytes of a refused request's method that are kept for the log.
const MAX_METHOD: usize = 32;

const UNDECIDED: u8 = 0;
const TUNNEL: u8 = 1;
const NO_TUNNEL: u8 = 2;

/// A limit of a client's own making that a gate has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateLimit {
    /// `GateTimeouts::head`, where `read` would have allowed more.
    Head,
    /// `GateTimeouts::stall`.
    Stall,
}

/// Why a request was refused at the gate, and how it is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status to answer with.
    pub status: StatusCode,
    /// The reason, for the log and for the body of the answer.
    pub reason: &'static str,
    /// The method, as far as one could be made out.
    pub method: Option<Box<str>>,
    /// The target, as far as one could be made out: 256 printable characters at most.
    pub target: Option<Box<str>>,
}

impl Rejection {
    pub(super) fn new(violation: Violation, head: &[u8]) -> Self {
        let start = head.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(head.len());
        let line = head.get(start..).unwrap_or_default();
        let line = line.get(..MAX_METHOD + 1 + MAX_TARGET + 1).unwrap_or(line);
        let line = line.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
        let mut parts = line.split(|&b| b == b' ');
        Self {
            status: violation.status,
            reason: violation.reason,
            method: parts.next().and_then(|part| printable(part, MAX_METHOD)),
            target: parts.next().and_then(|part| printable(part, MAX_TARGET)),
        }
    }
}

fn printable(part: &[u8], max: usize) -> Option<Box<str>> {
    let text: String = part
        .iter()
        .take(max)
        .map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '?' })
        .collect();
    (!text.is_empty()).then(|| text.into_boxed_str())
}

/// The line between a [`RequestGate`](super::RequestGate) and the service of its connection.
#[derive(Debug)]
pub struct GateControl {
    /// Heads passed on to hyper.
    delivered: AtomicU64,
    /// Requests whose last byte was passed on.
    received: AtomicU64,
    /// Requests that the service has begun.
    begun: AtomicU64,
    /// Requests whose guard is gone.
    ended: AtomicU64,
    created: Instant,
    /// When the last guard went, in milliseconds since `created`.
    ended_at: AtomicU64,
    /// The number of the last head that asked for an upgrade, 0 for none.
    upgrade: AtomicU64,
    decision: AtomicU8,
    /// The number of the first head that asked for the connection to be closed, 0 for none.
    close: AtomicU64,
    timed_out: AtomicBool,
    resting: AtomicBool,
    write_limit: Option<Duration>,
    /// Until when the current response must be written, in milliseconds since `created`; 0 for never.
    write_until: AtomicU64,
    slow: Mutex<Slow>,
}

#[derive(Debug, Default)]
struct Slow {
    rejected: Option<(u64, Rejection)>,
    reached: Option<GateLimit>,
    body_violation: Option<&'static str>,
    waker: Option<Waker>,
}

/// A request being answered. The connection counts as idle when all of them are gone: keep it until the last byte of
/// the response body was handed to hyper, best inside the body.
#[derive(Debug)]
pub struct InFlight {
    control: Arc<GateControl>,
    over: Option<Instant>,
}

impl InFlight {
    /// Notes when it was over, for who has just looked at the clock.
    pub fn over(&mut self, now: Instant) {
        self.over = Some(now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let control = &self.control;
        let over = self.over.unwrap_or_else(Instant::now);
        let since = over.saturating_duration_since(control.created).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        control.ended_at.store(since, Ordering::Release);
        control.ended.fetch_add(1, Ordering::Release);
    }
}

impl GateControl {
    pub(super) fn new(write_limit: Option<Duration>) -> Self {
        Self {
            delivered: AtomicU64::new(0),
            received: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            created: Instant::now(),
            ended_at: AtomicU64::new(0),
            upgrade: AtomicU64::new(0),
            decision: AtomicU8::new(UNDECIDED),
            close: AtomicU64::new(0),
            timed_out: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            write_limit,
            write_until: AtomicU64::new(0),
            slow: Mutex::default(),
        }
    }

    /// To be called first thing, once per call of the service. The error is the answer to give: hyper's request is then
    /// a stand-in for one that the gate has refused.
    pub fn admit(self: &Arc<Self>) -> Result<InFlight, Rejection> {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let guard = InFlight { control: Arc::clone(self), over: None };
        if let Some(limit) = self.write_limit {
            let until = (self.created.elapsed() + limit).as_millis();
            self.write_until.store(u64::try_from(until).unwrap_or(0), Ordering::Release);
        } else if self.write_until.load(Ordering::Acquire) > 0 {
            // What the response before this one had.
            self.write_until.store(0, Ordering::Release);
        }
        // A refused head is the last one of its connection.
        if number == self.delivered.load(Ordering::Acquire)
            && let Some((at, rejection)) = &self.slow().rejected
            && *at == number
        {
            return Err(rejection.clone());
        }
        Ok(guard)
    }

    /// To be called once per request when the status of its response is known, before hyper gets the response. Nobody
    /// decides earlier: what one server refuses, a retry may get granted by another.
    pub fn answered(&self, status: StatusCode) {
        if self.upgrade.load(Ordering::Acquire) == 0 {
            return;
        }
        if status == StatusCode::SWITCHING_PROTOCOLS { self.tunnel() } else { self.no_tunnel() }
    }

    /// The request being answered becomes a tunnel: what follows it are raw bytes.
    pub fn tunnel(&self) {
        self.decide(TUNNEL);
    }

    /// The request being answered stays an ordinary one: what follows it is the next request.
    pub fn no_tunnel(&self) {
        self.decide(NO_TUNNEL);
    }

    /// The current response must be written by then, if not before.
    pub fn write_until(&self, until: Instant) {
        let until = until.saturating_duration_since(self.created).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX).max(1);
        let sooner = |known: u64| (known == 0 || known > until).then_some(until);
        let _ = self.write_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, sooner);
    }

    /// How many request heads were passed on, a refused one included.
    pub fn requests(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Whether the request being answered has come to its last byte. If not, the connection cannot be used after an
    /// answer that leaves the rest unread.
    pub fn has_whole_request(&self) -> bool {
        self.received.load(Ordering::Acquire) >= self.begun.load(Ordering::Acquire)
    }

    /// Whether the request being answered asks for the connection to be closed behind it, where hyper may overlook it: in
    /// a line that is not ASCII, and in front of a line with `keep-alive` (RFC 9112 9.6).
    pub fn asked_to_close(&self) -> bool {
        let asked = self.close.load(Ordering::Acquire);
        asked != 0 && asked <= self.begun.load(Ordering::Acquire)
    }

    /// What was wrong with the body of the request being read, if its body failed for that.
    pub fn body_violation(&self) -> Option<&'static str> {
        self.slow().body_violation
    }

    /// Whether the body of the request being read failed because it took too long.
    pub fn body_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Since when the client has asked for nothing, if the gate has ended the server connection for that and for no
    /// other reason: the stream is as good as new.
    pub fn rests_since(&self) -> Option<Instant> {
        self.resting.load(Ordering::Acquire).then(|| self.last_end())
    }

    /// What has ended the connection, if it was one of these limits.
    pub fn reached(&self) -> Option<GateLimit> {
        self.slow().reached
    }

    /// Only the request that asked may decide, not one that was pipelined in front of it.
    fn decide(&self, decision: u8) {
        let asked = self.upgrade.load(Ordering::Acquire);
        if asked == 0 || asked != self.begun.load(Ordering::Acquire) {
            return;
        }
        let first = self
            .decision
            .compare_exchange(UNDECIDED, decision, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if first && decision == TUNNEL {
            self.write_until.store(0, Ordering::Release);
        }
        if first && let Some(waker) = { self.slow().waker.take() } {
            waker.wake();
        }
    }

    pub(super) fn head_delivered(&self, upgrade: bool, close: bool) {
        let number = self.delivered.fetch_add(1, Ordering::AcqRel) + 1;
        if close && self.close.load(Ordering::Acquire) == 0 {
            self.close.store(number, Ordering::Release);
        }
        if upgrade {
            self.decision.store(UNDECIDED, Ordering::Release);
            self.upgrade.store(number, Ordering::Release);
        }
    }

    pub(super) fn reach(&self, limit: GateLimit) {
        self.slow().reached = Some(limit);
    }

    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Release);
    }

    pub(super) fn request_received(&self) {
        self.received.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn reject(&self, rejection: Rejection) {
        let number = self.delivered.load(Ordering::Acquire) + 1;
        self.slow().rejected = Some((number, rejection));
        self.delivered.store(number, Ordering::Release);
    }

    /// Whether the last upgrade was decided, and how. While it was not, the waker is kept.
    pub(super) fn decision(&self, waker: &Waker) -> Option<bool> {
        if self.decision.load(Ordering::Acquire) == UNDECIDED {
            self.slow().waker = Some(waker.clone());
        }
        match self.decision.load(Ordering::Acquire) {
            TUNNEL => Some(true),
            NO_TUNNEL => Some(false),
            _ => None,
        }
    }

    pub(super) fn fail_body(&self, reason: &'static str) {
        self.slow().body_violation = Some(reason);
    }

    pub(super) fn body_overdue(&self) {
        self.timed_out.store(true, Ordering::Release);
    }

    /// Until when the current response must be written.
    pub(super) fn write_deadline(&self) -> Option<Instant> {
        let until = self.write_until.load(Ordering::Acquire);
        (until > 0).then(|| self.created + Duration::from_millis(until))
    }

    /// Since when no request has been in progress; `None` while one is, or waits in hyper's buffer.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let delivered = self.delivered.load(Ordering::Acquire);
        (self.ended.load(Ordering::Acquire) >= delivered).then(|| self.last_end())
    }

    /// Since when the last request passed on has been the current one; `None` while one before it is in progress.
    pub(super) fn current_since(&self) -> Option<Instant> {
        let delivered = self.delivered.load(Ordering::Acquire);
        (self.ended.load(Ordering::Acquire) + 1 >= delivered).then(|| self.last_end())
    }

    fn last_end(&self) -> Instant {
        self.created + Duration::from_millis(self.ended_at.load(Ordering::Acquire))
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
