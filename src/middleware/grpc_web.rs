//! `grpcWeb`: lets browsers talk to gRPC servers.
//!
//! Requests of gRPC-Web become requests of gRPC and their answers are turned back; preflights for
//! them are answered here. Everything else goes through untouched.

mod body;

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE,
    ORIGIN, TE, TRAILER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use self::body::{Decoded, Encoded};
use super::{Build, BuildContext};
use crate::exchange::error::empty;
use crate::exchange::forwarded::tokens;
use crate::exchange::{Body, Context, Middleware, Next, Request, Response, ResponseFuture, ready};
use crate::values::{BuildError, Profile};

/// Options of `grpcWeb`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcWebConfig {
    /// Origins whose scripts may read answers; `*` is any of them. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
}

impl Build for GrpcWebConfig {
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        for (index, origin) in self.allow_origins.iter().enumerate() {
            if !is_origin(origin) {
                let message = format!(
                    "{origin:?} is no origin that a browser names: write `*` or, without a path, \
                     one such as `https://app.example.com`"
                );
                cx.warnings.push(BuildError::at(format!("allowOrigins[{index}]"), message));
            }
        }
        let any = self.allow_origins.iter().any(|origin| origin == "*");
        Ok(Arc::new(GrpcWeb {
            origins: self.allow_origins.iter().map(|origin| origin.as_bytes().into()).collect(),
            any,
            bare_wildcard: any && cx.profile == Profile::Hardened,
        }))
    }
}

/// Whether a browser may send this as `Origin`, which it writes in lower case and without a slash
/// at the end (RFC 6454, section 6.2). `null` is that of files and sandboxes.
fn is_origin(text: &str) -> bool {
    if matches!(text, "*" | "null") {
        return true;
    }
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let begins = scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let is_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let is_host =
        |c: char| c.is_ascii_graphic() && !c.is_ascii_uppercase() && !"/?#@*\\".contains(c);
    begins && scheme.chars().all(is_scheme) && !host.is_empty() && host.chars().all(is_host)
}

const GRPC: &[u8] = b"application/grpc";
const GRPC_WEB: &[u8] = b"application/grpc-web";
const GRPC_WEB_TEXT: &[u8] = b"application/grpc-web-text";

const MAX_AGE: &str = "600";

struct GrpcWeb {
    origins: Box<[Box<[u8]>]>,
    any: bool,
    /// `*` is said as such, which gives nobody the user's cookies.
    bare_wildcard: bool,
}

impl Middleware for GrpcWeb {
    fn handle<'a>(
        &'a self,
        cx: &'a Context,
        request: Request,
        next: Next<'a>,
    ) -> ResponseFuture<'a> {
        let preflight = is_preflight(&request);
        if preflight && said(request.headers(), &ACCESS_CONTROL_REQUEST_METHOD).is_some() {
            return ready(self.preflight(request.headers()));
        }
        let calls = *request.method() == Method::POST
            && said(request.headers(), &CONTENT_TYPE)
                .is_some_and(|kind| strip(kind, GRPC_WEB).is_some());
        if !preflight && !calls {
            return next.run(cx, request);
        }
        Box::pin(async move {
            let origin = request.headers().get(ORIGIN).cloned();
            let (request, text) = to_grpc(request);
            let mut response = from_grpc(next.run(cx, request).await, text);
            self.allow(origin.as_ref(), response.headers_mut());
            expose(response.headers_mut());
            response
        })
    }
}

/// Whether a request asks, before the real one, if that may be sent.
fn is_preflight(request: &Request) -> bool {
    const MARKER: &[u8] = b"x-grpc-web";
    *request.method() == Method::OPTIONS
        && said(request.headers(), &ACCESS_CONTROL_REQUEST_HEADERS).is_some_and(|names| {
            names.windows(MARKER.len()).any(|part| part.eq_ignore_ascii_case(MARKER))
        })
}

/// The first line of a header that is not empty.
fn said<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty())
}

/// What stands behind `start`, in any case.
fn strip<'a>(value: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = value.split_at_checked(start.len())?;
    found.eq_ignore_ascii_case(start).then_some(rest)
}

fn joined(start: &[u8], rest: &[u8]) -> Option<HeaderValue> {
    let mut value = BytesMut::with_capacity(start.len() + rest.len());
    value.extend_from_slice(start);
    value.extend_from_slice(rest);
    HeaderValue::from_maybe_shared(value.freeze()).ok()
}

/// Makes a request one of gRPC; says whether it was in base64.
fn to_grpc(mut request: Request) -> (Request, bool) {
    let headers = request.headers_mut();
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let text = strip(kind, GRPC_WEB_TEXT);
    let is_text = text.is_some();
    let kind = text.or_else(|| strip(kind, GRPC_WEB)).and_then(|rest| joined(GRPC, rest));
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.remove(CONTENT_LENGTH);
    // gRPC servers look for it, and browsers cannot send it.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if is_text {
        let body = std::mem::take(request.body_mut());
        if !http_body::Body::is_end_stream(&body) {
            *request.body_mut() = Body::boxed(Decoded::new(body));
        }
    }
    (request, is_text)
}

/// Makes an answer of gRPC one of gRPC-Web. Other answers, such as our own errors, stay as they are.
fn from_grpc(mut response: Response, text: bool) -> Response {
    let headers = response.headers_mut();
    let kind = said(headers, &CONTENT_TYPE).and_then(|kind| strip(kind, GRPC));
    // A server may speak gRPC-Web itself: that is another type.
    let kind = kind.filter(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')));
    let kind = kind.and_then(|rest| joined(if text { GRPC_WEB_TEXT } else { GRPC_WEB }, rest));
    headers.remove(TRAILER);
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, kind);
        headers.remove(CONTENT_LENGTH);
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = Body::boxed(Encoded::new(body, text));
    }
    response
}

/// Lets scripts read all headers, and what gRPC says in trailers.
fn expose(headers: &mut HeaderMap) {
    let mut names = String::new();
    for name in headers.keys() {
        names.push_str(name.as_str());
        names.push_str(", ");
    }
    names.push_str("grpc-status, grpc-message");
    if let Ok(names) = HeaderValue::try_from(names) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

impl GrpcWeb {
    fn allows(&self, origin: &HeaderValue) -> bool {
        !origin.is_empty()
            && (self.any || self.origins.iter().any(|listed| **listed == *origin.as_bytes()))
    }

    /// Says on an answer who may read it. What the server itself says counts more.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let varies = |headers: &HeaderMap| {
            let mut names = headers.get_all(VARY).iter().flat_map(tokens);
            names.any(|name| name == "*" || name.eq_ignore_ascii_case(ORIGIN.as_str()))
        };
        if !varies(headers) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        if self.bare_wildcard {
            headers.entry(ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
            return;
        }
        headers.entry(ACCESS_CONTROL_ALLOW_ORIGIN).or_insert_with(|| origin.clone());
        headers.entry(ACCESS_CONTROL_ALLOW_CREDENTIALS).or_insert(HeaderValue::from_static("true"));
    }

    fn preflight(&self, asked: &HeaderMap) -> Response {
        let mut response = empty(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        for name in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            headers.append(VARY, HeaderValue::from_static(name));
        }
        let origin = asked.get(ORIGIN).filter(|origin| self.allows(origin));
        let method = said(asked, &ACCESS_CONTROL_REQUEST_METHOD).and_then(allowed_method);
        let (Some(origin), Some(method)) = (origin, method) else { return response };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
        if let Some(names) = said(asked, &ACCESS_CONTROL_REQUEST_HEADERS).and_then(header_list) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        if self.bare_wildcard {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The methods that Traefik allows, in capitals.
fn allowed_method(asked: &[u8]) -> Option<HeaderValue> {
    let known = ["POST", "GET", "HEAD", "OPTIONS"];
    let name = known.into_iter().find(|name| asked.eq_ignore_ascii_case(name.as_bytes()))?;
    Some(HeaderValue::from_static(name))
}

/// All header names of a list, in Go's spelling: `X-Grpc-Web`. What no name has is left out.
fn header_list(asked: &[u8]) -> Option<HeaderValue> {
    let mut names = String::with_capacity(asked.len() + 8);
    for item in asked.split(|byte| matches!(byte, b',' | b' ')) {
        let mut first = true;
        let kept = item.iter().filter(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        for (at, &byte) in kept.enumerate() {
            if at == 0 && !names.is_empty() {
                names.push_str(", ");
            }
            let byte = if first { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            names.push(char::from(byte));
            first = matches!(byte, b'-' | b'_');
        }
    }
    if names.is_empty() { None } else { HeaderValue::try_from(names).ok() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::middleware::testing::{Bench, Setting, build, get, with};

    fn config(origins: &[&str]) -> GrpcWebConfig {
        GrpcWebConfig { allow_origins: origins.iter().map(|&origin| origin.to_owned()).collect() }
    }

    fn call(kind: &str, body: &'static [u8]) -> Request {
        let mut request = with(get("/pkg.Service/Method"), "content-type", kind);
        *request.method_mut() = Method::POST;
        *request.body_mut() = Body::from_static(body);
        with(request, "content-length", &body.len().to_string())
    }

    /// A gRPC server that sends back what it got.
    fn echo(config: &GrpcWebConfig, profile: Profile) -> Bench {
        let setting = Setting { profile, ..Setting::default() };
        Bench::waiting(vec![setting.build(config).unwrap().0], |_, request| {
            Box::pin(async move {
                let kind = request.headers()["content-type"].clone();
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = [Ok(Frame::data(bytes)), Ok(Frame::trailers(trailers))];
                let mut response =
                    Response::new(Body::boxed(StreamBody::new(stream::iter(frames))));
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
                response
            })
        })
    }

    async fn bytes(response: Response) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";
    const STATUS: &[u8] = b"\x80\0\0\0\x10grpc-status: 0\r\n";

    /// RP 7.7.
    #[tokio::test]
    async fn calls_are_translated_both_ways() {
        let bench = echo(&config(&[]), Profile::Safe);
        for (asked, server, answered) in [
            ("application/grpc-web", "application/grpc", "application/grpc-web"),
            ("application/grpc-web+proto", "application/grpc+proto", "application/grpc-web+proto"),
            ("Application/gRPC-Web+json", "application/grpc+json", "application/grpc-web+json"),
        ] {
            let response = bench.send(call(asked, MESSAGE)).await;
            let seen = bench.seen().headers;
            assert_eq!(seen["content-type"], server);
            assert_eq!(seen["te"], "trailers");
            assert!(!seen.contains_key("content-length"));
            assert_eq!(response.headers()["content-type"], answered);
            assert_eq!(response.headers()["vary"], "Origin");
            assert!(!response.headers().contains_key("trailer"));
            assert_eq!(
                response.headers()["access-control-expose-headers"],
                "content-type, vary, grpc-status, grpc-message"
            );
            assert_eq!(bytes(response).await, [MESSAGE, STATUS].concat());
        }
    }

    #[tokio::test]
    async fn text_is_base64_both_ways() {
        let bench = echo(&config(&[]), Profile::Safe);
        let response = bench.send(call("application/grpc-web-text+proto", b"AAAAAAJoaQ==")).await;
        assert_eq!(bench.seen().headers["content-type"], "application/grpc+proto");
        assert_eq!(response.headers()["content-type"], "application/grpc-web-text+proto");
        assert_eq!(bytes(response).await, "AAAAAAJoaQ==gAAAABBncnBjLXN0YXR1czogMA0K");
    }

    #[tokio::test]
    async fn anything_else_is_untouched() {
        let bench = echo(&config(&["*"]), Profile::Safe);
        let mut options = call("text/plain", b"");
        *options.method_mut() = Method::OPTIONS;
        let mut put = call("application/grpc-web", MESSAGE);
        *put.method_mut() = Method::PUT;
        for request in [
            call("application/grpc", MESSAGE),
            call("text/plain", MESSAGE),
            put,
            with(options, "access-control-request-headers", "x-other"),
        ] {
            let asked = request.headers().clone();
            let response = bench.send(with(request, "origin", "https://a.test")).await;
            let seen = bench.seen().headers;
            assert!(asked.iter().all(|(name, value)| seen[name] == value));
            assert!(!response.headers().contains_key("access-control-allow-origin"));
            assert!(!response.headers().contains_key("vary"));
        }
    }

    #[tokio::test]
    async fn answers_that_are_no_grpc_stay_what_they_are() {
        let middleware = build(&config(&["https://a.test"])).unwrap();
        let bench = Bench::answering(vec![middleware], |_, _| {
            crate::exchange::error::bare(StatusCode::BAD_GATEWAY)
        });
        let request = with(call("application/grpc-web-text", b""), "origin", "https://a.test");
        let response = bench.send(request).await;
        assert_eq!(response.headers()["access-control-allow-origin"], "https://a.test");
        assert_eq!(bytes(response).await, "Bad Gateway");
        let bench = Bench::answering(vec![build(&config(&[])).unwrap()], |_, _| {
            let mut response = Response::new(Body::from_static(MESSAGE));
            let kind = HeaderValue::from_static("application/grpc-web+proto");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        });
        let response = bench.send(call("application/grpc-web", MESSAGE)).await;
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        assert_eq!(bytes(response).await, MESSAGE);
    }

    /// An error without a message: its status is in the headers.
    #[tokio::test]
    async fn a_status_in_the_headers_stays_there() {
        let bench = Bench::answering(vec![build(&config(&[])).unwrap()], |_, _| {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            response
        });
        let response = bench.send(call("application/grpc-web", MESSAGE)).await;
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(bytes(response).await, &b"\x80\0\0\0\0"[..]);
    }

    #[tokio::test]
    async fn who_may_read_answers() {
        for (origins, profile, origin, allowed, credentials) in [
            (
                &["https://a.test"][..],
                Profile::Safe,
                "https://a.test",
                Some("https://a.test"),
                true,
            ),
            (&["https://a.test"], Profile::Safe, "https://b.test", None, false),
            (&["https://a.test"], Profile::Safe, "https://A.test", None, false),
            (&["x", "*"], Profile::Safe, "https://b.test", Some("https://b.test"), true),
            (&["*"], Profile::Hardened, "https://b.test", Some("*"), false),
            (&[], Profile::Safe, "https://a.test", None, false),
            (&["*"], Profile::Safe, "", None, false),
        ] {
            let bench = echo(&config(origins), profile);
            let real = with(call("application/grpc-web", MESSAGE), "origin", origin);
            let before = preflight(origin, "POST");
            for request in [real, before] {
                let response = bench.send(request).await;
                let headers = response.headers();
                let told = headers.get("access-control-allow-origin");
                assert_eq!(told.map(|told| told.to_str().unwrap()), allowed, "{origin}");
                let told = headers.get("access-control-allow-credentials");
                assert_eq!(told.map(HeaderValue::as_bytes), credentials.then_some(&b"true"[..]));
            }
            assert_eq!(bench.calls(), 1);
        }
    }

    fn preflight(origin: &str, method: &str) -> Request {
        let mut request = with(get("/pkg.Service/Method"), "origin", origin);
        *request.method_mut() = Method::OPTIONS;
        let request = with(request, "access-control-request-method", method);
        with(request, "access-control-request-headers", "content-type,X-GRPC-WEB, x_a?b")
    }

    /// RP 7.7: credentials allowed, max-age 600.
    #[tokio::test]
    async fn preflights_are_answered_here() {
        let bench = echo(&config(&["*"]), Profile::Safe);
        for (method, allowed) in
            [("POST", Some("POST")), ("post", Some("POST")), ("GET", Some("GET")), ("PUT", None)]
        {
            let response = bench.send(preflight("https://a.test", method)).await;
            assert_eq!(response.status(), 200);
            let headers = response.headers();
            assert!(headers.get_all("vary").iter().eq([
                "Origin",
                "Access-Control-Request-Method",
                "Access-Control-Request-Headers",
            ]));
            let of = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!(of("access-control-allow-methods"), allowed);
            assert_eq!(
                of("access-control-allow-headers"),
                allowed.map(|_| "Content-Type, X-Grpc-Web, X_Ab")
            );
            assert_eq!(of("access-control-max-age"), allowed.map(|_| "600"));
        }
        assert_eq!(bench.calls(), 0);
    }

    /// As in Traefik: without the question it is no preflight, and goes to the server.
    #[tokio::test]
    async fn a_preflight_that_asks_for_no_method_is_a_call() {
        let bench = echo(&config(&["*"]), Profile::Safe);
        let mut request = call("application/grpc-web", b"");
        *request.method_mut() = Method::OPTIONS;
        let request = with(request, "access-control-request-headers", "x-grpc-web");
        let response = bench.send(request).await;
        assert_eq!(bench.calls(), 1);
        assert_eq!(response.headers()["content-type"], "application/grpc-web");
    }
}
