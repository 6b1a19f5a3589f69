//! The body of a request on its way to a server, and the line between it and who waits for the answer.
//!
//! Trailers of requests are never passed on: a server could take them for headers that nobody
//! has checked.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::exchange::{Body, BodyError, ProxyError};
use crate::wire::GateControl;

/// The body waits until the server asks for it (`Expect: 100-continue`).
const HELD: u8 = 0;
const OPEN: u8 = 1;
/// Every byte was handed over, or nobody wants more.
const ENDED: u8 = 2;
/// The source failed.
const FAILED: u8 = 3;
/// We want no more of it.
const STOPPED: u8 = 4;

/// How far an upload is.
#[derive(Debug)]
pub(super) struct UploadState {
    phase: AtomicU8,
    error: OnceLock<ProxyError>,
    /// Who waits for a change.
    waits: AtomicWaker,
    /// Who polls the body.
    polls: AtomicWaker,
}

impl UploadState {
    /// Whether no byte of the body is to be sent any more.
    pub(super) fn is_over(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= ENDED
    }

    /// Whether the body is held back.
    pub(super) fn is_held(&self) -> bool {
        self.phase.load(Ordering::Acquire) == HELD
    }

    /// Lets a body go that was held back.
    pub(super) fn release(&self) {
        self.change(HELD, OPEN);
    }

    /// Makes the body fail when it is asked for more.
    pub(super) fn stop(&self) {
        self.change(HELD, STOPPED);
        self.change(OPEN, STOPPED);
    }

    /// What the client did wrong, if its body failed.
    pub(super) fn error(&self) -> Option<ProxyError> {
        self.error.get().copied()
    }

    /// Completes when the body is not held back any more.
    pub(super) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waits.register(cx.waker());
        if self.is_held() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Completes when the body is over.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waits.register(cx.waker());
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Completes when the body has failed.
    pub(super) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waits.register(cx.waker());
        if self.phase.load(Ordering::Acquire) == FAILED { Poll::Ready(()) } else { Poll::Pending }
    }

    fn change(&self, from: u8, to: u8) {
        let changed =
            self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if changed {
            self.polls.wake();
            self.waits.wake();
        }
    }

    fn over(&self, phase: u8) {
        if !self.is_over() {
            self.phase.store(phase, Ordering::Release);
        }
        self.waits.wake();
    }
}

/// The body of a request as a connection takes it.
pub(super) struct Upload {
    body: Body,
    /// `None` for a body without a byte.
    state: Option<Arc<UploadState>>,
    client: Option<Arc<GateControl>>,
}

impl Upload {
    /// A body without a byte.
    pub(super) const fn empty() -> Self {
        Self { body: Body::empty(), state: None, client: None }
    }

    /// Takes `body`; `hold` keeps it back until `UploadState::release`. `client` knows why a
    /// client's body fails.
    pub(super) fn new(body: Body, hold: bool, client: Option<Arc<GateControl>>) -> Self {
        if body.is_end_stream() {
            // The body's hooks are still to be called, so it is kept.
            return Self { body, state: None, client: None };
        }
        let state = UploadState {
            phase: AtomicU8::new(if hold { HELD } else { OPEN }),
            error: OnceLock::new(),
            waits: AtomicWaker::new(),
            polls: AtomicWaker::new(),
        };
        Self { body, state: Some(Arc::new(state)), client }
    }

    /// How far it is; `None` for a body without a byte.
    pub(super) fn state(&self) -> Option<&Arc<UploadState>> {
        self.state.as_ref()
    }

    fn blame(&self, error: &BodyError) -> ProxyError {
        match error {
            BodyError::Malformed(_) => ProxyError::BadRequestBody,
            BodyError::TooLarge(_) => ProxyError::BodyTooLarge,
            BodyError::TooSlow => ProxyError::BodyTooSlow,
            BodyError::Timeout => ProxyError::RequestTimeout,
            BodyError::Connection(_) | BodyError::Source(_) => match &self.client {
                Some(client) if client.body_timed_out() => ProxyError::RequestTimeout,
                Some(client) if client.body_violation().is_some() => ProxyError::BadRequestBody,
                _ => ProxyError::ClientGone,
            },
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(state) = &this.state else { return Poll::Ready(None) };
        match state.phase.load(Ordering::Acquire) {
            HELD => {
                state.polls.register(cx.waker());
                if state.is_held() {
                    return Poll::Pending;
                }
            }
            ENDED => return Poll::Ready(None),
            FAILED | STOPPED => {
                return Poll::Ready(Some(Err(BodyError::Malformed("the upload was stopped"))));
            }
            _ => {}
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending() {
            state.polls.register(cx.waker());
        }
        match ready!(polled) {
            Some(Ok(frame)) if frame.is_data() => {
                if this.body.is_end_stream() {
                    state.over(ENDED);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(_)) | None => {
                state.over(ENDED);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let _ = state.error.set(this.blame(&error));
                state.over(FAILED);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            None => true,
            Some(state) => {
                state.phase.load(Ordering::Acquire) == ENDED && self.body.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // A connection lets go of the body when it has sent what `Content-Length` said.
        if let Some(state) = &self.state {
            state.over(ENDED);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn chunks(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Body {
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "frames of a stream are results")]
    fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    #[tokio::test(flavor = "local")]
    async fn trailers_stay_behind() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
        let body = chunks(vec![data(b"abc"), Ok(Frame::trailers(trailers))]);
        let upload = Upload::new(body, false, None);
        let state = Arc::clone(upload.state().unwrap());
        let collected = upload.collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(collected.to_bytes(), "abc");
        assert!(state.is_over());
    }

    #[tokio::test(flavor = "local")]
    async fn a_held_body_waits_for_its_release() {
        let upload = Upload::new(chunks(vec![data(b"abc")]), true, None);
        let state = Arc::clone(upload.state().unwrap());
        let reading = tokio::task::spawn_local(upload.collect());
        tokio::task::yield_now().await;
        assert!(!reading.is_finished() && !state.is_over());
        state.release();
        assert_eq!(reading.await.unwrap().unwrap().to_bytes(), "abc");
    }

    #[tokio::test(flavor = "local")]
    async fn a_stopped_body_fails() {
        let upload = Upload::new(chunks(vec![data(b"abc")]), true, None);
        let state = Arc::clone(upload.state().unwrap());
        state.stop();
        assert!(upload.collect().await.is_err());
        assert_eq!(state.error(), None, "the client is not to blame");
    }

    #[tokio::test(flavor = "local")]
    async fn the_client_is_blamed_for_its_body() {
        for (error, want) in [
            (BodyError::Malformed("x"), ProxyError::BadRequestBody),
            (BodyError::Timeout, ProxyError::RequestTimeout),
            (BodyError::Source("gone".into()), ProxyError::ClientGone),
        ] {
            let upload = Upload::new(chunks(vec![data(b"a"), Err(error)]), false, None);
            let state = Arc::clone(upload.state().unwrap());
            assert!(upload.collect().await.is_err());
            assert_eq!(state.error(), Some(want));
        }
    }
}
