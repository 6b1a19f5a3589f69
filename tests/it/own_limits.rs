//! Limits of Doorward's own (`timeouts`, `requestBody`), and what Traefik's `respondingTimeouts` mean
//! beside them (RP 2.2): over HTTP/1 and HTTP/2, in clear text and over TLS.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::binary::run;
use crate::harness::certs::Tls;
use crate::harness::{
    Answer, Ask, Client, DEADLINE, Origin, Proxy, Reply, block_on, http2, pause, until,
};

/// Far longer than any limit here, far shorter than what a test may take.
const SOON: Duration = Duration::from_secs(10);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A router for clear text and one for TLS with these options, a service with those.
fn config(router: &str, service: &str, url: &str) -> String {
    format!(
        "
http:
  middlewares:
    buffer: {{buffering: {{}}}}
    again: {{retry: {{attempts: 3, status: ['503']}}}}
  routers:
    clear: {{rule: PathPrefix(`/`), service: app, {router}}}
    secure: {{rule: PathPrefix(`/`), service: app, tls: {{}}, {router}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}, {service}}}
"
    )
}

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
}

const WAYS: [Way; 4] = [Way::Http1, Way::Http1Tls, Way::Http2, Way::Http2Tls];

type Pieces = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A body of so many pieces with this length, one after each pause.
#[derive(Clone, Copy)]
struct Slow {
    pieces: usize,
    /// Pieces that never come.
    missing: usize,
    length: usize,
    pause: Duration,
    /// Whether the length is announced.
    announced: bool,
}

impl Slow {
    fn whole(self) -> usize {
        self.pieces * self.length
    }

    fn stream(self) -> StreamBody<Pieces> {
        StreamBody::new(Box::pin(stream::unfold(self.pieces, move |left| async move {
            tokio::time::sleep(self.pause).await;
            let piece = Bytes::from(vec![b'x'; self.length]);
            if self.missing > 0 && left == self.missing {
                std::future::pending::<()>().await;
            }
            (left > 0).then(|| (Ok(Frame::data(piece)), left - 1))
        })))
    }
}

fn http1(proxy: &Proxy, tls: bool) -> Client {
    if tls {
        let tls = Tls::anyone().protocols(&["http/1.1"]);
        return tls.connect(proxy.address("websecure"), Some("app.test")).unwrap().client;
    }
    proxy.client()
}

async fn http2<B>(proxy: &Proxy, tls: bool) -> SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    if tls {
        return http2::over(http2::tls(proxy.address("websecure"), "app.test").await).await;
    }
    let stream = tokio::net::TcpStream::connect(proxy.address("web")).await.unwrap();
    http2::over(stream).await
}

/// Posts a slow body; the status and the body of the answer, or that there is none.
fn post(proxy: &Proxy, way: Way, body: Slow) -> Result<(u16, String), String> {
    let tls = matches!(way, Way::Http1Tls | Way::Http2Tls);
    if matches!(way, Way::Http1 | Way::Http1Tls) {
        return post_http1(http1(proxy, tls), body).map_err(|error| error.to_string());
    }
    block_on(async {
        let mut sender = http2(proxy, tls).await;
        let mut request = Request::post("http://app.test/");
        if body.announced {
            request = request.header("content-length", body.whole());
        }
        let sent = sender.send_request(request.body(body.stream()).unwrap()).await;
        let response = sent.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let read = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&read.to_bytes()).into_owned()))
    })
}

fn post_http1(mut client: Client, body: Slow) -> std::io::Result<(u16, String)> {
    let ask = Ask::new("POST", "/");
    let ask = if body.announced {
        ask.header("Content-Length", &body.whole().to_string())
    } else {
        ask.header("Transfer-Encoding", "chunked")
    };
    client.write_raw(ask.head().as_bytes())?;
    let data = "x".repeat(body.length);
    let piece = if body.announced { data } else { format!("{:x}\r\n{data}\r\n", body.length) };
    let mut open = true;
    for _ in 0..body.pieces - body.missing {
        pause(body.pause);
        open = open && client.write_raw(piece.as_bytes()).is_ok();
    }
    if open && !body.announced && body.missing == 0 {
        let _ = client.write_raw(b"0\r\n\r\n");
    }
    let answer: Answer = client.read("POST")?;
    Ok((answer.status, answer.text()))
}

/// A backend that is told what to do with each connection once it has read a head.
fn scripted(then: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Origin {
    Origin::raw(move |mut stream, _| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        then(&mut stream);
    })
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Never says anything, and waits until the other side has closed.
fn silent() -> (Origin, mpsc::Receiver<()>) {
    let (gone, went) = mpsc::sync_channel(16);
    let origin = scripted(move |stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = gone.send(());
    });
    (origin, went)
}

/// Says `first`, then this piece after each pause; tells when nobody takes any more.
fn streaming(piece: &'static [u8], every: Duration) -> (Origin, mpsc::Receiver<()>) {
    let (gone, went) = mpsc::sync_channel(16);
    let origin = scripted(move |stream| {
        let _ = stream.write_all(HEAD);
        while stream.write_all(piece).is_ok() {
            if !every.is_zero() {
                pause(every);
            }
        }
        let _ = gone.send(());
    });
    (origin, went)
}

fn get(proxy: &Proxy, way: Way) -> Result<(u16, String), String> {
    post(proxy, way, Slow { pieces: 0, missing: 0, length: 0, pause: ms(0), announced: true })
}

#[test]
fn the_first_byte_has_its_time() {
    let (origin, went) = silent();
    let url = origin.url();
    for (router, service) in [
        ("timeouts: {firstByte: 200ms}", ""),
        ("", "timeouts: {firstByte: 200ms}"),
        ("timeouts: {firstByte: 200ms}", "timeouts: {firstByte: 1h}"),
        ("timeouts: {idle: 1h}", "timeouts: {firstByte: 200ms}"),
    ] {
        let proxy = Proxy::start(&config(router, service, &url));
        let start = Instant::now();
        let answer = get(&proxy, Way::Http1).unwrap();
        assert_eq!(answer, (504, "Gateway Timeout".to_owned()), "{router} {service}");
        assert!(start.elapsed() >= ms(200) && start.elapsed() < SOON);
        went.recv_timeout(DEADLINE).expect("the backend is left");
    }
}

/// It wins over the transport's `responseHeaderTimeout`, and 0 is no limit.
#[test]
fn a_router_may_wait_longer_than_others() {
    let origin = Origin::with(|_| {
        pause(ms(400));
        Reply::ok("late")
    });
    let transport =
        json!({"serversTransport": {"forwardingTimeouts": {"responseHeaderTimeout": "100ms"}}});
    for (router, service, status) in [
        ("", "", 504),
        ("timeouts: {firstByte: 20s}", "", 200),
        ("timeouts: {firstByte: 0}", "timeouts: {firstByte: 50ms}", 200),
        ("", "timeouts: {firstByte: 0}", 200),
    ] {
        let proxy = Proxy::with(transport.clone()).start(&config(router, service, &origin.url()));
        assert_eq!(proxy.get("/").status, status, "{router} {service}");
    }
}

#[test]
fn a_client_that_pauses_inside_its_body_is_cut() {
    let origin = Origin::start();
    let by_router = Proxy::start(&config("timeouts: {idle: 400ms}", "", &origin.url()));
    let by_service = Proxy::start(&config("", "timeouts: {idle: 400ms}", &origin.url()));
    let stalling = |announced| Slow { pieces: 2, missing: 1, length: 10, pause: ms(20), announced };
    for way in WAYS {
        for (proxy, announced) in [(&by_router, true), (&by_router, false), (&by_service, true)] {
            let answer = post(proxy, way, stalling(announced)).unwrap();
            assert_eq!(answer, (408, "Request Timeout".to_owned()), "{way:?} {announced}");
        }
    }
    assert_eq!(origin.count(), 0, "the backend never saw a whole request");
    let steady = Slow { pieces: 25, missing: 0, length: 4, pause: ms(20), announced: false };
    for way in WAYS {
        assert_eq!(post(&by_router, way, steady).unwrap().0, 200, "{way:?}");
        assert_eq!(origin.last().body.len(), 100);
    }
}

#[test]
fn a_server_that_pauses_inside_its_answer_is_cut() {
    let (origin, went) = {
        let (gone, went) = mpsc::sync_channel(16);
        let origin = scripted(move |stream| {
            let _ = stream.write_all(&[HEAD, b"5\r\nhello\r\n"].concat());
            let _ = stream.read_to_end(&mut Vec::new());
            let _ = gone.send(());
        });
        (origin, went)
    };
    for (router, service) in
        [("timeouts: {idle: 250ms}", ""), ("timeouts: {idle: 250ms}", "timeouts: {idle: 1h}")]
    {
        let proxy = Proxy::start(&config(router, service, &origin.url()));
        for way in [Way::Http1, Way::Http2] {
            let start = Instant::now();
            let read = get(&proxy, way);
            assert!(read.is_err(), "{way:?}: {read:?}");
            assert!(start.elapsed() >= ms(250) && start.elapsed() < SOON);
            went.recv_timeout(DEADLINE).expect("the backend is left");
        }
    }
    // What has a whole answer before it says anything can still say what happened.
    let router = "middlewares: [buffer], timeouts: {idle: 250ms}";
    let proxy = Proxy::start(&config(router, "", &origin.url()));
    assert_eq!(get(&proxy, Way::Http1).unwrap().0, 504);
}

#[test]
fn a_total_is_for_all_of_an_exchange() {
    let (quiet, left) = silent();
    let (endless, cut) = streaming(b"1\r\nx\r\n", ms(20));
    for (router, service) in [
        ("timeouts: {total: 300ms}", ""),
        ("", "timeouts: {total: 300ms}"),
        ("timeouts: {total: 300ms}", "timeouts: {total: 1h}"),
    ] {
        let proxy = Proxy::start(&config(router, service, &quiet.url()));
        for way in [Way::Http1, Way::Http2] {
            let start = Instant::now();
            assert_eq!(get(&proxy, way).unwrap(), (504, "Gateway Timeout".to_owned()), "{way:?}");
            assert!(start.elapsed() >= ms(300) && start.elapsed() < SOON);
            left.recv_timeout(DEADLINE).expect("the backend is left");
        }
        let proxy = Proxy::start(&config(router, service, &endless.url()));
        for way in [Way::Http1, Way::Http2] {
            let start = Instant::now();
            let read = get(&proxy, way);
            assert!(read.is_err(), "{way:?}: {read:?}");
            assert!(start.elapsed() >= ms(300) && start.elapsed() < SOON);
            cut.recv_timeout(DEADLINE).expect("the backend is cut");
        }
    }
}

const CHUNK: &[u8] = &{
    let mut chunk = [b'x'; 0x8000 + 8];
    let frame = *b"8000\r\n";
    let mut at = 0;
    while at < frame.len() {
        chunk[at] = frame[at];
        at += 1;
    }
    chunk[0x8000 + 6] = b'\r';
    chunk[0x8000 + 7] = b'\n';
    chunk
};

/// Nobody asks an answer for more while its client takes nothing: it ends in time all the same, with
/// `timeouts.total` and with `writeTimeout` (RP-2.2).
#[test]
fn a_client_that_takes_nothing_is_left_in_time() {
    let (origin, cut) = streaming(CHUNK, ms(0));
    let timeouts = json!({"respondingTimeouts": {"writeTimeout": "300ms"}});
    let entry_point = json!({"transport": timeouts});
    for (options, router) in [
        (json!({}), "timeouts: {total: 300ms}"),
        (json!({"entryPoints": {"web": entry_point, "websecure": entry_point}}), ""),
    ] {
        let proxy = Proxy::with(options).start(&config(router, "", &origin.url()));
        for tls in [false, true] {
            let mut client = http1(&proxy, tls);
            client.write(&Ask::get("/")).unwrap();
            cut.recv_timeout(DEADLINE).expect("the backend is cut");
            drop(client);
            block_on(async {
                let mut sender = http2(&proxy, tls).await;
                let ask = || Request::get("http://app.test/").body(Full::<Bytes>::default());
                let unread = sender.send_request(ask().unwrap()).await.unwrap();
                let start = Instant::now();
                while cut.try_recv().is_err() {
                    assert!(start.elapsed() < DEADLINE, "the backend is cut");
                    tokio::time::sleep(ms(10)).await;
                }
                // The connection is for others as well.
                sender.ready().await.unwrap();
                drop(unread);
            });
        }
    }
}

/// The answer that says so is delivered, and the next exchange has its own time.
#[test]
fn a_total_belongs_to_one_exchange() {
    let origin = Origin::with(|seen| {
        if seen.target == "/slow" {
            pause(ms(1200));
        }
        Reply::ok("here")
    });
    let proxy = Proxy::start(&config("timeouts: {total: 600ms}", "", &origin.url()));
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().text(), "here");
        pause(ms(350));
    }
    assert_eq!(client.send(&Ask::get("/slow")).unwrap().status, 504);
    assert_eq!(client.send(&Ask::get("/")).unwrap().text(), "here");
}

/// Once protocols are switched, neither `total` nor `idle` says anything.
#[test]
fn tunnels_have_no_limit() {
    let origin = scripted(|stream| {
        let switch =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        let _ = stream.write_all(switch);
        let mut word = [0; 5];
        let _ = stream.read_exact(&mut word);
        let _ = stream.write_all(&word);
    });
    let proxy = Proxy::start(&config("timeouts: {total: 200ms, idle: 100ms}", "", &origin.url()));
    let mut client = proxy.client();
    let ask = Ask::get("/").header("Connection", "Upgrade").header("Upgrade", "echo");
    assert_eq!(client.send(&ask).unwrap().status, 101);
    pause(ms(500));
    client.write_raw(b"hello").unwrap();
    assert_eq!(client.read_exact(5).unwrap(), b"hello");
}

#[test]
fn a_body_has_a_rate() {
    let origin = Origin::start();
    let router = "timeouts: {bodyMinRate: 1000, bodyMinRateGrace: 250ms}";
    let proxy = Proxy::start(&config(router, "", &origin.url()));
    for way in WAYS {
        let dripping = Slow { pieces: 16, missing: 0, length: 1, pause: ms(25), announced: false };
        let start = Instant::now();
        assert_eq!(post(&proxy, way, dripping).unwrap().0, 408, "{way:?}");
        assert!(start.elapsed() >= ms(250) && start.elapsed() < SOON);
    }
    assert_eq!(origin.count(), 0);
    for way in WAYS {
        let running =
            Slow { pieces: 20, missing: 0, length: 10_000, pause: ms(25), announced: true };
        assert_eq!(post(&proxy, way, running).unwrap().0, 200, "{way:?}");
    }
}

/// Of routers below each other the innermost has the last word, value by value (RP-3.6).
#[test]
fn the_innermost_router_wins() {
    let origin = Origin::with(|seen| {
        pause(ms(400));
        Reply::ok(seen.body.clone())
    });
    let proxy = Proxy::start(&format!(
        "
http:
  routers:
    root: {{rule: PathPrefix(`/`), timeouts: {{total: 150ms}}, requestBody: {{maxBytes: 3}}}}
    longer: {{rule: Path(`/longer`), parentRefs: [root], service: app, timeouts: {{total: 20s}}}}
    larger: {{rule: Path(`/larger`), parentRefs: [root], service: app,
              timeouts: {{total: 0}}, requestBody: {{maxBytes: 6}}}}
    same: {{rule: Path(`/same`), parentRefs: [root], service: app}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, timeouts: {{total: 1h}}}}
",
        origin.url()
    ));
    for (target, body, status) in [
        ("/longer", "abc", 200),
        ("/longer", "abcd", 413),
        ("/larger", "abcdef", 200),
        ("/larger", "abcdefg", 413),
        ("/same", "abc", 504),
        ("/same", "abcd", 413),
    ] {
        for ask in [Ask::post(target, body), Ask::post(target, body).chunked()] {
            assert_eq!(proxy.send(&ask).status, status, "{target} {body} {ask:?}");
        }
    }
}

fn entry_points(options: &Value) -> Value {
    json!({"entryPoints": {"web": options, "websecure": options}})
}

/// RP-2.2: `readTimeout` that is written is for the whole request; `idleTimeout` for what comes between.
#[test]
fn responding_timeouts_are_the_same_over_every_wire() {
    let origin = Origin::start();
    let written = json!({"transport": {"respondingTimeouts": {
        "readTimeout": "500ms", "idleTimeout": "300ms",
    }}});
    let proxy = Proxy::with(entry_points(&written)).start(&config("", "", &origin.url()));
    // No pause is long, all together are.
    let slow = Slow { pieces: 26, missing: 0, length: 10, pause: ms(30), announced: true };
    for way in WAYS {
        let start = Instant::now();
        assert_eq!(post(&proxy, way, slow).unwrap().0, 408, "{way:?}");
        assert!(start.elapsed() >= ms(450) && start.elapsed() < SOON);
    }
    assert_eq!(origin.count(), 0);
    for tls in [false, true] {
        let mut client = http1(&proxy, tls);
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
        assert!(client.is_closed());
        block_on(async {
            let mut sender = http2(&proxy, tls).await;
            let ask = || Request::get("http://app.test/").body(Full::<Bytes>::default()).unwrap();
            assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
            let start = Instant::now();
            while sender.ready().await.is_ok() {
                assert!(start.elapsed() < SOON);
                tokio::time::sleep(ms(10)).await;
            }
        });
    }
}

#[test]
fn what_is_announced_too_large_reaches_nobody() {
    let origin = Origin::start();
    let proxy = Proxy::start(&config("requestBody: {maxBytes: 10}", "", &origin.url()));
    let large = Slow { pieces: 11, missing: 0, length: 1, pause: ms(0), announced: true };
    for way in WAYS {
        let answer = post(&proxy, way, large).unwrap();
        assert_eq!(answer, (413, "Request Entity Too Large".to_owned()), "{way:?}");
    }
    // Before a byte of it was asked for, and the connection closes behind it.
    let mut client = proxy.client();
    let ask = Ask::new("PUT", "/").header("Content-Length", "11").header("Expect", "100-continue");
    let answer = client.send(&ask).unwrap();
    assert_eq!((answer.status, answer.before.len()), (413, 0));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(origin.connections(), 0);
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.send(&Ask::post("/", "0123456789")).unwrap().text(), "0123456789");
    }
}

/// A backend that speaks HTTP/2 in clear text, and counts requests that were whole.
fn http2_origin(whole: &Arc<AtomicUsize>) -> Origin {
    let whole = Arc::clone(whole);
    Origin::raw(move |stream, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let service = |request: Request<Incoming>| {
            let whole = Arc::clone(&whole);
            async move {
                let body = request.into_body().collect().await;
                if body.is_ok() {
                    whole.fetch_add(1, Ordering::AcqRel);
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"whole"))))
            }
        };
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, hyper::service::service_fn(service))
                .await;
        });
    })
}

#[test]
fn a_body_that_turns_out_too_large_is_never_whole() {
    // Of HTTP/1 a backend tells a whole body by its last chunk.
    let (seen, saw) = mpsc::sync_channel(16);
    let http1 = scripted(move |stream| {
        let mut body = Vec::new();
        let _ = stream.read_to_end(&mut body);
        let _ = seen.send(body);
    });
    let whole = Arc::new(AtomicUsize::new(0));
    let http2 = http2_origin(&whole);
    let h2c = http2.url().replace("http:", "h2c:");
    let large = Slow { pieces: 12, missing: 0, length: 1000, pause: ms(5), announced: false };
    for way in WAYS {
        let proxy = Proxy::start(&config("requestBody: {maxBytes: 10000}", "", &http1.url()));
        let answer = post(&proxy, way, large).unwrap();
        assert_eq!(answer, (413, "Request Entity Too Large".to_owned()), "{way:?}");
        let body = saw.recv_timeout(DEADLINE).unwrap();
        assert!(!body.is_empty() && !body.ends_with(b"0\r\n\r\n"), "{way:?}: {}", body.len());
        let proxy = Proxy::start(&config("requestBody: {maxBytes: 10000}", "", &h2c));
        assert_eq!(post(&proxy, way, large).unwrap().0, 413, "{way:?}");
        let fits = Slow { pieces: 10, ..large };
        assert_eq!(post(&proxy, way, fits).unwrap(), (200, "whole".to_owned()), "{way:?}");
    }
    assert_eq!(whole.load(Ordering::Acquire), WAYS.len());
}

#[test]
fn whoever_reads_bodies_reads_limited_ones() {
    let (origin, copies, other) = (Origin::start(), Origin::start(), Origin::start());
    let proxy = Proxy::start(&format!(
        "
http:
  middlewares:
    buffer: {{buffering: {{maxRequestBodyBytes: 1000}}}}
    again: {{retry: {{attempts: 3, status: ['503']}}}}
    auth: {{forwardAuth: {{address: '{}', forwardBody: true, maxBodySize: 1000}}}}
  routers:
    buffered: {{rule: Path(`/buffered`), service: app, middlewares: [buffer], requestBody: {{maxBytes: 9}}}}
    retried: {{rule: Path(`/retried`), service: app, middlewares: [again], requestBody: {{maxBytes: 9}}}}
    asked: {{rule: Path(`/asked`), service: app, middlewares: [auth], requestBody: {{maxBytes: 9}}}}
    mirrored: {{rule: Path(`/mirrored`), service: mirrored, requestBody: {{maxBytes: 9}}}}
    saved: {{rule: Path(`/saved`), service: saved, requestBody: {{maxBytes: 9}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    copy: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    mirrored: {{mirroring: {{service: app, mirrors: [{{name: copy, percent: 100}}]}}}}
    saved: {{failover: {{service: app, fallback: copy, errors: {{status: ['500-599']}}}}}}
",
        other.url(),
        origin.url(),
        copies.url()
    ));
    for target in ["/buffered", "/retried", "/asked", "/mirrored", "/saved"] {
        let method = if target == "/retried" { "PUT" } else { "POST" };
        let ask = |body: &str| {
            let mut ask = Ask::post(target, body);
            method.clone_into(&mut ask.method);
            ask
        };
        for ask in [ask("0123456789"), ask("0123456789").chunked()] {
            let answer = proxy.send(&ask);
            assert_eq!((answer.status, answer.text().as_str()), (413, "Request Entity Too Large"));
        }
        assert_eq!((origin.count(), copies.count(), other.count()), (0, 0, 0), "{target}");
    }
    for (number, target) in ["/buffered", "/retried", "/mirrored", "/saved"].iter().enumerate() {
        let ask = Ask::post(target, "012345678").chunked();
        assert_eq!(proxy.send(&ask).text(), "012345678", "{target}");
        assert_eq!(origin.count(), number + 1);
    }
    until("the mirror has its copy", || copies.count() == 1);
}

#[test]
fn an_entry_point_has_a_default() {
    let origin = Origin::start();
    let options = entry_points(&json!({"http": {"requestBody": {"maxBytes": 5}}}));
    for (router, most) in [
        ("", Some(5)),
        ("requestBody: {}", Some(5)),
        ("requestBody: {maxBytes: 8}", Some(8)),
        ("requestBody: {maxBytes: 0}", None),
    ] {
        let proxy = Proxy::with(options.clone()).start(&config(router, "", &origin.url()));
        for length in [5, 6, 8, 9, 100_000] {
            let status = if most.is_none_or(|most| length <= most) { 200 } else { 413 };
            for ask in
                [Ask::post("/", "x".repeat(length)), Ask::post("/", "x".repeat(length)).chunked()]
            {
                assert_eq!(proxy.send(&ask).status, status, "{router} {length}");
            }
        }
        let shown = proxy.api("/api/http/routers/web-clear@file");
        let shown = if shown.is_null() { Value::Null } else { shown["requestBody"].clone() };
        assert_eq!(shown, json!({"maxBytes": most.unwrap_or_default()}), "{router}");
    }
}

#[test]
fn the_access_log_tells_whose_limit_it_was() {
    let (origin, _cut) = streaming(b"1\r\nx\r\n", ms(20));
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("access.log");
    let log = json!({"accessLog": {"filePath": file, "format": "json"}});
    let router = "timeouts: {idle: 200ms, total: 400ms}, requestBody: {maxBytes: 5}";
    let proxy = Proxy::with(log).start(&config(router, "", &origin.url()));
    assert_eq!(proxy.send(&Ask::post("/", "123456")).status, 413);
    assert!(get(&proxy, Way::Http1).is_err());
    let lines = || -> Vec<(Value, Value)> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["DownstreamStatus"].clone(), line["Reason"].clone())).collect()
    };
    until("both lines are there", || lines().len() == 2);
    assert_eq!(
        lines(),
        [
            (json!(413), json!("request body over requestBody.maxBytes")),
            (json!(200), json!("exchange longer than timeouts.total")),
        ]
    );
}

#[test]
fn wrong_limits_break_their_router_only() {
    let origin = Origin::start();
    let router = "timeouts: {firstByte: -1s}, requestBody: {maxBytes: -5}";
    let text = config(router, "", &origin.url())
        + "    other: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}, timeouts: {idle: -1s}}\n";
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("/").status, 503);
    let shown = proxy.api("/api/http/routers/clear@file");
    assert_eq!(
        shown["error"],
        json!([
            "`firstByte` is negative: write a duration such as 30s, or 0 for no limit",
            "`maxBytes` is negative: write a number of bytes, or 0 for no limit",
        ])
    );
    let shown = proxy.api("/api/http/services/other@file");
    assert!(shown["error"][0].as_str().unwrap().contains("`idle` is negative"), "{shown}");
    proxy.reload(&config("timeouts: {bodyMinRateGrace: 3s}", "", &origin.url()));
    until("it works, with a warning", || proxy.get("/").status == 200);
    let shown = proxy.api("/api/http/routers/clear@file");
    assert_eq!(shown["status"], "warning");
    assert_eq!(shown["timeouts"], json!({"bodyMinRateGrace": "3s"}));
}

/// RP-2.2: written, it cuts uploads, and whoever starts with it is told so.
#[test]
fn check_tells_of_a_read_timeout_and_of_wrong_limits() {
    let directory = tempfile::TempDir::new().unwrap();
    let checked = |options: &str| -> Vec<String> {
        let file = directory.path().join("static.yml");
        std::fs::write(&file, format!("entryPoints: {{web: {{address: ':80', {options}}}}}\n"))
            .unwrap();
        let file = file.display().to_string();
        let output = run(&["check", "--format=json", &file]).stdout;
        let said: Value = serde_json::from_slice(&output).unwrap();
        let found = said["diagnostics"].as_array().unwrap().iter();
        found.map(|one| format!("{} {}", one["severity"], one["message"])).collect()
    };
    let timeout = |value| format!("transport: {{respondingTimeouts: {{readTimeout: {value}}}}}");
    assert_eq!(checked(""), [""; 0]);
    assert_eq!(checked(&timeout("0")), [""; 0]);
    let told = checked(&timeout("90"));
    assert_eq!(told.len(), 1, "{told:?}");
    let want = "\"a request with its body must arrive in 1m30s: uploads that take longer are cut\"";
    assert_eq!(told[0], format!("\"warning\" {want}"));
    let told = checked("http: {requestBody: {maxBytes: -1}}");
    assert!(told.len() == 1 && told[0].contains("`maxBytes` is negative"), "{told:?}");
}
