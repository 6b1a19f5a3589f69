//! One client connection: PROXY protocol, the first bytes, TLS, and the hand-over to HTTP.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::guard::{Limit, Seat};
use super::overload;
use super::{EntryPoint, Shared, http as serve_http, proxy_protocol};
use crate::exchange::memory::Held;
use crate::exchange::{ClientTls, Connection, EntryPointFacts, OpenWork, OpenWorkItem, Signal};
use crate::observability::metrics::{OpenConnection, OpenConnections};
use crate::tls::{self, AcceptError, Alpn};

/// Bytes that are read to find out what a client speaks.
const FIRST_READ: usize = 4096;
/// For the handshake, whatever `readTimeout` says: a stalled one holds no more than this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client that has connected before a stop, and said nothing yet, has left to begin.
const LAST_CALL: Duration = Duration::from_millis(500);
/// In so many parts, so that a worker that is behind looks at its sockets in between.
const LAST_CALLS: u32 = 5;

/// How long a connection may rest when resources run short.
const REST: Duration = Duration::from_secs(1);

/// What the connections of one entry point on one worker share.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) entry_point: Arc<EntryPoint>,
    /// Those of the entry point, where no other worker counts who has them.
    facts: Arc<EntryPointFacts>,
    /// Lets in so many hellos in one turn of the worker; all entry points share it.
    pub(super) hellos: Option<Arc<Semaphore>>,
    pub(super) work: OpenWork,
    pub(super) drain: Signal,
    /// The metric of its connections, when there has been one.
    opened: OnceLock<OpenConnections>,
    /// For overload, where that is looked after.
    pub(super) tally: Option<Arc<overload::Tally>>,
}

impl Door {
    /// Of worker `worker`, counted from 0; `hellos` is the same for all of the worker's.
    pub(super) fn new(
        shared: Arc<Shared>,
        entry_point: Arc<EntryPoint>,
        worker: usize,
        hellos: Option<Arc<Semaphore>>,
    ) -> Arc<Self> {
        let overload = shared.overload.as_ref();
        let tally = overload.and_then(|one| one.tally(worker, entry_point.position));
        let facts = Arc::new((*entry_point.facts).clone());
        let (work, drain) = Default::default();
        let opened = OnceLock::new();
        Arc::new(Self { shared, entry_point, facts, hellos, work, drain, opened, tally })
    }

    /// Counts a connection, or a tunnel that one has become.
    pub(super) fn opened(&self) -> OpenConnection {
        let Self { shared, facts, .. } = self;
        self.opened.get_or_init(|| shared.metrics.connections(&facts.name)).opened()
    }

    /// Completes when a connection that has brought no request yet must end for a shutdown.
    pub(super) async fn unused(&self) {
        self.drain.told().await;
        sleep(LAST_CALL).await;
    }

    /// Whether connections are not kept alive, for want of memory.
    pub(super) fn stops_keep_alive(&self) -> bool {
        self.shared.overload.as_ref().is_some_and(|overload| overload.stops_keep_alive())
    }

    /// Whether connections that rest are closed, for want of memory, descriptors or connections.
    pub(super) fn closes_idle(&self) -> bool {
        self.shared.overload.as_ref().is_some_and(|overload| overload.closes_idle())
    }

    /// Completes when the connection that is being served must not rest any longer, since `since`.
    pub(super) async fn tired(&self, since: Instant) {
        let Some(overload) = &self.shared.overload else { return std::future::pending().await };
        // Whoever is told to look at how things are polls this too.
        let tired = |_: &mut Context<'_>| {
            let tired = overload.closes_idle() && since.elapsed() >= REST;
            if tired { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(tired).await;
        overload.count_idle_closed();
    }

    /// A seat for a client that has connected, unless there is none for it.
    pub(super) fn seat(self: &Arc<Self>, peer: SocketAddr) -> Option<Arc<Seat>> {
        let seat = Seat::take(self, peer)?;
        // Behind the PROXY protocol it is somebody else's.
        let known = self.entry_point.proxy_protocol.is_none();
        (!known || seat.belongs_to(peer)).then(|| Arc::new(seat))
    }

    /// Until when a client that came at `opened` has to say what it is to say now, and whether that is the limit of all
    /// its first words (`requestHead.timeout`) and not of these (`readTimeout`).
    fn first_words(&self, opened: Instant) -> Option<(Instant, bool)> {
        let read = self.entry_point.timeouts.read.map(|limit| (Instant::now() + limit, false));
        let head = self.shared.guard.limits().head.map(|limit| (opened + limit, true));
        read.into_iter().chain(head).min()
    }

    /// What `future` gives, in the time that a client has for its first words.
    async fn in_time<T>(
        &self,
        (peer, opened): (SocketAddr, Instant),
        future: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let Some((until, of_all)) = self.first_words(opened) else { return future.await };
        timeout_at(until, future).await.unwrap_or_else(|_| {
            if of_all {
                self.shared.guard.hit(Limit::RequestHead, &self.entry_point, peer);
            }
            Err(io::Error::new(io::ErrorKind::TimedOut, "nothing arrived in time"))
        })
    }

    /// Waits for the first bytes of a client; `false` when there will be none.
    async fn begins<S: Stream>(
        &self,
        stream: &mut S,
        first: &mut BytesMut,
        client: (SocketAddr, Instant),
    ) -> io::Result<bool> {
        let since = Instant::now();
        let mut read = pin!(self.in_time(client, stream.read_buf(first)));
        let count = tokio::select! {
            biased;
            count = &mut read => count?,
            () = self.drain.told() => {
                for _ in 0..LAST_CALLS {
                    if let Ok(count) = timeout(LAST_CALL / LAST_CALLS, &mut read).await {
                        return Ok(count? > 0);
                    }
                }
                0
            }
            () = self.tired(since) => 0,
        };
        Ok(count > 0)
    }

    /// A preface may come in pieces; no HTTP/1 request line begins like it.
    async fn complete_preface<S: Stream>(
        &self,
        stream: &mut S,
        first: &mut BytesMut,
        client: (SocketAddr, Instant),
    ) -> io::Result<()> {
        let rest = async {
            while first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(first) {
                if stream.read_buf(first).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        };
        self.in_time(client, rest).await
    }

    /// Runs what answers a hello when it is its turn: signing takes a while, and a worker that signs does nothing
    /// else. `None` when the turn does not come.
    async fn answer_hello<F: Future>(&self, deadline: Instant, answer: F) -> Option<F::Output> {
        let Some(hellos) = &self.hellos else { return Some(answer.await) };
        let turn = timeout_at(deadline, hellos.acquire()).await.ok()?;
        let mut answer = pin!(answer);
        let signed = poll_fn(|task| Poll::Ready(answer.as_mut().poll(task))).await;
        if let Poll::Ready(done) = signed {
            return Some(done);
        }
        // By then the worker has looked after everybody else.
        yield_now().await;
        drop(turn);
        Some(answer.await)
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(door: Arc<Door>, stream: TcpStream, peer: SocketAddr, seat: Arc<Seat>) {
    let open = door.work.begin();
    let _counted = door.opened();
    match seat.held() {
        Some(held) => {
            let serving = serve_until_cut(&door, stream, peer, &open, (&seat, Some(held)));
            overload::serve(held, serving).await;
        }
        None => serve_until_cut(&door, stream, peer, &open, (&seat, None)).await,
    }
}

async fn serve_until_cut(
    door: &Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    open: &OpenWorkItem,
    (seat, held): (&Arc<Seat>, Option<&Arc<Held>>),
) {
    tokio::select! {
        biased;
        result = converse(door, stream, peer, seat, held) => {
            if let Err(error) = result {
                debug!(
                    entryPointName = %door.entry_point.facts.name, client = %peer, %error,
                    "connection ended"
                );
            }
        }
        () = open.cut() => {}
    }
}

/// What may follow the first bytes is boxed, so that an open connection is not as large as the
/// largest of a handshake, HTTP/1 and HTTP/2.
async fn converse(
    door: &Arc<Door>,
    mut stream: TcpStream,
    peer: SocketAddr,
    seat: &Arc<Seat>,
    held: Option<&Arc<Held>>,
) -> io::Result<()> {
    let entry_point = &door.entry_point;
    let opened = Instant::now();
    let mut local = stream.local_addr()?;
    let mut peer = peer;
    let mut first = BytesMut::with_capacity(FIRST_READ);
    if let Some(trusted) = &entry_point.proxy_protocol {
        let header = proxy_protocol::read(&mut stream, &mut first);
        if let Some(addresses) = door.in_time((peer, opened), header).await?
            && trusted.trust(peer.ip())
        {
            (peer, local) = (addresses.source, addresses.destination);
        }
        if !seat.belongs_to(peer) {
            return Ok(());
        }
    }
    if first.is_empty() && !door.begins(&mut stream, &mut first, (peer, opened)).await? {
        return Ok(());
    }
    let arrival = Arrival { door, peer, local, opened, seat, held };
    if first.first() == Some(&0x16) {
        return Box::pin(arrival.secure(stream, first.freeze())).await;
    }
    door.complete_preface(&mut stream, &mut first, (peer, opened)).await?;
    let http2 = first.starts_with(HTTP2_PREFACE);
    let connection = arrival.connection(None);
    if http2 {
        let stream = tls::PrefixedStream::new(first.freeze(), stream);
        Box::pin(serve_http::serve_http2(door, connection, held, stream)).await
    } else {
        let first = first.freeze();
        Box::pin(serve_http::serve_http1(door, connection, held, stream, first)).await
    }
}

/// A stream over TLS is large, and handed from one owner to the next.
type Secured = (Box<TlsStream<tls::PrefixedStream<TcpStream>>>, ClientTls, Alpn);

/// A connection whose client is known.
struct Arrival<'a> {
    door: &'a Arc<Door>,
    peer: SocketAddr,
    local: SocketAddr,
    opened: Instant,
    seat: &'a Arc<Seat>,
    /// What is held for it, where that is counted.
    held: Option<&'a Arc<Held>>,
}

impl Arrival<'_> {
    /// The handshake; `None` when nothing came of it.
    #[expect(clippy::large_futures, reason = "whoever calls this has boxed it")]
    async fn handshake(&self, stream: TcpStream, first: Bytes) -> Option<Secured> {
        let table = self.door.shared.table.current();
        let position = self.door.entry_point.position;
        let routes = table.entry_points.get(position)?.tls.clone()?;
        drop(table);
        let own = Instant::now() + HANDSHAKE_TIMEOUT;
        let deadline = self.door.first_words(self.opened).map_or(own, |(until, _)| until.min(own));
        let accepted = async {
            let mut stream = stream;
            let hello = tls::read_hello(&mut stream, first, deadline).await?;
            let accept = tls::accept_hello(stream, hello, &routes, self.local.ip(), deadline);
            let late = Err(AcceptError::HandshakeTimeout);
            self.door.answer_hello(deadline, accept).await.unwrap_or(late)
        };
        match accepted.await {
            Ok((stream, client, alpn)) => Some((Box::new(stream), client, alpn)),
            Err(error) => {
                self.refused(&error);
                None
            }
        }
    }

    async fn secure(self, stream: TcpStream, first: Bytes) -> io::Result<()> {
        let Some((mut stream, client, alpn)) = Box::pin(self.handshake(stream, first)).await else {
            return Ok(());
        };
        // Read here, where a stop and a silent client are looked after: hyper waits for the
        // preface of HTTP/2 without any limit.
        let mut first = BytesMut::with_capacity(FIRST_READ);
        let arrived = (self.peer, self.opened);
        if !self.door.begins(&mut stream, &mut first, arrived).await? {
            return Ok(());
        }
        let connection = self.connection(Some(client));
        match alpn {
            Alpn::H2 => {
                self.door.complete_preface(&mut stream, &mut first, arrived).await?;
                let stream = tls::PrefixedStream::new(first.freeze(), stream);
                Box::pin(serve_http::serve_http2(self.door, connection, self.held, stream)).await
            }
            Alpn::Http1 => {
                let first = first.freeze();
                Box::pin(serve_http::serve_http1(self.door, connection, self.held, stream, first))
                    .await
            }
        }
    }

    fn refused(&self, error: &AcceptError) {
        debug!(
            entryPointName = %self.door.entry_point.facts.name, client = %self.peer, %error,
            "TLS handshake failed"
        );
    }

    fn connection(&self, tls: Option<ClientTls>) -> Arc<Connection> {
        let seat: Arc<dyn Any + Send + Sync> = Arc::<Seat>::clone(self.seat);
        let peer_ip = self.peer.ip().to_canonical();
        Arc::new(Connection {
            entry_point: Arc::clone(&self.door.facts),
            peer: self.peer,
            peer_ip,
            peer_ip_text: ip_text(peer_ip),
            local: self.local,
            tls,
            opened: self.opened,
            work: self.door.work.keeping(&seat),
            own: OnceLock::new(),
        })
    }
}

fn ip_text(ip: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A stream that HTTP may be spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}
