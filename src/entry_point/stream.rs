//! One HTTP/2 stream as a task, which may have to end before its client has taken everything.
//!
//! Neither a body nor a service is asked for more while the client lets nothing through, so a deadline is kept here,
//! around all of it; the end of it resets the stream. Without one it costs nothing. The same where memory runs short.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::exchange::memory::Held;
use crate::wire::LazySleep;

thread_local! {
    /// What the exchange of the stream that is being polled has asked for.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What is held for it.
    static HELD: Cell<Option<Arc<Held>>> = const { Cell::new(None) };
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
        timer: LazySleep,
        held: Option<Arc<Held>>,
    }
}

impl<F> Stream<F> {
    pub(super) fn new(work: F) -> Self {
        Self { work, until: None, timer: LazySleep::default(), held: None }
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.held.as_ref().is_some_and(|held| held.is_ended()) {
            return Poll::Ready(());
        }
        let polled = this.work.poll(cx);
        if let Some(held) = HELD.take() {
            held.serve_by(cx.waker());
            *this.held = Some(held);
        }
        if let Some(until) = ASKED.take() {
            *this.until = Some(until);
        }
        if polled.is_ready() || this.until.is_none() {
            return polled.map(drop);
        }
        ready!(this.timer.poll(cx, *this.until, None));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_it_was_asked_to() {
        let start = Instant::now();
        Stream::new(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            end_at(start + Duration::from_secs(3));
            std::future::pending::<()>().await;
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 3);
        let others = Stream::new(tokio::time::sleep(Duration::from_secs(10)));
        others.await;
        assert_eq!(start.elapsed().as_secs(), 13, "one stream's end is no other's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_what_is_held_for_it() {
        let held = Held::new(false);
        let other = Arc::clone(&held);
        let stream = Stream::new(async {
            end_with(other);
            std::future::pending::<()>().await;
        });
        let ending = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.end();
        };
        tokio::join!(stream, ending);
    }
}
