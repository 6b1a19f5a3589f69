//! HTTP/1: framing, reuse, failures, early answers.

use std::time::Duration;

use super::*;
use crate::upstream::pool::idle_here;

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_serves_many_requests() {
    let (address, accepted) = server(|_, stream| serve_ok(stream)).await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for _ in 0..50 {
        let response = forwarder.forward(&cx, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let outcome = outcome(&response);
        assert_eq!(outcome.origin_status, Some(StatusCode::OK));
        assert_eq!(outcome.server.as_deref(), Some(&*format!("http://{address}")));
        assert!(outcome.sent && outcome.error.is_none());
        assert_eq!(text(response).await, "ok");
        settle().await;
    }
    assert_eq!(*accepted.borrow(), 1);
}

/// T-77: whatever lets a CONNECT through, no server is asked.
#[tokio::test(flavor = "local")]
async fn connect_opens_no_connection() {
    let (address, accepted) = server(|_, stream| serve_ok(stream)).await;
    let response = forwarder(&format!("http://{address}"))
        .forward(&context(), request("CONNECT", "a.test:443", Body::empty()))
        .await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(*accepted.borrow(), 0);
}

#[tokio::test(flavor = "local")]
async fn what_the_server_sees() {
    let (heads, mut seen) = mpsc::channel(1);
    let (address, _) = server(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                stream.write_all(OK).await.unwrap();
                heads.send(head).await.unwrap();
            }
        }
    })
    .await;
    let cx = context();
    let plain = forwarder(&format!("http://{address}/ignored"));
    let mut request = get("/a%2Fb/?q=%41&r=a+b");
    for (name, value) in [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-app", "1"),
        ("te", "trailers"),
    ] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    plain.forward(&cx, request).await;
    let head = seen.recv().await.unwrap();
    assert_eq!(
        head,
        "GET /a%2Fb/?q=%41&r=a+b HTTP/1.1\r\nHost: odoo.example\r\n\
         X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-App: 1\r\nTe: trailers\r\n\r\n"
    );

    for (method, says) in [("POST", true), ("PUT", true), ("PATCH", true), ("DELETE", false)] {
        plain.forward(&cx, self::request(method, "/", Body::empty())).await;
        let head = seen.recv().await.unwrap();
        assert_eq!(head.contains("\r\nContent-Length: 0\r\n"), says, "{head}");
    }

    let options = ForwarderOptions { pass_host_header: false, preserve_path: true };
    let target = Target::parse(&format!("http://{address}/base/")).unwrap();
    let own = Forwarder::new(transport(&ServersTransportConfig::default()), target, options);
    own.forward(&cx, get("/x")).await;
    let head = seen.recv().await.unwrap();
    assert!(head.starts_with("GET /base/x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("Host: {address}\r\n")), "{head}");
}

#[tokio::test(flavor = "local")]
async fn a_server_that_closes_idle_connections_costs_no_request() {
    let (address, accepted) = server(|_, mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for number in 0..1_000 {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let body = if number % 2 == 0 { Body::empty() } else { Body::from_static(b"x") };
        let response = forwarder.forward(&cx, request(method, "/", body)).await;
        assert_eq!(response.status(), StatusCode::OK, "request {number}");
        assert_eq!(text(response).await, "ok");
        if number % 3 == 0 {
            settle().await;
        }
    }
    assert!(*accepted.borrow() >= 999);
}

#[tokio::test(flavor = "local")]
async fn a_get_is_repeated_when_an_idle_connection_dies_under_it() {
    let (address, accepted) = server(|number, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        if number == 0 {
            // Takes the second request and closes without a byte.
            read_head(&mut stream).await;
            return;
        }
        serve_ok(stream).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for method in ["GET", "GET"] {
        let response = forwarder.forward(&cx, request(method, "/", Body::empty())).await;
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await;
        settle().await;
    }
    assert_eq!(*accepted.borrow(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_post_is_not_repeated_once_it_was_written() {
    let (address, accepted) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    text(forwarder.forward(&cx, get("/")).await).await;
    settle().await;
    let response = forwarder.forward(&cx, request("POST", "/", Body::from_static(b"x"))).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(outcome(&response).error, Some(ProxyError::UpstreamClosed));
    assert!(outcome(&response).sent);
    assert_eq!(*accepted.borrow(), 1);
}

#[tokio::test(flavor = "local")]
async fn no_more_idle_connections_than_configured() {
    let (address, accepted) = server(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if stream.write_all(OK).await.is_err() {
                return;
            }
        }
    })
    .await;
    for (configured, want) in [(0, 2), (3, 3), (-1, 0)] {
        let config = ServersTransportConfig {
            max_idle_conns_per_host: configured,
            ..ServersTransportConfig::default()
        };
        let (forwarder, cx) = (forwarder_with(&format!("http://{address}"), &config), context());
        let before = *accepted.borrow();
        let one = || async { text(forwarder.forward(&cx, get("/")).await).await };
        tokio::join!(one(), one(), one(), one(), one());
        settle().await;
        assert_eq!(*accepted.borrow() - before, 5);
        assert_eq!(idle_here(forwarder.origin()), want, "maxIdleConnsPerHost {configured}");
    }
}

#[tokio::test(flavor = "local")]
async fn idle_connections_expire() {
    let (address, _) = server(|_, stream| serve_ok(stream)).await;
    let config = ServersTransportConfig {
        forwarding_timeouts: Some(ForwardingTimeoutsConfig {
            idle_conn_timeout: GoDuration::from_millis(150),
            ..ForwardingTimeoutsConfig::default()
        }),
        ..ServersTransportConfig::default()
    };
    let (forwarder, cx) = (forwarder_with(&format!("http://{address}"), &config), context());
    text(forwarder.forward(&cx, get("/")).await).await;
    settle().await;
    assert_eq!(idle_here(forwarder.origin()), 1);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(idle_here(forwarder.origin()), 0);
}

#[tokio::test(flavor = "local")]
async fn servers_that_do_not_answer() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (resets, _) = server(|_, stream| async move {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    let (closes, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let (babbles, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let cx = context();
    for (url, errors) in [
        (format!("http://{free}"), &[ProxyError::ConnectFailed][..]),
        ("http://no-such-host.invalid".to_owned(), &[ProxyError::ConnectFailed]),
        (format!("http://{resets}"), &[ProxyError::UpstreamClosed]),
        (format!("http://{closes}"), &[ProxyError::UpstreamClosed]),
        (format!("http://{babbles}"), &[ProxyError::UpstreamInvalid]),
    ] {
        let response = forwarder(&url).forward(&cx, get("/")).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{url}");
        let outcome = outcome(&response);
        assert!(errors.contains(&outcome.error.unwrap()), "{url}: {:?}", outcome.error);
        assert_eq!(outcome.sent, outcome.error != Some(ProxyError::ConnectFailed) && outcome.sent);
        assert_eq!(text(response).await, "Bad Gateway");
    }
}

#[tokio::test(flavor = "local")]
async fn the_head_must_come_in_time_after_the_upload() {
    let (address, _) = server(|_, mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let config = ServersTransportConfig {
        forwarding_timeouts: Some(ForwardingTimeoutsConfig {
            response_header_timeout: GoDuration::from_millis(150),
            ..ForwardingTimeoutsConfig::default()
        }),
        ..ServersTransportConfig::default()
    };
    let (forwarder, cx) = (forwarder_with(&format!("http://{address}"), &config), context());
    let start = Instant::now();
    let response = forwarder.forward(&cx, get("/")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(outcome(&response).error, Some(ProxyError::ResponseTimeout));
    // The upper bound is that of a busy machine, far from any other limit.
    assert!((150..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());

    let (feed, body) = fed_body();
    let start = Instant::now();
    let feeding = tokio::task::spawn_local(async move {
        for _ in 0..4 {
            feed.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let response = forwarder.forward(&cx, request("POST", "/", body)).await;
    feeding.await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!((550..2400).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "local")]
async fn a_death_in_the_middle_of_a_body_is_seen() {
    for half in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly",
    ] {
        let (address, _) = server(move |_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(half.as_bytes()).await.unwrap();
        })
        .await;
        let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
        let response = forwarder.forward(&cx, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.into_body().collect().await.is_err(), "{half}");
    }
}

#[tokio::test(flavor = "local")]
async fn framing_of_requests_is_kept() {
    let (address, _) = server(|_, mut stream| async move {
        // Echoes head and body, raw.
        let head = read_head(&mut stream).await.unwrap();
        let mut body = vec![0; 100];
        let mut raw = head.into_bytes();
        let length = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut body)).await;
        if let Ok(Ok(length)) = length {
            raw.extend_from_slice(&body[..length]);
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", raw.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&raw).await.unwrap();
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for (method, length, chunked) in
        [("POST", None, true), ("GET", None, true), ("POST", Some("5"), false)]
    {
        let (feed, body) = fed_body();
        feed.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
        drop(feed);
        let mut request = request(method, "/", body);
        if let Some(length) = length {
            request.headers_mut().insert("content-length", HeaderValue::from_static(length));
        } else {
            request.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
        }
        let raw = text(forwarder.forward(&cx, request).await).await;
        assert_eq!(raw.contains("Transfer-Encoding: chunked\r\n"), chunked, "{raw}");
        assert_eq!(raw.contains("Content-Length: 5\r\n"), !chunked, "{raw}");
        assert!(raw.contains(if chunked { "5\r\nhello\r\n" } else { "\r\n\r\nhello" }), "{raw}");
    }
    let raw = text(forwarder.forward(&cx, get("/")).await).await;
    assert!(!raw.contains("Content-Length") && !raw.contains("Transfer-Encoding"), "{raw}");
    let raw = text(forwarder.forward(&cx, request("POST", "/", Body::from_static(b"abc"))).await);
    assert!(raw.await.contains("Content-Length: 3\r\n"));
}

#[tokio::test(flavor = "local")]
async fn surplus_bytes_never_answer_the_next_request() {
    for late in [false, true] {
        let (address, accepted) = server(move |number, mut stream| async move {
            if number > 0 {
                return serve_ok(stream).await;
            }
            read_head(&mut stream).await;
            let poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
            if late {
                stream.write_all(OK).await.unwrap();
                tokio::time::sleep(Duration::from_millis(30)).await;
                stream.write_all(poison).await.unwrap();
            } else {
                stream.write_all(&[OK, poison].concat()).await.unwrap();
            }
            read_head(&mut stream).await;
        })
        .await;
        let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
        assert_eq!(text(forwarder.forward(&cx, get("/")).await).await, "ok");
        if late {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        assert_eq!(text(forwarder.forward(&cx, get("/")).await).await, "ok", "late: {late}");
        assert_eq!(*accepted.borrow(), 2);
    }
}

#[tokio::test(flavor = "local")]
async fn an_early_answer_ends_the_upload() {
    let (gone, mut ends) = mpsc::channel(1);
    let (address, accepted) = server(move |number, mut stream| {
        let gone = gone.clone();
        async move {
            if number > 0 {
                return serve_ok(stream).await;
            }
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
            stream.write_all(answer).await.unwrap();
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let (feed, body) = fed_body();
    feed.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    let response = forwarder.forward(&cx, request("POST", "/", body)).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(response).await, "big");
    ends.recv().await.unwrap();
    feed.closed().await;
    assert_eq!(text(forwarder.forward(&cx, get("/")).await).await, "ok");
    assert_eq!(*accepted.borrow(), 2);
}

#[tokio::test(flavor = "local")]
async fn an_early_answer_is_read_although_the_server_resets_the_upload() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(answer).await.unwrap();
        // Unread bytes make the close a reset.
    })
    .await;
    let cx = context();
    for _ in 0..20 {
        let forwarder = forwarder(&format!("http://{address}"));
        let body = Body::from(Bytes::from(vec![b'x'; 4 << 20]));
        let response = forwarder.forward(&cx, request("POST", "/", body)).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await, "big");
    }
}

#[tokio::test(flavor = "local")]
async fn expect_continue_waits_for_the_server() {
    let (address, _) = server(|number, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
        let mut body = [0; 5];
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut body)).await;
        assert!(early.is_err(), "the body came unasked");
        if number == 0 {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(OK).await.unwrap();
        } else {
            let answer = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
        assert_eq!(
            stream.read(&mut body).await.unwrap_or(0),
            0,
            "the connection is not used again"
        );
    })
    .await;
    let config =
        ServersTransportConfig { max_idle_conns_per_host: -1, ..ServersTransportConfig::default() };
    let (forwarder, cx) = (forwarder_with(&format!("http://{address}"), &config), context());
    for want in [StatusCode::OK, StatusCode::EXPECTATION_FAILED] {
        let mut request = request("POST", "/", Body::from_static(b"hello"));
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let response = forwarder.forward(&cx, request).await;
        assert_eq!(response.status(), want);
        text(response).await;
    }
}

/// RP-6.2.1, RP-15.8: a server that does not know what it is asked gets the body after a second.
#[tokio::test(flavor = "local", start_paused = true)]
async fn expect_continue_waits_for_a_second() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(OK).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let mut request = request("POST", "/", Body::from_static(b"hello"));
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let start = Instant::now();
    let response = forwarder.forward(&cx, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(start.elapsed().as_secs(), 1);
    text(response).await;
}

#[tokio::test(flavor = "local")]
async fn a_failing_client_is_blamed() {
    let (address, _) = server(|_, mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for (error, want) in [
        (BodyError::Malformed("chunk"), StatusCode::BAD_REQUEST),
        (BodyError::Timeout, StatusCode::REQUEST_TIMEOUT),
    ] {
        let (feed, body) = fed_body();
        feed.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
        feed.send(Err(error)).await.unwrap();
        let response = forwarder.forward(&cx, request("POST", "/", body)).await;
        assert_eq!(response.status(), want);
    }
}

#[tokio::test(flavor = "local")]
async fn a_client_that_goes_away_closes_the_connection() {
    let (ended, mut ends) = mpsc::channel(1);
    let (address, _) = server(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            read_head(&mut stream).await;
            assert!(read_head(&mut stream).await.is_none());
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let pending = forwarder.forward(&cx, get("/"));
    assert!(tokio::time::timeout(Duration::from_millis(50), pending).await.is_err());
    ends.recv().await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn responses_are_cleaned() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.0 299 Very Fine\r\nConnection: x-hop, close\r\nX-Hop: 1\r\n\
            Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-App: 1\r\n\r\nuntil the end";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let response = forwarder.forward(&cx, get("/")).await;
    assert_eq!(response.status().as_u16(), 299);
    assert_eq!(response.version(), http::Version::HTTP_11);
    let names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-app"]);
    assert_eq!(text(response).await, "until the end");
}

#[tokio::test(flavor = "local")]
async fn answer_trailers_are_passed_on() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
            2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let response = forwarder.forward(&cx, get("/")).await;
    assert_eq!(response.headers()["trailer"], "X-Sum");
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test(flavor = "local")]
async fn an_answer_and_its_request_flow_at_the_same_time() {
    // An echo: it reads nothing more before its answer was taken, and the client neither.
    const SIZE: usize = 8 << 20;
    let (address, accepted) = server(|number, mut stream| async move {
        if number > 0 {
            return serve_ok(stream).await;
        }
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let (feed, body) = fed_body();
    let mut request = request("POST", "/", body);
    request.headers_mut().insert("content-length", HeaderValue::from(SIZE));
    let response = forwarder.forward(&cx, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let feeding = tokio::task::spawn_local(async move {
        for _ in 0..SIZE / 65536 {
            feed.send(Ok(Bytes::from(vec![b'x'; 65536]))).await.unwrap();
        }
    });
    // The whole request is taken although nobody reads the answer yet, as far as the sockets hold it.
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    feeding.await.unwrap();
    assert_eq!(read, SIZE);
    // Such a connection is not used again.
    text(forwarder.forward(&cx, get("/")).await).await;
    assert_eq!(*accepted.borrow(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_request_that_fails_during_its_answer_fails_the_answer() {
    let (address, _) = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    let (feed, body) = fed_body();
    let response = forwarder.forward(&cx, request("POST", "/", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    feed.send(Err(BodyError::Malformed("chunk"))).await.unwrap();
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test(flavor = "local")]
async fn a_body_is_as_long_as_it_was_announced() {
    let (address, _) = server(|_, mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for said in ["4", "6"] {
        let (feed, body) = fed_body();
        feed.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
        drop(feed);
        let mut request = request("POST", "/", body);
        request.headers_mut().insert("content-length", HeaderValue::from_static(said));
        let response = forwarder.forward(&cx, request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{said}");
    }
}

#[tokio::test(flavor = "local")]
async fn answers_come_in_any_pieces() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-App: 1\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    for size in [1, 2, 3, 7, 40, 60, 100] {
        let (address, accepted) = server(move |_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                for piece in answer.as_bytes().chunks(size) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
        for _ in 0..3 {
            let response = forwarder.forward(&cx, get("/")).await;
            assert_eq!(response.headers()["x-app"], "1");
            assert!(!response.headers().contains_key("link"));
            assert_eq!(text(response).await, "hello world");
        }
        assert_eq!(*accepted.borrow(), 1, "pieces of {size}");
    }
}

#[tokio::test(flavor = "local")]
async fn large_answers_come_whole() {
    const SIZE: usize = 3 << 20;
    let (address, accepted) = server(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let body: Vec<u8> = (0..=250u8).cycle().take(SIZE).collect();
            if head.starts_with("GET /chunked") {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await
                    .unwrap();
                for piece in body.chunks(50_000) {
                    let size = format!("{:x}\r\n", piece.len());
                    stream.write_all(&[size.as_bytes(), piece, b"\r\n"].concat()).await.unwrap();
                }
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            } else {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            }
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for path in ["/", "/chunked", "/", "/chunked"] {
        let response = forwarder.forward(&cx, get(path)).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), SIZE);
        assert!(body.iter().copied().eq((0..=250u8).cycle().take(SIZE)), "{path}");
    }
    assert_eq!(*accepted.borrow(), 1);
}

#[tokio::test(flavor = "local")]
async fn what_a_server_closes_does_not_stay_in_the_pool() {
    let (close, closed) = tokio::sync::watch::channel(false);
    let (address, accepted) = server(move |_, mut stream| {
        let mut closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(OK).await.unwrap();
            let _ = closed.changed().await;
        }
    })
    .await;
    let config = ServersTransportConfig {
        max_idle_conns_per_host: 500,
        ..ServersTransportConfig::default()
    };
    let (forwarder, cx) = (forwarder_with(&format!("http://{address}"), &config), context());
    // More than tokio lets one task look at in one go.
    let many = (0..200).map(|_| async { text(forwarder.forward(&cx, get("/")).await).await });
    futures_util::future::join_all(many).await;
    assert_eq!((idle_here(forwarder.origin()), *accepted.borrow()), (200, 200));
    close.send(true).unwrap();
    let emptied = async {
        while idle_here(forwarder.origin()) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), emptied).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn a_server_may_end_the_connection_with_its_answer() {
    for says in ["HTTP/1.1 200 OK\r\nConnection: close\r\n", "HTTP/1.0 200 OK\r\n"] {
        let (address, accepted) = server(move |_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                let answer = format!("{says}Content-Length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
        for _ in 0..2 {
            assert_eq!(text(forwarder.forward(&cx, get("/")).await).await, "ok");
        }
        assert_eq!(*accepted.borrow(), 2, "{says}");
    }
    let (address, accepted) = server(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let answer =
                b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let (forwarder, cx) = (forwarder(&format!("http://{address}")), context());
    for _ in 0..2 {
        assert_eq!(text(forwarder.forward(&cx, get("/")).await).await, "ok");
    }
    assert_eq!(*accepted.borrow(), 1);
}
