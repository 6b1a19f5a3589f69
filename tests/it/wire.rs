//! What goes over the wire: bodies, upgrades, HTTP/2, forwarded headers, and servers that fail
//! (RP 12, 13, 14; F-01 to F-21).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use http::Request;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::harness::certs::{Ca, Pair, Tls};
use crate::harness::client::{Wire, socket};
use crate::harness::{
    Ask, DEADLINE, NOBODY, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until,
};

const BIG: usize = 20 << 20;

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

fn proxy_to(origin: &Origin) -> Proxy {
    Proxy::start(&everything_to(&origin.url()))
}

#[test]
fn bodies_pass_both_ways_in_either_framing() {
    let origin = Origin::with(|seen| {
        let reply = Reply::ok(seen.body.clone());
        if seen.target == "/chunked" { reply.chunked() } else { reply }
    });
    let proxy = proxy_to(&origin);
    let body = noise(123_456);
    for target in ["/plain", "/chunked"] {
        for chunked in [false, true] {
            let ask = Ask::post(target, body.clone());
            let answer = proxy.send(&if chunked { ask.chunked() } else { ask });
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "{target}, {chunked}");
            let seen = origin.last();
            assert!(seen.body == body);
            assert_eq!(seen.header("transfer-encoding").is_some(), chunked);
            assert_eq!(seen.header("content-length").is_some(), !chunked);
            assert_eq!(answer.header("content-length").is_some(), target == "/plain");
        }
    }
}

#[test]
fn big_bodies_arrive_whole() {
    let origin = Origin::with(|seen| Reply::ok(seen.body.clone()));
    let proxy = proxy_to(&origin);
    let body = noise(BIG);
    let answer = proxy.send(&Ask::post("/", body.clone()));
    assert_eq!(hash(&origin.last().body), hash(&body));
    assert_eq!((answer.body.len(), hash(&answer.body)), (BIG, hash(&body)));
}

#[test]
fn answers_without_a_body() {
    let origin = Origin::with(|seen| match &*seen.target {
        "/204" => Reply::status(204),
        "/304" => Reply::status(304).header("ETag", "\"x\""),
        _ => Reply::ok("hello"),
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    // All on one connection: a byte too many would break the next answer.
    let head = client.send(&Ask::new("HEAD", "/")).unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    for (target, status) in [("/204", 204), ("/304", 304)] {
        let answer = client.send(&Ask::get(target)).unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (status, None));
    }
    assert_eq!(client.send(&Ask::get("/")).unwrap().text(), "hello");
}

/// F-11
#[test]
fn a_body_that_waits_for_100_is_asked_for() {
    let origin = Origin::start();
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    let ask = Ask::post("/", "hello").header("Expect", "100-continue");
    let start = Instant::now();
    client.write_raw(ask.head().as_bytes()).unwrap();
    assert_eq!(client.read_head().unwrap().0, 100);
    client.write_raw(b"hello").unwrap();
    let answer = client.read("POST").unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    assert!(start.elapsed() < DEADLINE / 2);
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200, "the connection is clean");
}

/// RP 13: what the backend answers without wanting the body comes instead of a 100.
#[test]
fn a_body_that_waits_for_100_may_be_refused() {
    let origin = Origin::raw(|mut stream, _| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let _ = stream.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    let ask = Ask::post("/", "hello").header("Expect", "100-continue");
    client.write_raw(ask.head().as_bytes()).unwrap();
    let answer = client.read("POST").unwrap();
    assert_eq!((answer.status, answer.before.len(), &*answer.text()), (417, 0, "no"));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::start();
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

/// RP 2.2
/// A connection that has been idle for a while is kept with less than a busy one: nobody notices.
#[test]
fn a_connection_goes_on_after_a_rest() {
    let (origin, chat) = (Origin::start(), websocket_echo());
    let options = json!({"entryPoints": {"websecure": {"http": {"tls": {}}}}});
    let proxy = Proxy::with(options).start(&format!(
        "
        http:
          routers:
            app: {{rule: Host(`app.test`), service: app}}
            chat: {{rule: Host(`chat.test`), service: chat}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            chat: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url(),
        chat.url()
    ));
    let at = proxy.address("websecure");
    let mut clear = proxy.client();
    let mut secure = Tls::anyone().connect(at, Some("app.test")).unwrap().client;
    let mut wire = socket(proxy.address("web")).unwrap();
    for round in 0..2 {
        for client in [&mut clear, &mut secure] {
            let answer = client.send(&Ask::post("/", noise(100_000))).unwrap();
            assert_eq!((answer.status, answer.body), (200, noise(100_000)), "round {round}");
        }
        if round == 0 {
            wire.write_all(b"GET / HTTP/1.1\r\nHost: none.test\r\n\r\n").unwrap();
            assert!(wire.read(&mut [0; 4096]).unwrap() > 0);
            pause(Duration::from_millis(2500));
        }
    }
    let mut talk = websocket(wire, "ws://chat.test/");
    echoed(&mut talk, "after a rest");
}

#[test]
fn a_connection_ends_with_the_request_that_the_limit_names() {
    let origin = Origin::start();
    let limit = json!({"entryPoints": {"web": {"transport": {"keepAliveMaxRequests": 3}}}});
    let proxy = Proxy::with(limit).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    for number in 1..=3 {
        let answer = client.send(&Ask::get("/")).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), (number == 3).then_some("close"));
    }
    assert!(client.is_closed());
}

#[test]
fn http2_over_tls_and_in_clear_text() {
    let origin = Origin::start();
    let text = everything_to(&origin.url());
    let secure = text.replace("rule:", "tls: {}\n              rule:");
    let proxy = Proxy::start(&text);
    let body = |received: &http2::Received| String::from_utf8(received.body.to_vec()).unwrap();
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        for _ in 0..3 {
            let request = Request::post("http://h2.test/p?q=1");
            let received = http2::send(&mut sender, request, b"over h2c").await;
            assert_eq!((received.response.status.as_u16(), &*body(&received)), (200, "over h2c"));
        }
    });
    let seen = origin.last();
    assert_eq!((&*seen.target, seen.header("host")), ("/p?q=1", Some("h2.test")));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));

    proxy.reload(&secure);
    block_on(async {
        let mut sender = http2::connect_tls(proxy.address("websecure"), "h2.test").await;
        let received = http2::send(&mut sender, Request::post("https://h2.test/"), b"tls").await;
        assert_eq!((received.response.status.as_u16(), &*body(&received)), (200, "tls"));
    });
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
}

/// RP 13: gRPC wants HTTP/2 on both sides, `te: trailers`, and the trailers of the answer.
#[test]
fn trailers_pass_from_an_h2c_backend() {
    let origin = http2::grpc_origin();
    let proxy = Proxy::start(&everything_to(&format!("h2c://{}", origin.address())));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        for _ in 0..5 {
            let request = Request::post("http://grpc.test/pkg.Service/Call")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let received = http2::send(&mut sender, request, b"message").await;
            assert_eq!(received.response.status, 200);
            assert_eq!(received.response.headers["content-type"], "application/grpc");
            assert_eq!(received.response.headers["x-te"], "trailers");
            assert_eq!(&received.body[..], b"message");
            assert_eq!(received.trailers.unwrap()["grpc-status"], "0");
        }
    });
}

#[test]
fn trailers_of_chunked_answers_are_passed_on() {
    let origin = Origin::with(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
        )
    });
    let proxy = proxy_to(&origin);
    let answer = proxy.send(&Ask::get("/").header("TE", "trailers"));
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "6".to_owned())]);
}

/// A backend that sends every message back.
pub(crate) fn websocket_echo() -> Origin {
    Origin::raw(|stream, _| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    })
}

/// A WebSocket through the proxy.
pub(crate) fn websocket<S: Wire>(stream: S, url: &str) -> WebSocket<S> {
    let (socket, answer) = tungstenite::client(url, stream).expect("the upgrade is granted");
    assert_eq!(answer.status(), 101);
    socket
}

pub(crate) fn echoed<S: Wire>(socket: &mut WebSocket<S>, text: &str) {
    socket.send(Message::text(text)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(text));
}

#[test]
fn websockets_pass_in_clear_text_and_over_tls() {
    let origin = websocket_echo();
    let text = everything_to(&origin.url());
    let proxy = Proxy::start(&text);
    let stream = socket(proxy.address("web")).unwrap();
    let mut plain = websocket(stream, "ws://ws.test/chat");
    echoed(&mut plain, "hello");
    let long = "x".repeat(1 << 20);
    echoed(&mut plain, &long);

    proxy.reload(&text.replace("rule:", "tls: {}\n              rule:"));
    let connection = rustls::ClientConnection::new(
        Arc::new(Tls::anyone().protocols(&["http/1.1"]).config()),
        "ws.test".try_into().unwrap(),
    );
    let stream = socket(proxy.address("websecure")).unwrap();
    let stream = rustls::StreamOwned::new(connection.unwrap(), stream);
    let mut secure = websocket(stream, "ws://ws.test/chat");
    echoed(&mut secure, "hello");
    echoed(&mut secure, &long);
    // The first one was opened before the reload that took its router away.
    echoed(&mut plain, "still here");
    plain.close(None).unwrap();
    while plain.read().is_ok() {}
}

/// F-21
#[test]
fn a_websocket_ends_when_either_side_does() {
    let (gone, went) = sync_channel(1);
    let origin = Origin::raw(move |stream, connection| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        if connection == 0 {
            // Dies without a word.
            return;
        }
        while socket.read().is_ok() {}
        let _ = gone.send(());
    });
    let proxy = proxy_to(&origin);
    let mut dying = websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/");
    assert!(dying.read().is_err());
    let leaving = websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/");
    drop(leaving);
    went.recv_timeout(DEADLINE).expect("the backend hears of it");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::with(|_| Reply::status(403).header("X-Why", "no"));
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    let ask = Ask::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13");
    let answer = client.send(&ask).unwrap();
    assert_eq!((answer.status, answer.header("x-why")), (403, Some("no")));
    assert_eq!(origin.last().header("upgrade"), Some("websocket"));
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 403, "the connection goes on");
}

/// F-01: a body that was cut is never taken for a whole one.
#[test]
fn a_backend_that_dies_in_its_body_is_an_error_for_the_client() {
    let origin = Origin::with(|seen| match &*seen.target {
        "/length" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        _ => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    });
    let proxy = proxy_to(&origin);
    for target in ["/length", "/chunked"] {
        let error = proxy.client().send(&Ask::get(target)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{target}: {error}");
    }
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        for target in ["/length", "/chunked"] {
            let request = Request::get(format!("http://a.test{target}"));
            let request = request.body(http_body_util::Full::default()).unwrap();
            // A stream that is reset in the same moment may not even show its head.
            if let Ok(answer) = sender.send_request(request).await {
                let body = http_body_util::BodyExt::collect(answer.into_body()).await;
                assert!(body.is_err(), "{target}");
            }
        }
    });
}

/// F-03
#[test]
fn a_refused_connection_is_a_502_at_once() {
    let proxy = Proxy::start(&everything_to(NOBODY));
    let start = Instant::now();
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (502, "Bad Gateway"));
    assert_eq!(answer.header("content-type"), None);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// F-04, F-07: a POST that may have been seen is not sent twice.
#[test]
fn a_connection_that_ends_before_the_answer_is_a_502() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::raw(move |stream, _| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        count.fetch_add(1, Ordering::AcqRel);
        if first.contains("/reset") {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let proxy = proxy_to(&origin);
    for target in ["/reset", "/fin"] {
        let before = asked.load(Ordering::Acquire);
        let answer = proxy.send(&Ask::post(target, "body"));
        assert_eq!((answer.status, &*answer.text()), (502, "Bad Gateway"), "{target}");
        assert_eq!(asked.load(Ordering::Acquire), before + 1, "{target}");
    }
}

/// F-06
#[test]
fn a_silent_backend_is_a_504_when_the_time_is_up() {
    let origin = Origin::raw(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let text = everything_to(&origin.url()).replace(
        "              loadBalancer:\n",
        "              loadBalancer:\n                serversTransport: impatient\n",
    ) + "  serversTransports:
            impatient:
              forwardingTimeouts:
                responseHeaderTimeout: 300ms
";
    let proxy = Proxy::start(&text);
    let start = Instant::now();
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (504, "Gateway Timeout"));
    assert!(start.elapsed() >= Duration::from_millis(300));
}

/// F-08: backends close idle connections just when they are used again; clients see nothing of it.
#[test]
fn a_pooled_connection_that_was_closed_is_replaced() {
    // After each answer the backend closes, and says nothing of it in the answer.
    let origin = Origin::with(|_| Reply::ok("ok").close());
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    for number in 0..300 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200, "request {number}");
    }
}

/// RP 13: the client's end is the end of the backend's request.
#[test]
fn a_client_that_leaves_cancels_the_request() {
    let (started, start) = sync_channel(1);
    let (ended, end) = sync_channel(1);
    let origin = Origin::raw(move |stream, _| {
        let mut lines = BufReader::new(stream).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let _ = started.send(());
        // No answer: the next thing that can happen is the end.
        let _ = ended.send(lines.next().is_none_or(|line| line.is_err()));
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.write(&Ask::get("/")).unwrap();
    start.recv_timeout(DEADLINE).unwrap();
    client.leave();
    assert!(end.recv_timeout(DEADLINE).expect("the backend hears of it"));
    let line = "traefik_entrypoint_requests_total{code=\"499\",entrypoint=\"web\",method=\"GET\",protocol=\"http\"}";
    until("it counts as 499", || (proxy.metric(line) - 1.0).abs() < f64::EPSILON);
}

/// RP 13
#[test]
fn hop_by_hop_headers_end_at_the_proxy() {
    let origin = Origin::with(|_| {
        Reply::ok("ok")
            .header("Connection", "X-Drop-Back")
            .header("X-Drop-Back", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("X-Keep", "1")
    });
    let proxy = proxy_to(&origin);
    let answer = proxy.send(
        &Ask::get("/")
            .header("Connection", "x-drop, keep-alive")
            .header("X-Drop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Connection", "keep-alive")
            .header("Proxy-Authorization", "Basic eDp4")
            .header("TE", "trailers, deflate")
            .header("Trailer", "X-Sum")
            .header("X-Keep", "1"),
    );
    let seen = origin.last();
    for name in ["X-Drop", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Trailer"] {
        assert_eq!(seen.header(name), None, "{name} at the backend");
    }
    assert_eq!((seen.header("te"), seen.header("x-keep")), (Some("trailers"), Some("1")));
    for name in ["X-Drop-Back", "Keep-Alive", "Proxy-Authenticate"] {
        assert_eq!(answer.header(name), None, "{name} at the client");
    }
    assert_eq!(answer.header("x-keep"), Some("1"));
}

/// RP 12
#[test]
fn forwarded_headers_are_set_and_spoofed_ones_are_gone() {
    let origin = Origin::start();
    let proxy = proxy_to(&origin);
    let mut ask = Ask::get("shop.test:8080/");
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Tls-Client-Cert",
        "X-Real-Ip",
        "X_Forwarded_For",
        "x_real_ip",
    ] {
        ask = ask.header(name, "spoofed");
    }
    proxy.send(&ask);
    let seen = origin.last();
    for (name, value) in &seen.headers {
        assert_ne!(value, "spoofed", "{name}");
    }
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test:8080"),
        ("x-forwarded-port", "8080"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(seen.header("x-forwarded-server").is_some_and(|name| !name.is_empty()));
    assert_eq!(seen.header("user-agent"), None, "none is invented");
}

#[test]
fn forwarded_headers_of_a_trusted_peer_are_kept() {
    let origin = Origin::start();
    let trusting =
        json!({"entryPoints": {"web": {"forwardedHeaders": {"trustedIPs": ["127.0.0.0/8"]}}}});
    let proxy = Proxy::with(trusting).start(&everything_to(&origin.url()));
    proxy.send(
        &Ask::get("/")
            .header("X-Forwarded-For", "192.0.2.1")
            .header("X-Forwarded-For", "192.0.2.2")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "outside.test")
            .header("X-Real-Ip", "192.0.2.1"),
    );
    let seen = origin.last();
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1, 192.0.2.2, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "outside.test"),
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-port", "443"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
}

/// The bytes of an answer come as the backend sends them, not when it is whole.
#[test]
fn answers_stream() {
    let (go, gone) = sync_channel::<()>(1);
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::raw(move |mut stream: TcpStream, _| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst";
        stream.write_all(head).unwrap();
        let _ = gone.lock().unwrap().recv_timeout(DEADLINE);
        let _ = stream.write_all(b"other");
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client.write(&Ask::get("/")).unwrap();
    assert_eq!(client.read_head().unwrap().0, 200);
    assert_eq!(client.read_exact(5).unwrap(), b"first");
    go.send(()).unwrap();
    assert_eq!(client.read_exact(5).unwrap(), b"other");
}

/// F-14: an answer that comes before the body is whole reaches the client.
#[test]
fn an_early_answer_to_an_upload_arrives() {
    let done = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&done);
    let origin = Origin::raw(move |mut stream, _| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let _ = stream.write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nbig");
        until("the client has its answer", || over.load(Ordering::Acquire));
    });
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    let ask = Ask::post("/", vec![0; BIG]);
    client.write_raw(ask.head().as_bytes()).unwrap();
    client.write_raw(&[0; 1000]).unwrap();
    let answer = client.read("POST").unwrap();
    assert_eq!((answer.status, &*answer.text()), (413, "big"));
    done.store(true, Ordering::Release);
}

/// T-23, RP 6: whom the proxy believes when it speaks TLS to a backend.
#[test]
fn backends_may_speak_tls() {
    let ca = Ca::new();
    let identity = ca.issue(&["odoo.internal"]);
    let origin = tls_origin(&identity);
    let config = |transport: &str| {
        format!(
            "
            http:
              routers:
                all: {{rule: PathPrefix(`/`), service: app}}
              services:
                app:
                  loadBalancer:
                    serversTransport: secure
                    servers: [{{url: 'https://{}'}}]
              serversTransports:
                secure: {transport}
            ",
            origin.address()
        )
    };
    let proxy = Proxy::start(&config("{insecureSkipVerify: true}"));
    assert_eq!(proxy.get("/").text(), "over TLS");
    let authority = proxy.file().with_file_name("ca.pem");
    std::fs::write(&authority, ca.pem()).unwrap();
    let believing = |name: &str| {
        config(&format!("{{rootCAs: ['{}'], serverName: {name}}}", authority.display()))
    };
    proxy.reload(&believing("odoo.internal"));
    assert_eq!(proxy.get("/").text(), "over TLS");
    for (what, text) in
        [("another name", believing("other.internal")), ("an unknown authority", config("{}"))]
    {
        proxy.reload(&text);
        let answer = proxy.get("/");
        assert_eq!((answer.status, &*answer.text()), (500, "Internal Server Error"), "{what}");
    }
}

/// A backend that answers every connection once, over TLS.
pub(crate) fn tls_origin(identity: &Pair) -> Origin {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::pem::PemObject::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.der()], key)
        .unwrap();
    let config = Arc::new(config);
    Origin::raw(move |stream, _| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            head.push(byte[0]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nover TLS";
        let _ = stream.write_all(answer);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// F-13
#[test]
fn a_head_that_is_too_large_is_a_502() {
    let origin = Origin::with(|seen| match &*seen.target {
        "/huge" => Reply::ok("x").header("X-Huge", &"x".repeat(2 << 20)),
        "/garbage" => Reply::raw("garbage\r\n\r\n"),
        _ => Reply::ok("ok"),
    });
    let proxy = proxy_to(&origin);
    for target in ["/huge", "/garbage"] {
        assert_eq!(proxy.get(target).status, 502, "{target}");
        assert_eq!(proxy.get("/").status, 200);
    }
}

/// RP 13: request trailers end at the proxy.
#[test]
fn trailers_of_requests_are_not_passed_on() {
    let origin = Origin::start();
    let proxy = proxy_to(&origin);
    let mut client = proxy.client();
    client
        .write_raw(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\
              \r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.read("POST").unwrap().text(), "abc");
    let seen = origin.last();
    assert_eq!((seen.header("trailer"), seen.header("x-sum")), (None, None));
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200, "the connection is clean");
}

/// A stream that its client resets ends at the backend too; the others on the connection go on.
#[test]
fn a_stream_that_is_reset_cancels_its_request_alone() {
    let (started, start) = sync_channel(1);
    let (ended, end) = sync_channel(1);
    let origin = Origin::raw(move |mut stream, _| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        if first.contains("/stuck") {
            let _ = started.send(());
            let _ = ended.send(lines.next().is_none_or(|line| line.is_err()));
        } else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = proxy_to(&origin);
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let stuck = Request::get("http://a.test/stuck").body(http_body_util::Full::default());
        let stuck = tokio::spawn(sender.send_request(stuck.unwrap()));
        let arrived = tokio::task::spawn_blocking(move || start.recv_timeout(DEADLINE));
        arrived.await.unwrap().unwrap();
        stuck.abort();
        let gone = tokio::task::spawn_blocking(move || end.recv_timeout(DEADLINE));
        assert!(gone.await.unwrap().expect("the backend hears of it"));
        let other = http2::send(&mut sender, Request::get("http://a.test/"), b"").await;
        assert_eq!(&other.body[..], b"ok");
    });
}

/// A client that does not read holds up its own answer and nobody else's.
#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let origin = Origin::with(|seen| match &*seen.target {
        "/big" => Reply::ok(vec![7; 3 * BIG]),
        _ => Reply::ok("ok"),
    });
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()));
    let mut lazy = proxy.client();
    lazy.write(&Ask::get("/big")).unwrap();
    assert_eq!(lazy.read_head().unwrap().0, 200);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "ok");
    }
    let rest = lazy.read_exact(3 * BIG).unwrap();
    assert!(rest.iter().all(|&byte| byte == 7));
}
