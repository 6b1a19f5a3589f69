//! Probes by gRPC: `grpc.health.v1.Health/Check` for the whole server, healthy when it is SERVING.
//!
//! The two messages are so small that they are written and read by hand; what they may hold
//! besides, as protobuf allows, is skipped.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt as _;

use super::probe::{ProbeError, ProbeSender};
use super::reference::Address;
use crate::exchange::{Body, Request};
use crate::upstream::Target;

/// A `HealthCheckRequest` without a service name, in its frame.
const REQUEST: &[u8] = &[0; 5];
/// No answer needs more.
const LONGEST_ANSWER: usize = 1024;
const SERVING: u64 = 1;
const UNIMPLEMENTED: u32 = 12;

/// Asks the server at `address` whether it is serving.
pub(super) async fn check(
    sender: &Arc<dyn ProbeSender>,
    address: &Address,
) -> Result<(), ProbeError> {
    let target = Target::parse(&address.origin()).map_err(|_| ProbeError::NoAddress)?;
    let mut request = Request::new(Body::from_static(REQUEST));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/grpc.health.v1.Health/Check");
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header().clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("doorward"));
    let (head, mut body) = Arc::clone(sender).send(target, request).await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(ProbeError::Status(head.status));
    }
    let mut message = Vec::new();
    // An answer without a message has its code among the headers.
    let mut code = code_of(&head.headers);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ProbeError::NotGrpc)?;
        if let Some(data) = frame.data_ref() {
            message.extend_from_slice(data);
        }
        if message.len() > LONGEST_ANSWER {
            return Err(ProbeError::NotGrpc);
        }
        code = frame.trailers_ref().and_then(code_of).or(code);
    }
    match code.ok_or(ProbeError::NotGrpc)? {
        0 => {}
        UNIMPLEMENTED => return Err(ProbeError::NoHealthService),
        code => return Err(ProbeError::GrpcCode(code)),
    }
    match serving_status(&message).ok_or(ProbeError::NotGrpc)? {
        SERVING => Ok(()),
        status => Err(ProbeError::NotServing(status)),
    }
}

fn code_of(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The `status` of a `HealthCheckResponse` in its frame; zero when it says nothing.
pub fn serving_status(frame: &[u8]) -> Option<u64> {
    // A flag for compression, which nobody asked for, and the length.
    let (prefix, mut message) = frame.split_at_checked(5)?;
    let (flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *flag != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::exchange::Response;
    use crate::service::health::probe::Answer;

    #[test]
    fn answers_are_read() {
        for (frame, want) in [
            (&[0, 0, 0, 0, 2, 0x08, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 0x08, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            // Fields that later versions may have: a string, a number, 8 and 4 bytes.
            (&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 0x08, 1], Some(1)),
            (&[0, 0, 0, 0, 5, 0x08, 1, 0x18, 0xff, 1], Some(1)),
            (&[0, 0, 0, 0, 11, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 1], Some(1)),
            (&[0, 0, 0, 0, 7, 0x2d, 0, 0, 0, 0, 0x08, 1], Some(1)),
            (&[0, 0, 0, 0, 3, 0x08, 0x81, 1], Some(129)),
            // Compressed, cut off, too long, a group, endless.
            (&[1, 0, 0, 0, 2, 0x08, 1], None),
            (&[0, 0, 0, 0, 2, 0x08], None),
            (&[0, 0, 0, 0, 1, 0x08], None),
            (&[0, 0, 0, 0, 2, 0x08, 1, 1], None),
            (&[0, 0, 0, 0, 2, 0x0b, 1], None),
            (&[0, 0, 0, 0, 3, 0x12, 9, 1], None),
            (&[0, 0, 0, 0, 11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], None),
            (&[], None),
        ] {
            assert_eq!(serving_status(frame), want, "{frame:?}");
        }
    }

    /// Says always the same, with a code in the trailers, or without a body in the headers.
    struct Scripted {
        status: u16,
        message: &'static [u8],
        code: Option<&'static str>,
    }

    impl ProbeSender for Scripted {
        fn send(self: Arc<Self>, target: Target, request: Request) -> Answer {
            Box::pin(async move {
                assert_eq!(target.text().as_ref(), "h2c://a:1");
                assert_eq!(
                    (request.method(), request.uri().path()),
                    (&Method::POST, "/grpc.health.v1.Health/Check",)
                );
                assert_eq!(request.headers()[TE], "trailers");
                let sent = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(sent, REQUEST);
                let mut codes = HeaderMap::new();
                if let Some(code) = self.code {
                    codes.insert("grpc-status", HeaderValue::from_static(code));
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
                if self.message.is_empty() {
                    *response.headers_mut() = codes;
                } else {
                    let data = Frame::data(Bytes::from_static(self.message));
                    let frames = futures_util::stream::iter([Ok(data), Ok(Frame::trailers(codes))]);
                    *response.body_mut() = Body::boxed(StreamBody::new(frames));
                }
                Ok(response)
            })
        }
    }

    /// RP-5.5
    #[tokio::test]
    async fn only_serving_is_healthy() {
        const UP: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
        const DOWN: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];
        for (status, message, code, want) in [
            (200, UP, Some("0"), Ok(())),
            (200, DOWN, Some("0"), Err(ProbeError::NotServing(2))),
            (200, UP, Some("14"), Err(ProbeError::GrpcCode(14))),
            (200, b"", Some("12"), Err(ProbeError::NoHealthService)),
            (200, b"", Some("0"), Err(ProbeError::NotGrpc)),
            (200, UP, None, Err(ProbeError::NotGrpc)),
            (200, b"<html>", None, Err(ProbeError::NotGrpc)),
            (200, &[0; 2000], Some("0"), Err(ProbeError::NotGrpc)),
            (404, b"", None, Err(ProbeError::Status(StatusCode::NOT_FOUND))),
        ] {
            let sender: Arc<dyn ProbeSender> = Arc::new(Scripted { status, message, code });
            let address = Address::parse("h2c://a:1/ignored").unwrap();
            assert_eq!(check(&sender, &address).await, want, "{status} {message:?} {code:?}");
        }
    }
}
