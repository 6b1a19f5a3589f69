//! `host`: the first line is a target, the others are `Host` lines. All readers of hosts agree.

use doorward::exchange::canonical::{canonical_host, canonicalize_host, is_valid_host};
use doorward::wire::authority;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};

/// Checks each line as a host, and the lines together as those of one request.
pub fn run(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let target = lines.next().unwrap_or_default();
    check_host(target);
    let mut headers = HeaderMap::new();
    for line in lines.take(4) {
        check_host(line);
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HOST, value);
        }
    }
    let Ok(uri) = Uri::try_from(target) else { return };
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        check_request(headers.clone(), &uri, version);
    }
}

fn check_host(raw: &[u8]) {
    let parsed = authority::parse(raw);
    if let Ok(authority) = parsed {
        let behind = raw.get(authority.host.len()..).unwrap_or_default();
        assert!(raw.starts_with(authority.host.as_bytes()) && !authority.host.is_empty());
        let Some(port) = authority.port else {
            assert!(matches!(behind, [] | b":"), "{behind:?} is no port");
            return check_canonical(raw);
        };
        let again = format!("{}:{port}", authority.host);
        assert_eq!(authority::parse(again.as_bytes()), Ok(authority));
    }
    assert_eq!(is_valid_host(raw), parsed.is_ok() || raw.is_empty());
    check_canonical(raw);
}

fn check_canonical(raw: &[u8]) {
    let Ok(text) = str::from_utf8(raw) else { return };
    let host = canonical_host(text);
    assert!(!host.contains(|c: char| c.is_ascii_uppercase()), "{host:?}");
    assert_eq!(canonical_host(&text.to_ascii_uppercase()), host);
    if !is_valid_host(raw) {
        return;
    }
    assert!(!host.contains(['[', ']', ' ']), "{host:?}");
    let portless = text.strip_suffix(':').unwrap_or(text);
    if authority::parse(portless.as_bytes()).is_ok_and(|authority| authority.port.is_none()) {
        assert_eq!(canonical_host(&format!("{portless}:8069")), host, "with a port");
    }
}

fn check_request(mut headers: HeaderMap, uri: &Uri, version: Version) {
    if canonicalize_host(&mut headers, uri, version).is_err() {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(HOST).iter().cloned().collect();
    assert!(lines.len() <= 1, "several hosts: {lines:?}");
    assert!(lines.len() == 1 || version != Version::HTTP_11, "HTTP/1.1 without a host");
    assert!(lines.iter().all(|line| is_valid_host(line.as_bytes())), "{lines:?}");
    if let (Some(authority), Some(line)) = (uri.authority(), lines.first()) {
        assert_eq!(line, authority.as_str(), "the target does not win");
    }
    assert_eq!(canonicalize_host(&mut headers, uri, version), Ok(()), "canonical twice");
    assert!(headers.get_all(HOST).iter().eq(lines.iter()));
}
