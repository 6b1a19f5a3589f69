//! The request gate in front of hyper's server connection.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::super::GateControl;
use super::*;

pub(super) type Log = Arc<Mutex<Vec<String>>>;

/// A connection as the connection task wires it: an echo service that can also open or refuse a tunnel.
pub(super) fn serve(timeouts: GateTimeouts) -> (DuplexStream, JoinHandle<hyper::Result<()>>, Log) {
    let (client, server) = duplex(1 << 20);
    let log = Log::default();
    let (gate, control) = RequestGate::new(server, Bytes::new(), HeadLimits::default(), timeouts);
    let service = {
        let log = Arc::clone(&log);
        service_fn(move |request| {
            let (control, log) = (Arc::clone(&control), Arc::clone(&log));
            async move {
                let response = answer(&control, &log, request).await;
                control.answered(response.status());
                Ok::<_, Infallible>(response)
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(false)
        .max_headers(1000)
        .max_buf_size((1 << 20) + 8192)
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    (client, tokio::spawn(connection), log)
}

async fn answer(
    control: &Arc<GateControl>,
    log: &Log,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let _guard = match control.admit() {
        Ok(guard) => guard,
        Err(rejection) => {
            log.lock().unwrap().push(rejection.reason.to_owned());
            let mut response = Response::new(Full::from(rejection.reason));
            *response.status_mut() = rejection.status;
            return response;
        }
    };
    let path = request.uri().path().to_owned();
    log.lock().unwrap().push(path.clone());
    match path.as_str() {
        "/tunnel" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(echo(upgrade));
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "echo")
                .body(Full::default())
                .unwrap()
        }
        "/slow" => {
            tokio::time::sleep(std::time::Duration::from_mins(5)).await;
            Response::new(Full::from("slow"))
        }
        "/early" => Response::new(Full::from("early")),
        "/whole" => Response::new(Full::from(control.has_whole_request().to_string())),
        _ => {
            if let Ok(body) = request.into_body().collect().await {
                return Response::new(Full::new(body.to_bytes()));
            }
            let status = if control.body_timed_out() { 408 } else { 400 };
            let reason = control.body_violation().unwrap_or("body lost");
            log.lock().unwrap().push(reason.to_owned());
            let mut response = Response::new(Full::from(reason));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    }
}

/// Echoes the tunnel, from the parts that hyper and the gate give back.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let upgraded = upgrade.await.unwrap();
    let parts = upgraded.downcast::<TokioIo<RequestGate<DuplexStream>>>().unwrap();
    let (mut stream, rest) = parts.io.into_inner().into_parts();
    stream.write_all(&parts.read_buf).await.unwrap();
    stream.write_all(&rest).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

/// Reads until so many responses' bodies, marked by `last`, have come.
pub(super) async fn until(client: &mut DuplexStream, last: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(last) {
        let mut buf = [0; 4096];
        let n = client.read(&mut buf).await.unwrap();
        assert!(n > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(buf.get(..n).unwrap()).unwrap());
    }
    text
}

pub(super) async fn rest(client: &mut DuplexStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const UPGRADE_HEAD: &str = "HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[tokio::test]
async fn keep_alive_and_pipelining() {
    let (mut client, task, log) = serve(GateTimeouts::default());
    for body in ["one", "two", "three"] {
        client.write_all(post("/", body).as_bytes()).await.unwrap();
        assert!(until(&mut client, body).await.starts_with("HTTP/1.1 200"));
    }
    let pipelined = post("/a", "four") + &post("/b", "five") + &post("/c", "six");
    client.write_all(pipelined.as_bytes()).await.unwrap();
    let text = until(&mut client, "six").await;
    let (four, five) = (text.find("four").unwrap(), text.find("five").unwrap());
    assert!(four < five && text.matches("HTTP/1.1 200").count() == 3);
    assert_eq!(*log.lock().unwrap(), ["/", "/", "/", "/a", "/b", "/c"]);
    drop(client);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_chunked_upload_in_small_pieces() {
    let (mut client, _task, _) = serve(GateTimeouts::default());
    let raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    for piece in raw.chunks(3) {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(until(&mut client, "hello world").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_large_head_passes_in_whole() {
    let (mut client, _task, _) = serve(GateTimeouts::default());
    let fields = format!("X: {}\r\n", "v".repeat(1000)).repeat(900);
    let raw = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 2\r\n\r\nok");
    client.write_all(raw.as_bytes()).await.unwrap();
    assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refused_head_is_answered_in_its_turn() {
    let (mut client, task, log) = serve(GateTimeouts::default());
    let raw = post("/", "fine") + "GET / HTTP/1.1\r\n\r\n" + &post("/never", "x");
    client.write_all(raw.as_bytes()).await.unwrap();
    let text = until(&mut client, "missing required Host header").await;
    assert!(text.starts_with("HTTP/1.1 200"));
    let second = text.split("fine").nth(1).unwrap();
    assert!(second.starts_with("HTTP/1.1 400"), "{second}");
    assert!(second.contains("connection: close"), "{second}");
    // What the client still sends is read, so that it can read the answer.
    client.write_all(&vec![b'x'; 100_000]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    task.await.unwrap().unwrap();
    assert_eq!(*log.lock().unwrap(), ["/", "missing required Host header"]);
}

#[tokio::test]
async fn a_refused_head_with_the_end_of_the_stream_is_answered() {
    for (raw, status) in [
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "HTTP/1.1 505"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 501"),
    ] {
        let (mut client, _task, _) = serve(GateTimeouts::default());
        client.write_all(raw.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(rest(&mut client).await.starts_with(status));
    }
    let (mut client, _task, _) = serve(GateTimeouts::default());
    client.write_all(b"HEAD /#x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_bad_body_fails_and_closes() {
    let (mut client, _task, log) = serve(GateTimeouts::default());
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(format!("{head}5\r\nhello\r\n0x5\r\n").as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let text = rest(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.ends_with("invalid chunk size"), "{text}");
    assert_eq!(*log.lock().unwrap(), ["/", "invalid chunk size"]);
}

#[tokio::test]
async fn an_early_answer_closes_and_the_rest_is_no_request() {
    let (mut client, task, log) = serve(GateTimeouts::default());
    let head = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, "early").await;
    client.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    task.await.unwrap().unwrap();
    assert_eq!(*log.lock().unwrap(), ["/early"]);
}

#[tokio::test]
async fn the_service_can_ask_whether_its_request_is_there() {
    let (mut client, _task, _log) = serve(GateTimeouts::default());
    for whole in ["GET /whole HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), post("/whole", "abc")] {
        client.write_all(whole.as_bytes()).await.unwrap();
        until(&mut client, "true").await;
    }
    let rest = post("/whole", "abcdef");
    client.write_all(rest.strip_suffix("f").unwrap().as_bytes()).await.unwrap();
    until(&mut client, "false").await;
}

#[tokio::test]
async fn a_tunnel_gets_all_bytes_behind_its_head() {
    let (mut client, _task, log) = serve(GateTimeouts::default());
    // A request in front must not decide for the one that asks.
    let raw = post("/", "first") + "GET /tunnel " + UPGRADE_HEAD + "GET /never HTTP/1.1\r\n\r\n";
    client.write_all(raw.as_bytes()).await.unwrap();
    let text = until(&mut client, "GET /never HTTP/1.1\r\n\r\n").await;
    assert!(text.contains("HTTP/1.1 101"));
    client.write_all(b"more \0 raw").await.unwrap();
    assert_eq!(until(&mut client, "raw").await, "more \0 raw");
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(*log.lock().unwrap(), ["/", "/tunnel"]);
}

#[tokio::test]
async fn behind_a_refused_upgrade_comes_a_request() {
    let (mut client, _task, log) = serve(GateTimeouts::default());
    client.write_all(format!("GET /early {UPGRADE_HEAD}").as_bytes()).await.unwrap();
    until(&mut client, "early").await;
    client.write_all(post("/next", "next").as_bytes()).await.unwrap();
    until(&mut client, "next").await;
    let both = format!("GET /early {UPGRADE_HEAD}{}", post("/last", "last"));
    client.write_all(both.as_bytes()).await.unwrap();
    until(&mut client, "last").await;
    let bad = format!("GET /early {UPGRADE_HEAD}\0\r\n\r\n");
    client.write_all(bad.as_bytes()).await.unwrap();
    until(&mut client, "invalid method").await;
    assert_eq!(
        *log.lock().unwrap(),
        ["/early", "/next", "/early", "/last", "/early", "invalid method"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_is_seen_while_an_upgrade_is_undecided() {
    let (mut client, task, _) = serve(GateTimeouts::default());
    client.write_all(format!("GET /slow {UPGRADE_HEAD}").as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let before = tokio::time::Instant::now();
    drop(client);
    assert!(task.await.unwrap().is_err());
    assert!(before.elapsed().as_secs() < 300);
}
