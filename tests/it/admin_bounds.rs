//! The admin API and who wants to be in its way: silent connections, requests that can be read in
//! two ways, an audit log that is none, and files that are not there.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::binary::run;
use crate::harness::certs::Ca;
use crate::harness::{Proxy, everything_to, until};

const TOKEN: &str = "the-token-of-the-one-who-writes";

fn started() -> (Proxy, SocketAddr, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("token"), TOKEN).unwrap();
    let admin = json!({
        "address": "127.0.0.1:0",
        "tokens": [{"name": "ops", "role": "write", "tokenFile": files.path().join("token")}],
    });
    let proxy = Proxy::with(json!({"admin": admin})).start(&everything_to("http://127.0.0.1:1"));
    let address = proxy.app().admin().unwrap().address().unwrap();
    (proxy, address, files)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes until the end; nothing, if the connection is cut.
fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => text,
        Err(error) => panic!("{error}"),
    }
}

fn asked(to: SocketAddr, head: &str) -> String {
    let mut stream = connect(to);
    let host = "Host: localhost\r\nAuthorization: Bearer";
    // It may be cut before all is written.
    let _ = write!(stream, "{head}\r\n{host} {TOKEN}\r\n\r\n");
    rest(&stream)
}

#[test]
fn silence_holds_few_places_and_not_for_long() {
    let (_proxy, admin, _files) = started();
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(admin)).collect();
    assert_eq!(rest(&connect(admin)), "");
    assert_eq!(asked(admin, "GET /v1/bans HTTP/1.1"), "");
    for stream in &silent {
        assert_eq!(rest(stream), "");
    }
    assert!(began.elapsed() > Duration::from_secs(2) && began.elapsed() < Duration::from_secs(9));
    until("there is room again", || {
        asked(admin, "GET /v1/bans HTTP/1.1").starts_with("HTTP/1.1 200")
    });
}

#[test]
fn a_stop_does_not_wait_for_who_says_nothing() {
    let (proxy, admin, _files) = started();
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(admin)).collect();
    let began = Instant::now();
    let app = proxy.into_app();
    app.cut();
    app.finish();
    for stream in &silent {
        assert_eq!(rest(stream), "");
    }
    assert!(began.elapsed() < Duration::from_millis(2900), "{:?}", began.elapsed());
}

#[test]
fn a_body_has_one_length() {
    let (_proxy, admin, _files) = started();
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let head = format!("PUT /v1/bans/a@file/::1 HTTP/1.1\r\n{fields}");
        let answer = asked(admin, &head);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("not both"), "{answer}");
    }
}

#[test]
fn an_audit_log_is_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = directory.path().join("static.yml");
    let socket = directory.path().join("admin.sock");
    for log in [pipe.to_str().unwrap(), "/dev/null"] {
        let text = format!(
            "entryPoints:\n  web: {{address: '127.0.0.1:0'}}\nadmin:\n  socket: {}\n  auditLog: {log}\n",
            socket.display()
        );
        fs::write(&file, text).unwrap();
        let place = format!("{}:5", file.display());
        let checked = run(&["check", file.to_str().unwrap()]);
        let started = run(&[&format!("--configFile={}", file.display())]);
        for output in [checked, started] {
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!output.status.success(), "{said}");
            assert!(said.contains("it is no regular file") && said.contains(&place), "{said}");
        }
    }
}

#[test]
fn check_looks_at_the_files_of_the_section() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = Ca::new().issue(&["localhost"]).write(directory.path(), "server");
    let line = directory.path().join("line.key");
    fs::write(&line, fs::read_to_string(&key).unwrap().replace('\n', " ")).unwrap();
    fs::write(directory.path().join("short"), "short").unwrap();
    let file = directory.path().join("static.yml");
    let write = |key: &std::path::Path, more: &str| {
        let text = format!(
            "entryPoints:\n  web: {{address: '127.0.0.1:0'}}\nadmin:\n  address: 127.0.0.1:0\n  \
             tls:\n    certFile: {}\n    keyFile: {}\n{more}",
            cert.display(),
            key.display(),
        );
        fs::write(&file, text).unwrap();
        let output = run(&["check", file.to_str().unwrap()]);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let tokens = format!(
        "  tokens:\n    - {{name: a, tokenFile: /does/not/exist}}\n    \
         - {{name: b, tokenFile: {}}}\n  auditLog: /does/not/exist/a\n",
        directory.path().join("short").display()
    );
    let (good, said) = write(&line, &tokens);
    assert!(!good, "{said}");
    for (row, message) in [
        (7, "are its line breaks lost?"),
        (9, "the token `a` cannot be read"),
        (10, "has not 16 to 4096 characters"),
        (11, "there is no directory `/does/not/exist`"),
    ] {
        assert!(said.contains(message), "{message}: {said}");
        assert!(said.contains(&format!("{}:{row}", file.display())), "{row}: {said}");
    }
    fs::write(directory.path().join("short"), TOKEN).unwrap();
    let token = directory.path().join("short");
    let tokens = format!("  tokens: [{{name: b, tokenFile: {}}}]\n", token.display());
    let (good, said) = write(&key, &tokens);
    assert!(good && said.contains("0 errors"), "{said}");
}
