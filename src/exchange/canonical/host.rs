//! The host of a request: which of its sources counts, whether it is well formed, and how rules compare it.
//!
//! After `canonicalize_host` a request has one `Host` line, and every reader of the host reads that line.

use std::borrow::Cow;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Uri, Version};

use crate::wire::authority;

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
    let Some(named) = uri.authority().map(http::uri::Authority::as_str) else {
        return match line {
            None if version >= Version::HTTP_11 => Err(HostError::Missing),
            _ => Ok(()),
        };
    };
    // User information has no place in a request (RFC 9110, 4.2.4) and fails this test.
    if !is_valid_host(named.as_bytes()) {
        return Err(HostError::Malformed);
    }
    if line.is_none_or(|value| value != named) {
        let value = HeaderValue::from_str(named).map_err(|_| HostError::Malformed)?;
        headers.insert(HOST, value);
    }
    Ok(())
}

/// Whether this is a host with an optional port, as `wire::authority` reads it.
///
/// An empty host is valid, a port without a host is not.
pub fn is_valid_host(raw: &[u8]) -> bool {
    raw.is_empty() || authority::parse(raw).is_ok()
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
