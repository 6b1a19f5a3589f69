//! One HTTP/2 stream as a task, which may have to end before its client has taken everything.
//!
//! Neither a body nor a service is asked for more while the client lets nothing through, so a deadline is kept here,
//! around all of it; the end of it resets the stream. Without one it costs nothing.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::wire::LazySleep;

thread_local! {
    /// What the exchange of the stream that is being polled has asked for.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The stream that is being polled ends at `until` at the latest.
pub(super) fn end_at(until: Instant) {
    ASKED.set(Some(until));
}

pin_project! {
    /// The work of one stream.
    pub(super) struct Stream<F> {
        #[pin]
        work: F,
        until: Option<Instant>,
        timer: LazySleep,
    }
}

impl<F> Stream<F> {
    pub(super) fn new(work: F) -> Self {
        Self { work, until: None, timer: LazySleep::default() }
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.work.poll(cx);
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
}
