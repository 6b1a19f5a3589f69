//! Rewriting of the path, shared by the middlewares that do it.
//!
//! They work on the escaped path, where `%2F` is no separator, and leave the query byte for byte.

use std::fmt::Write as _;

use http::Uri;
use http::uri::PathAndQuery;

use crate::exchange::Request;
use crate::exchange::canonical::is_clean;

/// Puts `path`, escaped, in place of the request's; `false` when that makes no valid target.
///
/// A target without a path (`*`, and `host:port` of CONNECT) stays as it is.
pub(super) fn set_path(request: &mut Request, path: &str) -> bool {
    let uri = request.uri();
    if !has_path(uri) {
        return true;
    }
    let query = uri.query();
    let mut text = String::with_capacity(path.len() + 2 + query.map_or(0, str::len));
    if !path.starts_with('/') {
        text.push('/');
    }
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    let Ok(target) = PathAndQuery::try_from(text) else { return false };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(target);
    match Uri::from_parts(parts) {
        Ok(uri) => {
            *request.uri_mut() = uri;
            true
        }
        Err(_) => false,
    }
}

/// The same for what is left of a path; also `false`, and nothing changed, when that is not clean.
pub(super) fn set_clean_path(request: &mut Request, path: &str) -> bool {
    is_clean(path) && set_path(request, path)
}

/// What is left of a path, with the slash that a path begins with.
pub(super) fn absolute(rest: &str) -> String {
    if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
}

/// Whether a target has a path that can be rewritten.
pub(super) fn has_path(uri: &Uri) -> bool {
    uri.path().starts_with('/')
}

/// What of an escaped path follows `prefix`, which is written unescaped.
///
/// An escape matches the byte it stands for, but `%2F` does not match a separator: rules see the
/// path this way too, so what is cut off is what a rule has seen (CVE-2026-40912).
pub(super) fn strip_prefix<'a>(escaped: &'a str, prefix: &str) -> Option<&'a str> {
    let bytes = escaped.as_bytes();
    let mut at = 0;
    for &want in prefix.as_bytes() {
        let byte = *bytes.get(at)?;
        if byte == want && byte != b'%' {
            at += 1;
        } else if byte == b'%' && want != b'/' && escape_at(bytes, at) == Some(want) {
            at += 3;
        } else {
            return None;
        }
    }
    escaped.get(at..)
}

/// Escapes what may not stand in a path; with `keep_escapes`, valid escapes stay.
pub(super) fn escape(text: &str, keep_escapes: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let literal = match byte {
            b'%' => keep_escapes && escape_at(bytes, at).is_some(),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte),
        };
        if literal {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The first escape of `text` that is none, as Go's error quotes it.
pub(super) fn invalid_escape(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let at = memchr::memchr_iter(b'%', bytes).find(|&at| escape_at(bytes, at).is_none())?;
    let rest = text.get(at..)?;
    Some(rest.char_indices().nth(3).and_then(|(end, _)| rest.get(..end)).unwrap_or(rest))
}

/// The byte that an escape at `at` stands for.
fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    match bytes.get(at..)? {
        [b'%', high, low, ..] => {
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;

    fn rewritten(target: &str, path: &str) -> String {
        let mut request = http::Request::builder().uri(target).body(Body::empty()).unwrap();
        assert!(set_path(&mut request, path));
        request.uri().to_string()
    }

    #[test]
    fn the_query_stays_byte_for_byte() {
        assert_eq!(rewritten("/a?x=%2e&&y", "/b"), "/b?x=%2e&&y");
        assert_eq!(rewritten("/a?", "/b"), "/b?");
        assert_eq!(rewritten("/a", ""), "/");
        assert_eq!(rewritten("https://h.test/a?q", "/b%2F"), "https://h.test/b%2F?q");
        assert_eq!(rewritten("*", "/b"), "*");
        assert_eq!(rewritten("h.test:443", "/b"), "h.test:443");
    }

    #[test]
    fn prefixes_are_compared_unescaped_but_for_separators() {
        for (path, prefix, want) in [
            ("/api/x", "/api", Some("/x")),
            ("/apix", "/api", Some("x")),
            ("/foo%20bar/x%2Fy", "/foo bar", Some("/x%2Fy")),
            ("/100%25/x", "/100%", Some("/x")),
            ("/api%2Fx", "/api/", None),
            ("/ap", "/api", None),
            ("/caf%C3%A9/x", "/café", Some("/x")),
            ("/x", "", Some("/x")),
        ] {
            assert_eq!(strip_prefix(path, prefix), want, "{path} {prefix}");
        }
    }

    #[test]
    fn escaping_follows_go() {
        assert_eq!(escape("/a b%20?#c", false), "/a%20b%2520%3F%23c");
        assert_eq!(escape("/a b%2fc%zz", true), "/a%20b%2fc%25zz");
        assert_eq!(invalid_escape("/a%2fb%zzc"), Some("%zz"));
        assert_eq!(invalid_escape("/a%2"), Some("%2"));
        assert_eq!(invalid_escape("/a%2f"), None);
    }
}
