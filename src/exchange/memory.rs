//! What the process holds of bodies for its clients, where its memory has a limit.
//!
//! One account for the process, because there is one memory. Whoever hands a body to a client counts what the client
//! has not taken; whoever reads asks whether to keep less in memory ([`is_scarce`]). The room is set several times in
//! a second; in between the account is exact, so that no burst outruns whoever looks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Bytes that are held now.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// As many as may be; all there are, where memory has no limit.
static ROOM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// A byte of a head is in the buffer that grows with it, and in the one that it grew out of.
const HEAD_COSTS: usize = 2;

/// More than the allocator keeps at hand. Nothing is written there, so it costs no memory.
const LARGE: usize = 1 << 20;

/// Has the allocator return what is free to the system: it does so while it is asked for more, and never by itself.
pub fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// Bytes that are held for clients now.
pub fn held() -> usize {
    HELD.load(Relaxed)
}

/// Says how many may be held from now on; `None`: memory has no limit.
pub fn set_room(room: Option<usize>) {
    ROOM.store(room.unwrap_or(usize::MAX), Relaxed);
}

/// Whether memory has a limit, so that it is worth counting.
pub fn is_limited() -> bool {
    ROOM.load(Relaxed) != usize::MAX
}

/// Whether there is no room left: what need not be in memory is not to be, and what must be, in small pieces.
pub fn is_scarce() -> bool {
    let room = ROOM.load(Relaxed);
    room != usize::MAX && HELD.load(Relaxed) >= room
}

/// What is held for one connection, or one stream of HTTP/2, which can be ended for it.
#[derive(Debug)]
pub struct Held {
    /// Whether it is a connection.
    pub is_connection: bool,
    /// What the client was given and has not taken yet.
    given: AtomicUsize,
    /// What is kept of its bodies.
    kept: AtomicUsize,
    /// What came while no request was open: the beginning of a head.
    head: AtomicUsize,
    busy: AtomicBool,
    /// What came over HTTP/2 since something was sent: nobody has taken it. In no account, as it has a bound of its own.
    ahead: AtomicUsize,
    ended: AtomicBool,
    /// Who waits until the client has taken all.
    giver: AtomicWaker,
    /// Who serves it.
    server: AtomicWaker,
}

impl Held {
    /// Nothing yet.
    pub fn new(is_connection: bool) -> Arc<Self> {
        Arc::new(Self {
            is_connection,
            given: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            ahead: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            giver: AtomicWaker::new(),
            server: AtomicWaker::new(),
        })
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        let head = HEAD_COSTS * self.head.load(Relaxed);
        self.given.load(Relaxed) + self.kept.load(Relaxed) + head + self.ahead.load(Relaxed)
    }

    /// Takes note of how much came over HTTP/2 that nobody has taken.
    pub fn set_ahead(&self, bytes: usize) {
        self.ahead.store(bytes, Relaxed);
    }

    /// Takes note of bytes that came. How many have come for a request that is not open yet.
    pub fn arrived(&self, bytes: usize) -> usize {
        if self.busy.load(Relaxed) {
            return 0;
        }
        HELD.fetch_add(HEAD_COSTS * bytes, Relaxed);
        self.head.fetch_add(bytes, Relaxed) + bytes
    }

    /// The head is read, and its request is open.
    pub fn begun(&self) {
        self.busy.store(true, Relaxed);
        // One task writes it, and the account of all is not touched without need.
        let head = self.head.load(Relaxed);
        if head > 0 {
            self.head.store(0, Relaxed);
            HELD.fetch_sub(HEAD_COSTS * head, Relaxed);
        }
    }

    /// The request is over.
    pub fn over(&self) {
        self.busy.store(false, Relaxed);
    }

    /// The same bytes, counted as given to the client for as long as anybody has them.
    pub fn give(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let length = bytes.len();
        self.given.fetch_add(length, AcqRel);
        HELD.fetch_add(length, Relaxed);
        Bytes::from_owner(Given { bytes, held: Arc::clone(self) })
    }

    /// Whether the client has taken all; else `waker` is woken when it has.
    pub fn has_taken_all(&self, waker: &Waker) -> bool {
        if self.given.load(Acquire) == 0 {
            return true;
        }
        self.giver.register(waker);
        self.given.load(Acquire) == 0
    }

    /// `waker` is woken by whoever wants something of the connection or stream.
    pub fn serve_by(&self, waker: &Waker) {
        self.server.register(waker);
    }

    /// Lets whoever serves it look at how things are.
    pub fn wake(&self) {
        // Who serves it says so once, and may be woken more than once.
        if let Some(waker) = self.server.take() {
            self.server.register(&waker);
            waker.wake();
        }
    }

    /// Ends it.
    pub fn end(&self) {
        self.ended.store(true, Release);
        self.wake();
    }

    /// Whether it is to end.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// Completes when it is to end. Whoever waits for that serves it from then on.
    pub async fn told_to_end(&self) {
        let told = |cx: &mut Context<'_>| {
            self.serve_by(cx.waker());
            if self.is_ended() { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(told).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let head = *self.head.get_mut();
        if head > 0 {
            HELD.fetch_sub(HEAD_COSTS * head, Relaxed);
        }
    }
}

struct Given {
    bytes: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let length = self.bytes.len();
        HELD.fetch_sub(length, Relaxed);
        if self.held.given.fetch_sub(length, AcqRel) == length {
            self.held.giver.wake();
        }
    }
}

/// Bytes of a body that are kept in memory, counted until this is dropped.
#[derive(Debug, Default)]
pub struct Keeping {
    bytes: usize,
    held: Option<Arc<Held>>,
}

impl Keeping {
    /// Nothing yet; `held` for whom, where that is known.
    pub fn new(held: Option<Arc<Held>>) -> Self {
        Self { bytes: 0, held }
    }

    /// Counts so many bytes more.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        HELD.fetch_add(bytes, Relaxed);
        if let Some(held) = &self.held {
            held.kept.fetch_add(bytes, Relaxed);
        }
    }

    /// None of them is kept any more.
    pub fn let_go(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        HELD.fetch_sub(bytes, Relaxed);
        if let Some(held) = &self.held {
            held.kept.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_hand_lets_go() {
        let held = Held::new(true);
        let bytes = held.give(Bytes::from_static(b"hello world"));
        assert_eq!((&*bytes, held.bytes()), (b"hello world".as_slice(), 11));
        let part = bytes.slice(6..);
        let mut keeping = Keeping::new(Some(Arc::clone(&held)));
        keeping.grow(4);
        drop(bytes);
        assert_eq!(held.bytes(), 15, "a part keeps the whole");
        assert!(!held.has_taken_all(Waker::noop()));
        drop(part);
        assert_eq!(held.bytes(), 4);
        assert!(held.has_taken_all(Waker::noop()), "what is kept was not given");
        keeping.let_go();
        assert_eq!(held.bytes(), 0);
        keeping.grow(3);
        drop(keeping);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn what_comes_for_no_request_is_a_head() {
        let held = Held::new(true);
        assert_eq!((held.arrived(10), held.arrived(5)), (10, 15));
        assert_eq!(held.bytes(), 30);
        held.begun();
        assert_eq!((held.arrived(1000), held.bytes()), (0, 0), "a body goes on its way");
        held.over();
        assert_eq!(held.arrived(7), 7);
    }

    #[test]
    fn whoever_waits_is_woken_when_all_is_taken() {
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, AcqRel);
            }
        }
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let held = Held::new(false);
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        let (one, two) = (held.give(one), held.give(two));
        assert!(!held.has_taken_all(&Waker::from(Arc::clone(&woken))));
        drop(one);
        assert_eq!(woken.0.load(Acquire), 0);
        drop(two);
        assert_eq!(woken.0.load(Acquire), 1);
    }
}
