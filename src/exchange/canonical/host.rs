//! The host of a request: which of its sources counts, whether it is well formed, and how rules compare it.
//!
//! After `canonicalize_host` a request has one `Host` line, and every reader of the host reads that line.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Uri, Version};

/// Why the host of a request is refused (all answers are 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A request of HTTP/1.1 or later has none.
    #[error("missing required Host header")]
    Missing,
    /// There are several `Host` lines, equal or not.
    #[error("too many Host headers")]
    Several,
    /// It is not a name or address with an optional port.
    #[error("malformed Host header")]
    Malformed,
}

/// Makes the `Host` line of `headers` the one host of the request.
///
/// The authority of the target wins over `Host` (absolute form: RFC 9112, 3.2.2; HTTP/2: RFC 9113, 8.3.1). A request
/// without either stays without, which only HTTP/1.0 allows.
pub fn canonicalize_host(
    headers: &mut HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<(), HostError> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(HostError::Several);
    }
    // A Host line that loses is still checked: whoever sends a broken one means to confuse somebody.
    if line.is_some_and(|value| !is_valid_host(value.as_bytes())) {
        return Err(HostError::Malformed);
    }
    let Some(authority) = uri.authority().map(http::uri::Authority::as_str) else {
        return match line {
            None if version >= Version::HTTP_11 => Err(HostError::Missing),
            _ => Ok(()),
        };
    };
    // User information has no place in a request (RFC 9110, 4.2.4) and fails this test.
    if !is_valid_host(authority.as_bytes()) {
        return Err(HostError::Malformed);
    }
    if line.is_none_or(|value| value != authority) {
        let value = HeaderValue::from_str(authority).map_err(|_| HostError::Malformed)?;
        headers.insert(HOST, value);
    }
    Ok(())
}

/// Whether this is a host with an optional port: a registered name, an IPv4 address or a bracketed IPv6 address.
///
/// Stricter than RFC 3986, whose names may hold `%`, `,` and other delimiters that no host name has and that two
/// parsers split differently. An empty host is valid, a port without a host is not.
pub fn is_valid_host(raw: &[u8]) -> bool {
    let (host_is_valid, port) = if let Some(rest) = raw.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let (address, rest) = rest.split_at(end);
        let valid = str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
        (valid, rest.get(1..).unwrap_or_default())
    } else {
        let (name, rest) = raw.split_at(memchr::memchr(b':', raw).unwrap_or(raw.len()));
        (name.len() <= 255 && name.iter().all(|&byte| is_name_byte(byte)), rest)
    };
    host_is_valid
        && match port {
            [] => true,
            [b':'] => raw.len() > 1,
            [b':', digits @ ..] => raw.len() > digits.len() + 1 && is_port(digits),
            _ => false,
        }
}

/// The host as `Host` and `HostRegexp` compare it: no port, no brackets, no trailing dot, lower case.
///
/// Traefik removes the brackets of an IPv6 address, with and without a port, so ``Host(`::1`)`` is how its rules
/// name one. The trailing dot goes too, so that `a.test.` and `a.test` never differ in rules, TLS options or logs.
pub fn canonical_host(raw: &str) -> Cow<'_, str> {
    let host = without_port(raw.trim_ascii());
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn is_port(digits: &[u8]) -> bool {
    // `parse` alone would take a sign.
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && str::from_utf8(digits).is_ok_and(|text| text.parse::<u16>().is_ok())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn without_port(raw: &str) -> &str {
    if let Some(rest) = raw.strip_prefix('[') {
        return rest.split_once(']').map_or(raw, |(address, _)| address);
    }
    match raw.split_once(':') {
        // More than one colon without brackets is an IPv6 address, not a port.
        Some((host, port)) if !port.contains(':') => host,
        _ => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_hosts() {
        for host in [
            "",
            "a.test",
            "A.TEST.",
            "a_b.test:8069",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:443",
            "a.test:65535",
            "a.test:",
            "[::ffff:10.0.0.1]",
            "xn--bcher-kva.example",
        ] {
            assert!(is_valid_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a.test/private",
            "user@a.test",
            "a.test:80a",
            "a.test, evil.invalid",
            "a.test,b.test",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%25eth0]",
            "[a.test]",
            "a b",
            "a.test:123456",
            "a.test:65536",
            "a.test:+80",
            ":80",
            ":",
            "a\\b",
            "a.test:80:80",
            "ü.test",
            "a.test?x",
            "a.test#x",
            "%61.test",
            "[]",
        ] {
            assert!(!is_valid_host(host.as_bytes()), "{host}");
        }
        assert!(!is_valid_host(&[b'a'; 256]));
        assert!(!is_valid_host(b"a\xff"));
    }

    #[test]
    fn hosts_as_rules_compare_them() {
        let table = [
            ("", ""),
            ("a.test", "a.test"),
            ("A.Test:8080", "a.test"),
            ("a.test.", "a.test"),
            ("A.TEST.:80", "a.test"),
            ("a.test..", "a.test."),
            ("a.test:", "a.test"),
            (" a.test ", "a.test"),
            ("[::1]", "::1"),
            ("[::1]:443", "::1"),
            ("[2001:DB8::1]:443", "2001:db8::1"),
            ("::1", "::1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1", "[::1"),
        ];
        for (raw, want) in table {
            assert_eq!(canonical_host(raw), want, "{raw}");
        }
        assert!(matches!(canonical_host("a.test:80"), Cow::Borrowed("a.test")));
    }

    fn outcome(
        uri: &str,
        hosts: &[&'static str],
        version: Version,
    ) -> Result<Vec<String>, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        canonicalize_host(&mut headers, &uri.parse().unwrap(), version)?;
        Ok(headers.get_all(HOST).iter().map(|v| v.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn one_host_everywhere() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let host = |name: &str| Ok(vec![name.to_owned()]);
        assert_eq!(outcome("/", &["a.test:80"], one), host("a.test:80"));
        assert_eq!(outcome("/", &["a.test", "evil.invalid"], one), Err(HostError::Several));
        assert_eq!(outcome("/", &["a.test", "a.test"], one), Err(HostError::Several));
        assert_eq!(outcome("/", &[], one), Err(HostError::Missing));
        assert_eq!(outcome("/", &[], Version::HTTP_10), Ok(vec![]));
        assert_eq!(outcome("/", &["user@a.test"], one), Err(HostError::Malformed));
        assert_eq!(outcome("http://a.test/x", &["evil.invalid"], one), host("a.test"));
        assert_eq!(outcome("http://a.test/x", &[], one), host("a.test"));
        assert_eq!(outcome("http://e@a.test/x", &["a.test"], one), Err(HostError::Malformed));
        assert_eq!(outcome("http://a.test/x", &["a, b"], one), Err(HostError::Malformed));
        assert_eq!(outcome("https://a.test/", &["evil.invalid"], two), host("a.test"));
        assert_eq!(outcome("https://a.test/", &[], two), host("a.test"));
        assert_eq!(outcome("/", &["a.test"], two), host("a.test"));
        assert_eq!(outcome("/", &[], two), Err(HostError::Missing));
    }
}
