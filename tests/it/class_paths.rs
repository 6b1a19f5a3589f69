//! Paths and hosts that are written oddly: whoever decides by one sees the same as whoever else does, and no redirect
//! leads away (G-07, G-09, G-54, G-55, G-75).

use std::fmt::Write as _;

use serde_json::json;

use crate::class_addresses::from;
use crate::harness::certs::Tls;
use crate::harness::{Answer, Ask, Client, Origin, Proxy, Reply, block_on, http2};

/// Twenty ways to write a path that is, or is not, below `/private`.
const ODD: [&str; 20] = [
    "/private",
    "/private/",
    "//private/x",
    "///private//x",
    "/./private/x",
    "/open/../private/x",
    "/open/%2e%2e/private/x",
    "/open/%2E./private/x",
    "/%70rivate/x",
    "/%50rivate/x",
    "/priv%61te/%7ex",
    "/private/../open/x",
    "/private/%2e%2e/open/x",
    "/private;v=1/x",
    "/;/private/x",
    "/private%2Fx",
    "/open%2f..%2fprivate/x",
    "/private%5C..%5Copen",
    "/private%00/x",
    "/private/x?next=/open/../private",
];

/// `/private` and everything else, through `options`; the router behind sees what nobody has touched.
fn guarded(app: &Origin, options: &str) -> Proxy {
    Proxy::start(&format!(
        "
        http:
          routers:
            private: {{rule: 'Host(`m.test`) && PathPrefix(`/private`)', service: app, middlewares: [one]}}
            open: {{rule: Host(`m.test`), service: app}}
            all: {{rule: Host(`all.test`), service: app, middlewares: [one]}}
            plain: {{rule: Host(`plain.test`), service: app}}
          middlewares:
            one: {options}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        app.url()
    ))
}

/// What became of a request: the status, where it was sent, and what the backend was asked.
fn verdict(proxy: &Proxy, app: &Origin, host: &str, target: &str) -> (u16, String, Option<String>) {
    let before = app.count();
    let answer = proxy.send(&Ask::get(host).target(target));
    let location = answer.header("location").unwrap_or_default().to_owned();
    let seen = (app.count() > before).then(|| {
        let seen = app.last();
        [&*seen.target, seen.header("x-replaced-path").unwrap_or_default()].join(" ")
    });
    (answer.status, location, seen)
}

/// G-07: a middleware judges the path that its router was chosen by, and that goes to the backend.
#[test]
fn middlewares_and_rules_see_one_path() {
    let (app, auth) = (
        Origin::named("app"),
        Origin::with(|seen| {
            let uri = seen.header("x-forwarded-uri").unwrap_or_default();
            Reply::status(if uri.starts_with("/private") { 403 } else { 200 })
        }),
    );
    let forward = format!("{{forwardAuth: {{address: '{}'}}}}", auth.url());
    let middlewares = [
        "{basicAuth: {users: ['u:$2y$04$9uQ5SWSGzFZ0tSqn0KYEPOfJ9.yIKfNAX2E1iQVYo3TEsGWfmTkEe']}}",
        &forward,
        "{ipAllowList: {sourceRange: [192.0.2.0/24]}}",
        "{redirectRegex: {regex: '^http://[^/]+/private(.*)$', replacement: 'https://login.test/$1'}}",
        "{addPrefix: {prefix: /base}}",
        "{replacePath: {path: /fixed}}",
    ];
    for options in middlewares {
        let proxy = guarded(&app, options);
        let mut closed = 0;
        for odd in ODD {
            let (status, _, seen) = verdict(&proxy, &app, "plain.test", odd);
            let Some(seen) = seen else {
                assert_eq!(status, 400, "{odd}");
                for host in ["m.test", "all.test"] {
                    assert_eq!(verdict(&proxy, &app, host, odd), (400, String::new(), None));
                }
                continue;
            };
            let canonical = seen.trim_end();
            for host in ["m.test", "all.test"] {
                let got = verdict(&proxy, &app, host, odd);
                let want = verdict(&proxy, &app, host, canonical);
                assert_eq!(got, want, "{options}: {odd} is {canonical}");
                if host == "all.test" {
                    continue;
                }
                let is_private = canonical.starts_with("/private");
                let touched = got != (200, String::new(), Some(format!("{canonical} ")));
                assert_eq!(touched, is_private, "{options}: {odd} is {canonical}, {got:?}");
                closed += usize::from(touched);
            }
        }
        assert!(closed >= 10, "{options}: only {closed} are private");
    }
}

/// G-09: of several names the authority counts, for the route and for whoever is told. `Forwarded` passes as in
/// Traefik, but for the hardened profile.
#[test]
fn the_authority_counts_and_no_other_name() {
    for profile in ["safe", "hardened"] {
        the_authority_counts(profile);
    }
}

fn the_authority_counts(profile: &str) {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::with(json!({"core": {"profile": profile}})).start(&format!(
        "
        http:
          routers:
            a: {{rule: Host(`a.test`), service: a}}
            b: {{rule: Host(`b.test`), service: b}}
            sa: {{rule: Host(`a.test`), service: a, tls: {{}}}}
            sb: {{rule: Host(`b.test`), service: b, tls: {{}}}}
          services:
            a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            b: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        a.url(),
        b.url()
    ));
    let told = |origin: &Origin| {
        let seen = origin.last();
        let of = |name| {
            let found = seen.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("host"), ["a.test"], "{seen:?}");
        assert_eq!(of("x-forwarded-host"), ["a.test"], "{seen:?}");
        if profile == "hardened" {
            assert!(of("forwarded").is_empty(), "{seen:?}");
        }
    };
    let aliases =
        ["X-Forwarded-Host", "X_Forwarded_Host", "X-Host", "X-Original-Host", "Forwarded"];
    // HTTP/1: an absolute target beats the field, and no other field counts.
    for (target, host) in [("/", "a.test"), ("http://a.test/", "b.test")] {
        let mut ask = Ask::get(host).target(target);
        for alias in aliases {
            ask = ask.header(alias, if alias == "Forwarded" { "host=b.test" } else { "b.test" });
        }
        let answer = proxy.send(&ask);
        assert_eq!((answer.status, answer.origin()), (200, "a"), "{target}");
        told(&a);
    }
    // HTTP/2, in clear text and over TLS: refused, or the pseudo-header beats the field.
    block_on(async {
        for secure in [false, true] {
            let mut sender = if secure {
                http2::connect_tls(proxy.address("websecure"), "a.test").await
            } else {
                http2::connect(proxy.address("web")).await
            };
            let scheme = if secure { "https" } else { "http" };
            for alias in aliases.iter().copied().chain(["host"]) {
                let value = if alias == "Forwarded" { "host=b.test" } else { "b.test" };
                let before = a.count();
                let request =
                    http::Request::get(format!("{scheme}://a.test/")).header(alias, value);
                let answer = http2::send(&mut sender, request, b"").await;
                let status = answer.response.status.as_u16();
                if alias == "host" && status == 400 {
                    assert_eq!(a.count(), before);
                    continue;
                }
                assert_eq!(status, 200, "{alias}");
                assert_eq!(answer.response.headers["x-origin"], "a");
                told(&a);
            }
        }
    });
    assert_eq!(b.count(), 0);
    // The name of the handshake chooses no router either.
    let mut secured = Tls::anyone().connect(proxy.address("websecure"), Some("b.test")).unwrap();
    let answer = secured.client.send(&Ask::get("a.test/")).unwrap();
    assert_eq!((answer.status, answer.origin()), (200, "a"));
}

/// Whether this answer leads to `host`, in one line that no browser reads as another place.
fn leads_to(answer: &Answer, authority: &str) -> bool {
    let [location] = answer.all("location")[..] else { return false };
    let starts = location.to_ascii_lowercase().starts_with(&format!("https://{authority}/"));
    let uri = location.parse::<http::Uri>();
    starts
        && location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && uri.is_ok_and(|uri| uri.authority().is_some_and(|found| found == authority))
}

/// G-54: a redirect leads to the host that was asked, whatever stands in path, query and fields.
#[test]
fn redirects_lead_to_the_own_host() {
    let app = Origin::start();
    let whole = json!({"entryPoints": {"web": {"http": {"redirections": {
        "entryPoint": {"to": ":8443"}
    }}}}});
    let text = |middleware: &str| {
        format!(
            "
            http:
              routers: {{all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}}}
              middlewares: {{one: {middleware}}}
              services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
            ",
            app.url()
        )
    };
    let targets = [
        "/",
        "//evil.test",
        "//evil.test/..",
        "///evil.test/%2e%2e",
        "/\\evil.test",
        "/\\/evil.test",
        "/%5Cevil.test",
        "/%2F%2Fevil.test",
        "/%2f/evil.test",
        "/.//evil.test",
        "/@evil.test",
        "/..//evil.test",
        "/%0d%0aLocation:%20http://evil.test",
        "/%0D%0A%0D%0A<script>",
        "/%09/evil.test",
        "/%E5%98%8A%E5%98%8DLocation:x",
        "/?next=//evil.test",
        "/?a=%0d%0aX:y",
        "/http://evil.test/",
        "/:80@evil.test/",
    ];
    for (name, proxy) in [
        ("redirectScheme", Proxy::start(&text("{redirectScheme: {scheme: https, port: '8443'}}"))),
        (
            "redirectRegex",
            Proxy::start(&text(
                "{redirectRegex: {regex: '^http://([^/:]+)(:[0-9]+)?/(.*)', replacement: 'https://${1}:8443/${3}'}}",
            )),
        ),
        ("entry point", Proxy::with(whole).start(&text("{addPrefix: {prefix: /x}}"))),
    ] {
        let mut redirected = 0;
        for target in targets {
            for host in ["a.test", "a.test:80", "A.test:8080"] {
                let ask = Ask::get(host)
                    .target(target)
                    .header("X-Forwarded-Host", "evil.test")
                    .header("X-Forwarded-Port", "666")
                    .header("Origin", "http://evil.test");
                let answer = proxy.send(&ask);
                if answer.status == 400 {
                    assert_eq!(answer.header("location"), None, "{name}: {target}");
                    continue;
                }
                redirected += 1;
                assert!((301..=308).contains(&answer.status), "{name}: {target}: {answer:?}");
                assert!(leads_to(&answer, "a.test:8443"), "{name}: {target}: {answer:?}");
                assert_eq!(answer.header("x"), None);
            }
        }
        assert!(redirected > 30, "{name}: {redirected}");
    }
    assert_eq!(app.count(), 0);
}

/// G-55: who asks for a host that nobody serves is sent nowhere, however it is written.
#[test]
fn foreign_hosts_are_sent_nowhere() {
    let app = Origin::start();
    let redirect = "
          middlewares: {one: {redirectScheme: {scheme: https}}}";
    let proxy = Proxy::start(&format!(
        "
        http:
          routers: {{own: {{rule: Host(`own.test`), service: app, middlewares: [one]}}}}{redirect}
          services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
        ",
        app.url()
    ));
    for (request, status) in [
        ("GET http://evil.test/ HTTP/1.1\r\nHost: own.test\r\n\r\n", 404),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", 404),
        ("GET http://evil.test/ HTTP/1.0\r\nHost: own.test\r\n\r\n", 404),
        ("GET / HTTP/1.0\r\nHost: evil.test\r\n\r\n", 404),
        ("GET / HTTP/1.0\r\n\r\n", 404),
        ("GET http://own.test@evil.test/ HTTP/1.1\r\nHost: own.test\r\n\r\n", 400),
        ("GET http://evil.test#own.test/ HTTP/1.1\r\nHost: own.test\r\n\r\n", 400),
    ] {
        let mut client = proxy.client();
        client.write_raw(request.as_bytes()).unwrap();
        let answer = client.read("GET").unwrap();
        assert_eq!((answer.status, answer.header("location")), (status, None), "{request}");
        assert!(!answer.text().contains("evil"), "{answer:?}");
    }
    let own = proxy.send(&Ask::get("evil.test").target("http://own.test/x"));
    assert_eq!(own.header("location"), Some("https://own.test/x"));
    assert_eq!(app.count(), 0);
}

/// G-75: what `config/dynamic/tenants.yml` closes is closed in every spelling, to everybody but the office, and the
/// application hears of one host and of no database.
#[test]
fn the_recipe_closes_the_database_manager() {
    let odoo = Origin::start();
    let recipe = include_str!("../../config/dynamic/tenants.yml");
    let mut text = String::new();
    for line in recipe.lines() {
        let url = line.trim_start().starts_with("- url: ");
        let line = if url { line.split("- url").next().unwrap() } else { line };
        text += line;
        if url {
            let _ = write!(text, "- url: {}", odoo.url());
        }
        text.push('\n');
    }
    // As in `config/doorward.yml`.
    let underscores = json!({"http": {"underscoreHeadersStrategy": "delete"}});
    let proxy = Proxy::with(json!({"entryPoints": {"web": underscores}})).start(&text);
    let send = |peer: &str, ask: &Ask| {
        let stream = from(peer, &proxy);
        Client::over(Box::new(stream.try_clone().unwrap()), stream).send(ask).unwrap()
    };
    let asked = |seen: &crate::harness::origin::Seen| !seen.target.ends_with("/health");
    for (target, status) in [
        ("/web/database/manager", 403),
        ("/web/database", 403),
        ("/web/database/list?x=/web/login", 403),
        ("//web//database/manager", 403),
        ("/web/./database/manager", 403),
        ("/web/login/../database/manager", 403),
        ("/web/%2e%2e/web/database/manager", 403),
        ("/%77eb/database/manager", 403),
        ("/web/%64atabase/manager", 403),
        ("/web/database;x/manager", 403),
        ("http://north.example.test/web/database/manager", 403),
        ("/xmlrpc/db", 403),
        ("/xmlrpc//2/db", 403),
        ("/web/database/%zz", 400),
        ("/web\\database/manager", 200),
        ("/web/login", 200),
    ] {
        for host in ["north.example.test", "NORTH.example.test:80", "north.example.test."] {
            let before = odoo.all().iter().filter(|seen| asked(seen)).count();
            let ask = Ask::get(host)
                .target(target)
                .header("X-Forwarded-For", "127.0.0.1")
                .header("X-Real-Ip", "127.0.0.1")
                .header("X-Forwarded-Host", "south.example.test")
                .header("X-Odoo-Database", "south")
                .header("X_Odoo_Database", "south");
            assert_eq!(send("127.0.0.2", &ask).status, status, "{target} at {host}");
            let passed: Vec<_> = odoo.all().into_iter().filter(|seen| asked(seen)).collect();
            assert_eq!(passed.len() - before, usize::from(status == 200), "{target} at {host}");
            if status == 200 {
                let seen = passed.last().unwrap();
                // Odoo reads one of the two, as `proxy_mode` says.
                assert_eq!(seen.header("host"), Some(host));
                assert_eq!(seen.header("x-forwarded-host"), Some(host));
                let names = seen.headers.iter().map(|(name, _)| name.replace('_', "-"));
                let database = names.filter(|name| name.eq_ignore_ascii_case("x-odoo-database"));
                assert_eq!(database.count(), 0, "{seen:?}");
            }
        }
    }
    assert_eq!(send("127.0.0.1", &Ask::get("north.example.test/web/database/manager")).status, 200);
}
