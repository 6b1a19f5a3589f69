//! Each middleware once, from the client to the backend and back (RP 7).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::certs::Tls;
use crate::harness::{Ask, DEADLINE, NOBODY, Origin, Proxy, Reply, through};

fn start(middleware: &str) -> (Proxy, Origin) {
    let origin = Origin::start();
    (Proxy::start(&through(&origin.url(), middleware)), origin)
}

#[test]
fn add_prefix() {
    let (proxy, origin) = start("addPrefix: {prefix: /base}");
    assert_eq!(proxy.get("/a%2Fb?q=1").status, 200);
    assert_eq!(origin.last().target, "/base/a%2Fb?q=1");
}

#[test]
fn strip_prefix() {
    let (proxy, origin) = start("stripPrefix: {prefixes: [/api, /v1]}");
    for (asked, wanted, prefix) in [
        ("/api/users?q=1", "/users?q=1", Some("/api")),
        ("/v1", "/", Some("/v1")),
        ("/apix", "/x", Some("/api")),
        ("/other", "/other", None),
    ] {
        assert_eq!(proxy.get(asked).status, 200);
        let seen = origin.last();
        assert_eq!((&*seen.target, seen.header("x-forwarded-prefix")), (wanted, prefix));
    }
    let count = origin.count();
    assert_eq!(proxy.get("/api../secret").status, 400);
    assert_eq!(origin.count(), count);
}

#[test]
fn replace_path() {
    let (proxy, origin) = start("replacePath: {path: /always}");
    assert_eq!(proxy.get("/a%2Fb?q=1").status, 200);
    let seen = origin.last();
    assert_eq!((&*seen.target, seen.header("x-replaced-path")), ("/always?q=1", Some("/a%2Fb")));
}

#[test]
fn redirect_scheme() {
    let (proxy, origin) = start("redirectScheme: {scheme: https, permanent: true}");
    let answer = proxy.get("a.test:80/p?q=1");
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://a.test/p?q=1")));
    assert_eq!(proxy.send(&Ask::post("a.test/p", "body")).status, 308);
    assert_eq!(origin.count(), 0);
    let (proxy, _origin) = start("redirectScheme: {scheme: https, port: '8443'}");
    let answer = proxy.get("a.test/p");
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://a.test:8443/p")));
}

#[test]
fn redirect_of_a_whole_entry_point() {
    let origin = Origin::start();
    let redirect = json!({"entryPoints": {"web": {"http": {"redirections": {
        "entryPoint": {"to": ":443"}
    }}}}});
    let text = through(&origin.url(), "addPrefix: {prefix: /x}");
    let proxy =
        Proxy::with(redirect).start(&text.replace("service: app, ", "service: app, tls: {}, "));
    let answer = proxy.get("a.test/p?q=1");
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://a.test/p?q=1")));
    let mut secured = Tls::anyone().connect(proxy.address("websecure"), Some("a.test")).unwrap();
    assert_eq!(secured.client.send(&Ask::get("a.test/p")).unwrap().status, 200);
}

#[test]
fn redirect_regex() {
    let (proxy, origin) =
        start("redirectRegex: {regex: '^http://a\\.test/(.*)', replacement: 'http://b.test/$1'}");
    let answer = proxy.get("a.test/p?q=1");
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://b.test/p?q=1")));
    assert_eq!(proxy.get("c.test/p").status, 200);
    assert_eq!(origin.count(), 1);
}

#[test]
fn headers() {
    let origin = Origin::with(|_| Reply::ok("ok").header("X-Powered-By", "Odoo"));
    let proxy = Proxy::start(&through(
        &origin.url(),
        "headers: {customRequestHeaders: {X-Tenant: t1, X-Secret: ''}, \
         customResponseHeaders: {X-Served-By: doorward, X-Powered-By: ''}, frameDeny: true, \
         contentTypeNosniff: true}",
    ));
    let answer = proxy.send(&Ask::get("/").header("X-Secret", "1").header("X-Tenant", "t2"));
    let seen = origin.last();
    assert_eq!((seen.header("x-tenant"), seen.header("x-secret")), (Some("t1"), None));
    assert_eq!(answer.header("x-served-by"), Some("doorward"));
    assert_eq!(answer.header("x-powered-by"), None);
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn headers_answer_a_preflight() {
    let (proxy, origin) = start(
        "headers: {accessControlAllowMethods: [GET, PUT], accessControlAllowHeaders: ['X-A'], \
         accessControlAllowOriginList: ['https://app.test'], accessControlMaxAge: 60}",
    );
    let answer = proxy.send(
        &Ask::new("OPTIONS", "/")
            .header("Origin", "https://app.test")
            .header("Access-Control-Request-Method", "PUT"),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,PUT"));
    assert_eq!(origin.count(), 0);
}

#[test]
fn ip_allow_list() {
    let (proxy, origin) = start("ipAllowList: {sourceRange: ['192.0.2.0/24']}");
    let answer = proxy.send(&Ask::get("/").header("X-Forwarded-For", "192.0.2.1"));
    assert_eq!((answer.status, &*answer.text()), (403, "Forbidden"));
    assert_eq!(origin.count(), 0);
    let (proxy, _origin) = start("ipAllowList: {sourceRange: ['127.0.0.1']}");
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn rate_limit() {
    let (proxy, origin) = start("rateLimit: {average: 1, period: 1h, burst: 2}");
    for _ in 0..2 {
        assert_eq!(proxy.get("/").status, 200);
    }
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (429, "Too Many Requests"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert!(answer.header("x-retry-in").is_some());
    assert_eq!(origin.count(), 2);
}

#[test]
fn in_flight_req() {
    let (arrived, arrival) = sync_channel(1);
    let (go, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let origin = Origin::with(move |seen| {
        if seen.target == "/slow" {
            let _ = arrived.send(());
            let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        }
        Reply::ok("ok")
    });
    let proxy = Proxy::start(&through(&origin.url(), "inFlightReq: {amount: 1}"));
    let mut slow = proxy.client();
    slow.write(&Ask::get("/slow")).unwrap();
    arrival.recv_timeout(DEADLINE).unwrap();
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (429, "max connections reached: 1"));
    assert_eq!(proxy.get("other.test/").status, 200, "another host has a count of its own");
    go.send(()).unwrap();
    assert_eq!(slow.read("GET").unwrap().status, 200);
    crate::harness::until("the slot is free", || proxy.get("/").status == 200);
}

/// `user:pass`, as the line of a users file.
fn user(directory: &std::path::Path) -> String {
    let hash = bcrypt::hash("pass", 4).unwrap();
    let file = directory.join("users");
    std::fs::write(&file, format!("user:{hash}\n")).unwrap();
    file.display().to_string()
}

fn credentials(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[test]
fn basic_auth() {
    let origin = Origin::start();
    let setup = Proxy::with(json!({}));
    let file = user(setup.directory());
    let proxy = setup.start(&through(
        &origin.url(),
        &format!(
            "basicAuth: {{usersFile: {file}, realm: odoo, headerField: X-User, removeHeader: true}}"
        ),
    ));
    let refused = proxy.send(&Ask::get("/").header("X-User", "admin"));
    assert_eq!((refused.status, &*refused.text()), (401, "401 Unauthorized\n"));
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"odoo\""));
    for wrong in ["user:wrong", "other:pass", "user", ""] {
        let ask = Ask::get("/").header("Authorization", &credentials(wrong));
        assert_eq!(proxy.send(&ask).status, 401, "{wrong}");
    }
    assert_eq!(origin.count(), 0);
    let ask = Ask::get("/").header("Authorization", &credentials("user:pass"));
    assert_eq!(proxy.send(&ask.header("X-User", "admin")).status, 200);
    let seen = origin.last();
    assert_eq!((seen.header("x-user"), seen.header("authorization")), (Some("user"), None));
}

#[test]
fn retry_goes_to_another_server_when_nothing_was_sent() {
    let origin = Origin::start();
    let text = through(&origin.url(), "retry: {attempts: 2}")
        .replace("servers: [", &format!("servers: [{{url: '{NOBODY}'}}, "));
    let proxy = Proxy::start(&text);
    for _ in 0..6 {
        assert_eq!(proxy.send(&Ask::post("/", "body")).text(), "body");
    }
    assert_eq!(origin.count(), 6);
}

#[test]
fn retry_asks_again_when_the_status_says_so() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let origin = Origin::with(move |_| match asked.fetch_add(1, Ordering::AcqRel) % 3 {
        2 => Reply::ok("third"),
        _ => Reply::status(503),
    });
    let proxy = Proxy::start(&through(&origin.url(), "retry: {attempts: 3, status: ['503']}"));
    assert_eq!(proxy.get("/").text(), "third");
    assert_eq!(origin.count(), 3);
    assert_eq!(proxy.send(&Ask::post("/", "body")).status, 503, "a POST is sent once");
    assert_eq!(origin.count(), 4);
}

#[test]
fn chain_keeps_the_order() {
    let origin = Origin::start();
    let text = through(&origin.url(), "chain: {middlewares: [b, a]}").replace(
        "          middlewares:\n",
        "          middlewares:
            a: {addPrefix: {prefix: /a}}
            b: {addPrefix: {prefix: /b}}\n",
    );
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("/p").status, 200);
    assert_eq!(origin.last().target, "/a/b/p");
}

/// RP 2.4: those of the entry point come first, for every router.
#[test]
fn middlewares_of_an_entry_point() {
    let origin = Origin::start();
    let before = json!({"entryPoints": {"web": {"http": {"middlewares": ["first@file"]}}}});
    let text = through(&origin.url(), "addPrefix: {prefix: /second}").replace(
        "          middlewares:\n",
        "          middlewares:\n            first: {addPrefix: {prefix: /first}}\n",
    );
    let proxy = Proxy::with(before).start(&text);
    assert_eq!(proxy.get("/p").status, 200);
    assert_eq!(origin.last().target, "/second/first/p");
}
