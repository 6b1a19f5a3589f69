//! Verdicts, the same however the bytes are split.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const STAND_IN: &str = "GET / HTTP/1.1\r\nhost: rejected\r\nconnection: close\r\n\r\n";

fn splits(raw: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut all = vec![vec![raw.to_vec()], raw.iter().map(|&b| vec![b]).collect()];
    let mut seed = 7u64;
    for _ in 0..8 {
        let mut pieces = Vec::new();
        let mut rest = raw;
        while !rest.is_empty() {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let len = (1 + (seed >> 33) as usize % 40).min(rest.len());
            let (piece, behind) = rest.split_at(len);
            pieces.push(piece.to_vec());
            rest = behind;
        }
        all.push(pieces);
    }
    all
}

/// The one outcome of all splits.
fn requests(raw: &[u8], limits: HeadLimits) -> Outcome {
    let mut outcomes = splits(raw).into_iter().map(|pieces| request(pieces, limits, 8192));
    let first = outcomes.next().unwrap();
    for other in outcomes {
        assert_eq!(first.verdict(), other.verdict(), "{}", raw.escape_ascii());
    }
    let narrow = request(vec![raw.to_vec()], limits, 16);
    assert_eq!(first.verdict(), narrow.verdict(), "{}", raw.escape_ascii());
    first
}

fn accepted(raw: &[u8]) {
    let outcome = requests(raw, HeadLimits::default());
    assert_eq!(outcome.rejection, None, "{}", raw.escape_ascii());
    assert_eq!(outcome.delivered, raw, "{}", raw.escape_ascii());
    assert_eq!(outcome.end, End::Eof);
}

fn refused(raw: &[u8], status: u16) -> Rejection {
    refused_by(raw, status, HeadLimits::default())
}

fn refused_by(raw: &[u8], status: u16, limits: HeadLimits) -> Rejection {
    let outcome = requests(raw, limits);
    let rejection = outcome.rejection.unwrap_or_else(|| panic!("passed: {}", raw.escape_ascii()));
    assert_eq!(rejection.status.as_u16(), status, "{}: {rejection:?}", raw.escape_ascii());
    assert!(String::from_utf8(outcome.delivered).unwrap().ends_with(STAND_IN));
    assert_eq!(outcome.end, End::Pending);
    rejection
}

fn with(fields: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello").into_bytes()
}

#[test]
fn good_requests_pass_unchanged() {
    for raw in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?q=/../x&y=%23 HTTP/1.1\r\nhost:a\r\nX-A: b\t c \r\nX-Empty:\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a.b/x HTTP/1.1\r\nHost: c\r\n\r\n",
        "GET HTTPS://a.b?x HTTP/1.1\r\nHost: c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\nContent-Length: 0\r\n\r\n",
    ] {
        accepted(raw.as_bytes());
    }
    accepted(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n");
}

#[test]
fn an_incomplete_head_is_never_delivered() {
    let whole = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    for end in 1..whole.len() {
        let outcome = requests(whole.get(..end).unwrap(), HeadLimits::default());
        assert_eq!(outcome.delivered, b"", "{end}");
        assert_eq!((outcome.end, outcome.rejection), (End::Eof, None));
    }
}

#[test]
fn framing_is_strict() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\r\n",
        "X-A: b\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length:\r\n",
    ] {
        refused(&with(fields), 400);
    }
    refused(&with("Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"), 501);
    refused(&with("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"), 501);
    refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    refused(b"POST / HTTP/1.1\r\n Content-Length: 5\r\nHost: a\r\n\r\nhello", 400);
}

/// T-77 for its first line of defence over HTTP/1.
#[test]
fn lines_are_strict() {
    for fields in [
        "X-A: b\rX-Evil: 1\r\n",
        "X-A: b\0c\r\n",
        "X-A: b\x7fc\r\n",
        "X-\0A: b\r\n",
        ": value\r\n",
        "Garbage line\r\n",
        "Garbage\r\n",
        "Garbage\n",
        "X(A): b\r\n",
        "X-Forwarded-For : 6.6.6.6\r\n",
        "X-A: b\r\n folded\r\n",
        "X-A: b\r\n\tfolded\r\n",
        "X-A: b\n",
        "\rX: y\r\n",
        "X-A: b\r\r\n",
        "Host: b\r\n",
        "Host : b\r\n",
    ] {
        refused(&with(fields), 400);
    }
    for (raw, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (" GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\r\n\r\n", 400),
        ("GET /a\n", 400),
        ("GET\r\n", 400),
        ("GET /a HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /a HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET /a HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("GET /a http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/11.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/1.1x\r\nHost: a\r\n\r\n", 400),
        ("GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GE(T /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET private/y HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://evil/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://evil@a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://[::1/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a:b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /", 501),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x01", 400),
    ] {
        refused(raw.as_bytes(), status);
    }
}

#[test]
fn reasons_and_what_is_logged() {
    let no_host = refused(b"GET /x?y HTTP/1.1\r\n\r\n", 400);
    assert_eq!(no_host.reason, "missing required Host header");
    assert_eq!(no_host.method.as_deref(), Some("GET"));
    assert_eq!(no_host.target.as_deref(), Some("/x?y"));
    let fragment = refused(b"GET /x#/../private HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    assert_eq!(fragment.reason, "fragment in the request target");
    let control = refused(b"\r\nGET /\x01\x1b[0m HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    assert_eq!(control.target.as_deref(), Some("/??[0m"));
    let long = refused(format!("GET /{}# HTTP/1.1\r\n", "a".repeat(500)).as_bytes(), 400);
    assert_eq!(long.target.unwrap().len(), 256);
}

#[test]
fn limits_are_the_same_for_every_split() {
    let limits = HeadLimits { max_head_bytes: 200, max_header_fields: 5, ..HeadLimits::default() };
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let full = head(&format!("X: {}\r\n", "a".repeat(200 - 27 - 5)));
    assert_eq!(full.len(), 200);
    assert_eq!(requests(&full, limits).delivered, full);
    refused_by(&head(&format!("X: {}\r\n", "a".repeat(200 - 27 - 4))), 431, limits);
    refused_by(&head(&format!("X: {}\r\n", "a".repeat(5000))), 431, limits);
    refused_by(&head(&format!("X: {}\0\r\n", "a".repeat(5000))), 431, limits);
    refused_by(&head(&format!("X: {}\0{}\r\n", "a".repeat(50), "a".repeat(500))), 400, limits);
    assert_eq!(requests(&head(&"A: b\r\n".repeat(4)), limits).rejection, None);
    refused_by(&head(&"A: b\r\n".repeat(5)), 431, limits);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(300));
    refused_by(long.as_bytes(), 414, limits);
}

#[test]
fn the_default_limits_hold_in_large_reads() {
    let limits = HeadLimits::default();
    let large = |raw: Vec<u8>| {
        let pieces = raw.chunks(8192).map(<[u8]>::to_vec).collect();
        request(pieces, limits, 16_384).rejection.map(|r| r.status.as_u16())
    };
    assert_eq!(large(with(&format!("X-Big: {}\r\n", "a".repeat(2 << 20)))), Some(431));
    assert_eq!(large(with(&"X-Many: a\r\n".repeat(60_000))), Some(431));
    assert_eq!(large(format!("GET /{}", "a".repeat(2 << 20)).into_bytes()), Some(414));
    assert_eq!(large(with(&format!("Cookie: a={}\r\n", "b".repeat(900_000)))), None);
    let full = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(65_000));
    assert_eq!(large(full.into_bytes()), None);
}

#[test]
fn a_bad_request_behind_a_good_one_keeps_its_number() {
    let raw = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET /2 HTTP/9.9\r\n\r\n";
    let (mut gate, control) = RequestGate::new(
        Pieces::new([raw.to_vec()]),
        Bytes::new(),
        HeadLimits::default(),
        GateTimeouts::default(),
    );
    let (delivered, _) = drain(&mut gate, 8192);
    assert!(delivered.starts_with(b"POST /1 "));
    assert_eq!(control.requests(), 2);
    assert!(control.admit().is_ok());
    assert_eq!(control.admit().unwrap_err().target.as_deref(), Some("/2"));
}

/// RFC 9113 3.4, and the test of an invalid preface in h2spec (3.5.2).
#[test]
fn noise_gets_an_answer_only_where_it_is_asked_for() {
    let limits = HeadLimits { close_on_noise: true, ..HeadLimits::default() };
    let noise = "INVALID CONNECTION PREFACE\r\n\r\n";
    for raw in [noise, "\r\nINVALID CONNECTION PREFACE", "PRI * HTPT", "GET x y", "A b HTT "] {
        let outcome = requests(raw.as_bytes(), limits);
        let closed = raw != "PRI * HTPT";
        assert_eq!(outcome.rejection.is_none(), closed, "{raw}");
        assert_eq!(outcome.end, if closed { End::Eof } else { End::Pending }, "{raw}");
        assert_eq!(outcome.delivered.is_empty(), closed, "{raw}");
    }
    refused(noise.as_bytes(), 400);
    for raw in [
        "GET / x\r\n",
        "GET /\r\n",
        "GET http://a b\r\n",
        "GET a HTTP/x\r\n",
        "GET a\r\n",
        "NOISE\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n",
        "\x01\x02\x03",
    ] {
        refused_by(raw.as_bytes(), 400, limits);
    }
    // Behind a request it is a broken request.
    let second = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{noise}");
    refused_by(second.as_bytes(), 400, limits);
}

#[test]
fn bodies_are_strict() {
    for body in [
        "FFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "2;\nxx\r\n5\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\n0\n\n",
        " 5 \r\nhello\r\n0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let outcome = requests(format!("{head}{body}").as_bytes(), HeadLimits::default());
        assert!(
            matches!(outcome.end, End::Error(io::ErrorKind::InvalidData, _)),
            "{body:?}: {:?}",
            outcome.end
        );
        assert!(!outcome.delivered.ends_with(b"0\r\n\r\n"));
    }
}

#[test]
fn the_prefix_comes_first_and_nothing_is_lost() {
    let raw = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\nraw bytes";
    for at in 0..=raw.len() {
        let (prefix, rest) = raw.split_at(at);
        let (mut gate, control) = RequestGate::new(
            Pieces::new([rest.to_vec()]),
            Bytes::copy_from_slice(prefix),
            HeadLimits::default(),
            GateTimeouts::default(),
        );
        let (mut all, end) = drain(&mut gate, 8192);
        assert_eq!(all, raw.get(..raw.len() - 9).unwrap());
        assert_eq!(end, End::Pending);
        let guard = control.admit().unwrap();
        control.answered(http::StatusCode::SWITCHING_PROTOCOLS);
        drop(guard);
        let (_, left) = gate.into_parts();
        all.extend_from_slice(&left);
        assert_eq!(all, raw);
    }
}

/// However the bytes are split, the verdict is the same.
fn responses(raw: &[u8], method: &Method, upgrade: bool) -> Decoded {
    let mut outcomes = splits(raw).into_iter().map(|pieces| response(pieces, method, upgrade));
    let first = outcomes.next().unwrap();
    for other in outcomes {
        assert_eq!(first, other, "{}", raw.escape_ascii());
    }
    first
}

#[test]
fn good_responses_are_read() {
    for (raw, method, upgrade, status, payload) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Method::GET, false, 200, "ok"),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Method::GET, false, 200, ""),
        (
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            Method::GET,
            false,
            200,
            "ok",
        ),
        ("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nall of it", Method::GET, false, 200, "all of it"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Method::HEAD, false, 200, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Method::GET, false, 304, ""),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::GET,
            false,
            204,
            "",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Method::GET,
            false,
            200,
            "ok",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw\0bytes",
            Method::GET,
            true,
            101,
            "raw\0bytes",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nraw\0bytes", Method::CONNECT, false, 200, "raw\0bytes"),
    ] {
        let decoded = responses(raw.as_bytes(), &method, upgrade);
        assert_eq!(decoded.status, status, "{raw:?}");
        assert_eq!(decoded.payload, payload.as_bytes(), "{raw:?}");
        assert_eq!(decoded.end, DecodedEnd::Whole(0), "{raw:?}");
    }
}

#[test]
fn fields_and_trailers_are_those_that_came() {
    let raw = "HTTP/1.1 200 OK\r\nX-A:  b c \t\r\nx-a:\r\nX-Latin: \u{e9}\r\nTransfer-Encoding: \
        chunked\r\n\r\n0\r\nX-Sum: 7\r\nx-b:\t 8\r\n\r\n";
    let decoded = responses(raw.as_bytes(), &Method::GET, false);
    let all: Vec<_> = decoded.fields.get_all("x-a").iter().collect();
    assert_eq!(all, ["b c", ""]);
    assert_eq!(decoded.fields["x-latin"].as_bytes(), "\u{e9}".as_bytes());
    assert_eq!(decoded.fields.len(), 4);
    let trailers = decoded.trailers.unwrap();
    assert_eq!(
        (&trailers["x-sum"], &trailers["x-b"], trailers.len()),
        (&"7".parse().unwrap(), &"8".parse().unwrap(), 2)
    );
}

#[test]
fn bad_responses_fail() {
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33);
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01 this is not HTTP\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Cr: a\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX-Fold: a\r\n Set-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nFFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        &interim,
    ] {
        let decoded = responses(raw.as_bytes(), &Method::GET, false);
        assert!(matches!(decoded.end, DecodedEnd::Bad(_)), "{raw:?}: {decoded:?}");
    }
    let large = format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\n\r\n", "a".repeat(4 << 20));
    let decoded = response(vec![large.into_bytes()], &Method::GET, false);
    assert_eq!(decoded.end, DecodedEnd::Bad("header section too large"));
}

#[test]
fn a_response_cut_short_is_not_whole() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        let decoded = responses(raw.as_bytes(), &Method::GET, false);
        assert_eq!(decoded.end, DecodedEnd::Short, "{raw:?}");
    }
}

#[test]
fn surplus_is_not_delivered() {
    for (response, payload, surplus) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "", "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", "\r\n"),
    ] {
        let decoded = responses(format!("{response}{surplus}").as_bytes(), &Method::GET, false);
        assert_eq!(decoded.payload, payload.as_bytes());
        assert_eq!(decoded.end, DecodedEnd::Whole(surplus.len()));
    }
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}"
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes through as one message is the same message to httparse.
    #[test]
    fn what_passes_reparses_the_same(
        method in token(),
        target in "/[!-~]{0,20}",
        fields in prop::collection::vec((token(), "[\t -~]{0,20}"), 0..8),
        length in prop::option::of(0usize..20),
        noise in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n");
        for (name, value) in &fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if let Some(length) = length {
            write!(head, "Content-Length: {length}\r\n").unwrap();
        }
        head.push_str("\r\n");
        let mut raw = head.into_bytes();
        if let Some((at, byte)) = noise {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        let head_len = raw.len();
        raw.resize(head_len + 30, b'Z');
        let outcome = request(vec![raw.clone()], HeadLimits::default(), 8192);
        let bytewise = request(raw.iter().map(|&b| vec![b]).collect(), HeadLimits::default(), 8192);
        prop_assert_eq!(outcome.verdict(), bytewise.verdict());
        let passed = !outcome.delivered.is_empty() && !outcome.delivered.starts_with(b"GET / HTTP/1.1\r\nhost: rejected");
        if passed {
            let mut space = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut space);
            let status = parsed.parse(&outcome.delivered);
            let Ok(httparse::Status::Complete(len)) = status else {
                return Err(TestCaseError::fail(format!("{status:?}: {}", outcome.delivered.escape_ascii())));
            };
            let lengths: Vec<_> = parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("content-length")).collect();
            let coded = parsed.headers.iter().any(|h| h.name.eq_ignore_ascii_case("transfer-encoding"));
            prop_assert!(lengths.len() <= 1);
            if !coded {
                let body = match lengths.first() {
                    None => 0,
                    Some(h) => std::str::from_utf8(h.value).unwrap().trim_matches([' ', '\t']).parse::<usize>().unwrap(),
                };
                // The `Z`s behind the message are an incomplete head: nothing of them may have passed.
                prop_assert_eq!(outcome.delivered.len(), (len + body).min(raw.len()));
            }
        }
    }
}

/// What the gate accepts and `http::Uri` does not, hyper would answer by itself, unseen by the service.
#[test]
fn every_byte_of_a_target_is_one_for_hyper() {
    for byte in 0x21..0x7fu8 {
        for place in ["/", "/?"] {
            let target = format!("{place}{}", char::from(byte));
            let raw = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let passes = requests(raw.as_bytes(), HeadLimits::default()).rejection.is_none();
            let uri = target.parse::<http::Uri>();
            assert_eq!(passes, byte != b'#' && uri.is_ok(), "{target}");
        }
    }
}
