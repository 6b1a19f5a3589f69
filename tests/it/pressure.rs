//! Sides that do not keep up: what they may cost the other side, and for how long (RP 2.2, 12, 15).

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::certs::Tls;
use crate::harness::client::socket;
use crate::harness::{
    Ask, Client, DEADLINE, Origin, Proxy, Reply, block_on, everything_to, http2, pause,
};
use crate::wire::{echoed, websocket, websocket_echo};

/// A backend whose answers never end.
struct Endless {
    origin: Origin,
    /// What it could write.
    written: Arc<AtomicUsize>,
    /// Hears of every connection that was closed under it.
    was_cut: Receiver<()>,
}

impl Endless {
    fn start() -> Self {
        let (cut, was_cut) = sync_channel(8);
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let origin = Origin::raw(move |mut stream, _| {
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99000000000\r\n\r\n");
                let block = vec![7; 1 << 16];
                while stream.write_all(&block).is_ok() {
                    count.fetch_add(block.len(), Ordering::AcqRel);
                }
                let _ = cut.send(());
            }
        });
        Self { origin, written, was_cut }
    }

    /// Behind `web` and, over TLS, `websecure`.
    fn behind(&self, transport: &Value) -> Proxy {
        let options = json!({"entryPoints": {
            "web": {"transport": transport},
            "websecure": {"transport": transport, "http": {"tls": {}}},
        }});
        Proxy::with(options).start(&everything_to(&self.origin.url()))
    }
}

fn write_timeout(time: &str) -> Value {
    json!({"respondingTimeouts": {"writeTimeout": time}})
}

/// A client of HTTP/1, in clear text or over TLS.
fn client(proxy: &Proxy, secure: bool) -> Client {
    if secure {
        Tls::anyone().connect(proxy.address("websecure"), Some("a.test")).unwrap().client
    } else {
        proxy.client()
    }
}

/// Whoever stops reading is cut when the time for the answer is over, and so is its request to
/// the backend.
#[test]
fn a_client_that_stops_reading_is_cut_after_the_write_timeout() {
    let endless = Endless::start();
    let proxy = endless.behind(&write_timeout("1s"));
    for secure in [false, true] {
        let mut client = client(&proxy, secure);
        let start = Instant::now();
        client.write(&Ask::get("/")).unwrap();
        assert_eq!(client.read_head().unwrap().0, 200);
        endless.was_cut.recv_timeout(DEADLINE).expect("the backend hears of it");
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(990), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
        let what_was_sent = std::iter::repeat_with(|| client.read_exact(1 << 16));
        assert!(what_was_sent.take(10_000).any(|read| read.is_err()), "the connection is closed");
    }
}

/// Over HTTP/2 it is the stream that is cut; its neighbours go on.
#[test]
fn a_stream_that_is_not_read_is_reset_after_the_write_timeout() {
    let endless = Endless::start();
    let proxy = endless.behind(&write_timeout("1s"));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = || Request::get("http://a.test/").body(Full::default()).unwrap();
        for _ in 0..2 {
            let start = Instant::now();
            let answer = sender.send_request(request()).await.unwrap();
            assert_eq!(answer.status(), 200);
            while endless.was_cut.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let elapsed = start.elapsed();
            assert!(elapsed >= Duration::from_millis(990), "{elapsed:?}");
            assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
            assert!(answer.into_body().collect().await.is_err(), "the stream is reset");
        }
    });
}

/// A tunnel is no answer: its time is not limited. Neither are answers that come one by one.
#[test]
fn the_write_timeout_spares_tunnels_and_connections() {
    let (chat, origin) = (websocket_echo(), Origin::start());
    let transport = write_timeout("500ms");
    let options = json!({"entryPoints": {"web": {"transport": transport}}});
    let proxy = Proxy::with(options.clone()).start(&everything_to(&chat.url()));
    let mut talk = websocket(socket(proxy.address("web")).unwrap(), "ws://ws.test/");
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        echoed(&mut talk, "hello");
        let ask = Ask::post("/", "body").header("Expect", "100-continue");
        let answer = client.send(&ask).unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, "body"));
        pause(Duration::from_millis(100));
    }
    assert_eq!(origin.connections(), 1);
}

/// An answer that comes too late is not sent any more.
#[test]
fn a_backend_that_is_slower_than_the_write_timeout_gets_no_word_through() {
    let origin = Origin::with(|_| {
        pause(Duration::from_millis(800));
        Reply::ok("late")
    });
    let options = json!({"entryPoints": {"web": {"transport": write_timeout("300ms")}}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    assert!(proxy.client().send(&Ask::get("/")).is_err());
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::get("http://a.test/").body(Full::default()).unwrap();
        assert!(sender.send_request(request).await.is_err());
    });
}

/// Waits until `count` has stood still for half a second, and returns it.
fn settled(count: &AtomicUsize) -> usize {
    let start = Instant::now();
    let (mut last, mut since) = (count.load(Ordering::Acquire), Instant::now());
    loop {
        assert!(start.elapsed() < DEADLINE, "it never stands still: {last}");
        pause(Duration::from_millis(20));
        let now = count.load(Ordering::Acquire);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if now > 0 && since.elapsed() > Duration::from_millis(500) {
            return now;
        }
    }
}

/// What may be on the way between two sides at most: the buffers of four sockets, which Linux lets
/// grow to 4 MiB for sending and 6 MiB for receiving, and our own.
const ON_THE_WAY: usize = 24 << 20;

/// A client that does not read bounds what is read from the backend.
#[test]
fn a_slow_client_slows_the_backend_down() {
    for secure in [false, true] {
        let endless = Endless::start();
        let proxy = endless.behind(&json!({}));
        let mut client = client(&proxy, secure);
        client.write(&Ask::get("/")).unwrap();
        assert_eq!(client.read_head().unwrap().0, 200);
        let ahead = settled(&endless.written);
        assert!(ahead < ON_THE_WAY, "secure: {secure}, {ahead} bytes");
        // And it goes on as soon as somebody reads again.
        let amount = ahead + (8 << 20);
        client.read_exact(amount).unwrap();
        assert!(endless.written.load(Ordering::Acquire) > ahead);
    }
}

/// The same for a stream of HTTP/2, whose window is smaller than any socket's buffer.
#[test]
fn a_slow_stream_slows_the_backend_down() {
    let endless = Endless::start();
    let proxy = endless.behind(&json!({}));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::get("http://a.test/").body(Full::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let written = Arc::clone(&endless.written);
        let ahead = tokio::task::spawn_blocking(move || settled(&written)).await.unwrap();
        assert!(ahead < ON_THE_WAY, "{ahead} bytes");
        let mut body = answer.into_body();
        let mut read = 0;
        while read < ahead + (8 << 20) {
            read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        assert!(endless.written.load(Ordering::Acquire) > ahead);
    });
}

/// A backend that reads a request's head and then nothing, until it is told to.
fn reluctant() -> (Origin, std::sync::mpsc::SyncSender<()>) {
    let (go, wait) = sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::raw(move |mut stream, _| {
        let mut head = [0; 100];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        let mut sink = vec![0; 1 << 16];
        while stream.read(&mut sink).is_ok_and(|length| length > 0) {}
    });
    (origin, go)
}

/// A backend that does not read bounds what is read from the client.
#[test]
fn a_slow_backend_slows_the_client_down() {
    for secure in [false, true] {
        let (origin, go) = reluctant();
        let options = json!({"entryPoints": {"websecure": {"http": {"tls": {}}}}});
        let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
        let mut client = client(&proxy, secure);
        let sent = AtomicUsize::new(0);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let ask = Ask::post("/", "").header("Content-Length", "99000000000");
                let head = ask.head().replacen("Content-Length: 0\r\n", "", 1);
                client.write_raw(head.as_bytes()).unwrap();
                let block = vec![7; 1 << 16];
                while !stop.load(Ordering::Acquire) && client.write_raw(&block).is_ok() {
                    sent.fetch_add(block.len(), Ordering::AcqRel);
                }
            });
            let ahead = settled(&sent);
            assert!(ahead < ON_THE_WAY, "secure: {secure}, {ahead} bytes");
            go.send(()).unwrap();
            crate::harness::until("it goes on", || {
                sent.load(Ordering::Acquire) > ahead + (8 << 20)
            });
            stop.store(true, Ordering::Release);
        });
    }
}

/// The same for a stream of HTTP/2.
#[test]
fn a_slow_backend_slows_a_stream_down() {
    let (origin, go) = reluctant();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy.address("web")).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (_answer, mut body) = sender.send_request(request, false).unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let sending = tokio::spawn(async move {
            loop {
                body.reserve_capacity(1 << 16);
                let room = std::future::poll_fn(|task| body.poll_capacity(task)).await;
                let Some(Ok(room)) = room else { return };
                if body.send_data(vec![7; room].into(), false).is_err() {
                    return;
                }
                count.fetch_add(room, Ordering::AcqRel);
            }
        });
        let count = Arc::clone(&sent);
        let ahead = tokio::task::spawn_blocking(move || settled(&count)).await.unwrap();
        assert!(ahead < ON_THE_WAY, "{ahead} bytes");
        go.send(()).unwrap();
        while sent.load(Ordering::Acquire) < ahead + (8 << 20) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sending.abort();
    });
}

/// However many streams a connection has open, their heads together have a limit: what is beyond is refused, and what
/// is within goes on.
#[test]
fn heads_of_one_http2_connection_have_a_limit_together() {
    let (go, wait) = sync_channel::<()>(0);
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::with(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        Reply::ok("late")
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    block_on(async {
        let sender = http2::connect(proxy.address("web")).await;
        let asked = (0..12).map(|_| {
            let mut sender = sender.clone();
            let request = Request::get("http://a.test/").header("x-large", "x".repeat(900_000));
            tokio::spawn(async move {
                let request = request.body(Full::default()).unwrap();
                sender.send_request(request).await.unwrap().status()
            })
        });
        let asked: Vec<_> = asked.collect();
        until_async(|| asked.iter().filter(|one| one.is_finished()).count() == 8).await;
        drop(go);
        let mut statuses = Vec::new();
        for one in asked {
            statuses.push(one.await.unwrap().as_u16());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [[200; 4].as_slice(), &[431; 8]].concat());
        let mut sender = sender;
        let again = http2::send(&mut sender, Request::get("http://a.test/"), b"").await;
        assert_eq!(again.response.status, 200, "the room is free again");
    });
}

async fn until_async(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "it took too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
