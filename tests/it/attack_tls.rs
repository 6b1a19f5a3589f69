//! Attacks on TLS: handshakes that are cut into pieces, end in the middle or never go on, certificates that promise more
//! than their authority may, and ways to a host past what it demands.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::certs::{Ca, Tls};
use crate::harness::client::socket;
use crate::harness::{Ask, Client, Origin, Proxy, everything_to};
use crate::wire::tls_origin;

/// `a.test` demands certificates of `authority`, `b.test` a login, `c.test` nothing.
fn three_hosts(url: &str, authority: &str) -> String {
    format!(
        "
        http:
          routers:
            a: {{rule: Host(`a.test`), service: app, tls: {{options: mtls}}}}
            b: {{rule: Host(`b.test`), service: app, tls: {{}}, middlewares: [login]}}
            c: {{rule: Host(`c.test`), service: app, tls: {{}}}}
          middlewares:
            login: {{basicAuth: {{users: ['test:{{SHA}}qUqP5cyxm6YcTAhz05Hph5gvu9M=']}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        tls:
          options:
            mtls:
              clientAuth:
                clientAuthType: RequireAndVerifyClientCert
                caFiles: ['{authority}']
        "
    )
}

fn guarded(origin: &Origin, ca: &Ca) -> Proxy {
    let setup = Proxy::with(json!({}));
    let authority = setup.directory().join("ca.pem");
    std::fs::write(&authority, ca.pem()).unwrap();
    setup.start(&three_hosts(&origin.url(), &authority.display().to_string()))
}

/// V-43 (CVE-2026-50149): who names no server gets a certificate, and nothing else that others do not get.
#[test]
fn without_a_server_name_nothing_is_let_through() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let proxy = guarded(&origin, &ca);
    let at = proxy.address("websecure");
    let mut nameless = Tls::anyone().connect(at, None).unwrap().client;
    for (host, status) in [
        ("c.test/", 200),
        ("b.test/", 401),
        ("a.test/", 421),
        ("127.0.0.1/", 404),
        ("c.test/", 200),
    ] {
        assert_eq!(nameless.send(&Ask::get(host)).unwrap().status, status, "{host}");
    }
    let known = ca.issue(&["client"]);
    let mut nameless = Tls::with_identity(&known).connect(at, None).unwrap().client;
    assert_eq!(nameless.send(&Ask::get("a.test/")).unwrap().status, 421);
    assert_eq!(origin.count(), 2);
}

/// Cuts what is written into TLS records of one byte each, as long as it is a handshake in clear text.
struct Split(TcpStream);

impl Read for Split {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Split {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cut = Vec::new();
        let mut rest = bytes;
        while let [kind, high, low, a, b, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*a, *b]));
            if *kind != 22 || behind.len() < length {
                break;
            }
            let (record, others) = behind.split_at(length);
            for byte in record {
                cut.extend([*kind, *high, *low, 0, 1, *byte]);
            }
            rest = others;
        }
        cut.extend(rest);
        self.0.write_all(&cut)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// V-36 (CVE-2024-11738): a hello in single bytes is that hello, with the options of its name.
#[test]
fn a_hello_in_pieces_has_the_options_of_its_name() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let proxy = guarded(&origin, &ca);
    let ask = |tls: &Tls, name: &str| -> io::Result<u16> {
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection =
            ClientConnection::new(Arc::new(tls.config()), server).map_err(io::Error::other)?;
        let tcp = socket(proxy.address("websecure"))?;
        let mut split = Split(tcp.try_clone()?);
        while connection.is_handshaking() {
            connection.complete_io(&mut split)?;
        }
        let mut client = Client::over(Box::new(StreamOwned::new(connection, split)), tcp);
        client.send(&Ask::get(name)).map(|answer| answer.status)
    };
    assert_eq!(ask(&Tls::anyone(), "c.test").unwrap(), 200);
    assert_eq!(ask(&Tls::with_identity(&ca.issue(&["client"])), "a.test").unwrap(), 200);
    assert!(ask(&Tls::anyone(), "a.test").is_err());
    assert!(ask(&Tls::with_identity(&Ca::new().issue(&["client"])), "a.test").is_err());
    assert_eq!(origin.count(), 2);
}

/// T-26 (CVE-2026-25949): eight bytes of another protocol, and then nothing: a silent client has the time of any other.
#[test]
fn a_preamble_of_postgres_has_no_time_of_its_own() {
    let origin = Origin::start();
    let quick = json!({"transport": {"respondingTimeouts": {"readTimeout": "2s"}}});
    let options = json!({"entryPoints": {"web": quick, "websecure": quick}});
    let proxy = Proxy::with(options)
        .start(&format!("{}\n        tls: {{}}\n", everything_to(&origin.url())));
    let start = Instant::now();
    let mut stalled = Vec::new();
    for entry_point in ["web", "websecure"] {
        // SSLRequest and GSSENCRequest, whole and in part, a part of a hello, and a part of a request.
        for bytes in [
            &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
            b"\0\0\0\x08\x04\xd2\x16\x30",
            b"\0\0\0\x08",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"GET / HT",
        ] {
            for _ in 0..10 {
                let mut socket = socket(proxy.address(entry_point)).unwrap();
                socket.write_all(bytes).unwrap();
                stalled.push(socket);
            }
        }
    }
    assert_eq!(proxy.get("/").status, 200);
    for mut socket in stalled {
        // Some are told what was wrong; none is asked to go on with TLS.
        let mut said = Vec::new();
        let ended = socket.read_to_end(&mut said);
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
        assert!(!matches!(said[..], [b'S' | b'N' | b'G', ..]), "{said:?}");
    }
    // Their own time, and that of a loaded machine.
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert_eq!(proxy.get("/").status, 200);
}

/// T-23 (CVE-2025-66491): a switch that is on means on.
#[test]
fn certificates_of_servers_are_verified_unless_it_is_switched_off() {
    let (ca, other) = (Ca::new(), Ca::new());
    let origin = tls_origin(&ca.issue(&["app.test"]));
    let setup = Proxy::with(json!({}));
    let file = |name: &str, ca: &Ca| {
        let file = setup.directory().join(name);
        std::fs::write(&file, ca.pem()).unwrap();
        file.display().to_string()
    };
    let (right, wrong) = (file("right.pem", &ca), file("wrong.pem", &other));
    let mut transports = String::new();
    let mut routers = String::new();
    let mut services = String::new();
    let mut cases = Vec::new();
    for (skip, skips) in
        [("", false), ("insecureSkipVerify: false, ", false), ("insecureSkipVerify: true, ", true)]
    {
        for (authority, believed) in [("", false), (&*right, true), (&*wrong, false)] {
            let at = cases.len();
            let roots = if authority.is_empty() {
                String::new()
            } else {
                format!("rootCAs: ['{authority}'], ")
            };
            let _ = writeln!(transports, "    t{at}: {{{skip}{roots}serverName: app.test}}");
            let _ = writeln!(routers, "    r{at}: {{rule: Path(`/{at}`), service: s{at}}}");
            let servers = format!("servers: [{{url: 'https://{}'}}]", origin.address());
            let _ = writeln!(
                services,
                "    s{at}: {{loadBalancer: {{serversTransport: t{at}, {servers}}}}}"
            );
            cases.push((skips || believed, format!("{skip}{roots}")));
        }
    }
    let proxy = setup.start(&format!(
        "http:\n  routers:\n{routers}  services:\n{services}  serversTransports:\n{transports}"
    ));
    for (at, (passes, options)) in cases.iter().enumerate() {
        let answer = proxy.get(&format!("/{at}"));
        assert_eq!(answer.status, if *passes { 200 } else { 500 }, "{options}");
        assert_eq!(answer.text() == "over TLS", *passes, "{options}");
    }
}

/// V-40 (RUSTSEC-2026-0098): an authority for some names is none for others, of servers and of clients.
#[test]
fn an_authority_keeps_to_its_names() {
    let ca = Ca::of("corp.test");
    let setup = Proxy::with(json!({}));
    let authority = setup.directory().join("ca.pem");
    std::fs::write(&authority, ca.pem()).unwrap();
    let mut routers = String::new();
    let mut services = String::new();
    let mut transports = String::new();
    let cases = [
        (&["app.corp.test"][..], "app.corp.test", 200),
        (&["*.corp.test"][..], "app.corp.test", 200),
        (&["app.other.test"][..], "app.other.test", 500),
        (&["*.other.test"][..], "app.other.test", 500),
        (&["app.corp.test", "*.other.test"][..], "app.other.test", 500),
        (&["*.test"][..], "other.test", 500),
        (&["app.corp.test.evil.test"][..], "app.corp.test.evil.test", 500),
        (&["evilcorp.test"][..], "evilcorp.test", 500),
    ];
    let origins: Vec<_> = cases.iter().map(|(names, ..)| tls_origin(&ca.issue(names))).collect();
    for (at, ((_, name, _), origin)) in cases.iter().zip(&origins).enumerate() {
        let _ = writeln!(
            transports,
            "    t{at}: {{rootCAs: ['{}'], serverName: {name}}}",
            authority.display()
        );
        let _ = writeln!(routers, "    r{at}: {{rule: Path(`/{at}`), service: s{at}}}");
        let servers = format!("servers: [{{url: 'https://{}'}}]", origin.address());
        let _ = writeln!(
            services,
            "    s{at}: {{loadBalancer: {{serversTransport: t{at}, {servers}}}}}"
        );
    }
    let proxy = setup.start(&format!(
        "http:\n  routers:\n{routers}  services:\n{services}  serversTransports:\n{transports}"
    ));
    for (at, (names, name, status)) in cases.iter().enumerate() {
        assert_eq!(proxy.get(&format!("/{at}")).status, *status, "{names:?} for {name}");
    }
    let origin = Origin::start();
    let proxy = guarded(&origin, &ca);
    let ask = |names: &[&str]| {
        let identity = Tls::with_identity(&ca.issue(names));
        let mut secured = identity.connect(proxy.address("websecure"), Some("a.test")).ok()?;
        secured.client.send(&Ask::get("a.test/")).ok().map(|answer| answer.status)
    };
    assert_eq!(ask(&["client.corp.test"]), Some(200));
    for names in
        [&["client.other.test"][..], &["*.other.test"], &["client.corp.test", "x.other.test"]]
    {
        assert_eq!(ask(names), None, "{names:?}");
    }
    assert_eq!(origin.count(), 1);
}

/// T-74 (#13348): of two certificates for one name it is always the same one that is served, in whatever order they are
/// listed and however often they are read.
#[test]
fn a_shared_name_has_one_certificate() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let names = [&["a.test", "b.test"][..], &["a.test", "c.test"], &["a.test"], &["*.test"]];
    let pairs: Vec<_> = names.iter().map(|names| ca.issue(names)).collect();
    let mut entries: Vec<_> = pairs
        .iter()
        .enumerate()
        .map(|(at, pair)| {
            let (cert, key) = pair.write(setup.directory(), &format!("pair{at}"));
            format!("    - {{certFile: {}, keyFile: {}}}\n", cert.display(), key.display())
        })
        .collect();
    let routes = everything_to(&origin.url());
    let routes = routes.trim_start_matches('\n');
    let indent = routes.len() - routes.trim_start().len();
    let routes: Vec<_> =
        routes.lines().map(|line| line.get(indent..).unwrap_or_default()).collect();
    let routes = routes.join("\n") + "\n";
    let text = |entries: &[String], round: usize| {
        let routes =
            routes.replace("PathPrefix(`/`)", &format!("PathPrefix(`/`) || Path(`/{round}`)"));
        format!("{routes}tls:\n  certificates:\n{}", entries.concat())
    };
    let proxy = setup.start(&text(&entries, 0));
    let served = |name: &str| {
        Tls::anyone().connect(proxy.address("websecure"), Some(name)).unwrap().certificate
    };
    let first = served("a.test");
    assert!(pairs[..3].iter().any(|pair| pair.der() == first), "exact names come first");
    for round in 1..=20 {
        entries.rotate_left(1);
        if round % 3 == 0 {
            entries.reverse();
        }
        proxy.reload(&text(&entries, round));
        assert!(served("a.test") == first, "round {round}");
        assert!(served("b.test") == pairs[0].der() && served("d.test") == pairs[3].der());
    }
}
