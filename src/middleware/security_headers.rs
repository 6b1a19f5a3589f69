//! The security part of `headers`: which hosts are served, and headers that tell browsers to be
//! careful. What is configured replaces what the backend says.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, HOST, PUBLIC_KEY_PINS,
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    X_XSS_PROTECTION,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{HeadersConfig, name_of, value_of};
use crate::exchange::Context;
use crate::values::BuildError;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The compiled security options.
pub(super) struct SecurityHeaders {
    allowed_hosts: Vec<String>,
    hosts_proxy_headers: Vec<HeaderName>,
    ssl_proxy_headers: Vec<(HeaderName, HeaderValue)>,
    always: Vec<(HeaderName, HeaderValue)>,
    over_tls: Vec<(HeaderName, HeaderValue)>,
    with_nonce: Vec<(HeaderName, Vec<String>)>,
}

impl SecurityHeaders {
    /// Compiles the options; `None` when none is set.
    pub(super) fn build(config: &HeadersConfig) -> Result<Option<Self>, BuildError> {
        if !is_set(config) {
            return Ok(None);
        }
        let mut made = Self {
            allowed_hosts: Vec::new(),
            hosts_proxy_headers: Vec::new(),
            ssl_proxy_headers: Vec::new(),
            always: Vec::new(),
            over_tls: Vec::new(),
            with_nonce: Vec::new(),
        };
        if !config.is_development {
            made.allowed_hosts.clone_from(&config.allowed_hosts);
            made.add_tls_only(config)?;
        }
        for (index, name) in config.hosts_proxy_headers.iter().enumerate() {
            made.hosts_proxy_headers.push(name_of(&format!("hostsProxyHeaders[{index}]"), name)?);
        }
        for (name, value) in &config.ssl_proxy_headers {
            let at = format!("sslProxyHeaders.{name}");
            made.ssl_proxy_headers.push((name_of(&at, name)?, value_of(&at, value)?));
        }
        made.add_always(config)?;
        for (option, name, policy) in [
            ("contentSecurityPolicy", CONTENT_SECURITY_POLICY, &config.content_security_policy),
            (
                "contentSecurityPolicyReportOnly",
                CONTENT_SECURITY_POLICY_REPORT_ONLY,
                &config.content_security_policy_report_only,
            ),
        ] {
            let value = value_of(option, policy)?;
            if policy.contains("$NONCE") {
                made.with_nonce.push((name, policy.split("$NONCE").map(str::to_owned).collect()));
            } else if !policy.is_empty() {
                made.always.push((name, value));
            }
        }
        Ok(Some(made))
    }

    fn add_tls_only(&mut self, config: &HeadersConfig) -> Result<(), BuildError> {
        if let Some(seconds @ 1..) = config.sts_seconds {
            let mut sts = format!("max-age={seconds}");
            if config.sts_include_subdomains {
                sts.push_str("; includeSubDomains");
            }
            if config.sts_preload {
                sts.push_str("; preload");
            }
            let header = (STRICT_TRANSPORT_SECURITY, value_of("stsSeconds", &sts)?);
            if config.force_sts_header { &mut self.always } else { &mut self.over_tls }
                .push(header);
        }
        if !config.public_key.is_empty() {
            self.over_tls.push((PUBLIC_KEY_PINS, value_of("publicKey", &config.public_key)?));
        }
        Ok(())
    }

    fn add_always(&mut self, config: &HeadersConfig) -> Result<(), BuildError> {
        let either = |custom: &str, on: bool, standard: &str| {
            let standard = if on { standard } else { "" };
            if custom.is_empty() { standard.to_owned() } else { custom.to_owned() }
        };
        let nosniff = if config.content_type_nosniff { "nosniff" } else { "" };
        for (option, name, value) in [
            (
                "customFrameOptionsValue",
                X_FRAME_OPTIONS,
                either(&config.custom_frame_options_value, config.frame_deny, "DENY"),
            ),
            ("contentTypeNosniff", X_CONTENT_TYPE_OPTIONS, nosniff.to_owned()),
            (
                "customBrowserXSSValue",
                X_XSS_PROTECTION,
                either(
                    &config.custom_browser_xss_value,
                    config.browser_xss_filter,
                    "1; mode=block",
                ),
            ),
            ("referrerPolicy", REFERRER_POLICY, config.referrer_policy.clone()),
            ("permissionsPolicy", PERMISSIONS_POLICY, config.permissions_policy.clone()),
        ] {
            if !value.is_empty() {
                self.always.push((name, value_of(option, &value)?));
            }
        }
        Ok(())
    }

    /// Whether the host of a request is served.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        if self.allowed_hosts.is_empty() {
            return true;
        }
        let host = self
            .hosts_proxy_headers
            .iter()
            .filter_map(|name| headers.get(name))
            .find(|value| !value.is_empty())
            .or_else(|| headers.get(HOST))
            .map_or(&b""[..], HeaderValue::as_bytes);
        self.allowed_hosts.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(host))
    }

    /// Whether the client used TLS, here or in front of a proxy that says so.
    pub(super) fn is_tls(&self, cx: &Context, headers: &HeaderMap) -> bool {
        cx.connection.tls.is_some()
            || self.ssl_proxy_headers.iter().any(|(name, value)| headers.get(name) == Some(value))
    }

    /// Writes the headers of a response.
    pub(super) fn apply(&self, tls: bool, headers: &mut HeaderMap) {
        for (name, value) in &self.always {
            headers.insert(name, value.clone());
        }
        if tls {
            for (name, value) in &self.over_tls {
                headers.insert(name, value.clone());
            }
        }
        if self.with_nonce.is_empty() {
            return;
        }
        let nonce = nonce();
        for (name, parts) in &self.with_nonce {
            let policy = parts.join(&nonce);
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(policy)) {
                headers.insert(name, value);
            }
        }
    }
}

fn is_set(config: &HeadersConfig) -> bool {
    let on = |flag: Option<bool>| flag == Some(true);
    let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    !config.allowed_hosts.is_empty()
        || !config.hosts_proxy_headers.is_empty()
        || !config.ssl_proxy_headers.is_empty()
        || on(config.ssl_redirect)
        || on(config.ssl_temporary_redirect)
        || on(config.ssl_force_host)
        || text(&config.ssl_host)
        || text(&config.feature_policy)
        || config.sts_seconds.is_some_and(|seconds| seconds != 0)
        || config.sts_include_subdomains
        || config.sts_preload
        || config.force_sts_header
        || config.frame_deny
        || config.content_type_nosniff
        || config.browser_xss_filter
        || config.is_development
        || [
            &config.custom_frame_options_value,
            &config.custom_browser_xss_value,
            &config.content_security_policy,
            &config.content_security_policy_report_only,
            &config.public_key,
            &config.referrer_policy,
            &config.permissions_policy,
        ]
        .iter()
        .any(|text| !text.is_empty())
}

/// `'nonce-…'` with 128 random bits.
fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness a nonce that nobody can know is one that no script has.
    if rand::fill(&mut bytes).is_err() {
        return "'none'".to_owned();
    }
    format!("'nonce-{}'", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Body, Response};
    use crate::middleware::testing::{Bench, body, build, context, get, over_tls, with};

    fn bench(config: &HeadersConfig) -> Bench {
        Bench::new(vec![build(config).unwrap()])
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn transport_security_is_for_tls() {
        let plain = HeadersConfig { sts_seconds: Some(300), ..HeadersConfig::default() };
        let full =
            HeadersConfig { sts_include_subdomains: true, sts_preload: true, ..plain.clone() };
        let forced = HeadersConfig { force_sts_header: true, ..plain.clone() };
        let development = HeadersConfig { is_development: true, ..forced.clone() };
        let zero = HeadersConfig { sts_seconds: Some(0), ..forced.clone() };
        let proxied = HeadersConfig {
            ssl_proxy_headers: [("X-Forwarded-Proto".to_owned(), "https".to_owned())].into(),
            ..plain.clone()
        };
        for (config, tls, want) in [
            (&plain, false, None),
            (&plain, true, Some("max-age=300")),
            (&full, true, Some("max-age=300; includeSubDomains; preload")),
            (&forced, false, Some("max-age=300")),
            (&development, true, None),
            (&zero, true, None),
            (&proxied, false, Some("max-age=300")),
        ] {
            let cx = context("192.0.2.1");
            let bench = bench(config).with_context(if tls { over_tls(cx) } else { cx });
            let response = bench.send(with(get("/"), "x-forwarded-proto", "https")).await;
            assert_eq!(header(&response, "strict-transport-security"), want, "{config:?}");
        }
    }

    #[tokio::test]
    async fn fixed_headers_replace_the_backends() {
        let config = HeadersConfig {
            frame_deny: true,
            content_type_nosniff: true,
            browser_xss_filter: true,
            content_security_policy: "default-src 'self'".into(),
            content_security_policy_report_only: "report-uri /r".into(),
            referrer_policy: "no-referrer".into(),
            permissions_policy: "camera=()".into(),
            public_key: "pin-sha256=\"x\"".into(),
            ..HeadersConfig::default()
        };
        let bench = Bench::answering(vec![build(&config).unwrap()], |_, _| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(X_FRAME_OPTIONS, HeaderValue::from_static("ALLOW"));
            response
        });
        let response = bench.send(get("/")).await;
        for (name, want) in [
            ("x-frame-options", Some("DENY")),
            ("x-content-type-options", Some("nosniff")),
            ("x-xss-protection", Some("1; mode=block")),
            ("content-security-policy", Some("default-src 'self'")),
            ("content-security-policy-report-only", Some("report-uri /r")),
            ("referrer-policy", Some("no-referrer")),
            ("permissions-policy", Some("camera=()")),
            ("public-key-pins", None),
        ] {
            assert_eq!(header(&response, name), want, "{name}");
        }
        let tls = bench.with_context(over_tls(context("192.0.2.1")));
        let response = tls.send(get("/")).await;
        assert_eq!(header(&response, "public-key-pins"), Some("pin-sha256=\"x\""));
    }

    #[tokio::test]
    async fn custom_values_win() {
        let config = HeadersConfig {
            frame_deny: true,
            custom_frame_options_value: "SAMEORIGIN".into(),
            browser_xss_filter: true,
            custom_browser_xss_value: "0".into(),
            ..HeadersConfig::default()
        };
        let response = bench(&config).send(get("/")).await;
        assert_eq!(header(&response, "x-frame-options"), Some("SAMEORIGIN"));
        assert_eq!(header(&response, "x-xss-protection"), Some("0"));
    }

    #[tokio::test]
    async fn each_response_has_its_own_nonce() {
        let config = HeadersConfig {
            content_security_policy: "script-src $NONCE; style-src $NONCE".into(),
            ..HeadersConfig::default()
        };
        let bench = bench(&config);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            let response = bench.send(get("/")).await;
            let policy = header(&response, "content-security-policy").unwrap().to_owned();
            let parts: Vec<_> = policy.split('\'').collect();
            assert_eq!((parts[0], parts[2], parts[4]), ("script-src ", "; style-src ", ""));
            assert_eq!(parts[1], parts[3]);
            assert_eq!(parts[1].strip_prefix("nonce-").unwrap().len(), 24);
            assert!(seen.insert(policy));
        }
    }

    #[tokio::test]
    async fn other_hosts_are_refused() {
        let config = HeadersConfig {
            allowed_hosts: vec!["A.test".into()],
            hosts_proxy_headers: vec!["X-Host".into(), "X-Other".into()],
            ..HeadersConfig::default()
        };
        let open = HeadersConfig { is_development: true, ..config.clone() };
        assert_eq!(bench(&config).status(get("/")).await, 200);
        assert_eq!(bench(&config).status(with(get("/"), "x-other", "a.test")).await, 200);
        assert_eq!(bench(&open).status(with(get("/"), "x-host", "b.test")).await, 200);
        let bench = bench(&config);
        let response = bench.send(with(get("/"), "x-host", "b.test")).await;
        assert_eq!(response.status(), 500);
        assert_eq!(header(&response, "content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(body(response).await, "Bad Host\n");
        assert_eq!(bench.calls(), 0);
    }
}
