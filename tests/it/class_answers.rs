//! What goes out and into logs: pages for errors, configured headers, sticky cookies, and lines that stay one line
//! (G-65, G-71 to G-73).

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::client::socket;
use crate::harness::{Answer, Ask, NOBODY, Origin, Proxy, Reply, everything_to, until, with_pages};

fn with_profile(profile: &str, text: &str) -> Proxy {
    Proxy::with(json!({"core": {"profile": profile}})).start(text)
}

/// G-71: a page has the status of the error that it stands for, and what it is asked for with is one value, whatever
/// the request was. That nobody keeps it is said under `hardened`; Traefik lets the service of the pages say what it
/// likes.
#[test]
fn pages_are_errors() {
    let pages = Origin::with(|_| {
        Reply::ok("sorry").header("Cache-Control", "public, max-age=3600").header("ETag", "\"1\"")
    });
    let middleware =
        "errors: {status: ['400-599'], service: pages, query: '/page?s={status}&u={url}'}";
    for (profile, cache) in [("safe", "public, max-age=3600"), ("hardened", "no-store")] {
        let proxy = with_profile(profile, &with_pages(NOBODY, &pages.url(), middleware));
        for target in [
            "/x",
            "/x?a=1&s=200&u=evil",
            "/x?a=%0d%0aX-Evil:%201",
            "/x%23y?%23&%26",
            "/x;y?a=b#",
            "/%22%3E%3Cscript%3E",
            "/x?{status}{url}",
        ] {
            let ask = Ask::get("a.test").target(target).header("If-None-Match", "\"1\"");
            let answer = proxy.send(&ask.header("Range", "bytes=0-1"));
            // The hardened profile takes no escapes that servers read as something else.
            let escaped = target.split('?').next().unwrap().contains('%');
            if target.ends_with('#') || (escaped && profile == "hardened") {
                assert!(matches!(answer.status, 400 | 502), "{target}: {answer:?}");
                continue;
            }
            assert_eq!((answer.status, &*answer.text()), (502, "sorry"), "{profile} {target}");
            assert_eq!(answer.all("cache-control"), [cache], "{profile}");
            let seen = pages.last();
            let query = seen.target.strip_prefix("/page?").unwrap().to_owned();
            let parameters: Vec<_> = query.split('&').collect();
            assert_eq!((parameters.len(), parameters[0]), (2, "s=502"), "{query}");
            assert!(parameters[1].starts_with("u=http%3A%2F%2Fa.test%2F"), "{query}");
            assert!(!query.contains(['#', '<', '"', ';', '{']), "{query}");
            assert_eq!(seen.header("x-evil"), None);
        }
    }
}

/// G-71: our own errors stay in no cache under `hardened`, and what servers say of theirs is theirs.
#[test]
fn errors_of_ours_stay_in_no_cache() {
    let app = Origin::with(|seen| match &*seen.target {
        "/mine" => Reply::text(404, "mine").header("Cache-Control", "max-age=60"),
        "/plain" => Reply::status(404),
        _ => Reply::ok("ok"),
    });
    let text = format!(
        "
        http:
          routers:
            app: {{rule: Host(`app.test`), service: app}}
            down: {{rule: Host(`down.test`), service: down}}
            closed: {{rule: Host(`closed.test`), service: app, middlewares: [closed]}}
            broken: {{rule: Host(`broken.test`), service: app, middlewares: [missing]}}
          middlewares:
            closed: {{ipAllowList: {{sourceRange: [192.0.2.1]}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            down: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
        ",
        app.url()
    );
    for profile in ["safe", "hardened"] {
        let proxy = with_profile(profile, &text);
        let ours = if profile == "hardened" { Some("no-store") } else { None };
        for (place, status, cache) in [
            ("app.test/", 200, None),
            ("app.test/mine", 404, Some("max-age=60")),
            ("app.test/plain", 404, None),
            ("nobody.test/", 404, ours),
            ("down.test/", 502, ours),
            ("closed.test/", 403, ours),
            ("broken.test/", 503, ours),
        ] {
            let answer = proxy.get(place);
            assert_eq!(answer.status, status, "{profile} {place}");
            assert_eq!(answer.header("cache-control"), cache, "{profile} {place}");
        }
        let answer = proxy.send(&Ask::get("/").target("/%zz"));
        assert_eq!((answer.status, answer.header("cache-control")), (400, ours), "{profile}");
    }
}

/// G-72: a header that would be two is refused with its router, when it is configured; what looks like a placeholder
/// is text; a file that cannot be read changes nothing.
#[test]
fn configured_headers_are_one_line_and_text() {
    let app = Origin::start();
    let headers = |name: &str, value: &str| {
        let value = value.replace('\r', "\\r").replace('\n', "\\n");
        format!(
            "headers: {{customRequestHeaders: {{\"{name}\": \"{value}\"}}, customResponseHeaders: {{\"{name}\": \"{value}\"}}}}"
        )
    };
    let literal = "${host} {url} %{x} $1 { x } a\tb";
    let proxy = Proxy::start(&with_pages(&app.url(), NOBODY, &headers("X-A", literal)));
    let good = |proxy: &Proxy| {
        let answer = proxy.get("/?x=y");
        assert_eq!((answer.status, answer.header("x-a")), (200, Some(literal)));
        assert_eq!(app.last().header("x-a"), Some(literal));
    };
    good(&proxy);
    for (name, value) in [
        ("X-A", "a\r\nX-Evil: 1"),
        ("X-A", "a\nX-Evil: 1"),
        ("X-A", "a\rX-Evil: 1"),
        ("X-A", "a\r\n\r\n<html>"),
        ("X-A: b\\r\\nX-Evil", "1"),
        ("X A", "1"),
        ("", "1"),
    ] {
        let before = app.count();
        proxy.reload(&with_pages(&app.url(), NOBODY, &headers(name, value)));
        let answer = proxy.get("/");
        assert_eq!(answer.status, 503, "{name:?}: {value:?}: {answer:?}");
        assert_eq!((answer.header("x-evil"), app.count()), (None, before), "{name:?}: {value:?}");
        let shown = proxy.api("/api/http/routers/all@file");
        assert_eq!(shown["status"], "disabled", "{name:?}: {value:?}");
    }
    // With `lastGood` the router goes on as it was.
    let keeping = Proxy::with(json!({"core": {"onBrokenRouter": "lastGood"}}));
    let keeping = keeping.start(&with_pages(&app.url(), NOBODY, &headers("X-A", literal)));
    good(&keeping);
    keeping.reload(&with_pages(&app.url(), NOBODY, &headers("X-A", "a\r\nX-Evil: 1")));
    good(&keeping);
    // The bytes themselves are no YAML: the file is refused as a whole, and the configuration stays.
    keeping.reload(
        "http: {middlewares: {one: {headers: {customRequestHeaders: {X-A: \"a\rb\nX-Evil: 1}}}}}",
    );
    good(&keeping);
}

/// The servers' sticky cookie of an answer.
fn cookie(answer: &Answer) -> Option<&str> {
    answer.header("set-cookie")?.split(';').next()
}

/// G-73: a sticky cookie names servers of its own service by a hash; what it does not know means a new choice.
#[test]
fn forged_cookies_choose_no_server() {
    let (a, b, other) = (Origin::named("a"), Origin::named("b"), Origin::named("other"));
    let text = format!(
        "
        http:
          routers:
            shop: {{rule: Host(`shop.test`), service: shop}}
            other: {{rule: Host(`other.test`), service: other}}
          services:
            shop: {{loadBalancer: {{sticky: {{cookie: {{name: lb, httpOnly: true, secure: true, sameSite: strict}}}}, servers: [{{url: '{}'}}, {{url: '{}'}}]}}}}
            other: {{loadBalancer: {{sticky: {{cookie: {{name: lb}}}}, servers: [{{url: '{}'}}]}}}}
        ",
        a.url(),
        b.url(),
        other.url()
    );
    for profile in ["safe", "hardened"] {
        let proxy = with_profile(profile, &text);
        let ask = |host: &str, cookie: &str| proxy.send(&Ask::get(host).header("Cookie", cookie));
        let first = proxy.get("shop.test");
        let line = first.header("set-cookie").unwrap();
        for flag in ["; HttpOnly", "; Secure", "; SameSite=Strict"] {
            assert!(line.contains(flag), "{line}");
        }
        let port = if first.origin() == "a" { a.address() } else { b.address() }.port();
        let (name, value) = cookie(&first).unwrap().split_once('=').unwrap();
        assert_eq!((name, value.len()), ("lb", 16));
        assert!(!value.contains(&port.to_string()) && !line.contains("127.0.0.1"), "{line}");
        let own = format!("lb={value}");
        assert_eq!(
            (ask("shop.test", &own).origin(), cookie(&ask("shop.test", &own))),
            (first.origin(), None)
        );
        // Where nothing says so, the flags are Traefik's; no script reads the cookie under `hardened`.
        let elsewhere = proxy.get("other.test");
        let line = elsewhere.header("set-cookie").unwrap();
        assert_eq!(line.contains("HttpOnly"), profile == "hardened", "{line}");
        let theirs = cookie(&elsewhere).unwrap().to_owned();
        let long = format!("lb={}", "a".repeat(4000));
        for forged in [
            "lb=0",
            "lb=0123456789abcdef",
            "lb=http://127.0.0.1:1",
            "lb=../../etc/passwd",
            "lb=%0d%0aSet-Cookie:x=y",
            "lb=",
            "lb",
            &theirs,
            &long,
        ] {
            let turns: Vec<_> = (0..4).map(|_| ask("shop.test", forged)).collect();
            for answer in &turns {
                assert_eq!(answer.status, 200, "{forged}");
                assert_eq!(answer.all("set-cookie").len(), 1, "{forged}");
                let new = cookie(answer).unwrap();
                assert_eq!(new.len(), own.len(), "{forged}: {new}");
                assert_eq!(answer.header("x"), None);
            }
            // A choice like everybody's, and not the same one for whoever says the same.
            let from = |name| turns.iter().filter(|answer| answer.origin() == name).count();
            assert_eq!((from("a"), from("b")), (2, 2), "{forged}");
        }
    }
    assert!(other.count() > 0);
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// G-65: whatever is in a request, its access log has one line of it, of a bounded length, that can be read again.
#[test]
fn a_request_is_one_line() {
    let app = Origin::with(|_| Reply::ok("ok").header("X-Back", "b\"\\\u{1b}[31m\u{7f}\u{85}"));
    let directory = tempfile::TempDir::new().unwrap();
    let long = "l".repeat(1 << 20);
    for format in ["json", "common", "genericCLF"] {
        let file = directory.path().join(format);
        let proxy = Proxy::with(json!({
            "entryPoints": {"web": {"http": {"maxHeaderBytes": 4 << 20}}},
            "accessLog": {
                "filePath": file, "format": format,
                "fields": {"defaultMode": "keep", "headers": {"defaultMode": "keep"}},
            },
        }))
        .start(&everything_to(&app.url()));
        let send = |request: &[u8]| {
            let mut stream = socket(proxy.address("web")).unwrap();
            // A large one may be refused before it is whole.
            let _ = stream.write_all(request);
            let _: std::io::Result<usize> = stream.read_to_end(&mut Vec::new());
        };
        let evil =
            b"\"}\\ \x1b[2J\x1b]0;x\x07 {\"level\":\"fatal\"} \xff\xfe \xe2\x80\xa8 %0a\t<x> ' \"";
        let end = b"\r\nConnection: close\r\n\r\n";
        let fields: [&[u8]; 6] = [
            b"User-Agent",
            b"Referer",
            b"Cookie",
            b"X-Forwarded-For",
            b"X-Anything",
            b"Authorization",
        ];
        let mut asked = 0;
        for field in fields {
            send(&[b"GET / HTTP/1.1\r\nHost: a.test\r\n", field, b": ", &evil[..], end].concat());
            asked += 1;
        }
        for target in ["/%0a%0d%1b[2J", "/?a=\"}{\\", "/'\"<>", "/\u{e9}\u{2028}", "/?\u{7f}"] {
            send(&[b"GET ", target.as_bytes(), b" HTTP/1.1\r\nHost: a.test", &end[..]].concat());
            asked += 1;
        }
        let long = long.as_bytes();
        send(&[b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: ", long, end].concat());
        send(&[b"GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: ", long, end].concat());
        send(&[b"GET /", long, b" HTTP/1.1\r\nHost: a.test", end].concat());
        send(b"GET / HTTP/1.1\r\nHost: a\"b\x1b\r\nConnection: close\r\n\r\n");
        send(b"G\"T / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        asked += 5;
        proxy.get("/the-last-one");
        asked += 1;
        until("the last line is there", || {
            lines(&file).iter().any(|line| line.contains("/the-last-one"))
        });
        let lines = lines(&file);
        assert_eq!(lines.len(), asked, "{format}: one line for each request");
        for line in &lines {
            assert!(line.len() <= 64 << 10, "{format}: {} bytes", line.len());
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line}");
            if format == "json" {
                let parsed: Value = serde_json::from_str(line).unwrap();
                assert_ne!(parsed["level"], "fatal", "{line}");
                assert!(parsed["DownstreamStatus"].is_number(), "{line}");
            } else {
                // Quotes that are none of the format's are escaped: those that are left come in pairs.
                let bare = line.replace("\\\\", "").replace("\\\"", "");
                assert_eq!(bare.matches('"').count() % 2, 0, "{line}");
            }
        }
    }
}
