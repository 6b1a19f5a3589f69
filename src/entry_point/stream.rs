//! One HTTP/2 stream as a task, which may have to end before its client has taken everything.
//!
//! Neither a body nor a service is asked for more while the client lets nothing through, so a deadline is kept here,
//! around all of it; the end of it resets the stream. So is the time that a client may take nothing: there is a timer
//! for it only while a stream really waits for its client. Where memory runs short, the stream may be told to end as
//! well.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::guard::Limit;
use super::http::Conversation;
use super::paced::PIECE;
use crate::exchange::memory::Held;
use crate::wire::LazySleep;

/// What the other streams of a connection may get between two pieces of one, each of them: as much as waits for one
/// stream, twice.
const SHARE: u64 = 128 << 10;
/// For how many times a stream waits its turn while others have theirs.
const TURNS: u32 = 10;

thread_local! {
    /// What the exchange of the stream that is being polled has asked for.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What is held for it.
    static HELD: Cell<Option<Arc<Held>>> = const { Cell::new(None) };
    /// Whom it waits for, if that was said.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// Whom a stream waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is something for the client to take.
    Client,
    /// There is nothing yet.
    Server,
}

/// The stream that is being polled waits for this side.
pub(super) fn waits_for(turn: Turn) {
    TURN.set(Some(turn));
}

/// The stream that is being polled ends at `until` at the latest.
pub(super) fn end_at(until: Instant) {
    ASKED.set(Some(until));
}

/// The stream that is being polled ends when `held` does.
pub(super) fn end_with(held: Arc<Held>) {
    HELD.set(Some(held));
}

pin_project! {
    /// The work of one stream.
    pub(super) struct Stream<F> {
        #[pin]
        work: F,
        until: Option<Instant>,
        stall: Option<Stall>,
        wait: Option<Wait>,
        timer: LazySleep,
        held: Option<Arc<Held>>,
    }
}

/// A stream ended because its client has taken nothing for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stalled;

/// How long a client may take nothing of a stream, and whose stream it is.
#[derive(Clone)]
pub(super) struct Stall {
    pub(super) limit: Duration,
    pub(super) conversation: Arc<Conversation>,
}

impl Stall {
    fn delivered(&self) -> u64 {
        self.conversation.delivered.load(Relaxed)
    }

    /// What the connection moves before every stream of it has had its turn.
    fn round(&self) -> u64 {
        SHARE * self.conversation.open() as u64
    }
}

/// A stream that waits for its client.
#[derive(Clone, Copy)]
struct Wait {
    since: Instant,
    /// What its connection had delivered when it began to wait, and at `since`.
    begun: u64,
    seen: u64,
    turns: u32,
}

impl Wait {
    fn begin(stall: &Stall) -> Self {
        let delivered = stall.delivered();
        Self { since: Instant::now(), begun: delivered, seen: delivered, turns: 1 }
    }

    /// It has waited for as long as a client may take nothing: whether it may go on, because its connection moves and
    /// others have their turns. On a slow line many streams wait long for each of theirs.
    fn goes_on(&mut self, stall: &Stall) -> bool {
        let delivered = stall.delivered();
        let moves = delivered - self.seen >= PIECE as u64;
        let passed_over = delivered - self.begun > stall.round();
        (self.since, self.seen) = (Instant::now(), delivered);
        self.turns += 1;
        moves && !passed_over && self.turns <= TURNS
    }
}

impl<F> Stream<F> {
    pub(super) fn new(work: F, stall: Option<Stall>) -> Self {
        let timer = LazySleep::default();
        Self { work, until: None, stall, wait: None, timer, held: None }
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = Result<(), Stalled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.held.as_ref().is_some_and(|held| held.is_ended()) {
            return Poll::Ready(Ok(()));
        }
        let polled = this.work.poll(cx);
        if let Some(held) = HELD.take() {
            held.serve_by(cx.waker());
            *this.held = Some(held);
        }
        if let Some(until) = ASKED.take() {
            *this.until = Some(until);
        }
        let turn = TURN.take();
        if polled.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let (Some(turn), Some(stall)) = (turn, &*this.stall) {
            *this.wait = (turn == Turn::Client).then(|| Wait::begin(stall));
        }
        loop {
            let (Some(wait), Some(stall)) = (&mut *this.wait, &*this.stall) else {
                let Some(until) = *this.until else { return Poll::Pending };
                return this.timer.poll(cx, Some(until), None).map(Ok);
            };
            let stalled = wait.since + stall.limit;
            let until = this.until.filter(|until| *until < stalled);
            ready!(this.timer.poll(cx, until.or(Some(stalled)), None));
            if until.is_some() {
                return Poll::Ready(Ok(()));
            }
            if !wait.goes_on(stall) {
                stall.conversation.hit(Limit::Answer);
                return Poll::Ready(Err(Stalled));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::Busy;
    use super::super::tests::{connection, door_with};
    use super::*;

    fn stall(limit: Duration) -> Stall {
        let door = door_with(|_| {});
        Stall { limit, conversation: Conversation::new(&door, connection(&door), None, None, 0) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_it_was_asked_to() {
        let start = Instant::now();
        let work = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            end_at(start + Duration::from_secs(3));
            std::future::pending::<()>().await;
        };
        assert_eq!(Stream::new(work, None).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 3);
        let others = Stream::new(tokio::time::sleep(Duration::from_secs(10)), None);
        assert_eq!(others.await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 13, "one stream's end is no other's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_what_is_held_for_it() {
        let held = Held::new(false);
        let other = Arc::clone(&held);
        let work = async {
            end_with(other);
            std::future::pending::<()>().await;
        };
        let ending = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.end();
        };
        assert_eq!(tokio::join!(Stream::new(work, None), ending).0, Ok(()));
    }

    /// G-27, G-34
    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_takes_nothing() {
        let stall = Some(stall(Duration::from_secs(5)));
        let start = Instant::now();
        let turns = |turns: &'static [(u64, Turn)]| async move {
            for (seconds, turn) in turns {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                waits_for(*turn);
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        };
        let taken = turns(&[(4, Turn::Client), (4, Turn::Client), (4, Turn::Server)]);
        assert_eq!(Stream::new(taken, stall.clone()).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 32, "who waits for the server may wait");
        let left = turns(&[(9, Turn::Server), (4, Turn::Client)]);
        assert_eq!(Stream::new(left, stall).await, Err(Stalled));
        assert_eq!(start.elapsed().as_secs(), 32 + 13 + 5);
    }
    /// G-34: on a slow line many streams wait for their turns. One that waits while the others have several of theirs has
    /// a client that does not want it, and a line that hardly moves is none.
    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_its_turn_while_its_connection_moves() {
        for (each_second, seconds) in [(0, 5), (3_000, 5), (4_000, 50), (20_000, 20), (100_000, 5)]
        {
            let stall = stall(Duration::from_secs(5));
            let _others = [(); 3].map(|()| Busy::new(&stall.conversation));
            let conversation = Arc::clone(&stall.conversation);
            let line = async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                loop {
                    conversation.delivered.fetch_add(each_second, Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            let start = Instant::now();
            let work = async {
                waits_for(Turn::Client);
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                ended = Stream::new(work, Some(stall)) => ended,
                () = line => unreachable!(),
            };
            assert_eq!(ended, Err(Stalled));
            assert_eq!(start.elapsed().as_secs(), seconds, "{each_second}");
        }
    }

    /// Most answers are written at once, and many more wait for their server only.
    #[tokio::test(start_paused = true)]
    async fn only_a_stream_that_waits_for_its_client_has_a_timer() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (turn, timed) in [(Turn::Server, false), (Turn::Client, true)] {
            let work = std::future::poll_fn(move |_| {
                waits_for(turn);
                Poll::<()>::Pending
            });
            let mut stream = Box::pin(Stream::new(work, Some(stall(Duration::from_secs(5)))));
            assert!(stream.as_mut().poll(&mut cx).is_pending());
            assert_eq!(stream.wait.is_some(), timed);
            assert_eq!(format!("{:?}", stream.timer).contains("armed: None"), !timed);
        }
    }
}
