//! What a host is: every way that one comes in gives the same verdict over the same list.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, Proxy, Reply, binary};

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

/// A DNS server that knows these aliases, each for a minute, and counts questions.
fn dns_server(aliases: &[(&'static str, &'static str)]) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (asked, aliases) = (Arc::new(AtomicUsize::new(0)), aliases.to_vec());
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::AcqRel);
            let mut reply = buffer[..length].to_vec();
            let labels = |name: &str| {
                let label = |label: &str| {
                    [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()
                };
                [name.split('.').flat_map(label).collect(), vec![0]].concat()
            };
            reply[2] = 0x81;
            reply[3] = 0x80;
            let found = aliases
                .iter()
                .find(|(name, _)| buffer[12..length - 4].eq_ignore_ascii_case(&labels(name)));
            if let Some((_, of)) = found {
                let data = labels(of);
                reply[7] = 1;
                reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0]);
                reply.push(u8::try_from(data.len()).unwrap());
                reply.extend(data);
            }
            socket.send_to(&reply, from).unwrap();
        }
    });
    (address, asked)
}

/// RP-3.7, ST-12: a customer's own name, which is an alias of ours, goes where ours goes.
#[test]
fn hosts_are_what_they_are_aliases_of() {
    let dns = [("www.customer.test", "shop.saas.test"), ("shop.saas.test", "lb.saas.test")];
    let (address, asked) = dns_server(&dns);
    let [origin, other, below] = ["shop", "other", "below"].map(Origin::named);
    let dynamic = format!(
        "
        http:
          routers:
            shop: {{rule: 'Host(`lb.saas.test`) && Path(`/`)', service: shop}}
            pattern: {{rule: 'HostRegexp(`^lb\\.`) && Path(`/pattern`)', service: shop}}
            wild: {{rule: 'Host(`*.saas.test`) && Path(`/wild`)', service: shop}}
            parent: {{rule: 'Host(`lb.saas.test`) && PathPrefix(`/tree`)'}}
            child: {{rule: 'Host(`lb.saas.test`)', parentRefs: [parent], service: below}}
            own: {{rule: 'Host(`www.customer.test`) && Path(`/own`)', service: other}}
          services:
            shop: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            other: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            below: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url(),
        other.url(),
        below.url(),
    );
    let mut setup = Proxy::with(json!({}));
    let file = setup.directory().join("resolv.conf");
    fs::write(&file, format!("nameserver [{}]:{}\n", address.ip(), address.port())).unwrap();
    setup.set("hostResolver", &json!({"cnameFlattening": true, "resolvConfig": file}));
    let proxy = setup.start(&dynamic);
    for (place, want) in [
        ("www.customer.test/", "shop"),
        ("WWW.Customer.test:80/", "shop"),
        ("www.customer.test/pattern", "shop"),
        ("www.customer.test/wild", "shop"),
        ("www.customer.test/tree/x", "below"),
        ("www.customer.test/own", "other"),
        ("lb.saas.test/", "shop"),
    ] {
        assert_eq!(proxy.who(place), (200, want.to_owned()), "{place}");
    }
    assert_eq!(origin.last().header("host"), Some("lb.saas.test"));
    // www, shop and lb, each once; lb once more as a host of its own.
    assert_eq!(asked.load(Ordering::Acquire), 4);
    for place in ["nobody.test/", "10.0.0.1/", "localhost/"] {
        assert_eq!(proxy.get(place).status, 404, "{place}");
    }
    assert_eq!(asked.load(Ordering::Acquire), 5);
    let off = Proxy::start(&dynamic);
    assert_eq!(off.get("www.customer.test/").status, 404);
}

/// ST-12
#[test]
fn a_resolver_without_its_file_stops_the_start() {
    let options =
        json!({"hostResolver": {"cnameFlattening": true, "resolvConfig": "/nonexistent"}});
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("static.json");
    fs::write(&file, options.to_string()).unwrap();
    let output = binary::run(&[&format!("--configFile={}", file.display())]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("hostResolver.resolvConfig"), "{said}");
}
