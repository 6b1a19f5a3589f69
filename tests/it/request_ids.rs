//! `requestId`, Doorward's own: one name for a request in everything that is said of it.

use http::Request;
use serde_json::{Value, json};

use crate::harness::{Ask, NOBODY, Origin, Proxy, Reply, block_on, everything_to, http2, until};

fn named(options: &Value) -> Value {
    json!({"entryPoints": {"web": options}})
}

fn is_new(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
}

#[test]
fn without_the_option_the_header_passes() {
    let origin = Origin::with(|_| Reply::ok("").header("X-Request-Id", "backend"));
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let answer = proxy.send(&Ask::get("/").header("X-Request-Id", "a b"));
    assert_eq!(answer.all("x-request-id"), ["backend"]);
    assert_eq!(origin.last().header("x-request-id"), Some("a b"));
    proxy.get("/");
    assert_eq!(origin.last().header("x-request-id"), None);
}

#[test]
fn one_name_goes_both_ways() {
    let origin = Origin::with(|_| Reply::ok("").header("X-Request-Id", "backend"));
    let proxy = Proxy::with(named(&json!({"http": {"requestId": {}}})));
    let proxy = proxy.start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    let mut seen = Vec::new();
    for ask in [
        Ask::get("/"),
        Ask::get("/"),
        Ask::get("/").header("X-Request-Id", "forged").header("X-Request-Id", "twice"),
        Ask::get("/").header("X-Request-Id", "listed").header("Connection", "X-Request-Id"),
        Ask::get("/").header("X_Request_Id", "forged").header("X.Request_Id", "forged"),
    ] {
        let answer = client.send(&ask).unwrap();
        let id = answer.header("x-request-id").unwrap();
        assert!(is_new(id), "{id}");
        assert_eq!(answer.all("x-request-id"), [id]);
        let last = origin.last();
        let sent =
            last.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().ends_with("id"));
        assert_eq!(sent.map(|(_, id)| id).collect::<Vec<_>>(), [id], "{ask:?}");
        seen.push(id.to_owned());
    }
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::get("http://a.test/").header("x-request-id", "forged");
        let received = http2::send(&mut sender, request, b"").await;
        seen.push(received.response.headers["x-request-id"].to_str().unwrap().to_owned());
    });
    assert_eq!(origin.last().header("x-request-id"), seen.last().map(String::as_str));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

#[test]
fn who_is_trusted_gives_names() {
    let origin = Origin::start();
    for (trust, kept) in [
        (json!({"trustedIPs": ["127.0.0.0/8"]}), true),
        (json!({"insecure": true}), true),
        (json!({"trustedIPs": ["192.0.2.0/24"]}), false),
    ] {
        let options =
            json!({"http": {"requestId": {"header": "X-Trace"}}, "forwardedHeaders": trust});
        let proxy = Proxy::with(named(&options)).start(&everything_to(&origin.url()));
        let longest = "x".repeat(128);
        let too_long = "x".repeat(129);
        for (given, sane) in [
            ("4711-a/b", true),
            (&*longest, true),
            (&*too_long, false),
            ("a b", false),
            ("", false),
        ] {
            let answer = proxy.send(&Ask::get("/").header("X-Trace", given));
            let id = answer.header("x-trace").unwrap().to_owned();
            assert_eq!(id == given, kept && sane, "{trust} {given}");
            assert!(id == given || is_new(&id), "{id}");
            assert_eq!(origin.last().header("x-trace"), Some(&*id));
            assert_eq!(origin.last().header("x-request-id"), None);
        }
    }
}

#[test]
fn answers_of_our_own_have_a_name_as_well() {
    let proxy = Proxy::with(named(&json!({"http": {"requestId": {}}}))).start(&format!(
        "
http:
  routers:
    down: {{rule: Path(`/down`), service: down}}
    empty: {{rule: Path(`/empty`), service: empty}}
    broken: {{rule: Path(`/broken`), service: nowhere}}
  services:
    down: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
    empty: {{loadBalancer: {{servers: []}}}}
"
    ));
    for (target, status) in [("/", 404), ("/down", 502), ("/empty", 503), ("/broken", 503)] {
        let answer = proxy.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert!(is_new(answer.header("x-request-id").unwrap()), "{target}");
    }
    let mut client = proxy.client();
    client.write_raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap();
    let answer = client.read("GET").unwrap();
    assert_eq!(answer.status, 400);
    assert!(is_new(answer.header("x-request-id").unwrap()));
}

#[test]
fn error_pages_and_the_access_log_name_it() {
    let pages = Origin::start();
    let directory = tempfile::TempDir::new().unwrap();
    for (entry_point, fields) in [
        (json!({"http": {"requestId": {}}}), json!({})),
        (json!({"http": {"requestId": {}}}), json!({"names": {"requestid": "drop"}})),
        (json!({}), json!({})),
    ] {
        let file = directory.path().join("access.log");
        let _ = std::fs::remove_file(&file);
        let log = json!({"filePath": file, "format": "json", "fields": fields});
        let options = json!({"entryPoints": {"web": entry_point}, "accessLog": log});
        let proxy = Proxy::with(options).start(&format!(
            "
http:
  middlewares:
    pages: {{errors: {{status: ['502'], service: pages, query: '/{{status}}?id={{requestId}}'}}}}
  routers:
    all: {{rule: PathPrefix(`/`), service: down, middlewares: [pages]}}
  services:
    down: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
    pages: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
            pages.url()
        ));
        let answer = proxy.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (502, "origin"));
        let id = answer.header("x-request-id").map(str::to_owned);
        let target = format!("/502?id={}", id.as_deref().unwrap_or_default());
        assert_eq!(pages.last().target, target);
        assert_eq!(pages.last().header("x-request-id"), id.as_deref());
        let line = || std::fs::read_to_string(&file).unwrap_or_default();
        until("the line is there", || line().ends_with('\n'));
        let written: Value = serde_json::from_str(&line()).unwrap();
        let wanted = id.filter(|_| fields == json!({}));
        assert_eq!(written.get("RequestId").and_then(Value::as_str), wanted.as_deref());
    }
}
