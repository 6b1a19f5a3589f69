//! Attacks on who may pass and who somebody is: identities that a client makes up, ways around a login, refusals whose
//! time tells something, and credentials that get to where they are not meant for.

use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::origin::Seen;
use crate::harness::{Ask, Client, NOBODY, Origin, Proxy, Reply, block_on, http2, through, until};

/// `test`, with the password `test`.
const USER: &str = "test:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=";

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

/// The values of all headers that a server could take for `name`.
fn spellings<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let plain = |known: &str| known.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let same = |known: &str| plain(known).eq_ignore_ascii_case(name);
    let found = seen.headers.iter().filter(|(known, _)| same(known));
    found.map(|(_, value)| value.as_str()).collect()
}

/// T-36, T-50, T-67, V-45 (CVE-2026-33433, CVE-2026-54763, CVE-2026-88011): however the configuration spells the header, and the client: the backend hears one name.
#[test]
fn a_client_names_itself_in_no_spelling() {
    let origin = Origin::start();
    for spelling in ["x-auth-user", "X-Auth-User", "X-AUTH-USER"] {
        let middleware = format!("basicAuth: {{users: ['{USER}'], headerField: {spelling}}}");
        let proxy = Proxy::start(&through(&origin.url(), &middleware));
        let forged = ["x-auth-user", "X-Auth-User", "X-AUTH-USER", "X_Auth_User", "X.Auth.User"]
            .iter()
            .fold(Ask::get("/"), |ask, name| ask.header(name, "admin"));
        assert_eq!(proxy.send(&forged).status, 401);
        assert_eq!(proxy.send(&forged.header("Authorization", &basic("test:test"))).status, 200);
        assert_eq!(spellings(&origin.last(), "x-auth-user"), ["test"], "{spelling}");
    }
    assert_eq!(origin.count(), 3);
}

/// V-44, V-45 (CVE-2026-30851, CVE-2025-64484): what the authentication server does not say about somebody, nobody says.
#[test]
fn what_the_authentication_server_leaves_out_stays_out() {
    let origin = Origin::start();
    let auth = Origin::with(|seen| match seen.header("cookie") {
        Some("known") => Reply::ok("").header("X-User", "ann"),
        _ => Reply::ok(""),
    });
    for options in ["authResponseHeaders: [x-USER]", "authResponseHeadersRegex: '^X-U'"] {
        let middleware = format!("forwardAuth: {{address: '{}', {options}}}", auth.url());
        let proxy = Proxy::start(&through(&origin.url(), &middleware));
        let forged = ["X-User", "x-user", "X-USER", "X_User", "X.User"]
            .iter()
            .fold(Ask::get("/"), |ask, name| ask.header(name, "admin"));
        assert_eq!(proxy.send(&forged).status, 200);
        let nobody: [&str; 0] = [];
        assert_eq!(spellings(&origin.last(), "x-user"), nobody, "{options}");
        assert_eq!(proxy.send(&forged.header("Cookie", "known")).status, 200);
        assert_eq!(spellings(&origin.last(), "x-user"), ["ann"], "{options}");
    }
}

/// T-39, T-51 (CVE-2026-39858, CVE-2026-54764): nothing that a stranger writes about its address, scheme or port gets
/// to the authentication server, in any spelling and whatever the middleware trusts.
#[test]
fn the_authentication_server_hears_what_is_true() {
    let (origin, auth) = (Origin::start(), Origin::start());
    let claims = [
        ("for", "6.6.6.6"),
        ("proto", "https"),
        ("port", "443"),
        ("host", "evil.test"),
        ("server", "evil"),
        ("uri", "/open"),
        ("method", "LOCK"),
        ("prefix", "/evil"),
        ("tls-client-cert", "forged"),
        ("tls-client-cert-info", "forged"),
    ];
    let mut forged = Ask::get("app.test/private");
    for (name, value) in claims {
        for separator in ["-", "_", ".", "~"] {
            let name = format!("x-forwarded-{name}").replace('-', separator);
            forged = forged.header(&name, value);
        }
    }
    forged = forged.header("X_Real_Ip", "6.6.6.6").header("X-Real-IP", "6.6.6.6");
    for trust in ["", "trustForwardHeader: false, ", "trustForwardHeader: true, "] {
        for list in ["", "authRequestHeaders: [X-Forwarded-Port, X_Forwarded_Proto], "] {
            let options = format!("{trust}{list}address: '{}'", auth.url());
            let proxy =
                Proxy::start(&through(&origin.url(), &format!("forwardAuth: {{{options}}}")));
            assert_eq!(proxy.send(&forged).status, 200, "{options}");
            for seen in [auth.last(), origin.last()] {
                for (name, value) in claims {
                    let heard = spellings(&seen, &format!("x-forwarded-{name}"));
                    assert!(heard.len() < 2 && !heard.contains(&value), "{options}: {seen:?}");
                }
                assert!(!spellings(&seen, "x-real-ip").contains(&"6.6.6.6"), "{options}: {seen:?}");
            }
            let told = auth.last();
            assert_eq!(spellings(&told, "x-forwarded-proto"), ["http"], "{options}");
            assert_eq!(spellings(&told, "x-forwarded-uri"), ["/private"], "{options}");
            let port = spellings(&told, "x-forwarded-port");
            assert!(port.is_empty() || port == ["80"], "{options}: {port:?}");
        }
    }
}

/// T-38 (CVE-2026-40912): a prefix is cut off where it was found, and who decides and who serves see one path.
#[test]
fn a_stripped_path_is_one_path_for_everybody() {
    let (origin, auth) = (Origin::start(), Origin::start());
    let text = |order: &str| {
        let middlewares = format!(
            "auth: {{forwardAuth: {{address: '{}'}}}}
            strip: {{stripPrefixRegex: {{regex: ['^/api']}}}}",
            auth.url()
        );
        through(&origin.url(), "X").replace("one: {X}", &middlewares).replace("[one]", order)
    };
    for order in ["[strip, auth]", "[auth, strip]"] {
        let proxy = Proxy::start(&text(order));
        for (target, want) in [
            ("/api/x", Some("/x")),
            ("/api/x%20y", Some("/x%20y")),
            ("/api%2e/x", None),
            ("/api%2e%2e/x", None),
            ("/api../x", None),
            ("/api./x", None),
            ("/api%20/../x", Some("/x")),
            ("/api/%2e%2e/private", Some("/private")),
            ("/x/../api/private", Some("/private")),
            ("/api%20/../api../x", None),
        ] {
            let (asked, served) = (auth.count(), origin.count());
            let answer = proxy.send(&Ask::get("/").target(target));
            let Some(want) = want else {
                assert_eq!((answer.status, origin.count()), (400, served), "{order} {target}");
                continue;
            };
            assert_eq!((answer.status, auth.count()), (200, asked + 1), "{order} {target}");
            assert_eq!(origin.last().target, want, "{order} {target}");
            if order.starts_with("[strip") {
                assert_eq!(auth.last().header("x-forwarded-uri"), Some(want), "{target}");
            }
        }
        // Whatever is done with odd ones: clean, and the same for both.
        for target in ["/api%20/admin", "/api%2fadmin", "/api;x/admin", "/api%5cadmin", "/apiadmin"]
        {
            let served = origin.count();
            let answer = proxy.send(&Ask::get("/").target(target));
            if origin.count() == served {
                assert!((400..500).contains(&answer.status), "{order} {target}: {answer:?}");
                continue;
            }
            let path = origin.last().target;
            assert!(path.starts_with('/') && !path.contains(".."), "{order} {target}: {path}");
            if order.starts_with("[strip") {
                assert_eq!(auth.last().header("x-forwarded-uri"), Some(&*path), "{target}");
            }
        }
    }
    // What was decoded is cut off where it is written, and not where it is read.
    let proxy = Proxy::start(&text("[strip, auth]").replace("^/api", "^/api[^/]*"));
    for (target, want) in
        [("/api%20/admin", "/admin"), ("/api%20%20v2/x%20y", "/x%20y"), ("/api%20/../x", "/x")]
    {
        assert_eq!(proxy.send(&Ask::get("/").target(target)).status, 200, "{target}");
        assert_eq!(
            (&*origin.last().target, auth.last().header("x-forwarded-uri")),
            (want, Some(want))
        );
    }
}

/// V-47 (CVE-2025-54576): neither a query nor a fragment opens a path that the rule leaves closed.
#[test]
fn a_query_opens_no_path() {
    let origin = Origin::start();
    let text = through(&origin.url(), &format!("basicAuth: {{users: ['{USER}']}}")).replace(
        "routers:\n",
        "routers:
            path: {rule: Path(`/ok`), priority: 100, service: app}
            prefix: {rule: PathPrefix(`/pub/`), priority: 100, service: app}
            pattern: {rule: 'PathRegexp(`/health$`)', priority: 100, service: app}\n",
    );
    let proxy = Proxy::start(&text);
    for open in ["/ok", "/ok?x=/private", "/pub/x", "/a/health", "/a/health?b"] {
        assert_eq!(proxy.get(open).status, 200, "{open}");
    }
    let served = origin.count();
    for closed in [
        "/private?x=/ok",
        "/private?/ok",
        "/private#/ok",
        "/private?x=/health",
        "/private?/pub/",
        "/private#/pub/x",
        "/private?#/health",
        "/private;/ok",
        "/private%3f/ok",
        "/private%23/ok",
        "/pub/../private",
        "/pub/%2e%2e/private",
        "/ok/../private",
        "/ok/",
    ] {
        let answer = proxy.send(&Ask::get("/").target(closed));
        assert!(matches!(answer.status, 400 | 401), "{closed}: {}", answer.status);
    }
    assert_eq!(origin.count(), served);
}

/// V-48 (CVE-2026-34457): no header that a client chooses is a login.
#[test]
fn a_health_checker_is_nobody_special() {
    let origin = Origin::start();
    let auth = Origin::with(|_| Reply::status(401));
    let digest =
        "digestAuth: {users: ['test:traefik:a2688e031edb4be6a3797f3882655c05']}".to_owned();
    for middleware in [
        format!("basicAuth: {{users: ['{USER}']}}"),
        digest,
        format!("forwardAuth: {{address: '{}', trustForwardHeader: true}}", auth.url()),
    ] {
        let proxy = Proxy::start(&through(&origin.url(), &middleware));
        for (name, value) in [
            ("User-Agent", "kube-probe/1.31"),
            ("User-Agent", "ELB-HealthChecker/2.0"),
            ("User-Agent", "GoogleHC/1.0"),
            ("User-Agent", "Doorward"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Original-URL", "/ping"),
            ("X-Rewrite-URL", "/ping"),
            ("X-Forwarded-Uri", "/ping"),
            ("X-Forwarded-User", "test"),
            ("Remote-User", "test"),
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                let answer = proxy.send(&Ask::new(method, "/ping").header(name, value));
                assert_eq!(answer.status, 401, "{middleware}: {method} {name}: {value}");
            }
        }
    }
    assert_eq!(origin.count(), 0);
}

/// T-77 (#13542, #13554): a CONNECT gets no further than the entry point, and neither does what comes behind it.
#[test]
fn connect_reaches_no_authentication_server() {
    let (origin, auth) = (Origin::start(), Origin::start());
    let middleware =
        format!("forwardAuth: {{address: '{}', forwardBody: true, maxBodySize: 100}}", auth.url());
    let proxy = Proxy::start(&through(&origin.url(), &middleware));
    for head in [
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nContent-Length: 30\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.write_raw(head.as_bytes()).unwrap();
        client.write_raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let status = client.read("GET").unwrap().status;
        assert!(matches!(status, 400 | 501), "{head}: {status}");
        assert!(client.is_closed(), "{head}");
    }
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::connect("a.test:443")
            .body(Full::new(Bytes::from_static(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")))
            .unwrap();
        let answered = sender.send_request(request).await;
        assert!(answered.is_err() || answered.is_ok_and(|answer| answer.status() == 501));
    });
    assert_eq!((auth.count(), origin.count()), (0, 0));
}

/// T-49 (CVE-2026-54762): users that cannot be read are no reason to let everybody in.
#[test]
fn a_login_whose_users_are_gone_is_closed() {
    let origin = Origin::start();
    let setup = Proxy::with(json!({}));
    let file = setup.directory().join("users");
    fs::write(&file, USER).unwrap();
    let text = through(&origin.url(), &format!("basicAuth: {{usersFile: {}}}", file.display()));
    let proxy = setup.start(&text);
    let login = Ask::get("/").header("Authorization", &basic("test:test"));
    assert_eq!((proxy.send(&login).status, proxy.get("/").status), (200, 401));
    fs::remove_file(&file).unwrap();
    let open = "routers:\n            open: {rule: Host(`open.test`), service: app}\n";
    proxy.reload(&text.replace("routers:\n", open));
    assert_eq!(proxy.get("open.test/").status, 200);
    until("it is closed", || {
        assert_ne!(proxy.get("/").status, 200);
        proxy.send(&login).status == 503
    });
    assert_eq!(proxy.get("/").status, 503);
    // A file that holds nobody, and one that holds nonsense.
    for content in ["", "# nobody\n", "nonsense\n"] {
        fs::write(&file, content).unwrap();
        proxy.reload(&text);
        for _ in 0..20 {
            let statuses = (proxy.send(&login).status, proxy.get("/").status);
            assert!(matches!(statuses, (401 | 503, 401 | 503)), "{content:?}: {statuses:?}");
        }
    }
    // The middleware itself is gone, or is none.
    for gone in [text.replace("one: {", "other: {"), text.replace("basicAuth:", "basicAuht:")] {
        proxy.write(&gone);
        until("it is closed", || proxy.get("/").status == 503);
        assert_eq!(proxy.send(&login).status, 503);
    }
}

/// T-43 (CVE-2026-41181): the service of error pages need not be one that may know who asks.
#[test]
fn error_pages_get_no_credentials_unless_they_are_listed() {
    let app = Origin::with(|_| Reply::status(500));
    let pages = Origin::start();
    let names = ["Authorization", "Cookie", "Proxy-Authorization"];
    let ask = names.iter().fold(Ask::get("/"), |ask, name| ask.header(name, "secret"));
    let ask = ask.header("Accept-Language", "de");
    for (profile, list, passed) in [
        ("hardened", "", &[][..]),
        ("hardened", ", errorRequestHeaders: [Cookie]", &["Cookie"][..]),
        ("safe", ", errorRequestHeaders: [Accept]", &[][..]),
        ("safe", ", errorRequestHeaders: [Authorization]", &names[..1]),
        ("safe", "", &[][..]),
        ("exact", "", &names[..2]),
    ] {
        let middleware = format!("errors: {{status: ['500'], service: pages, query: /{list}}}");
        let text = through(&app.url(), &middleware).replace(
            "services:\n",
            &format!(
                "services:\n            pages: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
                pages.url()
            ),
        );
        let proxy = Proxy::with(json!({"core": {"profile": profile}})).start(&text);
        assert_eq!(proxy.send(&ask).text(), "origin", "{profile}{list}");
        let asked = pages.last();
        for name in names {
            assert_eq!(asked.header(name).is_some(), passed.contains(&name), "{profile}{list}");
        }
        assert_eq!(asked.header("accept-language").is_some(), list.is_empty(), "{profile}{list}");
    }
}

/// How long a refusal takes, for each of these, in the middle of several tries that take turns.
fn refusals<const N: usize>(proxy: &Proxy, logins: [&str; N]) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::new());
    for _ in 0..9 {
        for (login, times) in logins.iter().zip(&mut times) {
            let ask = Ask::get("/").header("Authorization", &basic(login));
            let start = Instant::now();
            assert_eq!(proxy.send(&ask).status, 401);
            times.push(start.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

/// T-41, T-66 (CVE-2026-41263, CVE-2026-88010): the time of a refusal does not tell which names exist, however many
/// there are, whatever their hashes cost, and however many log in at once.
#[test]
fn refusals_take_one_time() {
    let origin = Origin::start();
    let hash = bcrypt::hash("right", 6).unwrap();
    let many: Vec<_> = (0..50).map(|n| format!("'u{n}:{hash}'")).collect();
    let sha = USER.replacen("test", "cheap", 1);
    for users in [format!("'u0:{hash}'"), many.join(", "), format!("'{sha}', 'u0:{hash}'")] {
        let middleware = format!("basicAuth: {{users: [{users}]}}");
        let proxy = Proxy::start(&through(&origin.url(), &middleware));
        for busy in [false, true] {
            let over = AtomicBool::new(false);
            let times = std::thread::scope(|scope| {
                for login in ["u0:guess", "nobody:guess"] {
                    let (over, proxy) = (&over, &proxy);
                    scope.spawn(move || {
                        let mut client = proxy.client();
                        let ask = Ask::get("/").header("Authorization", &basic(login));
                        while busy && !over.load(Ordering::Acquire) {
                            assert_eq!(client.send(&ask).unwrap().status, 401);
                        }
                    });
                }
                let times = refusals(&proxy, ["u0:wrong", "nobody:wrong", "cheap:wrong"]);
                over.store(true, Ordering::Release);
                times
            });
            let (quick, slow) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            // Without the check in vain it would be a hundred times.
            assert!(*slow < *quick * 4, "{} users, busy: {busy}: {times:?}", users.len() / 60);
        }
    }
    assert_eq!(origin.count(), 0);
}

/// T-03 (CVE-2022-23469): what goes wrong is told at every level, and with whose credentials at none.
#[test]
fn errors_are_logged_without_credentials() {
    const MARK: &str = "markOfTheCredentials";
    let cut = Origin::with(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"));
    let garbage = Origin::with(|_| Reply::raw("garbage\r\n\r\n"));
    let mut text = through(NOBODY, "forwardAuth: {address: 'http://127.0.0.1:1'}")
        .replace("middlewares: [one]", "middlewares: [one, log]");
    text = text
        .replace("one: {", "log: {headers: {customRequestHeaders: {X-A: b}}}\n            one: {");
    for (name, url) in [("cut", cut.url()), ("garbage", garbage.url()), ("down", NOBODY.into())] {
        let router = format!(
            "routers:\n            {name}: {{rule: Host(`{name}.test`), service: {name}}}\n"
        );
        let service = format!(
            "services:\n            {name}: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}\n"
        );
        text = text.replacen("routers:\n", &router, 1).replacen("services:\n", &service, 1);
    }
    let process = Process::start(
        &json!({"log": {"level": "TRACE"}, "accessLog": {"filePath": "access.log"}}),
        &text,
    );
    let names = ["Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "X-Auth-Token"];
    for place in ["cut.test/", "garbage.test/", "down.test/", "auth.test/", "auth.test/%zz"] {
        for odd in ["", "Content-Length: x", "Host: two", "A : b", "Upgrade: h2c"] {
            let mut head = Ask::get(place).head();
            head.truncate(head.len() - 2);
            for name in names {
                let _ = write!(head, "{name}: Bearer {MARK}\r\n");
            }
            if !odd.is_empty() {
                let _ = write!(head, "{odd}\r\n");
            }
            let mut client = Client::connect(process.address("web")).unwrap();
            client.write_raw(format!("{head}\r\n").as_bytes()).unwrap();
            let _ = client.read("GET");
        }
    }
    block_on(async {
        let mut sender = http2::connect(process.address("web")).await;
        let request = Request::get("http://down.test/").header("authorization", MARK);
        let received = http2::send(&mut sender, request.header("cookie", MARK), b"").await;
        assert_eq!(received.response.status, 502);
    });
    let access = process.directory().join("access.log");
    until("the access log has the last one", || {
        fs::read_to_string(&access).unwrap_or_default().contains("HTTP/2.0")
    });
    let log = process.log();
    assert!(log.contains("cannot connect") && log.to_ascii_lowercase().contains("trace"), "{log}");
    for text in [log, fs::read_to_string(access).unwrap()] {
        assert!(!text.contains(MARK), "{text}");
    }
}
