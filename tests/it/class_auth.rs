//! Who may pass, and what is told of whom: whatever the authentication server does, only its yes lets a request or an
//! upgrade pass, and each side hears what is configured and no more (G-47 to G-50, G-52).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use md5::{Digest, Md5};
use serde_json::json;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::origin::Seen;
use crate::harness::{Answer, Ask, Client, NOBODY, Origin, Proxy, Reply};
use crate::system::memory;
use crate::wire::{echoed, websocket, websocket_echo};

/// A router for everything through `middleware`, which is written in one line.
fn through(url: &str, middleware: &str) -> String {
    format!(
        "
        http:
          routers:
            open: {{rule: PathPrefix(`/open`), service: app}}
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}
          middlewares:
            one: {{{middleware}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        "
    )
}

fn all<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let same = |known: &str| known.replace('_', "-").eq_ignore_ascii_case(name);
    let found = seen.headers.iter().filter(|(known, _)| same(known));
    found.map(|(_, value)| value.as_str()).collect()
}

const USER: &str = "u:$2y$04$9uQ5SWSGzFZ0tSqn0KYEPOfJ9.yIKfNAX2E1iQVYo3TEsGWfmTkEe";

/// G-47: an upgrade goes through the same middlewares as any request, and rules see its `Origin`.
#[test]
fn upgrades_pass_no_guard() {
    let bus = websocket_echo();
    let keeper = Origin::with(|_| Reply::text(403, "no"));
    let forward = format!("forwardAuth: {{address: '{}'}}", keeper.url());
    let basic = format!("basicAuth: {{users: ['{USER}']}}");
    let digest = "digestAuth: {users: ['u:r:0123456789abcdef0123456789abcdef'], realm: r}";
    let limit = "inFlightReq: {amount: 0}";
    for (guard, status) in [
        (&*forward, 403),
        (&basic, 401),
        (digest, 401),
        ("ipAllowList: {sourceRange: [192.0.2.0/24]}", 403),
        (limit, 429),
    ] {
        let (proxy, before) = (Proxy::start(&through(&bus.url(), guard)), bus.connections());
        let stream = socket(proxy.address("web")).unwrap();
        let refused = tungstenite::client("ws://ws.test/private", stream);
        let Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) = refused
        else {
            panic!("{guard}: {refused:?}");
        };
        assert_eq!(answer.status(), status, "{guard}");
        // Bytes behind the request are no tunnel: they are the next request, or nothing.
        let mut client = proxy.client();
        let upgrade = "GET /private HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: \
                       websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n\u{1}\u{2}bytes";
        client.write_raw(upgrade.as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, status, "{guard}");
        assert_eq!(bus.connections(), before, "{guard}");
        let mut open = websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/open");
        echoed(&mut open, "hello");
        assert_eq!(bus.connections(), before + 1, "{guard}");
    }
    // Where only some origins may connect, a router's rule says so.
    let bus = websocket_echo();
    let proxy = Proxy::start(
        &through(&bus.url(), "addPrefix: {prefix: /x}")
            .replace("PathPrefix(`/open`)", "'Header(`Origin`, `https://own.test`)'")
            .replace("PathPrefix(`/`), service: app", "Path(`/none`), service: app"),
    );
    for (origin, granted) in [("https://own.test", true), ("https://evil.test", false)] {
        let mut request: Request<()> = "ws://ws.test/bus".into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let opened = tungstenite::client(request, socket(proxy.address("web")).unwrap());
        assert_eq!(opened.is_ok(), granted, "{origin}");
        if let Ok((mut socket, _)) = opened {
            echoed(&mut socket, "hello");
        }
    }
    assert_eq!(bus.connections(), 1);
}

/// G-48: the backend is asked if the authentication server says 2xx, and in no other case; what else it says reaches
/// the client with its body.
#[test]
fn only_a_yes_lets_pass() {
    let app = Origin::named("app");
    let (release, held) = mpsc::sync_channel::<()>(1);
    let held = Mutex::new(held);
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
    let switched = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let modes: [(&str, Option<Origin>, u16, &str); 12] = [
        ("down", None, 500, ""),
        ("closes", Some(Origin::with(|_| Reply::raw(""))), 500, ""),
        ("no HTTP", Some(Origin::with(|_| Reply::raw("SSH-2.0-x\r\n\r\n"))), 500, ""),
        ("cut", Some(Origin::with(move |_| Reply::raw(cut))), 500, ""),
        ("101", Some(Origin::with(move |_| Reply::raw(switched))), 500, ""),
        (
            "302",
            Some(Origin::with(|_| Reply::status(302).header("Location", "https://sso.test/"))),
            302,
            "",
        ),
        ("304", Some(Origin::with(|_| Reply::status(304))), 304, ""),
        ("401", Some(Origin::with(|_| Reply::text(401, "log in"))), 401, "log in"),
        ("404", Some(Origin::with(|_| Reply::text(404, "gone"))), 404, "gone"),
        ("500", Some(Origin::with(|_| Reply::text(500, "oops"))), 500, "oops"),
        ("503", Some(Origin::with(|_| Reply::status(503).close())), 503, ""),
        (
            "slow",
            Some(Origin::with(move |_| {
                let _ = held.lock().unwrap().recv();
                Reply::status(403)
            })),
            403,
            "",
        ),
    ];
    for (mode, keeper, status, body) in &modes {
        let address = keeper.as_ref().map_or(NOBODY.to_owned(), Origin::url);
        let proxy =
            Proxy::start(&through(&app.url(), &format!("forwardAuth: {{address: '{address}'}}")));
        for ask in [Ask::get("/x"), Ask::post("/x", "body"), Ask::post("/x", "body").chunked()] {
            let mut client = proxy.client();
            client.write(&ask).unwrap();
            if *mode == "slow" {
                // It was asked, and says nothing yet: nobody passes meanwhile.
                let keeper = keeper.as_ref().unwrap();
                let before = keeper.count();
                crate::harness::until("it is asked", || keeper.count() > before.saturating_sub(1));
                assert_eq!(app.count(), 0);
                release.send(()).unwrap();
            }
            let answer = client.read(&ask.method).unwrap();
            assert_eq!((answer.status, &*answer.text()), (*status, *body), "{mode}");
        }
        assert_eq!(app.count(), 0, "{mode}");
    }
    for status in [200, 204, 226, 299] {
        let keeper = Origin::with(move |_| Reply::status(status));
        let address = keeper.url();
        let proxy =
            Proxy::start(&through(&app.url(), &format!("forwardAuth: {{address: '{address}'}}")));
        let before = app.count();
        assert_eq!(proxy.get("/x").origin(), "app", "{status}");
        assert_eq!(app.count(), before + 1);
    }
}

/// G-49: the server is told what is listed, the backend hears of the user what the server says, and the client gets the
/// cookies that are named.
#[test]
fn each_side_hears_what_is_configured() {
    let app = Origin::with(|_| Reply::ok("ok").header("Set-Cookie", "app=1"));
    let keeper = Origin::with(|seen| {
        let reply = Reply::ok("").header("Set-Cookie", "sso=1").header("Set-Cookie", "other=1");
        let reply = reply.header("X-Internal", "1").header("X-Auth-Role", "user");
        if seen.header("x-forwarded-uri") == Some("/silent") {
            return Reply::ok("");
        }
        reply.header("X-User", "ann")
    });
    let ask = |target: &str| {
        Ask::get(target)
            .header("Cookie", "session=secret")
            .header("Authorization", "Bearer secret")
            .header("X-Api-Key", "secret")
            .header("Accept-Language", "de")
            .header("X-User", "admin")
            .header("x_user", "admin")
            .header("X-Auth-Role", "admin")
            .header("X-Auth-Group", "admins")
    };
    let start = |options: &str| {
        let address = keeper.url();
        Proxy::start(&through(
            &app.url(),
            &format!("forwardAuth: {{address: '{address}', {options}}}"),
        ))
    };
    let proxy = start(
        "authRequestHeaders: [Authorization], authResponseHeaders: [X-User], \
         authResponseHeadersRegex: '^X-Auth-', addAuthCookiesToResponse: [sso]",
    );
    let answer = proxy.send(&ask("/x"));
    assert_eq!((answer.status, answer.all("set-cookie")), (200, vec!["app=1", "sso=1"]));
    assert_eq!(answer.header("x-internal"), None);
    let told = keeper.last();
    assert_eq!(all(&told, "authorization"), ["Bearer secret"]);
    for name in ["cookie", "x-api-key", "accept-language", "x-user", "x-auth-role"] {
        assert!(all(&told, name).is_empty(), "{name}: {told:?}");
    }
    let seen = app.last();
    assert_eq!(all(&seen, "x-user"), ["ann"], "{seen:?}");
    assert_eq!(all(&seen, "x-auth-role"), ["user"]);
    assert!(all(&seen, "x-auth-group").is_empty(), "nobody said so: {seen:?}");
    assert!(all(&seen, "x-internal").is_empty());
    assert_eq!(all(&seen, "cookie"), ["session=secret"]);
    // What the server does not say of the user, the client does not say either.
    assert_eq!(proxy.send(&ask("/silent")).status, 200);
    let seen = app.last();
    for name in ["x-user", "x-auth-role", "x-auth-group"] {
        assert!(all(&seen, name).is_empty(), "{name}: {seen:?}");
    }
    // Nothing configured: all is told to the server, and nothing of its answer is passed on.
    let proxy = start("trustForwardHeader: false");
    let answer = proxy.send(&ask("/x"));
    assert_eq!(answer.all("set-cookie"), ["app=1"]);
    assert_eq!(all(&keeper.last(), "cookie"), ["session=secret"]);
    assert_eq!(all(&app.last(), "x-auth-role"), ["admin"]);
}

/// G-50: a body that is too long for the authentication server is refused while it comes, and not kept.
#[test]
fn a_body_that_is_too_long_is_asked_about_by_nobody() {
    let (app, keeper) = (Origin::start(), Origin::start());
    let auth = format!(
        "forwardAuth: {{address: '{}', forwardBody: true, maxBodySize: 1048576}}",
        keeper.url()
    );
    let process = Process::start(&json!({}), &through(&app.url(), &auth));
    let at = process.address("web");
    let send = |ask: &Ask| Client::connect(at).unwrap().send(ask).unwrap();
    let fits = vec![b'x'; 1 << 20];
    let answer = send(&Ask::post("/x", fits.clone()));
    assert_eq!(
        (answer.status, answer.body.len(), keeper.last().body.len()),
        (200, 1 << 20, 1 << 20)
    );
    let (asked, passed, before) = (keeper.count(), app.count(), memory(&process));
    let pieces = Arc::new(AtomicUsize::new(0));
    for chunked in [false, true] {
        let mut stream = socket(at).unwrap();
        let framing =
            if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 67108864" };
        write!(stream, "POST /x HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n").unwrap();
        let mut upload = stream.try_clone().unwrap();
        let count = Arc::clone(&pieces);
        let uploading = std::thread::spawn(move || {
            let piece = [&b"10000\r\n"[..], &vec![b'x'; 65536], b"\r\n"].concat();
            let piece = if chunked { &piece[..] } else { &piece[7..65543] };
            for _ in 0..1024 {
                if upload.write_all(piece).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::AcqRel);
            }
        });
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401", "chunked: {chunked}");
        drop(stream);
        uploading.join().unwrap();
    }
    assert_eq!((keeper.count(), app.count()), (asked, passed));
    let grown = memory(&process).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more for two bodies of 64 MiB");
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

fn md5(parts: &[&str]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(parts.join(":")).into()))
}

/// The answer to a challenge of `digestAuth`.
fn digest(challenge: &Answer) -> String {
    let text = challenge.header("www-authenticate").unwrap();
    let of = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0
    };
    let (nonce, opaque) = (of("nonce"), of("opaque"));
    let hash = md5(&["user", "odoo", "pass"]);
    let response = md5(&[&hash, nonce, "00000001", "c", "auth", &md5(&["GET", "/"])]);
    format!(
        "Digest username=\"user\", realm=\"odoo\", nonce=\"{nonce}\", uri=\"/\", algorithm=MD5, \
         qop=auth, nc=00000001, cnonce=\"c\", response=\"{response}\", opaque=\"{opaque}\""
    )
}

/// G-52: credentials end at the proxy where that is asked for, and one header names the user, whoever else it names.
#[test]
fn the_backend_hears_of_the_user_and_not_of_the_password() {
    let app = Origin::start();
    let line = bcrypt::hash("pass", 4).unwrap();
    let hash = md5(&["user", "odoo", "pass"]);
    for kind in ["basicAuth", "digestAuth"] {
        for removed in [true, false] {
            let users = match kind {
                "basicAuth" => format!("users: ['user:{line}']"),
                _ => format!("users: ['user:odoo:{hash}'], realm: odoo"),
            };
            let proxy = Proxy::start(&through(
                &app.url(),
                &format!("{kind}: {{{users}, headerField: X-User, removeHeader: {removed}}}"),
            ));
            let credentials = match kind {
                "basicAuth" => basic("user:pass"),
                _ => digest(&proxy.get("/")),
            };
            let ask = Ask::get("/")
                .header("X-User", "admin")
                .header("Authorization", &credentials)
                .header("x_user", "admin")
                .header("X-USER", "root");
            assert_eq!(proxy.send(&ask).status, 200, "{kind}");
            let seen = app.last();
            assert_eq!(all(&seen, "x-user"), ["user"], "{kind}: {seen:?}");
            let want: &[&str] = if removed { &[] } else { &[&credentials] };
            assert_eq!(all(&seen, "authorization"), want, "{kind}");
            // Without credentials nobody is anybody.
            let before = app.count();
            assert_eq!(proxy.send(&Ask::get("/").header("X-User", "admin")).status, 401);
            assert_eq!(app.count(), before);
        }
    }
}
