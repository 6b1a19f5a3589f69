//! What breaks behind, in front of and around the proxy, and what clients see of it (rows F of the
//! fault table that `wire`, `reload`, `tls` and `operations` do not have).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Tls;
use crate::harness::client::socket;
use crate::harness::{
    Ask, Client, DEADLINE, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until,
};
use crate::wire::{echoed, websocket, websocket_echo};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio_tungstenite::tungstenite;

/// F-14: a server that refuses an upload early, and closes: the client has its answer, and nobody waits for ever to write
/// the rest.
#[test]
fn an_upload_that_is_refused_early_leaves_nothing_behind() {
    let origin = Origin::raw(|mut stream, _| {
        head(&stream);
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n");
        pause(Duration::from_millis(30));
        let _ = stream.write_all(b"gone");
    });
    let process = Process::start(&json!({}), &everything_to(&origin.url()));
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", process.id().as_raw_nonzero())).unwrap().count()
    };
    let before = open();
    for _ in 0..10 {
        let mut wire = socket(process.address("web")).unwrap();
        let mut upload = wire.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let head = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 50000000\r\n\r\n";
            let _ = upload.write_all(head.as_bytes());
            let piece = vec![b'x'; 65536];
            while upload.write_all(&piece).is_ok() {}
        });
        let mut status = [0; 12];
        wire.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 413");
        let _ = wire.shutdown(Shutdown::Both);
        writer.join().unwrap();
    }
    until("every socket is closed", || open() <= before + 1);
}

/// Far less than any timeout that could end a wait in its place.
const SOON: Duration = Duration::from_secs(5);

/// Reads the head of a request; `None` when there is none.
fn head(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    Some(first)
}

/// F-04: a reset before a byte was read, for a request that may be repeated and one that may not.
#[test]
fn a_reset_at_once_is_a_502_and_posts_are_not_repeated() {
    let origin = Origin::raw(|stream, _| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let start = Instant::now();
    for ask in [Ask::get("/"), Ask::post("/", "body"), Ask::post("/", vec![0; 1 << 20])] {
        let before = origin.connections();
        assert_eq!(proxy.send(&ask).status, 502, "{}", ask.method);
        assert_eq!(origin.connections(), before + 1, "{}", ask.method);
    }
    assert!(start.elapsed() < SOON);
}

/// F-07: the backend ends its side, reads on, and never says a word.
#[test]
fn a_half_open_backend_is_a_502_at_once() {
    let origin = Origin::raw(|mut stream, _| {
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let start = Instant::now();
    assert_eq!(proxy.get("/").status, 502);
    assert_eq!(proxy.send(&Ask::post("/", "body")).status, 502);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// F-10, F-13: nothing of an answer that is none reaches the client, and the next one is fine.
#[test]
fn garbage_is_a_502_and_with_the_profile_exact_a_500() {
    let many: Vec<_> = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    let many = many.concat();
    let answers = [
        "\0\0\0\0secret".to_owned(),
        "SSH-2.0-secret\r\n\r\n".to_owned(),
        "HTTP/1.1 9999 secret\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 20 secret\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX-Secret: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX-Secret: a\rb\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX Secret: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: secret\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: secret\r\nConnection: Upgrade\r\n\r\n"
            .to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX-Secret: {}\r\n\r\n", "a".repeat(4 << 20)),
    ];
    let count = answers.len();
    let origin = Origin::with(move |seen| match seen.target[1..].parse::<usize>() {
        Ok(number) => Reply::raw(answers[number].clone()),
        Err(_) => Reply::ok("fine"),
    });
    for (profile, status) in [("safe", 502), ("exact", 500)] {
        let core = json!({"core": {"profile": profile}});
        let proxy = Proxy::with(core).start(&everything_to(&origin.url()));
        let mut client = proxy.client();
        for number in 0..count {
            let answer = client.send(&Ask::get(&format!("/{number}"))).unwrap();
            assert_eq!(answer.status, status, "{number}, {profile}");
            let shown = format!("{:?} {}", answer.headers, answer.text());
            assert!(!shown.to_lowercase().contains("secret"), "{number}: {shown}");
            assert_eq!(client.send(&Ask::get("/fine")).unwrap().text(), "fine", "{number}");
        }
    }
}

/// HTTP/2 as a stub speaks it: frames.
struct Frames(TcpStream);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;

impl Frames {
    /// Reads the preface and sends `settings`.
    fn accept(mut stream: TcpStream, settings: &[u8]) -> Option<Self> {
        stream.read_exact(&mut [0; 24]).ok()?;
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, settings);
        Some(frames)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // The proxy may be gone: that is what the test looks at.
        let _ = self.0.write_all(&frame);
    }

    /// The stream of the next request; acknowledges settings meanwhile.
    fn request(&mut self) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.0.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).ok()?;
            match head[3] {
                HEADERS => return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]])),
                SETTINGS if head[4] & 1 == 0 => self.send(SETTINGS, 1, 0, &[]),
                _ => {}
            }
        }
    }

    /// `:status: 200`, and no body.
    fn answer(&mut self, stream: u32) {
        self.send(HEADERS, 0x5, stream, &[0x88]);
    }

    fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload);
    }
}

fn h2c(origin: &Origin) -> String {
    everything_to(&format!("h2c://{}", origin.address()))
}

/// F-20: a connection that says GOAWAY is replaced, and what it did not look at goes to the next.
#[test]
fn streams_after_a_goaway_go_over_a_new_connection() {
    let origin = Origin::raw(|stream, _| {
        let Some(mut frames) = Frames::accept(stream, &[]) else { return };
        // Two requests are answered; the third came too late.
        for _ in 0..2 {
            let Some(stream) = frames.request() else { return };
            frames.answer(stream);
        }
        if frames.request().is_some() {
            frames.go_away(3);
            let _ = frames.request();
        }
    });
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&h2c(&origin));
    let mut client = proxy.client();
    for number in 0..50 {
        let answer = client.send(&Ask::get("/")).unwrap();
        assert_eq!(answer.status, 200, "request {number}");
    }
    assert_eq!(origin.connections(), 25);
}

/// F-20: the first request of a connection is as safe as a later one.
#[test]
fn a_goaway_for_the_first_stream_is_survived() {
    let origin = Origin::raw(|stream, connection| {
        let Some(mut frames) = Frames::accept(stream, &[]) else { return };
        while let Some(stream) = frames.request() {
            if connection % 2 == 0 {
                frames.go_away(0);
            } else {
                frames.answer(stream);
            }
        }
    });
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&h2c(&origin));
    assert_eq!(proxy.get("/").status, 200);
}

/// F-20: a stream that was refused has done nothing, so it may be asked for again, body or not.
#[test]
fn a_refused_stream_is_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::raw(move |stream, _| {
        let Some(mut frames) = Frames::accept(stream, &[]) else { return };
        while let Some(stream) = frames.request() {
            if count.fetch_add(1, Ordering::AcqRel).is_multiple_of(2) {
                frames.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes());
            } else {
                frames.answer(stream);
            }
        }
    });
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&h2c(&origin));
    let mut client = proxy.client();
    for number in 0..10 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200, "request {number}");
        let ask = Ask::new("POST", "/").header("Content-Length", "0");
        assert_eq!(client.send(&ask).unwrap().status, 200, "request {number}");
    }
}

/// F-20: a running stream goes on after GOAWAY, while new requests take another connection.
#[test]
fn a_goaway_does_not_cut_what_runs() {
    let origin = Origin::raw(|stream, connection| {
        let Some(mut frames) = Frames::accept(stream, &[]) else { return };
        if connection > 0 {
            while let Some(stream) = frames.request() {
                frames.answer(stream);
            }
            return;
        }
        let Some(long) = frames.request() else { return };
        frames.send(HEADERS, 0x4, long, &[0x88]);
        frames.send(DATA, 0, long, b"begun ");
        frames.go_away(long);
        pause(Duration::from_millis(500));
        frames.send(DATA, 1, long, b"ended");
    });
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&h2c(&origin));
    let mut long = proxy.client();
    long.write(&Ask::get("/long")).unwrap();
    let (status, _) = long.read_head().unwrap();
    assert_eq!(status, 200);
    for number in 0..20 {
        assert_eq!(proxy.get("/").status, 200, "request {number}");
    }
    let rest = long.read_exact(b"6\r\nbegun \r\n5\r\nended\r\n0\r\n\r\n".len()).unwrap();
    assert_eq!(String::from_utf8(rest).unwrap(), "6\r\nbegun \r\n5\r\nended\r\n0\r\n\r\n");
}

/// F-20: a server that takes one stream at a time gets one at a time on each connection.
#[test]
fn a_limit_of_streams_is_kept() {
    let origin = Origin::raw(|stream, _| {
        // SETTINGS_MAX_CONCURRENT_STREAMS: 1
        let Some(mut frames) = Frames::accept(stream, &[0, 3, 0, 0, 0, 1]) else { return };
        while let Some(stream) = frames.request() {
            pause(Duration::from_millis(20));
            frames.answer(stream);
        }
    });
    let proxy = Proxy::start(&h2c(&origin));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..10 {
                    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
                }
            });
        }
    });
}

/// F-21: a WebSocket whose other side is reset is gone at once, on both sides.
#[test]
fn a_reset_ends_a_websocket_on_both_sides() {
    let (gone, went) = std::sync::mpsc::sync_channel(8);
    let origin = Origin::raw(move |stream, connection| {
        let keep = stream.try_clone().unwrap();
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        if connection == 0 {
            socket2::SockRef::from(&keep).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        while socket.read().is_ok() {}
        let _ = gone.send(());
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let start = Instant::now();
    let mut dying = websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/");
    assert!(dying.read().is_err());
    let wire = socket(proxy.address("web")).unwrap();
    let leaving = websocket(wire.try_clone().unwrap(), "ws://ws.test/");
    socket2::SockRef::from(&wire).set_linger(Some(Duration::ZERO)).unwrap();
    drop((leaving, wire));
    went.recv_timeout(DEADLINE).expect("the backend hears of it");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// T-10: a body that never comes holds a connection for `readTimeout` and no longer, whether a
/// backend waits for it or not.
#[test]
fn a_body_that_never_comes_ends_with_the_read_timeout() {
    let origin = Origin::raw(|mut stream, _| {
        if head(&stream).is_some_and(|line| line.contains("/ignored")) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let timeouts = json!({"respondingTimeouts": {"readTimeout": "1s"}});
    let options = json!({"entryPoints": {"web": {"transport": timeouts}}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let start = Instant::now();
    for (target, status) in [("/awaited", 408), ("/ignored", 200), ("/nobody", 408)] {
        let mut client = proxy.client();
        client.write(&Ask::get(target).header("Content-Length", "10")).unwrap();
        let answer = client.read("GET").unwrap();
        assert_eq!(answer.status, status, "{target}");
        assert!(client.is_closed(), "{target}");
    }
    assert!(start.elapsed() < SOON * 2, "{:?}", start.elapsed());
}

/// A client of HTTP/2 that gives a stream up is a client that has gone: the backend hears of it,
/// and it is counted once.
#[test]
fn a_stream_that_is_given_up_cancels_the_request() {
    let (started, start) = std::sync::mpsc::sync_channel(1);
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    let origin = Origin::raw(move |mut stream, _| {
        if head(&stream).is_some() {
            let _ = started.send(());
            let _ = stream.read_to_end(&mut Vec::new());
            let _ = ended.send(());
        }
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::get("http://a.test/").body(Full::default()).unwrap();
        let mut answer = Box::pin(sender.send_request(request));
        // Polled until the backend has it, then dropped.
        while start.try_recv().is_err() {
            let a_moment = tokio::time::sleep(Duration::from_millis(10));
            tokio::select! {
                _ = &mut answer => panic!("nobody answered"),
                () = a_moment => {}
            }
        }
        drop(answer);
        tokio::time::sleep(Duration::from_millis(100)).await;
    });
    end.recv_timeout(DEADLINE).expect("the backend hears of it");
    let line = "traefik_entrypoint_requests_total{code=\"499\",entrypoint=\"web\",method=\"GET\",protocol=\"http\"}";
    until("it counts as 499", || (proxy.metric(line) - 1.0).abs() < f64::EPSILON);
}

/// F-49, T-02: whoever asks for nothing holds nothing up, whatever it speaks.
#[test]
fn idle_connections_do_not_delay_a_stop() {
    let origin = Origin::start();
    let life = json!({"transport": {"lifeCycle": {"graceTimeOut": "60s"}}});
    let options = json!({"entryPoints": {"web": life, "websecure": life}});
    let text = format!(
        "{}
        tls: {{}}
        ",
        everything_to(&origin.url())
    );
    let mut process = Process::start(&options, &text);
    let (web, secure) = (process.address("web"), process.address("websecure"));
    let silent = socket(web).unwrap();
    let mut used = Client::connect(web).unwrap();
    assert_eq!(used.send(&Ask::get("/")).unwrap().status, 200);
    let greeted = Tls::anyone().protocols(&["http/1.1"]).connect(secure, Some("a.test")).unwrap();
    let spoken = Tls::anyone().protocols(&["h2"]).connect(secure, Some("a.test")).unwrap();
    block_on(async {
        let mut idle = http2::connect(web).await;
        let received = http2::send(&mut idle, Request::get("http://a.test/"), b"").await;
        assert_eq!(received.response.status, 200);
        let fresh = http2::connect(web).await;
        let start = Instant::now();
        process.signal(Signal::TERM);
        while !process.is_over() {
            assert!(start.elapsed() < SOON, "idle connections hold the stop up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(idle.is_closed() && fresh.is_closed());
    });
    assert_eq!(process.end().code(), Some(0));
    drop((silent, used, greeted, spoken));
}

/// F-49: a WebSocket has the whole grace time, and is cut at its end.
#[test]
fn a_websocket_is_cut_at_the_end_of_the_grace_time() {
    let origin = websocket_echo();
    let life = json!({"transport": {"lifeCycle": {"graceTimeOut": "3s"}}});
    let options = json!({"entryPoints": {"web": life}});
    let mut process = Process::start(&options, &everything_to(&origin.url()));
    let mut talk = websocket(socket(process.address("web")).unwrap(), "ws://ws.test/");
    echoed(&mut talk, "before");
    let start = Instant::now();
    process.signal(Signal::TERM);
    until("it is stopping", || TcpStream::connect(process.address("web")).is_err());
    echoed(&mut talk, "meanwhile");
    assert!(talk.read().is_err());
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(process.end().code(), Some(0));
    assert!(start.elapsed() < SOON * 2);
}

/// F-49: nobody who has connected before the stop, and asks just then, is turned away.
#[test]
fn a_request_that_meets_the_stop_is_answered() {
    let origin = Origin::start();
    let life = json!({"transport": {"lifeCycle": {"graceTimeOut": "60s"}}});
    let options = json!({"entryPoints": {"web": life}});
    for _ in 0..5 {
        let mut process = Process::start(&options, &everything_to(&origin.url()));
        let mut clients: Vec<_> =
            (0..20).map(|_| Client::connect(process.address("web")).unwrap()).collect();
        process.signal(Signal::TERM);
        pause(Duration::from_millis(50));
        for client in &mut clients {
            client.write(&Ask::get("/")).unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.read("GET").unwrap().status, 200);
        }
        assert_eq!(process.end().code(), Some(0));
    }
}

/// F-49: whom the kernel has accepted is served, although the process has not seen them yet; those
/// who speak TLS have their handshakes before them.
#[test]
fn who_waits_at_the_socket_when_a_stop_comes_is_served() {
    const CLEAR: usize = 1000;
    const SECURE: usize = 8;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let life = json!({"transport": {"lifeCycle": {"graceTimeOut": "60s"}}});
    let mut options = json!({"core": {"workers": 1}, "entryPoints": {"web": life.clone()}});
    options["entryPoints"]["websecure"] = life;
    options["entryPoints"]["websecure"]["http"] = json!({"tls": {}});
    let mut process = Process::start(&options, "http: {}");
    let (web, secure) = (process.address("web"), process.address("websecure"));
    process.signal(Signal::STOP);
    let mut clear: Vec<_> = (0..CLEAR).map(|_| Client::connect(web).unwrap()).collect();
    for client in &mut clear {
        client.write(&Ask::get("/")).unwrap();
    }
    std::thread::scope(|scope| {
        let protocols: [&[&str]; 2] = [&["h2", "http/1.1"], &["http/1.1"]];
        let handshakes: Vec<_> = (0..SECURE)
            .map(|number| {
                let tls = Tls::anyone().protocols(protocols[number % 2]);
                scope.spawn(move || tls.connect(secure, Some("a.test")))
            })
            .collect();
        // Their hellos are written.
        pause(Duration::from_millis(300));
        process.signal(Signal::TERM);
        process.signal(Signal::CONT);
        for handshake in handshakes {
            let mut secured = handshake.join().unwrap().unwrap();
            if secured.protocol.as_deref() == Some("http/1.1") {
                assert_eq!(secured.client.send(&Ask::get("/")).unwrap().status, 404);
                assert!(secured.client.is_closed());
            }
        }
        for (number, client) in clear.iter_mut().enumerate() {
            let answer = client.read("GET").unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(answer.status, 404, "{number}");
        }
    });
    assert_eq!(process.end().code(), Some(0));
}
