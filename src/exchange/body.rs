//! One body type for every source, with one end-of-life hook.
//!
//! Whoever must know when a message is over (access log, metrics, in-flight counts) hooks in here:
//! each hook is called exactly once, when the body ends, fails or is dropped unread.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use smallvec::SmallVec;

/// How a body came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every byte was delivered.
    Complete,
    /// The reader went away first.
    Dropped,
    /// The source failed.
    Failed,
}

/// What is known when a body is over.
#[derive(Debug, Clone, Copy)]
pub struct BodyEnd {
    /// How it ended.
    pub ending: Ending,
    /// Payload bytes delivered.
    pub bytes: u64,
}

/// Something that happens when a body is over.
pub trait EndHook: Send {
    /// Called once. `trailers` are those that were delivered.
    fn ended(self: Box<Self>, end: BodyEnd, trailers: Option<&HeaderMap>);
}

impl<F: FnOnce(BodyEnd, Option<&HeaderMap>) + Send> EndHook for F {
    fn ended(self: Box<Self>, end: BodyEnd, trailers: Option<&HeaderMap>) {
        self(end, trailers);
    }
}

/// Why a body failed.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it came from failed.
    #[error("the connection failed")]
    Connection(#[source] hyper::Error),
    /// It broke the rules of HTTP.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// It was longer than allowed.
    #[error("longer than {0} bytes")]
    TooLarge(u64),
    /// It did not come in time.
    #[error("did not arrive in time")]
    Timeout,
    /// It came more slowly than a router or service allows.
    #[error("came too slowly")]
    TooSlow,
    /// Another source failed.
    #[error("{0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

type BoxedBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>;

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(hyper::body::Incoming),
    Boxed(BoxedBody),
}

/// The body of a request or a response.
pub struct Body {
    kind: Kind,
    bytes: u64,
    trailers: Option<Box<HeaderMap>>,
    hooks: SmallVec<[Box<dyn EndHook>; 2]>,
}

impl Body {
    /// A body without a byte.
    pub const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A body of constant bytes.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }

    /// A body from any source.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self::of(Kind::Boxed(Box::pin(body)))
    }

    /// Calls `hook` when this body is over; at once is never, not even for an empty one.
    pub fn on_end(&mut self, hook: impl EndHook + 'static) {
        self.on_end_boxed(Box::new(hook));
    }

    /// As [`Body::on_end`], for a hook that has its box already.
    pub fn on_end_boxed(&mut self, hook: Box<dyn EndHook>) {
        self.hooks.push(hook);
    }

    /// Payload bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.bytes
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, bytes: 0, trailers: None, hooks: SmallVec::new_const() }
    }

    fn finish(&mut self, ending: Ending) {
        if self.hooks.is_empty() {
            return;
        }
        let end = BodyEnd { ending, bytes: self.bytes };
        for hook in std::mem::take(&mut self.hooks) {
            hook.ended(end, self.trailers.as_deref());
        }
    }

    fn poll_source(
        &mut self,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Incoming(body) => Pin::new(body)
                .poll_frame(task)
                .map_ok(without_misplaced_trailers)
                .map_err(BodyError::Connection),
            Kind::Boxed(body) => body.as_mut().poll_frame(task),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(self.poll_source(task));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                } else if !self.hooks.is_empty() {
                    self.trailers = frame.trailers_ref().cloned().map(Box::new);
                    // Nothing comes behind trailers, so a reader need not ask again.
                    self.finish(Ending::Complete);
                }
            }
            Some(Err(_)) => self.finish(Ending::Failed),
            None => self.finish(Ending::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.hooks.is_empty() {
            return;
        }
        // hyper does not poll a body on that it knows to be at its end.
        let ending = if self.is_end_stream() { Ending::Complete } else { Ending::Dropped };
        self.finish(ending);
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(Kind::Full(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(body: hyper::body::Incoming) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::of(Kind::Incoming(body)) }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Boxed(_) => "boxed",
        };
        f.debug_struct("Body")
            .field("kind", &kind)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Takes out of trailers what frames or addresses a message, or speaks of its connection (RFC 9110, 6.5.1): it says
/// nothing there, and HTTP/2 would reset the stream for it.
pub fn without_misplaced_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        for name in &FRAMING {
            trailers.remove(name);
        }
    }
    frame
}

/// Headers that frame or address one message, or speak of its connection: they belong to no other message, and to no
/// trailers.
pub const FRAMING: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt;

    use super::*;

    type Seen = Arc<Mutex<Vec<(Ending, u64)>>>;

    fn hooked(mut body: Body) -> (Body, Seen) {
        let seen = Seen::default();
        let sink = Arc::clone(&seen);
        body.on_end(move |end: BodyEnd, _: Option<&HeaderMap>| {
            sink.lock().unwrap().push((end.ending, end.bytes));
        });
        (body, seen)
    }

    #[tokio::test]
    async fn a_hook_is_called_once_at_the_end() {
        let (body, seen) = hooked(Body::from_static(b"hello"));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(*seen.lock().unwrap(), [(Ending::Complete, 5)]);
    }

    #[test]
    fn a_body_dropped_unread_says_so() {
        let (body, seen) = hooked(Body::from_static(b"hello"));
        drop(body);
        assert_eq!(*seen.lock().unwrap(), [(Ending::Dropped, 0)]);
    }

    #[tokio::test]
    async fn a_body_is_over_with_its_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Ok(Frame::trailers(trailers))];
        let frames = futures_util::stream::iter(frames);
        let (mut body, seen) = hooked(Body::boxed(http_body_util::StreamBody::new(frames)));
        body.frame().await.unwrap().unwrap();
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(body.frame().await.unwrap().unwrap().trailers_ref().unwrap()["x-sum"], "7");
        drop(body);
        assert_eq!(*seen.lock().unwrap(), [(Ending::Complete, 2)]);
    }

    #[test]
    fn trailers_frame_and_address_nothing() {
        let mut trailers = HeaderMap::new();
        for name in ["connection", "transfer-encoding", "content-length", "te", "x-sum"] {
            trailers.append(name, "1".parse().unwrap());
        }
        let frame = without_misplaced_trailers(Frame::trailers(trailers));
        assert!(frame.trailers_ref().unwrap().keys().eq(["x-sum"]));
        let frame = without_misplaced_trailers(Frame::data(Bytes::from_static(b"ab")));
        assert_eq!(frame.into_data().unwrap(), "ab");
    }

    #[test]
    fn an_empty_body_that_nobody_polls_is_complete() {
        let (body, seen) = hooked(Body::empty());
        drop(body);
        assert_eq!(*seen.lock().unwrap(), [(Ending::Complete, 0)]);
    }
}
