//! The host and port of a request: Host, `:authority` and the authority of an absolute-form target.
//! The one judge of hosts: stricter than RFC 3986 3.2.2, what two parsers could read as two hosts is refused.

use std::net::Ipv6Addr;

/// No name in the DNS is longer than 253 bytes and a final dot.
const MAX_HOST: usize = 255;

/// A host as it was written, and the port behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets; in the sender's letter case.
    pub host: &'a str,
    /// The port; `None` when there is none, also behind a lone colon (RFC 3986 3.2.3 allows that).
    pub port: Option<u16>,
}

/// Why an authority is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing at all, or a port alone. HTTP/1.0 allows an empty Host: the caller knows.
    #[error("empty host")]
    Empty,
    /// A byte that no host may have: user information, a path, a list, a space, a percent sign.
    #[error("invalid character in the host")]
    InvalidHost,
    /// Brackets without an IPv6 address in them, or with a zone.
    #[error("invalid IPv6 address in the host")]
    InvalidIpv6,
    /// Something behind the colon that is no port.
    #[error("invalid port in the host")]
    InvalidPort,
    /// Longer than any name.
    #[error("host too long")]
    TooLong,
}

/// Parses an authority without user information.
pub fn parse(raw: &[u8]) -> Result<Authority<'_>, AuthorityError> {
    let (host, behind) = if raw.first() == Some(&b'[') { ip_literal(raw)? } else { name(raw)? };
    let port = match behind {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err(AuthorityError::InvalidHost),
    };
    Ok(Authority { host, port })
}

fn name(raw: &[u8]) -> Result<(&str, &[u8]), AuthorityError> {
    let end = raw.iter().position(|&b| !is_name(b)).unwrap_or(raw.len());
    let (host, behind) = raw.split_at_checked(end).unwrap_or_default();
    if host.is_empty() && matches!(behind.first(), None | Some(b':')) {
        return Err(AuthorityError::Empty);
    }
    if host.len() > MAX_HOST {
        return Err(AuthorityError::TooLong);
    }
    let host = str::from_utf8(host).map_err(|_| AuthorityError::InvalidHost)?;
    Ok((host, behind))
}

/// A byte that a host name may have. RFC 3986 has more: a comma makes a list look like one host, percent-encoding hides
/// names, and no host has any other delimiter.
const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn ip_literal(raw: &[u8]) -> Result<(&str, &[u8]), AuthorityError> {
    let close = raw.iter().position(|&b| b == b']').ok_or(AuthorityError::InvalidIpv6)?;
    let (host, behind) = raw.split_at_checked(close + 1).ok_or(AuthorityError::InvalidIpv6)?;
    let host = str::from_utf8(host).map_err(|_| AuthorityError::InvalidIpv6)?;
    let address = host.get(1..close).unwrap_or_default();
    address.parse::<Ipv6Addr>().map_err(|_| AuthorityError::InvalidIpv6)?;
    Ok((host, behind))
}

fn port(digits: &[u8]) -> Result<u16, AuthorityError> {
    let mut port = 0u16;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return Err(AuthorityError::InvalidPort);
        }
        port = port
            .checked_mul(10)
            .and_then(|p| p.checked_add(u16::from(byte - b'0')))
            .ok_or(AuthorityError::InvalidPort)?;
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (raw, host, port) in [
            ("example.com", "example.com", None),
            ("Example.COM.:8080", "Example.COM.", Some(8080)),
            ("a_b-c~d", "a_b-c~d", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:443", "[2001:DB8::1]", Some(443)),
            ("[::ffff:1.2.3.4]:0", "[::ffff:1.2.3.4]", Some(0)),
            ("host:", "host", None),
            ("host:65535", "host", Some(65535)),
            ("host:000080", "host", Some(80)),
        ] {
            assert_eq!(parse(raw.as_bytes()), Ok(Authority { host, port }), "{raw}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use AuthorityError::{Empty, InvalidHost, InvalidIpv6, InvalidPort, TooLong};
        for (raw, error) in [
            ("", Empty),
            (":80", Empty),
            ("host/private", InvalidHost),
            ("user@host", InvalidHost),
            ("user:pass@host", InvalidPort),
            ("host:80a", InvalidPort),
            ("host:+80", InvalidPort),
            ("host:65536", InvalidPort),
            ("host:80:81", InvalidPort),
            ("host, evil", InvalidHost),
            ("host,evil", InvalidHost),
            ("host evil", InvalidHost),
            (" host", InvalidHost),
            ("h%6fst", InvalidHost),
            ("host;x", InvalidHost),
            ("host=x", InvalidHost),
            ("(host)", InvalidHost),
            ("höst", InvalidHost),
            ("host#x", InvalidHost),
            ("host?x", InvalidHost),
            ("a\\b", InvalidHost),
            ("[::1", InvalidIpv6),
            ("[]", InvalidIpv6),
            ("[::1%25eth0]", InvalidIpv6),
            ("[127.0.0.1]", InvalidIpv6),
            ("[v1.x]", InvalidIpv6),
            ("[::1]x", InvalidHost),
            ("x[::1]", InvalidHost),
        ] {
            assert_eq!(parse(raw.as_bytes()), Err(error), "{raw}");
        }
        assert_eq!(parse(&[b'a'; 256]), Err(TooLong));
        assert_eq!(parse(b"a\0b"), Err(InvalidHost));
    }
}
