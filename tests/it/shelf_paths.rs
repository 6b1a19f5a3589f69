//! What the path and the first bytes of an answer are worked on with: `replacePathRegex`,
//! `stripPrefixRegex`, `encodedCharacters` and `contentType` in the program itself (RP 7.1, 7.7).

use serde_json::json;

use crate::harness::binary::Process;
use crate::harness::{Answer, Ask, Client, Origin, Reply};

/// The program with one router per middleware, by host.
fn start(origin: &Origin, middlewares: &[(&str, &str)]) -> Process {
    let lines = |line: fn(&str, &str) -> String| {
        let lines = middlewares.iter().map(|(name, middleware)| line(name, middleware));
        lines.collect::<Vec<_>>().join("\n            ")
    };
    let routers = lines(|name, _| {
        format!("{name}: {{rule: Host(`{name}.test`), service: app, middlewares: [{name}]}}")
    });
    let shelf = lines(|name, middleware| format!("{name}: {{{middleware}}}"));
    let text = format!(
        "
        http:
          routers:
            {routers}
          middlewares:
            {shelf}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    Process::start(&json!({}), &text)
}

fn send(process: &Process, ask: &Ask) -> Answer {
    Client::connect(process.address("web")).unwrap().send(ask).unwrap()
}

#[test]
fn paths_are_rewritten_by_patterns() {
    let origin = Origin::start();
    let process = start(
        &origin,
        &[
            ("replace", "replacePathRegex: {regex: '^/api/(.*)', replacement: '/v1/$1'}"),
            ("strip", "stripPrefixRegex: {regex: ['/[a-z]+/v[0-9]+', '/x']}"),
            ("deny", "encodedCharacters: {allowEncodedSlash: true}"),
        ],
    );
    for (place, target, header) in [
        ("replace.test/api/a%2Fb?q=1", "/v1/a%2Fb?q=1", ("x-replaced-path", Some("/api/a%2Fb"))),
        ("replace.test/other", "/other", ("x-replaced-path", None)),
        ("strip.test/api/v12/users?q", "/users?q", ("x-forwarded-prefix", Some("/api/v12"))),
        ("strip.test/x", "/", ("x-forwarded-prefix", Some("/x"))),
        ("strip.test/other", "/other", ("x-forwarded-prefix", None)),
        ("deny.test/a%2Fb?c=%00", "/a%2Fb?c=%00", ("x-forwarded-prefix", None)),
    ] {
        assert_eq!(send(&process, &Ask::get(place)).status, 200, "{place}");
        let seen = origin.last();
        assert_eq!((&*seen.target, seen.header(header.0)), (target, header.1), "{place}");
    }
    let before = origin.count();
    for (place, body) in [
        ("replace.test/api/..%2Fprivate", "Bad Request\n"),
        ("strip.test/x../private", "Bad Request\n"),
        ("deny.test/a%5Cb", ""),
        ("deny.test/a%00b", ""),
        ("deny.test/%25", ""),
    ] {
        let answer = send(&process, &Ask::get(place));
        assert_eq!((answer.status, &*answer.text()), (400, body), "{place}");
    }
    assert_eq!(origin.count(), before);
}

#[test]
fn types_are_found_where_none_is_said() {
    let origin = Origin::with(|seen| match seen.target.as_str() {
        "/page" => Reply::ok("<!doctype html><p>Odoo"),
        "/stream" => Reply::ok("%PDF-1.7").chunked(),
        "/said" => Reply::ok("<html>").header("Content-Type", "a/b"),
        "/gzip" => Reply::ok("\u{1f}...").header("Content-Encoding", "gzip"),
        _ => Reply::ok(""),
    });
    let process =
        start(&origin, &[("typed", "contentType: {}"), ("plain", "retry: {attempts: 1}")]);
    for (place, want) in [
        ("typed.test/page", Some("text/html; charset=utf-8")),
        ("typed.test/stream", Some("application/pdf")),
        ("typed.test/said", Some("a/b")),
        ("typed.test/gzip", None),
        ("typed.test/", None),
        ("plain.test/page", None),
    ] {
        let answer = send(&process, &Ask::get(place));
        assert_eq!(answer.header("content-type"), want, "{place}");
        assert_eq!(answer.body.is_empty(), place == "typed.test/", "{place}");
    }
    let head = send(&process, &Ask::new("HEAD", "typed.test/page"));
    assert_eq!((head.status, head.header("content-type")), (200, None));
}
