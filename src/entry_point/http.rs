//! HTTP/1.1 and HTTP/2 on one connection: hyper's server behind our gate, one request at a time in.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::poll_fn;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use super::connection::{Door, Stream};
use super::exchange::answer;
use crate::exchange::{Connection, Response};
use crate::wire::{GateControl, GateTimeouts, HeadLimits, RequestGate};

/// Bytes that hyper may buffer beyond the largest head.
const BUFFER_SLACK: usize = 64 * 1024;
/// Default size of hyper's read buffer, which our limit must not undercut.
const MIN_BUFFER: usize = 400 * 1024;

/// What the requests of one connection share.
pub(super) struct Conversation {
    pub(super) door: Rc<Door>,
    pub(super) connection: Arc<Connection>,
    /// HTTP/1 only.
    pub(super) gate: Option<Arc<GateControl>>,
    /// Whether the client's forwarded headers count.
    pub(super) trusted: bool,
    requests: Cell<u64>,
    open: Cell<usize>,
    last_busy: Cell<Instant>,
    closing: Cell<bool>,
}

impl Conversation {
    fn new(door: &Rc<Door>, connection: Arc<Connection>, gate: Option<Arc<GateControl>>) -> Rc<Self> {
        let trusted = door.entry_point.trusted.trust(connection.peer_ip);
        Rc::new(Self {
            door: Rc::clone(door),
            connection,
            gate,
            trusted,
            requests: Cell::new(0),
            open: Cell::new(0),
            last_busy: Cell::new(Instant::now()),
            closing: Cell::new(false),
        })
    }

    /// Counts a request in; whether it is the last that this connection may carry
    /// (`keepAliveMaxRequests`, `keepAliveMaxTime`).
    pub(super) fn is_last(&self, now: Instant) -> bool {
        let requests = self.requests.get() + 1;
        self.requests.set(requests);
        let entry_point = &self.door.entry_point;
        let many = entry_point.keep_alive_max_requests;
        let last = many > 0 && requests >= many
            || entry_point.keep_alive_max_time.is_some_and(|age| now - self.connection.opened > age);
        if last {
            self.closing.set(true);
        }
        last
    }
}

/// Serves HTTP/1 over `stream`, of which `first` was read already.
pub(super) async fn serve_http1<S: Stream>(
    door: &Rc<Door>,
    connection: Arc<Connection>,
    stream: S,
    first: Bytes,
) -> io::Result<()> {
    let entry_point = &door.entry_point;
    let limits = HeadLimits {
        max_head_bytes: entry_point.limits.max_bytes,
        max_header_fields: entry_point.limits.max_fields,
    };
    let timeouts = GateTimeouts {
        idle: entry_point.timeouts.idle,
        read: entry_point.timeouts.read,
        body: entry_point.timeouts.body,
    };
    let (gate, control) = RequestGate::new(stream, first, limits, timeouts);
    let conversation = Conversation::new(door, connection, Some(control));
    let service = service_fn(|request: http::Request<Incoming>| {
        let conversation = Rc::clone(&conversation);
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
    let mut served = pin!(builder.serve_connection(gate, service).with_upgrades());
    let mut drain = pin!(door.drain.cancelled());
    let mut draining = false;
    poll_fn(|task| {
        if !draining && drain.as_mut().poll(task).is_ready() {
            draining = true;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(task)
    })
    .await
    .map_err(io::Error::other)
}

/// Serves HTTP/2 over `stream`.
pub(super) async fn serve_http2<S: Stream>(
    door: &Rc<Door>,
    connection: Arc<Connection>,
    stream: S,
) -> io::Result<()> {
    let entry_point = &door.entry_point;
    let conversation = Conversation::new(door, connection, None);
    let service = service_fn(|request: http::Request<Incoming>| {
        let conversation = Rc::clone(&conversation);
        conversation.open.set(conversation.open.get() + 1);
        let busy = Busy(conversation);
        async move { Ok::<Response, Infallible>(answer(&busy.0, request).await) }
    });
    let list_size = u32::try_from(entry_point.limits.max_bytes).unwrap_or(u32::MAX);
    let mut served = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(entry_point.http2_max_concurrent_streams)
            .max_header_list_size(list_size)
            .serve_connection(TokioIo::new(stream), service)
    );
    let idle = entry_point.timeouts.idle;
    let mut timer = pin!(sleep_until(Instant::now() + idle.unwrap_or_default()));
    let mut drain = pin!(door.drain.cancelled());
    let mut leaving = false;
    poll_fn(|task| {
        if !leaving {
            let mut leave = conversation.closing.get() || drain.as_mut().poll(task).is_ready();
            if let Some(idle) = idle {
                while !leave && timer.as_mut().poll(task).is_ready() {
                    let busy = conversation.open.get() > 0;
                    let end = conversation.last_busy.get() + idle;
                    let now = Instant::now();
                    leave = !busy && end <= now;
                    timer.as_mut().reset(if busy { now + idle } else { end });
                }
            }
            if leave {
                leaving = true;
                served.as_mut().graceful_shutdown();
            }
        }
        match served.as_mut().poll(task) {
            Poll::Pending if conversation.closing.get() && !leaving => {
                // A request that was answered meanwhile was the connection's last.
                leaving = true;
                served.as_mut().graceful_shutdown();
                served.as_mut().poll(task)
            }
            other => other,
        }
    })
    .await
    .map_err(io::Error::other)
}

/// A stream that is being served keeps its connection from being idle.
struct Busy(Rc<Conversation>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.last_busy.set(Instant::now());
    }
}

/// Spawns on the worker that runs it.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}
