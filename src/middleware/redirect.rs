//! What the redirects share: the answer, and which text may become a `Location`.
//!
//! Nothing gets into `Location` that a client could read as the end of the header or as another
//! host than the one that stands there.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::{HOST, LOCATION};
use http::{HeaderValue, Method, StatusCode};

use super::reference::is_scheme;
use crate::exchange::canonical::is_valid_host;
use crate::exchange::error::bare;
use crate::exchange::{Request, Response};

/// The host of a request, as sent; empty when there is none.
pub(super) fn host(request: &Request) -> &str {
    request.headers().get(HOST).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The path and query of a request; `/` for a target without a path.
pub(super) fn path_and_query(request: &Request) -> &str {
    match request.uri().path_and_query().map(http::uri::PathAndQuery::as_str) {
        Some(text) if text.starts_with('/') => text,
        _ => "/",
    }
}

/// Sends the client to `url`: 301 or 302 for GET, 308 or 307 for everything else, and 500 when
/// `url` is none.
pub(super) fn redirect_to(url: &str, method: &Method, permanent: bool) -> Response {
    let location = location(url).and_then(|text| HeaderValue::from_str(&text).ok());
    let Some(location) = location else { return bare(StatusCode::INTERNAL_SERVER_ERROR) };
    let status = match (*method == Method::GET, permanent) {
        (true, true) => StatusCode::MOVED_PERMANENTLY,
        (true, false) => StatusCode::FOUND,
        (false, true) => StatusCode::PERMANENT_REDIRECT,
        (false, false) => StatusCode::TEMPORARY_REDIRECT,
    };
    let mut response = bare(status);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A URL as it may stand in `Location`; `None` for what Go's `url.Parse` refuses.
pub(super) fn location(url: &str) -> Option<Cow<'_, str>> {
    let bytes = url.as_bytes();
    if bytes.iter().any(u8::is_ascii_control) {
        return None;
    }
    let rest = match url.split_once(':') {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
            is_scheme(scheme).then_some(rest)?
        }
        _ => url,
    };
    if let Some(rest) = rest.strip_prefix("//") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest.get(..end)?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if !authority.bytes().all(is_literal) || !is_valid_host(host.as_bytes()) {
            return None;
        }
    }
    let path_end = url.find(['?', '#']).unwrap_or(url.len());
    if super::path::invalid_escape(url.get(..path_end)?).is_some() {
        return None;
    }
    // Browsers read `\` as `/`, and so a path as a host.
    if bytes.iter().all(|&byte| is_literal(byte)) {
        return Some(Cow::Borrowed(url));
    }
    let mut out = String::with_capacity(url.len() + 8);
    for &byte in bytes {
        if is_literal(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Some(Cow::Owned(out))
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_url_or_nothing() {
        for (url, want) in [
            ("https://a.test/x?y=z#f", Some("https://a.test/x?y=z#f")),
            ("https://a.test:8443/", Some("https://a.test:8443/")),
            ("https://[::1]:8443/", Some("https://[::1]:8443/")),
            ("https://u:p@a.test/", Some("https://u:p@a.test/")),
            ("/x y\\z", Some("/x%20y%5Cz")),
            ("https://a.test/é", Some("https://a.test/%C3%A9")),
            ("/a:b", Some("/a:b")),
            ("https://a.test/?x=%zz", Some("https://a.test/?x=%zz")),
            ("https://a.test/%zz", None),
            ("https://a.test/\r\nX: y", None),
            ("https://a.test\\@evil.test/", None),
            ("https://a.test:x/", None),
            ("https://a b/", None),
            ("1a:b", None),
            (":x", None),
        ] {
            assert_eq!(location(url).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn the_status_says_whether_the_method_stays() {
        for (method, permanent, want) in [
            (Method::GET, false, 302),
            (Method::GET, true, 301),
            (Method::HEAD, false, 307),
            (Method::POST, true, 308),
        ] {
            let response = redirect_to("https://a.test/", &method, permanent);
            assert_eq!(response.status(), want);
            assert_eq!(response.headers()[LOCATION], "https://a.test/");
        }
        let failed = redirect_to("https://a.test/%", &Method::GET, false);
        assert_eq!(failed.status(), 500);
        assert!(!failed.headers().contains_key(LOCATION));
    }
}
