//! One HTTP/2 stream as a task, which may have to end before its client has taken everything.
//!
//! Neither a body nor a service is asked for more while the client lets nothing through, so a deadline is kept here,
//! around all of it; the end of it resets the stream. So is the time that a client may take nothing. Without either it
//! costs nothing. Where memory runs short, the stream may be told to end as well.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::exchange::memory::Held;
use crate::wire::LazySleep;

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
        // How long the client may take nothing, and since when it has.
        stall: Option<Duration>,
        since: Option<Instant>,
        timer: LazySleep,
        held: Option<Arc<Held>>,
    }
}

/// A stream ended because its client has taken nothing for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stalled;

impl<F> Stream<F> {
    pub(super) fn new(work: F, stall: Option<Duration>) -> Self {
        let timer = LazySleep::default();
        Self { work, until: None, stall, since: None, timer, held: None }
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
        if let Some(turn) = TURN.take() {
            *this.since = (turn == Turn::Client && this.stall.is_some()).then(Instant::now);
        }
        let stalled = this.since.zip(*this.stall).map(|(since, stall)| since + stall);
        let end = [*this.until, stalled].into_iter().flatten().min();
        if polled.is_ready() || end.is_none() {
            return polled.map(|_| Ok(()));
        }
        ready!(this.timer.poll(cx, end, None));
        Poll::Ready(if end == stalled { Err(Stalled) } else { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let stall = Some(Duration::from_secs(5));
        let start = Instant::now();
        let turns = |turns: &'static [(u64, Turn)]| async move {
            for (seconds, turn) in turns {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                waits_for(*turn);
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        };
        let taken = turns(&[(4, Turn::Client), (4, Turn::Client), (4, Turn::Server)]);
        assert_eq!(Stream::new(taken, stall).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 32, "who waits for the server may wait");
        let left = turns(&[(9, Turn::Server), (4, Turn::Client)]);
        assert_eq!(Stream::new(left, stall).await, Err(Stalled));
        assert_eq!(start.elapsed().as_secs(), 32 + 13 + 5);
    }
}
