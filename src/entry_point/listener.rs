//! Sockets: one per worker on a shared port, handed over by systemd, or bound here.
//!
//! Invariant: an address that somebody else uses is an error, although our own workers share it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::time::Duration;

const BACKLOG: i32 = 4096;
/// Traefik's keep-alive probes on client connections.
const KEEP_ALIVE: Duration = Duration::from_mins(3);

/// Binds `workers` listening sockets at `address`.
///
/// Without `reuse_port` the address must be free: it is bound alone first, so that a second
/// program is told "address in use" and does not silently take half of the connections. What is accepted is
/// prepared; `watched` says that little is to wait in the kernel for clients (see [`Shared::watches_sending`]).
///
/// [`Shared::watches_sending`]: super::Shared::watches_sending
pub fn bind(
    address: SocketAddr,
    reuse_port: bool,
    workers: usize,
    watched: bool,
) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    if !reuse_port {
        let alone = socket(address, false)?;
        alone.bind(&address.into())?;
        // Port 0: the kernel has chosen, and all workers share the choice.
        if let Some(bound) = alone.local_addr()?.as_socket() {
            address = bound;
        }
    }
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = socket(address, true)?;
        socket.bind(&address.into())?;
        prepare(&socket, watched);
        socket.listen(BACKLOG)?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            address = bound;
        }
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// The same socket for each of `workers`.
pub fn share(listener: &TcpListener, workers: usize) -> io::Result<Vec<TcpListener>> {
    listener.set_nonblocking(true)?;
    (0..workers.max(1)).map(|_| listener.try_clone()).collect()
}

/// Lets no further connection begin at a listening socket, while those that have begun come to
/// their end: the kernel drops every SYN. Whoever sent one tries again when the socket is closed.
#[cfg(target_os = "linux")]
pub(super) fn admit_nobody(listener: &tokio::net::TcpListener) -> io::Result<()> {
    use socket2::SockFilter;

    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    /// Where the flags are in a header of TCP, with which the kernel lets a filter begin.
    const FLAGS: u32 = 13;
    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(0x30, 0, 0, FLAGS),      // load the byte there
        SockFilter::new(0x54, 0, 0, SYN_OR_ACK), // and with
        SockFilter::new(0x15, 0, 1, SYN),        // equal: the next instruction, else skip it
        SockFilter::new(0x06, 0, 0, 0),          // drop
        SockFilter::new(0x06, 0, 0, u32::MAX),   // let through
    ])
}

/// See above: only Linux has such a filter.
#[cfg(not(target_os = "linux"))]
pub(super) fn admit_nobody(_: &tokio::net::TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes that may wait in the kernel for a client that does not take them, where that matters. By itself the kernel
/// takes megabytes, and says for minutes that they are too many.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// Prepares a client's socket, or a listening one for all that are accepted at it: no delay, keep-alive probes, and
/// little that waits in the kernel when that is `watched`. On Linux accepted sockets inherit it from one that listens,
/// which is four calls less for each.
pub(super) fn prepare(socket: &impl AsFd, watched: bool) {
    let socket = socket2::SockRef::from(socket);
    #[cfg(target_os = "linux")]
    if watched {
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = watched;
    // Neither failing is a reason to refuse a client.
    let _ = socket.set_tcp_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let _ = socket.set_tcp_keepalive(&keep_alive);
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_is_connected_stays_when_nobody_is_admitted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connected = tokio::net::TcpStream::connect(address).await.unwrap();
        admit_nobody(&listener).unwrap();
        let begun = tokio::spawn(tokio::net::TcpStream::connect(address));
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, connected.local_addr().unwrap());
        let second = Duration::from_millis(100);
        assert!(tokio::time::timeout(second, listener.accept()).await.is_err());
        drop(listener);
        let refused = begun.await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(accepted);
    }

    /// RP-1.1, RP-15.5
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn clients_are_probed_every_three_minutes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener, true);
        let address = listener.local_addr().unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_mins(3));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_mins(3));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    }

    /// RP-2.1.5, RP-2.1.6
    #[test]
    fn a_port_is_shared_with_strangers_when_both_say_so() {
        let ours = bind("127.0.0.1:0".parse().unwrap(), true, 1, false).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(bind(address, true, 1, false).is_ok());
        let socket = socket2::SockRef::from(&ours[0]);
        assert!(socket.reuse_address().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.protocol().unwrap(), Some(Protocol::TCP), "and not MPTCP");
    }

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), false, 2, false).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
        let error = bind(address, false, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
