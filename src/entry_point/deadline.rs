//! Bodies with a time limit, for where the gate cannot keep it.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::exchange::{Body, BodyError};
use crate::wire::LazySleep;

/// A request's body that must arrive in time: as a whole, or from one read to the next.
pub(super) type TimedBody = Timed<false>;
/// A response's body that must be delivered by a deadline (`writeTimeout`).
pub(super) type WriteDeadline = Timed<true>;

/// A body with a timer. It ends the waiting for a frame; a `STRICT` one also ends a body that always
/// has one more.
pub(super) struct Timed<const STRICT: bool> {
    body: Body,
    limit: Limit,
    timer: LazySleep,
}

enum Limit {
    /// For all of it.
    Until(Instant),
    /// For each wait, and since when there is one: whoever does not ask for more does not wait.
    Pause(Duration, Option<Instant>),
}

impl TimedBody {
    pub(super) fn until(body: Body, deadline: Instant) -> Self {
        Self { body, limit: Limit::Until(deadline), timer: LazySleep::default() }
    }

    pub(super) fn per_read(body: Body, limit: Duration) -> Self {
        Self { body, limit: Limit::Pause(limit, None), timer: LazySleep::default() }
    }
}

impl WriteDeadline {
    pub(super) fn new(body: Body, deadline: Instant) -> Self {
        Self { body, limit: Limit::Until(deadline), timer: LazySleep::default() }
    }
}

impl<const STRICT: bool> HttpBody for Timed<STRICT> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if STRICT
            && let Limit::Until(deadline) = this.limit
            && this.timer.poll(task, Some(deadline), None).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let polled = Pin::new(&mut this.body).poll_frame(task);
        let deadline = match &mut this.limit {
            Limit::Until(deadline) => *deadline,
            Limit::Pause(_, since) if polled.is_ready() => {
                *since = None;
                return polled;
            }
            Limit::Pause(limit, since) => *since.get_or_insert_with(Instant::now) + *limit,
        };
        if polled.is_pending() {
            ready!(this.timer.poll(task, Some(deadline), None));
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::sleep;

    use super::*;

    /// A piece every nine seconds.
    fn slow(pieces: usize) -> Body {
        let pieces = futures_util::stream::unfold(pieces, |left| async move {
            sleep(Duration::from_secs(9)).await;
            (left > 0).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), left - 1))
        });
        Body::boxed(StreamBody::new(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_its_time_in_all_or_for_each_pause() {
        let ten = Duration::from_secs(10);
        let start = Instant::now();
        let cut = TimedBody::until(slow(5), start + ten).collect().await;
        assert!(matches!(cut, Err(BodyError::Timeout)));
        assert_eq!(start.elapsed().as_secs(), 10);
        let whole = TimedBody::per_read(slow(5), ten).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "xxxxx");
        let cut = TimedBody::per_read(slow(5), ten / 2).collect().await;
        assert!(matches!(cut, Err(BodyError::Timeout)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_ask_does_not_wait() {
        let mut body = TimedBody::per_read(slow(2), Duration::from_secs(10));
        sleep(Duration::from_mins(1)).await;
        assert!(body.frame().await.unwrap().is_ok());
        sleep(Duration::from_mins(1)).await;
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.is_none());
    }
}
