//! HTTP/1.1 and HTTP/2 on one connection: hyper's server behind our gate, one request at a time in.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Door, Stream};
use super::cork::{Farewell, cork};
use super::exchange::answer;
use super::frames::Ledger;
use super::guard::Limit;
use super::overload::Pace;
use super::rest::{Home, Lent, REST_AFTER, leave, rest};
use super::stream::{Stall, Stream as HttpStream};
use crate::exchange::memory::Held;
use crate::exchange::{Connection, Response};
use crate::wire::{GateControl, GateLimit, GateTimeouts, HeadLimits, LazySleep, RequestGate};

/// Bytes that hyper may buffer beyond the largest head.
const BUFFER_SLACK: usize = 64 * 1024;
/// Default size of hyper's read buffer, which our limit must not undercut.
const MIN_BUFFER: usize = 400 * 1024;

/// Bytes of one answer that wait for a client of HTTP/2 besides what is being written.
const SEND_BUFFER: usize = 64 * 1024;

/// For the last words to a client that has used up what it may send.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a client of HTTP/2 that has nothing open may take to close after GOAWAY.
const LEAVE_TIME: Duration = Duration::from_secs(10);

/// How much hyper lets a client of HTTP/2 send ahead.
const USUAL_WINDOW: u32 = 1 << 20;

/// How long a connection of HTTP/2 may rest when resources run short.
const TIRED: Duration = Duration::from_secs(1);

/// What the requests of one connection share.
pub(super) struct Conversation {
    pub(super) door: Arc<Door>,
    pub(super) connection: Arc<Connection>,
    /// HTTP/1 only.
    pub(super) gate: Option<Arc<GateControl>>,
    /// Whether the client's forwarded headers count.
    pub(super) trusted: bool,
    requests: AtomicU64,
    open: AtomicUsize,
    /// Requests that were answered to their end.
    pub(super) answered: AtomicU64,
    /// HTTP/2 only: bytes that the client has taken.
    pub(super) delivered: AtomicU64,
    /// HTTP/2 only: heads that were refused because they had too many fields.
    pub(super) bombs: AtomicU64,
    /// HTTP/2 only: size of the heads of the requests that are open.
    pub(super) heads: AtomicUsize,
    /// Milliseconds from the opening of the connection to the end of its last request.
    last_busy: AtomicU64,
    closing: AtomicBool,
    /// What is held for the connection, where that is counted.
    pub(super) held: Option<Arc<Held>>,
}

impl Conversation {
    pub(super) fn new(
        door: &Arc<Door>,
        connection: Arc<Connection>,
        gate: Option<Arc<GateControl>>,
        held: Option<&Arc<Held>>,
        requests: u64,
    ) -> Arc<Self> {
        let trusted = door.entry_point.trusted.trust(connection.peer_ip);
        Arc::new(Self {
            door: Arc::clone(door),
            connection,
            gate,
            trusted,
            requests: AtomicU64::new(requests),
            open: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            bombs: AtomicU64::new(0),
            heads: AtomicUsize::new(0),
            last_busy: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            held: held.cloned(),
        })
    }

    /// Counts a request in; whether it is the last that this connection may carry
    /// (`keepAliveMaxRequests`, `keepAliveMaxTime`).
    pub(super) fn is_last(&self, now: Instant) -> bool {
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        let entry_point = &self.door.entry_point;
        let many = entry_point.keep_alive_max_requests;
        let last = many > 0 && requests >= many
            || entry_point
                .keep_alive_max_time
                .is_some_and(|age| now - self.connection.opened > age);
        if last {
            self.closing.store(true, Relaxed);
        } else if self.door.stops_keep_alive() {
            if !self.closing.swap(true, Relaxed)
                && let Some(overload) = &self.door.shared.overload
            {
                overload.count_not_kept_alive();
            }
            return true;
        }
        last
    }

    /// Whether nothing is open, and has not been for long enough to be closed when resources run short.
    fn is_tired(&self) -> bool {
        self.door.closes_idle() && self.open() == 0 && self.idle_since() + TIRED <= Instant::now()
    }

    /// Requests that are not over. HTTP/2 only.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// HTTP/2 only, for a request that is open: whether others are.
    pub(super) fn has_others(&self) -> bool {
        self.open.load(Relaxed) > 1
    }

    /// Takes note that the client has reached a limit.
    pub(super) fn hit(&self, limit: Limit) {
        self.door.shared.guard.hit(limit, &self.door.entry_point, self.connection.peer);
    }

    fn idle_since(&self) -> Instant {
        self.connection.opened + Duration::from_millis(self.last_busy.load(Relaxed))
    }
}

/// Serves HTTP/1 over `stream`, of which `first` was read already.
pub(super) async fn serve_http1<S: Stream>(
    door: &Arc<Door>,
    connection: Arc<Connection>,
    held: Option<&Arc<Held>>,
    stream: S,
    first: Bytes,
) -> io::Result<()> {
    let home = Home::new();
    let mut lent = home.lend(stream, held);
    let mut first = first;
    let mut requests = 0;
    loop {
        let talk = talk(door, Arc::clone(&connection), held, lent, first, requests);
        let pause = Box::pin(talk).await?;
        let Some(mut stream) = home.take() else { return Ok(()) };
        let Some(pause) = pause else { return Box::pin(leave(&mut stream)).await };
        let Some(begun) = rest(door, &mut stream, pause.since).await? else { return Ok(()) };
        (lent, first, requests) = (home.lend(stream, held), begun, pause.requests);
    }
}

/// Why a conversation is over although its connection is not.
struct Pause {
    since: Instant,
    /// Requests so far.
    requests: u64,
}

/// Serves HTTP/1 until the connection ends, or nothing has been asked for a while.
async fn talk<S: Stream>(
    door: &Arc<Door>,
    connection: Arc<Connection>,
    held: Option<&Arc<Held>>,
    stream: Lent<S>,
    first: Bytes,
    requests: u64,
) -> io::Result<Option<Pause>> {
    let entry_point = &door.entry_point;
    let limits = HeadLimits {
        max_head_bytes: entry_point.limits.max_bytes,
        max_header_fields: entry_point.limits.max_fields,
        close_on_noise: !entry_point.facts.exact,
    };
    let own = door.shared.guard.limits();
    let timeouts = GateTimeouts {
        idle: entry_point.timeouts.idle,
        read: entry_point.timeouts.read,
        body: entry_point.timeouts.body,
        write: entry_point.timeouts.write,
        rest: Some(REST_AFTER),
        head: own.head,
        head_by: own.head.filter(|_| requests == 0).map(|limit| connection.opened + limit),
        stall: own.stall,
    };
    let (gate, control) = RequestGate::new(stream, first, limits, timeouts);
    let gate_control = Some(Arc::clone(&control));
    let conversation = Conversation::new(door, connection, gate_control, held, requests);
    let service = service_fn(|request: http::Request<Incoming>| {
        let conversation = Arc::clone(&conversation);
        async move { Ok::<Response, Infallible>(answer(&conversation, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size((entry_point.limits.max_bytes + BUFFER_SLACK).max(MIN_BUFFER));
    if entry_point.limits.max_fields != 100 {
        // hyper's default is 100, and costs less than saying so.
        builder.max_headers(entry_point.limits.max_fields);
    }
    let mut served = pin!(builder.serve_connection(TokioIo::new(gate), service).with_upgrades());
    let mut drain = pin!(door.drain.told());
    let mut unused = pin!(door.unused());
    let mut draining = false;
    let served = poll_fn(|task| {
        // First what has arrived: a request that crosses the shutdown is still answered.
        if let Poll::Ready(ended) = served.as_mut().poll(task) {
            return Poll::Ready(ended);
        }
        if draining {
            return Poll::Pending;
        }
        // Told to stop before its first request, hyper closes at once.
        let begun = conversation.requests.load(Relaxed) > 0;
        let leave = if begun { drain.as_mut().poll(task) } else { unused.as_mut().poll(task) };
        if leave.is_pending() {
            return Poll::Pending;
        }
        draining = true;
        served.as_mut().graceful_shutdown();
        served.as_mut().poll(task)
    })
    .await;
    match control.reached() {
        Some(GateLimit::Head) => conversation.hit(Limit::RequestHead),
        Some(GateLimit::Stall) => conversation.hit(Limit::Answer),
        None => {}
    }
    served.map_err(io::Error::other)?;
    let pause = |since| Pause { since, requests: conversation.requests.load(Relaxed) };
    Ok(control.rests_since().map(pause))
}

/// Serves HTTP/2 over `stream`.
pub(super) async fn serve_http2<S: Stream>(
    door: &Arc<Door>,
    connection: Arc<Connection>,
    held: Option<&Arc<Held>>,
    stream: S,
) -> io::Result<()> {
    let entry_point = &door.entry_point;
    let conversation = Conversation::new(door, connection, None, held, 0);
    let service = service_fn(|request: http::Request<Incoming>| {
        let conversation = Arc::clone(&conversation);
        async move { Ok::<Response, Infallible>(answer(&conversation, request).await) }
    });
    let limits = door.shared.guard.limits();
    let window = door.shared.overload.as_ref().and_then(|one| one.http2_window());
    let pace = Pace::http2(window.unwrap_or(USUAL_WINDOW), held);
    let (corked, cork) = cork(stream, Some(Ledger::new(limits, &conversation)), pace);
    let list_size = u32::try_from(entry_point.limits.max_bytes).unwrap_or(u32::MAX);
    let stall = limits.stall;
    let stall = stall.map(|limit| Stall { limit, conversation: Arc::clone(&conversation) });
    let executor = LocalExecutor { write: entry_point.timeouts.write, stall };
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(entry_point.http2_max_concurrent_streams)
        .max_header_list_size(list_size)
        .max_send_buf_size(SEND_BUFFER)
        .header_table_size(entry_point.http2_max_decoder_table);
    if let Some(window) = window {
        builder.initial_connection_window_size(window).initial_stream_window_size(window);
    }
    let mut served = pin!(builder.serve_connection(TokioIo::new(corked), service));
    let mut late = LazySleep::default();
    let idle = entry_point.timeouts.idle;
    let mut timer = pin!(sleep_until(Instant::now() + idle.unwrap_or_default()));
    let mut drain = pin!(door.drain.told());
    let mut unused = pin!(door.unused());
    let mut leaving = false;
    let ended = poll_fn(|task| {
        if !leaving {
            let begun = conversation.requests.load(Relaxed) > 0;
            let stop = if begun { drain.as_mut().poll(task) } else { unused.as_mut().poll(task) };
            let mut leave = conversation.closing.load(Relaxed) || stop.is_ready();
            if let Some(idle) = idle {
                while !leave && timer.as_mut().poll(task).is_ready() {
                    let busy = conversation.open() > 0;
                    let end = conversation.idle_since() + idle;
                    let now = Instant::now();
                    leave = !busy && end <= now;
                    timer.as_mut().reset(if busy { now + idle } else { end });
                }
            }
            if !leave && conversation.is_tired() {
                leave = true;
                if let Some(overload) = &door.shared.overload {
                    overload.count_idle_closed();
                }
            }
            if leave {
                leaving = true;
                served.as_mut().graceful_shutdown();
                timer.as_mut().reset(Instant::now() + LEAVE_TIME);
            }
        }
        let mut polled = served.as_mut().poll(task);
        if polled.is_pending() && conversation.closing.load(Relaxed) && !leaving {
            // A request that was answered meanwhile was the connection's last.
            leaving = true;
            served.as_mut().graceful_shutdown();
            timer.as_mut().reset(Instant::now() + LEAVE_TIME);
            polled = served.as_mut().poll(task);
        }
        // hyper waits for as long as it takes until the client has answered its farewell.
        while leaving && polled.is_pending() && timer.as_mut().poll(task).is_ready() {
            let now = Instant::now();
            let end = conversation.idle_since() + LEAVE_TIME;
            if conversation.open() == 0 && end <= now {
                return Poll::Ready(Ok(()));
            }
            timer.as_mut().reset(end.max(now + LEAVE_TIME / 10));
        }
        if let (Poll::Ready(Err(error)), true) = (cork.pull(task), polled.is_pending()) {
            tracing::trace!(%error, "a client does not take its answers");
            return Poll::Ready(Ok(()));
        }
        if polled.is_pending()
            && let Some((until, limit)) = cork.due(limits.stall, limits.head)
            && late.poll(task, Some(until), None).is_ready()
        {
            match limit {
                // Who takes nothing would not hear it.
                Limit::Answer => conversation.hit(limit),
                limit => cork.spend(limit),
            }
            return Poll::Ready(Ok(()));
        }
        polled
    })
    .await;
    if let Some(limit) = cork.spent() {
        conversation.hit(limit);
        let mut farewell = Farewell::Due;
        let farewell = poll_fn(|task| cork.poll_farewell(task, &mut farewell));
        let _ = timeout(FAREWELL, farewell).await;
        return Ok(());
    }
    ended.map_err(io::Error::other)
}

/// A request that is not over keeps its connection from being idle.
pub(super) struct Busy(Arc<Conversation>);

impl Busy {
    pub(super) fn new(conversation: &Arc<Conversation>) -> Self {
        conversation.open.fetch_add(1, Relaxed);
        Self(Arc::clone(conversation))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let since = self.0.connection.opened.elapsed().as_millis();
        self.0.last_busy.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Spawns the exchange of each stream on the worker that runs it.
#[derive(Clone)]
struct LocalExecutor {
    /// For a whole exchange (`writeTimeout`). Neither a body nor a service is asked for more while
    /// the client lets nothing through, so the time is kept here; the end of it resets the stream.
    write: Option<Duration>,
    stall: Option<Stall>,
}

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let future = HttpStream::new(future, self.stall.clone());
        match self.write {
            Some(limit) => drop(spawn_local(timeout(limit, future))),
            None => drop(spawn_local(future)),
        }
    }
}
