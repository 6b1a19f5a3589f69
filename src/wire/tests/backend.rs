//! The response gate behind hyper's client connection.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::ResponseControl;
use super::*;

async fn connect() -> (SendRequest<Full<Bytes>>, Arc<ResponseControl>, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let (gate, control) = ResponseGate::new(near, HeadLimits::default());
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(1000)
        .max_buf_size((1 << 20) + 8192)
        .handshake(gate)
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    (sender, control, far)
}

async fn request_head(far: &mut DuplexStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(far.read_u8().await.unwrap());
    }
}

/// One exchange: the response's status and body, or that it failed.
async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    control: &ResponseControl,
    far: &mut DuplexStream,
    raw: &[u8],
    close: bool,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    sender.ready().await?;
    control.expect(&Method::GET, false);
    let request = Request::get("/").header("host", "a").body(Full::default()).unwrap();
    let backend = async {
        request_head(far).await;
        far.write_all(raw).await.unwrap();
        if close {
            far.shutdown().await.unwrap();
        }
    };
    let (response, ()) = tokio::join!(sender.send_request(request), backend);
    let (parts, body) = response?.into_parts();
    Ok((parts.status, body.collect().await?.to_bytes()))
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_serves_several_exchanges() {
    let (mut sender, control, mut far) = connect().await;
    for raw in [
        OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
        OK,
    ] {
        let (status, body) =
            exchange(&mut sender, &control, &mut far, raw, false).await.unwrap();
        assert_eq!((status, body.as_ref()), (StatusCode::OK, b"ok".as_slice()));
        assert!(control.replied() && control.request_written() && !control.poisoned());
    }
    let (_, body) =
        exchange(&mut sender, &control, &mut far, b"HTTP/1.1 200 OK\r\n\r\nall of it", true)
            .await
            .unwrap();
    assert_eq!(body, "all of it");
}

#[tokio::test]
async fn violations_fail_the_exchange() {
    for raw in [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok".as_slice(),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nFFFFFFFFFFFFFFFF5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let (mut sender, control, mut far) = connect().await;
        let result = exchange(&mut sender, &control, &mut far, raw, false).await;
        assert!(result.is_err(), "{}", raw.escape_ascii());
        assert!(control.violation().is_some(), "{}", raw.escape_ascii());
        assert!(sender.ready().await.is_err());
    }
}

#[tokio::test]
async fn a_truncated_body_is_an_error() {
    for raw in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let (mut sender, control, mut far) = connect().await;
        assert!(exchange(&mut sender, &control, &mut far, raw, true).await.is_err());
    }
}

#[tokio::test]
async fn surplus_poisons_the_connection() {
    for surplus in ["HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned", "\r\n"] {
        let (mut sender, control, mut far) = connect().await;
        let raw = [OK, surplus.as_bytes()].concat();
        let (_, body) = exchange(&mut sender, &control, &mut far, &raw, false).await.unwrap();
        assert_eq!(body, "ok");
        assert!(control.poisoned());
        assert!(sender.ready().await.is_err());
    }
}

#[tokio::test]
async fn what_came_before_a_request_never_answers_it() {
    let (near, mut far) = duplex(1 << 16);
    let (mut gate, control) = ResponseGate::new(near, HeadLimits::default());
    far.write_all(OK).await.unwrap();
    control.expect(&Method::GET, false);
    assert!(gate.write_all(b"GET / HTTP/1.1\r\n\r\n").await.is_err());
    assert!(control.poisoned() && !control.request_written() && !control.replied());

    let (near, far) = duplex(1 << 16);
    let (mut gate, control) = ResponseGate::new(near, HeadLimits::default());
    drop(far);
    control.expect(&Method::GET, false);
    assert!(gate.write_all(b"GET / HTTP/1.1\r\n\r\n").await.is_err());
    assert!(!control.poisoned() && !control.request_written());
}

#[tokio::test]
async fn an_asked_for_upgrade_is_a_tunnel() {
    let (mut sender, control, mut far) = connect().await;
    control.expect(&Method::GET, true);
    let request = Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "x")
        .body(Full::default())
        .unwrap();
    let backend = async {
        request_head(&mut far).await;
        let head =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw\0";
        far.write_all(head).await.unwrap();
    };
    let (response, ()) = tokio::join!(sender.send_request(request), backend);
    let upgraded = hyper::upgrade::on(response.unwrap()).await.unwrap();
    let parts = upgraded.downcast::<ResponseGate<DuplexStream>>().unwrap();
    let (mut stream, rest) = parts.io.into_parts();
    let mut all = [parts.read_buf, rest].concat();
    far.write_all(b"more").await.unwrap();
    while all.len() < 8 {
        all.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(all, b"raw\0more");
}
