//! The bodies of gRPC-Web: base64 in requests and responses, and trailers as the last frame of a
//! response, because browsers show no others.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use crate::exchange::{Body, BodyError};

/// As lenient as Go's: the last bits of a padded group may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The marker of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// A request in base64, decoded. Padding may stand between its parts too: clients encode each
/// message by itself.
pub(super) struct Decoded {
    source: Body,
    /// Of a group of four characters, those that are here.
    group: BytesMut,
    over: bool,
}

impl Decoded {
    pub(super) fn new(source: Body) -> Self {
        Self { source, group: BytesMut::new(), over: false }
    }

    fn decode(&mut self, data: &[u8]) -> Result<Bytes, BodyError> {
        let text = &mut self.group;
        text.reserve(data.len());
        text.extend(data.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = text.split_to(text.len() / 4 * 4);
        let mut rest = &whole[..];
        let mut out = Vec::with_capacity(whole.len() / 4 * 3);
        while !rest.is_empty() {
            let padding = rest.iter().position(|&byte| byte == b'=');
            let end = padding.map_or(rest.len(), |at| (at / 4 + 1) * 4);
            let (part, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            LENIENT.decode_vec(part, &mut out).map_err(|_| BodyError::Malformed("base64"))?;
            rest = behind;
        }
        Ok(Bytes::from(out))
    }

    fn step(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<Bytes, BodyError> {
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.decode(&data),
                // Trailers of requests are not passed on.
                Err(_) => Ok(Bytes::new()),
            },
            Some(Err(error)) => Err(error),
            None if self.group.is_empty() => {
                self.over = true;
                Ok(Bytes::new())
            }
            None => Err(BodyError::Malformed("base64 that breaks off")),
        }
    }
}

impl HttpBody for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.over {
            let frame = ready!(Pin::new(&mut this.source).poll_frame(task));
            match this.step(frame) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(error) => {
                    this.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.group.is_empty() && self.source.is_end_stream())
    }
}

/// A response of gRPC as gRPC-Web sends it.
pub(super) struct Encoded {
    source: Body,
    /// In base64, each frame by itself and padded, so that nothing waits for what comes behind.
    text: bool,
    over: bool,
}

impl Encoded {
    pub(super) fn new(source: Body, text: bool) -> Self {
        Self { source, text, over: false }
    }

    fn encode(&self, data: Bytes) -> Frame<Bytes> {
        Frame::data(if self.text { Bytes::from(STANDARD.encode(&data)) } else { data })
    }
}

impl HttpBody for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let trailers = match ready!(Pin::new(&mut this.source).poll_frame(task)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Poll::Ready(Some(Ok(this.encode(data)))),
                Err(frame) => frame.into_trailers().unwrap_or_default(),
            },
            Some(Err(error)) => {
                this.over = true;
                return Poll::Ready(Some(Err(error)));
            }
            // A frame of none says that nothing is missing.
            None => HeaderMap::new(),
        };
        this.over = true;
        let frame = trailer_frame(&trailers);
        Poll::Ready(Some(frame.map(|frame| this.encode(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

/// The marker, the length in four bytes, and `name: value` lines.
fn trailer_frame(trailers: &HeaderMap) -> Result<Bytes, BodyError> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + 4
    };
    let length: usize = trailers.iter().map(line).sum();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(length).map_err(|_| BodyError::Malformed("trailers"))?);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b": ");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    use super::*;

    fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    fn decoded(parts: Vec<Vec<u8>>) -> Result<Bytes, BodyError> {
        let body = Decoded::new(pieces(parts));
        futures_util::FutureExt::now_or_never(body.collect())
            .unwrap()
            .map(http_body_util::Collected::to_bytes)
    }

    #[test]
    fn base64_is_read_wherever_it_is_cut() {
        for (parts, want) in [
            (&["aGVsbG8="][..], Some("hello")),
            (&["aGVs", "bG8="], Some("hello")),
            (&["a", "G", "V", "sbG8", "="], Some("hello")),
            (&["aGVsbG8=aGVsbG8="], Some("hellohello")),
            (&["aGVs\r\nbG8=\n"], Some("hello")),
            (&[""], Some("")),
            (&[], Some("")),
            (&["aGVsbG9="], Some("hello")),
            (&["aGVsbG8"], None),
            (&["aGV?"], None),
            (&["aG=s"], None),
            (&["===="], None),
        ] {
            let read = decoded(parts.iter().map(|part| part.as_bytes().to_vec()).collect());
            assert_eq!(read.ok().as_deref(), want.map(str::as_bytes), "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..50), 0..5,
            ),
            cut in 1_usize..9,
        ) {
            let text: String = messages.iter().map(|message| STANDARD.encode(message)).collect();
            let parts = text.as_bytes().chunks(cut).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(decoded(parts).unwrap(), messages.concat());
        }
    }

    async fn encoded(frames: Vec<Frame<Bytes>>, text: bool) -> Vec<Bytes> {
        let source = Body::boxed(StreamBody::new(stream::iter(frames.into_iter().map(Ok))));
        let mut body = Encoded::new(source, text);
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            read.push(frame.unwrap().into_data().unwrap());
        }
        assert!(body.is_end_stream());
        read
    }

    #[tokio::test]
    async fn trailers_are_the_last_frame() {
        let frames = || {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("grpc-message", "ok".parse().unwrap());
            vec![Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")), Frame::trailers(trailers)]
        };
        let want = b"\x80\0\0\0\x22grpc-status: 0\r\ngrpc-message: ok\r\n";
        assert_eq!(encoded(frames(), false).await, [&b"\0\0\0\0\x02hi"[..], want]);
        let text = encoded(frames(), true).await;
        assert_eq!(text[0], "AAAAAAJoaQ==");
        assert_eq!(STANDARD.decode(&text[1]).unwrap(), want);
        assert_eq!(encoded(Vec::new(), false).await, [&b"\x80\0\0\0\0"[..]]);
    }
}
