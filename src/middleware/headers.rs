//! `headers`: sets and deletes headers both ways, answers for CORS, and tells browsers to be
//! careful.
//!
//! Every name and value is checked when it is built, so nothing configured can end a header.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::cors::Cors;
use super::security_headers::SecurityHeaders;
use super::{Build, BuildContext};
use crate::exchange::error::text;
use crate::exchange::forwarded::{ForwardedForRemoved, X_FORWARDED_FOR};
use crate::exchange::{Context, Middleware, Next, Request, ResponseFuture, ready};
use crate::values::{BuildError, is_default};

/// Options of `headers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeadersConfig {
    /// Headers set on requests. Empty: deleted. `Host` sets the host; `X-Forwarded-For: ""` also
    /// keeps the peer's address from being added.
    #[serde(skip_serializing_if = "is_default")]
    pub custom_request_headers: BTreeMap<String, String>,
    /// Headers set on responses. Empty: deleted.
    #[serde(skip_serializing_if = "is_default")]
    pub custom_response_headers: BTreeMap<String, String>,

    /// Answer `Access-Control-Allow-Credentials: true`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub access_control_allow_credentials: bool,
    /// Headers that a preflight is told it may send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_headers: Vec<String>,
    /// Methods that a preflight is told it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_methods: Vec<String>,
    /// Origins that may read responses; `*` is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_origin_list: Vec<String>,
    /// Patterns of such origins, unanchored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_allow_origin_list_regex: Vec<String>,
    /// Headers of responses that scripts may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_control_expose_headers: Vec<String>,
    /// Seconds that a preflight's answer may be kept. Default: not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_control_max_age: Option<i64>,
    /// Add `Origin` to `Vary`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub add_vary_header: bool,

    /// Hosts, with port if any, that are served; others get 500. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// Headers that may hold the host instead, the first that is not empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts_proxy_headers: Vec<String>,
    /// Header values that mean that the client used TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub ssl_proxy_headers: BTreeMap<String, String>,
    /// `max-age` of `Strict-Transport-Security`, sent over TLS. Default: not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sts_seconds: Option<i64>,
    /// Add `includeSubDomains`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub sts_include_subdomains: bool,
    /// Add `preload`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub sts_preload: bool,
    /// Send it without TLS too. Default: false.
    #[serde(rename = "forceSTSHeader", skip_serializing_if = "is_default")]
    pub force_sts_header: bool,
    /// `X-Frame-Options: DENY`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub frame_deny: bool,
    /// `X-Frame-Options` with this value.
    #[serde(skip_serializing_if = "is_default")]
    pub custom_frame_options_value: String,
    /// `X-Content-Type-Options: nosniff`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub content_type_nosniff: bool,
    /// `X-XSS-Protection: 1; mode=block`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub browser_xss_filter: bool,
    /// `X-XSS-Protection` with this value.
    #[serde(rename = "customBrowserXSSValue", skip_serializing_if = "is_default")]
    pub custom_browser_xss_value: String,
    /// `Content-Security-Policy`; `$NONCE` becomes `'nonce-…'`, new for each response.
    #[serde(skip_serializing_if = "is_default")]
    pub content_security_policy: String,
    /// `Content-Security-Policy-Report-Only`, likewise.
    #[serde(skip_serializing_if = "is_default")]
    pub content_security_policy_report_only: String,
    /// `Public-Key-Pins`, sent over TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub public_key: String,
    /// `Referrer-Policy`.
    #[serde(skip_serializing_if = "is_default")]
    pub referrer_policy: String,
    /// `Permissions-Policy`.
    #[serde(skip_serializing_if = "is_default")]
    pub permissions_policy: String,
    /// No check of hosts, no `Strict-Transport-Security`, no `Public-Key-Pins`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub is_development: bool,

    /// Deprecated, without effect: use `redirectScheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_redirect: Option<bool>,
    /// Deprecated, without effect: use `redirectScheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_temporary_redirect: Option<bool>,
    /// Deprecated, without effect: use `redirectRegex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_host: Option<String>,
    /// Deprecated, without effect: use `redirectRegex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_force_host: Option<bool>,
    /// Deprecated, without effect: use `permissionsPolicy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_policy: Option<String>,
}

impl Build for HeadersConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        for (option, set, instead) in [
            ("sslRedirect", self.ssl_redirect.is_some(), "redirectScheme"),
            ("sslTemporaryRedirect", self.ssl_temporary_redirect.is_some(), "redirectScheme"),
            ("sslHost", self.ssl_host.is_some(), "redirectRegex"),
            ("sslForceHost", self.ssl_force_host.is_some(), "redirectRegex"),
            ("featurePolicy", self.feature_policy.is_some(), "permissionsPolicy"),
        ] {
            if set {
                let sentence =
                    format!("`{option}` is deprecated and has no effect, use `{instead}`");
                cx.warnings.push(BuildError::at(option, sentence));
            }
        }
        if let Some(seconds @ ..0) = self.sts_seconds {
            let sentence =
                format!("`stsSeconds` is {seconds}: `Strict-Transport-Security` is not sent");
            cx.warnings.push(BuildError::at("stsSeconds", sentence));
        }
        // -1 is the usual way to say that nothing is to be kept.
        if let Some(seconds @ ..-1) = self.access_control_max_age {
            let sentence = format!(
                "`accessControlMaxAge` is {seconds}: no browser knows such a time; write -1 to \
                 have no answer kept"
            );
            cx.warnings.push(BuildError::at("accessControlMaxAge", sentence));
        }
        for (option, flag, custom, value) in [
            (
                "frameDeny",
                self.frame_deny,
                "customFrameOptionsValue",
                &self.custom_frame_options_value,
            ),
            (
                "browserXssFilter",
                self.browser_xss_filter,
                "customBrowserXSSValue",
                &self.custom_browser_xss_value,
            ),
        ] {
            if flag && !value.is_empty() {
                let sentence = format!("`{option}` has no effect beside `{custom}`, which counts");
                cx.warnings.push(BuildError::at(option, sentence));
            }
        }
        if self.access_control_allow_credentials
            && let Some(at) =
                self.access_control_allow_origin_list.iter().position(|one| one == "*")
        {
            let sentence = "`*` with `accessControlAllowCredentials`: browsers refuse that, so \
                            every origin is named as it comes, and any page may read answers as \
                            the user; list the origins that may";
            let place = format!("accessControlAllowOriginList[{at}]");
            cx.warnings.push(BuildError::at(place, sentence));
        }
        let security = SecurityHeaders::build(self)?;
        let cors = Cors::build(self)?;
        let on_request = changes("customRequestHeaders", &self.custom_request_headers)?;
        let on_response = changes("customResponseHeaders", &self.custom_response_headers)?;
        if security.is_none() && cors.is_none() && on_request.is_empty() && on_response.is_empty() {
            return Err(BuildError::new("headers configuration not valid"));
        }
        // The spelling decides, as in Traefik: only this one keeps the proxy from adding it.
        let removes_forwarded_for =
            self.custom_request_headers.get("X-Forwarded-For").is_some_and(String::is_empty);
        Ok(Arc::new(Headers { on_request, on_response, removes_forwarded_for, cors, security }))
    }
}

/// A header name out of the configuration; `at` is the option that holds it.
pub(super) fn name_of(at: &str, name: &str) -> Result<HeaderName, BuildError> {
    name.parse().map_err(|_| BuildError::at(at, format!("`{at}`: {name:?} is no name of a header")))
}

/// A header value out of the configuration; `at` is the option that holds it.
pub(super) fn value_of(at: &str, value: &str) -> Result<HeaderValue, BuildError> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        BuildError::at(at, format!("`{at}`: a header cannot contain control characters"))
    })
}

/// A header and its new value; `None` deletes it.
type Change = (HeaderName, Option<HeaderValue>);

fn changes(option: &str, map: &BTreeMap<String, String>) -> Result<Vec<Change>, BuildError> {
    map.iter()
        .map(|(name, value)| {
            let at = format!("{option}.{name}");
            let value = if value.is_empty() { None } else { Some(value_of(&at, value)?) };
            Ok((name_of(&at, name)?, value))
        })
        .collect()
}

fn apply(changes: &[Change], headers: &mut HeaderMap) {
    for (name, value) in changes {
        match value {
            Some(value) => {
                headers.insert(name, value.clone());
            }
            // Go keeps the host elsewhere, so deleting the header has no effect there.
            None if *name == HOST => {}
            None => {
                headers.remove(name);
            }
        }
    }
}

struct Headers {
    on_request: Vec<Change>,
    on_response: Vec<Change>,
    removes_forwarded_for: bool,
    cors: Option<Cors>,
    security: Option<SecurityHeaders>,
}

impl Middleware for Headers {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        mut request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        if let Some(answer) = self.cors.as_ref().and_then(|cors| cors.preflight(&request)) {
            return ready(answer);
        }
        apply(&self.on_request, request.headers_mut());
        if self.removes_forwarded_for {
            request.headers_mut().remove(X_FORWARDED_FOR);
            request.extensions_mut().insert(ForwardedForRemoved);
        }
        if self.on_response.is_empty() && self.cors.is_none() && self.security.is_none() {
            return next.run(cx, request);
        }
        let origin = self.cors.as_ref().and_then(|_| request.headers().get(ORIGIN).cloned());
        let served = self.security.as_ref().is_none_or(|it| it.allows(request.headers()));
        if !served {
            let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, "Bad Host\n");
            self.finish(origin.as_ref(), response.headers_mut());
            return ready(response);
        }
        let tls = self.security.as_ref().is_some_and(|it| it.is_tls(cx, request.headers()));
        Box::pin(async move {
            let mut response = next.run(cx, request).await;
            if let Some(security) = &self.security {
                security.apply(tls, response.headers_mut());
            }
            self.finish(origin.as_ref(), response.headers_mut());
            response
        })
    }
}

impl Headers {
    fn finish(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        apply(&self.on_response, headers);
        if let Some(cors) = &self.cors {
            cors.apply(origin, headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Body, Response};
    use crate::middleware::testing::{Bench, Setting, build, get, with};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[tokio::test]
    async fn request_headers_are_set_and_deleted() {
        let config = HeadersConfig {
            custom_request_headers: map(&[("X-Set", "new"), ("X-Gone", ""), ("Host", "b.test")]),
            ..HeadersConfig::default()
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let request = with(with(get("/"), "x-set", "old"), "x-set", "older");
        bench.send(with(request, "x-gone", "1")).await;
        let seen = bench.seen();
        assert_eq!(seen.headers.get_all("x-set").iter().collect::<Vec<_>>(), ["new"]);
        assert!(!seen.headers.contains_key("x-gone"));
        assert_eq!(seen.headers["host"], "b.test");
    }

    #[tokio::test]
    async fn only_the_exact_name_keeps_the_peer_out_of_forwarded_for() {
        for (name, removed) in [("X-Forwarded-For", true), ("x-forwarded-for", false)] {
            let config = HeadersConfig {
                custom_request_headers: map(&[(name, "")]),
                ..HeadersConfig::default()
            };
            let bench = Bench::new(vec![build(&config).unwrap()]);
            bench.send(with(get("/"), "x-forwarded-for", "6.6.6.6")).await;
            let seen = bench.seen();
            assert!(!seen.headers.contains_key(X_FORWARDED_FOR));
            assert_eq!(seen.extensions.get::<ForwardedForRemoved>().is_some(), removed);
        }
    }

    #[tokio::test]
    async fn custom_response_headers_come_after_security_and_before_cors() {
        let config = HeadersConfig {
            frame_deny: true,
            access_control_allow_origin_list: vec!["*".into()],
            custom_response_headers: map(&[
                ("X-Frame-Options", "SAMEORIGIN"),
                ("Access-Control-Allow-Origin", "custom"),
                ("Server", ""),
            ]),
            ..HeadersConfig::default()
        };
        let bench = Bench::answering(vec![build(&config).unwrap()], |_, _| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("server", HeaderValue::from_static("x"));
            response
        });
        let response = bench.send(get("/")).await;
        assert_eq!(response.headers()["x-frame-options"], "SAMEORIGIN");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert!(!response.headers().contains_key("server"));
    }

    #[test]
    fn nothing_configured_is_an_error() {
        for config in [
            HeadersConfig::default(),
            HeadersConfig { sts_seconds: Some(0), ..HeadersConfig::default() },
        ] {
            let error = build(&config).err().unwrap();
            assert_eq!(error, BuildError::new("headers configuration not valid"));
        }
    }

    #[test]
    fn what_could_end_a_header_is_refused() {
        let request = HeadersConfig {
            custom_request_headers: map(&[("X-A", "a\r\nX-B: c")]),
            ..HeadersConfig::default()
        };
        let name = HeadersConfig {
            custom_response_headers: map(&[("X A", "a")]),
            ..HeadersConfig::default()
        };
        let policy = HeadersConfig {
            content_security_policy: "a\n$NONCE".into(),
            ..HeadersConfig::default()
        };
        let frame =
            HeadersConfig { custom_frame_options_value: "a\0".into(), ..HeadersConfig::default() };
        for (config, option) in [
            (request, "customRequestHeaders.X-A"),
            (name, "customResponseHeaders.X A"),
            (policy, "contentSecurityPolicy"),
            (frame, "customFrameOptionsValue"),
        ] {
            assert_eq!(build(&config).err().unwrap().option, option);
        }
    }

    #[test]
    fn deprecated_options_are_warned_of() {
        let config = HeadersConfig {
            ssl_redirect: Some(true),
            feature_policy: Some("x".into()),
            ..HeadersConfig::default()
        };
        let (_, warnings) = Setting::default().build(&config).unwrap();
        let options: Vec<_> = warnings.iter().map(|warning| &*warning.option).collect();
        assert_eq!(options, ["sslRedirect", "featurePolicy"]);
    }

    #[test]
    fn keys_are_traefiks() {
        let config: HeadersConfig = serde_json::from_str(
            r#"{"forceSTSHeader": true, "customBrowserXSSValue": "0", "stsSeconds": 1}"#,
        )
        .unwrap();
        assert!(config.force_sts_header && config.custom_browser_xss_value == "0");
    }
}
