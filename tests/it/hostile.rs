//! Hostile requests against each middleware of the shelf: whatever their headers, paths and bodies say, every request
//! gets one well-formed answer, none is a panic, guards let nothing through, and what a middleware states about a
//! request is the only thing that the backend hears of it.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Answer, Ask, Client, Origin, Proxy, Reply};

/// Each lets nothing through, whatever is said to it. The forwarded headers that it would believe come from nobody
/// that is trusted.
const GUARDS: [(&str, &str); 9] = [
    (
        "basic",
        "{basicAuth: {users: ['u:$2y$04$9uQ5SWSGzFZ0tSqn0KYEPOfJ9.yIKfNAX2E1iQVYo3TEsGWfmTkEe']}}",
    ),
    ("digest", "{digestAuth: {users: ['u:r:0123456789abcdef0123456789abcdef'], realm: r}}"),
    (
        "forward",
        "{forwardAuth: {address: AUTH, trustForwardHeader: true, authResponseHeadersRegex: '^X-'}}",
    ),
    ("forwardbody", "{forwardAuth: {address: AUTH, forwardBody: true, maxBodySize: 100}}"),
    (
        "cached",
        "{forwardAuth: {address: AUTH, cache: {ttl: 1h, ignoreHeaders: [X-Forwarded-For, X-Forwarded-Method, X-Forwarded-Uri]}}}",
    ),
    ("addresses", "{ipAllowList: {sourceRange: [192.0.2.0/24]}}"),
    ("depth", "{ipAllowList: {sourceRange: [192.0.2.0/24], ipStrategy: {depth: 1}}}"),
    ("old", "{ipWhiteList: {sourceRange: ['2001:db8::/32']}}"),
    ("slots", "{inFlightReq: {amount: 0, sourceCriterion: {requestHeaderName: X-Forwarded-For}}}"),
];

/// Each lets requests through, changed or not.
const OTHERS: [(&str, &str); 20] = [
    (
        "ban",
        "{ban: {threshold: 1000, conditions: [{status: ['599'], path: ^/a}, {header: {name: Cookie, regex: '^(never){9}$'}}]}}",
    ),
    ("prefix", "{addPrefix: {prefix: /base}}"),
    (
        "buffer",
        "{buffering: {maxRequestBodyBytes: 64, memRequestBodyBytes: 8, retryExpression: 'Attempts() < 2 && IsNetworkError()'}}",
    ),
    ("breaker", "{circuitBreaker: {expression: 'ResponseCodeRatio(900, 1000, 0, 600) > 0.5'}}"),
    ("compress", "{compress: {minResponseBodyBytes: 1}}"),
    ("type", "{contentType: {}}"),
    ("escapes", "{encodedCharacters: {}}"),
    ("errors", "{errors: {status: ['400-599'], service: app, query: '/{status}?{url}'}}"),
    ("grpcweb", "{grpcWeb: {allowOrigins: ['https://a.test']}}"),
    (
        "cors",
        "{headers: {accessControlAllowOriginListRegex: ['^https://[a-z]+[.]test$'], accessControlAllowMethods: [GET], accessControlAllowHeaders: ['*'], addVaryHeader: true, accessControlMaxAge: 5, customRequestHeaders: {X-Tenant: t1, X-Gone: ''}, contentTypeNosniff: true, allowedHosts: [cors.test]}}",
    ),
    ("certificate", "{passTLSClientCert: {pem: true, info: {subject: {commonName: true}}}}"),
    (
        "limit",
        "{rateLimit: {average: 100000, burst: 100000, sourceCriterion: {requestHeaderName: Cookie}}}",
    ),
    (
        "limitdepth",
        "{rateLimit: {average: 100000, burst: 100000, sourceCriterion: {ipStrategy: {depth: 1}}}}",
    ),
    (
        "moved",
        "{redirectRegex: {regex: '^http://([^/]+)/(.*)[.]old$', replacement: 'https://${1}/${2}'}}",
    ),
    ("replace", "{replacePath: {path: /fixed}}"),
    ("rewrite", "{replacePathRegex: {regex: '^/(.*)/x(.*)', replacement: '/$2/$1'}}"),
    ("retry", "{retry: {attempts: 2, status: ['502-504'], maxRequestBodyBytes: 16}}"),
    ("scheme", "{redirectScheme: {scheme: https}}"),
    ("strip", "{stripPrefix: {prefixes: [/a, /web]}}"),
    ("stripregex", "{stripPrefixRegex: {regex: ['^/[^/]+']}}"),
];

/// What is said to be somebody, or about a body or a path.
const NAMES: [&str; 35] = [
    "Authorization",
    "Cookie",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X_Forwarded_Proto",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Server",
    "X-Original-Host",
    "X-Forwarded-Prefix",
    "X-Real-Ip",
    "X_Real_Ip",
    "Forwarded",
    "Accept-Encoding",
    "Accept",
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
    "Content-Type",
    "Content-Encoding",
    "Range",
    "If-None-Match",
    "TE",
    "Trailer",
    "X-Tenant",
    "X-Gone",
    "x_tenant",
    "X-Forwarded-Tls-Client-Cert",
    "X-Forwarded-Tls-Client-Cert-Info",
    "X-Grpc-Web",
    "X-Replaced-Path",
    "X-Auth-User",
    "Referer",
];

/// Pieces of the grammars behind those headers, whole and broken.
const PIECES: [&str; 56] = [
    "Basic ",
    "dTpw",
    "OnA=",
    "====",
    "Digest ",
    "username=\"u\"",
    "realm=\"r\"",
    "nonce=\"\"",
    "nonce=",
    "uri=\"/\"",
    "qop=auth",
    "nc=00000001",
    "nc=ffffffff",
    "cnonce=\"\\\"\"",
    "response=\"",
    "algorithm=MD5-sess",
    "opaque=",
    "Bearer ",
    ",",
    ", ",
    ";",
    ";q=",
    "0",
    "1.0",
    "0.001",
    "-1",
    "gzip",
    "br",
    "zstd",
    "identity",
    "*",
    "\"",
    "\\",
    "=",
    "10.0.0.1",
    "192.0.2.1",
    "::1",
    "[2001:db8::1]:80",
    "for=\"_x\"",
    "https://a.test",
    "https",
    "http",
    "wss",
    "443",
    "evil.test",
    "evil.test:8443",
    "a.test@evil.test",
    "//evil.test/",
    "evil.test\\",
    "%0d%0aX-Evil: 1",
    "null",
    "bytes=0-",
    "application/grpc-web-text",
    "text/html; charset=\"",
    "W/\"x\"",
    "\u{e9}\u{20ac}",
];

const TARGETS: [&str; 26] = [
    "/", "a", "web", "base", "x", "..", ".", "%2e%2e", "%2E", "..;", "%2F", "%5C", "%00", "%3B",
    "%25", "%3f", "%23", "%C3%A9", "%zz", "%", "?", "&a=b", "=", ";", "x.old", "~",
];

/// What hosts are made of, and what would end or replace one.
const HOSTS: [&str; 29] = [
    "a",
    "a.test",
    "A.Test",
    "evil.test",
    "xn--a",
    ".",
    "..",
    "-",
    "_",
    ",",
    ":",
    ":80",
    ":443",
    ":8080",
    ":99999",
    "[",
    "]",
    "[::1]",
    "::1",
    "127.0.0.1",
    "@",
    "%2e",
    "%",
    "/",
    "\\",
    "?",
    "#",
    " ",
    "\u{e9}",
];

fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => select(&PIECES[..]).prop_map(str::to_owned), 1 => "[ -~]{0,12}"];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn target() -> impl Strategy<Value = String> {
    vec((select(&TARGETS[..]), select(&["/", "", "//"][..])), 0..10).prop_map(|parts| {
        parts.iter().fold("/".to_owned(), |mut target, (part, slash)| {
            let _ = write!(target, "{part}{slash}");
            target
        })
    })
}

#[derive(Debug, Clone)]
struct Hostile {
    method: &'static str,
    target: String,
    /// Behind the host, for whom it makes a difference.
    port: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Option<(Vec<u8>, bool)>,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let method = select(
        &["GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "LOCK", "x-y"][..],
    );
    let body = proptest::option::of((vec(any::<u8>(), 0..200), any::<bool>()));
    let headers = vec((select(&NAMES[..]), value()), 0..6);
    let port = select(&["", ":80", ":443", ":8080"][..]);
    (method, target(), port, headers, body).prop_map(|(method, target, port, headers, body)| {
        Hostile { method, target, port, headers, body }
    })
}

impl Hostile {
    fn to(&self, host: &str) -> Ask {
        let mut ask = Ask::new(self.method, host).target(&self.target);
        for (name, value) in &self.headers {
            ask = ask.header(name, value.trim());
        }
        match &self.body {
            Some((body, chunked)) => {
                ask.body = Some(body.clone());
                if *chunked { ask.chunked() } else { ask }
            }
            None => ask,
        }
    }
}

/// A proxy with a router for each middleware, and a connection to it that is made anew when it was closed.
struct Stand {
    proxy: Proxy,
    client: Option<Client>,
}

impl Stand {
    fn new(shelf: &[(&str, &str)], app: &Origin, auth: &Origin) -> Self {
        let mut text = format!(
            "http:\n  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n  routers:\n",
            app.url()
        );
        for (name, _) in shelf {
            let _ = writeln!(
                text,
                "    {name}: {{rule: Host(`{name}.test`), service: app, middlewares: [{name}]}}"
            );
        }
        text.push_str("  middlewares:\n");
        for (name, options) in shelf {
            let _ = writeln!(text, "    {name}: {}", options.replace("AUTH", &auth.url()));
        }
        let proxy = Proxy::start(&text);
        let enabled = proxy.api("/api/http/routers?status=enabled&provider=file&per_page=1000");
        assert!(enabled.as_array().unwrap().len() >= shelf.len(), "{enabled:#}");
        Self { proxy, client: None }
    }

    /// One answer, over the connection of the last one if that is still open.
    fn ask(&mut self, ask: &Ask) -> Answer {
        let reused = self.client.take();
        let again = reused.is_some();
        let mut client = reused.unwrap_or_else(|| self.proxy.client());
        let answer = match client.send(ask) {
            Ok(answer) => answer,
            Err(_) if again => return self.ask(ask),
            Err(error) => panic!("no answer to {ask:?}: {error}"),
        };
        let closes = answer.header("connection").is_some_and(|value| value.contains("close"));
        if !closes && answer.status != 400 {
            self.client = Some(client);
        }
        answer
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn guards_let_nothing_through() {
    // One may pass, so that the cache has an answer that is not for the others.
    let member = "Bearer one-who-may";
    let auth = Origin::with(move |seen| {
        Reply::status(if seen.header("authorization") == Some(member) { 200 } else { 403 })
    });
    let app = Origin::named("app");
    let mut stand = Stand::new(&GUARDS, &app, &auth);
    let welcome = Ask::get("cached.test/").header("Authorization", member);
    assert_eq!([(); 2].map(|()| stand.ask(&welcome).status), [200, 200]);
    assert_eq!((app.count(), auth.count()), (2, 1), "the second is let in from memory");
    let stand = std::cell::RefCell::new(&mut stand);
    let run = runner(256).run(&hostile(), |hostile| {
        for (name, _) in GUARDS {
            let answer = stand.borrow_mut().ask(&hostile.to(&format!("{name}.test")));
            prop_assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(app.count(), 2);
}

/// Where `redirectScheme` may send somebody who asked for `host`: there, and nowhere else.
fn leads_to(host: &str, answer: &Answer) -> bool {
    let [location] = answer.all("location")[..] else { return false };
    let uri = location.parse::<http::Uri>();
    location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && location.to_ascii_lowercase().starts_with(&format!("https://{host}/"))
        && uri.is_ok_and(|uri| uri.authority().is_some_and(|authority| authority == host))
}

#[test]
fn every_request_has_one_answer_and_the_backend_hears_only_what_is_true() {
    let app = Origin::with(|seen| {
        let kind = seen.header("accept").unwrap_or("text/plain");
        Reply::ok(vec![b'x'; 40]).header("Content-Type", kind).header("X-Kind", "app")
    });
    let mut stand = Stand::new(&OTHERS, &app, &app);
    let stand = std::cell::RefCell::new(&mut stand);
    let redirected = std::cell::Cell::new(0);
    let run = runner(128).run(&hostile(), |hostile| {
        for (name, _) in OTHERS {
            let before = app.count();
            let host = format!("{name}.test");
            let port = if name == "scheme" { hostile.port } else { "" };
            let answer = stand.borrow_mut().ask(&hostile.to(&format!("{host}{port}")));
            // A panic is 500, and nothing else here is.
            prop_assert!((200..600).contains(&answer.status), "{name}: {answer:?}");
            prop_assert_ne!(answer.status, 500, "{}: {:?}", name, answer);
            if name == "scheme" {
                let kept = if hostile.method == "GET" { 302 } else { 307 };
                prop_assert!((400..500).contains(&answer.status) || answer.status == kept);
                prop_assert!(answer.status != kept || leads_to(&host, &answer), "{answer:?}");
                prop_assert_eq!(app.count(), before, "{:?}", answer);
                redirected.set(redirected.get() + u32::from(answer.status == kept));
            }
            if app.count() == before {
                continue;
            }
            let seen = app.last();
            let path = seen.target.split('?').next().unwrap_or_default();
            prop_assert!(path.starts_with('/'), "{name}: {path}");
            prop_assert!(
                !path.split('/').any(|part| part == ".." || part == "."),
                "{name}: {path}"
            );
            let of = |wanted: &str| -> Vec<&str> {
                let same = |known: &str| known.replace('_', "-").eq_ignore_ascii_case(wanted);
                let found = seen.headers.iter().filter(|(known, _)| same(known));
                found.map(|(_, value)| value.as_str()).collect()
            };
            prop_assert_eq!(of("x-real-ip"), ["127.0.0.1"], "{}", name);
            prop_assert_eq!(of("x-forwarded-for"), ["127.0.0.1"], "{}", name);
            prop_assert!(of("x-forwarded-tls-client-cert").is_empty(), "{}", name);
            prop_assert!(of("x-forwarded-tls-client-cert-info").is_empty(), "{}", name);
            if name == "cors" {
                let tenants =
                    seen.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case("x-tenant"));
                prop_assert_eq!(
                    tenants.map(|(_, value)| value.as_str()).collect::<Vec<_>>(),
                    ["t1"]
                );
            }
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    assert!(app.count() > 0 && redirected.get() > 0);
}

/// RP-7.2.2, G-54: whatever stands in `Host`, a redirect leads to that host, or there is none.
#[test]
fn a_redirect_stays_with_the_host_that_was_asked() {
    let app = Origin::named("app");
    let proxy = Proxy::start(&format!(
        "
        http:
          routers: {{all: {{rule: PathPrefix(`/`), service: app, middlewares: [scheme]}}}}
          middlewares: {{scheme: {{redirectScheme: {{scheme: https}}}}}}
          services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
        ",
        app.url()
    ));
    let host = vec(select(&HOSTS[..]), 0..4).prop_map(|pieces| pieces.concat());
    let redirected = std::cell::Cell::new(0);
    let run = runner(512).run(&(host, target()), |(host, target)| {
        let mut ask = Ask::get("/").target(&target);
        ask.host.clone_from(&host);
        let answer = proxy.send(&ask);
        if answer.status != 302 {
            prop_assert!((400..500).contains(&answer.status), "{answer:?}");
            prop_assert!(answer.header("location").is_none());
            return Ok(());
        }
        let host = host.trim_matches(' ').to_ascii_lowercase();
        let name = match host.find(']') {
            Some(bracket) => &host[..=bracket],
            None => host.split(':').next().unwrap_or_default(),
        };
        prop_assert!(leads_to(name, &answer), "{name}: {answer:?}");
        redirected.set(redirected.get() + 1);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    assert!(redirected.get() > 0);
    assert_eq!(app.count(), 0);
}
