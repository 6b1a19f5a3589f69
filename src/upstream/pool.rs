//! Connections to servers, kept by each worker for itself.
//!
//! Everything here stays on the thread that made it, so nothing needs a lock; only the number of
//! idle connections per server is shared. A connection is in the pool only while nothing is sent
//! or expected on it: what looks dead, poisoned or surplus is dropped and never used again.
//!
//! The rest of the module sees `Lease` alone, so that another codec can take hyper's place.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::{Connected, Stream, connect};
use super::target::TargetScheme;
use super::transport::{Origin, ServersTransport};
use super::upload::Upload;
use crate::exchange::ProxyError;
use crate::wire::{HeadLimits, ResponseControl, ResponseGate};

/// Largest head of an answer over HTTP/2.
const MAX_HTTP2_HEAD: u32 = 1 << 20;
/// Idle connections are looked through at least this often: their server may not be configured any more.
const MAX_SWEEP: Duration = Duration::from_secs(90);
/// And at most this often.
const MIN_SWEEP: Duration = Duration::from_millis(100);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

/// A connection that one request may use.
pub(super) enum Lease {
    Http1(Rc<Http1>),
    Http2(Http2Lease),
}

/// How a request wants its connection.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// HTTP/1.1, whatever the server offers.
    pub(super) http1: bool,
    /// Not one that was used before.
    pub(super) fresh: bool,
}

/// A connection to `origin`, from the pool or new.
pub(super) async fn lease(
    transport: &ServersTransport,
    origin: &Arc<Origin>,
    wanted: Wanted,
) -> Result<Lease, ProxyError> {
    loop {
        let step = POOL.with_borrow_mut(|pool| pool.step(transport, origin, wanted));
        let dialing = match step {
            Step::Use(lease) => return Ok(lease),
            Step::Wait(dialing) => {
                dialing.wait().await?;
                continue;
            }
            Step::Dial(dialing) => dialing,
        };
        let connected = connect(transport, origin, wanted.http1).await;
        let result = match connected {
            Ok(connected) if connected.http2 => Http2::open(transport, origin, connected).await,
            Ok(connected) => Http1::open(transport, origin, connected).await,
            Err(error) => Err(error),
        };
        if let Some(dialing) = dialing {
            dialing.finish(result.as_ref().map(|_| ()).map_err(|&error| error));
        }
        return result;
    }
}

enum Step {
    Use(Lease),
    /// Somebody else is making the connection that this request may share.
    Wait(Rc<Dialing>),
    Dial(Option<DialGuard>),
}

#[derive(Default)]
struct Pool {
    hosts: HashMap<u64, Host, foldhash::fast::RandomState>,
    /// Set while something is idle.
    sweep: Option<Sweep>,
}

struct Sweep {
    /// When the next look is due.
    next: Instant,
    /// To be told when it must be earlier.
    earlier: Rc<Notify>,
}

struct Host {
    origin: Weak<Origin>,
    idle_timeout: Option<Duration>,
    /// Longest idle first.
    idle: Vec<(Rc<Http1>, Instant)>,
    http2: Vec<Rc<Http2>>,
    /// The server speaks HTTP/2, so requests wait for one connection instead of making many.
    speaks_http2: bool,
    dialing: Option<Rc<Dialing>>,
}

impl Pool {
    fn step(&mut self, transport: &ServersTransport, origin: &Arc<Origin>, wanted: Wanted) -> Step {
        let host = self.host(transport, origin);
        if host.speaks_http2 && !wanted.http1 {
            if let Some(lease) = host.share() {
                return Step::Use(Lease::Http2(lease));
            }
            if let Some(dialing) = &host.dialing {
                return Step::Wait(Rc::clone(dialing));
            }
            let dialing = Rc::new(Dialing::default());
            host.dialing = Some(Rc::clone(&dialing));
            return Step::Dial(Some(DialGuard { dialing, origin: origin.id }));
        }
        if !wanted.fresh
            && let Some(connection) = host.take_idle(origin)
        {
            return Step::Use(Lease::Http1(connection));
        }
        Step::Dial(None)
    }

    fn host(&mut self, transport: &ServersTransport, origin: &Arc<Origin>) -> &mut Host {
        self.hosts.entry(origin.id).or_insert_with(|| Host {
            origin: Arc::downgrade(origin),
            idle_timeout: transport.timeouts.idle,
            idle: Vec::new(),
            http2: Vec::new(),
            speaks_http2: origin.scheme == TargetScheme::H2c,
            dialing: None,
        })
    }

    /// Drops what has been idle for too long; says when to look again.
    fn sweep(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for host in self.hosts.values_mut() {
            if let Some(left) = host.sweep(now) {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        self.hosts.retain(|_, host| !host.is_unused());
        let due = now + next?.clamp(MIN_SWEEP, MAX_SWEEP);
        if let Some(sweep) = &mut self.sweep {
            sweep.next = due;
        }
        Some(due)
    }
}

impl Host {
    /// The connection that was used last: the others get a chance to expire.
    fn take_idle(&mut self, origin: &Origin) -> Option<Rc<Http1>> {
        while let Some((connection, _)) = self.idle.pop() {
            origin.idle.fetch_sub(1, Ordering::Relaxed);
            if connection.is_usable() {
                connection.in_use.set(true);
                connection.reused.set(true);
                return Some(connection);
            }
            connection.close();
        }
        None
    }

    fn share(&mut self) -> Option<Http2Lease> {
        self.http2.retain(|connection| !connection.sender.is_closed());
        self.http2.iter().find_map(Http2::lease)
    }

    fn sweep(&mut self, now: Instant) -> Option<Duration> {
        let origin = self.origin.upgrade();
        let limit = match (&origin, self.idle_timeout) {
            // Nobody can ask for them any more.
            (None, _) => Duration::ZERO,
            (Some(_), None) => Duration::MAX,
            (Some(_), Some(limit)) => limit,
        };
        let age = |since: Instant| now.saturating_duration_since(since);
        let expired = self.idle.partition_point(|(_, since)| age(*since) >= limit);
        for (connection, _) in self.idle.drain(..expired) {
            if let Some(origin) = &origin {
                origin.idle.fetch_sub(1, Ordering::Relaxed);
            }
            connection.close();
        }
        self.http2.retain(|connection| {
            let idle = connection.streams.load(Ordering::Relaxed) == 0;
            !connection.sender.is_closed() && !(idle && age(connection.last_used.get()) >= limit)
        });
        let oldest = self.idle.first().map(|(_, since)| limit.saturating_sub(age(*since)));
        let http2 = self.http2.iter().map(|it| match it.streams.load(Ordering::Relaxed) {
            0 => limit.saturating_sub(age(it.last_used.get())),
            _ => limit,
        });
        oldest.into_iter().chain(http2).min()
    }

    fn is_unused(&self) -> bool {
        self.origin.strong_count() == 0
            && self.idle.is_empty()
            && self.http2.is_empty()
            && self.dialing.is_none()
    }
}

/// Sees to it that somebody looks for expired connections by then.
fn sweep_within(pool: &mut Pool, limit: Option<Duration>) {
    let due = Instant::now() + limit.unwrap_or(MAX_SWEEP).clamp(MIN_SWEEP, MAX_SWEEP);
    if let Some(sweep) = &mut pool.sweep {
        if due + MIN_SWEEP < sweep.next {
            sweep.next = due;
            sweep.earlier.notify_one();
        }
        return;
    }
    let earlier = Rc::new(Notify::new());
    pool.sweep = Some(Sweep { next: due, earlier: Rc::clone(&earlier) });
    tokio::task::spawn_local(async move {
        let _guard = SweepGuard;
        let mut next = due;
        loop {
            let changed = tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = earlier.notified() => true,
            };
            let due = POOL.with_borrow_mut(|pool| {
                if changed { pool.sweep.as_ref().map(|sweep| sweep.next) } else { pool.sweep() }
            });
            let Some(due) = due else { return };
            next = due;
        }
    });
}

/// Also when the task is dropped with its runtime, the next one must be able to start another.
struct SweepGuard;

impl Drop for SweepGuard {
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                pool.sweep = None;
            }
        });
    }
}

/// A connection being made that several requests wait for.
#[derive(Default)]
pub(super) struct Dialing {
    result: Cell<Option<Result<(), ProxyError>>>,
    done: Notify,
}

impl Dialing {
    /// `Ok` also when whoever made the connection went away: then it is the caller's turn.
    async fn wait(&self) -> Result<(), ProxyError> {
        self.done.notified().await;
        self.result.get().unwrap_or(Ok(()))
    }
}

struct DialGuard {
    dialing: Rc<Dialing>,
    origin: u64,
}

impl DialGuard {
    fn finish(self, result: Result<(), ProxyError>) {
        self.dialing.result.set(Some(result));
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && let Some(host) = pool.hosts.get_mut(&self.origin)
            {
                host.dialing = None;
            }
        });
        self.dialing.done.notify_waiters();
    }
}

/// Ends the task of an HTTP/1 connection from wherever its exchange is.
#[derive(Default)]
pub(super) struct Kill {
    killed: AtomicBool,
    waker: AtomicWaker,
}

impl Kill {
    /// Closes the connection at once.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// An answer as a connection gives it.
pub(super) type Answer = http::Response<hyper::body::Incoming>;
/// A failure, with the request when nothing of it was sent.
pub(super) type Unsent = hyper::client::conn::TrySendError<http::Request<Upload>>;

/// A connection that takes one request at a time.
pub(super) struct Http1 {
    sender: RefCell<Option<http1::SendRequest<Upload>>>,
    pub(super) gate: Arc<ResponseControl>,
    pub(super) kill: Arc<Kill>,
    look: Arc<AtomicBool>,
    in_use: Cell<bool>,
    reused: Cell<bool>,
    max_idle: usize,
    origin: Weak<Origin>,
}

impl Http1 {
    async fn open(
        transport: &ServersTransport,
        origin: &Arc<Origin>,
        connected: Connected,
    ) -> Result<Lease, ProxyError> {
        let (gate, control) = ResponseGate::new(connected.stream, HeadLimits::default());
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_HEADERS)
            .handshake::<_, Upload>(gate)
            .await
            .map_err(|_| ProxyError::ConnectFailed)?;
        let this = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            gate: control,
            kill: Arc::default(),
            look: connected.look,
            in_use: Cell::new(true),
            reused: Cell::new(false),
            max_idle: transport.max_idle,
            origin: Arc::downgrade(origin),
        });
        if origin.scheme == TargetScheme::Https {
            POOL.with_borrow_mut(|pool| pool.host(transport, origin).speaks_http2 = false);
        }
        tokio::task::spawn_local(drive(Rc::clone(&this), connection));
        Ok(Lease::Http1(this))
    }

    /// Whether a request went over it before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused.get()
    }

    /// Sends `request`. The answer is what the returned future gives; when that is dropped, the
    /// connection is closed.
    pub(super) fn send(
        &self,
        request: http::Request<Upload>,
        upgrade: bool,
    ) -> Result<impl Future<Output = Result<Answer, Unsent>> + use<>, http::Request<Upload>> {
        let mut sender = self.sender.borrow_mut();
        let Some(sender) = sender.as_mut() else { return Err(request) };
        self.gate.expect(request.method(), upgrade);
        self.look.store(self.reused.get(), Ordering::Relaxed);
        Ok(sender.try_send_request(request))
    }

    fn is_usable(&self) -> bool {
        !self.gate.poisoned() && self.sender.borrow().as_ref().is_some_and(|s| s.is_ready())
    }

    /// Without its sender, the connection's task ends.
    fn close(&self) {
        drop(self.sender.borrow_mut().take());
    }

    /// Puts the connection into the pool, if there is room for it.
    fn release(self: &Rc<Self>) {
        self.in_use.set(false);
        let Some(origin) = self.origin.upgrade() else { return self.close() };
        if origin.idle.fetch_add(1, Ordering::Relaxed) >= self.max_idle {
            origin.idle.fetch_sub(1, Ordering::Relaxed);
            return self.close();
        }
        POOL.with_borrow_mut(|pool| {
            if let Some(host) = pool.hosts.get_mut(&origin.id) {
                host.idle.push((Rc::clone(self), Instant::now()));
                let limit = host.idle_timeout;
                sweep_within(pool, limit);
            } else {
                origin.idle.fetch_sub(1, Ordering::Relaxed);
                self.close();
            }
        });
    }

    /// Takes a connection that has ended out of the pool.
    fn forget(self: &Rc<Self>) {
        self.close();
        let Some(origin) = self.origin.upgrade() else { return };
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && let Some(host) = pool.hosts.get_mut(&origin.id)
                && let Some(at) = host.idle.iter().rposition(|(it, _)| Rc::ptr_eq(it, self))
            {
                host.idle.remove(at);
                origin.idle.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}

/// Header fields of one answer; hyper's own limit is 100, honest applications send more.
const MAX_HEADERS: usize = 256;

type Http1Connection = http1::Connection<ResponseGate<Stream>, Upload>;

/// Runs one connection until it ends. After every step it sees for itself whether the exchange is
/// over, so that no other task is needed to bring the connection back.
async fn drive(this: Rc<Http1>, connection: Http1Connection) {
    let forget = Forget(this);
    let this = &forget.0;
    let mut connection = pin!(connection.with_upgrades());
    let ended = poll_fn(|cx| {
        this.kill.waker.register(cx.waker());
        if this.kill.killed.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() && this.in_use.get() && this.is_usable() {
            this.release();
        }
        polled
    })
    .await;
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection to a server has failed");
    }
}

/// The task may be dropped with its runtime.
struct Forget(Rc<Http1>);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// A connection that many requests share.
struct Http2 {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    /// Asked for how many streams the server allows.
    connection: SharedHttp2,
    last_used: Cell<Instant>,
    used: Cell<bool>,
}

/// One stream of a shared connection.
pub(super) struct Http2Lease {
    pub(super) sender: http2::SendRequest<Upload>,
    pub(super) permit: StreamPermit,
    /// Whether requests went over the connection before.
    pub(super) reused: bool,
}

/// Counts one open stream until it is dropped.
pub(super) struct StreamPermit(Arc<AtomicUsize>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http2 {
    async fn open(
        transport: &ServersTransport,
        origin: &Arc<Origin>,
        connected: Connected,
    ) -> Result<Lease, ProxyError> {
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .keep_alive_interval(transport.timeouts.read_idle)
            .keep_alive_timeout(transport.timeouts.ping)
            .keep_alive_while_idle(true)
            .max_header_list_size(MAX_HTTP2_HEAD)
            .handshake::<_, Upload>(TokioIo::new(connected.stream))
            .await
            .map_err(|_| ProxyError::UpstreamClosed)?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive_http2(Rc::clone(&connection)));
        let this = Rc::new(Self {
            sender,
            streams: Arc::default(),
            connection,
            last_used: Cell::new(Instant::now()),
            used: Cell::new(false),
        });
        POOL.with_borrow_mut(|pool| {
            let host = pool.host(transport, origin);
            host.speaks_http2 = true;
            // Requests that dialled at the same time, before it was known what the server
            // speaks, come together on one connection.
            let lease = host.share().or_else(|| {
                host.http2.push(Rc::clone(&this));
                this.lease()
            });
            sweep_within(pool, transport.timeouts.idle);
            lease.map(Lease::Http2).ok_or(ProxyError::UpstreamClosed)
        })
    }

    /// A stream, if the server allows one more.
    fn lease(self: &Rc<Self>) -> Option<Http2Lease> {
        let allowed = self.connection.borrow().as_ref()?.current_max_send_streams();
        if self.streams.load(Ordering::Relaxed) >= allowed {
            return None;
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.last_used.set(Instant::now());
        Some(Http2Lease {
            sender: self.sender.clone(),
            permit: StreamPermit(Arc::clone(&self.streams)),
            reused: self.used.replace(true),
        })
    }
}

type Http2Connection = http2::Connection<TokioIo<Stream>, Upload, Local>;
/// `None` once it has ended: while it exists, its senders take it for open.
type SharedHttp2 = Rc<RefCell<Option<Http2Connection>>>;

async fn drive_http2(connection: SharedHttp2) {
    let ended = poll_fn(|cx| match connection.borrow_mut().as_mut() {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    })
    .await;
    connection.borrow_mut().take();
    if let Err(error) = ended {
        tracing::trace!(%error, "an HTTP/2 connection to a server has failed");
    }
}

/// Spawns on the worker.
#[derive(Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Idle connections of this worker, for tests.
#[cfg(test)]
pub(super) fn idle_here(origin: &Origin) -> usize {
    POOL.with_borrow(|pool| pool.hosts.get(&origin.id).map_or(0, |host| host.idle.len()))
}

/// Whether this worker has learned that a server speaks HTTP/2, for tests.
#[cfg(test)]
pub(super) fn speaks_http2(origin: &Origin) -> bool {
    POOL.with_borrow(|pool| pool.hosts.get(&origin.id).is_some_and(|host| !host.http2.is_empty()))
}
