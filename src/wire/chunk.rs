//! The scanner of chunked bodies (RFC 9112 7.1), of requests and of responses. It tells where the payload is and where
//! the body ends; the invariant is that no byte behind the first unacceptable one is ever called good.

use std::ops::Range;

use super::bytes_class::{is_token, is_value};

/// Chunk extensions of one message, all together.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// The trailer section of one message. hyper allows as much.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Digits of a chunk size: as many as a `u64` needs, zeros in front included.
const MAX_SIZE_DIGITS: u8 = 16;

/// A chunked body being read.
#[derive(Debug)]
pub(super) struct ChunkScan {
    state: State,
    /// The size being read, then the bytes of the chunk still to come.
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    max_trailers: usize,
    /// The trailer section as it came, where somebody wants it.
    kept: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What the bytes at hand meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// All bytes belong to the body, and it goes on.
    More,
    /// The body is complete; bytes behind it were left alone.
    Done,
    /// The byte behind the accepted ones breaks the syntax.
    Bad(&'static str),
}

impl ChunkScan {
    /// A body of which nothing was seen.
    pub(super) fn new(max_trailers: usize) -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
            max_trailers,
            kept: None,
        }
    }

    /// The same, with the trailer section kept.
    pub(super) fn keeping_trailers(max_trailers: usize) -> Self {
        Self { kept: Some(Vec::new()), ..Self::new(max_trailers) }
    }

    /// The trailer section of a complete body: its field lines, without the empty one.
    pub(super) fn take_trailers(&mut self) -> Vec<u8> {
        self.kept.take().unwrap_or_default()
    }

    /// Looks at the next bytes and says how many of them are good.
    pub(super) fn scan(&mut self, data: &[u8]) -> (usize, Chunked) {
        let mut at = 0;
        loop {
            let (payload, state) = self.run(data.get(at..).unwrap_or_default());
            at += payload.end;
            if state != Chunked::More || at == data.len() {
                return (at, state);
            }
        }
    }

    /// Looks at the next bytes up to the end of the first run of payload among them. All bytes before the payload, which
    /// may be empty, are good framing.
    pub(super) fn run(&mut self, data: &[u8]) -> (Range<usize>, Chunked) {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            if self.state == State::Data {
                let here = data.len() - at;
                let taken = usize::try_from(self.size).map_or(here, |left| left.min(here));
                self.size -= taken as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return (at..at + taken, Chunked::More);
            }
            match self.step(byte) {
                Ok(false) => at += 1,
                Ok(true) => return (at + 1..at + 1, Chunked::Done),
                Err(reason) => return (at..at, Chunked::Bad(reason)),
            }
        }
        (at..at, Chunked::More)
    }

    /// One byte of framing. `true` when it was the last one of the body.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.state = match (self.state, byte) {
            (State::Size, _) => return self.size_byte(byte).map(|()| false),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_value(byte) => {
                self.extension_bytes += 1;
                if self.extension_bytes > MAX_EXTENSION_BYTES {
                    return Err("chunk extensions too large");
                }
                State::Extension
            }
            (State::Extension, _) => return Err("invalid chunk extension"),
            (State::SizeLf, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') | (State::Data, _) => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.digits = 0;
                State::Size
            }
            (State::DataCr | State::DataLf, _) => return Err("no CRLF behind the chunk data"),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => return Ok(true),
            (State::TrailerLf, b'\n') => {
                self.keep(b"\r\n");
                State::TrailerStart
            }
            (State::SizeLf | State::EndLf | State::TrailerLf, _) => {
                return Err("bare CR in a chunked body");
            }
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                return self.trailer_byte(byte).map(|()| false);
            }
        };
        Ok(false)
    }

    fn size_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => {
                self.state = State::SizeLf;
                return Ok(());
            }
            b';' if self.digits > 0 => {
                self.state = State::Extension;
                return Ok(());
            }
            _ => return Err("invalid chunk size"),
        };
        if self.digits == 0 {
            self.size = 0;
        }
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err("chunk size too large");
        }
        self.size = (self.size << 4) | u64::from(digit);
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err("trailer section too large");
        }
        self.state = match (self.state, byte) {
            (State::TrailerStart, _) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > self.max_trailers {
                    return Err("too many trailer fields");
                }
                State::TrailerName
            }
            (State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value(byte) => State::TrailerValue,
            _ => return Err("invalid trailer field"),
        };
        if byte != b'\r' {
            self.keep(&[byte]);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(body: &[u8]) -> (usize, Chunked) {
        ChunkScan::new(10).scan(body)
    }

    #[test]
    fn accepts_what_the_rfc_allows() {
        for body in [
            b"0\r\n\r\n".as_slice(),
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\r\nhello\r\n0;x\r\n\r\n",
            b"A\r\n0123456789\r\n00\r\nX-Sum: 1\r\nb:\r\n\r\n",
        ] {
            assert_eq!(scan(body), (body.len(), Chunked::Done), "{}", body.escape_ascii());
        }
        assert_eq!(scan(b"0\r\n\r\nGET /"), (5, Chunked::Done));
    }

    #[test]
    fn refuses_the_rest() {
        for body in [
            b"0x5\r\nhello\r\n0\r\n\r\n".as_slice(),
            b"-5\r\n",
            b"+5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"\r\n\r\n",
            b";a\r\n",
            b"5\nhello",
            b"5;\nhello",
            b"5;\rhello",
            b"5\rh",
            b"5\r\nhelloXX",
            b"5\r\nhello\r5",
            b"5\r\nhello\n",
            b"FFFFFFFFFFFFFFFF5\r\n",
            b"0\r\n X: y\r\n",
            b"0\r\nX : y\r\n",
            b"0\r\n: y\r\n",
            b"0\r\nX\r\n",
            b"0\r\nX: \0\r\n",
            b"0\r\nX: y\n",
            b"0\r\nX: y\rZ",
            b"0\r\n\rX",
            b"0\r\n\n",
        ] {
            assert!(matches!(scan(body).1, Chunked::Bad(_)), "{}", body.escape_ascii());
        }
        let long = [b"5;".as_slice(), &vec![b'a'; MAX_EXTENSION_BYTES + 1]].concat();
        assert_eq!(scan(&long).1, Chunked::Bad("chunk extensions too large"));
        let many = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(11)].concat();
        assert_eq!(scan(&many).1, Chunked::Bad("too many trailer fields"));
    }

    #[test]
    fn payload_and_trailers_are_found_however_the_bytes_come() {
        let body = b"5;a=b\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nb:\r\n\r\n";
        for size in 1..=body.len() {
            let mut scan = ChunkScan::keeping_trailers(10);
            let (mut payload, mut last) = (Vec::new(), Chunked::More);
            for piece in body.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (run, state) = scan.run(rest);
                    payload.extend_from_slice(&rest[run.clone()]);
                    rest = &rest[run.end..];
                    last = state;
                }
            }
            assert_eq!(last, Chunked::Done);
            assert_eq!(payload, b"hello 0123456789");
            assert_eq!(scan.take_trailers(), b"X-Sum: 1\r\nb:\r\n");
        }
    }

    #[test]
    fn the_largest_size_is_only_a_large_size() {
        let mut body = ChunkScan::new(10);
        assert_eq!(body.scan(b"FFFFFFFFFFFFFFFF\r\nabc"), (21, Chunked::More));
        assert_eq!(body.size, u64::MAX - 3);
    }
}
