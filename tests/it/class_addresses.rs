//! Whose address counts: entries of `X-Forwarded-For`, odd and spoofed ones, and the PROXY protocol (G-11, G-12, G-14,
//! G-15).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Ask, DEADLINE, Origin, Proxy, everything_to, pause, until};

/// A router for everything through `middleware`, at an entry point with these options.
fn start(origin: &Origin, options: &Value, middleware: &str) -> Proxy {
    Proxy::with(json!({"entryPoints": {"web": options}})).start(&format!(
        "
        http:
          routers: {{all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}}}
          middlewares: {{one: {{{middleware}}}}}
          services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
        ",
        origin.url()
    ))
}

/// Everybody on this machine is a proxy that is believed.
fn believed() -> Value {
    json!({"forwardedHeaders": {"trustedIPs": ["127.0.0.0/8", "10.0.0.0/8"]}})
}

fn said(proxy: &Proxy, lines: &[&str]) -> u16 {
    let ask = lines.iter().fold(Ask::get("/"), |ask, line| ask.header("X-Forwarded-For", line));
    proxy.send(&ask).status
}

/// G-11: what a client writes stands left of what proxies have written, and never counts.
#[test]
fn entries_left_of_the_real_one_do_not_count() {
    let origin = Origin::start();
    let only = |strategy: &str| {
        let list = format!("ipAllowList: {{sourceRange: [6.6.6.6], ipStrategy: {strategy}}}");
        start(&origin, &believed(), &list)
    };
    let (by_depth, by_list) = (only("{depth: 2}"), only("{excludedIPs: [10.0.0.0/8]}"));
    for (lines, status) in [
        (&["1.1.1.1, 6.6.6.6, 10.0.0.1"][..], 200),
        (&["6.6.6.6, 10.0.0.1"], 200),
        (&["1.1.1.1", "6.6.6.6", "10.0.0.1"], 200),
        (&["6.6.6.6, 1.1.1.1, 10.0.0.1"], 403),
        (&["6.6.6.6", "1.1.1.1, 10.0.0.1"], 403),
        (&["6.6.6.6, 6.6.6.6, 6.6.6.6, 9.9.9.9, 10.0.0.1"], 403),
        (&["6.6.6.6, x, 10.0.0.1"], 403),
    ] {
        assert_eq!(said(&by_depth, lines), status, "{lines:?}");
        assert_eq!(said(&by_list, lines), status, "{lines:?}");
    }
    // The nearest entry is the one that the believed proxy has added.
    let nearest = only("{depth: 1}");
    assert_eq!(said(&nearest, &["1.1.1.1, 10.0.0.1, 6.6.6.6"]), 200);
    assert_eq!(said(&nearest, &["6.6.6.6, 10.0.0.1"]), 403);
    // Whoever is not believed has written nothing, wherever it says that it comes from.
    let before = origin.count();
    let middleware = "ipAllowList: {sourceRange: [6.6.6.6], ipStrategy: {depth: 1}}";
    let stranger =
        start(&origin, &json!({"forwardedHeaders": {"trustedIPs": ["10.0.0.0/8"]}}), middleware);
    for lines in [&["6.6.6.6"][..], &["6.6.6.6, 10.0.0.1"], &["6.6.6.6", "6.6.6.6"]] {
        assert_eq!(said(&stranger, lines), 403, "{lines:?}");
    }
    assert_eq!(origin.count(), before);
}

/// How an entry is written, and the address that it is, if it is one.
const ENTRIES: [(&str, Option<&str>); 22] = [
    ("6.6.6.6", Some("6.6.6.6")),
    ("  6.6.6.6  ", Some("6.6.6.6")),
    ("::ffff:6.6.6.6", Some("6.6.6.6")),
    ("2001:db8::1", Some("2001:db8::1")),
    ("2001:0DB8:0:0::0001", Some("2001:db8::1")),
    ("6.6.6.6:8080", None),
    ("[2001:db8::1]", None),
    ("[2001:db8::1]:443", None),
    ("\"6.6.6.6\"", None),
    ("'6.6.6.6'", None),
    ("for=6.6.6.6", None),
    ("fe80::1%eth0", None),
    ("6.6.6", None),
    ("06.6.6.6", None),
    ("0x6.6.6.6", None),
    ("101058054", None),
    ("6.6.6.6/32", None),
    ("6.6.6.6;x", None),
    ("6.6.6.6\u{a0}", None),
    ("localhost", None),
    ("unknown", None),
    ("", None),
];

/// G-12: an entry that is written oddly is nobody's address: it opens no list, and makes no key of its own for each way
/// to write it.
#[test]
fn odd_entries_are_nobody() {
    let origin = Origin::start();
    let list =
        "ipAllowList: {sourceRange: [6.6.6.6, '2001:db8::1', 127.0.0.1], ipStrategy: {depth: 1}}";
    let (allowed, excluded) = (
        start(&origin, &believed(), list),
        start(&origin, &believed(), &list.replace("depth: 1", "excludedIPs: [10.0.0.1]")),
    );
    for (entry, is) in ENTRIES {
        let status = if is.is_some() { 200 } else { 403 };
        assert_eq!(said(&allowed, &[&format!("9.9.9.9, {entry}")]), status, "{entry:?}");
        // With a list of proxies an empty entry is passed over, and the next one counts.
        let line = format!("9.9.9.9, {entry}, 10.0.0.1");
        assert_eq!(said(&excluded, &[&line]), status, "{entry:?}");
    }
    let many = vec!["6.6.6.6"; 499].join(",");
    assert_eq!(said(&allowed, &[&format!("{many},9.9.9.9")]), 403);
    assert_eq!(said(&allowed, &[&format!("{many},6.6.6.6")]), 200);
    let lines = vec!["6.6.6.6"; 60];
    assert_eq!(said(&allowed, &lines), 200);

    // One bucket for each address, however it is written; strangers' odd entries share buckets or are refused.
    for profile in ["safe", "hardened"] {
        let limit = "rateLimit: {average: 1, period: 1h, burst: 1, sourceCriterion: {ipStrategy: {depth: 1}}}";
        let text = format!(
            "
            http:
              routers: {{all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}}}
              middlewares: {{one: {{{limit}}}}}
              services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
            ",
            origin.url()
        );
        let options = json!({"core": {"profile": profile}, "entryPoints": {"web": believed()}});
        let proxy = Proxy::with(options).start(&text);
        let mut passed = Vec::new();
        for (entry, _) in ENTRIES {
            let status = said(&proxy, &[entry]);
            assert!(matches!(status, 200 | 429 | 500), "{entry:?}: {status}");
            if status == 200 {
                passed.push(entry);
            }
        }
        // Both addresses once; whoever is nobody shares a bucket with the others, and so does who says nothing.
        assert!(passed.len() <= 4 && passed.contains(&"6.6.6.6"), "{profile}: {passed:?}");
        assert!(passed.contains(&"2001:db8::1"), "{profile}: {passed:?}");
    }
}

/// A connection from this loopback address.
pub(crate) fn from(address: &str, proxy: &Proxy) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    connect(&socket, &proxy.address("web")).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends a header and a request behind it; the status, or 0 when the connection ends without an answer.
fn announced(mut stream: TcpStream, header: &[u8]) -> u16 {
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    // Who is refused may find the connection closed already.
    let _ = stream.write_all(&[header, request].concat());
    let mut answer = Vec::new();
    let _: io::Result<usize> = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with the length that its rest has.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// From 192.0.2.7 and port 1234 to 192.0.2.8 and port 80.
const IPV4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 8, 4, 210, 0, 80];

/// G-14: only who is believed names another address; `trustedIPs` of the PROXY protocol is not that of headers.
#[test]
fn strangers_announce_nobody() {
    let origin = Origin::start();
    let options = json!({"entryPoints": {"web": {"proxyProtocol": {"trustedIPs": ["127.0.0.1"]}}}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let headers = [b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n".to_vec(), v2(0x21, 0x11, &IPV4)];
    for (peer, client) in [("127.0.0.2", "127.0.0.2"), ("127.0.0.1", "192.0.2.7")] {
        for header in &headers {
            assert_eq!(announced(from(peer, &proxy), header), 200, "{peer}");
            let seen = origin.last();
            assert_eq!(seen.header("x-real-ip"), Some(client), "{peer}");
            assert_eq!(seen.header("x-forwarded-for"), Some(client), "{peer}");
        }
    }
    // A second header is no header any more.
    let twice = [&headers[0][..], &headers[0]].concat();
    let status = announced(from("127.0.0.1", &proxy), &twice);
    assert!(matches!(status, 0 | 400), "{status}");
    assert_eq!(origin.count(), 4);
}

/// G-15: each header is read as the specification says, or the connection ends; nothing of it is taken for a request.
#[test]
fn headers_of_the_proxy_protocol_are_read_strictly() {
    let origin = Origin::start();
    let options = json!({"entryPoints": {"web": {
        "proxyProtocol": {"insecure": true},
        "transport": {"respondingTimeouts": {"readTimeout": "2s"}},
    }}});
    let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
    let mut unix = vec![0; 216];
    unix[..5].copy_from_slice(b"/a/b\0");
    let ipv6 = [
        &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        &[4, 210, 0, 80],
    ]
    .concat();
    // An extension that holds a request, and one that says it is longer than the header.
    let tlv = [&IPV4[..], &[0xe0, 0, 18], b"GET /x HTTP/1.1\r\n\r"].concat();
    let long_tlv = [&IPV4[..], &[0xe0, 0, 99], b"short"].concat();
    let long = [&IPV4[..], &[0xe0, 15, 0], &[b'x'; 15 << 8]].concat();
    let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    let peer = Some("127.0.0.1");
    let named = Some("192.0.2.7");
    // Who the client is; `None` when the connection ends, or nothing but a refusal is answered.
    let table: [(&str, Vec<u8>, Option<&str>); 26] = [
        ("v1 TCP4", line("TCP4 192.0.2.7 192.0.2.8 1234 80"), named),
        ("v1 TCP6", line("TCP6 2001:db8::1 2001:db8::2 1234 80"), Some("2001:db8::1")),
        ("v1 UNKNOWN", line("UNKNOWN"), peer),
        ("v1 UNKNOWN with addresses", line("UNKNOWN 192.0.2.7 192.0.2.8 1 2"), peer),
        ("v1 lower case", line("tcp4 192.0.2.7 192.0.2.8 1234 80"), None),
        ("v1 family and address differ", line("TCP4 2001:db8::1 2001:db8::2 1234 80"), None),
        ("v1 a port too large", line("TCP4 192.0.2.7 192.0.2.8 65536 80"), None),
        ("v1 no port", line("TCP4 192.0.2.7 192.0.2.8"), None),
        ("v1 a name", line("TCP4 localhost 192.0.2.8 1234 80"), None),
        ("v1 two spaces", line("TCP4  192.0.2.7 192.0.2.8 1234 80"), None),
        ("v1 something behind", line("TCP4 192.0.2.7 192.0.2.8 1234 80 GET"), None),
        ("v1 a bare line feed", b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\n".to_vec(), None),
        ("v1 too long", line(&format!("UNKNOWN {}", "x".repeat(200))), None),
        ("v2 TCP4", v2(0x21, 0x11, &IPV4), named),
        ("v2 TCP6", v2(0x21, 0x21, &ipv6), Some("2001:db8::1")),
        ("v2 LOCAL", v2(0x20, 0x00, &[]), peer),
        ("v2 LOCAL with addresses", v2(0x20, 0x11, &IPV4), peer),
        ("v2 UNSPEC", v2(0x21, 0x00, b"whatever"), peer),
        ("v2 UNIX", v2(0x21, 0x31, &unix), peer),
        ("v2 an extension", v2(0x21, 0x11, &tlv), named),
        ("v2 an extension that is cut, which nobody reads", v2(0x21, 0x11, &long_tlv), named),
        ("v2 many extensions", v2(0x21, 0x11, &long), named),
        ("v2 addresses too short", v2(0x21, 0x11, &IPV4[..8]), None),
        ("v2 another version", v2(0x31, 0x11, &IPV4), None),
        ("v2 another command", v2(0x22, 0x11, &IPV4), None),
        ("v2 another family", v2(0x21, 0x41, &IPV4), None),
    ];
    for (what, header, client) in table {
        let before = origin.count();
        let status = announced(from("127.0.0.1", &proxy), &header);
        if client.is_none() {
            assert!(matches!(status, 0 | 400), "{what}: {status}");
            assert_eq!(origin.count(), before, "{what}");
            continue;
        }
        assert_eq!(status, 200, "{what}");
        assert_eq!(origin.last().header("x-real-ip"), client, "{what}");
        assert_eq!((&*origin.last().target, origin.count()), ("/", before + 1), "{what}");
    }
    // It may come in pieces, but not for ever.
    let mut slow = from("127.0.0.1", &proxy);
    for byte in line("TCP4 192.0.2.7 192.0.2.8 1234 80") {
        slow.write_all(&[byte]).unwrap();
    }
    assert_eq!(announced(slow, b""), 200);
    assert_eq!(origin.last().header("x-real-ip"), named);
    let begun = Instant::now();
    let mut slower = from("127.0.0.1", &proxy);
    slower.write_all(b"PROXY TCP4 ").unwrap();
    until("who says no more is left", || {
        pause(Duration::from_millis(100));
        slower.write_all(b"1").is_err()
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
