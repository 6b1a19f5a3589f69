//! What of a body is there already, taken without waiting for more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::exchange::{Body, BodyError, Response};

/// One item of a body.
type Item = Result<Frame<Bytes>, BodyError>;

/// How much of a body that nobody wants is read, so that its connection can be used again.
const DISCARDED: usize = 64 * 1024;

/// How many pieces are taken at most, which may be empty.
const PIECES: usize = 64;

/// A body whose beginning has been taken already.
pub(super) struct Begun {
    taken: VecDeque<Item>,
    rest: Body,
    over: bool,
}

impl Begun {
    /// Takes what `body` has at hand, until that is `enough` bytes.
    pub(super) async fn look(mut body: Body, enough: u64) -> Self {
        let mut taken = VecDeque::new();
        let mut bytes = 0_u64;
        let mut over = false;
        while bytes < enough && !over && taken.len() < PIECES {
            let Some(item) = at_hand(&mut body).await else { break };
            let Some(item) = item else {
                over = true;
                break;
            };
            match &item {
                Ok(frame) => match frame.data_ref() {
                    Some(data) => bytes += data.len() as u64,
                    // Nothing comes behind trailers.
                    None => over = true,
                },
                Err(_) => over = true,
            }
            taken.push_back(item);
        }
        Self { taken, rest: body, over }
    }

    /// All of `body` is still to come.
    pub(super) fn nothing_of(body: Body) -> Self {
        Self { taken: VecDeque::new(), rest: body, over: false }
    }

    /// The length, if nothing but bytes that are here belongs to the body.
    pub(super) fn whole_length(&self) -> Option<u64> {
        if !self.over {
            return None;
        }
        let mut length = 0;
        for item in &self.taken {
            length += item.as_ref().ok()?.data_ref()?.len() as u64;
        }
        Some(length)
    }

    /// Whether the body has come to its end, one way or another.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(item) = self.taken.pop_front() {
            return Poll::Ready(Some(item));
        }
        if self.over {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.rest).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && (self.over || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.whole_length().map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Gives a response up. What is at hand of its body is read, so that the connection that it came
/// over is not closed for the sake of a few bytes.
pub(super) async fn discard(mut response: Response) {
    let mut read = 0;
    while read < DISCARDED {
        match at_hand(response.body_mut()).await {
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len) + 1,
            _ => return,
        }
    }
}

/// The next item, if there need be no waiting for it.
async fn at_hand(body: &mut Body) -> Option<Option<Item>> {
    std::future::poll_fn(|task| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(task) {
            Poll::Ready(item) => Some(item),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn pieces(texts: &'static [&'static str]) -> Vec<Item> {
        texts.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))).collect()
    }

    #[tokio::test]
    async fn a_short_body_is_known_to_be_whole() {
        let body = Body::boxed(StreamBody::new(stream::iter(pieces(&["one", "two"]))));
        let begun = Begun::look(body, 100).await;
        assert_eq!((begun.whole_length(), begun.is_over()), (Some(6), true));
        assert_eq!(begun.collect().await.unwrap().to_bytes(), "onetwo");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_slow_one() {
        let frames = stream::iter(pieces(&["one"])).chain(stream::pending());
        let begun = Begun::look(Body::boxed(StreamBody::new(frames)), 100).await;
        assert_eq!((begun.whole_length(), begun.is_over()), (None, false));
    }

    #[tokio::test]
    async fn enough_is_enough_and_nothing_is_lost() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = pieces(&["one", "two", "three"]).into_iter();
        let frames = stream::iter(frames.chain([Ok(Frame::trailers(trailers))]));
        let begun = Begun::look(Body::boxed(StreamBody::new(frames)), 4).await;
        assert!(!begun.is_over());
        let collected = begun.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
        assert_eq!(collected.to_bytes(), "onetwothree");
    }

    #[tokio::test]
    async fn a_failure_is_kept_for_the_reader() {
        let frames = pieces(&["one"]).into_iter().chain([Err(BodyError::Timeout)]);
        let begun = Begun::look(Body::boxed(StreamBody::new(stream::iter(frames))), 100).await;
        assert_eq!((begun.whole_length(), begun.is_over()), (None, true));
        assert!(matches!(begun.collect().await, Err(BodyError::Timeout)));
    }
}
