//! A relay before a server that breaks what passes through it: the network, and the server's end.
//!
//! What it does can be changed at any time, and counts at once, for connections that are open too.
//! Its port is its own all the time: also while connections are refused nobody else is given it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::until;

/// What becomes of connections and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    /// All is well.
    #[default]
    None,
    /// Connections are refused.
    Refuse,
    /// A connection is accepted and reset at once.
    Reset,
    /// A connection is accepted and said goodbye to; what it sends is read.
    HalfClose,
    /// Nothing passes, either way, until the fault is another one.
    Stall,
    /// Each piece is late by this much.
    Delay(Duration),
    /// So many bytes in a second, each way.
    Throttle(usize),
    /// So many bytes of the server's pass, then the connection is closed.
    CutAfter(usize),
    /// The same with a reset.
    ResetAfter(usize),
    /// This byte of the server's is another one.
    Corrupt(usize),
}

/// What all connections share.
#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    listening: AtomicBool,
}

/// The relay. It ends when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    /// `None`: it ends.
    fault: watch::Sender<Option<Fault>>,
    cut: watch::Sender<()>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Before the server there.
    pub(crate) fn to(server: SocketAddr) -> Self {
        // Bound and not listening: it keeps the port.
        let keeper = bound((Ipv4Addr::LOCALHOST, 0).into());
        let address = keeper.local_addr().unwrap().as_socket().unwrap();
        let (fault, faults) = watch::channel(Some(Fault::None));
        let (cut, cuts) = watch::channel(());
        let shared = Arc::<Shared>::default();
        let counts = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(address, server, faults, cuts, counts));
            drop(keeper);
        });
        let relay = Self { address, fault, cut, shared, thread: Some(thread) };
        relay.settled(true);
        relay
    }

    fn settled(&self, listening: bool) {
        until("the relay does what it was told", || {
            self.shared.listening.load(Ordering::Acquire) == listening
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(Some(fault));
        self.settled(fault != Fault::Refuse);
    }

    /// Resets every connection that is open.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.fault.send_replace(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

type Faults = watch::Receiver<Option<Fault>>;

async fn serve(
    address: SocketAddr,
    server: SocketAddr,
    mut faults: Faults,
    cuts: watch::Receiver<()>,
    shared: Arc<Shared>,
) {
    loop {
        let fault = *faults.borrow_and_update();
        match fault {
            None => return,
            Some(Fault::Refuse) => {
                shared.listening.store(false, Ordering::Release);
                let _ = faults.changed().await;
                continue;
            }
            Some(_) => {}
        }
        let socket = bound(address);
        socket.listen(1024).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        shared.listening.store(true, Ordering::Release);
        while !matches!(*faults.borrow_and_update(), None | Some(Fault::Refuse)) {
            tokio::select! {
                Ok((client, _)) = listener.accept() => {
                    shared.accepted.fetch_add(1, Ordering::AcqRel);
                    shared.open.fetch_add(1, Ordering::AcqRel);
                    let (faults, cuts) = (faults.clone(), cuts.clone());
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        // Whoever goes away in the middle is what this is about.
                        let _ = connection(client, server, faults, cuts).await;
                        shared.open.fetch_sub(1, Ordering::AcqRel);
                    });
                }
                _ = faults.changed() => {}
            }
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn connection(
    mut client: TcpStream,
    server: SocketAddr,
    faults: Faults,
    mut cuts: watch::Receiver<()>,
) -> io::Result<()> {
    let fault = *faults.borrow();
    match fault {
        Some(Fault::Reset) => {
            reset(&client);
            return Ok(());
        }
        Some(Fault::HalfClose) => {
            client.shutdown().await?;
            tokio::io::copy(&mut client, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        _ => {}
    }
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    cuts.mark_unchanged();
    let ended = {
        let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
        let up = pump(client_in, server_out, faults.clone(), false);
        let down = pump(server_in, client_out, faults, true);
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => ended.map(drop),
            _ = cuts.changed() => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    match ended {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => client.shutdown().await,
        Err(error) => {
            reset(&client);
            reset(&server);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Passes bytes on. An error is how both sides end: `ConnectionAborted` with a goodbye, all others
/// with a reset.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: Faults,
    down: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        let mut fault = *faults.borrow_and_update();
        while fault == Some(Fault::Stall) {
            let _ = faults.changed().await;
            fault = *faults.borrow_and_update();
        }
        if count == 0 {
            return to.shutdown().await;
        }
        let (piece, mut gone) = (&mut buffer[..count], 0);
        match fault.unwrap_or_default() {
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Throttle(rate) => {
                // The last drop goes the way of all others, below.
                let drop = (rate / 20).max(1);
                while count - gone > drop {
                    to.write_all(&piece[gone..gone + drop]).await?;
                    gone += drop;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Fault::CutAfter(most) if down && passed + count >= most => {
                to.write_all(&piece[..most - passed.min(most)]).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Fault::ResetAfter(most) if down && passed + count >= most => {
                to.write_all(&piece[..most - passed.min(most)]).await?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Fault::Corrupt(at) if down && (passed..passed + count).contains(&at) => {
                piece[at - passed] ^= 0x55;
            }
            _ => {}
        }
        to.write_all(&piece[gone..]).await?;
        passed += count;
    }
}
