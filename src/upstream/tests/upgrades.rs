//! Tunnels, with a real HTTP/1 server of hyper's on the client's side.

use std::convert::Infallible;
use std::time::Duration;

use hyper_util::rt::TokioIo;

use super::*;

/// A proxy in front of `url`; every request goes to the forwarder with `cx`.
async fn proxy(url: String, cx: Context) -> SocketAddr {
    let forwarder = Rc::new(forwarder(&url));
    let (address, _) = server(move |_, stream| {
        let (forwarder, cx) = (Rc::clone(&forwarder), cx.clone());
        async move {
            let service = hyper::service::service_fn(move |request| {
                let (forwarder, cx) = (Rc::clone(&forwarder), cx.clone());
                async move {
                    let request: http::Request<hyper::body::Incoming> = request;
                    let response = forwarder.forward(&cx, request.map(Body::from)).await;
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        }
    })
    .await;
    address
}

const ASK: &[u8] = b"GET /websocket HTTP/1.1\r\nHost: odoo.example\r\nConnection: Upgrade\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn a_tunnel_carries_both_ways_and_half_closes() {
    let (backend, _) = server(|_, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("Connection: Upgrade\r\n"), "{head}");
        assert!(head.contains("Upgrade: WebSocket\r\n"), "{head}");
        assert!(head.contains("Sec-WebSocket-Key: dGhl"), "{head}");
        // Bytes behind the head are part of the tunnel.
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(b"you said ").await.unwrap();
        stream.write_all(&received).await.unwrap();
    })
    .await;
    let cx = context();
    let address = proxy(format!("http://{backend}"), cx.clone()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(ASK).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("upgrade: websocket\r\n"), "{head}");
    let mut hello = [0; 5];
    client.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(cx.connection.work.count(), 1);
    client.write_all(b"something").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "you said something");
    cx.connection.work.finished().await;
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_ends_when_it_is_cut() {
    let (backend, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
    })
    .await;
    let cx = context();
    let address = proxy(format!("http://{backend}"), cx.clone()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(ASK).await.unwrap();
    read_head(&mut client).await.unwrap();
    cx.connection.work.cut();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    cx.connection.work.finished().await;
}

#[tokio::test(flavor = "local")]
async fn a_backend_that_dies_ends_the_tunnel() {
    let (backend, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    })
    .await;
    let cx = context();
    let address = proxy(format!("http://{backend}"), cx.clone()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(ASK).await.unwrap();
    read_head(&mut client).await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    // A client that goes on all the same gets the connection closed.
    while client.write_all(b"still here?").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cx.connection.work.finished().await;
}

#[tokio::test(flavor = "local")]
async fn a_refusal_is_an_ordinary_answer() {
    let (backend, _) = server(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let cx = context();
    let address = proxy(format!("http://{backend}"), cx.clone()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        client.write_all(ASK).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        let mut body = [0; 2];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"no");
    }
    assert_eq!(cx.connection.work.count(), 0);
}

#[tokio::test(flavor = "local")]
async fn switches_that_were_not_asked_for() {
    let (backend, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
            Upgrade: other\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let cx = context();
    let address = proxy(format!("http://{backend}"), cx.clone()).await;
    for (ask, status) in [
        (ASK, "500"),
        (b"GET / HTTP/1.1\r\nHost: odoo.example\r\n\r\n", "502"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
              HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            "502",
        ),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(ask).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(cx.connection.work.count(), 0);
}
