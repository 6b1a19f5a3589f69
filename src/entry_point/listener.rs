//! Sockets: one per worker on a shared port, handed over by systemd, or bound here.
//!
//! Invariant: an address that somebody else uses is an error, although our own workers share it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::time::Duration;

const BACKLOG: i32 = 4096;
/// Traefik's keep-alive probes on client connections.
const KEEP_ALIVE: Duration = Duration::from_mins(3);

/// Binds `workers` listening sockets at `address`.
///
/// Without `reuse_port` the address must be free: it is bound alone first, so that a second
/// program is told "address in use" and does not silently take half of the connections.
pub fn bind(address: SocketAddr, reuse_port: bool, workers: usize) -> io::Result<Vec<TcpListener>> {
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

/// Prepares an accepted connection: no delay, keep-alive probes.
pub(super) fn prepare(stream: &tokio::net::TcpStream) {
    // Neither failing is a reason to refuse the client.
    let _ = stream.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive);
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

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), false, 2).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
        let error = bind(address, false, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
