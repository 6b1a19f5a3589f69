//! Which `Host` and `Origin` are answered. A page in a browser can send requests to any address,
//! under its own name by DNS rebinding; nothing that it could be told apart by is let through.

use std::net::SocketAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use super::config::AdminConfig;

/// See the module.
pub(super) struct Gate {
    hosts: Vec<(String, Option<u16>)>,
    origins: Vec<String>,
}

impl Gate {
    /// The gate of a configuration that listens there.
    pub(super) fn new(config: &AdminConfig, address: Option<SocketAddr>) -> Self {
        let mut hosts: Vec<_> =
            config.hosts.iter().filter_map(|host| host_and_port(host.as_bytes())).collect();
        if config.hosts.is_empty() {
            let own = address.map(|address| match address {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            });
            let usual = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
            hosts.extend(own.into_iter().chain(usual).map(|host| (host, None)));
        }
        Self { hosts, origins: config.origins.clone() }
    }

    /// Whether a request may go on, or the status and the reason why not.
    pub(super) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), (StatusCode, &'static str)> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err((StatusCode::BAD_REQUEST, "there must be one `Host`"));
        };
        let named = uri.authority().map(|authority| authority.as_str().as_bytes());
        for name in [Some(host.as_bytes()), named].into_iter().flatten() {
            if !self.knows(name) {
                let message = "this `Host` is not in `admin.hosts`";
                return Err((StatusCode::MISDIRECTED_REQUEST, message));
            }
        }
        let known = |origin: &http::HeaderValue| {
            self.origins
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        };
        if headers.get_all(ORIGIN).iter().all(known) {
            Ok(())
        } else {
            Err((StatusCode::FORBIDDEN, "this `Origin` is not in `admin.origins`"))
        }
    }

    fn knows(&self, name: &[u8]) -> bool {
        host_and_port(name).is_some_and(|(host, port)| {
            let fits = |(known, its): &(String, Option<u16>)| {
                *known == host && its.is_none_or(|its| port == Some(its))
            };
            self.hosts.iter().any(fits)
        })
    }
}

/// In lower case, with the brackets of IPv6 and without a dot at the end.
fn host_and_port(text: &[u8]) -> Option<(String, Option<u16>)> {
    let authority = Authority::try_from(text).ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    // `a:` and `a:x` have no port that could be compared.
    let rest = authority.as_str().len() - authority.host().len();
    (authority.port_u16().is_some() || rest == 0).then(|| (host, authority.port_u16()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn gate(json: &str) -> Gate {
        let config: AdminConfig = serde_json::from_str(json).unwrap();
        Gate::new(&config, Some("10.1.2.3:8081".parse().unwrap()))
    }

    fn status(gate: &Gate, uri: &str, headers: &[(&'static str, &'static str)]) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let checked = gate.check(&uri.parse().unwrap(), &headers);
        checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn hosts() {
        let usual = gate("{}");
        let own = gate(r#"{"hosts": ["Admin.test", "b.test:8443"]}"#);
        for (gate, host, want) in [
            (&usual, "10.1.2.3:8081", 200),
            (&usual, "localhost", 200),
            (&usual, "LOCALHOST.:1", 200),
            (&usual, "127.0.0.1:99", 200),
            (&usual, "[::1]:8081", 200),
            (&usual, "evil.test", 421),
            (&usual, "localhost.evil.test", 421),
            (&usual, "localhost:x", 421),
            (&usual, "localhost:", 421),
            (&usual, "u@localhost", 421),
            (&usual, "", 421),
            (&own, "admin.test:1", 200),
            (&own, "b.test:8443", 200),
            (&own, "b.test", 421),
            (&own, "localhost", 421),
        ] {
            assert_eq!(status(gate, "/", &[("host", host)]), want, "{host}");
        }
        assert_eq!(status(&usual, "/", &[]), 400);
        assert_eq!(status(&usual, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
        assert_eq!(status(&usual, "http://evil.test/", &[("host", "localhost")]), 421);
        assert_eq!(status(&usual, "http://localhost/", &[("host", "localhost")]), 200);
    }

    #[test]
    fn origins() {
        let gate = gate(r#"{"origins": ["https://admin.test"]}"#);
        for (origin, want) in [
            ("https://admin.test", 200),
            ("https://ADMIN.test", 200),
            ("http://admin.test", 403),
            ("null", 403),
            ("", 403),
        ] {
            let headers = [("host", "localhost"), ("origin", origin)];
            assert_eq!(status(&gate, "/", &headers), want, "{origin}");
        }
        let both = [("host", "localhost"), ("origin", "https://admin.test"), ("origin", "null")];
        assert_eq!(status(&gate, "/", &both), 403);
    }
}
