//! The API: where it is not, what it does not show, and whom it does not serve (G-58 to G-60).

use std::fs;

use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::harness::binary::Process;
use crate::harness::certs::Ca;
use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, Proxy, everything_to, until};

/// Everything that the API, its page, and what stands beside it answer.
const PLACES: [&str; 34] = [
    "/api",
    "/api/",
    "/api/rawdata",
    "/api/overview",
    "/api/version",
    "/api/entrypoints",
    "/api/entrypoints/web",
    "/api/support-dump",
    "/api/http/routers",
    "/api/http/routers/all@file",
    "/api/http/services",
    "/api/http/services/app@file",
    "/api/http/middlewares",
    "/api/tcp/routers",
    "/api/tcp/services",
    "/api/tcp/middlewares",
    "/api/udp/routers",
    "/api/udp/services",
    "/api/certificates",
    "/dashboard",
    "/dashboard/",
    "/dashboard/assets/x",
    "/debug/pprof/",
    "/debug/pprof/heap",
    "/debug/vars",
    "/ping",
    "/live",
    "/ready",
    "/health",
    "/metrics",
    "/admin",
    "/api/../api/rawdata",
    "//api/rawdata",
    "/%61pi/rawdata",
];

/// G-58: nothing is answered where nobody has asked for it: by default at no entry point, and otherwise at its own one.
#[test]
fn the_api_is_where_it_was_put() {
    let app = Origin::named("app");
    let own = format!(
        "
        http:
          routers:
            own: {{rule: Host(`own.test`), service: app}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        app.url()
    );
    let nothing = json!({"api": null, "ping": {"manualRouting": true}, "metrics": null});
    for (what, options, at_traefik) in [
        ("nothing is on", nothing, false),
        (
            "the API without `insecure`",
            json!({"api": {"insecure": false}, "ping": {"manualRouting": true}, "metrics": null}),
            false,
        ),
        ("all of it is on", json!({}), true),
    ] {
        let proxy = Proxy::with(options).start(&own);
        for entry_point in ["web", "websecure", "traefik"] {
            let mut answered = Vec::new();
            for place in PLACES {
                for method in ["GET", "POST", "HEAD"] {
                    let mut client = Client::connect(proxy.address(entry_point)).unwrap();
                    let answer = client.send(&Ask::new(method, "x.test").target(place)).unwrap();
                    if !matches!(answer.status, 404 | 400) {
                        answered.push((method, place, answer.status));
                    }
                }
            }
            let expected = at_traefik && entry_point == "traefik";
            assert_eq!(!answered.is_empty(), expected, "{what}, {entry_point}: {answered:?}");
            if expected {
                // What changes nothing answers GET only, but for `/ping`, which any load balancer may ask as it likes.
                let posts = answered
                    .iter()
                    .filter(|(method, _, status)| *method == "POST" && *status < 400);
                assert!(posts.clone().all(|(_, place, _)| !place.contains("api")), "{answered:?}");
                assert!(
                    !answered.iter().any(|(_, place, _)| place.contains("debug")),
                    "{answered:?}"
                );
            }
        }
        // A router for everything gets these paths as any other, and no service of the program.
        proxy.reload(&everything_to(&app.url()));
        for place in PLACES {
            let answer = proxy.send(&Ask::get("x.test").target(place));
            assert_eq!(answer.origin(), "app", "{what}: {place}");
        }
    }
}

/// The places that a secret was put into, each with its mark.
const MARKS: [&str; 14] = [
    "markBasic",
    "markDigest",
    "markForwardUser",
    "markForwardQuery",
    "markRequestHeader",
    "markResponseHeader",
    "markServer",
    "markProbe",
    "markRedis",
    "markUsersFile",
    "markTlsKey",
    "markRule",
    "markCookie",
    "markToken",
];

/// G-59: secrets of the configuration and of requests are in no view of the API, no metric and no log; under `exact`
/// the API shows headers as Traefik does, and hashes, keys and passwords neither.
#[test]
fn the_api_shows_no_secret() {
    let origin = Origin::start();
    let directory = tempfile::TempDir::new().unwrap();
    let users = directory.path().join("users");
    fs::write(&users, "admin:{SHA}markUsersFile\n").unwrap();
    let pair = Ca::new().issue(&["a.test"]);
    let (cert, key) = pair.write(directory.path(), "pair");
    let inline = fs::read_to_string(&key).unwrap();
    let secret = inline.lines().nth(1).unwrap().to_owned();
    let text = format!(
        "
        http:
          routers:
            all: {{rule: 'PathPrefix(`/`)', service: app, middlewares: [heads]}}
            ruled: {{rule: 'Header(`Authorization`, `Bearer markRule`)', service: app}}
            guarded: {{rule: PathPrefix(`/guarded`), service: app, middlewares: [basic, digest, file, ask, bucket]}}
          middlewares:
            basic: {{basicAuth: {{users: ['u:{{SHA}}markBasic']}}}}
            digest: {{digestAuth: {{users: ['u:traefik:markDigest'], realm: traefik}}}}
            file: {{basicAuth: {{usersFile: '{}'}}}}
            ask: {{forwardAuth: {{address: 'http://u:markForwardUser@127.0.0.1:1/?key=markForwardQuery', tls: {{cert: '{}', key: '{}'}}}}}}
            bucket: {{rateLimit: {{average: 1, redis: {{endpoints: ['127.0.0.1:1'], username: u, password: markRedis}}}}}}
            heads:
              headers:
                customRequestHeaders: {{Authorization: 'Bearer markRequestHeader', X-Api-Key: markRequestHeader}}
                customResponseHeaders: {{Set-Cookie: 'a=markResponseHeader'}}
          services:
            app:
              loadBalancer:
                servers: [{{url: 'http://u:markServer@{}'}}]
                healthCheck: {{path: /, interval: 1h, headers: {{Authorization: 'Bearer markProbe'}}}}
        tls:
          certificates: [{{certFile: '{}', keyFile: \"{}\"}}]
        ",
        users.display(),
        cert.display(),
        key.display(),
        origin.address(),
        cert.display(),
        // In the file itself, as Kubernetes and templates put it there.
        inline.replace('\n', "\\n"),
    );
    for profile in ["safe", "exact", "hardened"] {
        let options = json!({
            "core": {"profile": profile},
            "accessLog": {"filePath": "access.log"},
            "log": {"level": "TRACE"},
        });
        let process = Process::start(&options, &text);
        for path in ["/", "/guarded", "/nobody?x=y", "/%zz"] {
            let ask = Ask::get("a.test")
                .target(path)
                .header("Authorization", "Bearer markToken")
                .header("Cookie", "session_id=markCookie");
            let _ = Client::connect(process.address("web")).unwrap().send(&ask);
        }
        let access = process.directory().join("access.log");
        until("the requests are logged", || {
            fs::read_to_string(&access).is_ok_and(|text| text.lines().count() >= 4)
        });
        let mut shown = vec![("the log".to_owned(), process.log())];
        shown.push(("the access log".to_owned(), fs::read_to_string(&access).unwrap()));
        let names = ["basic", "digest", "file", "ask", "bucket", "heads"];
        let more = names.iter().map(|name| format!("/api/http/middlewares/{name}@file"));
        let more = more.chain(["/api/http/routers/ruled@file".to_owned()]);
        for place in PLACES.iter().map(|place| (*place).to_owned()).chain(more) {
            let mut client = Client::connect(process.address("traefik")).unwrap();
            let answer = client.send(&Ask::get("127.0.0.1").target(&place)).unwrap();
            shown.push((place, answer.text()));
        }
        assert!(shown.iter().any(|(_, text)| text.contains("customRequestHeaders")));
        for (place, text) in &shown {
            assert!(!text.contains(&secret), "{profile}: a key stands in {place}");
            for mark in MARKS {
                // What Traefik shows too: headers by their names, and rules.
                let as_traefik = place.starts_with('/') || place.starts_with("the log");
                let is_header = [
                    "markRequestHeader",
                    "markResponseHeader",
                    "markProbe",
                    "markRule",
                    "markForwardQuery",
                ]
                .contains(&mark);
                if profile == "exact" && is_header && as_traefik {
                    continue;
                }
                assert!(!text.contains(mark), "{profile}: {mark} stands in {place}:\n{text}");
            }
        }
    }
}

/// G-60: nothing of the API is there for another site: no header lets its scripts read, nothing changes by a request,
/// no tunnel opens; behind a router it has the host of that router only.
#[test]
fn the_api_serves_no_other_site() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            api: {{rule: Host(`api.own.test`), service: api@internal}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    let proxy = Proxy::start(&text);
    let evil = |ask: Ask| {
        ask.header("Origin", "http://evil.test")
            .header("Referer", "http://evil.test/")
            .header("Cookie", "a=b")
    };
    // By a name that leads here by DNS, it is another host, and that one has no router.
    for host in ["evil.test", "127.0.0.1", "localhost", "api.own.test.evil.test"] {
        let answer = proxy.send(&evil(Ask::get(host).target("/api/rawdata")));
        assert_eq!(answer.status, 404, "{host}");
    }
    let own = proxy.send(&Ask::get("api.own.test/api/rawdata"));
    assert_eq!(own.status, 200);
    let inside = |ask: &Ask| Client::connect(proxy.address("traefik")).unwrap().send(ask).unwrap();
    let before = inside(&Ask::get("/api/rawdata")).text();
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
        for place in PLACES {
            let ask = evil(Ask::new(method, "api.own.test").target(place))
                .header("Access-Control-Request-Method", "PUT")
                .header("Access-Control-Request-Headers", "x-a");
            let ask = if method == "POST" { ask.with_body("{\"x\":1}") } else { ask };
            for answer in [proxy.send(&ask), inside(&ask)] {
                let allowed = answer.headers.iter().find(|(name, _)| {
                    let name = name.to_ascii_lowercase();
                    name.starts_with("access-control-") || name == "set-cookie"
                });
                assert_eq!(allowed, None, "{method} {place}");
                let changes = !["GET", "HEAD"].contains(&method);
                let is_api = place.contains("api") && !place.contains("/api/..");
                assert!(
                    !(changes && is_api && answer.status < 400),
                    "{method} {place}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(inside(&Ask::get("/api/rawdata")).text(), before, "nothing has changed");
    // Without a router of one's own, any name leads there, but under `hardened`.
    for (profile, by_name) in [("safe", 200), ("hardened", 404)] {
        let proxy = Proxy::with(json!({"core": {"profile": profile}})).start(&text);
        for (host, status) in [
            ("evil.test", by_name),
            ("127.0.0.1.evil.test", by_name),
            ("bad.cafe", by_name),
            ("localhost.evil.test", by_name),
            ("127.0.0.1", 200),
            ("127.0.0.1:8080", 200),
            ("localhost:8080", 200),
            ("LOCALHOST", 200),
            ("[::1]", 200),
            ("[::1]:8080", 200),
            ("[2001:db8::1]", 200),
        ] {
            for place in ["/api/rawdata", "/dashboard/"] {
                let mut client = Client::connect(proxy.address("traefik")).unwrap();
                let answer = client.send(&Ask::get(host).target(place)).unwrap();
                assert_eq!(answer.status, status, "{profile}: {host}{place}");
            }
        }
    }
    for entry_point in ["web", "traefik"] {
        let stream = socket(proxy.address(entry_point)).unwrap();
        assert!(tungstenite::client("ws://api.own.test/api/rawdata", stream).is_err());
    }
}
