//! Makes one connection to a server: name resolution, TCP, a proxy's tunnel, TLS. Nothing is
//! remembered here.
//!
//! `Socket` is the lowest layer of every connection: it can be told to look at the socket itself,
//! and not only at what the reactor has seen, before a connection that was idle is used again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proxy::{self, ForwardProxy, ProxyKind};
use super::target::TargetScheme;
use super::transport::{Origin, ServersTransport};
use crate::exchange::{ProxyError, memory};

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a proxy to connect to the server, where `dialTimeout` sets no limit.
const TUNNEL_TIMEOUT: Duration = Duration::from_mins(1);
/// What may wait in the kernel to be sent to a server, where memory has a limit.
const UNSENT: u32 = 128 << 10;
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// From one line about a shortage to the next.
const REMINDER: Duration = Duration::from_secs(10);
/// However many addresses there are, each gets at least this long (as in Go's dialer).
const MIN_DIAL_SHARE: Duration = Duration::from_secs(2);

/// Name resolutions at a time, in the process: each occupies a thread of the blocking pool.
static LOOKUPS: Semaphore = Semaphore::const_new(64);

/// A connection that is ready for HTTP.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// Whether HTTP/2 is to be spoken.
    pub(super) http2: bool,
}

/// Connects to `origin`; with `http1`, without an offer of HTTP/2.
pub(super) async fn connect(
    transport: &ServersTransport,
    origin: &Origin,
    http1: bool,
) -> Result<Connected, ProxyError> {
    if let Some(proxy) = &origin.proxy {
        return Box::pin(connect_through(transport, origin, proxy, http1)).await;
    }
    let socket = open(transport, &origin.host, origin.port).await?;
    if origin.scheme != TargetScheme::Https {
        return Ok(clear(origin, http1, Stream::Plain(socket)));
    }
    let stream = handshake(transport, origin, http1, socket).await?;
    let http2 = speaks_http2(&stream);
    Ok(Connected { stream: Stream::Tls(Box::new(stream)), http2 })
}

/// The same through a proxy: a tunnel, or, for requests in absolute form, the proxy itself.
async fn connect_through(
    transport: &ServersTransport,
    origin: &Origin,
    proxy: &ForwardProxy,
    http1: bool,
) -> Result<Connected, ProxyError> {
    let mut socket = open(transport, &proxy.host, proxy.port).await?;
    let tls = origin.scheme == TargetScheme::Https;
    if proxy.kind != ProxyKind::Https {
        tunnel(transport, origin, proxy, &mut socket).await?;
        if !tls {
            return Ok(clear(origin, http1, Stream::Plain(socket)));
        }
        let stream = handshake(transport, origin, http1, socket).await?;
        let http2 = speaks_http2(&stream);
        return Ok(Connected { stream: Stream::Tls(Box::new(stream)), http2 });
    }
    let name = (proxy.server_name.as_ref(), &*proxy.host);
    let mut outer = secure(&transport.tls_http1, name, socket).await?;
    tunnel(transport, origin, proxy, &mut outer).await?;
    if !tls {
        return Ok(clear(origin, http1, Stream::Tls(Box::new(outer))));
    }
    let stream = handshake(transport, origin, http1, outer).await?;
    let http2 = speaks_http2(&stream);
    Ok(Connected { stream: Stream::Nested(Box::new(stream)), http2 })
}

/// A connection without TLS to the server.
fn clear(origin: &Origin, http1: bool, stream: Stream) -> Connected {
    Connected { stream, http2: origin.scheme == TargetScheme::H2c && !http1 }
}

fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// Asks the proxy for a tunnel to the server, unless requests are to be told to the proxy itself.
async fn tunnel<S>(
    transport: &ServersTransport,
    origin: &Origin,
    proxy: &ForwardProxy,
    stream: &mut S,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if origin.absolute.is_some() {
        return Ok(());
    }
    let asking = async {
        match proxy.kind {
            ProxyKind::Socks5 => proxy::socks5(stream, proxy, &origin.host, origin.port).await,
            _ => proxy::connect(stream, proxy, &origin.host, origin.port).await,
        }
    };
    let asked = timeout(transport.timeouts.dial.unwrap_or(TUNNEL_TIMEOUT), asking).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        let (host, port) = (&*origin.host, origin.port);
        tracing::debug!(%proxy, host, port, %error, "no way through the proxy");
        connect_failure(&error)
    })
}

/// A TCP connection.
async fn open(transport: &ServersTransport, host: &str, port: u16) -> Result<Socket, ProxyError> {
    let stream = match transport.timeouts.dial {
        None => dial(host, port, None).await,
        Some(limit) => timeout(limit, dial(host, port, Some(Instant::now() + limit)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    };
    stream.map(Socket::new).map_err(|error| {
        tracing::debug!(host, port, %error, "cannot connect");
        if is_shortage(&error) {
            tell_of_shortage(host, port, &error);
        }
        connect_failure(&error)
    })
}

/// Whether this machine has run out of something, for which the server is not to blame.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| shortages.contains(&error))
}

/// Once in a while: while it lasts, every request meets it.
fn tell_of_shortage(host: &str, port: u16, error: &io::Error) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if told.is_none_or(|at| now.duration_since(at) >= REMINDER) {
        *told = Some(now);
        tracing::warn!(
            host,
            port,
            %error,
            "no connection to a server can be opened: the machine has no port, descriptor or memory left for it"
        );
    }
}

fn connect_failure(error: &io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::TimedOut => ProxyError::ConnectTimeout,
        _ => ProxyError::ConnectFailed,
    }
}

async fn dial(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<TcpStream> {
    if let Ok(ip) = host.parse() {
        return tcp(SocketAddr::new(ip, port)).await;
    }
    let addresses: Vec<SocketAddr> = {
        let _permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        tokio::net::lookup_host((host, port)).await?.collect()
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, &address) in addresses.iter().enumerate() {
        let attempt = match deadline {
            None => tcp(address).await,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
                let share = (left / others).max(MIN_DIAL_SHARE.min(left));
                timeout(share, tcp(address))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.map_err(|error| explained(error, address))?;
    stream.set_nodelay(true)?;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    if memory::is_limited() {
        // A cgroup of version 2 counts what a server does not take.
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
    }
    Ok(stream)
}

/// A socket has no address for two reasons: all ports to that server are taken, or, more often with IPv6, the machine
/// has no address at all from which it could be reached. Only the first is a shortage. UDP has ports of its own, and
/// sends nothing here.
fn explained(error: io::Error, address: SocketAddr) -> io::Error {
    if error.kind() != io::ErrorKind::AddrNotAvailable {
        return error;
    }
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let reached = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address));
    match reached {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            io::Error::new(error.kind(), "this machine has no address to reach it from")
        }
        _ => error,
    }
}

async fn handshake<S>(
    transport: &ServersTransport,
    origin: &Origin,
    http1: bool,
    stream: S,
) -> Result<TlsStream<S>, ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = if http1 { &transport.tls_http1 } else { &transport.tls };
    secure(config, (origin.server_name.as_ref(), &origin.host), stream).await
}

async fn secure<S>(
    config: &Arc<ClientConfig>,
    (server_name, host): (Option<&ServerName<'static>>, &str),
    stream: S,
) -> Result<TlsStream<S>, ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(server_name) = server_name.cloned() else {
        tracing::debug!(host, "the host cannot be the name of a TLS server");
        return Err(ProxyError::TlsFailed);
    };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(server_name, stream);
    match timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(host, %error, "TLS failed");
            Err(tls_failure(&error))
        }
        Err(_) => Err(ProxyError::ConnectTimeout),
    }
}

fn tls_failure(error: &io::Error) -> ProxyError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) => ProxyError::TlsAlert,
        Some(_) => ProxyError::TlsFailed,
        None => ProxyError::ConnectFailed,
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// A TCP connection.
///
/// The reactor learns of new bytes or an end only when it polls, which a busy worker does rarely.
/// When `look` is set, the next read asks the socket itself, so that a connection that the server
/// has closed in the meantime is found out before a request is written to it.
pub(super) struct Socket {
    stream: TcpStream,
    look: bool,
    read_ended: bool,
    /// Who waits to write after a write has failed.
    write_failed: Option<Waker>,
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        Self { stream, look: false, read_ended: false, write_failed: None }
    }

    /// A server may answer early, close and reset what we still send: then its answer is to be
    /// read, and the failed write must not end the exchange before that.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.write_failed.is_some() {
            if self.read_ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.write_failed = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Err(error)) if !self.read_ended && is_reset(&error) => {
                // The read that brings the answer, or the end, may not have anybody waiting.
                cx.waker().wake_by_ref();
                self.write_failed = Some(cx.waker().clone());
                Poll::Pending
            }
            other => other,
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.look)
            && let Some(result) = self.look_now(buf)
        {
            return Poll::Ready(result);
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn look_now(&self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let limit = buf.remaining().min(512);
        let target = buf.initialize_unfilled_to(limit);
        match rustix::net::recv(&self.stream, target, RecvFlags::DONTWAIT) {
            Ok((_, count)) => {
                buf.advance(count.min(limit));
                Some(Ok(()))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = this.read(cx, buf);
        let ended = match &result {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => buf.filled().len() == before && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
        };
        if ended {
            this.read_ended = true;
            if let Some(waker) = &this.write_failed {
                waker.wake_by_ref();
            }
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A connection with or without TLS.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
    /// TLS to a server inside TLS to a proxy.
    Nested(Box<TlsStream<TlsStream<Socket>>>),
}

impl Stream {
    /// Makes the next read ask the socket itself: see `Socket`.
    pub(super) fn look(&mut self) {
        match self {
            Self::Plain(socket) => socket.look = true,
            Self::Tls(stream) => stream.get_mut().0.look = true,
            Self::Nested(stream) => stream.get_mut().0.get_mut().0.look = true,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Nested(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Nested(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Nested(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Nested(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Nested(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Nested(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RP-6.2.1, RP-15.5
    #[tokio::test]
    async fn servers_are_probed_every_thirty_seconds() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tcp(listener.local_addr().unwrap()).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), TCP_KEEPALIVE);
        assert_eq!(TCP_KEEPALIVE, Duration::from_secs(30));
    }
}
