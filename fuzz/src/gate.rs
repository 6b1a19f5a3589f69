//! `gate`: what a client sends, through the request gate. The first byte says how the stream is split, and whether an
//! upgrade becomes a tunnel; what the gate passes on is read again by an independent reader.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use doorward::wire::{GateControl, GateTimeouts, HeadLimits, RequestGate};
use http::StatusCode;
use tokio::io::{AsyncRead, ReadBuf};

use super::pieces::Pieces;

/// Behind its method, the request that stands for a refused one.
const STAND_IN: &[u8] = b" / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";
const LIMITS: HeadLimits =
    HeadLimits { max_head_bytes: 2048, max_header_fields: 24, close_on_noise: false };

/// Sends one stream whole and in pieces, and reads what came through.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let tunnel = seed & 1 == 1;
    let (piece, prefix) = (usize::from(seed >> 4) + 1, usize::from(seed >> 1 & 7));
    let whole = Passed::of(stream, usize::MAX, 0, tunnel);
    let pieces = Passed::of(stream, piece, prefix, tunnel);
    whole.check(stream, tunnel);
    pieces.check(stream, tunnel);
    if whole.verdict() != pieces.verdict() {
        // Only a long line that has not ended may be judged later in pieces. When it ends, both agree.
        let ended = [stream, b"\r\n"].concat();
        let whole = Passed::of(&ended, usize::MAX, 0, tunnel);
        let pieces = Passed::of(&ended, piece, prefix, tunnel);
        let (whole, pieces) = (whole.verdict(), pieces.verdict());
        assert_eq!(whole, pieces, "the verdict depends on how the stream was split");
    }
}

/// What came out of a gate.
struct Passed {
    bytes: Vec<u8>,
    heads: u64,
    refused: Option<(StatusCode, &'static str)>,
    broken: Option<&'static str>,
}

/// What must not depend on how a stream was split: the client's own bytes that came through, and what was wrong.
#[derive(Debug, PartialEq, Eq)]
struct Verdict<'a> {
    bytes: &'a [u8],
    heads: u64,
    refused: Option<(StatusCode, &'static str)>,
    broken: Option<&'static str>,
}

impl Passed {
    /// Reads `stream` through a gate: its first bytes as a prefix, the rest in pieces.
    fn of(stream: &[u8], piece: usize, prefix: usize, tunnel: bool) -> Self {
        let (prefix, rest) = stream.split_at(prefix.min(stream.len()));
        let prefix = Bytes::copy_from_slice(prefix);
        let source = Pieces::new(rest, piece);
        let (mut gate, control) = RequestGate::new(source, prefix, LIMITS, GateTimeouts::default());
        let mut passed = Self { bytes: Vec::new(), heads: 0, refused: None, broken: None };
        let mut room = [0; 512];
        let mut begun = 0;
        let mut idle = false;
        loop {
            let mut buf = ReadBuf::new(room.get_mut(..piece.clamp(1, 512)).unwrap_or_default());
            let mut cx = Context::from_waker(Waker::noop());
            match AsyncRead::poll_read(Pin::new(&mut gate), &mut cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
                Poll::Ready(Ok(())) => passed.bytes.extend_from_slice(buf.filled()),
                Poll::Ready(Err(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                    break;
                }
                // It waits for a decision, or for the answer to what it has refused.
                Poll::Pending if idle => break,
                Poll::Pending => {
                    idle = true;
                    continue;
                }
            }
            idle = false;
            begun = passed.serve(&control, begun, tunnel);
        }
        passed.heads = control.requests();
        passed.broken = control.body_violation();
        passed
    }

    /// Does what a service does: begins each request, and answers what was refused.
    fn serve(&mut self, control: &Arc<GateControl>, mut begun: u64, tunnel: bool) -> u64 {
        while begun < control.requests() {
            begun += 1;
            if let Err(rejection) = control.admit() {
                assert_eq!(begun, control.requests(), "a request behind a refused one");
                assert!(rejection.status.is_client_error() || rejection.status.is_server_error());
                self.refused = Some((rejection.status, rejection.reason));
            }
            if tunnel { control.tunnel() } else { control.no_tunnel() }
        }
        begun
    }

    fn check(&self, stream: &[u8], tunnel: bool) {
        let mut reader = Reader { rest: &self.bytes, heads: 0, tunnel: false };
        while !reader.rest.is_empty() && !reader.tunnel {
            reader.message(tunnel);
        }
        if !reader.tunnel {
            assert_eq!(reader.heads, self.heads, "heads passed on and heads read");
        }
        assert!(stream.starts_with(self.verdict().bytes), "the gate has made something up");
    }

    fn verdict(&self) -> Verdict<'_> {
        let mut bytes = self.bytes.as_slice();
        if self.refused.is_some() {
            // Its method is a guess from what has arrived, so that the answer to HEAD has no body.
            let behind = bytes.strip_suffix(STAND_IN);
            assert!(behind.is_some(), "refused without a stand-in: {}", bytes.escape_ascii());
            let behind = behind.unwrap_or_default();
            bytes = [b"HEAD".as_slice(), b"GET"]
                .iter()
                .find_map(|method| behind.strip_suffix(*method))
                .unwrap_or(behind);
        }
        Verdict { bytes, heads: self.heads, refused: self.refused, broken: self.broken }
    }
}

/// Reads what hyper would, with `httparse` and nothing of the gate's own.
struct Reader<'a> {
    rest: &'a [u8],
    heads: u64,
    tunnel: bool,
}

impl Reader<'_> {
    fn message(&mut self, tunnels: bool) {
        let mut fields = [httparse::EMPTY_HEADER; LIMITS.max_header_fields];
        let mut head = httparse::Request::new(&mut fields);
        let status = head.parse(self.rest);
        let Ok(httparse::Status::Complete(len)) = status else {
            panic!("{status:?} for the head {}", self.rest.escape_ascii());
        };
        self.heads += 1;
        let values = |name: &str| -> Vec<&[u8]> {
            let found = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| field.value.trim_ascii()).collect()
        };
        let modern = head.version == Some(1);
        let hosts = values("host").len();
        assert!(hosts == 1 || (hosts == 0 && !modern), "{hosts} hosts");
        let upgrade = modern && !values("upgrade").is_empty();
        let codings = values("transfer-encoding");
        let body = match (values("content-length").as_slice(), codings.as_slice()) {
            ([], []) => Some(0),
            ([length], []) => {
                assert!(length.iter().all(u8::is_ascii_digit), "length {length:?}");
                let length = str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                Some(length.unwrap_or(usize::MAX))
            }
            ([], [coding]) => {
                assert!(modern && coding.eq_ignore_ascii_case(b"chunked"), "coding {coding:?}");
                None
            }
            both => panic!("ambiguous framing: {both:?}"),
        };
        self.rest = self.rest.get(len..).unwrap_or_default();
        let ended = match body {
            Some(length) => {
                let ended = length <= self.rest.len();
                self.rest = self.rest.get(length..).unwrap_or_default();
                ended
            }
            None => self.chunks(),
        };
        self.tunnel = ended && upgrade && tunnels;
    }

    /// Reads a chunked body, and says whether it came to its end.
    fn chunks(&mut self) -> bool {
        loop {
            let (start, size) = match httparse::parse_chunk_size(self.rest) {
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) => return self.cut(),
                Err(error) => panic!("{error:?} in the chunks {}", self.rest.escape_ascii()),
            };
            self.rest = self.rest.get(start..).unwrap_or_default();
            if size == 0 {
                return self.trailers();
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let Some((_, behind)) = self.rest.split_at_checked(size) else { return self.cut() };
            match behind {
                [b'\r', b'\n', next @ ..] => self.rest = next,
                [] | [b'\r'] => return self.cut(),
                _ => panic!("behind a chunk: {}", behind.escape_ascii()),
            }
        }
    }

    fn trailers(&mut self) -> bool {
        let mut fields = [httparse::EMPTY_HEADER; LIMITS.max_header_fields];
        match httparse::parse_headers(self.rest, &mut fields) {
            Ok(httparse::Status::Complete((len, _))) => {
                self.rest = self.rest.get(len..).unwrap_or_default();
                true
            }
            Ok(httparse::Status::Partial) => self.cut(),
            Err(error) => panic!("{error} in the trailers {}", self.rest.escape_ascii()),
        }
    }

    /// The stream ends inside a message.
    fn cut(&mut self) -> bool {
        self.rest = &[];
        false
    }
}
