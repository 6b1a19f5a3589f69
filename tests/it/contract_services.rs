//! The contract with Traefik's users, row by row (`tests/compat/request-path.md`): services and the
//! way to their servers.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::certs::Ca;
use crate::harness::client::socket;
use crate::harness::{Ask, Origin, Proxy, Reply, everything_to, pause, until};
use crate::wire::{echoed, websocket, websocket_echo};

/// RP-5.1.3
#[test]
fn routers_share_the_turns_of_their_service() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&format!(
        "
        http:
          routers:
            one: {{rule: Host(`one.test`), service: app}}
            two: {{rule: Host(`two.test`), service: app}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}, {{url: '{}'}}]}}}}
        ",
        a.url(),
        b.url()
    ));
    for _ in 0..5 {
        let (first, second) = (proxy.who("one.test/").1, proxy.who("two.test/").1);
        assert_ne!(first, second);
    }
}

/// RP-5.1.5, RP-14.11
#[test]
fn what_is_built_in_may_stand_behind_routers() {
    let options = json!({
        "ping": {"manualRouting": true},
        "metrics": {"prometheus": {"manualRouting": true}},
        "api": {"insecure": false},
    });
    let names = ["api", "dashboard", "noop", "ping", "prometheus", "rest"];
    let routers = names.map(|name| {
        format!("    {name}: {{rule: Host(`{name}.test`), service: {name}@internal}}\n")
    });
    let proxy = Proxy::with(options).start(&format!("http:\n  routers:\n{}", routers.concat()));
    for (place, status, says) in [
        ("api.test/api/version", 200, "Version"),
        ("dashboard.test/dashboard/", 200, "/api/overview"),
        ("noop.test/", 418, ""),
        ("ping.test/", 200, "OK"),
        ("prometheus.test/", 200, "traefik_config_reloads_total"),
        ("rest.test/", 503, "Service Unavailable\n"),
    ] {
        let answer = proxy.get(place);
        assert_eq!(answer.status, status, "{place}");
        let text = answer.text();
        assert!(text.contains(says) && text.is_empty() == says.is_empty(), "{place}: {text}");
    }
}

/// RP-5.4.12, RP-5.6.2
#[test]
fn each_level_has_a_cookie_of_its_own() {
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    let [a, b, c, d] = origins.each_ref().map(Origin::url);
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: top}}
          services:
            top:
              weighted:
                sticky: {{cookie: {{name: level1}}}}
                services: [{{name: left}}, {{name: right}}]
            left: {{loadBalancer: {{sticky: {{cookie: {{name: level2}}}}, servers: [{{url: '{a}'}}, {{url: '{b}'}}]}}}}
            right: {{loadBalancer: {{sticky: {{cookie: {{name: level2}}}}, servers: [{{url: '{c}'}}, {{url: '{d}'}}]}}}}
        "
    ));
    let first = proxy.get("/");
    let lines: Vec<String> = first.all("set-cookie").iter().map(|&line| line.to_owned()).collect();
    let pairs: Vec<&str> = lines.iter().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(pairs.len(), 2, "{lines:?}");
    assert!(pairs.iter().any(|pair| pair.starts_with("level1=")), "{pairs:?}");
    assert!(pairs.iter().any(|pair| pair.starts_with("level2=")), "{pairs:?}");
    for _ in 0..6 {
        let answer = proxy.send(&Ask::get("/").header("Cookie", &pairs.join("; ")));
        assert_eq!((answer.origin(), answer.header("set-cookie")), (first.origin(), None));
    }
}

/// RP-5.5.11, RP-5.5.12
#[test]
fn probes_come_after_an_interval_and_one_by_one() {
    let began = Instant::now();
    let probed: &'static Mutex<Vec<(&str, Duration)>> = Box::leak(Box::default());
    let server = |name: &'static str, delay: u64| {
        Origin::with(move |seen| {
            if seen.target == "/health" {
                probed.lock().unwrap().push((name, began.elapsed()));
                pause(Duration::from_millis(delay));
                probed.lock().unwrap().push((name, began.elapsed()));
                return Reply::status(500);
            }
            Reply::ok(name).header("X-Origin", name)
        })
    };
    let (slow, quick) = (server("slow", 300), server("quick", 0));
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app}}
          services:
            app:
              loadBalancer:
                healthCheck: {{path: /health, interval: 2s, unhealthyInterval: 1h, timeout: 20s}}
                servers: [{{url: '{}'}}, {{url: '{}'}}]
        ",
        slow.url(),
        quick.url()
    ));
    assert_eq!(proxy.get("/").status, 200, "who was not looked at yet is up");
    until("both are down", || proxy.get("/").status == 503);
    let probed = probed.lock().unwrap();
    assert!(probed[0].1 >= Duration::from_secs(2), "{probed:?}");
    let names: Vec<_> = probed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["slow", "slow", "quick", "quick"], "one after the other, once is enough");
}

/// RP-6.1.4
#[test]
fn servers_see_the_certificate_of_their_transport() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let directory = setup.directory().to_owned();
    let authority = directory.join("ca.pem");
    fs::write(&authority, ca.pem()).unwrap();
    let (cert, key) = ca.issue(&["127.0.0.1"]).write(&directory, "server");
    let strict = setup.start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, tls: {{}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        tls:
          stores:
            default: {{defaultCertificate: {{certFile: {}, keyFile: {}}}}}
          options:
            default: {{clientAuth: {{caFiles: ['{}'], clientAuthType: RequireAndVerifyClientCert}}}}
        ",
        origin.url(),
        cert.display(),
        key.display(),
        authority.display()
    ));
    let (cert, key) = ca.issue(&["doorward"]).write(&directory, "client");
    let identity =
        format!("certificates: [{{certFile: {}, keyFile: {}}}]", cert.display(), key.display());
    for (identity, served) in [(&*identity, true), ("disableHTTP2: true", false)] {
        let before = origin.count();
        let proxy = Proxy::start(&format!(
            "
            http:
              routers:
                all: {{rule: PathPrefix(`/`), service: app}}
              services:
                app: {{loadBalancer: {{serversTransport: own, servers: [{{url: 'https://{}'}}]}}}}
              serversTransports:
                own: {{rootCAs: ['{}'], {identity}}}
            ",
            strict.address("websecure"),
            authority.display()
        ));
        let answer = proxy.get("/");
        assert_eq!((answer.status == 200, origin.count() - before), (served, usize::from(served)));
        assert!(served || answer.status == 502, "an alert of the server is {}", answer.status);
    }
}

/// An address where the kernel takes no more connections, and what holds it.
#[cfg(target_os = "linux")]
fn crowded() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    loop {
        let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let full = waiting.connect_timeout(&address.into(), Duration::from_millis(300)).is_err();
        held.push(waiting);
        if full {
            return (address, held);
        }
        assert!(held.len() < 20, "the queue has no end");
    }
}

/// RP-6.1.11, RP-14.24
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_does_not_accept_is_a_504_in_time() {
    let (address, _held) = crowded();
    let text = everything_to(&format!("http://{address}")).replace(
        "              loadBalancer:\n",
        "              loadBalancer:\n                serversTransport: impatient\n",
    ) + "  serversTransports:
            impatient:
              forwardingTimeouts: {dialTimeout: 300ms}
";
    let proxy = Proxy::start(&text);
    let start = Instant::now();
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (504, "Gateway Timeout"));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// RP-6.2.3
#[test]
fn upgrades_go_over_http_1_to_servers_of_h2c() {
    let origin = websocket_echo();
    let proxy = Proxy::start(&everything_to(&format!("h2c://{}", origin.address())));
    let mut talk = websocket(socket(proxy.address("web")).unwrap(), "ws://chat.test/");
    echoed(&mut talk, "hello");
}
