//! Options of entry points: limits, time limits, the PROXY protocol, and what a path may hold
//! (RP 2.2 to 2.4).

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::client::socket;
use crate::harness::{Answer, Ask, Client, Origin, Proxy, everything_to};

/// A proxy in front of a new origin, with these options of the entry point `web`.
fn web(options: &Value) -> (Proxy, Origin) {
    let origin = Origin::start();
    let proxy = Proxy::with(json!({"entryPoints": {"web": options}}));
    (proxy.start(&everything_to(&origin.url())), origin)
}

#[test]
fn heads_have_limits() {
    let (proxy, origin) = web(&json!({"http": {"maxHeaderBytes": 8000, "maxHeaderFields": 20}}));
    let with = |count: usize, length: usize| {
        let value = "x".repeat(length);
        let names = (0..count).map(|number| format!("X-{number}"));
        proxy.send(&names.fold(Ask::get("/"), |ask, name| ask.header(&name, &value))).status
    };
    assert_eq!(with(15, 100), 200);
    assert_eq!(with(15, 1000), 431);
    assert_eq!(with(25, 1), 431);
    assert_eq!(origin.count(), 1);
}

fn timeouts(what: &str, time: &str) -> Value {
    json!({"transport": {"respondingTimeouts": {what: time}}})
}

#[test]
fn a_client_that_says_nothing_is_left() {
    let (proxy, _origin) = web(&timeouts("readTimeout", "300ms"));
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a.test\r\nX-"] {
        let start = Instant::now();
        let mut client = proxy.client();
        client.write_raw(begun.as_bytes()).unwrap();
        assert!(client.is_closed(), "{begun:?}");
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(290) && elapsed < Duration::from_secs(10));
    }
}

#[test]
fn a_body_that_comes_too_slowly_is_cut() {
    let (proxy, origin) = web(&timeouts("readTimeout", "300ms"));
    let mut client = proxy.client();
    let ask = Ask::post("/", "1234567890");
    client.write_raw(ask.head().as_bytes()).unwrap();
    client.write_raw(b"12345").unwrap();
    let status = client.read("POST").map(|answer| answer.status);
    assert!(matches!(status, Ok(408) | Err(_)), "{status:?}");
    assert_eq!(origin.count(), 0, "the backend never saw a whole request");
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn an_idle_connection_is_closed() {
    let (proxy, _origin) = web(&timeouts("idleTimeout", "300ms"));
    let mut client = proxy.client();
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    let start = Instant::now();
    assert!(client.is_closed());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_connection_has_an_age() {
    let (proxy, _origin) = web(&json!({"transport": {"keepAliveMaxTime": "200ms"}}));
    let mut client = proxy.client();
    let start = Instant::now();
    loop {
        let answer = client.send(&Ask::get("/")).unwrap();
        assert_eq!(answer.status, 200);
        if answer.header("connection") == Some("close") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(client.is_closed());
}

/// Sends a PROXY header and a request after it.
fn announced(proxy: &Proxy, header: &[u8]) -> std::io::Result<Answer> {
    let mut client = proxy.client();
    client.write_raw(header)?;
    client.send(&Ask::get("/"))
}

#[test]
fn the_proxy_protocol_names_the_client() {
    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n";
    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\x04\xd2\0\x50";
    for (trusted, client) in [("127.0.0.1", "192.0.2.7"), ("192.0.2.1", "127.0.0.1")] {
        let (proxy, origin) = web(&json!({"proxyProtocol": {"trustedIPs": [trusted]}}));
        for header in [V1, V2] {
            assert_eq!(announced(&proxy, header).unwrap().status, 200);
            let seen = origin.last();
            assert_eq!(seen.header("x-forwarded-for"), Some(client), "trusting {trusted}");
            assert_eq!(seen.header("x-real-ip"), Some(client));
        }
        assert_eq!(proxy.get("/").status, 200, "the header may be left out");
        assert_eq!(origin.last().header("x-real-ip"), Some("127.0.0.1"));
    }
    let (proxy, origin) = web(&json!({}));
    assert!(announced(&proxy, V1).is_ok_and(|answer| answer.status == 400));
    assert_eq!(origin.count(), 0, "who does not speak it does not understand it");
}

#[test]
fn underscores_in_header_names() {
    for (strategy, status, kept) in
        [("keep", 200, Some("1")), ("delete", 200, None), ("reject", 400, None)]
    {
        let (proxy, origin) = web(&json!({"http": {"underscoreHeadersStrategy": strategy}}));
        let answer = proxy.send(&Ask::get("/").header("X_Under", "1"));
        assert_eq!(answer.status, status, "{strategy}");
        if status == 200 {
            assert_eq!(origin.last().header("x_under"), kept, "{strategy}");
        } else {
            assert_eq!((answer.text(), origin.count()), ("Bad Request\n".to_owned(), 0));
        }
    }
}

#[test]
fn encoded_characters_may_be_refused() {
    let (proxy, origin) =
        web(&json!({"http": {"encodedCharacters": {"allowEncodedSlash": false}}}));
    for target in ["/a%2Fb", "/a%2fb"] {
        let answer = proxy.get(target);
        assert_eq!((answer.status, answer.body.len()), (400, 0), "{target}");
    }
    assert_eq!(origin.count(), 0);
    for target in ["/a%5Cb", "/a?q=%2F"] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(origin.last().target, target);
    }
}

#[test]
fn queries_and_paths_are_passed_on_as_told() {
    let (proxy, origin) = web(&json!({}));
    for (sent, seen) in [
        ("/?a=b;c=d", "/?a=b&c=d"),
        ("/a//b/../c/", "/a/c/"),
        ("/%7euser/%2f?x=%7e", "/~user/%2F?x=%7e"),
        ("/a%20b", "/a%20b"),
    ] {
        assert_eq!(proxy.get(sent).status, 200, "{sent}");
        assert_eq!(origin.last().target, seen, "{sent}");
    }
    let (proxy, origin) =
        web(&json!({"http": {"encodeQuerySemicolons": true, "sanitizePath": false}}));
    for (sent, seen) in [("/?a=b;c=d", "/?a=b%3Bc=d"), ("/a//b", "/a//b")] {
        assert_eq!(proxy.get(sent).status, 200, "{sent}");
        assert_eq!(origin.last().target, seen, "{sent}");
    }
}

#[test]
fn http_1_0_is_understood() {
    let (proxy, origin) = web(&json!({}));
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(b"GET /old HTTP/1.0\r\nHost: old.test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 ") && answer.ends_with("\r\n\r\norigin"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert_eq!(origin.last().target, "/old");
}

#[test]
fn requests_may_be_sent_before_answers_come() {
    let (proxy, origin) = web(&json!({}));
    let mut client = proxy.client();
    for number in 0..5 {
        client.write(&Ask::post(&format!("/{number}"), format!("body {number}"))).unwrap();
    }
    for number in 0..5 {
        assert_eq!(client.read("POST").unwrap().text(), format!("body {number}"));
    }
    assert_eq!(origin.count(), 5);
}

#[test]
fn what_is_no_http_is_refused_and_reaches_nobody() {
    let (proxy, origin) = web(&json!({}));
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nX : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /#fragment HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.write_raw(bytes.as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, 400, "{bytes:?}");
    }
    let mut connect = proxy.client();
    connect.write_raw(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").unwrap();
    assert_eq!(connect.read("CONNECT").unwrap().status, 501);
    assert_eq!(origin.count(), 0);
    assert_eq!(
        Client::connect(proxy.address("web")).unwrap().send(&Ask::get("/")).unwrap().status,
        200
    );
}
