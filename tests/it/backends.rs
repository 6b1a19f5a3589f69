//! The connections to backends: through proxies, kept for one client, asked whether they live
//! (RP 6.2, SIG-11).

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::binary::{self, Process};
use crate::harness::certs::{Ca, Pair};
use crate::harness::forward::{Forward, acceptor};
use crate::harness::{
    Ask, Client, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until,
};

/// The program with these variables, in front of this server.
fn behind(variables: &[(&str, &str)], dynamic: &str) -> Process {
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| (*name, OsStr::new(*value))).collect();
    Process::start_in(&variables, &json!({}), dynamic)
}

fn get(process: &Process, path: &str) -> (u16, String) {
    let answer = Client::connect(process.address("web")).unwrap().send(&Ask::get(path)).unwrap();
    (answer.status, answer.text())
}

/// A server behind TLS that answers with the version of HTTP.
fn tls_origin(identity: &Pair, protocols: &[&str]) -> Origin {
    let acceptor = acceptor(identity, protocols);
    Origin::raw(move |stream, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let version = Bytes::from(format!("{:?}", request.version()));
                Ok::<_, Infallible>(Response::new(Full::new(version)))
            });
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    })
}

/// One server, whose certificate this authority has to have issued.
fn securely_to(url: &str, ca: &Ca) -> String {
    format!(
        "
        http:
          routers:
            all: {{rule: 'PathPrefix(`/`)', service: app}}
          services:
            app: {{loadBalancer: {{serversTransport: own, servers: [{{url: '{url}'}}]}}}}
          serversTransports:
            own: {{rootCAs: [{}]}}
        ",
        json!(ca.pem())
    )
}

/// RP-6.2, SIG-11: the proxy is told the server of the configuration, in every place where it may look.
#[test]
fn http_servers_are_asked_for_at_the_proxy() {
    let origin = Origin::start();
    let proxy = Forward::http(&[("backend.test:8069", origin.address())]);
    let url = format!("http://us%40er:secret@{}", proxy.authority());
    let process = behind(&[("HTTP_PROXY", &url)], &everything_to("http://backend.test:8069"));
    let mut client = Client::connect(process.address("web")).unwrap();
    let ask = Ask::get("/x?y=1").header("Proxy-Authorization", "Basic bWluZTptaW5l");
    assert_eq!(client.send(&ask).unwrap().origin(), "origin");
    let head = proxy.heads().remove(0);
    assert!(head.starts_with("GET http://backend.test:8069/x?y=1 HTTP/1.1\r\n"), "{head}");
    // `us@er:secret`
    assert!(head.contains("\r\nProxy-Authorization: Basic dXNAZXI6c2VjcmV0\r\n"), "{head}");
    assert!(!head.contains("bWluZTptaW5l"), "{head}");
    assert!(head.contains("\r\nHost: backend.test:8069\r\n"), "{head}");
    assert_eq!(origin.last().header("x-forwarded-host"), Some("app.test"));
    assert_eq!(origin.last().target, "/x?y=1");
    let log = process.log();
    assert!(log.contains("the environment has proxies") && log.contains("NO_PROXY"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

/// RP-6.2: the connection to a proxy is kept like any other.
#[test]
fn connections_to_a_proxy_are_used_again() {
    let origin = Origin::start();
    let proxy =
        Forward::http(&[("backend.test:80", origin.address()), ("backend.test", origin.address())]);
    let process =
        behind(&[("http_proxy", &proxy.authority())], &everything_to("http://backend.test"));
    let mut client = Client::connect(process.address("web")).unwrap();
    for _ in 0..3 {
        assert_eq!(client.send(&Ask::post("/", "body")).unwrap().text(), "body");
    }
    assert_eq!((proxy.connections(), origin.connections(), origin.count()), (1, 1, 3));
}

/// RP-6.2
#[test]
fn https_servers_are_reached_through_a_tunnel() {
    let ca = Ca::new();
    let origin = tls_origin(&ca.issue(&["backend.test"]), &["h2", "http/1.1"]);
    let proxy = Forward::http(&[("backend.test:443", origin.address())]);
    let dynamic = securely_to("https://backend.test", &ca);
    let process = behind(&[("HTTPS_PROXY", &proxy.authority())], &dynamic);
    assert_eq!(get(&process, "/"), (200, "HTTP/2.0".to_owned()));
    let head = proxy.heads().remove(0);
    assert_eq!(head, "CONNECT backend.test:443 HTTP/1.1\r\nHost: backend.test:443\r\n\r\n");
}

/// RP-6.2: TLS to the server runs inside TLS to the proxy, whose certificate counts too.
#[test]
fn a_proxy_may_stand_behind_tls() {
    let ca = Ca::new();
    let (plain, secure) = (Origin::start(), tls_origin(&ca.issue(&["backend.test"]), &[]));
    let servers = [("backend.test:443", secure.address()), ("backend.test:81", plain.address())];
    let proxy = Forward::https(&ca.issue(&["127.0.0.1"]), &servers);
    let url = format!("https://{}", proxy.authority());
    let variables = [("HTTPS_PROXY", &*url), ("HTTP_PROXY", &*url)];
    let process = behind(&variables, &securely_to("https://backend.test", &ca));
    assert_eq!(get(&process, "/"), (200, "HTTP/1.1".to_owned()));
    let process = behind(&variables, &securely_to("http://backend.test:81", &ca));
    assert_eq!(get(&process, "/"), (200, "origin".to_owned()));
    let stranger = Forward::https(&Ca::new().issue(&["127.0.0.1"]), &servers);
    let url = format!("https://{}", stranger.authority());
    let dynamic = securely_to("https://backend.test", &ca);
    assert_eq!(get(&behind(&[("HTTPS_PROXY", &url)], &dynamic), "/").0, 500);
    assert!(stranger.heads().is_empty());
}

/// HTTP/2 in clear text goes through a tunnel: a proxy between would have to speak it.
#[test]
fn h2c_servers_are_reached_through_a_tunnel() {
    let origin = http2::grpc_origin();
    let proxy = Forward::http(&[("backend.test:50051", origin.address())]);
    let dynamic = everything_to("h2c://backend.test:50051");
    let process = behind(&[("HTTP_PROXY", &proxy.authority())], &dynamic);
    let received = block_on(async {
        let mut sender = http2::connect(process.address("web")).await;
        let request = Request::post("http://app.test/pkg.Service/Call");
        http2::send(&mut sender, request, b"message").await
    });
    assert_eq!((&received.body[..], received.trailers.is_some()), (&b"message"[..], true));
    assert!(proxy.heads()[0].starts_with("CONNECT backend.test:50051 "));
}

/// RP-6.2: `socks5` in the variable, which Go's client knows too.
#[test]
fn a_proxy_may_speak_socks() {
    let origin = Origin::start();
    let proxy = Forward::socks(&[("backend.test:8069", origin.address())]);
    let url = format!("socks5://{}", proxy.authority());
    let process = behind(&[("HTTP_PROXY", &url)], &everything_to("http://backend.test:8069"));
    assert_eq!(get(&process, "/x"), (200, "origin".to_owned()));
    assert_eq!(proxy.heads(), ["backend.test:8069"]);
    assert_eq!(origin.last().target, "/x");
}

/// RP-6.2
#[test]
fn upgrades_go_through_the_proxy() {
    let origin = Origin::with(|_| {
        Reply::raw("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
    });
    let proxy = Forward::http(&[("backend.test:8072", origin.address())]);
    let dynamic = everything_to("http://backend.test:8072");
    let process = behind(&[("HTTP_PROXY", &proxy.authority())], &dynamic);
    let mut client = Client::connect(process.address("web")).unwrap();
    let ask = Ask::get("/websocket").header("Connection", "Upgrade").header("Upgrade", "websocket");
    assert_eq!(client.send(&ask).unwrap().status, 101);
    assert_eq!(client.read_exact(5).unwrap(), b"hello");
    let head = proxy.heads().remove(0);
    assert!(head.starts_with("GET http://backend.test:8072/websocket "), "{head}");
    assert_eq!(origin.last().header("upgrade"), Some("websocket"));
}

/// RP-5.5: health checks go the way of requests.
#[test]
fn health_checks_go_through_the_proxy() {
    let origin = Origin::start();
    let proxy = Forward::http(&[("backend.test:8069", origin.address())]);
    let dynamic = "
        http:
          routers:
            all: {rule: 'PathPrefix(`/`)', service: app}
          services:
            app:
              loadBalancer:
                healthCheck: {path: /healthy, interval: 20ms, timeout: 5s}
                servers: [{url: 'http://backend.test:8069'}]
        ";
    let process = behind(&[("HTTP_PROXY", &proxy.authority())], dynamic);
    let probe = "GET http://backend.test:8069/healthy ";
    until("a probe goes through the proxy", || {
        proxy.heads().iter().any(|head| head.starts_with(probe))
    });
    until("the server is asked", || origin.all().iter().any(|seen| seen.target == "/healthy"));
    assert_eq!(get(&process, "/").0, 200);
}

/// SIG-11
#[test]
fn loopback_and_no_proxy_are_reached_directly() {
    let (origin, proxy) = (Origin::start(), Forward::http(&[]));
    let process = behind(&[("HTTP_PROXY", &proxy.authority())], &everything_to(&origin.url()));
    assert_eq!(get(&process, "/"), (200, "origin".to_owned()));
    let variables = [("HTTP_PROXY", &*proxy.authority()), ("NO_PROXY", ".invalid")];
    // Nobody knows the name, so there is no way that is not the proxy's.
    let process = behind(&variables, &everything_to("http://backend.invalid"));
    assert_eq!(get(&process, "/").0, 502);
    assert_eq!(proxy.connections(), 0);
    // And a proxy that refuses is no answer of the server.
    let process =
        behind(&[("HTTPS_PROXY", &proxy.authority())], &everything_to("https://backend.test"));
    assert_eq!(get(&process, "/").0, 502);
    assert!(proxy.heads()[0].starts_with("CONNECT backend.test:443 "));
}

/// SIG-11
#[test]
fn a_variable_that_cannot_be_read_stops_the_start() {
    let run = |value: &str, arguments: &[&str]| {
        let mut command = binary::command(Path::new("."));
        command.env("https_proxy", value).args(arguments).output().unwrap()
    };
    let output = run("ftp://u:hunter2@proxy", &["--entryPoints.web.address=127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("`https_proxy`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("dynamic.yml");
    std::fs::write(&file, everything_to("http://backend.test")).unwrap();
    let file = file.display().to_string();
    let output = run("u:hunter2@proxy:3128", &["check", &file]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("`https` servers through http://proxy:3128"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    assert!(!run("ftp://proxy", &["check", &file]).status.success());
}

/// A server that believes a connection once it is authenticated, as IIS does. It counts the connections that ended.
pub(crate) fn ntlm_origin() -> (Origin, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let origin = Origin::raw(move |stream, _| {
        let mut out = stream.try_clone().unwrap();
        let mut input = BufReader::new(stream);
        let (mut challenged, mut user) = (false, "nobody");
        while let Some(word) = read_authorization(&mut input) {
            let challenge = match &*word {
                "NTLM 1" => Some("NTLM challenge"),
                "NTLM 3" if challenged => None,
                "Negotiate ticket" => None,
                _ if user == "somebody" => None,
                _ => Some("NTLM"),
            };
            let answer = match challenge {
                None => {
                    user = "somebody";
                    "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsomebody".to_owned()
                }
                Some(challenge) => format!(
                    "HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                     WWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n"
                ),
            };
            challenged = word == "NTLM 1";
            if out.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        count.fetch_add(1, Ordering::AcqRel);
    });
    (origin, ended)
}

/// `Authorization` of the next request; `None` at the end.
fn read_authorization(input: &mut impl BufRead) -> Option<String> {
    let mut authorization = String::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                value.clone_into(&mut authorization);
            }
            _ if line.trim().is_empty() => return Some(authorization),
            _ => {}
        }
    }
}

fn asked(client: &mut Client, authorization: &str) -> (u16, String) {
    let mut ask = Ask::get("/");
    if !authorization.is_empty() {
        ask = ask.header("Authorization", authorization);
    }
    let answer = client.send(&ask).unwrap();
    (answer.status, answer.all("www-authenticate").last().copied().unwrap_or_default().to_owned())
}

/// Everybody shares the connections of one worker.
fn one_worker(origin: &Origin) -> Proxy {
    Proxy::with(json!({"core": {"workers": 1}})).start(&everything_to(&origin.url()))
}

/// T-64, RP-6.2
#[test]
fn ntlm_binds_a_connection_to_its_client_alone() {
    let (origin, ended) = ntlm_origin();
    let proxy = one_worker(&origin);
    let (mut user, mut stranger) = (proxy.client(), proxy.client());
    assert_eq!(asked(&mut stranger, "Basic eDp5"), (401, "NTLM".to_owned()));
    assert_eq!(asked(&mut user, ""), (401, "NTLM".to_owned()));
    assert_eq!(asked(&mut user, "NTLM 1"), (401, "NTLM challenge".to_owned()));
    // Others in between take nothing away.
    assert_eq!(asked(&mut proxy.client(), "").0, 401);
    assert_eq!(asked(&mut user, "NTLM 3").0, 200);
    for _ in 0..5 {
        assert_eq!(asked(&mut user, "").0, 200);
        assert_eq!(asked(&mut stranger, "").0, 401);
        assert_eq!(asked(&mut proxy.client(), "").0, 401);
    }
    // What it had ends with it, and is not handed on.
    let before = ended.load(Ordering::Acquire);
    user.leave();
    until("its connection is closed", || ended.load(Ordering::Acquire) > before);
    assert_eq!(asked(&mut stranger, "").0, 401);
}

/// T-64: clients that begin by themselves (`curl --ntlm`) come through too, which they do not in Traefik; and a server that
/// says nothing of what it believes now must not be believed by others.
#[test]
fn a_connection_is_bound_by_the_first_word_of_either_side() {
    let (origin, _) = ntlm_origin();
    let proxy = one_worker(&origin);
    let mut user = proxy.client();
    assert_eq!(asked(&mut user, "NTLM 1"), (401, "NTLM challenge".to_owned()));
    assert_eq!(asked(&mut user, "NTLM 3").0, 200);
    let mut other = proxy.client();
    assert_eq!(asked(&mut other, "Negotiate ticket").0, 200);
    for _ in 0..5 {
        assert_eq!(asked(&mut proxy.client(), "").0, 401);
        assert_eq!((asked(&mut user, "").0, asked(&mut other, "").0), (200, 200));
    }
}

/// Also the connections over which `forwardAuth` asks: what one user has authenticated asks for nobody else.
#[test]
fn a_question_that_binds_its_connection_has_one_of_its_own() {
    let (auth, ended) = ntlm_origin();
    let app = Origin::start();
    let guard = format!("guard: {{forwardAuth: {{address: '{}'}}}}", auth.url());
    let text = everything_to(&app.url())
        .replace("service: app\n", "service: app\n              middlewares: [guard]\n")
        .replace(
            "          services:\n",
            &format!("          middlewares: {{{guard}}}\n          services:\n"),
        );
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&text);
    assert_eq!(asked(&mut proxy.client(), "Negotiate ticket").0, 200);
    for _ in 0..5 {
        assert_eq!(asked(&mut proxy.client(), "").0, 401);
    }
    assert_eq!(app.count(), 1);
    until("its connection is closed", || ended.load(Ordering::Acquire) > 0);
}

/// Whoever sends a lot at once under a name that binds keeps no more connections than anybody.
#[test]
fn an_owner_keeps_no_more_idle_connections_than_the_transport_allows() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&arrived);
    let (origin, ended) = {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let origin = Origin::raw(move |stream, _| {
            let mut out = stream.try_clone().unwrap();
            let mut input = BufReader::new(stream);
            while read_authorization(&mut input).is_some() {
                seen.fetch_add(1, Ordering::AcqRel);
                pause(Duration::from_millis(50));
                if out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                    break;
                }
            }
            count.fetch_add(1, Ordering::AcqRel);
        });
        (origin, ended)
    };
    let text = everything_to(&origin.url())
        .replace("loadBalancer:\n", "loadBalancer:\n                serversTransport: own\n")
        + "  serversTransports: {own: {maxIdleConnsPerHost: 2}}\n";
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&text);
    block_on(async {
        let sender = http2::connect(proxy.address("web")).await;
        let all = (0..20).map(|_| {
            let mut sender = sender.clone();
            async move {
                let request = Request::get("http://app.test/").header("authorization", "NTLM x");
                http2::send(&mut sender, request, b"").await.response.status
            }
        });
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|status| *status == 200), "{all:?}");
    });
    assert_eq!(arrived.load(Ordering::Acquire), 20);
    until("all but two are closed, or all with their client", || {
        ended.load(Ordering::Acquire) >= 18
    });
}

/// RP-6.2: without NTLM nothing changes, and connections are shared.
#[test]
fn other_authentication_binds_nothing() {
    let origin =
        Origin::with(|_| Reply::status(401).header("WWW-Authenticate", "Basic realm=\"NTLM\""));
    let proxy = one_worker(&origin);
    for _ in 0..5 {
        assert_eq!(asked(&mut proxy.client(), "Basic TlRMTTpu").0, 401);
    }
    assert_eq!(origin.connections(), 1);
}

/// RP-13 `Accept-Encoding` absent: Traefik asks for gzip by itself and unpacks it; nobody asked for that.
#[test]
fn gzip_that_nobody_asked_for_is_asked_for_by_traefik_only() {
    let origin = Origin::with(|seen| {
        let asks = seen.header("accept-encoding").is_some_and(|it| it.contains("gzip"));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"plain text").unwrap();
        if asks {
            return Reply::ok(encoder.finish().unwrap()).header("Content-Encoding", "gzip");
        }
        Reply::ok("plain text")
    });
    let dynamic = everything_to(&origin.url());
    let safe = Proxy::start(&dynamic);
    assert_eq!(safe.get("/").text(), "plain text");
    assert_eq!(origin.last().header("accept-encoding"), None);
    let exact = Proxy::with(json!({"core": {"profile": "exact"}})).start(&dynamic);
    let answer = exact.get("/");
    assert_eq!(answer.text(), "plain text");
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, None));
    assert_eq!(origin.last().header("accept-encoding"), Some("gzip"));
    for proxy in [safe, exact] {
        let answer = proxy.send(&Ask::get("/").header("Accept-Encoding", "gzip, br"));
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert_eq!(answer.body[..2], [0x1f, 0x8b]);
        assert_eq!(proxy.send(&Ask::get("/").header("Range", "bytes=0-9")).text(), "plain text");
        assert_eq!(origin.last().header("accept-encoding"), None);
    }
}
