//! A shared HTTP/2 connection, its streams and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{Lease, POOL};
use crate::exchange::ProxyError;
use crate::upstream::connect::{Connected, Stream};
use crate::upstream::owner::Owner;
use crate::upstream::transport::{Origin, ServersTransport, USUAL_STREAMS};
use crate::upstream::upload::Upload;

/// Largest head of an answer.
const MAX_HEAD: u32 = 1 << 20;

/// A connection that many requests share.
pub(super) struct Http2 {
    sender: http2::SendRequest<Upload>,
    pub(super) streams: Arc<AtomicUsize>,
    /// Asked for how many streams the server allows.
    connection: SharedHttp2,
    /// Where that is remembered for the next connection.
    allowed: Arc<AtomicUsize>,
    pub(super) last_used: Cell<Instant>,
    used: Cell<bool>,
}

/// One stream of a shared connection.
pub(in crate::upstream) struct Http2Lease {
    pub(in crate::upstream) sender: http2::SendRequest<Upload>,
    pub(in crate::upstream) permit: StreamPermit,
    /// Whether requests went over the connection before.
    pub(in crate::upstream) reused: bool,
    /// How many streams the server allowed, or was taken to allow.
    allowed: usize,
    connection: SharedHttp2,
}

impl Http2Lease {
    /// Whether the server has said since that it allows fewer streams.
    pub(in crate::upstream) fn is_outdated(&self) -> bool {
        let allows = |connection: &Http2Connection| connection.current_max_send_streams();
        self.connection.borrow().as_ref().map(allows).is_some_and(|now| now < self.allowed)
    }
}

/// Counts one open stream until it is dropped.
pub(in crate::upstream) struct StreamPermit(Arc<AtomicUsize>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http2 {
    pub(super) async fn open(
        transport: &ServersTransport,
        origin: &Arc<Origin>,
        owner: Option<&Arc<Owner>>,
        connected: Connected,
    ) -> Result<Lease, ProxyError> {
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .keep_alive_interval(transport.timeouts.read_idle)
            .keep_alive_timeout(transport.timeouts.ping)
            .keep_alive_while_idle(true)
            .max_header_list_size(MAX_HEAD)
            .initial_max_send_streams(
                origin.streams.load(Ordering::Relaxed).clamp(1, USUAL_STREAMS),
            )
            .handshake::<_, Upload>(TokioIo::new(connected.stream))
            .await
            .map_err(|_| ProxyError::UpstreamClosed)?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive_http2(Rc::clone(&connection)));
        let this = Rc::new(Self {
            sender,
            streams: Arc::default(),
            connection,
            allowed: Arc::clone(&origin.streams),
            last_used: Cell::new(Instant::now()),
            used: Cell::new(false),
        });
        POOL.with_borrow_mut(|pool| {
            let host = pool.host(transport, origin, owner);
            host.speaks_http2 = true;
            // Requests that dialled at the same time, before it was known what the server
            // speaks, come together on one connection.
            let lease = host.share().or_else(|| {
                host.http2.push(Rc::clone(&this));
                this.lease()
            });
            pool.look_within(Instant::now(), transport.timeouts.idle);
            lease.map(Lease::Http2).ok_or(ProxyError::UpstreamClosed)
        })
    }

    /// Whether it takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// A stream, if the server allows one more.
    pub(super) fn lease(self: &Rc<Self>) -> Option<Http2Lease> {
        let allowed = self.connection.borrow().as_ref()?.current_max_send_streams();
        if self.allowed.load(Ordering::Relaxed) != allowed {
            self.allowed.store(allowed, Ordering::Relaxed);
        }
        if self.streams.load(Ordering::Relaxed) >= allowed {
            return None;
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.last_used.set(Instant::now());
        Some(Http2Lease {
            sender: self.sender.clone(),
            permit: StreamPermit(Arc::clone(&self.streams)),
            reused: self.used.replace(true),
            allowed,
            connection: Rc::clone(&self.connection),
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
