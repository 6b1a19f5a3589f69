//! End-to-end tests of the forwarder against servers in this process.

mod http1;
mod http2;
mod shuffled;
mod tls;
mod upgrades;

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::exchange::OpenWork;
use crate::exchange::context::Connection;
use crate::exchange::{
    Body, BodyError, Context, EntryPointFacts, Outcome, ProxyError, Request, Response,
};
use crate::values::{Disk, GoDuration, Profile};

pub(in crate::upstream) fn context() -> Context {
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 4711);
    Context {
        connection: Arc::new(Connection {
            entry_point: Arc::new(EntryPointFacts {
                name: "web".into(),
                ..EntryPointFacts::default()
            }),
            peer,
            peer_ip: peer.ip(),
            peer_ip_text: HeaderValue::from_static("192.0.2.7"),
            local: peer,
            tls: None,
            opened: Instant::now(),
            work: OpenWork::default(),
            own: std::sync::OnceLock::new(),
        }),
        host: "odoo.example".into(),
        authority: Some(HeaderValue::from_static("odoo.example")),
        start: Instant::now(),
        request_id: None,
    }
}

fn transport(config: &ServersTransportConfig) -> Arc<ServersTransport> {
    let built = ServersTransport::build("test", config, &Disk, Profile::Safe, &mut Vec::new());
    Arc::new(built.unwrap())
}

fn forwarder_with(url: &str, config: &ServersTransportConfig) -> Forwarder {
    Forwarder::new(transport(config), Target::parse(url).unwrap(), ForwarderOptions::default())
}

fn forwarder(url: &str) -> Forwarder {
    forwarder_with(url, &ServersTransportConfig::default())
}

fn request(method: &str, path: &str, body: Body) -> Request {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "odoo.example")
        .body(body)
        .unwrap()
}

fn get(path: &str) -> Request {
    request("GET", path, Body::empty())
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn outcome(response: &Response) -> Outcome {
    response.extensions().get::<Outcome>().cloned().unwrap()
}

/// A body that a test feeds; dropping the sender ends it.
fn fed_body() -> (mpsc::Sender<Result<Bytes, BodyError>>, Body) {
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, BodyError>>(4);
    let stream = futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    });
    (sender, Body::boxed(StreamBody::new(stream)))
}

/// A server that runs `serve` for each connection; returns its address and how many there were.
async fn server<S, F>(serve: S) -> (SocketAddr, Rc<RefCell<usize>>)
where
    S: Fn(usize, TcpStream) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Rc::new(RefCell::new(0));
    let count = Rc::clone(&accepted);
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let number = *count.borrow();
            *count.borrow_mut() += 1;
            tokio::task::spawn_local(serve(number, stream));
        }
    });
    (address, accepted)
}

/// Reads a request head; `None` at the end of the connection. What follows stays unread.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.ok()?;
        head.push(byte);
    }
    Some(String::from_utf8(head).unwrap())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers every request without a body.
async fn serve_ok(mut stream: TcpStream) {
    while read_head(&mut stream).await.is_some() {
        stream.write_all(OK).await.unwrap();
    }
}
