//! The middlewares that read bodies: compress, buffering, errors and grpcWeb, on the wire (RP 7.6, 7.7).

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::binary::Process;
use crate::harness::{
    Answer, Ask, Client, DEADLINE, NOBODY, Origin, Proxy, Reply, block_on, http2, until, with_pages,
};

fn in_front_of(origin: &Origin, middleware: &str) -> Proxy {
    Proxy::start(&with_pages(&origin.url(), NOBODY, middleware))
}

fn decoded(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    let body = &answer.body[..];
    match answer.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap(),
        Some("zstd") => zstd::Decoder::new(body).unwrap().read_to_end(&mut out).unwrap(),
        other => panic!("{other:?}"),
    };
    out
}

fn page() -> Vec<u8> {
    b"All work and no play makes Jack a dull boy. ".repeat(20_000)
}

#[test]
fn compressed_bodies_of_any_framing_can_be_read() {
    for chunked in [false, true] {
        let origin = Origin::with(move |_| {
            let reply = Reply::ok(page()).header("ETag", "\"1\"").header("Accept-Ranges", "bytes");
            if chunked { reply.chunked() } else { reply }
        });
        let proxy = in_front_of(&origin, "compress: {}");
        for encoding in ["gzip", "br", "zstd"] {
            let answer = proxy.send(&Ask::get("/").header("Accept-Encoding", encoding));
            assert_eq!(answer.header("content-encoding"), Some(encoding));
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.header("etag"), Some("W/\"1\""));
            assert_eq!(answer.header("accept-ranges"), None);
            assert!(answer.body.len() < page().len() / 20, "{encoding} {}", answer.body.len());
            assert_eq!(decoded(&answer), page());
        }
        let plain = proxy.get("/");
        assert_eq!((plain.header("content-encoding"), &plain.body), (None, &page()));
        let mut head = proxy.client();
        let ask = Ask::new("HEAD", "/").header("Accept-Encoding", "gzip");
        let head = head.send(&ask).unwrap();
        // Where the length is not known, neither is whether it is compressed.
        assert_eq!(head.header("content-encoding"), (!chunked).then_some("gzip"));
        assert_eq!((head.header("content-length"), head.header("etag")), (None, Some("W/\"1\"")));
    }
}

#[test]
fn compressed_over_http2() {
    let origin = Origin::with(|_| Reply::ok(page()).chunked());
    let proxy = in_front_of(&origin, "compress: {encodings: [zstd]}");
    let received = block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let ask = http::Request::get("http://app.test/").header("accept-encoding", "*");
        http2::send(&mut sender, ask, b"").await
    });
    assert_eq!(received.response.headers["content-encoding"], "zstd");
    let mut text = Vec::new();
    zstd::Decoder::new(&received.body[..]).unwrap().read_to_end(&mut text).unwrap();
    assert!(text == page());
}

#[test]
fn a_compressed_connection_is_used_again() {
    let origin = Origin::with(|_| Reply::ok(page()));
    let proxy = in_front_of(&origin, "compress: {}");
    let mut client = proxy.client();
    for _ in 0..5 {
        let ask = Ask::get("/").header("Accept-Encoding", "zstd");
        assert_eq!(decoded(&client.send(&ask).unwrap()), page());
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn ranges_and_what_is_encoded_already_stay() {
    let origin = Origin::with(|seen| match seen.header("range") {
        Some(_) => {
            let mut reply = Reply::status(206);
            for (name, value) in [("Content-Range", "bytes 0-2/9"), ("Content-Type", "text/plain")]
            {
                reply = reply.header(name, value);
            }
            reply
        }
        None => Reply::ok(page()).header("Content-Encoding", "br"),
    });
    let proxy = in_front_of(&origin, "compress: {}");
    let ask = Ask::get("/").header("Accept-Encoding", "gzip, br, zstd");
    assert_eq!(proxy.send(&ask).body, page());
    let answer = proxy.send(&ask.header("Range", "bytes=0-2"));
    assert_eq!((answer.status, answer.header("content-encoding")), (206, None));
}

/// RFC 9110, 9.3.2 and 15.4.5: caches are told by HEAD and 304 what GET and 200 tell.
#[test]
fn head_and_304_behind_compress_say_what_get_says() {
    let origin = Origin::with(|seen| match seen.header("if-none-match") {
        Some(_) => Reply::status(304).header("ETag", "\"a\""),
        None => Reply::ok(page()).header("ETag", "\"a\""),
    });
    let proxy = in_front_of(&origin, "compress: {}");
    let ask = |method: &str| Ask::new(method, "/").header("Accept-Encoding", "gzip");
    let mut client = proxy.client();
    let got = client.send(&ask("GET")).unwrap();
    let head = client.send(&ask("HEAD")).unwrap();
    let checked =
        client.send(&ask("GET").header("If-None-Match", got.header("etag").unwrap())).unwrap();
    assert_eq!((got.status, head.status, checked.status), (200, 200, 304));
    for name in ["vary", "etag"] {
        assert!(got.header(name).is_some());
        assert_eq!(head.header(name), got.header(name), "{name}");
        assert_eq!(checked.header(name), got.header(name), "{name}");
    }
    assert_eq!(head.header("content-encoding"), Some("gzip"));
    assert_eq!(head.header("content-length"), None);
    assert!(head.body.is_empty() && checked.body.is_empty());
    // The connection goes on.
    assert_eq!(client.send(&Ask::get("/")).unwrap().body, page());
}

/// One chunk of a chunked body.
fn chunk(client: &mut Client) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.read_exact(1).unwrap());
    }
    let size = str::from_utf8(&line).unwrap().trim();
    let data = client.read_exact(usize::from_str_radix(size, 16).unwrap()).unwrap();
    client.read_exact(2).unwrap();
    data
}

fn write_chunk(stream: &mut TcpStream, text: &str) {
    write!(stream, "{:x}\r\n{text}\r\n", text.len()).unwrap();
}

/// RP 7.7: "`Flush` by backend/streaming".
#[test]
fn events_come_through_one_by_one() {
    let (go, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let origin = Origin::raw(move |mut stream, _| {
        let mut head = [0; 4096];
        if stream.read(&mut head).unwrap_or_default() == 0 {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        for event in ["data: one\n\n", "data: two\n\n"] {
            let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
            write_chunk(&mut stream, event);
        }
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let proxy = in_front_of(&origin, "compress: {}");
    let mut client = proxy.client();
    client.write(&Ask::get("/").header("Accept-Encoding", "gzip")).unwrap();
    let (status, headers) = client.read_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.contains(&("content-encoding".into(), "gzip".into())), "{headers:?}");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    let mut told = String::new();
    for event in ["data: one\n\n", "data: two\n\n"] {
        go.send(()).unwrap();
        told += event;
        while decoder.get_ref() != told.as_bytes() {
            decoder.write_all(&chunk(&mut client)).unwrap();
            decoder.flush().unwrap();
        }
    }
    go.send(()).unwrap();
    while let data @ [_, ..] = &chunk(&mut client)[..] {
        decoder.write_all(data).unwrap();
    }
    assert_eq!(decoder.finish().unwrap(), told.as_bytes());
}

/// RP 7.6: stored, and sent with its length.
#[test]
fn buffering_sends_chunked_bodies_with_their_length() {
    let origin = Origin::with(|seen| Reply::ok(&seen.body[..]).chunked());
    let middleware = "buffering: {memRequestBodyBytes: 1000, memResponseBodyBytes: 1000}";
    let proxy = in_front_of(&origin, middleware);
    for size in [0, 999, 1000, 1001, 800_000] {
        let body = page()[..size].to_vec();
        let answer = proxy.send(&Ask::post("/", body.clone()).chunked());
        assert_eq!(answer.header("content-length"), Some(&*size.to_string()));
        assert!(answer.body == body, "{size}");
        let seen = origin.last();
        assert_eq!(seen.header("content-length"), Some(&*size.to_string()));
        assert_eq!(seen.header("transfer-encoding"), None);
    }
}

#[test]
fn buffering_limits_both_sides() {
    let origin = Origin::with(|seen| match &*seen.target {
        "/long" => Reply::ok("x".repeat(101)).chunked(),
        _ => Reply::ok("ok"),
    });
    let middleware = "buffering: {maxRequestBodyBytes: 100, maxResponseBodyBytes: 100}";
    let proxy = in_front_of(&origin, middleware);
    for ask in [Ask::post("/", "x".repeat(101)), Ask::post("/", "x".repeat(101)).chunked()] {
        let answer = proxy.send(&ask);
        assert_eq!((answer.status, &*answer.text()), (413, "Request Entity Too Large"));
    }
    assert_eq!(origin.count(), 0);
    assert_eq!(proxy.send(&Ask::post("/", "x".repeat(100))).status, 200);
    let answer = proxy.get("/long");
    assert_eq!((answer.status, &*answer.text()), (500, "Internal Server Error"));
}

#[test]
fn buffering_sends_a_body_again() {
    let count = AtomicUsize::new(0);
    let origin = Origin::with(move |seen| match count.fetch_add(1, Ordering::AcqRel) % 3 {
        0 => Reply::status(502),
        1 => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbroken"),
        _ => Reply::ok(&seen.body[..]),
    });
    let expression = "buffering: {retryExpression: 'IsNetworkError() && Attempts() < 4', memRequestBodyBytes: 4}";
    let proxy = in_front_of(&origin, expression);
    let answer = proxy.send(&Ask::post("/", "the same body"));
    assert_eq!((answer.status, &*answer.text()), (200, "the same body"));
    assert_eq!(origin.count(), 3);
    assert_eq!(proxy.get("/").status, 502, "there is nothing to send again");
}

/// The program as it is installed: large bodies are on the disk under no name.
#[test]
fn nothing_is_left_on_the_disk() {
    let (arrived, arrival) = sync_channel(1);
    let (go, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let origin = Origin::with(move |seen| {
        let _ = arrived.send(());
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        Reply::ok(&seen.body[..])
    });
    let temporary = tempfile::TempDir::new().unwrap();
    let variables: [(&str, &OsStr); 1] = [("TMPDIR", temporary.path().as_os_str())];
    let middleware = "buffering: {memRequestBodyBytes: 10, memResponseBodyBytes: 10}";
    let text = with_pages(&origin.url(), NOBODY, middleware);
    let process = Process::start_in(&variables, &json!({}), &text);
    let held = || {
        let open = fs::read_dir(format!("/proc/{}/fd", process.id().as_raw_nonzero())).unwrap();
        let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(temporary.path())).count()
    };
    let mut client = Client::connect(process.address("web")).unwrap();
    let ask = Ask::post("/", page());
    client.write(&ask).unwrap();
    arrival.recv_timeout(DEADLINE).unwrap();
    assert_eq!(held(), 1);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    go.send(()).unwrap();
    assert!(client.read("POST").unwrap().body == page());
    until("the file is gone", || held() == 0);
}

/// RP 7.6.
#[test]
fn errors_get_a_page_of_another_service() {
    let origin = Origin::with(|seen| {
        let status = seen.target.get(1..4).and_then(|code| code.parse().ok()).unwrap_or(200);
        Reply::text(status, "of the app").header("X-App", "1").header("Set-Cookie", "a=b")
    });
    let pages =
        Origin::with(|seen| Reply::ok(format!("page {}", seen.target)).header("X-Page", "1"));
    let middleware = "errors: {status: ['404', '500-599'], statusRewrites: {'503': 500}, \
                      service: pages, query: '/{status}/{originalStatus}?u={url}', \
                      errorRequestHeaders: [Accept-Language]}";
    let one_worker = Proxy::with(json!({"core": {"workers": 1}}));
    let proxy = one_worker.start(&with_pages(&origin.url(), &pages.url(), middleware));
    let ask = Ask::post("/503?a=b", "body").header("Accept-Language", "de").header("Cookie", "c=d");
    let answer = proxy.send(&ask);
    let target = "/500/503?u=http%3A%2F%2Fapp.test%2F503%3Fa%3Db";
    assert_eq!((answer.status, &*answer.text()), (500, &*format!("page {target}")));
    assert_eq!(answer.header("x-page"), Some("1"));
    assert_eq!((answer.header("x-app"), answer.header("set-cookie")), (None, None));
    let seen = pages.last();
    assert_eq!((&*seen.method, &*seen.target, seen.body.len()), ("GET", target, 0));
    assert_eq!(seen.header("host"), Some("app.test"));
    assert_eq!((seen.header("accept-language"), seen.header("cookie")), (Some("de"), None));
    assert_eq!(seen.header("content-length"), None);
    for path in ["/200", "/403"] {
        assert_eq!(proxy.get(path).header("x-app"), Some("1"));
    }
    assert_eq!(pages.count(), 1);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.send(&Ask::get("/404")).unwrap().status, 404);
    }
    assert_eq!(origin.connections(), 1, "what is thrown away costs no connection");
    let head = proxy.send(&Ask::new("HEAD", "/404"));
    assert_eq!((head.status, head.header("x-page")), (404, Some("1")));
}

#[test]
fn errors_of_ours_get_a_page_too() {
    let pages = Origin::named("pages");
    let middleware = "errors: {status: ['502'], service: pages}";
    let proxy = Proxy::start(&with_pages(NOBODY, &pages.url(), middleware));
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (502, "pages"));
    assert_eq!(pages.last().target, "/");
    let proxy = Proxy::start(&with_pages(NOBODY, NOBODY, middleware));
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (502, "Bad Gateway"));
}

/// RP 7.7.
#[test]
fn browsers_talk_to_a_grpc_server() {
    let origin = http2::grpc_origin();
    let url = format!("h2c://{}", origin.address());
    let proxy =
        Proxy::start(&with_pages(&url, NOBODY, "grpcWeb: {allowOrigins: ['https://a.test']}"));
    let message = b"\0\0\0\0\x02hi";
    let end = b"\x80\0\0\0\x10grpc-status: 0\r\n";
    let call = |kind: &str, body: &[u8]| {
        let ask = Ask::post("/pkg.Service/Method", body).header("Origin", "https://a.test");
        proxy.send(&ask.header("Content-Type", kind).header("X-Grpc-Web", "1"))
    };
    let answer = call("application/grpc-web+proto", message);
    assert_eq!(answer.header("content-type"), Some("application/grpc-web"));
    assert_eq!(answer.header("x-te"), Some("trailers"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.test"));
    assert_eq!(answer.body, [&message[..], end].concat());
    assert_eq!(answer.trailers, []);
    let answer = call("application/grpc-web-text", STANDARD.encode(message).as_bytes());
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text"));
    assert_eq!(answer.text(), STANDARD.encode(message) + &STANDARD.encode(end));
    assert_eq!(call("application/grpc-web-text", b"????").status, 400);

    let ask = Ask::new("OPTIONS", "/pkg.Service/Method")
        .header("Origin", "https://a.test")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type,x-grpc-web");
    let answer = proxy.send(&ask);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("Content-Type, X-Grpc-Web"));
}

/// Whoever gives the page sees what the application has seen: no credentials that were removed, no name that the client
/// made up.
#[test]
fn the_page_is_asked_for_with_what_is_left_of_the_headers() {
    let app = Origin::with(|_| Reply::text(500, "broken"));
    let pages = Origin::named("pages");
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [pages, login, mark]}}
          middlewares:
            pages: {{errors: {{status: ['500-599'], service: pages, query: /}}}}
            login:
              basicAuth:
                users: ['test:{{SHA}}qUqP5cyxm6YcTAhz05Hph5gvu9M=']
                removeHeader: true
                headerField: X-User
            mark: {{headers: {{customRequestHeaders: {{X-Mark: ours, X-Gone: ''}}}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            pages: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        app.url(),
        pages.url()
    ));
    let ask = Ask::get("/")
        .header("Authorization", &format!("Basic {}", STANDARD.encode("test:test")))
        .header("X-User", "admin")
        .header("X_User", "admin")
        .header("X-Gone", "here");
    assert_eq!(proxy.send(&ask).status, 500);
    let (shown, seen) = (pages.last(), app.last());
    for name in ["Authorization", "X-User", "X_User", "X-Mark", "X-Gone"] {
        assert_eq!(shown.header(name), seen.header(name), "{name}");
    }
    assert_eq!(shown.header("X-User"), Some("test"));
    assert_eq!(shown.header("Authorization"), None);
}

/// A page that cannot be had is no reason to do again what was done.
#[test]
fn what_was_done_is_not_done_again_for_want_of_a_page() {
    let app = Origin::with(|_| Reply::text(500, "broken"));
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [again, pages]}}
          middlewares:
            again: {{retry: {{attempts: 4}}}}
            pages: {{errors: {{status: ['500'], service: pages, query: /}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            pages: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}
        ",
        app.url()
    ));
    for ask in [Ask::get("/"), Ask::post("/", "")] {
        let before = app.count();
        assert_eq!(proxy.send(&ask).status, 500);
        assert_eq!(app.count(), before + 1, "{}", ask.method);
    }
}
