//! Attacks in frames of HTTP/2, written by hand: no client library would send them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::backends::ntlm_origin;
use crate::harness::binary::Process;
use crate::harness::client::socket;
use crate::harness::flood::frames::*;
use crate::harness::{Ask, Client, Origin, Proxy, block_on, everything_to, http2, until};

/// GET, http, / and `a.test` (RFC 7541, appendix A).
const GET: &[u8] = b"\x82\x86\x84\x01\x06a.test";

/// A connection that has been greeted.
fn greeted(to: SocketAddr) -> TcpStream {
    let mut socket = socket(to).unwrap();
    socket.write_all(&opening(&[])).unwrap();
    socket
}

/// The kinds of all frames until the connection ends.
fn kinds_until_the_end(socket: &mut TcpStream) -> Vec<u8> {
    std::iter::from_fn(|| next(socket).ok().map(|(kind, ..)| kind)).collect()
}

/// T-02 (CVE-2022-39271): a stop waits for streams as long as it is told to, and for connections that hang not at all.
#[test]
fn hanging_connections_do_not_outlast_the_grace_time() {
    // It reads, and never answers.
    let origin = Origin::raw(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let life = json!({"lifeCycle": {"graceTimeOut": "1s"}});
    let options = json!({"entryPoints": {"web": {"transport": life}}});
    let mut process = Process::start(&options, &everything_to(&origin.url()));
    let at = process.address("web");
    let mut connections: Vec<_> = (0..200).map(|_| greeted(at)).collect();
    for busy in connections.iter_mut().skip(100) {
        busy.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)).unwrap();
    }
    until("they are under way", || origin.connections() >= 100);
    let start = Instant::now();
    process.signal(Signal::TERM);
    for connection in &mut connections {
        assert!(kinds_until_the_end(connection).contains(&GOAWAY), "the end is announced");
    }
    assert_eq!(process.end().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// V-27 (CVE-2026-26311): what follows a reset, in one packet with it, is for nobody.
#[test]
fn data_behind_a_reset_is_dropped() {
    let origin = Origin::start();
    let process = Process::start(&json!({}), &everything_to(&origin.url()));
    let at = process.address("web");
    for _ in 0..20 {
        let mut socket = greeted(at);
        let mut burst = Vec::new();
        for stream in (1..200).step_by(2) {
            burst.extend(frame(HEADERS, END_HEADERS, stream, GET));
            burst.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
            burst.extend(frame(DATA, END_STREAM, stream, b"late"));
        }
        let _ = socket.write_all(&burst);
        let _ = socket.shutdown(Shutdown::Write);
        let kinds = kinds_until_the_end(&mut socket);
        assert!(kinds.contains(&SETTINGS), "it was read as HTTP/2");
    }
    assert_eq!(Client::connect(at).unwrap().send(&Ask::get("/")).unwrap().status, 200);
    for seen in origin.all() {
        assert!(seen.body.is_empty(), "{seen:?}");
    }
    assert!(!process.log().contains("panic"), "{}", process.log());
}

/// T-64 (CVE-2026-88007): a connection to a server that is somebody's through NTLM is nobody else's, also where many
/// streams share a connection to the proxy.
#[test]
fn ntlm_binds_a_connection_to_one_http2_client() {
    let (origin, _) = ntlm_origin();
    let one_worker = json!({"core": {"workers": 1}});
    let proxy = Proxy::with(one_worker).start(&everything_to(&origin.url()));
    block_on(async {
        let mut user = http2::connect(proxy.address("web")).await;
        let mut stranger = http2::connect(proxy.address("web")).await;
        for _ in 0..5 {
            for (client, word, want) in
                [(&mut stranger, "", 401), (&mut user, "Negotiate ticket", 200)]
            {
                let mut request = Request::get("http://app.test/");
                if !word.is_empty() {
                    request = request.header("authorization", word);
                }
                assert_eq!(http2::send(client, request, b"").await.response.status, want);
            }
        }
        let request = Request::get("http://app.test/");
        assert_eq!(http2::send(&mut stranger, request, b"").await.response.status, 401);
    });
    assert_eq!(proxy.get("/").status, 401);
}

/// Numbers that nobody would think of, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.next(most + 1)).map(|_| u8::try_from(self.next(256)).unwrap()).collect()
    }

    /// A frame that is right in some of its parts.
    fn frame(&mut self) -> Vec<u8> {
        let kind = u8::try_from(self.next(12)).unwrap();
        let flags = match self.next(3) {
            0 => END_HEADERS,
            1 => END_STREAM | END_HEADERS,
            _ => u8::try_from(self.next(256)).unwrap(),
        };
        let stream =
            [0, 1, 1, 3, 3, 5, 2, 0x7fff_ffff, 0xffff_ffff][usize::try_from(self.next(9)).unwrap()];
        let payload = match (kind, self.next(4)) {
            (HEADERS | 5 | 9, 0..3) => {
                let mut block = GET.to_vec();
                if self.next(2) == 0 {
                    block.extend(self.bytes(20));
                }
                block
            }
            (SETTINGS, 0..3) => {
                let setting = u16::try_from(self.next(10)).unwrap().to_be_bytes();
                let value = [0, 1, 0x7fff_ffff, 0xffff_ffff, 16_384, 65_535]
                    [usize::try_from(self.next(6)).unwrap()];
                [&setting[..], &u32::to_be_bytes(value)].concat()
            }
            (3 | 8, 0..3) => u32::to_be_bytes(
                [0, 1, 8, 0x7fff_ffff, 0xffff_ffff][usize::try_from(self.next(5)).unwrap()],
            )
            .to_vec(),
            (2, 0..3) => self.bytes(5),
            (6 | GOAWAY, 0..3) => vec![0; 8],
            _ => self.bytes(40),
        };
        let mut frame = frame(kind, flags, stream, &payload);
        // Now and then the length is a lie.
        if self.next(20) == 0 {
            frame[1] = u8::try_from(self.next(256)).unwrap();
        }
        frame
    }
}

/// T-32 (CVE-2026-27141): whatever comes in frames: nothing panics, and everybody else is served.
#[test]
fn frames_in_any_order_are_survived() {
    let origin = Origin::start();
    let process = Process::start(&json!({}), &everything_to(&origin.url()));
    let at = process.address("web");
    let mut neighbour = Client::connect(at).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..400 {
        let mut socket = if numbers.next(10) == 0 { socket(at).unwrap() } else { greeted(at) };
        let count = 1 + numbers.next(30);
        for _ in 0..count {
            if socket.write_all(&numbers.frame()).is_err() {
                break;
            }
        }
        match numbers.next(3) {
            0 => drop(socket.shutdown(Shutdown::Write)),
            1 => drop(socket.shutdown(Shutdown::Both)),
            _ => drop(socket),
        }
        if round % 20 == 0 {
            assert_eq!(neighbour.send(&Ask::get("/")).unwrap().status, 200, "round {round}");
        }
    }
    assert_eq!(neighbour.send(&Ask::get("/")).unwrap().status, 200);
    let log = process.log().to_ascii_lowercase();
    assert!(!log.contains("panic") && !log.contains("overflow"), "{log}");
}

/// V-15 (CVE-2026-42926): a body is data for a server of HTTP/2, whatever it looks like, and so is a header's value.
#[test]
fn a_body_that_looks_like_frames_stays_a_body() {
    let origin = http2::grpc_origin();
    let url = format!("h2c://{}", origin.address());
    let one_worker = json!({"core": {"workers": 1}});
    let proxy = Proxy::with(one_worker).start(&everything_to(&url));
    let smuggled = [
        &b"0\r\n\r\n"[..],
        &opening(&[]),
        &frame(DATA, END_STREAM, 1, b"end"),
        &frame(RESET, 0, 1, &[0; 4]),
        &frame(HEADERS, END_STREAM | END_HEADERS, 3, GET),
        &frame(GOAWAY, 0, 0, &[0; 8]),
        b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ]
    .concat();
    let mut client = proxy.client();
    for ask in [
        Ask::post("/", smuggled.clone()),
        Ask::post("/", smuggled.clone()).chunked(),
        Ask::post("/?\u{1}".trim_end_matches('\u{1}'), smuggled.repeat(2000)),
    ] {
        let sent = ask.body.clone().unwrap();
        let answer = client.send(&ask.header("X-Odd", "\u{ff}\u{fe} 0:; {} $")).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == sent, "{} bytes became {}", sent.len(), answer.body.len());
    }
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let body = Full::new(Bytes::from(smuggled.clone()));
        let request = Request::post("http://a.test/").body(body).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == smuggled);
    });
    assert_eq!(origin.connections(), 1, "the connection was kept, and by nobody else");
}

/// A field as it is written without any table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// A header block in one frame, or cut in two, and whether it is answered.
fn is_answered(to: SocketAddr, block: &[u8], cut: Option<usize>) -> bool {
    let mut socket = greeted(to);
    let frames = match cut {
        None => frame(HEADERS, END_STREAM | END_HEADERS, 1, block),
        Some(at) => [
            frame(HEADERS, END_STREAM, 1, &block[..at]),
            frame(CONTINUATION, END_HEADERS, 1, &block[at..]),
        ]
        .concat(),
    };
    socket.write_all(&frames).unwrap();
    loop {
        match next(&mut socket) {
            Ok((HEADERS, _, 1, _)) => return true,
            Ok((RESET | GOAWAY, ..)) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// G-04: a malformed head is refused, wherever it is cut. Only where the cut comes behind a field without a name, a field
/// of the connection, or a second `:path`, h2 may forget that it was malformed: then nobody gets to see that field.
#[test]
fn malformed_fields_reach_nobody_however_they_are_cut() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let at = proxy.address("web");
    let last = field("x-last", "value");
    assert!(is_answered(at, &[GET, &last].concat(), Some(GET.len() + 4)));
    assert_eq!(origin.count(), 1);
    for (malformed, is_forgotten) in [
        (field("x-a b", "1"), false),
        (field("X-Upper", "1"), false),
        (field("x-cr", "1\r\nx-b: 2"), false),
        (field("x-nul", "\0"), false),
        (field("", "1"), true),
        (field("transfer-encoding", "chunked"), true),
        (field("connection", "x-last"), true),
        (field("te", "gzip"), true),
        ([field(":path", "/other"), field(":method", "POST")].concat(), true),
        ([field("x-first", "1"), field(":path", "/other")].concat(), true),
    ] {
        let block = [GET, &malformed, &last].concat();
        let (behind, before) = (GET.len() + malformed.len(), origin.count());
        assert!(!is_answered(at, &block, None), "{malformed:?}");
        for cut in 1..block.len() {
            let answered = is_answered(at, &block, Some(cut));
            let forgets = is_forgotten && cut >= behind;
            assert!(!answered || forgets, "{malformed:?} is taken when cut at {cut} of {behind}");
        }
        for seen in origin.all().split_off(before) {
            assert_eq!((&*seen.method, &*seen.target), ("GET", "/"), "{malformed:?}");
            for name in ["transfer-encoding", "te", "x-b", "x-nul", "x-cr", "x-upper", "x-a b"] {
                assert_eq!(seen.header(name), None, "{malformed:?}");
            }
        }
    }
}

/// T-07, V-11: what follows a raw `#` in a `:path` is no part of the path, for rules as for backends.
#[test]
fn a_fragment_in_a_path_is_seen_by_nobody() {
    let (open, guarded) = (Origin::start(), Origin::start());
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            open: {{rule: PathPrefix(`/`), service: open}}
            guarded: {{rule: PathPrefix(`/guarded`), service: guarded}}
          services:
            open: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            guarded: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        open.url(),
        guarded.url()
    ));
    for path in ["/open#/../guarded", "/#/guarded", "/guarded#/open", "/guarded/#", "/?a#/guarded"]
    {
        let block = [&b"\x82\x86\x01\x06a.test"[..], &field(":path", path)].concat();
        let counts = [&open, &guarded].map(Origin::count);
        assert!(is_answered(proxy.address("web"), &block, None), "{path}");
        let is_guarded = path.starts_with("/guarded");
        assert_eq!(open.count(), counts[0] + usize::from(!is_guarded), "{path}");
        assert_eq!(guarded.count(), counts[1] + usize::from(is_guarded), "{path}");
        let seen = if is_guarded { guarded.last() } else { open.last() };
        assert_eq!(Some(&*seen.target), path.split('#').next(), "{path}");
    }
}
