//! Bodies under a limit: the client's, the server's, and what goes out.
//!
//! A pause counts from the moment somebody asks for more and gets nothing: whoever is slow to ask harms nobody.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::keeper::Meter;
use crate::exchange::error::Later;
use crate::exchange::{Body, BodyError, ProxyError};
use crate::wire::LazySleep;

/// What a body of the client comes to.
pub(super) struct Received {
    body: Body,
    meter: Arc<Meter>,
    later: Later,
    bytes: u64,
    /// How long the client was waited for, before it is now.
    waited: Duration,
    waiting: Option<Instant>,
    timer: LazySleep,
    failed: Option<ProxyError>,
}

impl Received {
    /// The client's body under the limits of `meter`.
    pub(super) fn body(body: Body, meter: &Arc<Meter>, later: &Later) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::boxed(Self {
            body,
            meter: Arc::clone(meter),
            later: Arc::clone(later),
            bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
            timer: LazySleep::default(),
            failed: None,
        })
    }

    /// Nothing more comes of it, not even its end.
    fn fail(&mut self, error: ProxyError) -> BodyError {
        self.failed = Some(error);
        let _ = self.later.set(error);
        self.body = Body::empty();
        match error {
            ProxyError::BodyTooLarge => {
                BodyError::TooLarge(self.meter.limits().max_bytes.flatten().unwrap_or_default())
            }
            _ => BodyError::TooSlow,
        }
    }

    /// Waits for the client.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = self.meter.limits();
        if limits.idle.flatten().is_none() && limits.rate.flatten().is_none() {
            return Poll::Pending;
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let until = limits.more_until(since, self.waited, self.bytes);
        self.timer.poll(cx, until, None)
    }

    fn is_announced_too_large(&self) -> bool {
        let most = self.meter.limits().max_bytes.flatten();
        most.is_some_and(|most| self.body.size_hint().lower() > most)
    }

    fn fits(&mut self, frame: &Frame<Bytes>) -> bool {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        let most = self.meter.limits().max_bytes.flatten();
        most.is_none_or(|most| self.bytes <= most)
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed {
            return Poll::Ready(Some(Err(this.fail(error))));
        }
        if this.bytes == 0 && this.is_announced_too_large() {
            return Poll::Ready(Some(Err(this.fail(ProxyError::BodyTooLarge))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.poll_late(cx));
            return Poll::Ready(Some(Err(this.fail(ProxyError::BodyTooSlow))));
        };
        if let Some(since) = this.waiting.take() {
            this.waited += since.elapsed();
        }
        match frame {
            Some(Ok(frame)) if !this.fits(&frame) => {
                Poll::Ready(Some(Err(this.fail(ProxyError::BodyTooLarge))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer under a limit.
struct Timed {
    body: Body,
    /// Longest pause of who sends it.
    idle: Option<Duration>,
    /// When it must be over.
    until: Option<Instant>,
    later: Later,
    waiting: Option<Instant>,
    timer: LazySleep,
    failed: bool,
}

/// The body of an answer whose server may pause for `idle` at most.
pub(in crate::upstream) fn answered_by(body: Body, idle: Duration, later: &Later) -> Body {
    Timed::body(body, Some(idle), None, later)
}

/// The body of an answer that must be over at `until`.
pub(super) fn delivered_by(body: Body, until: Instant, later: &Later) -> Body {
    Timed::body(body, None, Some(until), later)
}

impl Timed {
    fn body(body: Body, idle: Option<Duration>, until: Option<Instant>, later: &Later) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let (later, timer) = (Arc::clone(later), LazySleep::default());
        Body::boxed(Self { body, idle, until, later, waiting: None, timer, failed: false })
    }

    fn fail(&mut self, error: ProxyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = true;
        let _ = self.later.set(error);
        self.body = Body::empty();
        Poll::Ready(Some(Err(BodyError::TooSlow)))
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.failed {
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            // A server that always has one more byte never makes us wait.
            let late = frame.is_some() && this.until.is_some_and(|until| until <= Instant::now());
            return if late { this.fail(ProxyError::TotalTimeout) } else { Poll::Ready(frame) };
        }
        let until = match this.idle {
            Some(idle) => Some(*this.waiting.get_or_insert_with(Instant::now) + idle),
            None => this.until,
        };
        ready!(this.timer.poll(cx, until, None));
        let error =
            if this.idle.is_some() { ProxyError::AnswerStalled } else { ProxyError::TotalTimeout };
        this.fail(error)
    }

    fn is_end_stream(&self) -> bool {
        !self.failed && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
