//! The CORS part of `headers`: answers preflights, and says on other responses who may read them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

use super::headers::{HeadersConfig, value_of};
use crate::exchange::error::empty;
use crate::exchange::forwarded::{join_lines, tokens};
use crate::exchange::{Request, Response};
use crate::values::{BuildError, go_regex};

/// What a preflight may be answered with.
enum Allowed {
    Nothing,
    List(HeaderValue),
    /// `*` with credentials, which browsers do not accept as a wildcard: what was asked for.
    Echo,
}

/// The compiled CORS options.
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
    patterns: Vec<Regex>,
    methods: Allowed,
    headers: Allowed,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
    vary: bool,
}

impl Cors {
    /// Compiles the options; `None` when none is set.
    pub(super) fn build(config: &HeadersConfig) -> Result<Option<Self>, BuildError> {
        let set = config.access_control_allow_credentials
            || config.add_vary_header
            || config.access_control_max_age.is_some()
            || [
                &config.access_control_allow_headers,
                &config.access_control_allow_methods,
                &config.access_control_allow_origin_list,
                &config.access_control_allow_origin_list_regex,
                &config.access_control_expose_headers,
            ]
            .iter()
            .any(|list| !list.is_empty());
        if !set {
            return Ok(None);
        }
        let credentials = config.access_control_allow_credentials;
        let mut origins = Vec::new();
        for (index, origin) in config.access_control_allow_origin_list.iter().enumerate() {
            origins.push(value_of(&format!("accessControlAllowOriginList[{index}]"), origin)?);
        }
        let mut patterns = Vec::new();
        for (index, pattern) in config.access_control_allow_origin_list_regex.iter().enumerate() {
            patterns.push(go_regex::compile(pattern).map_err(|error| {
                BuildError::at(format!("accessControlAllowOriginListRegex[{index}]"), error.message)
            })?);
        }
        let expose = &config.access_control_expose_headers;
        let hides = credentials && expose.iter().any(|name| name == "*");
        Ok(Some(Self {
            origins,
            patterns,
            methods: allowed(
                "accessControlAllowMethods",
                &config.access_control_allow_methods,
                credentials,
            )?,
            headers: allowed(
                "accessControlAllowHeaders",
                &config.access_control_allow_headers,
                credentials,
            )?,
            expose: if expose.is_empty() || hides {
                None
            } else {
                Some(value_of("accessControlExposeHeaders", &expose.join(","))?)
            },
            credentials,
            max_age: config.access_control_max_age.map(HeaderValue::from),
            vary: config.add_vary_header,
        }))
    }

    /// The answer to a preflight; `None` for any other request.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        if *request.method() != Method::OPTIONS {
            return None;
        }
        let asked = request.headers();
        let origin = asked.get(ORIGIN).filter(|value| !value.is_empty())?;
        asked.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|value| !value.is_empty())?;
        let mut response = empty(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        for (allowed, name, question) in [
            (&self.headers, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS),
            (&self.methods, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_REQUEST_METHOD),
        ] {
            if let Some(value) = allowed.answer(asked, &question) {
                headers.insert(name, value);
            }
        }
        if let Some(allowed) = self.allow_origin(Some(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if let Some(age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        Some(response)
    }

    /// Writes the headers of a response to a request from `origin`.
    pub(super) fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if let Some(allowed) = self.allow_origin(origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        if self.vary {
            vary_by_origin(headers);
        }
    }

    /// The value of `Access-Control-Allow-Origin`. A missing `Origin` is an empty one.
    fn allow_origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let text = origin.map_or(&b""[..], HeaderValue::as_bytes);
        for listed in &self.origins {
            if listed == "*" {
                // Browsers refuse `*` together with credentials.
                return if self.credentials { origin.cloned() } else { Some(listed.clone()) };
            }
            if listed.as_bytes() == text {
                return Some(listed.clone());
            }
        }
        let origin = origin?;
        let text = str::from_utf8(text).ok()?;
        self.patterns.iter().any(|pattern| pattern.is_match(text)).then(|| origin.clone())
    }
}

impl Allowed {
    fn answer(&self, asked: &HeaderMap, question: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::List(list) => Some(list.clone()),
            Self::Echo => asked.get(question).cloned(),
        }
    }
}

fn allowed(option: &str, list: &[String], credentials: bool) -> Result<Allowed, BuildError> {
    if list.is_empty() {
        return Ok(Allowed::Nothing);
    }
    if credentials && list.iter().any(|item| item == "*") {
        return Ok(Allowed::Echo);
    }
    value_of(option, &list.join(",")).map(Allowed::List)
}

fn vary_by_origin(headers: &mut HeaderMap) {
    let told = headers
        .get_all(VARY)
        .iter()
        .flat_map(tokens)
        .any(|name| name.eq_ignore_ascii_case("origin"));
    if !told {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        join_lines(headers, &VARY, b",");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;
    use crate::middleware::testing::{Bench, build, get, with};

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn preflight(origin: &str) -> Request {
        let mut request = with(get("/"), "origin", origin);
        *request.method_mut() = Method::OPTIONS;
        let request = with(request, "access-control-request-method", "PUT");
        with(request, "access-control-request-headers", "X-One, X-Two")
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn a_preflight_is_answered_here_whoever_asks() {
        let config = HeadersConfig {
            access_control_allow_origin_list: list(&["https://one.test"]),
            access_control_allow_methods: list(&["GET", "PUT"]),
            access_control_allow_headers: list(&["X-One", "X-Two"]),
            access_control_max_age: Some(600),
            add_vary_header: true,
            ..HeadersConfig::default()
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        for (origin, allowed) in
            [("https://one.test", Some("https://one.test")), ("https://two.test", None)]
        {
            let response = bench.send(preflight(origin)).await;
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "content-length"), Some("0"));
            assert_eq!(header(&response, "access-control-allow-origin"), allowed);
            assert_eq!(header(&response, "access-control-allow-methods"), Some("GET,PUT"));
            assert_eq!(header(&response, "access-control-allow-headers"), Some("X-One,X-Two"));
            assert_eq!(header(&response, "access-control-max-age"), Some("600"));
            assert_eq!(header(&response, "vary"), None);
        }
        assert_eq!(bench.calls(), 0);
        let mut plain = get("/");
        *plain.method_mut() = Method::OPTIONS;
        bench.send(plain).await;
        assert_eq!(bench.calls(), 1);
    }

    #[tokio::test]
    async fn a_wildcard_with_credentials_echoes() {
        let config = HeadersConfig {
            access_control_allow_credentials: true,
            access_control_allow_origin_list: list(&["*"]),
            access_control_allow_methods: list(&["*"]),
            access_control_allow_headers: list(&["*"]),
            access_control_expose_headers: list(&["X-A", "*"]),
            ..HeadersConfig::default()
        };
        let bench = Bench::new(vec![build(&config).unwrap()]);
        let response = bench.send(preflight("https://one.test")).await;
        assert_eq!(header(&response, "access-control-allow-origin"), Some("https://one.test"));
        assert_eq!(header(&response, "access-control-allow-methods"), Some("PUT"));
        assert_eq!(header(&response, "access-control-allow-headers"), Some("X-One, X-Two"));
        assert_eq!(header(&response, "access-control-allow-credentials"), Some("true"));
        let response = bench.send(with(get("/"), "origin", "https://one.test")).await;
        assert_eq!(header(&response, "access-control-allow-origin"), Some("https://one.test"));
        assert_eq!(header(&response, "access-control-expose-headers"), None);
    }

    #[tokio::test]
    async fn responses_say_who_may_read_them() {
        let config = HeadersConfig {
            access_control_allow_origin_list: list(&["https://one.test"]),
            access_control_allow_origin_list_regex: list(&[r"^https://.*\.two\.test$"]),
            access_control_expose_headers: list(&["X-A", "X-B"]),
            add_vary_header: true,
            ..HeadersConfig::default()
        };
        let bench = Bench::answering(vec![build(&config).unwrap()], |call, _| {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("backend"));
            if call > 1 {
                headers.insert(VARY, HeaderValue::from_static("Accept"));
            }
            response
        });
        for (origin, allowed, vary) in [
            ("https://one.test", "https://one.test", "Origin"),
            ("https://x.two.test", "https://x.two.test", "Accept,Origin"),
            ("https://three.test", "backend", "Accept,Origin"),
        ] {
            let response = bench.send(with(get("/"), "origin", origin)).await;
            assert_eq!(header(&response, "access-control-allow-origin"), Some(allowed));
            assert_eq!(header(&response, "vary"), Some(vary));
            assert_eq!(header(&response, "access-control-expose-headers"), Some("X-A,X-B"));
            assert_eq!(header(&response, "access-control-allow-credentials"), None);
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        let config = HeadersConfig {
            access_control_allow_origin_list_regex: list(&["ok", "("]),
            ..HeadersConfig::default()
        };
        assert_eq!(build(&config).err().unwrap().option, "accessControlAllowOriginListRegex[1]");
    }
}
