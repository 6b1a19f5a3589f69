//! An answer that says, piece by piece, whether it waits for its client or for its server.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::stream::{Turn, waits_for};
use crate::exchange::{Body, BodyError};

/// The size of the largest frame of HTTP/2 that every client takes. A slow client has its time for each of them.
pub(super) const PIECE: usize = 16 * 1024;

/// The body of an answer over HTTP/2, whose stream is being polled whenever it is.
pub(super) struct Paced {
    body: Body,
    rest: Bytes,
}

impl Paced {
    /// From now on it is said whom the stream waits for.
    pub(super) fn wrap(body: &mut Body) {
        if !body.is_end_stream() {
            waits_for(Turn::Client);
            *body = Body::boxed(Self { body: std::mem::take(body), rest: Bytes::new() });
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            waits_for(Turn::Server);
            match ready!(Pin::new(&mut this.body).poll_frame(cx))
                .map(|got| got.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        waits_for(Turn::Client);
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_whole_in_small_pieces() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let mut body = Body::from(Bytes::from(bytes.clone()));
        Paced::wrap(&mut body);
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE);
            got.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some((100_000 - got.len()) as u64));
        }
        assert_eq!(got, bytes);
    }
}
