//! What RFC 9113 calls malformed and the HTTP/2 library lets through.
//!
//! The library checks names, pseudo-headers, connection-specific fields and the length of the body. What is left
//! matters because the request may go out as HTTP/1.1, where it would be ambiguous.

use http::Uri;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;

/// Why an HTTP/2 request is malformed, if it is (the answer is 400).
pub fn malformed_http2(headers: &HeaderMap, uri: &Uri) -> Option<&'static str> {
    // 8.3.1: there is a path, and it begins with a slash. `Uri::path` would say that it does. Without an authority the
    // library lets a request pass that has none, and that only looks like `/`.
    let malformed = |target: &PathAndQuery| match target.as_str() {
        "/" => *target != PathAndQuery::from_static("/"),
        text => text.starts_with('?'),
    };
    if uri.path_and_query().is_some_and(malformed) {
        return Some("malformed target");
    }
    // 8.1.1: the library compares the body with one of several lines.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if length.is_some() && lengths.next().is_some() {
        return Some("several Content-Length headers");
    }
    // And takes none at all for 0.
    if length.is_some_and(HeaderValue::is_empty) {
        return Some("invalid Content-Length");
    }
    // 8.2.1
    let padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers
        .values()
        .any(|value| padded(value.as_bytes().first()) || padded(value.as_bytes().last()))
        .then_some("white space around a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn malformed(target: &str, lines: &[(&str, &'static str)]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        malformed_http2(&headers, &target.parse().unwrap())
    }

    #[test]
    fn what_http_1_would_make_ambiguous() {
        let (plain, length) = ("http://a.test/x?y", "content-length");
        for (target, lines, want) in [
            (plain, &[(length, "3"), ("x-a", "a b"), ("x-b", "")][..], None),
            ("*", &[], None),
            ("a.test:80", &[], None),
            ("http://a.test?private", &[], Some("malformed target")),
            (plain, &[(length, "3"), (length, "3")], Some("several Content-Length headers")),
            (plain, &[(length, "")], Some("invalid Content-Length")),
            (plain, &[("x-a", " b")], Some("white space around a header value")),
            (plain, &[("x-a", "b\t")], Some("white space around a header value")),
            (plain, &[("x-a", " ")], Some("white space around a header value")),
        ] {
            assert_eq!(malformed(target, lines), want, "{target} {lines:?}");
        }
    }

    #[test]
    fn a_request_has_a_path() {
        let none = Uri::from_parts(http::uri::Parts::default()).unwrap();
        assert_eq!(malformed_http2(&HeaderMap::new(), &none), Some("malformed target"));
        assert_eq!(malformed("/", &[]), None);
    }
}
