//! The contract with Traefik's users, row by row (`tests/compat/request-path.md`): the order of things
//! at an entry point, and its options.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Tls;
use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, Proxy, everything_to, until};

/// A proxy with these options of the entry point `web`, and these routers, which go to `app`.
fn web(options: &Value, routers: &str) -> (Proxy, Origin) {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers: {{{routers}}}
          middlewares:
            one: {{addPrefix: {{prefix: /one}}}}
            near: {{ipAllowList: {{sourceRange: [192.0.2.7], ipStrategy: {{depth: 1}}}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        tls:
          options:
            old: {{alpnProtocols: [http/1.1]}}
        ",
        origin.url()
    );
    (Proxy::with(json!({"entryPoints": {"web": options}})).start(&text), origin)
}

const ALL: &str = "all: {rule: PathPrefix(`/`), service: app}";

/// RP-1.3, RP-1.4
#[test]
fn one_address_serves_clear_text_and_tls() {
    let (proxy, _origin) = web(
        &json!({}),
        "secure: {rule: Host(`a.test`), service: app, tls: {}}, plain: {rule: Host(`b.test`), service: app}",
    );
    for (host, clear, secured) in [("a.test", 404, 200), ("b.test", 200, 404)] {
        assert_eq!(proxy.get(&format!("{host}/")).status, clear, "{host}");
        let mut tls = Tls::anyone().connect(proxy.address("web"), Some(host)).unwrap();
        assert_eq!(tls.client.send(&Ask::get(host)).unwrap().status, secured, "{host}");
    }
}

/// RP-1.25
#[test]
fn a_path_is_judged_for_the_router_that_it_goes_to() {
    let (proxy, origin) = web(
        &json!({"http": {"encodedCharacters": {"allowEncodedSlash": false}}}),
        "a: {rule: Host(`a.test`), service: app}",
    );
    assert_eq!(proxy.get("b.test/x%2Fy").status, 404);
    let answer = proxy.get("a.test/x%2Fy");
    assert_eq!((answer.status, answer.body.len(), origin.count()), (400, 0, 0));
}

/// RP-1.26, RP-12.8
#[test]
fn middlewares_see_forwarded_addresses_without_the_peer() {
    let (proxy, origin) = web(
        &json!({"forwardedHeaders": {"insecure": true}}),
        "all: {rule: PathPrefix(`/`), service: app, middlewares: [near]}",
    );
    let from = |addresses: &str| proxy.send(&Ask::get("/").header("X-Forwarded-For", addresses));
    assert_eq!(from("10.0.0.1, 192.0.2.7").status, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("10.0.0.1, 192.0.2.7, 127.0.0.1"));
    assert_eq!(from("192.0.2.7, 10.0.0.1").status, 403);
}

/// RP-1.27, RP-2.4.7
#[test]
fn a_redirection_is_a_router_among_others() {
    let redirections = |more: &Value| json!({"http": {"redirections": {"entryPoint": more}}});
    for (options, status) in [
        (json!({"to": ":443"}), 301),
        (json!({"to": ":443", "permanent": false}), 302),
        (json!({"to": ":443", "priority": 10}), 200),
    ] {
        let (proxy, _origin) = web(&redirections(&options), ALL);
        assert_eq!(proxy.get("a.test/").status, status, "{options}");
    }
    let highest = "all: {rule: PathPrefix(`/`), service: app, priority: 9223372036854774807}";
    let (proxy, _origin) = web(&redirections(&json!({"to": ":443"})), highest);
    assert_eq!(proxy.get("a.test/").status, 301);
}

/// RP-2.4.9, RP-14.11
#[test]
fn a_redirection_that_leads_nowhere_else_is_a_teapot() {
    let redirect = json!({"entryPoint": {"to": ":443"}});
    let (proxy, _origin) = web(
        &json!({"forwardedHeaders": {"insecure": true}, "http": {"redirections": redirect}}),
        ALL,
    );
    let answer = proxy.send(&Ask::get("a.test/").header("X-Forwarded-Proto", "https"));
    assert_eq!((answer.status, answer.body.len()), (418, 0));
    assert_eq!(proxy.get("a.test/").header("location"), Some("https://a.test/"));
}

/// RP-2.1.7
#[test]
fn a_socket_for_nobody_is_left_alone() {
    let origin = Origin::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = everything_to(&origin.url());
    let process = Process::activated(socket, "somebody", &json!({}), &text);
    assert_ne!(process.address("web"), address);
    let mut client = Client::connect(process.address("web")).unwrap();
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    until("somebody is told", || process.log().contains("somebody"));
}

/// RP-2.1.7
#[test]
fn of_two_sockets_with_one_name_somebody_is_told() {
    let origin = Origin::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = everything_to(&origin.url());
    let process = Process::activated(socket, "web:web", &json!({}), &text);
    assert_eq!(process.address("web"), address);
    let mut client = Client::connect(address).unwrap();
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    until("somebody is told", || process.log().contains("several sockets have this name"));
}

/// Asks over one connection, one request after another, so often at most, until the server says farewell and closes it.
/// Returns how often it was asked, the statuses as they stand in HPACK, and last streams and codes of GOAWAY
/// (RFC 9113, 6.8).
fn farewell(proxy: &Proxy, most: usize) -> (usize, Vec<u8>, Vec<(u32, u32)>) {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let (mut asked, mut statuses, mut goaways) = (0, Vec::new(), Vec::new());
    let mut ask = |stream: &mut TcpStream| {
        // GET, http, `/` and the authority; the request ends with its head.
        let mut frame = b"\0\0\x0b\x01\x05\0\0\0\0\x82\x86\x84\x41\x06a.test".to_vec();
        frame[5..9].copy_from_slice(&u32::try_from(2 * asked + 1).unwrap().to_be_bytes());
        stream.write_all(&frame).unwrap();
        asked += 1;
        asked
    };
    let mut so_far = ask(&mut stream);
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("it is not closed: {error}; {goaways:?}"),
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let (kind, flag) = (head[3], head[4] & 1);
        match (kind, flag) {
            (SETTINGS, 0) => stream.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap(),
            (PING, 0) => {
                let answer = [b"\0\0\x08\x06\x01\0\0\0\0", &payload[..]].concat();
                stream.write_all(&answer).unwrap();
            }
            (HEADERS, _) => statuses.extend(payload.iter().find(|&&byte| byte & 0x80 != 0)),
            (GOAWAY, _) => goaways.push((word(0), word(4))),
            _ => {}
        }
        let is_over = kind <= HEADERS && flag == 1;
        if is_over && goaways.is_empty() && so_far < most {
            so_far = ask(&mut stream);
        }
    }
    (so_far, statuses, goaways)
}

/// RP-2.2.6, RP-2.2.7: the farewell is an orderly one, and nothing that was asked before is lost.
#[test]
fn a_connection_of_http2_ends_with_goaway() {
    for (limit, most) in
        [(json!({"keepAliveMaxRequests": 3}), 3), (json!({"keepAliveMaxTime": "50ms"}), usize::MAX)]
    {
        let (proxy, origin) = web(&json!({"transport": limit}), ALL);
        let (asked, statuses, goaways) = farewell(&proxy, most);
        assert!(most == usize::MAX || asked == most, "{limit}: {asked}");
        // `:status: 200` is the eighth entry of HPACK's table.
        assert_eq!(statuses, vec![0x88; asked], "{limit}");
        assert_eq!(origin.count(), asked);
        let last = u32::try_from(2 * asked - 1).unwrap();
        assert_eq!(goaways.last(), Some(&(last, 0)), "{limit}: {goaways:?}");
        assert!(goaways.iter().all(|(_, code)| *code == 0), "{limit}: {goaways:?}");
    }
}

/// RP-2.3.1, RP-2.3.4, RP-12.8
#[test]
fn forwarded_headers_are_believed_and_appended_as_told() {
    for (options, sent, seen) in [
        (json!({}), Some("192.0.2.1"), Some("127.0.0.1")),
        (json!({"insecure": true}), Some("192.0.2.1"), Some("192.0.2.1, 127.0.0.1")),
        (json!({"notAppendXForwardedFor": true}), Some("192.0.2.1"), None),
        (json!({"notAppendXForwardedFor": true}), None, None),
        (
            json!({"insecure": true, "notAppendXForwardedFor": true}),
            Some("192.0.2.1"),
            Some("192.0.2.1"),
        ),
    ] {
        let (proxy, origin) = web(&json!({"forwardedHeaders": options}), ALL);
        let ask = Ask::get("/");
        let ask = match sent {
            Some(addresses) => ask.header("X-Forwarded-For", addresses),
            None => ask,
        };
        assert_eq!(proxy.send(&ask).status, 200);
        assert_eq!(origin.last().header("x-forwarded-for"), seen, "{options}");
        assert_eq!(origin.last().header("x-real-ip"), Some("127.0.0.1"));
    }
}

/// RP-2.3.3, RP-13.1
#[test]
fn what_connection_names_is_gone_before_rules_look() {
    let (proxy, origin) = web(
        &json!({"forwardedHeaders": {"connection": ["X-Keep"]}}),
        "keep: {rule: 'Header(`X-Keep`, `1`)', service: app}, drop: {rule: 'Header(`X-Drop`, `1`)', service: app}",
    );
    let ask = |connection: &str, name: &str| {
        proxy.send(&Ask::get("/").header("Connection", connection).header(name, "1")).status
    };
    assert_eq!(ask("close", "X-Drop"), 200);
    assert_eq!(ask("close, X-Drop", "X-Drop"), 404);
    assert_eq!(origin.count(), 1);
    assert_eq!(ask("close, X-Keep", "X-Keep"), 200);
    assert_eq!(origin.last().header("x-keep"), None, "it lives until the proxy, and no longer");
}

fn announce(proxy: &Proxy, from: &str, ask: &Ask) -> u16 {
    let mut client = proxy.client();
    let header = format!("PROXY TCP4 {from} 192.0.2.8 1234 80\r\n");
    client.write_raw(header.as_bytes()).unwrap();
    client.send(ask).unwrap().status
}

/// RP-2.3.7, RP-12.14
#[test]
fn trust_is_in_whom_the_proxy_protocol_names() {
    let (proxy, origin) = web(
        &json!({
            "proxyProtocol": {"insecure": true},
            "forwardedHeaders": {"trustedIPs": ["192.0.2.7"]},
        }),
        "all: {rule: 'ClientIP(`192.0.2.0/24`)', service: app}",
    );
    let ask = Ask::get("/").header("X-Forwarded-For", "10.0.0.1");
    assert_eq!(announce(&proxy, "192.0.2.7", &ask), 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("10.0.0.1, 192.0.2.7"));
    assert_eq!(announce(&proxy, "192.0.2.9", &ask), 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.9"));
    assert_eq!(proxy.send(&ask).status, 404, "without a header it is the peer");
}

/// RP-2.3.8
#[test]
fn a_proxy_header_has_the_read_timeout() {
    let (proxy, _origin) = web(
        &json!({
            "proxyProtocol": {"insecure": true},
            "transport": {"respondingTimeouts": {"readTimeout": "300ms"}},
        }),
        ALL,
    );
    for begun in ["", "PROXY TCP4 192.0.2.7"] {
        let start = Instant::now();
        let mut client = proxy.client();
        client.write_raw(begun.as_bytes()).unwrap();
        assert!(client.is_closed(), "{begun:?}");
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(290) && elapsed < Duration::from_secs(10));
    }
}

/// RP-2.4.1
#[test]
fn a_middleware_that_is_missing_breaks_every_router_of_its_entry_point() {
    let (proxy, origin) = web(
        &json!({"http": {"middlewares": ["gone@file"]}}),
        "a: {rule: Host(`a.test`), service: app}, b: {rule: Host(`b.test`), service: app}, \
         alt: {rule: Host(`a.test`), service: app, entryPoints: [websecure]}",
    );
    for host in ["a.test", "b.test"] {
        assert_eq!(proxy.get(&format!("{host}/")).status, 503, "{host}");
    }
    assert_eq!(origin.count(), 0);
    let mut other = Client::connect(proxy.address("websecure")).unwrap();
    assert_eq!(other.send(&Ask::get("a.test/x")).unwrap().status, 200);
    let shown = proxy.api("/api/http/routers/web-a@file");
    assert_eq!(shown["status"], "disabled");
    assert_eq!(shown["error"][0], "middleware \"gone@file\" does not exist");
}

/// RP-2.4.2
#[test]
fn a_router_with_tls_of_its_own_inherits_nothing() {
    let (proxy, _origin) = web(
        &json!({"http": {"tls": {"options": "old@file"}}}),
        "a: {rule: Host(`a.test`), service: app, entryPoints: [web]}, \
         b: {rule: Host(`b.test`), service: app, entryPoints: [web], tls: {}}",
    );
    for (host, agreed) in [("a.test", "http/1.1"), ("b.test", "h2")] {
        let client = Tls::anyone().protocols(&["h2", "http/1.1"]);
        let secured = client.connect(proxy.address("web"), Some(host)).unwrap();
        assert_eq!(secured.protocol.as_deref(), Some(agreed), "{host}");
        let mut secured = Tls::anyone().connect(proxy.address("web"), Some(host)).unwrap();
        assert_eq!(secured.client.send(&Ask::get(host)).unwrap().status, 200, "{host}");
        assert_eq!(proxy.get(&format!("{host}/")).status, 404, "not in clear text");
    }
}

/// What the server says of itself: identifiers and values of its SETTINGS (RFC 9113, 6.5).
fn settings(proxy: &Proxy) -> Vec<(u16, u32)> {
    let mut stream = socket(proxy.address("web")).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[3], head[4]), (4, 0), "the first frame is SETTINGS");
    let length = usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    let pairs = payload.chunks(6).map(|pair| {
        let id = u16::from_be_bytes([pair[0], pair[1]]);
        (id, u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    });
    pairs.collect()
}

/// RP-2.5.1, RP-2.5.2, RP-2.5.4, RP-13.8, RP-15.4
#[test]
fn the_settings_of_http2() {
    const TABLE: u16 = 1;
    const STREAMS: u16 = 3;
    const CONNECT: u16 = 8;
    for (options, streams, table) in [
        (json!({}), 250, 4096),
        (json!({"maxConcurrentStreams": 17, "maxDecoderHeaderTableSize": 8192}), 17, 8192),
    ] {
        let (proxy, _origin) = web(&json!({"http2": options}), ALL);
        let said = settings(&proxy);
        let of = |id: u16| said.iter().find(|(known, _)| *known == id).map(|(_, value)| *value);
        assert_eq!(of(STREAMS), Some(streams), "{said:?}");
        assert_eq!(of(TABLE).unwrap_or(4096), table, "{said:?}");
        assert_eq!(of(CONNECT).unwrap_or(0), 0, "{said:?}");
    }
}

/// RP-2.5.9, RP-3.1.9, RP-1.17
#[test]
fn what_is_observed_is_the_entry_points_word_unless_the_router_has_one() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            quiet: {{rule: Host(`quiet.test`), service: app, entryPoints: [web]}}
            loud: {{rule: Host(`loud.test`), service: app, entryPoints: [web], observability: {{accessLogs: true, metrics: true}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    let silent = json!({"accessLogs": false, "metrics": false});
    let mut setup = Proxy::with(json!({"entryPoints": {"web": {"observability": silent}}}));
    let file = setup.directory().join("access.log");
    setup.set("accessLog", &json!({"filePath": file, "format": "json"}));
    let proxy = setup.start(&text);
    for host in ["quiet.test/", "loud.test/", "quiet.test/"] {
        assert_eq!(proxy.get(host).status, 200);
    }
    let counted = |router: &str| {
        let metrics = proxy.app().metrics();
        let name = format!("router=\"{router}@file\"");
        metrics
            .lines()
            .any(|line| line.starts_with("traefik_router_requests_total{") && line.contains(&name))
    };
    until("the loud one is counted", || counted("loud"));
    let log = || fs::read_to_string(&file).unwrap_or_default();
    until("the loud one is written down", || log().contains("loud.test"));
    assert!(!counted("quiet"));
    assert!(!log().contains("quiet.test"), "{}", log());
}
