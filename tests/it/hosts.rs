//! What a host is: every way that one comes in gives the same verdict over the same list.

use std::io::{Read, Write};

use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, Proxy, Reply};

/// The ways, each with whether the proxy took this host.
type Way = (&'static str, fn(&Proxy, &str) -> bool);

const WAYS: &[Way] = &[
    ("Host", by_field),
    ("absolute form", by_target),
    (":authority", by_authority),
    ("redirect", by_redirect),
];

#[test]
fn every_way_in_has_one_idea_of_a_host() {
    let (proxy, _origin) = start();
    let label = "l".repeat(63);
    let long_label = "l".repeat(70);
    let longest = [&*label; 4].join(".");
    let too_long = format!("{longest}x");
    assert_eq!((longest.len(), too_long.len()), (255, 256));
    let good = [
        "a.test",
        "A.Test.",
        "a_b-c~d.test",
        "127.0.0.1",
        "a.test:8080",
        "a.test:0080",
        "a.test:65535",
        "a.test:",
        "a..test",
        "a.test..",
        "[::1]",
        "[::1]:443",
        "[::ffff:10.0.0.1]",
        "xn--bcher-kva.example",
        &long_label,
        &longest,
    ];
    let bad = [
        ":80",
        ":",
        "a.test:80a",
        "a.test:+80",
        "a.test:65536",
        "a.test:80:80",
        "a.test,b.test",
        "a.test;b",
        "a.test=b",
        "(a.test)",
        "a!test",
        "%61.test",
        "a.test%00",
        "a\\b",
        "::1",
        "[::1",
        "[::1]x",
        "[::1%25eth0]",
        "[fe80::1%eth0]",
        "[a.test]",
        "[v1.a]",
        "[]",
        &too_long,
    ];
    for (way, takes) in WAYS {
        for host in good {
            assert!(takes(&proxy, host), "{way} refuses {host}");
        }
        for host in bad {
            assert!(!takes(&proxy, host), "{way} takes {host}");
        }
    }
}

/// In a redirect's URL user information is the configuration's own; in a request it is never one's.
#[test]
fn user_information_is_no_part_of_a_host() {
    let (proxy, _origin) = start();
    for host in ["user@a.test", "user:pass@a.test", "a.test@b.test:80", "@a.test"] {
        for (way, takes) in &WAYS[..3] {
            assert!(!takes(&proxy, host), "{way} takes {host}");
        }
    }
}

/// These would end the host in a target, and so can only come in by a field.
#[test]
fn what_only_a_field_can_say_is_refused_too() {
    let (proxy, _origin) = start();
    for host in
        ["a.test/private", "a.test?x", "a.test#x", "a b", "a.test, b.test", "a.test\tb", "ü.test"]
    {
        assert!(!by_field(&proxy, host), "{host}");
        assert!(!by_authority(&proxy, host), "{host}");
    }
}

fn start() -> (Proxy, Origin) {
    let origin = Origin::with(|_| Reply::ok("ok"));
    let text = format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app}}
            away: {{rule: Host(`away.test`), service: app, middlewares: [away]}}
          middlewares:
            away: {{redirectRegex: {{regex: '^http://away\\.test/\\?(.*)$', replacement: 'https://$1/'}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    (Proxy::start(&text), origin)
}

fn by_field(proxy: &Proxy, host: &str) -> bool {
    verdict(proxy, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
}

fn by_target(proxy: &Proxy, host: &str) -> bool {
    let target = format!("GET http://{host}/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    verdict(proxy, target.as_bytes())
}

fn verdict(proxy: &Proxy, request: &[u8]) -> bool {
    let mut client = Client::connect(proxy.address("web")).unwrap();
    client.write_raw(request).unwrap();
    let status = client.read("GET").unwrap().status;
    assert!(matches!(status, 200 | 400), "{status}");
    status == 200
}

fn by_redirect(proxy: &Proxy, host: &str) -> bool {
    let answer = proxy.send(&Ask::get("away.test").target(&format!("/?{host}")));
    match answer.status {
        302 => assert!(answer.header("location").unwrap().starts_with("https://")),
        status => assert_eq!(status, 500, "{host}"),
    }
    answer.status == 302
}

/// Written by hand: no client library would send what this test has to send.
fn by_authority(proxy: &Proxy, host: &str) -> bool {
    // GET, http and / stand in the static table (RFC 7541, appendix A); :authority is a literal, its name indexed.
    let mut block = vec![0x82, 0x86, 0x84, 0x01];
    // An integer with a prefix of 7 bits (RFC 7541, 5.1).
    if let Ok(length @ ..127) = u8::try_from(host.len()) {
        block.push(length);
    } else {
        let rest = u16::try_from(host.len() - 127).unwrap();
        let [high, low] = (rest << 1).to_be_bytes();
        block.extend([127, (low >> 1) | 0x80, high]);
    }
    block.extend(host.as_bytes());
    let mut socket = socket(proxy.address("web")).unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    socket.write_all(&length[1..]).unwrap();
    socket.write_all(&[0x01, 0x05, 0, 0, 0, 1]).unwrap();
    socket.write_all(&block).unwrap();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).unwrap();
        match head[3] {
            // HEADERS: 200 and 400 stand in the static table.
            1 => return payload.iter().find(|byte| matches!(byte, 0x88 | 0x8c)) == Some(&0x88),
            // RST_STREAM
            3 => return false,
            // SETTINGS, WINDOW_UPDATE
            4 | 8 => {}
            other => panic!("a frame of type {other} for {host}"),
        }
    }
}
