//! What limits and repeats requests without asking anybody else: `rateLimit` in memory, `retry` and
//! what `buffering` sends again (RP 7.5, 7.6).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::{Ask, NOBODY, Origin, Proxy, Reply};

/// Two routers, `/a` and `/b`, through one middleware, each to a service with these servers.
fn through(middleware: &str, a: &[&str], b: &[&str]) -> String {
    let servers = |urls: &[&str]| {
        urls.iter().map(|url| format!("{{url: '{url}'}}")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "
        http:
          routers:
            a: {{rule: PathPrefix(`/a`), service: a, middlewares: [one]}}
            b: {{rule: PathPrefix(`/b`), service: b, middlewares: [one]}}
          middlewares:
            one: {{{middleware}}}
          services:
            a: {{loadBalancer: {{servers: [{}]}}}}
            b: {{loadBalancer: {{servers: [{}]}}}}
        ",
        servers(a),
        servers(b)
    )
}

/// RP-7.5: `scope: middleware` is one limit for all routers, which a reload does not lift.
#[test]
fn routers_share_a_limit_that_is_of_the_middleware() {
    let origin = Origin::start();
    let text = |scope: &str| {
        let limit =
            format!("rateLimit: {{average: 1, period: 1h, responseHeaders: true, scope: {scope}}}");
        through(&limit, &[&origin.url()], &[&origin.url()])
    };
    let proxy = Proxy::start(&text("middleware"));
    let passed = proxy.get("/a");
    assert_eq!(passed.status, 200);
    assert_eq!(passed.header("ratelimit-policy"), Some("\"one@file\";q=1;w=3600"));
    assert_eq!(passed.header("ratelimit"), Some("\"one@file\";r=0;t=3600"));
    proxy.reload(&text("middleware").replace("service: b,", "priority: 7, service: b,"));
    let refused = proxy.get("/b");
    assert_eq!(refused.status, 429);
    let left = format!("\"one@file\";r=0;t={}", refused.header("retry-after").unwrap());
    assert_eq!(refused.header("ratelimit"), Some(&*left));
    // Of a router each has its own.
    proxy.reload(&text("router"));
    assert_eq!(["/a", "/b", "/a", "/b"].map(|path| proxy.get(path).status), [200, 200, 429, 429]);
    assert_eq!(origin.count(), 3);
}

/// RP-7.6: but for the `exact` profile, no server gets a second attempt while another is up.
#[test]
fn no_server_gets_a_request_twice_while_another_is_up() {
    for (profile, wants) in [("safe", true), ("hardened", true), ("exact", false)] {
        for middleware in [
            "retry: {attempts: 2, status: ['503']}",
            "buffering: {retryExpression: 'ResponseCode() == 503 && Attempts() < 2'}",
        ] {
            let failing = Origin::with(|_| Reply::status(503));
            let (one, two) = (Origin::start(), Origin::start());
            // The failing one has most turns.
            let urls = [failing.url(), one.url(), two.url()];
            let text = through(middleware, &[&urls[0], &urls[1], &urls[2]], &[NOBODY])
                .replace(&format!("'{}'", urls[0]), &format!("'{}', weight: 20", urls[0]));
            let proxy = Proxy::with(json!({"core": {"profile": profile}})).start(&text);
            let statuses: Vec<_> = (0..20)
                .map(|_| proxy.send(&Ask::new("PUT", "/a").with_body("body")).status)
                .collect();
            let passed = statuses.iter().filter(|&&status| status == 200).count();
            assert_eq!(passed == 20, wants, "{profile} {middleware}: {statuses:?}");
        }
    }
}

/// Reads a request to its end and goes away without an answer.
fn silent() -> Origin {
    Origin::raw(|mut stream: TcpStream, _| {
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        let is_whole = |read: &[u8]| {
            read.ends_with(b"body") || read.starts_with(b"GET") && read.ends_with(b"\r\n\r\n")
        };
        while !is_whole(&read) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
            }
        }
        let _ = stream.flush();
    })
}

/// RP-7.6: what a server may have seen is not sent again; what none has seen is, whatever it is.
#[test]
fn only_what_was_never_sent_goes_to_another_server() {
    let retry = "retry: {attempts: 3, status: ['502']}";
    for ask in [Ask::post("/a", "body"), Ask::new("PATCH", "/a").with_body("body")] {
        let (closes, other) = (silent(), Origin::start());
        let urls = [closes.url(), other.url()];
        let proxy = Proxy::start(&through(retry, &[&urls[0], &urls[1]], &[NOBODY, &urls[1]]));
        assert_eq!(proxy.send(&ask).status, 502);
        assert_eq!((closes.connections(), other.count()), (1, 0), "{}", ask.method);
        // Nobody listens at the first server of the other service.
        for _ in 0..4 {
            let answer = proxy.send(&ask.clone().target("/b"));
            assert_eq!((answer.status, answer.text()), (200, "body".into()));
        }
        assert_eq!(other.count(), 4);
    }
    // Without a status to repeat on, nobody repeats what was sent, be it idempotent.
    let (closes, other) = (silent(), Origin::start());
    let (first, second) = (closes.url(), other.url());
    let proxy = Proxy::start(&through("retry: {attempts: 3}", &[&first, &second], &[NOBODY]));
    assert_eq!(proxy.get("/a").status, 502);
    assert_eq!((closes.connections(), other.count()), (1, 0));
    // Whoever writes an expression that says so wants it, POST or not: as Traefik.
    for profile in ["safe", "exact"] {
        let (closes, other) = (silent(), Origin::start());
        let (first, second) = (closes.url(), other.url());
        let buffering = "buffering: {retryExpression: 'IsNetworkError() && Attempts() < 2'}";
        let text = through(buffering, &[&first, &second], &[NOBODY]);
        let proxy = Proxy::with(json!({"core": {"profile": profile}})).start(&text);
        assert_eq!(proxy.send(&Ask::post("/a", "body")).status, 200);
        assert_eq!((closes.connections(), other.count()), (1, 1), "{profile}");
    }
}

/// RP-7.6.1: `disableRetryOnNetworkError` is about errors of the network, and about nothing else.
#[test]
fn errors_of_the_network_need_not_be_repeated() {
    for (disable, statuses) in [(true, [200, 200, 502, 502]), (false, [200; 4])] {
        let retry = format!(
            "retry: {{attempts: 3, status: ['503'], disableRetryOnNetworkError: {disable}}}"
        );
        let asked = AtomicUsize::new(0);
        let failing = Origin::with(move |_| match asked.fetch_add(1, Ordering::AcqRel) {
            0 | 1 => Reply::status(503),
            _ => Reply::ok("third"),
        });
        let there = Origin::start();
        let text = through(&retry, &[NOBODY, &there.url()], &[&failing.url()]);
        let proxy = Proxy::start(&text);
        // The turns alternate: half of the requests meet the server that nobody listens at.
        let mut found = [(); 4].map(|()| proxy.get("/a").status);
        found.sort_unstable();
        assert_eq!(found, statuses, "{disable}");
        let served = statuses.iter().filter(|&&status| status == 200).count();
        assert_eq!(there.count(), served);
        assert_eq!(proxy.get("/b").text(), "third");
        assert_eq!(failing.count(), 3);
    }
    // Nor is what broke off after it was sent.
    let (closes, other) = (silent(), Origin::start());
    let retry = "retry: {attempts: 3, status: ['503'], disableRetryOnNetworkError: true}";
    let text = through(retry, &[&closes.url(), &other.url()], &[NOBODY]);
    assert_eq!(Proxy::start(&text).get("/a").status, 502);
    assert_eq!((closes.connections(), other.count()), (1, 0));
}

/// A budget is of a service, whichever router the requests come through.
#[test]
fn a_service_gets_no_more_retries_than_its_budget() {
    let (failing, other) =
        (Origin::with(|_| Reply::status(503)), Origin::with(|_| Reply::status(503)));
    let retry = "retry: {attempts: 2, status: ['503'], budget: {percent: 0, minPerSecond: 1}}";
    let text = through(retry, &[&failing.url()], &[&other.url()]).replace(
        "          middlewares:\n",
        "            again: {rule: PathPrefix(`/again`), service: a, middlewares: [one]}\n          middlewares:\n",
    );
    let proxy = Proxy::start(&text);
    for _ in 0..10 {
        assert_eq!(proxy.get("/a").status, 503);
        assert_eq!(proxy.get("/again").status, 503);
    }
    assert_eq!(failing.count(), 20 + 10);
    for _ in 0..3 {
        assert_eq!(proxy.get("/b").status, 503);
    }
    assert_eq!(other.count(), 6);
    // Reloads do not fill it.
    proxy.reload(&text.replace("service: b,", "priority: 7, service: b,"));
    assert_eq!(proxy.get("/a").status, 503);
    assert_eq!(failing.count(), 31);
    let shown = proxy.api("/api/http/middlewares/one@file");
    assert_eq!(shown["retry"]["budget"], json!({"percent": 0, "minPerSecond": 1}));
}
