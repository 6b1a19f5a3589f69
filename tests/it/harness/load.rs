//! Steady traffic around a fault: kept connections of HTTP/1 and HTTP/2, WebSockets and uploads.
//!
//! It all runs on one thread and counts what went wrong. Clients behave as good ones do: a
//! connection that was closed between two requests is replaced, and a GET that met the close on the
//! wire is asked again; whatever else goes wrong is an error.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{DEADLINE, Origin, until};
use crate::wire::websocket_echo;

/// The servers that the traffic goes to.
pub(crate) struct Stage {
    pub(crate) app: Origin,
    pub(crate) chat: Origin,
}

impl Stage {
    pub(crate) fn start() -> Self {
        Self { app: Origin::start(), chat: websocket_echo() }
    }

    /// Their configuration. `more` is laid behind the routers, each line with six spaces.
    pub(crate) fn config(&self, more: &str) -> String {
        self.config_with(&self.app.url(), more)
    }

    /// The same with the application at another address.
    pub(crate) fn config_with(&self, app: &str, more: &str) -> String {
        format!(
            "
http:
  services:
    load: {{loadBalancer: {{servers: [{{url: '{app}'}}]}}}}
    chat: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
  routers:
    load: {{rule: Host(`load.test`), service: load}}
    chat: {{rule: Host(`chat.test`), service: chat}}
{more}",
            self.chat.url()
        )
    }
}

/// How much traffic there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Requests in a second, a half over HTTP/1 and a half over HTTP/2.
    pub(crate) rate: u32,
    pub(crate) websockets: usize,
    pub(crate) uploads: usize,
}

impl Traffic {
    /// As the fault table has it.
    pub(crate) const USUAL: Self = Self { rate: 200, websockets: 20, uploads: 5 };
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) requests: usize,
    pub(crate) messages: usize,
    pub(crate) uploads: usize,
    /// GETs that met the end of their connection and were asked again.
    pub(crate) crossed: usize,
    pub(crate) slowest: Duration,
    pub(crate) errors: Vec<String>,
}

impl Report {
    /// Nothing went wrong, of any kind of traffic.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.crossed == 0 && self.slowest < DEADLINE && self.messages > 0
    }
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    messages: AtomicUsize,
    uploads: AtomicUsize,
    crossed: AtomicUsize,
    slowest: Mutex<Duration>,
    errors: Mutex<Vec<String>>,
    /// Nobody begins anything new.
    over: AtomicBool,
    /// The proxy is being stopped: who is not let in any more, and whose tunnel ends, goes home.
    stopping: AtomicBool,
}

impl Counts {
    fn wrong(&self, what: String) {
        self.errors.lock().unwrap().push(what);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn took(&self, start: Instant) {
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = (*slowest).max(start.elapsed());
    }
}

/// Traffic under way.
pub(crate) struct Load {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins, and returns when all kinds of traffic flow.
    pub(crate) fn start(at: SocketAddr, traffic: Traffic) -> Self {
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(all(at, traffic, shared));
        });
        let load = Self { counts, thread: Some(thread) };
        until("all traffic flows", || {
            let flows = |count: &AtomicUsize, of: usize| count.load(Ordering::Acquire) >= of;
            (flows(&load.counts.requests, 20)
                && flows(&load.counts.messages, traffic.websockets)
                && flows(&load.counts.uploads, traffic.uploads.min(1)))
                || !load.counts.errors.lock().unwrap().is_empty()
        });
        load
    }

    /// Requests that were answered so far.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Acquire)
    }

    /// From now on the proxy may close what is idle and refuse new connections.
    pub(crate) fn expect_stop(&self) {
        self.counts.stopping.store(true, Ordering::Release);
    }

    /// Lets everything that runs come to its end.
    pub(crate) fn end(mut self) -> Report {
        self.counts.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        Report {
            requests: self.counts.requests.load(Ordering::Acquire),
            messages: self.counts.messages.load(Ordering::Acquire),
            uploads: self.counts.uploads.load(Ordering::Acquire),
            crossed: self.counts.crossed.load(Ordering::Acquire),
            slowest: *self.counts.slowest.lock().unwrap(),
            errors: std::mem::take(&mut self.counts.errors.lock().unwrap()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.over.store(true, Ordering::Release);
        self.counts.stopping.store(true, Ordering::Release);
    }
}

/// Connections that the requests are spread over.
const CONNECTIONS: u32 = 4;

async fn all(at: SocketAddr, traffic: Traffic, counts: Arc<Counts>) {
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let every = Duration::from_secs(1) * CONNECTIONS / traffic.rate.max(1);
        tasks.spawn(requests(at, number % 2 == 1, every, Arc::clone(&counts)));
    }
    for number in 0..traffic.websockets {
        tasks.spawn(talk(at, number, Arc::clone(&counts)));
    }
    for _ in 0..traffic.uploads {
        tasks.spawn(uploads(at, Arc::clone(&counts)));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            counts.wrong(format!("a client broke: {error}"));
        }
    }
}

/// A connection of either version.
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(at: SocketAddr, two: bool) -> Result<Self, String> {
        let stream = TcpStream::connect(at).await.map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let failed = |error: hyper::Error| format!("handshake: {error:?}");
        if two {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
            tokio::spawn(connection);
            return Ok(Self::Two(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    async fn is_ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// The status and the body. The error says whether the request met the end of its connection.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, Bytes), (bool, String)> {
        let answer = match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        };
        let answer = answer.map_err(|error| {
            let crossed = error.is_canceled() || error.is_incomplete_message();
            (crossed, format!("{error:?}"))
        })?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| (false, format!("{status} and then {error:?}")))?;
        Ok((status, body.to_bytes()))
    }
}

fn request(two: bool, place: &str, body: Bytes) -> Request<Full<Bytes>> {
    let builder = if body.is_empty() { Request::get(place) } else { Request::post(place) };
    let version = if two { Version::HTTP_2 } else { Version::HTTP_11 };
    let target = if two { format!("http://load.test{place}") } else { place.to_owned() };
    let builder = builder.uri(target).version(version);
    let builder = if two { builder } else { builder.header("host", "load.test") };
    builder.body(Full::new(body)).unwrap()
}

async fn requests(at: SocketAddr, two: bool, every: Duration, counts: Arc<Counts>) {
    let mut sender = None;
    let mut again = false;
    while !counts.is_over() {
        if let Some(known) = &mut sender
            && !Sender::is_ready(known).await
        {
            sender = None;
        }
        let fresh = sender.is_none();
        if fresh {
            match Sender::connect(at, two).await {
                Ok(connected) => sender = Some(connected),
                Err(_) if counts.is_stopping() => return,
                Err(error) => {
                    counts.wrong(error);
                    sleep(every).await;
                    continue;
                }
            }
        }
        let Some(known) = &mut sender else { continue };
        let start = Instant::now();
        let answer = timeout(DEADLINE, known.send(request(two, "/", Bytes::new()))).await;
        counts.took(start);
        match answer {
            Ok(Ok((200, body))) if &body[..] == b"origin" => {
                counts.requests.fetch_add(1, Ordering::AcqRel);
                again = false;
            }
            Ok(Err((true, _))) if !fresh && !again => {
                counts.crossed.fetch_add(1, Ordering::AcqRel);
                (sender, again) = (None, true);
                continue;
            }
            Ok(Ok((status, _))) => counts.wrong(format!("GET, HTTP/2 {two}: {status}")),
            Ok(Err((_, error))) => {
                counts.wrong(format!("GET, HTTP/2 {two}: {error}"));
                sender = None;
            }
            Err(_) => {
                counts.wrong(format!("GET, HTTP/2 {two}: no answer"));
                sender = None;
            }
        }
        sleep(every.saturating_sub(start.elapsed())).await;
    }
}

/// One WebSocket from the beginning to the end.
async fn talk(at: SocketAddr, number: usize, counts: Arc<Counts>) {
    let opened = async {
        let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
        let opened = tokio_tungstenite::client_async("ws://chat.test/", stream).await;
        opened.map_err(|error| error.to_string())
    };
    let mut socket = match opened.await {
        Ok((socket, _)) => socket,
        Err(error) => return counts.wrong(format!("WebSocket {number}: {error}")),
    };
    for turn in 0.. {
        if counts.is_over() {
            return drop(socket.close(None).await);
        }
        let text = format!("{number}, {turn}");
        let start = Instant::now();
        let echo = async {
            socket.send(Message::text(text.as_str())).await?;
            socket.next().await.transpose()
        };
        match timeout(DEADLINE, echo).await {
            Ok(Ok(Some(Message::Text(echo)))) if echo.as_str() == text => {
                counts.took(start);
                counts.messages.fetch_add(1, Ordering::AcqRel);
            }
            _ if counts.is_stopping() => return,
            other => return counts.wrong(format!("WebSocket {number}, message {turn}: {other:?}")),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Uploads, each of a quarter of a megabyte, over a connection of its own.
async fn uploads(at: SocketAddr, counts: Arc<Counts>) {
    let body = Bytes::from(b"0123456789abcdef".repeat(16 << 10));
    while !counts.is_over() {
        let mut sender = match Sender::connect(at, false).await {
            Ok(sender) => sender,
            Err(_) if counts.is_stopping() => return,
            Err(error) => return counts.wrong(error),
        };
        let start = Instant::now();
        match timeout(DEADLINE, sender.send(request(false, "/upload", body.clone()))).await {
            Ok(Ok((200, echo))) if echo == body => {
                counts.took(start);
                counts.uploads.fetch_add(1, Ordering::AcqRel);
            }
            Ok(other) => {
                let other = other.map(|(status, body)| (status, body.len()));
                counts.wrong(format!("upload: {other:?}"));
            }
            Err(_) => counts.wrong("upload: no answer".to_owned()),
        }
        sleep(Duration::from_millis(100)).await;
    }
}
