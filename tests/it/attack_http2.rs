//! Attacks in frames of HTTP/2, written by hand: no client library would send them.

use std::io::{self, Read, Write};
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
use crate::harness::{Ask, Client, Origin, Proxy, block_on, everything_to, http2, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// GET, http, / and `a.test` (RFC 7541, appendix A).
const GET: &[u8] = b"\x82\x86\x84\x01\x06a.test";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that has been greeted.
fn greeted(to: SocketAddr) -> TcpStream {
    let mut socket = socket(to).unwrap();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
    socket
}

/// The next frame: its kind, its stream and what is in it.
fn read_frame(socket: &mut TcpStream) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    socket.read_exact(&mut payload)?;
    Ok((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// The kinds of all frames until the connection ends.
fn kinds_until_the_end(socket: &mut TcpStream) -> Vec<u8> {
    std::iter::from_fn(|| read_frame(socket).ok().map(|(kind, ..)| kind)).collect()
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
            burst.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
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
        PREFACE,
        &frame(SETTINGS, 0, 0, b""),
        &frame(DATA, END_STREAM, 1, b"end"),
        &frame(RST_STREAM, 0, 1, &[0; 4]),
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
