//! The admin API over real sockets: who is let in by what, what of a browser is not, and that no
//! change goes untold.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::binary::{Process, command, run};
use crate::harness::certs::{Ca, Tls};
use crate::harness::{Answer, Ask, Client, Origin, Proxy, until};

const WRITER: &str = "the-token-of-the-one-who-writes";
const READER: &str = "the-token-of-the-one-who-reads";

/// Two routers with a middleware that bans at the first `/bad`.
fn config(origin: &Origin) -> String {
    format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [jail]}}
          middlewares:
            jail: {{ban: {{threshold: 1, conditions: [{{path: ^/bad}}]}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    )
}

fn write_tokens(directory: &Path) -> Value {
    fs::write(directory.join("writer"), format!("{WRITER}\n")).unwrap();
    fs::write(directory.join("reader"), READER).unwrap();
    json!([
        {"name": "ops", "role": "write", "tokenFile": directory.join("writer")},
        {"name": "watch", "tokenFile": directory.join("reader")},
    ])
}

/// A proxy with tokens at a loopback address, and an audit log.
fn with_tokens(origin: &Origin) -> (Proxy, SocketAddr, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let admin = json!({
        "address": "127.0.0.1:0",
        "tokens": write_tokens(files.path()),
        "auditLog": files.path().join("audit.jsonl"),
    });
    let proxy = Proxy::with(json!({"admin": admin})).start(&config(origin));
    let address = proxy.app().admin().unwrap().address().unwrap();
    (proxy, address, files)
}

fn ask(method: &str, path: &str, token: &str) -> Ask {
    let ask = Ask::new(method, &format!("localhost{path}"));
    ask.header("Authorization", &format!("Bearer {token}"))
}

fn with_body(mut ask: Ask, body: &str) -> Ask {
    ask.body = Some(body.as_bytes().to_vec());
    ask.header("Content-Type", "application/json")
}

fn send(to: SocketAddr, ask: &Ask) -> Answer {
    Client::connect(to).unwrap().send(ask).unwrap()
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn audit(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const THERE: &str = "/v1/bans/jail@file/127.0.0.1";

#[test]
fn a_ban_is_shown_ended_and_made_with_a_token() {
    let origin = Origin::start();
    let (proxy, admin, files) = with_tokens(&origin);
    let list = || json_of(&send(admin, &ask("GET", "/v1/bans?middleware=jail%40file", READER)));
    assert_eq!(list(), json!([]));
    proxy.get("/bad");
    assert_eq!(proxy.get("/").status, 403);
    let shown = list();
    assert_eq!(
        (&shown[0]["source"], &shown[0]["offences"], &shown[0]["level"]),
        (&json!("127.0.0.1"), &json!(1), &json!(1))
    );
    assert_eq!(json_of(&send(admin, &ask("GET", THERE, READER))), shown[0]);

    let done = send(admin, &ask("DELETE", THERE, WRITER));
    assert_eq!((done.status, done.body.len()), (204, 0));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(send(admin, &ask("DELETE", THERE, WRITER)).status, 404);

    let order = with_body(ask("PUT", THERE, WRITER), r#"{"duration": "1h", "reason": "told so"}"#);
    let made = json_of(&send(admin, &order));
    assert_eq!(
        (&made["by"], &made["reason"], &made["level"]),
        (&json!("ops"), &json!("told so"), &json!(0))
    );
    assert_eq!(proxy.get("/").status, 403);

    // Two lines for each, also for the one that found nothing to do.
    let lines = audit(files.path());
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["id"].as_u64().unwrap(),
                line["method"].as_str().unwrap(),
                line["status"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "DELETE", None),
            (1, "DELETE", Some(204)),
            (2, "DELETE", None),
            (2, "DELETE", Some(404)),
            (3, "PUT", None),
            (3, "PUT", Some(200)),
        ]
    );
    assert_eq!(
        (&lines[4]["who"], &lines[4]["via"], &lines[4]["path"], &lines[4]["change"]["reason"]),
        (&json!("ops"), &json!("token"), &json!(THERE), &json!("told so"))
    );
    assert!(lines[4]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn roles_and_strangers() {
    let origin = Origin::start();
    let (proxy, admin, files) = with_tokens(&origin);
    let status = |ask: &Ask| send(admin, ask).status;
    assert_eq!(status(&ask("GET", "/v1/", READER)), 200);
    assert_eq!(status(&ask("HEAD", "/v1/bans", READER)), 200);
    for method in ["DELETE", "PUT", "POST", "PATCH"] {
        assert_eq!(status(&ask(method, THERE, READER)), 403, "{method}");
    }
    let lines = audit(files.path());
    assert_eq!(
        (lines.len(), &lines[0]["who"], &lines[0]["status"]),
        (4, &json!("watch"), &json!(403))
    );

    let nobody = send(admin, &Ask::get("localhost/v1/bans"));
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer")));
    for _ in 0..10 {
        assert_eq!(status(&ask("GET", "/v1/bans", "nonsense")), 401);
    }
    let waiting = send(admin, &ask("GET", "/v1/bans", "nonsense"));
    assert_eq!(waiting.status, 429);
    assert!(waiting.header("retry-after").unwrap().parse::<u32>().unwrap() <= 60);
    assert!(proxy.metric("doorward_admin_failed_authentications_total") > 11.5);
    // Who is right is let in, also from there.
    assert_eq!(status(&ask("GET", "/v1/bans", WRITER)), 200);
    assert_eq!(status(&Ask::get("localhost/v1/bans")), 401);
}

/// V-57
#[test]
fn what_a_browser_could_send_is_refused() {
    let origin = Origin::start();
    let (_proxy, admin, _files) = with_tokens(&origin);
    let status = |ask: &Ask| send(admin, ask).status;
    let mut rebound = ask("GET", "/v1/bans", WRITER);
    rebound.host = "evil.test".to_owned();
    assert_eq!(status(&rebound), 421);
    assert_eq!(status(&ask("GET", "/v1/bans", WRITER).header("Origin", "http://localhost")), 403);
    let mut form = ask("PUT", THERE, WRITER);
    form.body = Some(b"{}".to_vec());
    assert_eq!(status(&form), 415);
    assert_eq!(status(&form.header("Content-Type", "text/plain")), 415);
    let options = send(admin, &ask("OPTIONS", "/v1/bans", WRITER));
    assert_eq!((options.status, options.header("access-control-allow-origin")), (405, None));
    let long = ask("PUT", THERE, WRITER).header("Content-Length", "65537");
    assert_eq!(status(&long.header("Content-Type", "application/json")), 413);
    assert!(send(admin, &ask("GET", "/v1/bans", READER)).header("connection") == Some("close"));
}

#[test]
fn what_is_asked_wrongly_is_said_in_json() {
    let origin = Origin::start();
    let (_proxy, admin, _files) = with_tokens(&origin);
    for (method, path, body, want) in [
        ("GET", "/", "", 200),
        ("GET", "/v2/bans", "", 404),
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/v1/bans/jail@file", "", 404),
        ("GET", "/v1/bans?middleware=none", "", 404),
        ("GET", "/v1/bans?middleware=%zz", "", 400),
        ("GET", "/v1/bans/none@file/127.0.0.1", "", 404),
        ("GET", THERE, "", 404),
        ("GET", "/v1/bans/jail@file/nonsense", "", 400),
        ("GET", "/v1/bans/jail@file/%zz", "", 404),
        ("POST", "/v1/", "", 405),
        ("POST", THERE, "", 405),
        ("DELETE", "/v1/bans", "", 405),
        ("PUT", THERE, "", 400),
        ("PUT", THERE, "{", 400),
        ("PUT", THERE, "{}", 200),
        ("PUT", THERE, r#"{"reason": "a", "reason": "b"}"#, 400),
        ("PUT", "/v1/bans/jail@file/1.2.3.0/24", "{}", 400),
        ("PUT", THERE, r#"{"durations": "1h"}"#, 400),
        ("PUT", THERE, r#"{"duration": "-1h"}"#, 400),
        ("PUT", THERE, r#"{"duration": "soon"}"#, 400),
        ("PUT", "/v1/bans/jail@file/2001:db8::/64", "{}", 200),
        ("DELETE", "/v1/bans/jail@file/2001:db8::%2F64", "", 204),
        ("PUT", "/v1/bans/jail@file/2001:db8::7/128", "{}", 200),
        ("DELETE", "/v1/bans/jail@file/2001:db8::/64", "", 204),
        ("PUT", "/v1/bans/jail@file/2001:db8::/48", "{}", 400),
    ] {
        let plain = ask(method, path, WRITER);
        let answer = send(admin, &if body.is_empty() { plain } else { with_body(plain, body) });
        assert_eq!(answer.status, want, "{method} {path} {body}: {}", answer.text());
        if want >= 400 {
            assert!(json_of(&answer)["message"].is_string(), "{method} {path} {body}");
        }
    }
    let listed = json_of(&send(admin, &ask("GET", "/v1/", READER)));
    assert_eq!(listed["resources"][0]["path"], "/v1/bans");
}

#[test]
fn what_the_audit_log_does_not_take_does_not_happen() {
    let origin = Origin::start();
    let (proxy, admin, files) = with_tokens(&origin);
    proxy.get("/bad");
    let log = files.path().join("audit.jsonl");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let refused = send(admin, &ask("DELETE", THERE, WRITER));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(proxy.get("/").status, 403);
    fs::remove_dir(&log).unwrap();
    assert_eq!(send(admin, &ask("DELETE", THERE, WRITER)).status, 204);
    assert_eq!(proxy.get("/").status, 200);
}

/// Asks over a Unix socket; the status and the body.
fn over_unix(path: &Path, head: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    write!(stream, "{head} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn a_ban_is_ended_over_a_socket_of_the_same_user() {
    let origin = Origin::start();
    let files = tempfile::tempdir().unwrap();
    let socket = files.path().join("admin.sock");
    let log = files.path().join("audit.jsonl");
    let proxy =
        Proxy::with(json!({"admin": {"socket": socket, "auditLog": log}})).start(&config(&origin));
    assert_eq!(proxy.app().admin().unwrap().address(), None);
    proxy.get("/bad");
    assert!(over_unix(&socket, "GET /v1/bans").1.contains("\"127.0.0.1\""));
    assert_eq!(over_unix(&socket, &format!("DELETE {THERE}")), (204, String::new()));
    assert_eq!(proxy.get("/").status, 200);
    let line = &audit(files.path())[0];
    let user = format!("uid {}", rustix::process::geteuid().as_raw());
    assert_eq!(
        (&line["who"], &line["via"], &line["from"]),
        (&json!(user), &json!("user"), &json!(user))
    );

    // The same by the program's own command.
    let bans = |words: &[&str]| {
        let flag = format!("--admin.socket={}", socket.display());
        let output = run(&[&["bans", &flag], words].concat());
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (made, line) = bans(&["add", "jail@file", "127.0.0.1", "1h", "told so"]);
    assert!(made && line.starts_with("jail@file  127.0.0.1  ") && line.contains("told so"));
    assert_eq!(proxy.get("/").status, 403);
    assert_eq!(bans(&["list"]), (true, line));
    assert!(bans(&["remove", "jail@file", "127.0.0.1"]).0);
    assert!(!bans(&["remove", "jail@file", "127.0.0.1"]).0);
    assert_eq!(bans(&["list", "jail@file"]), (true, String::new()));
    assert_eq!(proxy.get("/").status, 200);

    // A reason begins as it likes, and a file that is there does not count against a flag.
    let elsewhere = "entryPoints: {web: {address: '127.0.0.1:0'}}\nadmin: {socket: /nowhere/a}\n";
    fs::write(files.path().join("doorward.yml"), elsewhere).unwrap();
    let there = |words: &[&str]| {
        let output = command(files.path()).arg("bans").args(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let name = socket.to_str().unwrap();
    let (made, line) =
        there(&["--admin.socket", name, "add", "jail@file", "192.0.2.1", "1h", "-- odd"]);
    assert!(made && line.contains("reason=\"-- odd\""), "{line}");
    assert!(there(&["list"]).1.contains("/nowhere/a"));
    let configured = json!({"admin": {"socket": socket}}).to_string();
    fs::write(files.path().join("k.json"), configured).unwrap();
    assert_eq!(there(&["--configFile", "k.json", "list"]), (true, line));
    let (done, said) = there(&["--configFile", "k.json", "lift", "jail@file", "192.0.2.1"]);
    assert!(!done && said.starts_with("usage: doorward bans"), "{said}");
    assert!(there(&["list", "--help"]).0);

    let app = proxy.into_app();
    app.cut();
    app.finish();
    until("the socket is gone", || !socket.exists());
}

#[test]
fn a_ban_is_ended_with_a_certificate() {
    let origin = Origin::start();
    let files = tempfile::tempdir().unwrap();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let (cert, key) = ca.issue(&["localhost"]).write(files.path(), "server");
    let admin = json!({
        "address": "127.0.0.1:0",
        "tls": {"certFile": cert, "keyFile": key, "clientCAFiles": [ca.pem()]},
        "clientCertificates": [
            {"name": "ops", "commonName": "ops.test", "role": "write"},
            {"name": "watch", "san": "watch.test"},
        ],
    });
    let proxy = Proxy::with(json!({"admin": admin})).start(&config(&origin));
    let admin = proxy.app().admin().unwrap().address().unwrap();
    proxy.get("/bad");
    let status = |identity: &[&str], method: &str| {
        let tls = Tls::with_identity(&ca.issue(identity));
        let mut secured = tls.connect(admin, Some("localhost")).unwrap();
        let place = format!("localhost{THERE}");
        secured.client.send(&Ask::new(method, &place)).unwrap().status
    };
    assert_eq!(status(&["watch.test"], "GET"), 200);
    assert_eq!(status(&["x.test", "watch.test"], "DELETE"), 403);
    assert_eq!(status(&["unknown.test"], "GET"), 401);
    assert_eq!(status(&["ops.test"], "DELETE"), 204);
    assert_eq!(proxy.get("/").status, 200);
    for tls in [Tls::anyone(), Tls::with_identity(&stranger.issue(&["ops.test"]))] {
        // TLS 1.3 says it only to who goes on.
        let answer = tls
            .connect(admin, Some("localhost"))
            .and_then(|mut secured| secured.client.send(&Ask::get("localhost/v1/bans")));
        assert!(answer.is_err());
    }
}

#[test]
fn tokens_are_read_again_and_shown_nowhere() {
    let origin = Origin::start();
    let files = tempfile::tempdir().unwrap();
    let admin = json!({"address": "127.0.0.1:0", "tokens": write_tokens(files.path())});
    let process = Process::start(&json!({"admin": admin}), &config(&origin));
    let find = || {
        process.log().lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let found = line["message"] == "the admin API listens";
            line["address"].as_str().filter(|_| found)?.parse::<SocketAddr>().ok()
        })
    };
    until("the admin API listens", || find().is_some());
    let address = find().unwrap();
    let status = |token: &str| send(address, &ask("GET", "/v1/bans", token)).status;
    assert_eq!(status(READER), 200);
    fs::write(files.path().join("reader"), "another-token-for-reading").unwrap();
    fs::remove_file(files.path().join("writer")).unwrap();
    process.signal(Signal::HUP);
    // Not by asking: who fails too often has to wait.
    until("the tokens are read", || process.log().contains("were read again"));
    assert_eq!(status("another-token-for-reading"), 200);
    assert_eq!((status(READER), status(WRITER)), (401, 401));
    assert_eq!(send(address, &ask("DELETE", THERE, "another-token-for-reading")).status, 403);
    until("the audit line is in the log", || process.log().contains("\"message\":\"admin\""));
    let log = process.log();
    for token in [READER, WRITER, "another-token-for-reading"] {
        assert!(!log.contains(token));
    }
}

#[test]
fn a_section_that_lets_anybody_in_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("static.yml");
    for (admin, message) in [
        ("{address: '127.0.0.1:0'}", "anybody could connect"),
        ("{address: '0.0.0.0:0', tokens: [{name: a, tokenFile: t}]}", "`admin.tls` is required"),
        ("{}", "`address` or `socket` is required"),
        ("{socket: relative}", "absolute path"),
        ("{socket: /x, tokens: [{name: a, tokenHash: abc}]}", "64 hexadecimal digits"),
    ] {
        let text = format!("entryPoints:\n  web: {{address: '127.0.0.1:0'}}\nadmin: {admin}\n");
        fs::write(&file, text).unwrap();
        let checked = run(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(!checked.status.success() && said.contains(message), "{admin}: {said}");
        let started = run(&[&format!("--configFile={}", file.display())]);
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(!started.status.success() && said.contains(message), "{admin}: {said}");
    }
    let text = "entryPoints:\n  web: {address: '127.0.0.1:0'}\n\
                admin: {address: '127.0.0.1:0', tokens: [{name: a, tokenFile: /does/not/exist}]}\n";
    fs::write(&file, text).unwrap();
    let started = run(&[&format!("--configFile={}", file.display())]);
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("the token `a` cannot be read"), "{said}");
}
