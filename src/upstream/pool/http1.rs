//! A pooled HTTP/1 connection and the task that drives it.
//!
//! The task itself notices that an exchange is over and brings the connection back; hyper sits
//! behind a `ResponseGate`, so surplus bytes make the connection unusable.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http1::{self, SendRequest};
use tokio::time::Instant;

use super::{Lease, POOL, sweep_within};
use crate::exchange::ProxyError;
use crate::upstream::connect::{Connected, Stream};
use crate::upstream::target::TargetScheme;
use crate::upstream::transport::{Origin, ServersTransport};
use crate::upstream::upload::Upload;
use crate::wire::{HeadLimits, ResponseControl, ResponseGate};

/// Header fields of one answer; hyper's own limit is 100, honest applications send more.
const MAX_HEADERS: usize = 256;

/// Idle for so long, a connection is looked at before any request goes over it.
const RESTED: Duration = Duration::from_millis(5);

/// Ends the task of an HTTP/1 connection from wherever its exchange is.
#[derive(Default)]
pub(in crate::upstream) struct Kill {
    killed: AtomicBool,
    waker: AtomicWaker,
}

impl Kill {
    /// Closes the connection at once.
    pub(in crate::upstream) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// An answer as a connection gives it.
pub(in crate::upstream) type Answer = http::Response<hyper::body::Incoming>;
/// A failure, with the request when nothing of it was sent.
pub(in crate::upstream) type Unsent = hyper::client::conn::TrySendError<http::Request<Upload>>;

/// A connection that takes one request at a time.
pub(in crate::upstream) struct Http1 {
    sender: RefCell<Option<SendRequest<Upload>>>,
    pub(in crate::upstream) gate: Arc<ResponseControl>,
    pub(in crate::upstream) kill: Arc<Kill>,
    look: Arc<AtomicBool>,
    in_use: Cell<bool>,
    reused: Cell<bool>,
    rested: Cell<bool>,
    max_idle: usize,
    origin: Weak<Origin>,
}

impl Http1 {
    pub(super) async fn open(
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
            rested: Cell::new(false),
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
    pub(in crate::upstream) fn is_reused(&self) -> bool {
        self.reused.get()
    }

    /// Sends `request`. The answer is what the returned future gives; when that is dropped, the
    /// connection is closed.
    pub(in crate::upstream) fn send(
        &self,
        request: http::Request<Upload>,
        upgrade: bool,
        repeatable: bool,
    ) -> Result<impl Future<Output = Result<Answer, Unsent>> + use<>, Box<http::Request<Upload>>>
    {
        let mut sender = self.sender.borrow_mut();
        let Some(sender) = sender.as_mut() else { return Err(Box::new(request)) };
        self.gate.expect(request.method(), upgrade);
        // Asking the socket costs a system call. Where a request may be repeated and the connection
        // was busy a moment ago, finding it closed is rare and costs nothing but a second try.
        let look = self.reused.get() && (self.rested.get() || !repeatable);
        self.look.store(look, Ordering::Relaxed);
        Ok(sender.try_send_request(request))
    }

    /// Marks it as used by a request, after it was idle since then.
    pub(super) fn take(&self, since: Instant) {
        self.in_use.set(true);
        self.reused.set(true);
        self.rested.set(since.elapsed() >= RESTED);
    }

    /// Whether another request may go over it.
    pub(super) fn is_usable(&self) -> bool {
        !self.gate.poisoned() && self.sender.borrow().as_ref().is_some_and(SendRequest::is_ready)
    }

    /// Without its sender, the connection's task ends.
    pub(super) fn close(&self) {
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
