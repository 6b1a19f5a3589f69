//! Bodies with a time limit, for where the gate cannot keep it.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::exchange::{Body, BodyError};

/// A request's body that must arrive in time: as a whole, or from one read to the next.
pub(super) type TimedBody = Timed<false>;
/// A response's body that must be delivered by a deadline (`writeTimeout`).
pub(super) type WriteDeadline = Timed<true>;

/// A body with a timer. It ends the waiting for a frame; a `STRICT` one also ends a body that always
/// has one more.
pub(super) struct Timed<const STRICT: bool> {
    body: Body,
    timer: Pin<Box<Sleep>>,
    /// What each frame gives to the next.
    renewed: Option<Duration>,
}

impl TimedBody {
    pub(super) fn new(body: Body, start: Instant, limit: Duration, per_read: bool) -> Self {
        let timer = Box::pin(sleep_until(start + limit));
        Self { body, timer, renewed: per_read.then_some(limit) }
    }
}

impl WriteDeadline {
    pub(super) fn new(body: Body, deadline: Instant) -> Self {
        Self { body, timer: Box::pin(sleep_until(deadline)), renewed: None }
    }
}

impl<const STRICT: bool> HttpBody for Timed<STRICT> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if STRICT && self.timer.as_mut().poll(task).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(task) else {
            std::task::ready!(self.timer.as_mut().poll(task));
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        };
        if let Some(limit) = self.renewed {
            self.timer.as_mut().reset(Instant::now() + limit);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
