//! URLs of probes: a path of the configuration, or a redirect, resolved against where we are
//! (RFC 3986, 5.2).

use std::fmt::Write as _;

use http::Uri;
use http::uri::PathAndQuery;

/// Where a probe goes: scheme, host with port, and what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
}

impl Address {
    /// The address that an absolute URL names. Credentials in it are not sent.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = split_scheme(url)?;
        let rest = rest.strip_prefix("//")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, bare)| bare);
        if authority.is_empty() {
            return None;
        }
        let (path, query) = split_query(path);
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.to_owned(),
            path: joined(&without_dots(path), query)?,
        })
    }

    /// The address that `reference` names, seen from here.
    pub(super) fn resolve(&self, reference: &str) -> Option<Self> {
        if split_scheme(reference).is_some() {
            return Self::parse(reference);
        }
        if reference.starts_with("//") {
            return Self::parse(&format!("{}:{reference}", self.scheme));
        }
        let (path, query) = split_query(reference);
        let path = if path.is_empty() {
            joined(self.path.path(), query.or(self.path.query()))
        } else if path.starts_with('/') {
            joined(&without_dots(path), query)
        } else {
            let base = self.path.path();
            let folder = base.get(..=base.rfind('/')?)?;
            joined(&without_dots(&format!("{folder}{path}")), query)
        };
        Some(Self { path: path?, ..self.clone() })
    }

    /// The same, asked of another port.
    pub(super) fn with_port(mut self, port: u16) -> Self {
        let host = match self.authority.parse::<Uri>() {
            Ok(uri) => uri.host().unwrap_or(&self.authority).to_owned(),
            Err(_) => self.authority,
        };
        self.authority = format!("{host}:{port}");
        self
    }

    /// Scheme and authority, as a server's URL.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

/// Whether a reference names a place of its own and not one on the same server.
pub(super) fn is_elsewhere(reference: &str) -> bool {
    split_scheme(reference).is_some() || reference.starts_with("//")
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let valid = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    valid.then_some((scheme, rest))
}

/// Path and query, without the fragment.
fn split_query(text: &str) -> (&str, Option<&str>) {
    let text = text.split_once('#').map_or(text, |(text, _)| text);
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Removes `.` and `..` (RFC 3986, 5.2.4) and puts a slash in front.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Path and query as they are sent: what may not stand in a request line is escaped.
fn joined(path: &str, query: Option<&str>) -> Option<PathAndQuery> {
    let mut text = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        text.push('/');
    }
    escape(&mut text, path);
    if let Some(query) = query {
        text.push('?');
        escape(&mut text, query);
    }
    text.parse().ok()
}

fn escape(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &str, reference: &str) -> String {
        let address = Address::parse(base).unwrap().resolve(reference).unwrap();
        format!("{}{}", address.origin(), address.path)
    }

    #[test]
    fn paths_are_references() {
        for (base, reference, want) in [
            ("http://a:1", "/health", "http://a:1/health"),
            ("http://a:1", "health", "http://a:1/health"),
            ("http://a:1", "", "http://a:1/"),
            ("http://a:1/base/x?q=1", "", "http://a:1/base/x?q=1"),
            ("http://a:1/base/x?q=1", "?r=2", "http://a:1/base/x?r=2"),
            ("http://a:1/base/x", "health", "http://a:1/base/health"),
            ("http://a:1/base/", "health?x=y#z", "http://a:1/base/health?x=y"),
            ("http://a:1/base/x", "/web/../health", "http://a:1/health"),
            ("http://a:1/b/c/d", "../..", "http://a:1/"),
            ("http://a:1/b/c/d", "..", "http://a:1/b/"),
            ("http://a:1", "/a b/é", "http://a:1/a%20b/%C3%A9"),
            ("http://user:secret@a:1", "/x", "http://a:1/x"),
            ("https://a", "//b/c", "https://b/c"),
            ("https://a/x", "http://b:2?y", "http://b:2/?y"),
        ] {
            assert_eq!(resolved(base, reference), want, "{base} {reference}");
        }
    }

    #[test]
    fn other_places_are_told_apart() {
        for elsewhere in ["http://b/", "//b", "x:y"] {
            assert!(is_elsewhere(elsewhere), "{elsewhere}");
        }
        for here in ["/x", "x", "", "?a:b", "/a:b"] {
            assert!(!is_elsewhere(here), "{here}");
        }
    }

    #[test]
    fn ports_are_replaced() {
        for (url, want) in [
            ("http://a", "http://a:9"),
            ("http://a:1", "http://a:9"),
            ("http://[::1]:1", "http://[::1]:9"),
            ("http://[::1]", "http://[::1]:9"),
        ] {
            assert_eq!(Address::parse(url).unwrap().with_port(9).origin(), want);
        }
    }

    #[test]
    fn what_is_no_url() {
        for text in ["", "a", "/a", "http:", "http://", "http:///x", "://a"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
