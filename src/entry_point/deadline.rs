//! Bodies with a time limit, for where the gate cannot keep it.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::exchange::{Body, BodyError};

/// A request's body that must arrive in time: as a whole, or from one read to the next.
pub(super) struct TimedBody {
    body: Body,
    limit: Duration,
    per_read: bool,
    timer: Pin<Box<Sleep>>,
}

impl TimedBody {
    pub(super) fn new(body: Body, start: Instant, limit: Duration, per_read: bool) -> Self {
        Self { body, limit, per_read, timer: Box::pin(sleep_until(start + limit)) }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(task) {
            Poll::Ready(frame) => {
                if self.per_read {
                    let next = Instant::now() + self.limit;
                    self.timer.as_mut().reset(next);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                std::task::ready!(self.timer.as_mut().poll(task));
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body that must be delivered by a deadline (`writeTimeout`).
pub(super) struct WriteDeadline {
    body: Body,
    timer: Pin<Box<Sleep>>,
}

impl WriteDeadline {
    pub(super) fn new(body: Body, deadline: Instant) -> Self {
        Self { body, timer: Box::pin(sleep_until(deadline)) }
    }
}

impl HttpBody for WriteDeadline {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.timer.as_mut().poll(task).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
