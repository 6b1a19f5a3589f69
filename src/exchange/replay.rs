//! A request that can be sent again.
//!
//! A body that nobody has read comes back by itself, so the common case copies nothing. Only where
//! an answer may be a reason to try again, the body is read into memory first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Body, BodyError, ProxyError, Request};

/// A request and what is left of its body.
pub struct Replay {
    parts: Parts,
    source: Source,
}

enum Source {
    Empty,
    /// All of it.
    Buffered(Bytes),
    /// It can be lent as long as nobody has read from it.
    Unread(Home),
}

impl Replay {
    /// Keeps the body where it is.
    pub fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let source =
            if body.is_end_stream() { Source::Empty } else { Source::Unread(Home::new(body)) };
        Self { parts, source }
    }

    /// Reads the body if it has no more than `limit` bytes. A longer one is kept where it is.
    pub async fn buffered(request: Request, limit: Option<u64>) -> Result<Self, ProxyError> {
        let (mut parts, mut body) = request.into_parts();
        if body.is_end_stream() {
            return Ok(Self { parts, source: Source::Empty });
        }
        let fits = |length: u64| limit.is_none_or(|limit| length <= limit);
        if !fits(body.size_hint().lower()) {
            return Ok(Self { parts, source: Source::Unread(Home::new(body)) });
        }
        let mut read = BytesMut::new();
        // The client is told to go on by being read from.
        parts.headers.remove(EXPECT);
        while let Some(frame) = body.frame().await {
            // Trailers of requests are not forwarded.
            if let Ok(data) = frame.map_err(|error| refusal(&error))?.into_data() {
                read.extend_from_slice(&data);
            }
            if !fits(read.len() as u64) {
                let first = Some(Ok(Frame::data(read.freeze())));
                let body = Body::boxed(Begun { first, rest: body });
                return Ok(Self { parts, source: Source::Unread(Home::new(body)) });
            }
        }
        Ok(Self { parts, source: Source::Buffered(read.freeze()) })
    }

    /// Whether an answer does not keep the request from being sent again.
    pub fn is_whole(&self) -> bool {
        !matches!(self.source, Source::Unread(_))
    }

    /// The request once more; `None` when its body is used up.
    pub fn request(&self) -> Option<Request> {
        let body = match &self.source {
            Source::Empty => Body::empty(),
            Source::Buffered(bytes) => Body::from(bytes.clone()),
            Source::Unread(home) => Body::boxed(home.lend()?),
        };
        Some(Request::from_parts(self.parts.clone(), body))
    }
}

/// What a client's body that cannot be read is answered with.
pub fn refusal(error: &BodyError) -> ProxyError {
    match error {
        BodyError::Timeout => ProxyError::RequestTimeout,
        BodyError::TooSlow => ProxyError::BodyTooSlow,
        BodyError::TooLarge(_) => ProxyError::BodyTooLarge,
        BodyError::Malformed(_) => ProxyError::BadRequestBody,
        BodyError::Connection(_) | BodyError::Source(_) => ProxyError::ClientGone,
    }
}

/// Where a body is while nobody has it.
#[derive(Clone)]
struct Home(Arc<Mutex<Option<Body>>>);

impl Home {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn lend(&self) -> Option<Lent> {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Lent { body, home: self.clone(), read: false })
    }
}

/// A body that goes home when it is dropped unread.
struct Lent {
    body: Body,
    home: Home,
    read: bool,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.read = true;
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.read {
            let body = std::mem::take(&mut self.body);
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

/// A body whose beginning has been read already.
pub struct Begun {
    /// What was read.
    pub first: Option<Result<Frame<Bytes>, BodyError>>,
    /// What is still to be read.
    pub rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
        let first = first.map_or(0, |first| first.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(first)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn request(body: Body) -> Request {
        http::Request::builder().uri("/").body(body).unwrap()
    }

    /// A body in pieces, whose length is not known before.
    fn pieces(pieces: &'static [&'static [u8]]) -> Body {
        let frames = pieces.iter().map(|&piece| Ok(Frame::data(Bytes::from_static(piece))));
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    async fn text(request: Request) -> String {
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_unread_body_comes_back() {
        let replay = Replay::new(request(pieces(&[b"one", b"two"])));
        drop(replay.request().unwrap());
        let lent = replay.request().unwrap();
        assert!(replay.request().is_none());
        assert_eq!(text(lent).await, "onetwo");
        assert!(replay.request().is_none());
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn a_buffered_body_can_be_sent_any_number_of_times() {
        for limit in [None, Some(6)] {
            let replay = Replay::buffered(request(pieces(&[b"one", b"two"])), limit).await.unwrap();
            assert!(replay.is_whole());
            for _ in 0..3 {
                assert_eq!(text(replay.request().unwrap()).await, "onetwo");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_still_sent_once() {
        for body in [pieces(&[b"one", b"two", b"three"]), Body::from_static(b"onetwothree")] {
            let replay = Replay::buffered(request(body), Some(5)).await.unwrap();
            assert!(!replay.is_whole());
            drop(replay.request().unwrap());
            assert_eq!(text(replay.request().unwrap()).await, "onetwothree");
            assert!(replay.request().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_fails_while_it_is_read_is_refused() {
        for (error, want) in [
            (BodyError::Timeout, ProxyError::RequestTimeout),
            (BodyError::Malformed("x"), ProxyError::BadRequestBody),
            (BodyError::Source("x".into()), ProxyError::ClientGone),
        ] {
            let frames: Vec<Result<Frame<Bytes>, _>> = vec![Err(error)];
            let body = Body::boxed(StreamBody::new(stream::iter(frames)));
            assert_eq!(Replay::buffered(request(body), None).await.err(), Some(want));
        }
    }

    #[test]
    fn nothing_is_always_whole() {
        let replay = Replay::new(request(Body::empty()));
        assert!(replay.is_whole());
        assert!(replay.request().is_some() && replay.request().is_some());
    }
}
