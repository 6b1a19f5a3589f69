//! Overload: what is given up, step by step, before memory, descriptors or connections run out.
//!
//! One thread looks at them ([`watch`](Overload::start)) and says in a few atomics what is to be given up; workers read
//! them. First connections that rest, then new requests and connections, at last what is heaviest. Two things bound a
//! burst that is faster than the next look: the room for bodies that clients do not take (`exchange::memory`), and the
//! number of connections that may be accepted until then.

mod cgroup;
mod connections;
mod gauges;
mod ladder;
mod pace;
mod tally;
mod watch;
mod weighed;
mod young;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch::{Receiver, Sender, channel};

pub(super) use self::connections::{here, serve, tend};
pub(super) use self::pace::{LONG, Pace};
pub(super) use self::tally::{Counted, Tally};
pub use self::watch::Watch;
pub(super) use self::weighed::Weighed;
use super::guard::Open;
use crate::observability::metrics::OverloadMetrics;

/// What `Retry-After` says to who is refused, in seconds.
pub(super) const RETRY_AFTER: &str = "5";
/// An entry point with fewer connections always gets one more: whoever asks for health or metrics there is to be
/// answered when everything else is refused.
const FEW: usize = 16;

/// How overload is recognised.
#[derive(Debug, Clone)]
pub struct OverloadSettings {
    /// The shares of a limit at which the steps begin.
    pub thresholds: [f64; 3],
    /// Most memory of the process, if it is configured.
    pub max_memory: Option<u64>,
    /// Most connections, if they are limited.
    pub connections: Option<usize>,
    /// From one look to the next.
    pub interval: Duration,
    /// How many workers share the work.
    pub workers: usize,
    /// How many entry points there are.
    pub entry_points: usize,
}

/// Which requests are refused.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Refuses {
    None,
    /// For want of descriptors: those beside others of their connection, which has one kept for one server.
    Others,
    /// For want of memory.
    All,
}

/// What is given up now, for all workers.
pub struct Overload {
    settings: OverloadSettings,
    metrics: Arc<OverloadMetrics>,
    closes_idle: AtomicBool,
    /// For want of memory: for want of descriptors it would be of no use, as clients come back at once.
    stops_keep_alive: AtomicBool,
    /// See [`Refuses`].
    refuses_requests: AtomicU8,
    /// Close connections that come when `most` are open, instead of letting them wait.
    refuses_connections: AtomicBool,
    /// Whether memory or descriptors are short, so that workers say what they hold.
    weighs: AtomicBool,
    /// By worker.
    surplus: Box<[Surplus]>,
    /// Connections of all workers.
    open: Arc<Open>,
    /// Those of each entry point of the first worker, of the second, and so on.
    tallies: Box<[Arc<Tally>]>,
    /// Connections that may be open until the next look.
    most: AtomicUsize,
    /// The limit of memory that the process began with.
    memory: Option<u64>,
    calm: Sender<bool>,
}

/// What one worker is to free by resetting what is heaviest, and what it has.
#[derive(Debug, Default)]
struct Surplus {
    bytes: AtomicU64,
    /// Connections.
    count: AtomicUsize,
    /// Bytes that could be freed when it looked last.
    held: AtomicU64,
    /// And connections.
    open: AtomicUsize,
}

impl Overload {
    /// Looks for the first time, and begins to watch, where `open` connections are. It ends with the returned value.
    pub fn start(
        settings: OverloadSettings,
        open: Arc<Open>,
        metrics: Arc<OverloadMetrics>,
    ) -> io::Result<(Arc<Self>, Watch)> {
        watch::start(settings, open, metrics)
    }

    fn new(
        settings: OverloadSettings,
        open: Arc<Open>,
        metrics: Arc<OverloadMetrics>,
        memory: Option<u64>,
    ) -> Self {
        let doors = settings.workers * settings.entry_points;
        let tallies = (0..doors).map(|_| Arc::default()).collect();
        let surplus = (0..settings.workers).map(|_| Surplus::default()).collect();
        Self {
            settings,
            metrics,
            closes_idle: AtomicBool::new(false),
            stops_keep_alive: AtomicBool::new(false),
            refuses_requests: AtomicU8::new(Refuses::None as u8),
            refuses_connections: AtomicBool::new(false),
            weighs: AtomicBool::new(false),
            surplus,
            open,
            tallies,
            most: AtomicUsize::new(usize::MAX),
            memory,
            calm: channel(true).0,
        }
    }

    /// Whether connections that rest are closed.
    pub(super) fn closes_idle(&self) -> bool {
        self.closes_idle.load(Relaxed)
    }

    /// Whether connections are not kept alive.
    pub(super) fn stops_keep_alive(&self) -> bool {
        self.stops_keep_alive.load(Relaxed)
    }

    /// Counts a connection that was not kept alive for it.
    pub(super) fn count_not_kept_alive(&self) {
        self.metrics.not_kept_alive.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was closed because it rested.
    pub(super) fn count_idle_closed(&self) {
        self.metrics.idle_closed.fetch_add(1, Relaxed);
    }

    /// Whether a request is to be refused; then it counts as refused. The question is whether its connection has `others`.
    pub(super) fn refuses_request(&self, others: impl FnOnce() -> bool) -> bool {
        let refuses = match self.refuses_requests.load(Relaxed) {
            refuses if refuses == Refuses::None as u8 => false,
            refuses => refuses == Refuses::All as u8 || others(),
        };
        if refuses {
            self.metrics.requests_refused.fetch_add(1, Relaxed);
        }
        refuses
    }

    /// Waits until a connection may be accepted, or would be closed at once.
    pub(super) async fn room(&self, entry_point: usize) {
        while self.is_full(entry_point) && !self.refuses_connections.load(Relaxed) {
            tokio::time::sleep(self.settings.interval / 10).await;
        }
    }

    /// Whether a connection that was accepted is to be closed at once; then it counts as refused.
    pub(super) fn refuses_connection(&self, entry_point: usize) -> bool {
        let refuses = self.refuses_connections.load(Relaxed) && self.is_full(entry_point);
        if refuses {
            self.metrics.connections_refused.fetch_add(1, Relaxed);
        }
        refuses
    }

    fn is_full(&self, entry_point: usize) -> bool {
        self.open.0.load(Relaxed) >= self.most.load(Relaxed) && !self.has_few(entry_point)
    }

    /// Whether an entry point has so few connections that it always gets one more, and loses none.
    fn has_few(&self, entry_point: usize) -> bool {
        let of_workers =
            self.tallies.iter().skip(entry_point).step_by(self.settings.entry_points.max(1));
        of_workers.map(|tally| tally.open()).sum::<usize>() < FEW
    }

    /// Where the connections of an entry point are counted by a worker.
    pub(super) fn tally(&self, worker: usize, entry_point: usize) -> Option<Arc<Tally>> {
        self.tallies.get(worker * self.settings.entry_points + entry_point).cloned()
    }

    /// How much an HTTP/2 client may send ahead on one connection, where memory is so little that it matters.
    pub(super) fn http2_window(&self) -> Option<u32> {
        const USUAL: u64 = 1 << 20;
        /// What every client begins with (RFC 9113, 6.9.2).
        const LEAST: u64 = 65_535;
        let share = (self.memory? / 2048).max(LEAST);
        u32::try_from(share).ok().filter(|_| share < USUAL)
    }

    /// How many threads one worker may have for what blocks, where memory is so little that it matters: each has a stack,
    /// and an allocator of its own.
    pub(super) fn blocking_threads(&self) -> Option<usize> {
        const USUAL: usize = 512;
        const LEAST: usize = 4;
        let threads = usize::try_from(self.memory? / (16 << 20)).unwrap_or(usize::MAX);
        Some(threads.max(LEAST)).filter(|threads| *threads < USUAL)
    }

    /// Whether little is to wait in the kernel to be sent to a client: a cgroup of version 2 counts that too.
    pub(super) fn saves_unsent(&self) -> bool {
        const LITTLE: u64 = 1 << 30;
        self.memory.is_some_and(|memory| memory < LITTLE)
    }

    /// Completes when something is given up, or is not any more.
    fn changes(&self) -> Receiver<bool> {
        self.calm.subscribe()
    }

    /// For tests of what reads it.
    #[cfg(test)]
    pub(super) fn fixed(stops_keep_alive: bool, refuses_requests: bool) -> Arc<Self> {
        let settings = OverloadSettings {
            thresholds: [0.92, 0.95, 0.98],
            max_memory: None,
            connections: None,
            interval: Duration::from_millis(100),
            workers: 1,
            entry_points: 1,
        };
        let overload = Self::new(settings, Arc::default(), Arc::default(), None);
        overload.stops_keep_alive.store(stops_keep_alive, Relaxed);
        let refuses = if refuses_requests { Refuses::All } else { Refuses::None };
        overload.refuses_requests.store(refuses as u8, Relaxed);
        Arc::new(overload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_wait_for_room_or_are_refused() {
        let overload = Overload::fixed(false, false);
        overload.most.store(20, Relaxed);
        overload.open.0.store(20, Relaxed);
        overload.room(0).await;
        assert!(!overload.refuses_connection(0), "the entry point has few");
        overload.tallies[0].set_open(FEW);
        let waiting = tokio::time::timeout(Duration::from_secs(1), overload.room(0)).await;
        assert!(waiting.is_err());
        overload.refuses_connections.store(true, Relaxed);
        overload.room(0).await;
        assert!(overload.refuses_connection(0));
        overload.open.0.store(19, Relaxed);
        assert!(!overload.refuses_connection(0));
        assert_eq!(overload.metrics.connections_refused.load(Relaxed), 1);
    }

    #[test]
    fn windows_shrink_with_memory() {
        let with = |memory| {
            let settings = Overload::fixed(false, false).settings.clone();
            Overload::new(settings, Arc::default(), Arc::default(), memory)
        };
        let of = |memory| (with(memory).http2_window(), with(memory).saves_unsent());
        let threads = |memory| with(memory).blocking_threads();
        assert_eq!(of(None), (None, false));
        assert_eq!(of(Some(4 << 30)), (None, false));
        assert_eq!(of(Some(128 << 20)), (Some(64 << 10), true));
        assert_eq!(of(Some(512 << 20)), (Some(256 << 10), true));
        assert_eq!(of(Some(16 << 20)), (Some(65_535), true));
        assert_eq!(threads(None), None);
        assert_eq!(threads(Some(64 << 30)), None);
        assert_eq!(threads(Some(128 << 20)), Some(8));
    }
}
