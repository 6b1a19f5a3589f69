//! Connections of clients from the first byte to the last, on an entry point without routers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ::http::header::{CONTENT_LENGTH, HOST};
use ::http::{Method, Request, StatusCode, Version};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;

use super::connection::Door;
use super::http::{serve_http1, serve_http2};
use super::*;
use crate::config::limits::Limits;
use crate::exchange::{
    Body, BodyError, Chain, Connection, Context, Handler, OpenWork, Response, ResponseFuture, ready,
};
use crate::observability::metrics::MetricsConfig;
use crate::router::{EntryPointRoutes, HttpRouter, HttpRouters, RoutingTable};
use crate::rule::Rule;

fn door() -> Arc<Door> {
    door_with(|_| {})
}

pub(super) fn door_with(change: impl FnOnce(&mut EntryPoint)) -> Arc<Door> {
    limited_door(Limits::default(), change)
}

pub(super) fn limited_door(limits: Limits, change: impl FnOnce(&mut EntryPoint)) -> Arc<Door> {
    let facts = EntryPointFacts { name: Arc::from("web"), ..EntryPointFacts::default() };
    let mut entry_point = EntryPoint {
        position: 0,
        facts: Arc::new(facts),
        address: SocketAddr::from(([127, 0, 0, 1], 80)),
        reuse_port: false,
        trusted: TrustedSources::new(false, &[]),
        connection_headers: Vec::new(),
        request_id: None,
        proxy_protocol: None,
        target: TargetRules::default(),
        underscores: UnderscoreStrategy::Keep,
        aliases: false,
        strict_tls_options: true,
        limits: FieldLimits { max_fields: 100, max_bytes: 1 << 16 },
        timeouts: Timeouts { read: None, body: BodyTimeout::Total, write: None, idle: None },
        keep_alive_max_requests: 0,
        keep_alive_max_time: None,
        http2_max_concurrent_streams: 10,
        http2_max_decoder_table: 4096,
        metrics: None,
        life_cycle: LifeCycle {
            request_accept_grace: Duration::ZERO,
            grace: Duration::from_secs(1),
        },
        shortage: Shortage::default(),
    };
    change(&mut entry_point);
    let table = RoutingTable { entry_points: Box::new([EntryPointRoutes::default()]) };
    let metrics = Arc::new(Metrics::new(&MetricsConfig::default()).unwrap());
    let shared = Shared {
        table: LiveTable::new(table),
        access_log: None,
        server_name: HeaderValue::from_static("here"),
        cname: None,
        guard: Guard::new(limits, &metrics),
        metrics,
        overload: None,
    };
    Door::new(Arc::new(shared), Arc::new(entry_point), 0, None)
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4711))
}

pub(super) fn connection(door: &Door) -> Arc<Connection> {
    let address = address();
    Arc::new(Connection {
        entry_point: Arc::clone(&door.entry_point.facts),
        peer: address,
        peer_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        peer_ip_text: HeaderValue::from_static("192.0.2.7"),
        local: address,
        tls: None,
        opened: tokio::time::Instant::now(),
        work: OpenWork::default(),
        own: std::sync::OnceLock::new(),
    })
}

/// Sends `bytes` over HTTP/1 and reads until the connection is closed; `None` when it stays open.
async fn converse(bytes: &str) -> Option<String> {
    let (mut client, server) = duplex(1 << 16);
    let serving = spawn_local(async move {
        let door = door();
        serve_http1(&door, connection(&door), None, server, Bytes::new()).await
    });
    client.write_all(bytes.as_bytes()).await.unwrap();
    let mut text = String::new();
    let closed = tokio::time::timeout(Duration::from_mins(1), read_all(&mut client, &mut text));
    let closed = closed.await.is_ok();
    serving.abort();
    closed.then_some(text)
}

async fn read_all(client: &mut DuplexStream, text: &mut String) {
    client.read_to_string(text).await.unwrap();
}

/// RFC 9112 9.6: nothing behind a request with `close` is looked at, in whatever line of `Connection` it is.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_client_that_asks_to_close_is_heard() {
    for lines in [
        "Connection: close\r\n",
        "Connection: é, close\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n",
        "connection: keep-alive,\tClose , x\r\n",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let text = text + "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = converse(&text).await.expect(lines);
        assert_eq!(answer.matches("HTTP/1.1 404").count(), 1, "{lines}{answer}");
        assert!(answer.to_lowercase().contains("connection: close\r\n"), "{answer}");
    }
}

/// hyper lets go of the stream without shutting it down where a request has asked for an upgrade. A socket that is
/// closed with bytes unread resets the connection, and the client may lose the answer.
#[tokio::test(flavor = "local")]
async fn a_refused_upgrade_costs_nobody_the_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade, close\r\n\r\n";
    let behind = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3000);
    client.write_all(format!("{head}{behind}").as_bytes()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let serving = spawn_local(async move {
        let door = door();
        serve_http1(&door, connection(&door), None, socket, Bytes::new()).await
    });
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
    // More than a connection takes while nobody reads it.
    let more = vec![b'x'; 700_000];
    client.write_all(&more).await.unwrap();
    drop(client);
    serving.await.unwrap().unwrap();
}

async fn answers(request: Request<Empty<Bytes>>) -> (StatusCode, Option<HeaderValue>, Bytes) {
    let (client, server) = duplex(1 << 16);
    spawn_local(async move {
        let door = door();
        serve_http2(&door, connection(&door), None, server).await
    });
    let (mut sender, task) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
            .await
            .unwrap();
    spawn_local(task);
    let response = sender.send_request(request).await.unwrap();
    let length = response.headers().get(CONTENT_LENGTH).cloned();
    let status = response.status();
    (status, length, response.into_body().collect().await.unwrap().to_bytes())
}

fn request(method: Method, uri: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    request
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_that_leaves_a_body_unread_says_that_it_closes() {
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for unread in [
        format!("{post}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
        format!("{post}Content-Length: 5\r\n\r\nabc"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
    ] {
        let text = converse(&format!("{get}{unread}")).await.unwrap();
        assert_eq!(text.matches("HTTP/1.1 404 ").count(), 2, "{unread:?} {text}");
        assert_eq!(text.matches("connection: close").count(), 1, "{unread:?} {text}");
    }
    let whole = format!("{post}Content-Length: 5\r\n\r\nabcde");
    assert_eq!(converse(&whole).await, None);
    let text = converse(&format!("{whole}{get}GET / HTTP/3.0\r\n\r\n")).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 404 ").count(), 2, "{text}");
    assert_eq!(text.matches("connection: close").count(), 1, "{text}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_fragment_is_refused_without_a_word() {
    let text = converse("GET /private#x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test(flavor = "local")]
async fn head_over_http2_is_answered_without_a_body() {
    let (status, length, body) = answers(request(Method::HEAD, "http://a.test/")).await;
    assert_eq!((status, &body[..]), (StatusCode::NOT_FOUND, &b""[..]));
    assert_eq!(length.unwrap(), "19");
    let (_, length, body) = answers(request(Method::GET, "http://a.test/")).await;
    assert_eq!((length.unwrap().as_bytes(), &body[..]), (&b"19"[..], &b"404 page not found\n"[..]));
}

/// T-77: over HTTP/2 no gate has seen it. Behind this, the forwarder would refuse it too.
#[tokio::test(flavor = "local")]
async fn connect_finds_no_router() {
    let mut parts = request(Method::CONNECT, "a.test:443").into_parts().0;
    let refused = head::canonicalize(&door().entry_point, &mut parts).unwrap_err();
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
    let (status, _, body) = answers(request(Method::CONNECT, "a.test:443")).await;
    assert_eq!((status, &body[..]), (StatusCode::NOT_IMPLEMENTED, &b""[..]));
}

#[tokio::test(flavor = "local")]
async fn what_http2_lets_through_is_checked() {
    let mut padded = request(Method::GET, "http://a.test/");
    padded.headers_mut().insert("x-a", HeaderValue::from_static(" b"));
    let mut hosts = request(Method::GET, "http://a.test/");
    hosts.headers_mut().append(HOST, HeaderValue::from_static("a.test"));
    hosts.headers_mut().append(HOST, HeaderValue::from_static("b.test"));
    let query_only = request(Method::GET, "http://a.test?private");
    for (refused, want) in [
        (padded, "400 Bad Request: white space around a header value"),
        (hosts, "400 Bad Request: too many Host headers"),
        (query_only, "400 Bad Request: malformed target"),
    ] {
        let (status, _, body) = answers(refused).await;
        assert_eq!((status, &body[..]), (StatusCode::BAD_REQUEST, want.as_bytes()));
    }
}

/// Panics: on the way to `/head` at once, on the way to anything else in the middle of the body.
struct Panics;

impl Handler for Panics {
    fn handle<'a>(
        &'a self,
        _: &'a Context,
        request: crate::exchange::Request,
    ) -> ResponseFuture<'a> {
        assert_ne!(request.uri().path(), "/head");
        let half = http_body::Frame::data(Bytes::from_static(b"half"));
        let frames = futures_util::stream::iter([Ok::<_, BodyError>(half)]);
        let frames = frames.chain(futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            panic!("in the middle of a body")
        }));
        ready(Response::new(Body::boxed(http_body_util::StreamBody::new(frames))))
    }
}

/// RP-1.15, RP-14.17
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_panic_is_a_500_or_the_end_of_the_connection() {
    let router = HttpRouter {
        name: "r@file".into(),
        service: "s@file".into(),
        rule: Arc::new(Rule::parse("PathPrefix(`/`)").unwrap()),
        priority: 1,
        chain: Chain::new(Vec::new(), Arc::new(Panics)),
        tls_options: None,
        encoded_characters: None,
        metrics: None,
        count: true,
        access_log: true,
        broken: false,
    };
    let door = door();
    let at_web =
        EntryPointRoutes { http: HttpRouters::new(vec![Arc::new(router)]), ..Default::default() };
    door.shared.table.publish(Arc::new(RoutingTable { entry_points: Box::new([at_web]) }));
    for (path, end) in [("/head", "\r\n\r\nInternal Server Error\n"), ("/body", "half\r\n")] {
        let (mut client, server) = duplex(1 << 16);
        let doors = Arc::clone(&door);
        spawn_local(async move {
            serve_http1(&doors, connection(&doors), None, server, Bytes::new()).await
        });
        let ask = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        client.write_all(ask.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = client.read_to_string(&mut text).await;
        let start = if path == "/head" { "HTTP/1.1 500 " } else { "HTTP/1.1 200 " };
        assert!(text.starts_with(start), "{path}: {text}");
        assert!(text.ends_with(end), "{text}");
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const NOT_FOUND: &str = "404 page not found\n";

/// Reads one answer.
async fn answer(client: &mut DuplexStream) -> String {
    let mut text = String::new();
    while !text.ends_with(NOT_FOUND) {
        let mut buf = [0; 1024];
        let length = client.read(&mut buf).await.unwrap();
        assert!(length > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buf[..length]).unwrap());
    }
    text
}

/// How many connections of hyper there are: each holds the door once, and so does the loop.
fn talks(door: &Arc<Door>) -> usize {
    Arc::strong_count(door) - 2
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_rests_between_requests_and_goes_on() {
    let door = door_with(|entry_point| entry_point.keep_alive_max_requests = 7);
    let (mut client, server) = duplex(1 << 16);
    let doors = Arc::clone(&door);
    let serving = spawn_local(async move {
        serve_http1(&doors, connection(&doors), None, server, Bytes::new()).await
    });
    for pause in [1, 3, 1000, 3] {
        client.write_all(GET).await.unwrap();
        assert!(answer(&mut client).await.starts_with("HTTP/1.1 404 "));
        assert_eq!(talks(&door), 1);
        tokio::time::sleep(Duration::from_secs(pause)).await;
        assert_eq!(talks(&door), usize::from(pause == 1), "after {pause} s");
    }
    // What has begun does not rest, and what comes in pieces comes whole.
    for part in GET.chunks(20) {
        client.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 404 "));
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.write_all(&[GET, GET].concat()).await.unwrap();
    let mut text = String::new();
    read_all(&mut client, &mut text).await;
    assert_eq!(text.matches("HTTP/1.1 404 ").count(), 2, "{text}");
    assert_eq!(text.matches("connection: close").count(), 1, "the seventh is the last: {text}");
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_resting_connection_ends_with_the_idle_time_and_with_a_stop() {
    for stopped in [false, true] {
        let door =
            door_with(|entry_point| entry_point.timeouts.idle = Some(Duration::from_mins(3)));
        let (mut client, server) = duplex(1 << 16);
        let doors = Arc::clone(&door);
        let serving = spawn_local(async move {
            serve_http1(&doors, connection(&doors), None, server, Bytes::new()).await
        });
        client.write_all(GET).await.unwrap();
        answer(&mut client).await;
        let start = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(talks(&door), 0);
        if stopped {
            door.drain.tell();
        }
        read_all(&mut client, &mut String::new()).await;
        let end = if stopped { 10 } else { 180 };
        assert_eq!((start.elapsed() + Duration::from_millis(500)).as_secs(), end);
        serving.await.unwrap().unwrap();
    }
}
