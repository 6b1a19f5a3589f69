//! Workers: one thread and one single-threaded runtime each, from accept to the last byte.
//!
//! Invariant: what a worker accepts never leaves its thread, so nothing on the way takes a lock
//! for the sake of another core. Shutdown goes in stages: accept on, finish, cut.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use super::connection::{self, Door};
use super::overload;
use super::shortage::QUIET;
use super::{EntryPoint, Shared, listener};
use crate::exchange::memory;

/// How far a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Running,
    /// Told to stop: entry points go on accepting for their `requestAcceptGraceTimeout`.
    Stopping,
    /// No grace: everything ends now.
    Cut,
}

/// One entry point of one worker.
pub struct Listening {
    /// What to serve there.
    pub entry_point: Arc<EntryPoint>,
    /// The socket.
    pub socket: TcpListener,
    /// Whether somebody else goes on holding the socket: it was handed over, not bound here.
    pub inherited: bool,
}

/// For handshakes of TCP that have begun when the listening ends: a round trip to a near client.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// How often memory is given back: about as soon as connections rest.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(3);

/// Starts a worker. The thread ends when every entry point is through with its shutdown.
pub fn start(
    number: usize,
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    stage: watch::Receiver<Stage>,
) -> io::Result<JoinHandle<()>> {
    // A local runtime cannot move: it is built where it runs.
    let (built, result) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        if let Some(threads) = shared.overload.as_ref().and_then(|one| one.blocking_threads()) {
            builder.max_blocking_threads(threads);
        }
        let runtime = builder.build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = built.send(Err(error));
                return;
            }
        };
        let _ = built.send(Ok(()));
        runtime.block_on(async move {
            spawn_local(give_memory_back());
            if let Some(overload) = &shared.overload {
                spawn_local(overload::tend(Arc::clone(overload), number));
            }
            let hellos =
                shared.guard.limits().handshakes.map(|most| Arc::new(Semaphore::new(most)));
            let mut tasks = Vec::new();
            for one in listening {
                let (shared, hellos) = (Arc::clone(&shared), hellos.clone());
                tasks.push(spawn_local(serve(one, shared, number, hellos, stage.clone())));
            }
            for task in tasks {
                let _ = task.await;
            }
        });
        // What is still open after the grace time is cut with the runtime.
        drop(runtime);
    })?;
    result.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// The allocator returns what is free to the system while it is asked for more, and never by itself: a worker that has
/// become idle would keep what its busiest moment took. So it is asked now and then.
async fn give_memory_back() {
    loop {
        sleep(GIVE_BACK_EVERY).await;
        memory::give_back();
    }
}

/// Accepts until told to stop, then sees the connections through.
async fn serve(
    listening: Listening,
    shared: Arc<Shared>,
    number: usize,
    hellos: Option<Arc<Semaphore>>,
    mut stage: watch::Receiver<Stage>,
) {
    let Listening { entry_point, socket, inherited } = listening;
    let name = Arc::clone(&entry_point.facts.name);
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(entryPointName = %name, %error, "cannot listen");
            return;
        }
    };
    let life_cycle = entry_point.life_cycle;
    let door = Door::new(shared, entry_point, number, hellos);
    let (work, drain) = (door.work.clone(), door.drain.clone());
    let accept_until = async {
        let _ = stage.wait_for(|stage| *stage >= Stage::Stopping).await;
        let cut = stage.wait_for(|stage| *stage >= Stage::Cut);
        tokio::select! {
            () = sleep(life_cycle.request_accept_grace) => {}
            _ = cut => {}
        }
    };
    tokio::select! {
        () = accept(&socket, inherited, &door) => {}
        () = accept_until => {}
    }
    if *stage.borrow() < Stage::Cut {
        close(socket, inherited, &door).await;
    }
    drain.tell();
    let end = Instant::now() + life_cycle.grace;
    let cut = stage.wait_for(|stage| *stage >= Stage::Cut);
    tokio::select! {
        waited = timeout_at(end, work.finished()) => {
            if waited.is_err() {
                debug!(entryPointName = %name, open = work.count(), "grace time is over");
            }
        }
        _ = cut => {}
    }
    work.cut();
    // Cut tunnels and bodies write their last words to the access log.
    let _ = timeout_at(Instant::now() + Duration::from_millis(100), work.finished()).await;
}

async fn accept(socket: &tokio::net::TcpListener, inherited: bool, door: &Arc<Door>) {
    let shortage = &door.entry_point.shortage;
    let name = &*door.entry_point.facts.name;
    let overload = door.shared.overload.as_deref();
    let position = door.entry_point.position;
    loop {
        if let Some(overload) = overload {
            overload.room(position).await;
        }
        let accepted = if shortage.lasts() {
            shortage.look(name);
            // That nobody comes any more must not keep it from being over.
            let Ok(accepted) = timeout(QUIET, socket.accept()).await else { continue };
            accepted
        } else {
            socket.accept().await
        };
        match accepted {
            Ok(_) if overload.is_some_and(|overload| overload.refuses_connection(position)) => {}
            Ok((stream, peer)) => begin(stream, peer, inherited, door),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                // Out of descriptors: those that close are the only cure, so wait for them.
                shortage.failed(name, &error);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn begin(stream: TcpStream, peer: SocketAddr, inherited: bool, door: &Arc<Door>) {
    let Some(seat) = door.seat(peer) else { return };
    // It may have waited at a socket that somebody else has prepared as they like.
    if inherited || cfg!(not(target_os = "linux")) {
        listener::prepare(&stream, door.shared.watches_sending());
    }
    spawn_local(connection::serve(Arc::clone(door), stream, peer, seat));
}

/// Closes the socket when nothing waits at it any more: closing it resets every connection that
/// the kernel has accepted, or is about to.
async fn close(socket: tokio::net::TcpListener, inherited: bool, door: &Arc<Door>) {
    if !inherited && let Err(error) = listener::admit_nobody(&socket) {
        debug!(%error, "connections that begin just now may be reset");
    }
    let _ = timeout_at(Instant::now() + HANDSHAKES, accept(&socket, inherited, door)).await;
    // tokio may say that nothing is there when it is another task's turn.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, peer)) = socket.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            begin(stream, peer, inherited, door);
        }
    }
}

/// Errors that belong to the connection that was about to be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
