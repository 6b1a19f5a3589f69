//! Who may pass: `digestAuth`, `forwardAuth`, `ipWhiteList` and `passTLSClientCert` in the program
//! itself, in front of real backends (RP 7.3, 7.7).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite;

use crate::harness::binary::Process;
use crate::harness::certs::{Ca, Tls};
use crate::harness::client::socket;
use crate::harness::origin::Seen;
use crate::harness::{Answer, Ask, Client, NOBODY, Origin, Proxy, Reply, pause, through, until};
use crate::wire::{echoed, websocket, websocket_echo};

fn start(origin: &Origin, middleware: &str) -> Process {
    Process::start(&json!({}), &through(&origin.url(), middleware))
}

fn send(process: &Process, ask: &Ask) -> Answer {
    Client::connect(process.address("web")).unwrap().send(ask).unwrap()
}

/// MD5 of these parts with colons between them, in hexadecimal digits.
fn md5(parts: &[&str]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(parts.join(":")).into()))
}

/// The value of one parameter of a challenge.
fn parameter(answer: &Answer, name: &str) -> String {
    let challenge = answer.header("www-authenticate").unwrap();
    let (_, rest) = challenge.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// What a client answers to a challenge.
fn proof(challenge: &Answer, password: &str, target: &str, nc: &str) -> String {
    let (nonce, opaque) = (parameter(challenge, "nonce"), parameter(challenge, "opaque"));
    let asked = md5(&["GET", target]);
    let hash = md5(&["user", "odoo", password]);
    let response = md5(&[&hash, &nonce, nc, "c", "auth", &asked]);
    format!(
        "Digest username=\"user\", realm=\"odoo\", nonce=\"{nonce}\", uri=\"{target}\", \
         algorithm=MD5, qop=auth, nc={nc}, cnonce=\"c\", response=\"{response}\", \
         opaque=\"{opaque}\""
    )
}

/// G-53: what proves a password once proves nothing the second time.
#[test]
fn digest_auth() {
    let origin = Origin::start();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("users");
    fs::write(&file, format!("user:odoo:{}\n", md5(&["user", "odoo", "pass"]))).unwrap();
    let middleware = format!(
        "digestAuth: {{usersFile: {}, realm: odoo, headerField: X-User, removeHeader: true}}",
        file.display()
    );
    let process = start(&origin, &middleware);
    let challenge = send(&process, &Ask::get("/"));
    assert_eq!((challenge.status, &*challenge.text()), (401, "401 Unauthorized\n"));
    let ask = |password: &str, target: &str, nc: &str| {
        let ask = Ask::get("/a?b=c").header("X-User", "admin");
        send(&process, &ask.header("Authorization", &proof(&challenge, password, target, nc)))
    };
    assert_eq!(ask("wrong", "/a?b=c", "00000001").status, 401);
    assert_eq!(ask("pass", "/", "00000001").status, 401);
    assert_eq!(origin.count(), 0);
    assert_eq!(ask("pass", "/a?b=c", "00000002").status, 200);
    let seen = origin.last();
    assert_eq!((seen.header("x-user"), seen.header("authorization")), (Some("user"), None));
    assert_eq!(ask("pass", "/a?b=c", "00000002").status, 401, "a proof is good once");
    let late = ask("pass", "/a?b=c", "00000001");
    assert_eq!((late.status, &*parameter(&late, "stale")), (401, "true"));
    assert_eq!(origin.count(), 1);
    // Who is logged in stays so when something else changes.
    let text = through(&origin.url(), &middleware);
    process.write(&text.replace(
        "routers:\n",
        "routers:\n            open: {rule: Host(`open.test`), service: app}\n",
    ));
    until("the new router is there", || send(&process, &Ask::get("open.test/")).status == 200);
    assert_eq!(ask("pass", "/a?b=c", "000000ff").status, 200);
    // Users that change on disk are noticed.
    fs::write(&file, "other:odoo:0123456789abcdef0123456789abcdef\n").unwrap();
    let mut nc = 0x100;
    until("the user is gone", || {
        nc += 1;
        ask("pass", "/a?b=c", &format!("{nc:08x}")).status == 401
    });
}

/// Challenges and nonces of before a restart are the protocol, a wrong password is a guess.
#[test]
fn users_of_digest_auth_are_not_banned() {
    let origin = Origin::start();
    let user = format!("user:odoo:{}", md5(&["user", "odoo", "pass"]));
    let text = through(&origin.url(), &format!("digestAuth: {{users: ['{user}'], realm: odoo}}"));
    let ban = "ban: {threshold: 2, conditions: [{status: ['401']}]}";
    let text = text
        .replace("[one]", "[jail, one]")
        .replace("one: {digest", &format!("jail: {{{ban}}}\n            one: {{digest"));
    let proxy = Proxy::start(&text);
    let stale = Proxy::start(&text).get("/");
    let ask = |challenge: &Answer, password: &str| {
        Ask::get("/").header("Authorization", &proof(challenge, password, "/", "00000001"))
    };
    for _ in 0..3 {
        let challenge = proxy.get("/");
        assert_eq!(challenge.status, 401);
        assert_eq!(proxy.send(&ask(&challenge, "pass")).status, 200);
        let answer = proxy.send(&ask(&stale, "pass"));
        assert_eq!((answer.status, &*parameter(&answer, "stale")), (401, "true"));
    }
    let challenge = proxy.get("/");
    for status in [401, 401, 403] {
        assert_eq!(proxy.send(&ask(&challenge, "guess")).status, status);
    }
}

/// Lets `token: good` pass, and sends everybody else to log in.
fn gatekeeper() -> Origin {
    Origin::with(|seen| match seen.header("token") {
        Some("good") => Reply::ok("welcome").header("X-User", "ann").header("Set-Cookie", "sso=1"),
        Some("bad") => Reply::status(403).header("X-Why", "bad token"),
        _ => Reply::status(302).header("Location", "/login"),
    })
}

#[test]
fn forward_auth() {
    let (origin, keeper) = (Origin::start(), gatekeeper());
    let process = start(
        &origin,
        &format!(
            "forwardAuth: {{address: '{}/check', trustForwardHeader: false, \
             authResponseHeaders: [X-User], addAuthCookiesToResponse: [sso]}}",
            keeper.url()
        ),
    );
    let sent = send(&process, &Ask::get("shop.test/cart?id=1"));
    assert_eq!(
        (sent.status, sent.header("location")),
        (302, Some(&*format!("{}/login", keeper.url())))
    );
    let seen = keeper.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/check"));
    for (name, value) in [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-uri", "/cart?id=1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-port", "80"),
    ] {
        let ask = Ask::post("shop.test/cart?id=1", "body").header("X-Forwarded-For", "6.6.6.6");
        assert_eq!(send(&process, &ask).status, 302);
        assert_eq!(keeper.last().header(name), Some(value), "{name}");
        assert!(keeper.last().body.is_empty());
    }
    let refused = send(&process, &Ask::get("/").header("token", "bad"));
    assert_eq!((refused.status, refused.header("x-why")), (403, Some("bad token")));
    assert_eq!(origin.count(), 0);

    let ask = Ask::post("/", "hello").header("token", "good");
    let ask = ask.header("X-User", "admin").header("X_User", "admin");
    for _ in 0..20 {
        let answer = send(&process, &ask);
        assert_eq!((answer.status, &*answer.text()), (200, "hello"));
        assert_eq!(answer.all("set-cookie"), ["sso=1"]);
        let seen = origin.last();
        assert_eq!((seen.header("x-user"), seen.header("x_user")), (Some("ann"), None));
    }
    assert!(keeper.connections() < keeper.count() / 2, "connections to the server are kept");
}

#[test]
fn forward_auth_sends_bodies_and_limits_them() {
    let (origin, keeper) = (Origin::start(), Origin::start());
    let process = start(
        &origin,
        &format!(
            "forwardAuth: {{address: '{}', forwardBody: true, maxBodySize: 10, \
             preserveRequestMethod: true, authSigninURL: 'https://sso.test/'}}",
            keeper.url()
        ),
    );
    for ask in [Ask::post("/", "0123456789"), Ask::post("/", "0123456789").chunked()] {
        assert_eq!(send(&process, &ask).text(), "0123456789");
        assert_eq!((&*keeper.last().method, &*keeper.last().body), ("POST", &b"0123456789"[..]));
    }
    assert_eq!((origin.count(), keeper.count()), (2, 2));
    for ask in [Ask::post("/", "0123456789a"), Ask::post("/", "0123456789a").chunked()] {
        let answer = send(&process, &ask);
        assert_eq!((answer.status, &*answer.text()), (401, ""));
    }
    assert_eq!((origin.count(), keeper.count()), (2, 2));
}

/// The bus of an Odoo behind a login.
#[test]
fn forward_auth_asks_once_for_a_websocket() {
    let keeper = Origin::with(|seen| match seen.header("x-forwarded-uri") {
        Some("/open") => Reply::ok(""),
        _ => Reply::status(403),
    });
    let origin = websocket_echo();
    let process = start(&origin, &format!("forwardAuth: {{address: '{}'}}", keeper.url()));
    let mut bus = websocket(socket(process.address("web")).unwrap(), "ws://ws.test/open");
    for text in ["hello", "again"] {
        echoed(&mut bus, text);
    }
    let seen = keeper.last();
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!((keeper.count(), origin.connections()), (1, 1));
    let stream = socket(process.address("web")).unwrap();
    assert!(tungstenite::client("ws://ws.test/closed", stream).is_err());
    assert_eq!((keeper.count(), origin.connections()), (2, 1));
}

/// A refusal has a body only where the client waits for one.
#[test]
fn forward_auth_answers_head_without_a_body() {
    let origin = Origin::start();
    let keeper = Origin::with(|seen| match seen.header("token") {
        Some("good") => Reply::ok(""),
        _ => Reply::raw("HTTP/1.1 403 X\r\nX-Why: no\r\nContent-Length: 7\r\n\r\ngo away"),
    });
    let process = start(&origin, &format!("forwardAuth: {{address: '{}'}}", keeper.url()));
    let mut client = Client::connect(process.address("web")).unwrap();
    for (method, token, want) in
        [("HEAD", "bad", 403), ("GET", "bad", 403), ("HEAD", "good", 200), ("GET", "good", 200)]
    {
        let answer = client.send(&Ask::new(method, "/").header("token", token)).unwrap();
        assert_eq!(answer.status, want, "{method} {token}");
        assert_eq!(answer.header("x-why").is_some(), want == 403);
    }
    assert_eq!(keeper.last().method, "GET");
}

/// Doorward's own `cache`, over reloads and by many clients at once.
#[test]
fn forward_auth_remembers_what_was_allowed() {
    let (origin, keeper) = (Origin::start(), Origin::with(remembering));
    let cache = "cache: {ttl: 1h, maxEntries: 100, ignoreHeaders: [X-Forwarded-Uri]}";
    let middleware = format!(
        "forwardAuth: {{address: '{}', trustForwardHeader: false, authResponseHeaders: [X-User], \
         {cache}}}",
        keeper.url()
    );
    let process = start(&origin, &middleware);
    let ask = |path: &str, cookie: &str| {
        let ask = Ask::get(path).header("Cookie", cookie).header("X-User", "admin");
        send(&process, &ask)
    };
    // All at once: one question, and nobody passes without its answer.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|at| {
                let ask = &ask;
                scope.spawn(move || ask(&format!("/{at}"), "slow"))
            })
            .collect();
        for one in asking {
            assert_eq!(one.join().unwrap().status, 200);
        }
    });
    assert_eq!((keeper.count(), origin.count()), (1, 8));
    assert_eq!(origin.last().header("x-user"), Some("slow"));
    // Another method, another host, another user: other questions.
    for (at, ask) in [
        Ask::post("/", "x").header("Cookie", "slow"),
        Ask::get("other.test/").header("Cookie", "slow"),
        Ask::get("/").header("Cookie", "ann"),
    ]
    .iter()
    .enumerate()
    {
        for _ in 0..2 {
            assert_eq!(send(&process, ask).status, 200);
            assert_eq!(keeper.count(), at + 2);
        }
    }
    assert_eq!(origin.last().header("x-user"), Some("ann"));
    // Refusals and what the server wants forgotten are asked for every time.
    for (cookie, status) in [("out", 401), ("private", 200)] {
        let before = keeper.count();
        for _ in 0..2 {
            assert_eq!(ask("/", cookie).status, status);
        }
        assert_eq!(keeper.count(), before + 2, "{cookie}");
    }
    // A reload that changes something else forgets nothing; another setting does.
    ask("/", "ann");
    let text = through(&origin.url(), &middleware);
    let more = "routers:\n            open: {rule: Host(`open.test`), service: app}\n";
    process.write(&text.replace("routers:\n", more));
    until("the new router is there", || send(&process, &Ask::get("open.test/")).status == 200);
    let before = keeper.count();
    assert_eq!((ask("/", "ann").status, keeper.count()), (200, before));
    process.write(&text.replace("ttl: 1h", "ttl: 2h"));
    until("the new setting is there", || {
        ask("/", "ann");
        keeper.count() > before
    });
}

/// What is allowed for one path and method is allowed for no other, and the names that the entry
/// point gives to requests do not make them differ.
#[test]
fn forward_auth_remembers_by_path_and_method() {
    let origin = Origin::start();
    let keeper = Origin::with(|seen| {
        let is_admin = seen.header("x-forwarded-uri").is_some_and(|uri| uri.contains("admin"));
        let deletes = seen.header("x-forwarded-method") == Some("DELETE");
        Reply::status(if is_admin || deletes { 403 } else { 200 })
    });
    let middleware = format!(
        "forwardAuth: {{address: '{}', trustForwardHeader: false, \
         cache: {{ignoreHeaders: [User-Agent]}}}}",
        keeper.url()
    );
    let named = json!({"entryPoints": {"web": {"http": {"requestId": {}}}}});
    let proxy = Proxy::with(named).start(&through(&origin.url(), &middleware));
    for (method, path, status, asked) in [
        ("GET", "/public", 200, 1),
        ("GET", "/public", 200, 1),
        ("GET", "/admin", 403, 2),
        ("DELETE", "/public", 403, 3),
        ("GET", "/public", 200, 3),
    ] {
        let ask = Ask::new(method, path).header("Cookie", "s=1");
        assert_eq!(proxy.send(&ask).status, status, "{method} {path}");
        assert_eq!(keeper.count(), asked, "{method} {path}");
    }
}

/// An authentication server for which the cookie is the user.
fn remembering(seen: &Seen) -> Reply {
    match seen.header("cookie") {
        Some("out") => Reply::status(401),
        Some("private") => Reply::ok("").header("Cache-Control", "private"),
        Some(user) => {
            if user == "slow" {
                pause(Duration::from_millis(300));
            }
            Reply::ok("").header("X-User", user)
        }
        None => Reply::status(403),
    }
}

#[test]
fn a_cache_that_cannot_be_is_told() {
    let (origin, keeper) = (Origin::start(), gatekeeper());
    let middleware = format!("forwardAuth: {{address: '{}', cache: {{ttl: 0s}}}}", keeper.url());
    let process = start(&origin, &middleware);
    assert_eq!(send(&process, &Ask::get("/").header("token", "good")).status, 503);
    assert_eq!((keeper.count(), origin.count()), (0, 0));
}

/// G-48: whatever befalls the server, the backend is not asked.
#[test]
fn forward_auth_fails_closed() {
    let origin = Origin::start();
    let auth =
        |address: &str| format!("forwardAuth: {{address: '{address}', maxResponseBodySize: 8}}");
    let process = start(&origin, &auth(NOBODY));
    assert_eq!(send(&process, &Ask::get("/")).status, 500);
    let broken = [
        (Origin::with(|_| Reply::raw("")), 500),
        (Origin::with(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")), 500),
        (
            Origin::with(|_| {
                Reply::raw("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            }),
            500,
        ),
        (Origin::with(|_| Reply::ok("more than eight")), 401),
        (Origin::with(|_| Reply::ok("more than eight").chunked()), 401),
    ];
    for (keeper, want) in &broken {
        process.write(&through(&origin.url(), &auth(&keeper.url())));
        until("the new server is asked", || {
            let _ = send(&process, &Ask::get("/"));
            keeper.count() > 0
        });
        let answer = send(&process, &Ask::get("/"));
        assert_eq!((answer.status, &*answer.text()), (*want, ""));
    }
    assert_eq!(origin.count(), 0);
    // The server is there, and goes away.
    let open = Arc::new(AtomicBool::new(true));
    let door = Arc::clone(&open);
    let keeper =
        Origin::with(
            move |_| {
                if door.load(Ordering::Acquire) { Reply::ok("") } else { Reply::raw("") }
            },
        );
    process.write(&through(&origin.url(), &auth(&keeper.url())));
    until("it lets pass", || send(&process, &Ask::get("/")).status == 200);
    let before = origin.count();
    open.store(false, Ordering::Release);
    assert_eq!(send(&process, &Ask::get("/")).status, 500);
    drop(keeper);
    assert_eq!(send(&process, &Ask::get("/")).status, 500);
    assert_eq!(origin.count(), before);
}

/// An authentication server that speaks TLS and wants a certificate of `ca`.
fn secured(keeper: &Origin, ca: &Ca) -> Proxy {
    let setup = Proxy::with(json!({}));
    let (cert, key) = ca.issue(&["127.0.0.1"]).write(setup.directory(), "server");
    let authority = setup.directory().join("ca.pem");
    fs::write(&authority, ca.pem()).unwrap();
    let tls = format!(
        "
        tls:
          stores:
            default: {{defaultCertificate: {{certFile: {}, keyFile: {}}}}}
          options:
            default:
              clientAuth: {{caFiles: ['{}'], clientAuthType: RequireAndVerifyClientCert}}
        ",
        cert.display(),
        key.display(),
        authority.display()
    );
    let text = through(&keeper.url(), "addPrefix: {prefix: /tls}");
    let text = text.replace("service: app,", "service: app, tls: {},");
    setup.start(&(text + &tls))
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn forward_auth_speaks_tls() {
    let (origin, keeper, ca) = (Origin::start(), gatekeeper(), Ca::new());
    let server = secured(&keeper, &ca);
    let address = format!("https://{}/check", server.address("websecure"));
    let directory = TempDir::new().unwrap();
    let ours = ca.issue(&["doorward"]);
    let authority = write(directory.path(), "ca.pem", &ca.pem());
    let stranger = write(directory.path(), "other.pem", &Ca::new().pem());
    let cert = write(directory.path(), "cert.pem", &ours.cert);
    let key = write(directory.path(), "key.pem", &ours.key);
    let identity = format!("cert: {cert}, key: {key}");
    for (tls, want) in [
        (format!("ca: {authority}, {identity}"), 200),
        (format!("insecureSkipVerify: true, {identity}"), 200),
        (format!("ca: {authority}"), 500),
        (format!("ca: {stranger}, {identity}"), 500),
        (identity.clone(), 500),
    ] {
        let auth = format!("forwardAuth: {{address: '{address}', tls: {{{tls}}}}}");
        let process = start(&origin, &auth);
        let (asked, passed) = (keeper.count(), origin.count());
        let answer = send(&process, &Ask::get("/").header("token", "good"));
        assert_eq!(answer.status, want, "{tls}");
        assert_eq!((keeper.count() > asked, origin.count() > passed), (want == 200, want == 200));
    }
    assert_eq!(keeper.last().target, "/tls/check");
}

#[test]
fn ip_white_list() {
    let origin = Origin::start();
    let process = start(&origin, "ipWhiteList: {sourceRange: ['192.0.2.0/24']}");
    let answer = send(&process, &Ask::get("/").header("X-Forwarded-For", "192.0.2.1"));
    assert_eq!((answer.status, &*answer.text()), (403, "Forbidden"));
    assert!(process.log().contains("`ipWhiteList` is deprecated"), "{}", process.log());
    assert_eq!(origin.count(), 0);
    process.write(&through(&origin.url(), "ipWhiteList: {sourceRange: ['127.0.0.1']}"));
    until("the list is another", || send(&process, &Ask::get("/")).status == 200);
}

/// The headers about certificates.
const NAMES: [&str; 2] = ["X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info"];

/// T-71
#[test]
fn pass_tls_client_cert() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let directory = TempDir::new().unwrap();
    let authority = write(directory.path(), "ca.pem", &ca.pem());
    let text = through(
        &origin.url(),
        "passTLSClientCert: {pem: true, info: {sans: true, notAfter: false, \
         subject: {commonName: true}, issuer: {commonName: true}}}",
    );
    let text = text.replace("service: app,", "service: app, tls: {},")
        + &format!(
            "
        tls:
          options:
            default:
              clientAuth: {{caFiles: ['{authority}'], clientAuthType: VerifyClientCertIfGiven}}
        "
        );
    let process = Process::start(&json!({}), &text);
    let at = process.address("websecure");
    let forged = || {
        NAMES.iter().fold(Ask::get("a.test/"), |ask, name| {
            ask.header(name, "forged").header(&name.replace('-', "_"), "forged")
        })
    };
    let ours = ca.issue(&["pod.test"]);
    let mut known = Tls::with_identity(&ours).connect(at, Some("a.test")).unwrap();
    for _ in 0..2 {
        assert_eq!(known.client.send(&forged()).unwrap().status, 200);
        let seen = origin.last();
        let pem: String = ours.cert.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(seen.header(NAMES[0]), Some(&*pem));
        let info = "Subject%3D%22CN%3Dpod.test%22%3BIssuer%3D%22CN%3Dtest+authority%22%3B\
                    SAN%3D%22pod.test%22";
        assert_eq!(seen.header(NAMES[1]), Some(info));
        assert!(seen.headers.iter().all(|(_, value)| value != "forged"), "{seen:?}");
    }
    let mut unknown = Tls::anyone().connect(at, Some("a.test")).unwrap();
    assert_eq!(unknown.client.send(&forged()).unwrap().status, 200);
    let seen = origin.last();
    assert!(NAMES.iter().all(|name| seen.header(name).is_none()), "{seen:?}");
    assert!(seen.headers.iter().all(|(_, value)| value != "forged"), "{seen:?}");
}
