//! Connections to servers, kept by each worker for itself.
//!
//! A pool belongs to one thread, so nothing needs a lock; only the number of idle connections per
//! server is shared. A connection is in the pool only while nothing is sent or expected on it: one
//! task per worker, the tender, watches all of them, and drops what has expired, what the server
//! has closed, and what it speaks on unasked.

mod http2;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use self::http2::Http2;
pub(super) use self::http2::{Http2Lease, StreamPermit};
use super::connect::connect;
use super::http1::Connection;
use super::owner::{NOBODY, Owner};
use super::target::TargetScheme;
use super::transport::{Origin, ServersTransport};
use crate::exchange::ProxyError;

/// Idle connections are looked through at least this often: their server may not be configured any more.
const MAX_SWEEP: Duration = Duration::from_secs(90);
/// And at most this often.
const MIN_SWEEP: Duration = Duration::from_millis(100);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

/// A connection that one request may use.
pub(super) enum Lease {
    Http1(Box<Connection>),
    Http2(Http2Lease),
}

/// How a request wants its connection.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// HTTP/1.1, whatever the server offers.
    pub(super) http1: bool,
    /// Not one that was used before.
    pub(super) fresh: bool,
    /// One that nobody else has used or will.
    pub(super) owner: Option<&'a Arc<Owner>>,
    /// When it was asked for: reading the clock costs more than handing it on.
    pub(super) at: Instant,
}

/// A connection to `origin`, from the pool or new.
pub(super) async fn lease(
    transport: &ServersTransport,
    origin: &Arc<Origin>,
    wanted: Wanted<'_>,
) -> Result<Lease, ProxyError> {
    match POOL.with_borrow_mut(|pool| pool.step(transport, origin, wanted)) {
        Step::Use(lease) => Ok(lease),
        step => Box::pin(open(transport, origin, wanted, step)).await,
    }
}

/// A connection that is made now, or was meanwhile.
async fn open(
    transport: &ServersTransport,
    origin: &Arc<Origin>,
    mut wanted: Wanted<'_>,
    mut step: Step,
) -> Result<Lease, ProxyError> {
    loop {
        let dialing = match step {
            Step::Use(lease) => return Ok(lease),
            Step::Wait(dialing) => {
                dialing.wait().await?;
                wanted.at = Instant::now();
                step = POOL.with_borrow_mut(|pool| pool.step(transport, origin, wanted));
                continue;
            }
            Step::Dial(dialing) => dialing,
        };
        let connected = connect(transport, origin, wanted.http1).await;
        let result = match connected {
            Ok(connected) if connected.http2 => {
                Http2::open(transport, origin, wanted.owner, connected).await
            }
            Ok(connected) => {
                if origin.scheme == TargetScheme::Https {
                    POOL.with_borrow_mut(|pool| {
                        pool.host(transport, origin, wanted.owner).speaks_http2 = false;
                    });
                }
                let max_idle = transport.max_idle;
                let connection = Connection::new(connected.stream, origin, max_idle, wanted.owner);
                Ok(Lease::Http1(Box::new(connection)))
            }
            Err(error) => Err(error),
        };
        if let Some(dialing) = dialing {
            dialing.finish(result.as_ref().map(|_| ()).map_err(|&error| error));
        }
        return result;
    }
}

/// Keeps a connection for the next request, of its owner if it has one. `false` when it was closed instead.
pub(super) fn keep(
    origin: &Arc<Origin>,
    owner: Option<&Arc<Owner>>,
    connection: Box<Connection>,
    now: Instant,
) -> bool {
    POOL.try_with(|pool| {
        pool.try_borrow_mut().is_ok_and(|mut pool| pool.keep(origin, owner, connection, now))
    })
    .unwrap_or(false)
}

/// Closes what this owner had, now that it is gone. Where this cannot be done at once, the tender does it.
pub(super) fn disown(owner: u64) {
    let _ = POOL.try_with(|pool| {
        if let Ok(mut pool) = pool.try_borrow_mut() {
            pool.hosts.retain(|key, _| key.1 != owner);
        }
    });
}

enum Step {
    Use(Lease),
    /// Somebody else is making the connection that this request may share.
    Wait(Rc<Dialing>),
    Dial(Option<DialGuard>),
}

/// A server, and who alone may use these connections to it.
type Key = (u64, u64);

fn key(origin: &Origin, owner: Option<&Arc<Owner>>) -> Key {
    (origin.id, owner.map_or(NOBODY, |owner| owner.id()))
}

#[derive(Default)]
struct Pool {
    hosts: HashMap<Key, Host, foldhash::fast::RandomState>,
    /// Set while something is idle.
    tender: Option<Tender>,
}

struct Tender {
    /// When it looks again at the latest.
    next: Instant,
    /// Wakes it; `None` until it has run for the first time.
    waker: Option<Waker>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

struct Host {
    origin: Weak<Origin>,
    /// The only one who gets connections from here, if it is not anybody.
    owner: Option<Weak<Owner>>,
    idle_timeout: Option<Duration>,
    /// Longest idle first.
    idle: Vec<Idle>,
    http2: Vec<Rc<Http2>>,
    /// The server speaks HTTP/2, so requests wait for one connection instead of making many.
    speaks_http2: bool,
    dialing: Option<Rc<Dialing>>,
}

impl Pool {
    fn step(
        &mut self,
        transport: &ServersTransport,
        origin: &Arc<Origin>,
        wanted: Wanted<'_>,
    ) -> Step {
        let host = self.host(transport, origin, wanted.owner);
        if host.speaks_http2 && !wanted.http1 {
            if let Some(lease) = host.share() {
                return Step::Use(Lease::Http2(lease));
            }
            if let Some(dialing) = &host.dialing {
                return Step::Wait(Rc::clone(dialing));
            }
            let dialing = Rc::new(Dialing::default());
            host.dialing = Some(Rc::clone(&dialing));
            return Step::Dial(Some(DialGuard { dialing, host: key(origin, wanted.owner) }));
        }
        if !wanted.fresh
            && let Some(connection) = host.take_idle(origin, wanted.at)
        {
            return Step::Use(Lease::Http1(connection));
        }
        Step::Dial(None)
    }

    fn host(
        &mut self,
        transport: &ServersTransport,
        origin: &Arc<Origin>,
        owner: Option<&Arc<Owner>>,
    ) -> &mut Host {
        let new = || Host::new(origin, owner, transport.timeouts.idle);
        self.hosts.entry(key(origin, owner)).or_insert_with(new)
    }

    fn keep(
        &mut self,
        origin: &Arc<Origin>,
        owner: Option<&Arc<Owner>>,
        mut connection: Box<Connection>,
        now: Instant,
    ) -> bool {
        if owner.is_some() && !self.hosts.contains_key(&key(origin, owner)) {
            // It was made when anybody could have it.
            let Some(host) = self.hosts.get(&key(origin, None)) else { return false };
            let new = Host::new(origin, owner, host.idle_timeout);
            self.hosts.insert(key(origin, owner), new);
        }
        let Some(host) = self.hosts.get_mut(&key(origin, owner)) else { return false };
        // An owner has one to go on with; whoever asks for many at once keeps no more than anybody.
        if owner.is_some() && host.idle.len() >= connection.max_idle().max(1) {
            return false;
        }
        if let Some(Tender { waker: Some(waker), .. }) = &self.tender
            && connection.poll_surplus(&mut Context::from_waker(waker)).is_ready()
        {
            return false;
        }
        host.idle.push(Idle { connection, since: now });
        let limit = host.idle_timeout;
        self.look_within(now, limit);
        true
    }

    /// Sees to it that the tender looks for expired connections by then.
    fn look_within(&mut self, now: Instant, limit: Option<Duration>) {
        let due = now + limit.unwrap_or(MAX_SWEEP).clamp(MIN_SWEEP, MAX_SWEEP);
        match &mut self.tender {
            Some(tender) if due + MIN_SWEEP < tender.next => {
                tender.next = due;
                if let Some(waker) = &tender.waker {
                    waker.wake_by_ref();
                }
            }
            Some(_) => {}
            None => {
                self.tender = Some(Tender { next: due, waker: None });
                tokio::task::spawn_local(unconstrained(tend()));
            }
        }
    }

    /// Drops what is not to be used any more; says when to look again, `None` when nothing is left.
    fn tend(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for host in self.hosts.values_mut() {
            if let Some(left) = host.tend(now, cx) {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        self.hosts.retain(|_, host| !host.is_unused());
        let due = now + next?.clamp(MIN_SWEEP, MAX_SWEEP);
        self.tender = Some(Tender { next: due, waker: Some(cx.waker().clone()) });
        Some(due)
    }
}

impl Host {
    fn new(
        origin: &Arc<Origin>,
        owner: Option<&Arc<Owner>>,
        idle_timeout: Option<Duration>,
    ) -> Self {
        Self {
            origin: Arc::downgrade(origin),
            owner: owner.map(Arc::downgrade),
            idle_timeout,
            idle: Vec::new(),
            http2: Vec::new(),
            speaks_http2: origin.scheme == TargetScheme::H2c,
            dialing: None,
        }
    }

    /// Whether nobody can ask for its connections any more.
    fn is_orphaned(&self) -> bool {
        self.origin.strong_count() == 0
            || self.owner.as_ref().is_some_and(|owner| owner.strong_count() == 0)
    }

    /// The connection that was used last: the others get a chance to expire.
    fn take_idle(&mut self, origin: &Origin, now: Instant) -> Option<Box<Connection>> {
        let Idle { mut connection, since } = self.idle.pop()?;
        if self.owner.is_none() {
            origin.idle.leave(1);
        }
        connection.take(now.saturating_duration_since(since));
        Some(connection)
    }

    fn share(&mut self) -> Option<Http2Lease> {
        self.http2.retain(|connection| !connection.is_closed());
        self.http2.iter().find_map(Http2::lease)
    }

    fn tend(&mut self, now: Instant, cx: &mut Context<'_>) -> Option<Duration> {
        let origin = self.origin.upgrade().filter(|_| self.owner.is_none());
        let limit = match self.idle_timeout {
            _ if self.is_orphaned() => Duration::ZERO,
            None => Duration::MAX,
            Some(limit) => limit,
        };
        let age = |since: Instant| now.saturating_duration_since(since);
        let before = self.idle.len();
        self.idle.retain_mut(|idle| {
            age(idle.since) < limit && idle.connection.poll_surplus(cx).is_pending()
        });
        if let Some(origin) = &origin {
            origin.idle.leave(before - self.idle.len());
        }
        self.http2.retain(|connection| {
            let idle = connection.streams.load(Ordering::Relaxed) == 0;
            !(connection.is_closed() || idle && age(connection.last_used.get()) >= limit)
        });
        let oldest = self.idle.first().map(|idle| limit.saturating_sub(age(idle.since)));
        let http2 = self.http2.iter().map(|it| match it.streams.load(Ordering::Relaxed) {
            0 => limit.saturating_sub(age(it.last_used.get())),
            _ => limit,
        });
        oldest.into_iter().chain(http2).min()
    }

    fn is_unused(&self) -> bool {
        self.is_orphaned()
            && self.idle.is_empty()
            && self.http2.is_empty()
            && self.dialing.is_none()
    }
}

/// Watches the idle connections of this worker until there are none. It must not run under tokio's
/// budget: a connection that could not be looked at for that would wake it again at once.
async fn tend() {
    let _guard = TenderGuard;
    let mut sleep = pin!(tokio::time::sleep(MAX_SWEEP));
    poll_fn(|cx| {
        loop {
            let Some(due) = POOL.with_borrow_mut(|pool| pool.tend(cx)) else {
                return Poll::Ready(());
            };
            sleep.as_mut().reset(due);
            std::task::ready!(sleep.as_mut().poll(cx));
        }
    })
    .await;
}

/// Also when the task is dropped with its runtime, the next one must be able to start another.
struct TenderGuard;

impl Drop for TenderGuard {
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut() {
                pool.tender = None;
            }
        });
    }
}

/// A connection being made that several requests wait for.
#[derive(Default)]
struct Dialing {
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
    host: Key,
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
                && let Some(host) = pool.hosts.get_mut(&self.host)
            {
                host.dialing = None;
            }
        });
        self.dialing.done.notify_waiters();
    }
}

/// Idle connections of this worker, for tests.
#[cfg(test)]
pub(super) fn idle_here(origin: &Origin) -> usize {
    POOL.with_borrow(|pool| pool.hosts.get(&key(origin, None)).map_or(0, |host| host.idle.len()))
}

/// Whether this worker has learned that a server speaks HTTP/2, for tests.
#[cfg(test)]
pub(super) fn speaks_http2(origin: &Origin) -> bool {
    POOL.with_borrow(|pool| {
        pool.hosts.get(&key(origin, None)).is_some_and(|host| !host.http2.is_empty())
    })
}
