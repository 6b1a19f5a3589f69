//! Gzip that no client asked for: Go's transport, and so Traefik, asks servers for it by itself and unpacks it.
//!
//! Only under the profile `exact`: it costs the server and us, and a small answer may unpack to a very large one.
//! What is unpacked is passed on piece by piece; whatever an answer unpacks to, no more than two pieces are held.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use flate2::write::MultiGzDecoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body as HttpBody, Frame};

use crate::exchange::{Body, BodyError, Request, Response};

/// Asks the server for gzip, if the client has said nothing of encodings, ranges, or that it wants no body. Whether
/// the answer is to be unpacked.
pub(super) fn ask(request: &mut Request) -> bool {
    let method = request.method() != Method::HEAD;
    let headers = request.headers_mut();
    let silent = |name: &HeaderName| headers.get(name).is_none_or(HeaderValue::is_empty);
    let asks = method && silent(&ACCEPT_ENCODING) && silent(&RANGE);
    if asks {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    asks
}

/// Unpacks the answer to such a request, if the server did as it was asked.
pub(super) fn unpack(response: &mut Response) {
    let packed = response
        .headers()
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !packed || response.body().is_end_stream() {
        return;
    }
    response.headers_mut().remove(CONTENT_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = Body::boxed(Gunzip::new(body));
}

struct Gunzip {
    body: Body,
    /// It unpacks 32 KiB at a time.
    decoder: MultiGzDecoder<Vec<u8>>,
    /// What is not unpacked yet.
    packed: Bytes,
    /// Whether there was any.
    begun: bool,
    trailers: Option<HeaderMap>,
    over: bool,
}

impl Gunzip {
    fn new(body: Body) -> Self {
        Self {
            body,
            decoder: MultiGzDecoder::new(Vec::new()),
            packed: Bytes::new(),
            begun: false,
            trailers: None,
            over: false,
        }
    }

    /// Unpacks a piece.
    fn step(&mut self) -> io::Result<()> {
        let taken = self.decoder.write(&self.packed)?;
        if taken == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "gzip that does not go on"));
        }
        self.packed.advance(taken);
        if self.packed.is_empty() { self.decoder.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.over = true;
        // No byte at all is an empty answer, whatever it says of itself.
        if self.begun { self.decoder.try_finish() } else { Ok(()) }
    }

    fn fail(&mut self, error: io::Error) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        *self = Self { over: true, ..Self::new(Body::empty()) };
        Poll::Ready(Some(Err(BodyError::Source(error.into()))))
    }
}

impl HttpBody for Gunzip {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let unpacked = std::mem::take(this.decoder.get_mut());
            if !unpacked.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(unpacked.into()))));
            }
            let done = if !this.packed.is_empty() {
                this.step()
            } else if this.over {
                return Poll::Ready(this.trailers.take().map(|fields| Ok(Frame::trailers(fields))));
            } else {
                match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    None => this.finish(),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            this.begun |= !data.is_empty();
                            this.packed = data;
                            Ok(())
                        }
                        Err(frame) => {
                            this.trailers = frame.into_trailers().ok();
                            this.finish()
                        }
                    },
                }
            };
            if let Err(error) = done {
                return this.fail(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn answer(pieces: Vec<Frame<Bytes>>) -> Response {
        let frames = pieces.into_iter().map(Ok);
        let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("GZIP"));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        unpack(&mut response);
        response
    }

    fn data(bytes: &[u8]) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(bytes))
    }

    #[tokio::test]
    async fn answers_are_unpacked_however_they_come() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let bytes = packed(&text);
        let twice = [packed(b"one "), packed(b"two")].concat();
        for (pieces, want) in [
            (vec![data(&bytes)], &text[..]),
            (bytes.chunks(1).map(data).collect(), &text),
            (vec![data(&twice)], b"one two"),
            (twice.chunks(7).map(data).collect(), b"one two"),
            (vec![], b""),
            (vec![data(b"")], b""),
        ] {
            let response = answer(pieces);
            assert!(response.headers().is_empty());
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), want);
        }
    }

    #[tokio::test]
    async fn what_is_there_is_passed_on_before_more_comes() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"first").unwrap();
        encoder.flush().unwrap();
        let first = std::mem::take(encoder.get_mut());
        let pieces = futures_util::stream::iter([Ok(data(&first))]);
        let pieces = futures_util::StreamExt::chain(pieces, futures_util::stream::pending());
        let mut body = Body::boxed(Gunzip::new(Body::boxed(StreamBody::new(pieces))));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    }

    #[tokio::test]
    async fn trailers_stay() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let body = answer(vec![data(&packed(b"text")), Frame::trailers(trailers.clone())]);
        let collected = body.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "text");
    }

    #[tokio::test]
    async fn what_is_no_gzip_breaks_off() {
        let whole = packed(b"some text");
        for bytes in [
            b"<html>plain".to_vec(),
            whole[..whole.len() - 1].to_vec(),
            [&whole[..], b"garbage behind it, long enough"].concat(),
            [&whole[..whole.len() - 8], &[0; 8]].concat(),
        ] {
            let result = answer(vec![data(&bytes)]).into_body().collect().await;
            assert!(result.is_err(), "{bytes:?}");
        }
    }

    /// A bomb comes out in pieces.
    #[tokio::test]
    async fn no_piece_is_large() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 128 << 10);
        let mut body = answer(vec![data(&bomb)]).into_body();
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= 64 << 10, "{}", piece.len());
            total += piece.len();
        }
        assert_eq!(total, 64 << 20);
    }

    /// RP-13
    #[test]
    fn who_says_nothing_gets_gzip_asked_for() {
        for (method, headers, want) in [
            ("GET", &[][..], true),
            ("POST", &[("accept-encoding", "")], true),
            ("HEAD", &[], false),
            ("GET", &[("accept-encoding", "identity")], false),
            ("GET", &[("range", "bytes=0-1")], false),
        ] {
            let mut request = http::Request::builder().method(method);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(Body::empty()).unwrap();
            assert_eq!(ask(&mut request), want, "{method} {headers:?}");
            let asked = request.headers().get(ACCEPT_ENCODING).is_some_and(|it| it == "gzip");
            assert_eq!(asked, want);
        }
    }
}
