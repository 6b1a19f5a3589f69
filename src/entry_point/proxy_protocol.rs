//! PROXY protocol, versions 1 and 2, in front of everything else on a connection.
//!
//! The header is optional. Invariant: no byte behind it is lost, and a malformed one ends the
//! connection.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header that is read: version 2 with its extensions.
const MAX_HEADER: usize = 4096;
/// Longest line of version 1, its end included.
const MAX_V1: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The addresses that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where the client is.
    pub source: SocketAddr,
    /// Where it wanted to go.
    pub destination: SocketAddr,
}

/// Reads a header, if there is one. What follows it, or what is there instead, is in `first`.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    first: &mut BytesMut,
) -> io::Result<Option<Addresses>> {
    loop {
        if !could_begin(first) {
            return Ok(None);
        }
        if !first.is_empty() {
            match ProxyHeader::parse(first, ParseConfig::default()) {
                // One line, as long as it may be, however much of it came at once.
                Ok((_, length)) if first.starts_with(V1) && !is_line(first, length) => {
                    return Err(malformed());
                }
                Ok((header, length)) => {
                    let addresses = header.proxied_address().map(|addresses| Addresses {
                        source: addresses.source,
                        destination: addresses.destination,
                    });
                    first.advance(length);
                    return Ok(addresses);
                }
                Err(proxy_header::Error::BufferTooShort) if may_go_on(first) => {}
                Err(_) => return Err(malformed()),
            }
        }
        if stream.read_buf(first).await? == 0 {
            let begun = first.starts_with(V1) || first.starts_with(V2);
            return if begun { Err(malformed()) } else { Ok(None) };
        }
    }
}

/// Whether more bytes could complete the header: a line of version 1 is complete with its end.
fn may_go_on(bytes: &[u8]) -> bool {
    if bytes.starts_with(V1) {
        return bytes.len() < MAX_V1 && memchr::memchr(b'\n', bytes).is_none();
    }
    bytes.len() < MAX_HEADER
}

/// Whether these first bytes are a line that version 1 may be. The parser looks past a line feed for the line's end.
fn is_line(bytes: &[u8], length: usize) -> bool {
    length <= MAX_V1 && memchr::memchr(b'\n', bytes) == length.checked_sub(1)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed PROXY protocol header")
}

/// Whether what is there so far may be the beginning of a header.
fn could_begin(bytes: &[u8]) -> bool {
    [V1, V2].iter().any(|start| {
        let length = start.len().min(bytes.len());
        bytes.get(..length) == start.get(..length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(mut input: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let mut first = BytesMut::new();
        let result = read(&mut input, &mut first).await;
        let mut rest = first.to_vec();
        rest.extend_from_slice(input);
        (result.map(|found| found.map(|addresses| addresses.source)), rest)
    }

    #[tokio::test]
    async fn version_1() {
        let (found, rest) = parse(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nGET /").await;
        assert_eq!(found.unwrap(), Some("192.0.2.1:5000".parse().unwrap()));
        assert_eq!(rest, b"GET /");
    }

    #[tokio::test]
    async fn version_2() {
        let mut header = V2.to_vec();
        header.extend_from_slice(&[
            0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 1, 187,
        ]);
        header.extend_from_slice(b"GET /");
        let (found, rest) = parse(&header).await;
        assert_eq!(found.unwrap(), Some("192.0.2.1:5000".parse().unwrap()));
        assert_eq!(rest, b"GET /");
    }

    #[tokio::test]
    async fn unknown_and_local_keep_the_peer() {
        let (found, rest) = parse(b"PROXY UNKNOWN\r\nGET /").await;
        assert!(found.unwrap().is_none());
        assert_eq!(rest, b"GET /");
        let mut local = V2.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 0]);
        assert!(parse(&local).await.0.unwrap().is_none());
    }

    #[tokio::test]
    async fn no_header_is_no_error_and_loses_nothing() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"P", b"\r\n\r\nGET / HTTP/1.1\r\n", b"POST / "] {
            let (found, rest) = parse(bytes).await;
            assert!(found.unwrap().is_none());
            assert_eq!(rest, bytes);
        }
    }

    #[tokio::test]
    async fn a_broken_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\nGET /", "x".repeat(92));
        let two_lines = "PROXY UNKNOWN\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let broken =
            ["PROXY TCP4 nonsense\r\n", "PROXY TCP4 192.0.2.1", "PROXY \n", &long, two_lines];
        for broken in broken {
            assert!(parse(broken.as_bytes()).await.0.is_err(), "{broken:?}");
        }
        // 107 bytes with the end of the line.
        assert!(parse(long.replacen('x', "", 1).as_bytes()).await.0.is_ok());
        let endless = format!("PROXY TCP4 {}", "1".repeat(200));
        assert!(parse(endless.as_bytes()).await.0.is_err());
    }
}
