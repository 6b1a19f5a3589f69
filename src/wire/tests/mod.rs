//! Tests of the gate and the decoder: verdicts by vector and split, round trips through httparse, and real hyper connections.

mod pieces;
mod server;
mod timeouts;
mod vectors;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, ReadBuf};

use self::pieces::Pieces;
use super::{
    GateTimeouts, HeadLimits, Part, Rejection, RequestGate, ResponseDecoder, Scanned,
    response_fields,
};

/// All that came through a gate until its end, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    delivered: Vec<u8>,
    end: End,
    rejection: Option<Rejection>,
}

impl Outcome {
    /// All but the method and the target of a rejection: of these only what had come can be known.
    fn verdict(&self) -> (&[u8], &End, Option<(u16, &str)>) {
        let rejection = self.rejection.as_ref().map(|r| (r.status.as_u16(), r.reason));
        (&self.delivered, &self.end, rejection)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Eof,
    Pending,
    Error(io::ErrorKind, String),
}

fn drain(mut gate: impl AsyncRead + Unpin, room: usize) -> (Vec<u8>, End) {
    let mut delivered = Vec::new();
    let mut space = vec![0; room];
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut gate).poll_read(&mut cx, &mut buf) {
            Poll::Pending => return (delivered, End::Pending),
            Poll::Ready(Err(e)) => return (delivered, End::Error(e.kind(), e.to_string())),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return (delivered, End::Eof),
            Poll::Ready(Ok(())) => delivered.extend_from_slice(buf.filled()),
        }
    }
}

/// What a request gate makes of these pieces. Every request is begun and answered as soon as it is through.
pub(super) fn request(pieces: Vec<Vec<u8>>, limits: HeadLimits, room: usize) -> Outcome {
    let (gate, control) =
        RequestGate::new(Pieces::new(pieces), Bytes::new(), limits, GateTimeouts::default());
    let (delivered, end) = drain(gate, room);
    let rejection = (0..control.requests()).find_map(|_| control.admit().err());
    Outcome { delivered, end, rejection }
}

/// What the decoder makes of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    status: u16,
    fields: HeaderMap,
    payload: Vec<u8>,
    trailers: Option<HeaderMap>,
    end: DecodedEnd,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodedEnd {
    /// It is whole, with so many bytes behind it.
    Whole(usize),
    /// The stream ended inside.
    Short,
    Bad(&'static str),
}

/// What the decoder makes of these pieces, behind which the stream ends.
pub(super) fn response(pieces: Vec<Vec<u8>>, method: &Method, upgrade: bool) -> Decoded {
    let mut decoded = Decoded {
        status: 0,
        fields: HeaderMap::new(),
        payload: Vec::new(),
        trailers: None,
        end: DecodedEnd::Short,
    };
    let mut reader = ResponseDecoder::new(method, upgrade, HeadLimits::default());
    let mut body = None;
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(&piece);
        while body.is_none() {
            match reader.scan(&held) {
                Ok(Scanned::Partial) => break,
                Ok(Scanned::Interim { len, .. }) => drop(held.drain(..len)),
                Ok(Scanned::Final(last)) => {
                    decoded.status = last.status.as_u16();
                    decoded.fields = response_fields(&held.drain(..last.len).collect());
                    body = Some(last.body);
                }
                Err(reason) => return Decoded { end: DecodedEnd::Bad(reason), ..decoded },
            }
        }
        let Some(body) = &mut body else { continue };
        if decoded.end != DecodedEnd::Short {
            continue;
        }
        let mut raw = Bytes::from(std::mem::take(&mut held));
        loop {
            match body.take(&mut raw) {
                Ok(Part::Data(data)) => decoded.payload.extend_from_slice(&data),
                Ok(Part::Trailers(trailers)) => decoded.trailers = Some(trailers),
                Ok(Part::More) => break,
                Ok(Part::End) => {
                    held = raw.to_vec();
                    decoded.end = DecodedEnd::Whole(0);
                    break;
                }
                Err(reason) => return Decoded { end: DecodedEnd::Bad(reason), ..decoded },
            }
        }
    }
    match body {
        Some(body) if body.is_over() => decoded.end = DecodedEnd::Whole(held.len()),
        Some(body) if body.ends_with_the_stream() => decoded.end = DecodedEnd::Whole(0),
        _ => {}
    }
    decoded
}
