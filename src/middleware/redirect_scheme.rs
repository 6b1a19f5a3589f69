//! `redirectScheme`: sends the client to the same URL with another scheme or port.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Build, BuildContext, redirect};
use crate::exchange::error::bare;
use crate::exchange::forwarded::X_FORWARDED_PROTO;
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, Scheme, ready};
use crate::values::{BuildError, is_default};

/// Options of `redirectScheme`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectSchemeConfig {
    /// The scheme of the new URL. Required.
    pub scheme: String,
    /// The port of the new URL. Default: none, whatever port the request came to.
    #[serde(skip_serializing_if = "is_default")]
    pub port: String,
    /// 301 and 308 instead of 302 and 307. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub permanent: bool,
}

impl Build for RedirectSchemeConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        if self.scheme.is_empty() {
            return Err(BuildError::at("scheme", "you must provide a target scheme"));
        }
        if !self.scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            return Err(BuildError::at("scheme", "`scheme` is no scheme of a URL"));
        }
        if !matches!(&*self.scheme, "http" | "https" | "ws" | "wss" | "h2c") {
            let message = format!(
                "`scheme` is `{}`, which no client is likely to know: write `https` or `http`",
                self.scheme
            );
            cx.warnings.push(BuildError::at("scheme", message));
        }
        // An entry point at a port that the system chooses has the redirect to it say 0.
        let least = u16::from(cx.name.provider() != "internal");
        let is_port = self.port.is_empty()
            || self.port.bytes().all(|byte| byte.is_ascii_digit())
                && self.port.parse::<u16>().is_ok_and(|port| port >= least);
        if !is_port {
            let message = format!("`port` is {:?}, which is no port: write 1 to 65535", self.port);
            return Err(BuildError::at("port", message));
        }
        let default_port =
            matches!((&*self.scheme, &*self.port), (_, "") | ("http", "80") | ("https", "443"));
        let port = if default_port { String::new() } else { format!(":{}", self.port) };
        Ok(Arc::new(RedirectScheme {
            scheme: self.scheme.clone(),
            port,
            permanent: self.permanent,
        }))
    }
}

struct RedirectScheme {
    scheme: String,
    /// With its colon; empty for the scheme's own.
    port: String,
    permanent: bool,
}

impl Middleware for RedirectScheme {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let host = redirect::host(&request);
        let (name, port) = split_port(host);
        if name.is_empty() {
            // Without a host there is no URL to go to (HTTP/1.0).
            return ready(bare(StatusCode::BAD_REQUEST));
        }
        let scheme = client_scheme(cx, &request);
        let port = match (scheme, port) {
            ("http", ":80") | ("https", ":443") => "",
            (_, port) => port,
        };
        if scheme == self.scheme && port == self.port {
            return next.run(cx, request);
        }
        let rest = redirect::path_and_query(&request);
        let url = [&*self.scheme, "://", name, &*self.port, rest].concat();
        ready(redirect::redirect_to(&url, request.method(), self.permanent))
    }
}

/// The scheme that the client used, also behind a proxy that says so.
///
/// The entry point has deleted the header of whoever is not trusted. For an upgrade it says `ws`,
/// though what was spoken so far is HTTP.
fn client_scheme(cx: &Context, request: &Request) -> &'static str {
    let forwarded = request.headers().get(X_FORWARDED_PROTO).map(http::HeaderValue::as_bytes);
    match forwarded {
        Some(b"http" | b"ws") => "http",
        Some(b"https" | b"wss") => "https",
        _ if cx.connection.scheme() == Scheme::Https => "https",
        _ => "http",
    }
}

/// Name and port, with its colon, of a host.
fn split_port(host: &str) -> (&str, &str) {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    match host.split_at(end) {
        (name, ":") => (name, ""),
        split => split,
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, LOCATION};
    use http::{HeaderValue, Method};

    use super::*;
    use crate::middleware::testing::{Bench, body, build, context, get, over_tls};

    fn bench(scheme: &str, port: &str, permanent: bool) -> Bench {
        let config = RedirectSchemeConfig { scheme: scheme.into(), port: port.into(), permanent };
        Bench::new(vec![build(&config).unwrap()])
    }

    async fn location(
        bench: &Bench,
        host: &'static str,
        proto: Option<&'static str>,
        target: &str,
    ) -> Option<String> {
        let mut request = get(target);
        request.headers_mut().insert(HOST, HeaderValue::from_static(host));
        if let Some(proto) = proto {
            request.headers_mut().insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        }
        let response = bench.send(request).await;
        response.headers().get(LOCATION).map(|value| value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn own_host_other_scheme() {
        for (to, port, host, proto, target, want) in [
            ("https", "", "a.test", None, "/", Some("https://a.test/")),
            ("https", "", "a.test:80", None, "/x?y=%0d", Some("https://a.test/x?y=%0d")),
            ("https", "443", "a.test:8080", None, "/", Some("https://a.test/")),
            ("https", "8443", "a.test", None, "/", Some("https://a.test:8443/")),
            ("https", "", "[::1]:80", None, "/", Some("https://[::1]/")),
            ("https", "", "a.test", Some("https"), "/", None),
            ("https", "", "a.test", Some("wss"), "/", None),
            ("https", "", "a.test", Some("ws"), "/", Some("https://a.test/")),
            ("https", "", "a.test", Some("gopher"), "/", Some("https://a.test/")),
            ("https", "", "a.test:8443", Some("https"), "/", Some("https://a.test/")),
            ("http", "80", "a.test", None, "/", None),
            ("https", "", "a.test", None, "//evil.test/", Some("https://a.test//evil.test/")),
            ("https", "", "a.test", None, "/@evil.test", Some("https://a.test/@evil.test")),
        ] {
            let got = location(&bench(to, port, false), host, proto, target).await;
            assert_eq!(got.as_deref(), want, "{to} {port} {host} {proto:?} {target}");
        }
    }

    #[tokio::test]
    async fn tls_is_https_already() {
        let bench = bench("https", "", true).with_context(over_tls(context("192.0.2.1")));
        assert_eq!(location(&bench, "a.test:443", None, "/").await, None);
        assert_eq!(bench.calls(), 1);
    }

    #[tokio::test]
    async fn the_answer_is_bare() {
        let mut request = get("/");
        *request.method_mut() = Method::HEAD;
        let response = bench("https", "", true).send(request).await;
        assert_eq!(response.status(), 308);
        assert!(!response.headers().contains_key("content-type"));
        assert_eq!(body(response).await, "Permanent Redirect");
    }

    #[test]
    fn a_scheme_is_required() {
        assert_eq!(build(&RedirectSchemeConfig::default()).err().unwrap().option, "scheme");
        let config = RedirectSchemeConfig {
            scheme: "https".into(),
            port: "1\r\n".into(),
            ..RedirectSchemeConfig::default()
        };
        assert_eq!(build(&config).err().unwrap().option, "port");
    }
}
