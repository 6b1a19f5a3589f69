//! Clients that are slow on purpose, or many: each has its time and its number, and others do not notice.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Tls;
use crate::harness::client::socket;
use crate::harness::flood::frames::*;
use crate::harness::flood::{Attack, alone, withstand};
use crate::harness::{
    Ask, Client, DEADLINE, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until,
};

fn hits(proxy: &Proxy, limit: &str) -> f64 {
    proxy.metric(&format!("doorward_limits_total{{limit=\"{limit}\"}}"))
}

/// As many descriptors as the system gives: `tests/run` sees to 4096 of them only.
fn raise_descriptors() -> usize {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    files.current.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// A connection from an address of this machine.
fn from(source: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    socket.connect_timeout(&to.into(), DEADLINE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Keeps `count` connections busy with a bit of `text` at a time.
fn crawl(attack: &mut Attack, count: usize, begin: &str, bit: &str) -> io::Result<()> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, begin.as_bytes())?;
        open.push(stream);
    }
    loop {
        for stream in &mut open {
            if attack.say(stream, bit.as_bytes()).is_err() {
                *stream = attack.connect()?;
                attack.say(stream, begin.as_bytes())?;
            }
        }
        attack.wait(20_000)?;
    }
}

/// G-33, G-34: heads, bodies and readers that crawl, and chunks that are hardly more than their extensions.
#[test]
fn crawling_clients_do_not_hurt_others() {
    let origin = Origin::start();
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()));
    let (to, mut polite) = (proxy.address("web"), proxy.client());
    withstand("slow heads", &mut polite, to, |attack| {
        crawl(attack, 100, "GET / HTTP/1.1\r\nHost: a\r\n", "x: y\r\n")
    });
    let head = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\n";
    withstand("slow bodies", &mut polite, to, |attack| crawl(attack, 20, head, "x"));
    withstand("slow readers", &mut polite, to, |attack| {
        let mut open = Vec::new();
        loop {
            let mut stream = attack.connect()?;
            // Answered by a thread in this process: 200 of them in a second.
            attack.wait(10_000)?;
            stream.write_all(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5).into_bytes())?;
            open.push(stream);
            if open.len() > 100 {
                open.clear();
            }
        }
    });
    let chunk = format!("1;x={}\r\ny\r\n", "z".repeat(100)).repeat(40);
    let head = "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    withstand("chunk extensions", &mut polite, to, |attack| {
        let mut stream = attack.connect()?;
        attack.say(&mut stream, head.as_bytes())?;
        loop {
            attack.say(&mut stream, chunk.as_bytes())?;
        }
    });
}

/// A hello as a client of TLS writes it.
fn hello() -> Vec<u8> {
    let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
    let config = std::sync::Arc::new(Tls::anyone().config());
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// G-35: hellos that go no further, and hellos as fast as they can be written; who is connected does not notice.
#[test]
fn hellos_do_not_hurt_others() {
    let origin = Origin::start();
    let options = json!({
        "core": {"workers": 1}, "entryPoints": {"websecure": {"http": {"tls": {}}}},
    });
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let to = proxy.address("websecure");
    let mut polite = Tls::anyone().connect(to, Some("a.test")).unwrap().client;
    let hello = hello();
    withstand("half a hello", &mut polite, to, |attack| {
        let mut open = Vec::new();
        while open.len() < 100 {
            let mut stream = attack.connect()?;
            attack.say(&mut stream, &hello[..100])?;
            open.push(stream);
        }
        loop {
            attack.wait(20_000)?;
        }
    });
    withstand("hellos", &mut polite, to, |attack| {
        let mut open = Vec::new();
        while open.len() < 8 {
            let mut stream = attack.connect()?;
            attack.say(&mut stream, &hello)?;
            // In debug builds a signature takes ten times as long: 50 of them in a second.
            attack.wait(8000)?;
            open.push(stream);
        }
        Ok(())
    });
}

/// T-10: 200 requests with a length and no body are over in time, whether anybody wants the body or not.
#[test]
fn bodies_that_never_come_are_over_in_time() {
    let origin = Origin::start();
    let timeouts = json!({"transport": {"respondingTimeouts": {"readTimeout": "2s"}}});
    let proxy = Proxy::with(json!({"entryPoints": {"web": timeouts}}));
    let proxy = proxy.start(&everything_to(&origin.url()).replace("`/`", "`/app`"));
    let begin = Instant::now();
    let mut open: Vec<_> = (0..200)
        .map(|at| {
            let mut stream = socket(proxy.address("web")).unwrap();
            let path = if at % 2 == 0 { "/app" } else { "/nobody" };
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let connected = begin.elapsed();
    assert_eq!(proxy.get("/app").status, 200);
    for stream in &mut open {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let took = begin.elapsed();
    assert!(took < connected + Duration::from_secs(2 + 5), "{took:?}");
    assert_eq!(proxy.get("/app").status, 200);
}

/// G-33: under `hardened`, or by a key, a body has a rate; the server is free again. A call of gRPC may be silent.
#[test]
fn slow_bodies_end() {
    let origin = Origin::start();
    let limits = json!({"limits": {"requestBody": {"minRate": 1000, "grace": "500ms"}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let slow = |kind: &str| {
        let mut client = proxy.client();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Type: {kind}\r\nContent-Length: 20\r\n\r\n"
        );
        client.write_raw(head.as_bytes()).unwrap();
        for _ in 0..20 {
            // Refused in the middle, it may be closed already.
            let _ = client.write_raw(b"x");
            pause(Duration::from_millis(100));
        }
        client.read("POST").map(|answer| answer.status).unwrap_or_default()
    };
    assert_eq!(slow("text/plain"), 408);
    assert!(hits(&proxy, "requestBody.minRate") > 0.0);
    assert_eq!(slow("application/grpc"), 200);
    let plain = Proxy::start(&everything_to(&origin.url()));
    assert_eq!(plain.send(&Ask::post("/", "quick")).status, 200);
}

/// A router's own rate wins over the default.
#[test]
fn a_router_may_allow_slow_bodies() {
    let origin = Origin::start();
    let limits = json!({"limits": {"requestBody": {"minRate": 1000, "grace": "300ms"}}});
    let text = everything_to(&origin.url());
    let text =
        text.replace("service: app", "service: app\n              timeouts: {bodyMinRate: 0}");
    let proxy = Proxy::with(limits).start(&text);
    let mut client = proxy.client();
    client.write_raw(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nx").unwrap();
    pause(Duration::from_secs(1));
    client.write_raw(b"y").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 200);
}

/// G-34: whoever takes nothing of an answer is cut, over HTTP/1, over TLS and over HTTP/2; whoever reads slowly is not.
#[test]
fn readers_that_take_nothing_are_cut() {
    let origin = Origin::with(|_| Reply::ok(vec![7; 24 << 20]));
    let options = json!({
        "entryPoints": {"websecure": {"http": {"tls": {}}}},
        "limits": {"answer": {"stall": "1s"}},
    });
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut clear = proxy.client();
    let mut secure =
        Tls::anyone().connect(proxy.address("websecure"), Some("a.test")).unwrap().client;
    let mut slow = proxy.client();
    for client in [&mut clear, &mut secure, &mut slow] {
        client.write(&Ask::get("/")).unwrap();
        assert_eq!(client.read_head().unwrap().0, 200);
    }
    // A piece now and then, for longer than a stall may last.
    for _ in 0..8 {
        slow.read_exact(2 << 20).expect("it goes on");
        pause(Duration::from_millis(300));
    }
    slow.read_exact(8 << 20).expect("to the end");
    until("both are cut", || hits(&proxy, "answer.stall") >= 2.0);
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = || Request::get("http://a.test/").body(Full::default()).unwrap();
        let answer = sender.send_request(request()).await.unwrap();
        while hits(&proxy, "answer.stall") < 3.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(answer.into_body().collect().await.is_err(), "the stream is reset");
        let answer = sender.send_request(request()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 24 << 20, "its connection lives");
    });
}

/// G-34: on a slow line each of many streams waits long for its turn, and none is cut while the line moves.
#[test]
fn many_streams_on_a_slow_line_are_not_cut() {
    const STREAMS: u32 = 24;
    /// Each of them has more for the client than its window lets through.
    const LENGTH: usize = 60_000;
    let origin = Origin::with(|_| Reply::ok(vec![7; LENGTH]));
    let limits = json!({"limits": {"answer": {"stall": "3s"}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    let asked: Vec<u8> = (0..STREAMS).flat_map(|at| get(2 * at + 1)).collect();
    stream.write_all(&[opening(&[]), asked].concat()).unwrap();
    let (mut line, start) = (stream.try_clone().unwrap(), Instant::now());
    let opening = std::thread::spawn(move || {
        // 16 KiB each fifth of a second: a round of all streams takes five seconds.
        while start.elapsed() < Duration::from_secs(6) {
            line.write_all(&window(0, 16 << 10)).unwrap();
            pause(Duration::from_millis(200));
        }
        line.write_all(&window(0, 16 << 20)).unwrap();
    });
    let (mut got, mut ended) = (0, 0);
    while ended < STREAMS {
        let (kind, flags, number, payload) = next(&mut stream).expect("the connection lives");
        assert!(!matches!(kind, RESET | GOAWAY), "{number} {payload:?} at {:?}", start.elapsed());
        if kind == DATA {
            got += payload.len();
            ended += u32::from(flags & END_STREAM != 0);
        }
    }
    opening.join().unwrap();
    assert_eq!(got, LENGTH * STREAMS as usize);
    assert!(hits(&proxy, "answer.stall") < 1.0);
}

/// G-35: a head over HTTP/2 has its time as well, from its first byte on; who is silent between requests has more.
#[test]
fn slow_heads_of_http2_end() {
    let origin = Origin::start();
    let limits = json!({"limits": {"requestHead": {"timeout": "2s"}}});
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let mut idle = socket(proxy.address("web")).unwrap();
    idle.write_all(&opening(&[])).unwrap();
    let in_parts = frame(HEADERS, 0, 1, &block(false));
    let in_bytes = frame(HEADERS, END_HEADERS, 1, &[block(false), vec![0; 5000]].concat());
    for (begin, bit) in
        [(&in_parts[..], frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")), (&in_bytes[..20], vec![0])]
    {
        let mut stream = socket(proxy.address("web")).unwrap();
        let mut hears = stream.try_clone().unwrap();
        let told = std::thread::spawn(move || farewell(&mut hears));
        stream.write_all(&[&opening(&[]), begin].concat()).unwrap();
        let start = Instant::now();
        while !told.is_finished() {
            let _ = stream.write_all(&bit);
            assert!(start.elapsed() < DEADLINE, "the connection ends");
            pause(Duration::from_millis(50));
        }
        assert_eq!(told.join().unwrap(), Some(ENHANCE_YOUR_CALM));
        assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    }
    assert!(hits(&proxy, "requestHead.timeout") >= 2.0);
    idle.write_all(&get(1)).unwrap();
    while !matches!(next(&mut idle).expect("it lives"), (HEADERS, ..)) {}
}

/// G-35: all that a client says first has one limit together.
#[test]
fn first_words_have_one_limit_together() {
    let origin = Origin::start();
    let options = json!({
        "entryPoints": {"web": {"proxyProtocol": {"trustedIPs": ["127.0.0.1"]}}},
        "limits": {"requestHead": {"timeout": "3s"}},
    });
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut stream = socket(proxy.address("web")).unwrap();
    let start = Instant::now();
    pause(Duration::from_secs(1));
    stream.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 7 80\r\n").unwrap();
    pause(Duration::from_secs(1));
    stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    let took = start.elapsed();
    assert!(took > Duration::from_millis(2900) && took < Duration::from_millis(4800), "{took:?}");
    until("it is counted", || hits(&proxy, "requestHead.timeout") > 0.0);
}

/// G-35: 1 000 silent sockets on both ports are free again in time, also where half a hello or half a head was said.
#[test]
fn silent_sockets_are_freed() {
    let _alone = alone();
    raise_descriptors();
    let origin = Origin::start();
    let options = json!({
        "core": {"workers": 1},
        "entryPoints": {"websecure": {"http": {"tls": {}}}},
        "limits": {"requestHead": {"timeout": "3s"}},
    });
    let process = Process::start(&options, &everything_to(&origin.url()));
    let hello = hello();
    let begin = Instant::now();
    let mut open = Vec::new();
    for at in 0..500 {
        let mut clear = socket(process.address("web")).unwrap();
        let mut secure = socket(process.address("websecure")).unwrap();
        if at % 2 == 1 {
            clear.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
            secure.write_all(&hello[..50]).unwrap();
        }
        open.extend([clear, secure]);
    }
    let connected = begin.elapsed();
    let mut client = Client::connect(process.address("web")).unwrap();
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    for stream in &mut open {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let took = begin.elapsed();
    assert!(took < connected + Duration::from_secs(15), "{took:?}");
    let answer = Client::connect(process.address("web")).unwrap().send(&Ask::get("/"));
    assert_eq!(answer.unwrap().status, 200);
}

/// G-37: 5 000 connections from one address: it gets its share, and another address does not notice.
#[test]
fn one_address_gets_its_share_of_connections() {
    let origin = Origin::start();
    let limits = json!({
        "core": {"workers": 1}, "limits": {"connections": {"perAddress": 100}},
        "entryPoints": {"websecure": {"forwardedHeaders": {"trustedIPs": ["127.0.0.9"]}}},
    });
    let proxy = Proxy::with(limits).start(&everything_to(&origin.url()));
    let to = proxy.address("web");
    let over = |stream: TcpStream| Client::over(Box::new(stream.try_clone().unwrap()), stream);
    let mut polite = over(from("127.0.0.3", to).unwrap());
    withstand("5 000 connections", &mut polite, to, |attack| {
        let mut open = Vec::new();
        loop {
            attack.wait(400)?;
            open.push(from("127.0.0.2", attack.to)?);
            if open.len() > 1000 {
                open.clear();
            }
        }
    });
    until("those are gone", || {
        proxy.metric("traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}") <= 1.0
    });
    let counted = hits(&proxy, "connections.perAddress");
    assert!(counted > 0.0);
    let mut seats: Vec<_> = (0..100).map(|_| over(from("127.0.0.2", to).unwrap())).collect();
    assert_eq!(seats[99].send(&Ask::get("/")).unwrap().status, 200);
    let mut one_more = over(from("127.0.0.2", to).unwrap());
    assert!(one_more.send(&Ask::get("/")).is_err());
    assert_eq!(polite.send(&Ask::get("/")).unwrap().status, 200);
    drop(seats.pop());
    until("a seat is free", || {
        over(from("127.0.0.2", to).unwrap()).send(&Ask::get("/")).is_ok_and(|a| a.status == 200)
    });
    // Whoever is trusted to speak for others has no limit.
    let secure = proxy.address("websecure");
    let many: Vec<_> = (0..150).map(|_| over(from("127.0.0.9", secure).unwrap())).collect();
    for mut client in many {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    }
}

/// Behind the PROXY protocol it is the client's address that counts. The total is everybody's, but for who looks after
/// the house.
#[test]
fn connections_have_a_total_and_belong_to_whom_the_proxy_names() {
    let origin = Origin::start();
    let options = json!({
        "core": {"workers": 1},
        // Or else those that rest for a second would make room.
        "limits": {"connections": {"perAddress": 2, "total": 6}, "overload": {"enabled": false}},
        "entryPoints": {"web": {"proxyProtocol": {"trustedIPs": ["127.0.0.1"]}}},
    });
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let come = |client: &str| {
        let mut stream = proxy.client();
        stream.write_raw(format!("PROXY TCP4 {client} 127.0.0.1 7 80\r\n").as_bytes()).ok()?;
        stream.send(&Ask::get("/")).ok().map(|_| stream)
    };
    let mut open: Vec<_> = (0..2).map(|_| come("192.0.2.1").unwrap()).collect();
    assert!(come("192.0.2.1").is_none());
    open.extend((2..6).map(|at| come(&format!("192.0.2.{at}")).unwrap()));
    assert!(come("192.0.2.9").is_none());
    assert_eq!(proxy.inside("/ping").status, 200);
    assert!(hits(&proxy, "connections.total") >= 1.0);
    open.clear();
    until("there is room again", || come("192.0.2.9").is_some());
}

/// 10 000 idle connections, or as many as this machine allows (`tests/run` sees to no more than 4096 descriptors; what
/// the hard limit allows beyond is taken): others do not notice.
#[test]
fn idle_connections_do_not_hurt_others() {
    let most = raise_descriptors();
    let count = 10_000.min(most.saturating_sub(1500));
    let origin = Origin::start();
    let options = json!({"core": {"workers": 1}, "limits": {"connections": {"total": 0}}});
    let process = Process::start(&options, &everything_to(&origin.url()));
    let to = process.address("web");
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        match TcpStream::connect_timeout(&to, DEADLINE) {
            Ok(stream) => open.push(stream),
            // Tests that run at the same time have descriptors too.
            Err(_) => break,
        }
    }
    assert!(open.len() > count / 2, "{} of {count}", open.len());
    let mut polite = Client::connect(to).or_else(|_| {
        open.truncate(open.len() - 200);
        Client::connect(to)
    });
    let polite = polite.as_mut().unwrap();
    open.truncate(open.len() - 200);
    withstand(&format!("{} idle connections", open.len()), polite, to, |attack| {
        attack.wait(50_000)
    });
}
