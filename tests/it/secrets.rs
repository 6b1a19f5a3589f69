//! Secrets that pass through are seen nowhere else: not in the API, the metrics or the logs, not
//! even at level debug.

use std::fs;

use serde_json::json;

use crate::harness::binary::{Process, run};
use crate::harness::certs::Ca;
use crate::harness::{Ask, Client, Origin, Proxy, until};

const MARKS: [&str; 6] = [
    "markOfTheHash",
    "markOfTheHeader",
    "markOfTheCookie",
    "markOfTheServer",
    "markOfTheToken",
    "markOfTheConfiguration",
];

#[test]
fn no_secret_is_shown() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            guarded:
              rule: PathPrefix(`/guarded`)
              service: app
              middlewares: [guard]
            digested:
              rule: PathPrefix(`/digested`)
              service: app
              middlewares: [digest]
            asked:
              rule: PathPrefix(`/asked`)
              service: app
              middlewares: [ask]
            broken:
              rule: PathPrefix(`/broken`)
              service: app
              middlewares: [wrong, unwritable, undigestible, unasked]
            open:
              rule: PathPrefix(`/`)
              service: app
              middlewares: [key]
          middlewares:
            guard:
              basicAuth:
                users:
                  - 'user:$apr1$salt$markOfTheHash'
            digest:
              digestAuth:
                users:
                  - 'user:traefik:markOfTheHash'
            undigestible:
              digestAuth:
                users:
                  - 'markOfTheHash'
            ask:
              forwardAuth:
                address: http://user:markOfTheServer@127.0.0.1:1
            unasked:
              forwardAuth:
                address: user:markOfTheServer@127.0.0.1
            wrong:
              basicAuth:
                users:
                  - 'markOfTheHash'
            key:
              headers:
                customRequestHeaders:
                  X-Api-Key: markOfTheConfiguration
            unwritable:
              headers:
                customRequestHeaders:
                  Authorization: \"markOfTheConfiguration\\n\"
          services:
            app:
              loadBalancer:
                servers:
                  - url: http://user:markOfTheServer@{}
            probed:
              loadBalancer:
                healthCheck:
                  path: /
                  headers:
                    Authorization: Bearer markOfTheConfiguration
                servers:
                  - url: http://127.0.0.1:1
        ",
        origin.address()
    );
    let process = Process::start(&json!({"accessLog": {"filePath": "access.log"}}), &text);
    let access = process.directory().join("access.log");
    let paths = [
        "/",
        "/guarded",
        "/digested",
        "/asked",
        "/broken",
        "/?access_token=x",
        "/%zz",
        "/a/../guarded",
        "/\u{7f}",
    ];
    for path in paths {
        let ask = Ask::get(path)
            .header("Authorization", "Basic markOfTheHeader")
            .header("Proxy-Authorization", "Basic markOfTheHeader")
            .header("Cookie", "session_id=markOfTheCookie")
            .header("X-Api-Key", "markOfTheToken");
        // Some of them are refused before they are answered.
        let _ = Client::connect(process.address("web")).unwrap().send(&ask);
    }
    until("the access log has lines", || {
        fs::read_to_string(&access).unwrap_or_default().lines().count() >= 5
    });
    let mut shown = vec![("the log".to_owned(), process.log())];
    shown.push(("the access log".to_owned(), fs::read_to_string(&access).unwrap()));
    for path in [
        "/api/rawdata",
        "/api/overview",
        "/api/http/routers",
        "/api/http/middlewares",
        "/api/http/middlewares/guard@file",
        "/api/http/middlewares/wrong@file",
        "/api/http/middlewares/digest@file",
        "/api/http/middlewares/undigestible@file",
        "/api/http/middlewares/ask@file",
        "/api/http/middlewares/unasked@file",
        "/api/http/middlewares/key@file",
        "/api/http/middlewares/unwritable@file",
        "/api/http/services",
        "/api/http/services/app@file",
        "/api/http/services/probed@file",
        "/api/entrypoints",
        "/metrics",
        "/ready",
    ] {
        let mut client = Client::connect(process.address("traefik")).unwrap();
        let answer = client.send(&Ask::get(path)).unwrap();
        assert!(!answer.body.is_empty(), "{path}");
        shown.push((path.to_owned(), answer.text()));
    }
    assert!(process.log().contains("configuration applied"), "the log is there");
    for (place, text) in &shown {
        for mark in MARKS {
            assert!(!text.contains(mark), "{mark} stands in {place}:\n{text}");
        }
    }
    let asked = origin.last();
    assert_eq!(asked.header("cookie"), Some("session_id=markOfTheCookie"));
    assert_eq!(asked.header("x-api-key"), Some("markOfTheConfiguration"));
}

/// Traefik shows the headers that are configured.
#[test]
fn under_exact_configured_headers_are_shown() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            open: {{rule: PathPrefix(`/`), service: app, middlewares: [key]}}
          middlewares:
            key: {{headers: {{customRequestHeaders: {{X-Api-Key: shown}}}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    let proxy = Proxy::with(json!({"core": {"profile": "exact"}})).start(&text);
    let key = proxy.api("/api/http/middlewares/key@file");
    assert_eq!(key["headers"]["customRequestHeaders"]["X-Api-Key"], "shown");
}

/// A key whose line breaks became blanks, as YAML's `>-` and variables of an environment make them.
#[test]
fn a_key_on_one_line_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = Ca::new().issue(&["localhost"]).write(directory.path(), "server");
    let cert = cert.display();
    let line = fs::read_to_string(key).unwrap().replace('\n', " ");
    let text = format!(
        "
        http:
          routers:
            a: {{rule: PathPrefix(`/`), service: app, middlewares: [ask]}}
            b: {{rule: PathPrefix(`/b`), service: app, middlewares: [count]}}
          middlewares:
            ask: {{forwardAuth: {{address: 'http://127.0.0.1:1', tls: {{cert: {cert}, key: '{line}'}}}}}}
            count:
              rateLimit:
                average: 1
                redis: {{endpoints: ['127.0.0.1:1'], tls: {{cert: {cert}, key: '{line}'}}}}
          serversTransports:
            shown: {{certificates: [{{certFile: {cert}, keyFile: '{line}'}}]}}
          services:
            app: {{loadBalancer: {{serversTransport: shown, servers: [{{url: 'http://127.0.0.1:1'}}]}}}}
        tls:
          certificates: [{{certFile: {cert}, keyFile: '{line}'}}]
          options:
            mutual: {{clientAuth: {{caFiles: ['{line}']}}}}
        "
    );
    let process = Process::start(&json!({}), &text);
    let mut shown = Vec::new();
    for path in ["/api/rawdata", "/api/http/middlewares", "/api/http/routers", "/api/overview"] {
        let mut client = Client::connect(process.address("traefik")).unwrap();
        shown.push((path, client.send(&Ask::get(path)).unwrap().text()));
    }
    let file = directory.path().join("dynamic.yml");
    fs::write(&file, &text).unwrap();
    for command in [
        &["check", file.to_str().unwrap()][..],
        &["check", "--format=json", file.to_str().unwrap()],
    ] {
        let output = run(command);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("are its line breaks lost?"), "{said}");
        shown.push(("check", said));
    }
    until("the log tells of it", || process.log().contains("are its line breaks lost?"));
    shown.push(("the log", process.log()));
    let file = directory.path().join("static.yml");
    let admin = json!({
        "entryPoints": {"web": {"address": "127.0.0.1:0"}},
        "admin": {
            "address": "127.0.0.1:0",
            "tls": {"certFile": cert.to_string(), "keyFile": line},
            "tokens": [{"name": "a", "tokenHash": "0".repeat(64)}],
        },
    });
    fs::write(&file, admin.to_string()).unwrap();
    let started = run(&[&format!("--configFile={}", file.display())]);
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(said.contains("are its line breaks lost?"), "{said}");
    shown.push(("the start", said));
    let secret = line.split(' ').find(|word| word.len() > 40).unwrap();
    let bytes: Vec<_> = secret.bytes().take(8).map(|byte| byte.to_string()).collect();
    for (place, text) in &shown {
        for mark in [&secret[..20], &bytes.join(", "), &bytes.join(",")] {
            assert!(!text.contains(mark), "{mark} stands in {place}:\n{text}");
        }
    }
}
