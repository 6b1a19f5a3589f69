//! A body that is copied while it passes: whoever reads it is not held up, and the copy is whole or not there.
//!
//! Copies have bounds: their own, one for all of a service, and one for each of its mirrors. What does
//! not fit is not copied.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::exchange::{Body, BodyError};

/// Bytes that copies of one service hold together, at most.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Copies that one mirror gets at a time, at most.
const MAX_UNDER_WAY: usize = 256;

/// What the copies of one service cost just now.
#[derive(Default)]
pub(super) struct Load {
    bytes: AtomicUsize,
}

/// The copies on their way to one mirror.
#[derive(Default)]
pub(super) struct Places {
    taken: AtomicUsize,
}

impl Places {
    /// A place for one copy to be sent, until the returned value is dropped; `None` when there are
    /// enough of them.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let taken = |count: usize| (count < MAX_UNDER_WAY).then_some(count + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// One copy on its way.
pub(super) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bytes that are counted as long as they are held.
struct Held {
    load: Arc<Load>,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, more: usize) -> bool {
        let fits = self.load.bytes.fetch_add(more, Ordering::AcqRel).saturating_add(more);
        self.bytes += more;
        fits <= MAX_BYTES
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A whole copy.
pub(super) struct BodyCopy {
    /// The payload.
    pub(super) bytes: Bytes,
    /// Counted until it is dropped.
    _held: Held,
}

/// The copy of `body` to come, which never comes when it would be longer than `limit`, and the
/// body to be read instead.
pub(super) fn copied(
    body: Body,
    limit: Option<u64>,
    load: &Arc<Load>,
) -> (Body, oneshot::Receiver<BodyCopy>) {
    let (done, copy) = oneshot::channel();
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit.min(MAX_BYTES) {
        return (body, copy);
    }
    let held = Held { load: Arc::clone(load), bytes: 0 };
    let copying = Some(Copying { bytes: BytesMut::new(), held, limit, done });
    (Body::boxed(Copied { body, copying }), copy)
}

struct Copied {
    body: Body,
    /// `None` when it is done, or given up.
    copying: Option<Copying>,
}

struct Copying {
    bytes: BytesMut,
    held: Held,
    limit: usize,
    done: oneshot::Sender<BodyCopy>,
}

impl Copying {
    fn add(&mut self, data: &[u8]) -> bool {
        let fits =
            self.bytes.len().saturating_add(data.len()) <= self.limit && self.held.grow(data.len());
        if fits {
            self.bytes.extend_from_slice(data);
        }
        fits
    }
}

impl Copied {
    fn finish(&mut self) {
        if let Some(Copying { bytes, held, done, .. }) = self.copying.take() {
            // Nobody may be waiting for it any more.
            let _ = done.send(BodyCopy { bytes: bytes.freeze(), _held: held });
        }
    }
}

impl HttpBody for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(task));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref();
                if let (Some(data), Some(copying)) = (data, &mut self.copying)
                    && !copying.add(data)
                {
                    self.copying = None;
                }
                if data.is_none() || self.body.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => self.copying = None,
            None => self.finish(),
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

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn pieces(pieces: &'static [&'static [u8]]) -> Body {
        let frames = pieces.iter().map(|&piece| Ok(Frame::data(Bytes::from_static(piece))));
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    async fn read(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn what_passes_is_copied() {
        let load = Arc::new(Load::default());
        for limit in [None, Some(6)] {
            let (body, copy) = copied(pieces(&[b"one", b"two"]), limit, &load);
            assert_eq!(read(body).await, "onetwo");
            let copy = copy.await.unwrap();
            assert_eq!(copy.bytes, "onetwo");
            assert_eq!(load.bytes.load(Ordering::Relaxed), 6);
            drop(copy);
            assert_eq!(load.bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_passes_all_the_same() {
        let load = Arc::new(Load::default());
        for body in [pieces(&[b"one", b"two", b"three"]), Body::from_static(b"onetwothree")] {
            let (body, copy) = copied(body, Some(6), &load);
            assert_eq!(read(body).await, "onetwothree");
            assert!(copy.await.is_err());
            assert_eq!(load.bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn half_a_body_is_no_copy() {
        let load = Arc::new(Load::default());
        let (mut body, copy) = copied(pieces(&[b"one", b"two"]), None, &load);
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(copy.await.is_err());
        let broken =
            stream::iter([Ok(Frame::data(Bytes::from_static(b"one"))), Err(BodyError::Timeout)]);
        let (body, copy) = copied(Body::boxed(StreamBody::new(broken)), None, &load);
        assert!(body.collect().await.is_err());
        assert!(copy.await.is_err());
        assert_eq!(load.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn all_copies_together_have_a_bound() {
        let load = Arc::new(Load::default());
        load.bytes.store(MAX_BYTES - 4, Ordering::Relaxed);
        let (body, copy) = copied(pieces(&[b"one", b"two"]), None, &load);
        assert_eq!(read(body).await, "onetwo");
        assert!(copy.await.is_err());
        assert_eq!(load.bytes.load(Ordering::Relaxed), MAX_BYTES - 4);
        let mirror = Arc::new(Places::default());
        let places: Vec<_> = (0..MAX_UNDER_WAY).map(|_| mirror.take().unwrap()).collect();
        assert!(mirror.take().is_none());
        drop(places);
        assert!(mirror.take().is_some());
    }
}
