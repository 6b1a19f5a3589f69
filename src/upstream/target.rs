//! One server, as its URL names it: where to connect, what to call it, and the text as configured.
//!
//! Parsed once when a service is built; a request only clones shared parts.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Uri};

use crate::values::BuildError;
use crate::values::secret::without_credentials;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetScheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1, as the server prefers.
    Https,
    /// HTTP/2 in clear text, with prior knowledge.
    H2c,
}

/// A server's URL.
#[derive(Debug, Clone)]
pub struct Target {
    text: Arc<str>,
    scheme: TargetScheme,
    host: Box<str>,
    port: u16,
    authority: Authority,
    host_header: HeaderValue,
    path: Box<str>,
}

impl Target {
    /// Reads the URL of a server.
    pub fn parse(url: &str) -> Result<Self, BuildError> {
        let invalid = |why: &str| {
            let shown = without_credentials(url);
            BuildError::at("url", format!("`{shown}` is no server URL: {why}"))
        };
        let uri: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| invalid(&error.to_string()))?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => (TargetScheme::Http, 80),
            Some("https") => (TargetScheme::Https, 443),
            Some("h2c") => (TargetScheme::H2c, 80),
            Some(_) => return Err(invalid("the scheme must be http, https or h2c")),
            None => return Err(invalid("it needs a scheme: http, https or h2c")),
        };
        let written = uri.authority().ok_or_else(|| invalid("it has no host"))?;
        // Credentials in the URL are not sent, as in Traefik.
        let authority = match written.as_str().rsplit_once('@') {
            None => written.clone(),
            Some((_, bare)) => bare.parse().map_err(|_| invalid("its host cannot be read"))?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid("it has no host"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("" | ":") => default_port,
            Some(_) => authority.port_u16().ok_or_else(|| invalid("its port cannot be read"))?,
        };
        let host_header = HeaderValue::from_str(authority.as_str())
            .map_err(|_| invalid("its host cannot be sent as a header"))?;
        Ok(Self {
            text: url.into(),
            scheme,
            host: host.into(),
            port,
            host_header,
            path: uri.path().trim_end_matches('/').into(),
            authority,
        })
    }

    /// The URL exactly as written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> TargetScheme {
        self.scheme
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's when none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host when it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as written.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Host and port as written, as the `Host` header.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// `path` behind the URL's own path, with exactly one slash in between (`preservePath`).
    pub(super) fn join(&self, path: PathAndQuery) -> PathAndQuery {
        if self.path.is_empty() {
            return path;
        }
        let mut joined = String::with_capacity(self.path.len() + path.as_str().len() + 1);
        joined.push_str(&self.path);
        if !path.as_str().starts_with('/') {
            joined.push('/');
        }
        joined.push_str(path.as_str());
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(joined)).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, scheme, host, port, authority) in [
            ("http://10.0.0.1:8069", TargetScheme::Http, "10.0.0.1", 8069, "10.0.0.1:8069"),
            ("http://odoo", TargetScheme::Http, "odoo", 80, "odoo"),
            (
                "https://odoo_1.example",
                TargetScheme::Https,
                "odoo_1.example",
                443,
                "odoo_1.example",
            ),
            ("h2c://[::1]:50051/", TargetScheme::H2c, "::1", 50051, "[::1]:50051"),
            ("https://[::1]", TargetScheme::Https, "::1", 443, "[::1]"),
            ("http://user:secret@odoo:80", TargetScheme::Http, "odoo", 80, "odoo:80"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.scheme(), scheme, "{url}");
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert_eq!(target.host_header(), authority, "{url}");
            assert_eq!(&**target.text(), url);
        }
    }

    #[test]
    fn what_is_no_server_url() {
        for url in [
            "",
            "odoo",
            "odoo:8069",
            "ftp://odoo",
            "http://",
            "http://odoo:99999",
            "/path",
            "http://:80",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_said_of_a_url_has_no_password() {
        for url in [
            "http://u:hunter2@a:x",
            "http://u:hun/ter2@a:80",
            "http://u:hun#t?er2@a",
            "u:hun/ter2@a",
        ] {
            let said = format!("{:?}", Target::parse(url).unwrap_err());
            assert!(!said.contains("hun") && !said.contains("er2"), "{said}");
        }
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        for (url, path, want) in [
            ("http://a", "/x?y=1", "/x?y=1"),
            ("http://a/", "/x", "/x"),
            ("http://a/base", "/x", "/base/x"),
            ("http://a/base/", "/x%2Fy?z", "/base/x%2Fy?z"),
            ("http://a/base/", "/", "/base/"),
        ] {
            let joined = Target::parse(url).unwrap().join(path.parse().unwrap());
            assert_eq!(joined.as_str(), want, "{url}");
        }
    }
}
