//! Responses of backends, decoded from bytes (RFC 9112). Nothing is read or written here.
//! A response is what its request and the letter of the RFC make of the bytes. The invariant: where a body ends is decided
//! once, and no byte behind it is ever given away, so none can answer the next request.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::chunk::{ChunkScan, Chunked};
use super::head::{self, Head, HeadLimits, HeadScan};

/// Interim responses in front of a final one.
const MAX_INTERIM: u8 = 32;

/// Reads the heads that answer one request.
#[derive(Debug)]
pub struct ResponseDecoder {
    scan: HeadScan,
    limits: HeadLimits,
    head: bool,
    connect: bool,
    upgrade: bool,
    interim: u8,
}

/// What the bytes at hand are.
#[derive(Debug)]
pub enum Scanned {
    /// The beginning of a head: more bytes are needed.
    Partial,
    /// A whole interim head (1xx), which a further head follows.
    Interim {
        /// Bytes of the head.
        len: usize,
        /// The status.
        status: StatusCode,
    },
    /// The whole final head.
    Final(FinalHead),
}

/// A final head that is complete.
#[derive(Debug)]
pub struct FinalHead {
    /// Bytes of the head.
    pub len: usize,
    /// The status.
    pub status: StatusCode,
    /// Whether it is an HTTP/1.0 response: its connection is not persistent without being said so.
    pub http10: bool,
    /// What follows it.
    pub body: ResponseBody,
}

impl ResponseDecoder {
    /// A decoder for what answers a request with this method. `upgrade` is set when it asks to switch protocols.
    pub fn new(method: &Method, upgrade: bool, limits: HeadLimits) -> Self {
        Self {
            scan: HeadScan::default(),
            limits,
            head: *method == Method::HEAD,
            connect: *method == Method::CONNECT,
            upgrade,
            interim: 0,
        }
    }

    /// Looks at `data`, which starts where the current head starts, at every call. The error is what is wrong with it.
    pub fn scan(&mut self, data: &[u8]) -> Result<Scanned, &'static str> {
        let head = self.scan.response(data, self.limits).map_err(|violation| violation.reason)?;
        let Some(head) = head else { return Ok(Scanned::Partial) };
        self.scan = HeadScan::default();
        let status = StatusCode::from_u16(head.status).map_err(|_| "status code out of range")?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err("too many interim responses");
            }
            return Ok(Scanned::Interim { len: head.len, status });
        }
        let body = ResponseBody(self.framing(&head)?);
        Ok(Scanned::Final(FinalHead { len: head.len, status, http10: head.http10, body }))
    }

    /// How the body of a response is framed (RFC 9112 6.3).
    fn framing(&self, head: &Head) -> Result<Framing, &'static str> {
        Ok(match head.status {
            101 if self.upgrade => Framing::UntilEnd,
            101 => return Err("switching protocols was not asked for"),
            200..=299 if self.connect => Framing::UntilEnd,
            204 | 304 => Framing::Length(0),
            _ if self.head => Framing::Length(0),
            _ if head.chunked => {
                let scan = ChunkScan::keeping_trailers(self.limits.max_header_fields);
                Framing::Chunked(Box::new(scan))
            }
            _ => head.length.map_or(Framing::UntilEnd, Framing::Length),
        })
    }
}

/// The header fields of a whole response head.
pub fn response_fields(head: &Bytes) -> HeaderMap {
    let start = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    field_map(head, start)
}

fn field_map(section: &Bytes, start: usize) -> HeaderMap {
    let lines = memchr::memchr_iter(b'\n', section.get(start..).unwrap_or_default()).count();
    let mut map = HeaderMap::with_capacity(lines);
    for (name, value) in head::fields(section, start) {
        // The scanner's classes are those of `http`: neither fails.
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_maybe_shared(section.slice(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// The body of a response while it is being read.
#[derive(Debug)]
pub struct ResponseBody(Framing);

#[derive(Debug)]
enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Box<ChunkScan>),
    /// It ends where the stream ends; also that of a tunnel.
    UntilEnd,
}

/// The next part of a body.
#[derive(Debug)]
pub enum Part {
    /// Payload.
    Data(Bytes),
    /// The trailer fields that end it.
    Trailers(HeaderMap),
    /// It is over.
    End,
    /// More bytes are needed.
    More,
}

impl ResponseBody {
    /// Takes the next part out of `raw`. What is left there at the end does not belong to the body.
    pub fn take(&mut self, raw: &mut Bytes) -> Result<Part, &'static str> {
        match &mut self.0 {
            Framing::Length(0) => Ok(Part::End),
            _ if raw.is_empty() => Ok(Part::More),
            Framing::Length(left) => {
                let taken = usize::try_from(*left).map_or(raw.len(), |left| left.min(raw.len()));
                *left -= taken as u64;
                Ok(Part::Data(raw.split_to(taken)))
            }
            Framing::UntilEnd => Ok(Part::Data(std::mem::take(raw))),
            Framing::Chunked(scan) => {
                let (payload, state) = scan.run(raw);
                let mut taken = raw.split_to(payload.end);
                match state {
                    Chunked::Bad(reason) => Err(reason),
                    Chunked::More if payload.is_empty() => Ok(Part::More),
                    Chunked::More => Ok(Part::Data(taken.split_off(payload.start))),
                    Chunked::Done => {
                        let trailers = Bytes::from(scan.take_trailers());
                        self.0 = Framing::Length(0);
                        if trailers.is_empty() {
                            return Ok(Part::End);
                        }
                        Ok(Part::Trailers(field_map(&trailers, 0)))
                    }
                }
            }
        }
    }

    /// How many bytes are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.0 {
            Framing::Length(left) => Some(left),
            Framing::Chunked(_) | Framing::UntilEnd => None,
        }
    }

    /// Whether nothing of it is to come.
    pub fn is_over(&self) -> bool {
        matches!(self.0, Framing::Length(0))
    }

    /// A body without a byte.
    pub fn nothing() -> Self {
        Self(Framing::Length(0))
    }

    /// Whether the end of the stream is its end.
    pub fn ends_with_the_stream(&self) -> bool {
        matches!(self.0, Framing::UntilEnd)
    }
}
