//! `exchange`: a request through a middleware, and what a server answers back through it, without network. The first
//! byte says through which; then comes the request, and behind a line `---` the response.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use doorward::exchange::canonical::{TargetRules, canonical_host, canonicalize_host};
use doorward::exchange::{Body, Handler as _, Request, Response};
use doorward::router::RoutingTable;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;

use super::compiled;
use super::pieces::{header_map, wait};
use super::shelf::{Origin, context};

/// Each line is a middleware by its name; a router of the same name has it.
const MIDDLEWARES: &str = r"
    allowed: {ipAllowList: {sourceRange: [10.0.0.0/8], ipStrategy: {depth: 1}}}
    basic: {basicAuth: {users: ['u:{SHA}UWuXg/ylF+7L0dBk2i0WUxCxl1k=']}}
    beyond: {ipAllowList: {sourceRange: [10.0.0.0/8], ipStrategy: {excludedIPs: [192.0.2.0/24]}}}
    buffered: {buffering: {maxRequestBodyBytes: 2000, maxResponseBodyBytes: 2000}}
    characters: {encodedCharacters: {allowEncodedSlash: false, allowEncodedPercent: false}}
    counted: {inFlightReq: {amount: 9, sourceCriterion: {requestHeaderName: X-Who}}}
    crossed: {headers: {accessControlAllowOriginListRegex: ['^https://[a-z.]*\.test$'], accessControlAllowMethods: [GET, PUT], accessControlAllowHeaders: [X-A], accessControlAllowCredentials: true, accessControlMaxAge: 5, addVaryHeader: true}}
    digest: {digestAuth: {users: ['u:traefik:a2688e031edb4be6a3797f3882655c05']}}
    grpc: {grpcWeb: {allowOrigins: ['https://a.test']}}
    limited: {rateLimit: {average: 1000000, burst: 1000000, sourceCriterion: {ipStrategy: {depth: 2, ipv6Subnet: 64}}}}
    moved: {redirectRegex: {regex: '^http://([^/]+)/(.*)$', replacement: 'https://${1}/x/${2}'}}
    pages: {errors: {status: ['400-599'], service: origin@internal, query: '/{status}?{url}'}}
    prefixed: {addPrefix: {prefix: /a}}
    replaced: {replacePathRegex: {regex: '^/([a-z]*)/(.*)', replacement: '/$2/$1'}}
    secured: {headers: {allowedHosts: [a.test], sslRedirect: true, stsSeconds: 9, customRequestHeaders: {X-A: ''}, sslProxyHeaders: {X-Forwarded-Proto: https}, hostsProxyHeaders: [X-Forwarded-Host]}}
    small: {compress: {minResponseBodyBytes: 8, encodings: [gzip]}}
    smaller: {compress: {minResponseBodyBytes: 8, includedContentTypes: [text/html, application/json]}}
    stripped: {stripPrefix: {prefixes: [/a, /a/b]}}
    strippedBy: {stripPrefixRegex: {regex: ['^/[a-z]+/[0-9]+']}}
    tls: {redirectScheme: {scheme: https, port: '8443'}}
    typed: {contentType: {autoDetect: true}}
";

static WORLD: LazyLock<(Arc<RoutingTable>, Arc<Origin>)> = LazyLock::new(|| {
    let origin = Arc::new(Origin::default());
    let mut text = format!("http:\n  middlewares:{MIDDLEWARES}  routers:\n");
    for name in names() {
        let _ = writeln!(
            text,
            "    {name}: {{rule: Host(`{name}.test`), service: held, middlewares: [{name}]}}"
        );
    }
    text += "  services:\n    held: {weighted: {services: [{name: origin@internal}], sticky: {cookie: {name: pod}}}}\n";
    (compiled::table(&text, origin.clone()), origin)
});

fn names() -> Vec<&'static str> {
    MIDDLEWARES.lines().filter_map(|line| line.trim().split_once(':')).map(|it| it.0).collect()
}

/// Sends one request.
pub fn run(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    let names = names();
    let Some(name) = names.get(usize::from(kind) % names.len()) else { return };
    let middle = text.windows(5).position(|line| line == b"\n---\n").unwrap_or(text.len());
    let Some(request) = request(text.get(..middle).unwrap_or_default()) else { return };
    let response = response(text.get(middle + 5..).unwrap_or_default());
    let (table, origin) = &*WORLD;
    let router = table.entry_points.iter().flat_map(|routes| routes.http.iter());
    let wanted = format!("{name}@file");
    let Some(router) = router.into_iter().find(|router| *router.name == *wanted) else {
        panic!("no router {name}")
    };
    assert!(!router.broken, "{name} is broken");
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let cx = context(&canonical_host(host));
    let sent = (request.method().clone(), request.headers().clone());
    let answered = Answered::of(&response);
    origin.answer(response);
    let (got, body) = wait(async {
        let (head, body) = router.chain.handle(&cx, request).await.into_parts();
        (head, body.collect().await.map(http_body_util::Collected::to_bytes))
    });
    let seen = origin.seen();
    for parts in &seen {
        assert!(parts.uri.path().starts_with(['/', '*']), "{} for the server", parts.uri);
    }
    let body = body.unwrap_or_default();
    if sent.0 != Method::HEAD {
        let length = got.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        assert!(length.is_none_or(|length: usize| length == body.len()), "{:?}", got.headers);
    }
    check(name, &sent.1, &seen, &got, &body, &answered);
}

/// What the server says.
struct Answered {
    status: StatusCode,
    encoded: bool,
    body: Bytes,
}

impl Answered {
    fn of(response: &Response) -> Self {
        let body = response.extensions().get::<Bytes>().cloned().unwrap_or_default();
        let encoded = response.headers().contains_key(CONTENT_ENCODING);
        Self { status: response.status(), encoded, body }
    }
}

fn check(
    name: &str,
    sent: &HeaderMap,
    seen: &[Parts],
    got: &http::response::Parts,
    body: &Bytes,
    answered: &Answered,
) {
    let passed = !seen.is_empty();
    match name {
        "basic" => {
            let value = sent.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
            let pair = value.and_then(|value| STANDARD.decode(value.get(6..)?.trim_ascii()).ok());
            assert_eq!(passed, pair.as_deref() == Some(b"u:p") && is_basic(value), "{sent:?}");
        }
        "digest" => assert!(!passed, "a nonce that nobody has given: {sent:?}"),
        "allowed" => {
            let lines = sent.get_all("x-forwarded-for").iter();
            let lines: Vec<&[u8]> = lines.map(http::HeaderValue::as_bytes).collect();
            let joined = lines.join(&b","[..]);
            let last = joined.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            let last = str::from_utf8(last.trim_ascii()).unwrap_or_default();
            assert!(!passed || last.contains("10.") || last.contains('a'), "{sent:?}");
        }
        "small" if passed && !answered.encoded && got.headers.contains_key(CONTENT_ENCODING) => {
            let mut plain = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&body[..]);
            let read = std::io::Read::read_to_end(&mut reader, &mut plain);
            assert!(body.is_empty() || read.is_ok() && plain == answered.body, "{body:?}");
        }
        // 400 is for a host that no URL can have.
        "moved" | "tls" => {
            let known = got.status.is_redirection() || got.status == StatusCode::BAD_REQUEST;
            assert!(passed || known, "{:?}", got.status);
        }
        "prefixed" => assert!(seen.iter().all(|parts| parts.uri.path().starts_with("/a"))),
        "typed" | "characters" | "counted" if passed => {
            assert_eq!(got.status, answered.status);
            assert_eq!(*body, answered.body);
            assert!(got.headers.contains_key(SET_COOKIE), "no cookie");
        }
        _ => {}
    }
}

fn is_basic(value: Option<&[u8]>) -> bool {
    value.and_then(|it| it.get(..6)).is_some_and(|it| it.eq_ignore_ascii_case(b"basic "))
}

/// A request as an entry point lets it pass.
fn request(text: &[u8]) -> Option<Request> {
    let (head, body) = split(text);
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut words = lines.next()?.splitn(2, |&byte| byte == b' ');
    let method = Method::from_bytes(words.next()?).ok().filter(|it| *it != Method::CONNECT)?;
    let mut uri = Uri::try_from(words.next()?).ok()?;
    let mut headers = header_map(lines.take(40));
    for name in [CONTENT_LENGTH, http::header::TRANSFER_ENCODING, http::header::CONNECTION] {
        headers.remove(name);
    }
    headers.entry(HOST).or_insert(http::HeaderValue::from_static("a.test"));
    TargetRules { sanitize_path: true, encode_query_semicolons: true }
        .apply(&method, &mut uri)
        .ok()?;
    canonicalize_host(&mut headers, &uri, Version::HTTP_11).ok()?;
    let mut request = http::Request::new(Body::from(Bytes::copy_from_slice(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some(request)
}

fn response(text: &[u8]) -> Response {
    let (head, body) = split(text);
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line).ok());
    let status = status.filter(|status| status.as_u16() >= 200).unwrap_or_default();
    let mut headers = header_map(lines.take(40));
    headers.remove(CONTENT_LENGTH);
    let bodiless = matches!(status.as_u16(), 204 | 205 | 304);
    let body = if bodiless { Bytes::new() } else { Bytes::copy_from_slice(body) };
    let mut response = http::Response::new(Body::from(body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(body);
    response
}

/// Head and body.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match text.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 2..).unwrap_or_default()),
        None => (text, &[]),
    }
}
