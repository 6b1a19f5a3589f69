//! Workers: one thread and one single-threaded runtime each, from accept to the last byte.
//!
//! Invariant: what a worker accepts never leaves its thread, so nothing on the way takes a lock
//! for the sake of another core. Shutdown goes in stages: accept on, finish, cut.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection::{self, Door};
use super::{EntryPoint, Shared, listener};
use crate::exchange::OpenWork;

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
}

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
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = built.send(Err(error));
                return;
            }
        };
        let _ = built.send(Ok(()));
        runtime.block_on(async move {
            let mut tasks = Vec::new();
            for one in listening {
                tasks.push(spawn_local(serve(one, Arc::clone(&shared), stage.clone())));
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

/// Accepts until told to stop, then sees the connections through.
async fn serve(listening: Listening, shared: Arc<Shared>, mut stage: watch::Receiver<Stage>) {
    let Listening { entry_point, socket } = listening;
    let name = Arc::clone(&entry_point.facts.name);
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(entryPointName = %name, %error, "cannot listen");
            return;
        }
    };
    let work = OpenWork::default();
    let drain = CancellationToken::new();
    let life_cycle = entry_point.life_cycle;
    let door = Arc::new(Door { shared, entry_point, work: work.clone(), drain: drain.clone() });
    let accept_until = async {
        let _ = stage.wait_for(|stage| *stage >= Stage::Stopping).await;
        let cut = stage.wait_for(|stage| *stage >= Stage::Cut);
        tokio::select! {
            () = sleep(life_cycle.request_accept_grace) => {}
            _ = cut => {}
        }
    };
    tokio::select! {
        () = accept(&socket, &door) => {}
        () = accept_until => {}
    }
    accept_waiting(&socket, &door).await;
    drop(socket);
    drain.cancel();
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

async fn accept(socket: &tokio::net::TcpListener, door: &Arc<Door>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                listener::prepare(&stream);
                spawn_local(connection::serve(Arc::clone(door), stream, peer));
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                // Out of descriptors: those that close are the only cure, so wait for them.
                warn!(entryPointName = %door.entry_point.facts.name, %error, "cannot accept");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Takes what the kernel has already accepted: closing the socket would reset it.
async fn accept_waiting(socket: &tokio::net::TcpListener, door: &Arc<Door>) {
    let waiting = async {
        while let Ok((stream, peer)) = socket.accept().await {
            listener::prepare(&stream);
            spawn_local(connection::serve(Arc::clone(door), stream, peer));
        }
    };
    let _ = timeout_at(Instant::now() + Duration::from_millis(1), waiting).await;
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
