//! Attacks that would cost the proxy more than the attacker: memory and time of a real process, as `/proc` tells them.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::Process;
use crate::harness::certs::Tls;
use crate::harness::client::socket;
use crate::harness::{Ask, Client, DEADLINE, Origin, everything_to, through};
use crate::system::{computing, memory};

fn get(process: &Process, place: &str) -> u16 {
    Client::connect(process.address("web")).unwrap().send(&Ask::get(place)).unwrap().status
}

/// T-28 (CVE-2026-26998): an answer of the authentication server that never ends is no yes, and is not kept.
#[test]
fn an_endless_word_of_the_authentication_server_is_a_no() {
    let sent = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start();
    for head in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let count = Arc::clone(&sent);
        let auth = Origin::raw(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes());
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            // 1 GiB, if anybody takes it.
            for _ in 0..65_536 {
                if stream.write_all(&chunk).is_err() {
                    return;
                }
                count.fetch_add(chunk.len(), Ordering::AcqRel);
            }
        });
        let middleware = format!("forwardAuth: {{address: '{}'}}", auth.url());
        // A refusal goes to the client as a whole, and so is kept; how long it may be is the profile's word.
        let profile = if head.contains("401") { "hardened" } else { "safe" };
        let options = json!({"core": {"profile": profile}});
        let process = Process::start(&options, &through(&origin.url(), &middleware));
        let before = memory(&process);
        let start = Instant::now();
        for _ in 0..5 {
            let status = get(&process, "/");
            assert!(matches!(status, 401 | 500..=599), "{head}: {status}");
        }
        assert!(start.elapsed() < DEADLINE, "{head}: {:?}", start.elapsed());
        let grown = memory(&process).saturating_sub(before);
        assert!(grown < 16 * 1024, "{head}: {grown} KiB");
    }
    let sent = sent.load(Ordering::Acquire);
    assert!(sent < 256 << 20, "{sent} bytes were taken");
    assert_eq!(origin.count(), 0);
}

/// T-28: how long an answer may be is Doorward's own word: under `exact` any length is, as it is in Traefik.
#[test]
fn a_long_word_of_the_authentication_server_counts_under_exact_only() {
    const LENGTH: usize = 17 << 20;
    let origin = Origin::start();
    for (profile, status, answer) in [
        ("exact", "200 OK", (200, 0)),
        ("exact", "403 No", (403, LENGTH)),
        ("safe", "200 OK", (401, 0)),
        ("safe", "403 No", (401, 0)),
    ] {
        let auth = Origin::raw(move |mut stream, _| {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {LENGTH}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&vec![b'x'; LENGTH]);
        });
        let middleware = format!("forwardAuth: {{address: '{}'}}", auth.url());
        let options = json!({"core": {"profile": profile}});
        let process = Process::start(&options, &through(&origin.url(), &middleware));
        let mut client = Client::connect(process.address("web")).unwrap();
        let got = client.send(&Ask::get("/")).unwrap();
        let length = if got.status == 200 { 0 } else { got.body.len() };
        assert_eq!((got.status, length), answer, "{profile}: {status}");
    }
    assert_eq!(origin.count(), 1, "the one that was let through");
}

/// T-05 (CVE-2023-29013): many tiny fields cost no more than they are bytes.
#[test]
fn tiny_fields_are_not_dearer_than_their_bytes() {
    let origin = Origin::start();
    let process = Process::start(&json!({}), &everything_to(&origin.url()));
    assert_eq!(get(&process, "/"), 200);
    let before = (memory(&process), computing(&process));
    let fields = "a:\r\n".repeat(256 << 10);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut client = Client::connect(process.address("web")).unwrap();
                let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n";
                let sent =
                    client.write_raw(head).and_then(|()| client.write_raw(fields.as_bytes()));
                let sent = sent.and_then(|()| client.write_raw(b"\r\n"));
                match client.read("GET") {
                    Ok(answer) => {
                        assert_eq!(answer.status, 431);
                        refused.fetch_add(1, Ordering::AcqRel);
                    }
                    // The refusal came while they were still being sent, and was lost to a reset.
                    Err(error) => {
                        assert!(sent.is_err() || error.kind() != std::io::ErrorKind::WouldBlock);
                    }
                }
            });
        }
    });
    assert!(refused.load(Ordering::Acquire) > 0, "some have seen the refusal");
    let grown = memory(&process).saturating_sub(before.0);
    // As many bytes as were offered.
    assert!(grown < 50 << 10, "{grown} KiB");
    let spent = computing(&process).saturating_sub(before.1);
    assert!(spent < Duration::from_secs(10), "{spent:?}");
    assert_eq!((get(&process, "/"), origin.count()), (200, 2));
}

/// T-12 (CVE-2024-24788): names that point at themselves, and answers that break off, are no answers.
#[test]
fn answers_of_a_name_server_that_go_round_are_no_answers() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let at = count.fetch_add(1, Ordering::AcqRel);
            let mut reply = buffer[..length].to_vec();
            reply[2] = 0x81;
            reply[3] = 0x80;
            reply[7] = 1;
            let here = u8::try_from(length).unwrap();
            let record = [0, 5, 0, 1, 0, 0, 0, 60];
            // The owner is itself, the target is itself, two names are each other's rest, the target is the question.
            let data: Vec<u8> = match at % 6 {
                0 => [&[0xc0, here], &record[..], &[0, 2, 0xc0, 12]].concat(),
                1 => [&[0xc0, 12], &record[..], &[0, 2, 0xc0, here + 12]].concat(),
                2 => [&[0xc0, 12], &record[..], &[0, 4, 0xc0, here + 14, 0xc0, here + 12]].concat(),
                3 => [&[0xc0, 12], &record[..], &[0, 2, 0xc0, 12]].concat(),
                4 => [&[0xc0, 12], &record[..], &[0xff, 0xff, 1, b'a']].concat(),
                _ => {
                    reply[6..8].copy_from_slice(&[0xff, 0xff]);
                    [&[0xc0, 12], &record[..], &[0, 4, 1, b'a', 0xc0, here + 12]].concat()
                }
            };
            reply.extend(data);
            let _ = server.send_to(&reply, from);
        }
    });
    let origin = Origin::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver [{}]:{}\n", address.ip(), address.port())).unwrap();
    let options = json!({"hostResolver": {"cnameFlattening": true, "resolvConfig": file}});
    let text = everything_to(&origin.url()).replace("PathPrefix(`/`)", "Host(`lb.test`)");
    let process = Process::start(&options, &text);
    let before = computing(&process);
    let start = Instant::now();
    for n in 0..12 {
        assert_eq!(get(&process, &format!("loop{n}.test/")), 404);
    }
    assert_eq!(get(&process, "lb.test/"), 200);
    assert!(asked.load(Ordering::Acquire) >= 12, "somebody was asked");
    assert!(start.elapsed() < DEADLINE * 2, "{:?}", start.elapsed());
    let spent = computing(&process).saturating_sub(before);
    assert!(spent < Duration::from_secs(2), "{spent:?}");
}

/// V-37 (CVE-2024-32650): who says goodbye in the middle of a handshake is let go, and costs nothing afterwards.
#[test]
fn a_goodbye_in_a_handshake_is_the_end_of_it() {
    let origin = Origin::start();
    let text = format!("{}\n        tls: {{}}\n", everything_to(&origin.url()));
    let process = Process::start(&json!({}), &text);
    let at = process.address("websecure");
    let mut sockets = Vec::new();
    for whole in [true, false] {
        for _ in 0..25 {
            let server = ServerName::try_from("a.test").unwrap();
            let config = Tls::anyone().config();
            let mut hello = Vec::new();
            let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
            client.write_tls(&mut hello).unwrap();
            let mut socket = socket(at).unwrap();
            let hello = if whole { &hello[..] } else { &hello[..0] };
            // A warning (1): close_notify (0).
            socket.write_all(&[hello, &[21, 3, 3, 0, 2, 1, 0]].concat()).unwrap();
            sockets.push(socket);
        }
    }
    let start = Instant::now();
    for socket in &mut sockets {
        let ended = socket.read_to_end(&mut Vec::new());
        assert!(
            ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let (start, before) = (Instant::now(), computing(&process));
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(get(&process, "/"), 200);
        thread::park_timeout(Duration::from_millis(50));
    }
    let spent = computing(&process).saturating_sub(before);
    assert!(spent < Duration::from_millis(700), "{spent:?} in one second");
}
