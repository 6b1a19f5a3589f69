//! Attacks on where a request goes and whose it is: addresses, hosts, prefixes and paths that are read in two ways,
//! loops, answers that cross tenants, and what a web page could ask of the API.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::{
    Ask, Client, NOBODY, Origin, Proxy, Reply, everything_to, pause, through, until,
};
use crate::wire::{echoed, websocket, websocket_echo};

/// T-08 (CVE-2023-47633): a server that is the proxy itself ends after a few rounds, whoever asks again on the way.
#[test]
fn a_request_that_comes_back_ends() {
    let again = "retry: {attempts: 4, initialInterval: 0s, status: ['500-599']}";
    for (scheme, middleware) in [("http", ""), ("h2c", ""), ("http", again)] {
        let proxy = Proxy::start(&everything_to(NOBODY));
        let url = format!("{scheme}://{}", proxy.address("web"));
        proxy.reload(&match middleware {
            "" => everything_to(&url),
            middleware => through(&url, middleware),
        });
        let answer = proxy.get("/");
        assert_eq!(answer.status, 508, "{url} {middleware}: {answer:?}");
        let rounds = || {
            let text = proxy.app().metrics();
            let lines = text.lines().filter(|line| {
                line.starts_with("traefik_entrypoint_requests_total{") && line.contains("\"web\"")
            });
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
        };
        let counted = rounds();
        assert!((2.0..=11.0).contains(&counted), "{url} {middleware}: {counted} rounds");
        pause(Duration::from_millis(200));
        assert!((rounds() - counted).abs() < 0.5, "nothing goes round any more");
        // A tunnel is a request as well.
        let mut client = proxy.client();
        let upgrade = Ask::get("/").header("Connection", "Upgrade").header("Upgrade", "websocket");
        assert_eq!(client.send(&upgrade).unwrap().status, 508);
    }
    // An authentication server that has to be asked whether one may ask it.
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(NOBODY));
    let own = format!("http://{}/", proxy.address("web"));
    proxy.reload(&through(&origin.url(), &format!("forwardAuth: {{address: '{own}'}}")));
    assert_eq!((proxy.get("/").status, origin.count()), (508, 0));
}

/// T-08: an application may be asked through its public address, and only then is anything to be seen of the count.
#[test]
fn a_round_or_two_are_nobodys_fault() {
    let origin = Origin::start();
    for profile in ["safe", "exact"] {
        let proxy =
            Proxy::with(json!({"core": {"profile": profile}})).start(&everything_to(NOBODY));
        proxy.reload(&format!(
            "
            http:
              routers:
                inner: {{rule: PathPrefix(`/app`), service: app, middlewares: [strip]}}
                outer: {{rule: PathPrefix(`/`), priority: 1, service: own, middlewares: [add]}}
              middlewares:
                add: {{addPrefix: {{prefix: /app}}}}
                strip: {{stripPrefix: {{prefixes: [/app]}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
                own: {{loadBalancer: {{servers: [{{url: 'http://{}'}}]}}}}
            ",
            origin.url(),
            proxy.address("web")
        ));
        for (path, rounds) in [("/app/x", None), ("/x", Some("1"))] {
            assert_eq!(proxy.get(path).status, 200, "{profile}");
            let rounds = rounds.filter(|_| profile != "exact");
            assert_eq!(origin.last().header("x-doorward-rounds"), rounds, "{profile}: {path}");
            assert_eq!(origin.last().target, "/x");
        }
    }
}

/// T-13 (CVE-2024-24790): an IPv4 address in IPv6's clothes is that IPv4 address, on the wire and in headers.
#[test]
fn a_mapped_address_is_an_ipv4_address() {
    let origin = Origin::start();
    let start = |list: &str| {
        let both =
            json!({"address": "[::]:0", "forwardedHeaders": {"trustedIPs": ["127.0.0.1/32"]}});
        let text = through(&origin.url(), &format!("ipAllowList: {{{list}}}"));
        let proxy = Proxy::with(json!({"entryPoints": {"web": both}})).start(&text);
        let port = proxy.address("web").port();
        (proxy, ([127, 0, 0, 1], port).into())
    };
    for (list, forwarded, want) in [
        ("sourceRange: [127.0.0.0/8]", "", 200),
        ("sourceRange: ['::ffff:127.0.0.1']", "", 200),
        ("sourceRange: [10.0.0.0/8]", "", 403),
        ("sourceRange: ['::/0']", "", 403),
        ("sourceRange: [6.6.6.0/24], ipStrategy: {depth: 1}", "::ffff:6.6.6.6", 200),
        ("sourceRange: [6.6.6.0/24], ipStrategy: {depth: 1}", "::ffff:606:606", 200),
        ("sourceRange: ['::/0'], ipStrategy: {depth: 1}", "::ffff:6.6.6.6", 403),
        (
            "sourceRange: [6.6.6.6], ipStrategy: {excludedIPs: [10.0.0.0/8]}",
            "6.6.6.6, ::ffff:10.1.2.3",
            200,
        ),
        (
            "sourceRange: [10.1.2.3], ipStrategy: {excludedIPs: [10.0.0.0/8]}",
            "6.6.6.6, ::ffff:10.1.2.3",
            403,
        ),
    ] {
        let (_proxy, at) = start(list);
        let mut ask = Ask::get("/");
        if !forwarded.is_empty() {
            ask = ask.header("X-Forwarded-For", forwarded);
        }
        let answer = Client::connect(at).unwrap().send(&ask).unwrap();
        assert_eq!(answer.status, want, "{list} {forwarded}");
        if want == 200 && forwarded.is_empty() {
            let seen = origin.last();
            assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
            assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        }
    }
}

/// T-17 (CVE-2024-52003): no prefix that a client makes up leads to another site.
#[test]
fn a_prefix_leads_to_no_other_site() {
    let dashboard = "
        http:
          routers:
            dashboard: {rule: 'PathPrefix(`/`)', service: api@internal}
        ";
    for insecure in [false, true] {
        let web = json!({"forwardedHeaders": {"insecure": insecure}});
        let proxy =
            Proxy::with(json!({"entryPoints": {"web": web, "traefik": web}})).start(dashboard);
        for prefix in [
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "evil.test",
            "/%2fevil.test",
            "//evil.test/..",
        ] {
            for entry_point in ["web", "traefik"] {
                for path in ["/", "/dashboard"] {
                    let ask = Ask::get(path).header("X-Forwarded-Prefix", prefix);
                    let mut client = Client::connect(proxy.address(entry_point)).unwrap();
                    let answer = client.send(&ask).unwrap();
                    let Some(location) = answer.header("location") else {
                        // Where it is served without another word.
                        assert_eq!((answer.status, path), (200, "/dashboard"), "{prefix}");
                        continue;
                    };
                    let location = location.strip_prefix("http://app.test").unwrap_or(location);
                    let second = location.get(1..2).unwrap_or_default();
                    let stays = location.starts_with('/') && second != "/" && second != "\\";
                    assert!(stays, "{prefix} {path}: {location}");
                    assert!(insecure || location == "/dashboard/", "{location}");
                }
            }
        }
    }
}

/// T-75 (#13460): `*` is every host, however many labels it has and none at all; `*.` and a name is one label more.
#[test]
fn a_star_is_every_host_and_a_star_with_a_dot_is_one_label() {
    let [star, wild, exact] = ["star", "wild", "exact"].map(Origin::named);
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            star: {{rule: Host(`*`), priority: 1, service: star}}
            wild: {{rule: Host(`*.a.test`), priority: 2, service: wild}}
            exact: {{rule: Host(`x.a.test`), priority: 3, service: exact}}
          services:
            star: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            wild: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            exact: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        star.url(),
        wild.url(),
        exact.url()
    ));
    for (host, want) in [
        ("a.test", "star"),
        ("test", "star"),
        ("localhost", "star"),
        ("b.c.d.e.test", "star"),
        ("y.x.a.test", "star"),
        ("xa.test", "star"),
        ("x.a.test.evil.test", "star"),
        ("127.0.0.1", "star"),
        ("[::1]:80", "star"),
        ("", "star"),
        ("y.a.test", "wild"),
        ("Y.A.test.:8080", "wild"),
        ("x.a.test", "exact"),
        ("X.a.TEST.", "exact"),
    ] {
        let mut ask = Ask::get("/");
        host.clone_into(&mut ask.host);
        let answer = proxy.send(&ask);
        assert_eq!((answer.status, answer.origin()), (200, want), "{host}");
    }
}

/// T-76 (#13520): an upgrade is tried again as long as no server has it, and ends well however it ends.
#[test]
fn an_upgrade_behind_a_retry_is_no_panic() {
    let echo = websocket_echo();
    let middleware = "retry: {attempts: 3, initialInterval: 1ms, status: ['100-599']}";
    let process = Process::start(&json!({}), &through(NOBODY, middleware));
    let upgrade = || {
        let ask = Ask::get("ws.test/")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        Client::connect(process.address("web")).unwrap().send(&ask).unwrap().status
    };
    assert_eq!(upgrade(), 502);
    let refusing = Origin::with(|_| Reply::status(503));
    process.write(&through(&refusing.url(), middleware));
    until("it is refused", || upgrade() == 503);
    let cut = Origin::with(|_| Reply::raw(""));
    process.write(&through(&cut.url(), middleware));
    until("it is cut", || upgrade() == 502);
    let text = through(&echo.url(), middleware)
        .replace("servers: [", &format!("servers: [{{url: '{NOBODY}'}}, "));
    process.write(&text);
    until("the other server is there", || echo.connections() > 0 || upgrade() == 101);
    for _ in 0..4 {
        let mut talk = websocket(socket(process.address("web")).unwrap(), "ws://ws.test/");
        echoed(&mut talk, "hello");
    }
    assert!(!process.log().contains("panic"), "{}", process.log());
}

/// V-07 (CVE-2026-2836): one path, one entity tag, one client and one connection: each host has its own answer, and the
/// authentication's memory is of one host.
#[test]
fn answers_of_one_host_are_not_for_another() {
    let auth = Origin::with(|seen| {
        Reply::ok("").header("X-Tenant", seen.header("x-forwarded-host").unwrap_or_default())
    });
    let app = Origin::with(|seen| {
        let host = seen.header("host").unwrap_or_default();
        assert_eq!(seen.header("x-tenant"), Some(host));
        if seen.header("if-none-match") == Some("\"same\"") && host == "b.test" {
            return Reply::status(304).header("ETag", "\"same\"").header("X-Of", "b.test");
        }
        let reply = Reply::ok(format!("page of {host} ").repeat(200)).header("ETag", "\"same\"");
        reply.header("Cache-Control", "public, max-age=3600").header("X-Of", host)
    });
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            both: {{rule: 'Host(`a.test`) || Host(`b.test`)', service: app, middlewares: [auth, small]}}
          middlewares:
            auth: {{forwardAuth: {{address: '{}', authResponseHeaders: [X-Tenant], cache: {{ttl: 1h}}}}}}
            small: {{compress: {{}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        auth.url(),
        app.url()
    ));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.client();
                for round in 0..50 {
                    let host = if round % 2 == 0 { "a.test" } else { "b.test" };
                    let mut ask = Ask::get(&format!("{host}/page"));
                    if round % 3 == 0 {
                        ask = ask.header("If-None-Match", "\"same\"");
                    }
                    let answer = client.send(&ask).unwrap();
                    assert_eq!(answer.header("x-of"), Some(host));
                    let empty = round % 3 == 0 && host == "b.test";
                    assert_eq!(answer.status, if empty { 304 } else { 200 });
                    assert!(empty || answer.text().starts_with(&format!("page of {host}")));
                }
            });
        }
    });
    assert_eq!(app.count(), 200);
    assert!(auth.count() < 200, "there is a memory");
}

/// V-57 (CVE-2026-27589): a web page changes nothing by asking the API, and reads nothing of it.
#[test]
fn a_web_page_gets_nothing_from_the_api() {
    let proxy = Proxy::start(&everything_to(NOBODY));
    let mut client = None;
    // Anew when the last answer has said that it is the last one.
    let mut send = |ask: &Ask| {
        let mut to =
            client.take().unwrap_or_else(|| Client::connect(proxy.address("traefik")).unwrap());
        let answer = to.send(ask).unwrap();
        if answer.header("connection") != Some("close") {
            client = Some(to);
        }
        answer
    };
    for path in ["/api/rawdata", "/api/http/routers", "/api/overview", "/api/version"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
                let ask = Ask::post(path, "{}").header("Origin", "http://evil.test");
                let mut ask = ask.header("Content-Type", kind);
                method.clone_into(&mut ask.method);
                let answer = send(&ask);
                assert!(matches!(answer.status, 403 | 405), "{method} {path}: {}", answer.status);
            }
        }
        for method in ["GET", "OPTIONS"] {
            let ask = Ask::new(method, path)
                .header("Origin", "http://evil.test")
                .header("Access-Control-Request-Method", "PUT");
            let answer = send(&ask);
            let shares = answer
                .headers
                .iter()
                .any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
            assert!(!shares, "{method} {path}: {answer:?}");
        }
    }
    let shown = proxy.api("/api/rawdata");
    assert_eq!(shown["routers"]["all@file"]["status"], "enabled");
}

/// V-58 (CVE-2026-45692): the login in front of the API is not passed by writing its paths in another way.
#[test]
fn the_api_has_one_path_for_its_login() {
    let proxy = Proxy::with(json!({"api": {"insecure": false}})).start(
        "
        http:
          routers:
            open: {rule: Path(`/api/version`), priority: 9999, service: api@internal}
            api: {rule: PathPrefix(`/api`), service: api@internal, middlewares: [login]}
          middlewares:
            login: {basicAuth: {users: ['test:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=']}}
        ",
    );
    assert_eq!(proxy.get("/api/version").status, 200);
    for target in [
        "/api/rawdata",
        "/api/./rawdata",
        "/api//rawdata",
        "//api/rawdata",
        "/./api/rawdata",
        "/x/../api/rawdata",
        "/api/%2e/rawdata",
        "/api/http/../rawdata",
        "/api/http/%2e%2e/rawdata",
        "/api/version/../rawdata",
        "/api/version/%2e%2e/rawdata",
        "/api/version//../rawdata",
        "/api/version/..;/rawdata",
        "/api/version%2f..%2frawdata",
        "/api/version?/../rawdata",
        "/api/version/",
        "/api/version/rawdata",
        "/%61pi/rawdata",
        "/api%2frawdata",
        "/API/rawdata",
        "/api/rawdata/",
        "/api;/rawdata",
        "/api\\rawdata",
        "http://app.test/api/rawdata",
        "http://app.test//api/rawdata",
        "/debug/vars",
        "/debug/pprof/",
    ] {
        let answer = proxy.send(&Ask::get("/").target(target));
        let version = target == "/api/version?/../rawdata";
        let kept = matches!(answer.status, 400 | 401 | 404) || version && answer.status == 200;
        assert!(kept && !answer.text().contains("open@file"), "{target}: {answer:?}");
        assert_ne!(
            proxy.inside(target.strip_prefix("http://app.test").unwrap_or(target)).status,
            200
        );
    }
}

/// V-61 (CVE-2026-30852): what a client writes is text, wherever the configuration puts it.
#[test]
fn what_looks_like_a_placeholder_is_text() {
    let origin = Origin::start();
    let pages = Origin::start();
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            plain: {{rule: Host(`plain.test`), service: app}}
            away: {{rule: Host(`away.test`), service: app, middlewares: [away]}}
            path: {{rule: Host(`path.test`), service: app, middlewares: [path]}}
            page: {{rule: Host(`page.test`), service: down, middlewares: [page]}}
          middlewares:
            away: {{redirectRegex: {{regex: '^http://away.test/(.*)$', replacement: 'https://here.test/$1'}}}}
            path: {{replacePathRegex: {{regex: '^/(.*)$', replacement: '/at/$1'}}}}
            page: {{errors: {{status: ['502'], service: pages, query: '/{{status}}?{{url}}'}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            pages: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            down: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
        ",
        origin.url(),
        pages.url()
    ));
    let written = [
        "{env.PATH}",
        "${HOME}",
        "$1",
        "$HOME",
        "$$",
        "{{ env \"HOME\" }}",
        "{status}",
        "{file./etc/passwd}",
        "%7benv.PATH%7d",
        "\\1",
        "${1}${0}",
    ];
    for text in written {
        let ask = Ask::get("plain.test/").header("X-Text", text).header("User-Agent", text);
        assert_eq!(proxy.send(&ask.header("Cookie", text)).status, 200);
        for name in ["x-text", "user-agent", "cookie"] {
            assert_eq!(origin.last().header(name), Some(text), "{name}");
        }
    }
    for path in ["a$1", "$0", "$$1", "$%7BHOME%7D", "%7Benv.PATH%7D", "a$10"] {
        let answer = proxy.send(&Ask::get("away.test").target(&format!("/{path}")));
        assert_eq!(answer.status, 302, "{path}");
        let location = answer.header("location").unwrap();
        let read = |text: &str| text.replace("%7B", "{").replace("%7D", "}").replace("%24", "$");
        assert_eq!(read(location), read(&format!("https://here.test/{path}")));
        assert_eq!(proxy.send(&Ask::get("path.test").target(&format!("/{path}"))).status, 200);
        assert_eq!(read(&origin.last().target), read(&format!("/at/{path}")));
        assert_eq!(proxy.send(&Ask::get("page.test").target(&format!("/{path}"))).status, 502);
        let url = pages.last().target.replace("%25", "%").replace("%3A", ":").replace("%2F", "/");
        assert_eq!(read(&url), read(&format!("/502?http://page.test/{path}")));
    }
    assert_eq!(proxy.get("page.test/%7Bstatus%7D").status, 502);
    assert!(!pages.last().target.trim_start_matches("/502").contains("502"));
}
