//! The contract with Traefik's users, row by row (`tests/compat/request-path.md`): headers that are
//! made, CONNECT, and what a client of gRPC is told.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{Ask, Origin, Proxy, block_on, everything_to, http2};

/// RP-12.9, RP-12.10, RP-12.11, RP-12.13
#[test]
fn no_other_headers_are_made() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    assert_eq!(proxy.send(&Ask::get("/").header("Forwarded", "for=192.0.2.1")).status, 200);
    let seen = origin.last();
    for name in [
        "Connection",
        "Keep-Alive",
        "User-Agent",
        "Via",
        "X-Forwarded-Prefix",
        "X-Forwarded-Scheme",
        "X-Forwarded-Ssl",
        "X-Forwarded-Uri",
        "X-Replaced-Path",
        "X-Request-Id",
        "X-Scheme",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("forwarded"), Some("for=192.0.2.1"));
}

/// T-77, RP-13.9, RP-14.19
#[test]
fn connect_is_refused_on_every_protocol() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    client.write_raw(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").unwrap();
    let answer = client.read("CONNECT").unwrap();
    assert_eq!((answer.status, answer.body.len()), (501, 0));
    let status = block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let request = Request::connect("a.test:443").body(Full::<Bytes>::default()).unwrap();
        sender.send_request(request).await.unwrap().status()
    });
    assert_eq!((status.as_u16(), origin.count()), (501, 0));
}

/// RP-13.21, RP-14.7
#[test]
fn a_call_that_nobody_serves_is_a_plain_404() {
    let origin = http2::grpc_origin();
    let url = format!("h2c://{}", origin.address());
    let proxy = Proxy::start(&everything_to(&url).replace("PathPrefix(`/`)", "Host(`grpc.test`)"));
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        for (host, status) in [("grpc.test", 200), ("other.test", 404)] {
            let request = Request::post(format!("http://{host}/pkg.Service/Call"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let received = http2::send(&mut sender, request, b"message").await;
            assert_eq!(received.response.status, status);
            if status == 404 {
                assert_eq!(received.response.headers["content-type"], "text/plain; charset=utf-8");
                assert!(!received.response.headers.contains_key("grpc-status"));
                assert_eq!(&received.body[..], b"404 page not found\n");
                assert!(received.trailers.is_none());
            }
        }
    });
}
