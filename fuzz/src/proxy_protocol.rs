//! `proxy_protocol`: the beginning of a connection, which may be a PROXY header. The first byte says in what pieces it
//! comes; the addresses are read again by an independent reader, and no byte behind a header is lost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use doorward::entry_point::proxy_protocol::{Addresses, read};

use super::pieces::{Pieces, wait};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads one stream whole and in pieces.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let whole = found(stream, stream.len(), usize::MAX);
    let prefix = usize::from(seed >> 5).min(stream.len());
    let pieces = found(stream, prefix, usize::from(seed & 31) + 1);
    assert_eq!(whole, pieces, "what is read depends on how the stream was split");
    let Some((addresses, rest)) = whole else { return };
    assert!(stream.ends_with(&rest), "bytes are lost or made up");
    let header = stream.get(..stream.len() - rest.len()).unwrap_or_default();
    match addresses {
        Some(addresses) => assert_eq!(independent(header), Some(addresses), "{header:?}"),
        None => assert!(
            header.is_empty() || header.starts_with(b"PROXY ") || header.starts_with(V2),
            "{header:?} is no header"
        ),
    }
}

/// The addresses and what is behind them; `None` when the header is refused.
fn found(stream: &[u8], prefix: usize, piece: usize) -> Option<(Option<Addresses>, Vec<u8>)> {
    let (prefix, rest) = stream.split_at(prefix);
    let mut first = BytesMut::from(prefix);
    let mut source = Pieces::new(rest, piece);
    let addresses = wait(read(&mut source, &mut first)).ok()?;
    Some((addresses, [&*first, source.rest].concat()))
}

/// What a whole header names, read by its specification.
fn independent(header: &[u8]) -> Option<Addresses> {
    let Some(body) = header.strip_prefix(V2) else { return line(header) };
    let (&[command, family, high, low], body) = body.split_first_chunk()?;
    assert_eq!(usize::from(u16::from_be_bytes([high, low])), body.len(), "the length is another");
    assert_eq!(command, 0x21, "a version or command that names nobody");
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let (source, destination, ports): (IpAddr, IpAddr, usize) = match family >> 4 {
        1 => {
            let (source, rest) = body.split_first_chunk::<4>()?;
            let (destination, _) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), 8)
        }
        2 => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (destination, _) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), 32)
        }
        _ => return None,
    };
    Some(Addresses {
        source: SocketAddr::new(source, port(ports)?),
        destination: SocketAddr::new(destination, port(ports + 2)?),
    })
}

fn line(header: &[u8]) -> Option<Addresses> {
    let text = str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    let words: Vec<&str> = text.split(' ').collect();
    let ["PROXY", family, source, destination, from, to] = *words.as_slice() else { return None };
    let source: IpAddr = source.parse().ok()?;
    let destination: IpAddr = destination.parse().ok()?;
    assert_eq!((source.is_ipv4(), destination.is_ipv4()), (family == "TCP4", family == "TCP4"));
    Some(Addresses {
        source: SocketAddr::new(source, from.parse().ok()?),
        destination: SocketAddr::new(destination, to.parse().ok()?),
    })
}
