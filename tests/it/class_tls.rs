//! TLS for who would like less of it: old versions, weak suites, old sessions, early data, wildcards, and other hosts on
//! one connection (G-17, G-19, G-20, G-22, G-23; G-16 is in `tls`).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::binary::Process;
use crate::harness::certs::{Ca, Pair, Tls};
use crate::harness::client::socket;
use crate::harness::{Ask, Origin, Proxy, block_on, http2};

/// Routers by host, each with a `tls` section, in front of one server.
fn config(url: &str, routers: &[(&str, &str)], tls: &str) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for (number, (host, section)) in routers.iter().enumerate() {
        let rule = format!("rule: Host(`{host}`)");
        let _ = writeln!(text, "    r{number}: {{{rule}, service: app, tls: {section}}}");
    }
    let server = format!("{{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}");
    let _ = write!(text, "  services: {{app: {server}}}\n{tls}");
    text
}

/// `tls.certificates` with one entry.
fn certificate(pair: &Pair, directory: &Path, name: &str) -> String {
    let (cert, key) = pair.write(directory, name);
    format!("    - {{certFile: {}, keyFile: {}}}\n", cert.display(), key.display())
}

/// G-17: a browser that uses the connection of `a` for `b`, because the certificate is for both, is sent away where the
/// options of `b` differ, over HTTP/2 too.
#[test]
fn other_hosts_on_a_connection_need_the_same_options() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let both = certificate(&ca.issue(&["a.test", "b.test", "c.test"]), setup.directory(), "both");
    let tls = format!(
        "tls:\n  certificates:\n{both}  options:\n    modern: {{minVersion: VersionTLS13}}\n"
    );
    let routers = [("a.test", "{}"), ("b.test", "{}"), ("c.test", "{options: modern}")];
    let proxy = setup.start(&config(&origin.url(), &routers, &tls));
    let at = proxy.address("websecure");
    block_on(async {
        for (name, statuses) in [("a.test", [200, 200, 421]), ("c.test", [421, 421, 200])] {
            let mut sender = http2::connect_tls(at, name).await;
            // Twice, since the connection goes on.
            for _ in 0..2 {
                for (host, status) in ["a.test", "b.test", "c.test"].into_iter().zip(statuses) {
                    let before = origin.count();
                    let request = http::Request::get(format!("https://{host}/"));
                    let answer = http2::send(&mut sender, request, b"").await;
                    assert_eq!(answer.response.status.as_u16(), status, "{host} at {name}");
                    assert_eq!(origin.count() - before, usize::from(status == 200));
                }
            }
        }
    });
}

/// G-19: a wildcard stands for one label, for certificates and for rules.
#[test]
fn a_wildcard_is_one_label() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let (wild, spare) = (ca.issue(&["*.a.test"]), ca.issue(&["spare.test"]));
    let entry = certificate(&wild, setup.directory(), "wild");
    let (cert, key) = spare.write(setup.directory(), "spare");
    let tls = format!(
        "tls:\n  certificates:\n{entry}  stores:\n    default:\n      defaultCertificate: \
         {{certFile: {}, keyFile: {}}}\n",
        cert.display(),
        key.display()
    );
    let proxy = setup.start(&config(&origin.url(), &[("*.a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    for (name, matches) in [
        ("x.a.test", true),
        ("X.A.TEST", true),
        ("xn--bcher-kva.a.test", true),
        ("a-b.a.test", true),
        ("a.test", false),
        ("x.y.a.test", false),
        ("a.a.a.test", false),
        ("xa.test", false),
        ("x.a.test.evil.test", false),
        ("x.b.test", false),
        ("test", false),
    ] {
        let mut secured = Tls::anyone().connect(at, Some(name)).unwrap();
        let wanted = if matches { &wild } else { &spare };
        assert!(secured.certificate == wanted.der(), "{name}");
        assert_eq!(secured.is_believed(&ca, name), matches, "{name}");
        let status = secured.client.send(&Ask::get(name)).unwrap().status;
        assert_eq!(status, if matches { 200 } else { 404 }, "{name}");
    }
    // What is in the field has one label too, whatever was in the handshake.
    let mut secured = Tls::anyone().connect(at, Some("x.a.test")).unwrap();
    for (host, status) in [("y.a.test", 200), ("x.y.a.test", 404), ("a.test", 404)] {
        assert_eq!(secured.client.send(&Ask::get(host)).unwrap().status, status, "{host}");
    }
}

/// The record of a `ClientHello` of at most this version (RFC 5246, 7.4.1.2), as old as it may be: with suites and
/// compression methods to choose from.
fn hello(version: u16, suites: &[u16], compression: &[u8]) -> Vec<u8> {
    let extensions: Vec<u8> = [
        // server_name: a.test
        &[0, 0, 0, 11, 0, 9, 0, 0, 6][..],
        b"a.test",
        // supported_groups: x25519, secp256r1; ec_point_formats: uncompressed
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ECDSA and RSA with SHA-256
        &[0, 13, 0, 8, 0, 6, 4, 3, 4, 1, 8, 4],
        // renegotiation_info: none before
        &[0xff, 1, 0, 1, 0],
    ]
    .concat();
    let two = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0],
        &two(suites.len()),
        &suites,
        &[u8::try_from(compression.len()).unwrap()],
        compression,
        &two(extensions.len()),
        &extensions,
    ]
    .concat();
    let message = [&[1, 0][..], &two(body.len()), &body].concat();
    [&[0x16, 3, 1][..], &two(message.len()), &message].concat()
}

/// What the server makes of it: version, suite and compression method of its `ServerHello`, or the number of its alert.
fn answered(at: SocketAddr, hello: &[u8]) -> Result<(u16, u16, u8), u8> {
    let mut stream = socket(at).unwrap();
    stream.write_all(hello).unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut record).unwrap();
    let number = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    match head[0] {
        // Level and description; the level is fatal.
        0x15 => {
            assert_eq!(record[0], 2);
            Err(record[1])
        }
        0x16 => {
            assert_eq!(record[0], 2, "a ServerHello");
            let after_session = 39 + usize::from(record[38]);
            Ok((number(4), number(after_session), record[after_session + 2]))
        }
        other => panic!("a record of type {other}"),
    }
}

/// ECDHE with AES-GCM or ChaCha20-Poly1305, for both kinds of keys.
const GOOD: [u16; 6] = [0xc02b, 0xc02c, 0xcca9, 0xc02f, 0xc030, 0xcca8];

/// G-20: TLS 1.2 with authenticated encryption and forward secrecy is the least; no compression, no renegotiation.
#[test]
fn less_than_tls_1_2_is_nothing() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let mut setup = Proxy::with(json!({}));
    let entry = certificate(&ca.issue(&["a.test"]), setup.directory(), "a");
    let tls = format!("tls:\n  certificates:\n{entry}");
    let timeouts = json!({"respondingTimeouts": {"readTimeout": "1s"}});
    setup.set("entryPoints", &json!({"websecure": {"transport": timeouts}}));
    let proxy = setup.start(&config(&origin.url(), &[("a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    // All that was ever given a number and is not reserved, in blocks.
    let ranges = [0x0001..=0x00c5_u16, 0x1301..=0x1305, 0xc001..=0xc0b5, 0xcc13..=0xccae];
    let all: Vec<u16> = ranges.into_iter().flatten().filter(|suite| *suite != 0x00ff).collect();
    let others: Vec<u16> = all.iter().copied().filter(|suite| !GOOD.contains(suite)).collect();
    // SSL 3 to TLS 1.1, with everything that there is to choose from: protocol_version.
    for version in [0x0300, 0x0301, 0x0302] {
        assert_eq!(answered(at, &hello(version, &all, &[0])), Err(70), "{version:x}");
    }
    // The same in TLS 1.2 is an answer, so that it is the version that was refused.
    let (version, suite, compression) = answered(at, &hello(0x0303, &all, &[1, 0])).unwrap();
    assert_eq!((version, compression), (0x0303, 0), "never compressed");
    assert!(GOOD.contains(&suite), "{suite:x}");
    // No other suite is chosen, not even where there is none else: handshake_failure.
    assert_eq!(answered(at, &hello(0x0303, &others, &[0])), Err(40));
    for block in others.chunks(20) {
        assert_eq!(answered(at, &hello(0x0303, block, &[0])), Err(40), "{block:x?}");
    }
    let ecdsa: Vec<u16> = GOOD
        .into_iter()
        .filter(|suite| answered(at, &hello(0x0303, &[*suite], &[0])).is_ok())
        .collect();
    assert_eq!(ecdsa, GOOD[..3], "those for the key of the certificate");
    // Nothing but compression: refused.
    assert!(answered(at, &hello(0x0303, &GOOD, &[1])).is_err());
    // Renegotiation: OpenSSL asks for one, and waits for it in vain.
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-servername", "a.test", "-connect", &at.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    let (_, after) = said.split_once("RENEGOTIATING").unwrap();
    assert!(after.contains("unexpected eof") || after.contains("no renegotiation"), "{said}");
    assert!(!after.contains("verify return"), "no second handshake: {said}");
    assert_eq!(origin.count(), 0);
}

/// One handshake of OpenSSL's, which shows the session of the one before if `resumes`; whether it was taken.
fn handshake(at: SocketAddr, session: &Path, resumes: bool, options: &[&str]) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-servername", "a.test", "-connect", &at.to_string()]);
    command.args(options).arg(if resumes { "-sess_in" } else { "-sess_out" }).arg(session);
    // Only after an answer the tickets of TLS 1.3 have come.
    command.args(["-ign_eof"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    client.stdin.take().unwrap().write_all(request).unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    let (new, reused) = (said.contains("\nNew, "), said.contains("\nReused, "));
    assert!(new != reused, "{said}");
    reused
}

/// G-22: what was encrypted with the last key but one is no session any more, and keys change every six hours.
#[test]
fn tickets_end_when_their_key_does() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let directory = tempfile::TempDir::new().unwrap();
    let entry = certificate(&ca.issue(&["a.test"]), directory.path(), "a");
    let tls = format!("tls:\n  certificates:\n{entry}");
    let text = config(&origin.url(), &[("a.test", "{}")], &tls);
    // The wall clock of the program is ours: seconds since it started, in a file.
    let library = Command::new("faketime").args(["-f", "+0", "env"]).output().unwrap().stdout;
    let library = String::from_utf8(library).unwrap();
    let library = library.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).unwrap();
    let clock = directory.path().join("clock");
    let hours = |hours: u32| {
        let fresh = directory.path().join("fresh");
        fs::write(&fresh, format!("+{}", hours * 3600 + hours)).unwrap();
        fs::rename(&fresh, &clock).unwrap();
    };
    hours(0);
    let environment: [(&str, &OsStr); 4] = [
        ("LD_PRELOAD", library.as_ref()),
        ("FAKETIME_TIMESTAMP_FILE", clock.as_os_str()),
        ("FAKETIME_NO_CACHE", "1".as_ref()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
    ];
    let process = Process::start_in(&environment, &json!({}), &text);
    let at = process.address("websecure");
    let sessions: Vec<_> = ["-tls1_2", "-tls1_3"]
        .map(|version| (version, directory.path().join(version)))
        .into_iter()
        .inspect(|(version, session)| assert!(!handshake(at, session, false, &[version])))
        .collect();
    let resumed = |hour: u32| {
        hours(hour);
        sessions
            .iter()
            .map(|(version, session)| handshake(at, session, true, &[version]))
            .collect::<Vec<_>>()
    };
    assert_eq!(resumed(1), [true, true]);
    assert_eq!(resumed(6), [true, true], "with the key before");
    assert_eq!(resumed(12), [false, false], "with the key before that one");
    // New ones work as before.
    for (version, session) in &sessions {
        assert!(!handshake(at, session, false, &[version]));
        assert!(handshake(at, session, true, &[version]));
    }
}

/// G-23: nothing that comes before the handshake is over is a request.
#[test]
fn early_data_is_not_taken() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let directory = setup.directory().to_owned();
    let entry = certificate(&ca.issue(&["a.test"]), &directory, "a");
    let tls = format!("tls:\n  certificates:\n{entry}");
    let proxy = setup.start(&config(&origin.url(), &[("a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    let session = directory.join("session");
    assert!(!handshake(at, &session, false, &["-tls1_3"]));
    let shown = Command::new("openssl")
        .args(["sess_id", "-noout", "-text", "-in"])
        .arg(&session)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("Max Early Data: 0"), "no ticket offers it: {shown}");
    let early = directory.join("early");
    fs::write(&early, "POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").unwrap();
    // Sent all the same, by a client that believes to have been offered it.
    let config = {
        let mut config = Tls::anyone().config();
        config.enable_early_data = true;
        std::sync::Arc::new(config)
    };
    for round in 0..2 {
        let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
        let mut connection =
            rustls::ClientConnection::new(std::sync::Arc::clone(&config), name).unwrap();
        assert!(connection.early_data().is_none(), "round {round}: a ticket offers it");
        let mut stream = rustls::StreamOwned::new(connection, socket(at).unwrap());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _: std::io::Result<usize> = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let path = early.display().to_string();
    assert!(handshake(at, &session, true, &["-tls1_3", "-early_data", &path]));
    assert!(origin.all().iter().all(|seen| seen.target == "/"), "{:?}", origin.all());
}
