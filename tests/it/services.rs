//! Who gets the request: shares, stickiness, health, and what stands in (RP 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::harness::{Ask, NOBODY, Origin, Proxy, Reply, pause, until};

/// A router for everything to service `app`, and these services.
fn services(text: &str) -> String {
    format!(
        "http:\n  routers:\n    all:\n      rule: PathPrefix(`/`)\n      service: app\n  services:\n{text}"
    )
}

/// How many of `count` requests each origin got.
fn shares(proxy: &Proxy, count: usize) -> BTreeMap<String, usize> {
    let mut client = proxy.client();
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let answer = client.send(&Ask::get("/")).unwrap();
        *shares.entry(answer.origin().to_owned()).or_default() += 1;
    }
    shares
}

fn only(name: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(name.to_owned(), count)])
}

/// Answers, and says at `/health` what the switch says.
fn with_switch(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let healthy = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&healthy);
    let origin = Origin::with(move |seen| {
        if seen.target == "/health" && !switch.load(Ordering::Acquire) {
            return Reply::status(500);
        }
        Reply::ok(name).header("X-Origin", name)
    });
    (origin, healthy)
}

const CHECK: &str = "healthCheck: {path: /health, interval: 50ms, timeout: 5s}";

#[test]
fn shares_are_exact() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        servers:
          - {{url: '{}', weight: 3}}
          - {{url: '{}', weight: 1}}
",
        a.url(),
        b.url()
    )));
    for _ in 0..5 {
        let shares = shares(&proxy, 8);
        assert_eq!((shares["a"], shares["b"]), (6, 2));
    }
}

#[test]
fn weighted_services_share_exactly() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&services(&format!(
        "    app:
      weighted:
        services:
          - {{name: a, weight: 2}}
          - {{name: b, weight: 1}}
    a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    b: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        a.url(),
        b.url()
    )));
    let shares = shares(&proxy, 30);
    assert_eq!((shares["a"], shares["b"]), (20, 10));
}

/// RP 5.4
#[test]
fn a_cookie_keeps_a_client_at_its_server() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let config = |cookie: &str| {
        services(&format!(
            "    app:
      loadBalancer:
        sticky: {{cookie: {cookie}}}
        servers:
          - url: {}
          - url: {}
",
            a.url(),
            b.url()
        ))
    };
    let proxy = Proxy::start(&config("{name: lb, httpOnly: true, secure: true, sameSite: lax}"));
    let first = proxy.get("/");
    let line = first.header("set-cookie").unwrap().to_owned();
    let server = if first.origin() == "a" { &a } else { &b };
    let digest = Sha256::digest(server.url());
    let digest = u64::from_be_bytes(digest[..8].try_into().unwrap());
    assert_eq!(line, format!("lb={digest:016x}; Path=/; HttpOnly; Secure; SameSite=Lax"));

    let cookie = line.split(';').next().unwrap();
    for _ in 0..10 {
        let answer = proxy.send(&Ask::get("/").header("Cookie", &format!("x=1; {cookie}")));
        assert_eq!((answer.origin(), answer.header("set-cookie")), (first.origin(), None));
        assert_eq!(server.last().header("cookie"), Some(&*format!("x=1; {cookie}")));
    }
    let stranger = proxy.send(&Ask::get("/").header("Cookie", "lb=0123456789abcdef"));
    assert!(stranger.header("set-cookie").is_some());

    proxy.reload(&config("{}"));
    let generated = proxy.get("/");
    let name = generated.header("set-cookie").unwrap().split('=').next().unwrap();
    assert!(name.len() == 6 && name.starts_with('_'), "{name}");
}

#[test]
fn health_checks_take_a_server_out_and_back() {
    let (a, (b, healthy)) = (Origin::named("a"), with_switch("b"));
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        {CHECK}
        servers:
          - url: {}
          - url: {}
",
        a.url(),
        b.url()
    )));
    let both = || shares(&proxy, 4).len() == 2;
    assert!(both());
    let status =
        |want: &str| proxy.api("/api/http/services/app@file")["serverStatus"][b.url()] == want;
    let gauge = format!("traefik_service_server_up{{service=\"app@file\",url=\"{}\"}}", b.url());

    healthy.store(false, Ordering::Release);
    until("the server is down", || status("DOWN"));
    assert_eq!(shares(&proxy, 20), only("a", 20));
    until("the gauge says so", || proxy.metric(&gauge) == 0.0);

    healthy.store(true, Ordering::Release);
    until("the server is up", || status("UP"));
    until("it gets requests", both);
    until("the gauge says so", || (proxy.metric(&gauge) - 1.0).abs() < f64::EPSILON);
}

/// RP 16 says that Traefik forgets health at every reload; here it is kept.
#[test]
fn health_survives_a_reload_that_changes_something_else() {
    let (a, (b, healthy)) = (Origin::named("a"), with_switch("b"));
    let config = |other: &str| {
        services(&format!(
            "    app:
      loadBalancer:
        {CHECK}
        servers:
          - url: {}
          - url: {}
    other: {{loadBalancer: {{servers: [{{url: '{other}'}}]}}}}
",
            a.url(),
            b.url()
        ))
    };
    let proxy = Proxy::start(&config("http://127.0.0.1:9"));
    healthy.store(false, Ordering::Release);
    until("the server is out", || shares(&proxy, 4) == only("a", 4));
    for port in 10..15 {
        proxy.reload(&config(&format!("http://127.0.0.1:{port}")));
        assert_eq!(shares(&proxy, 4), only("a", 4));
    }
}

#[test]
fn failures_in_the_traffic_take_a_server_out_for_a_while() {
    let a = Origin::named("a");
    let failing = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&failing);
    let b = Origin::with(move |_| {
        let reply =
            if switch.load(Ordering::Acquire) { Reply::status(500) } else { Reply::ok("b") };
        reply.header("X-Origin", "b")
    });
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        passiveHealthCheck: {{failureWindow: 1s, maxFailedAttempts: 1}}
        servers:
          - url: {}
          - url: {}
",
        a.url(),
        b.url()
    )));
    let mut client = proxy.client();
    until("the server has failed", || client.send(&Ask::get("/")).unwrap().origin() == "b");
    let asked = b.count();
    assert_eq!(shares(&proxy, 10), only("a", 10));
    assert_eq!(b.count(), asked);
    failing.store(false, Ordering::Release);
    until("it gets requests again", || shares(&proxy, 2).contains_key("b"));
    assert_eq!(shares(&proxy, 10).len(), 2);
}

#[test]
fn a_fallback_stands_in_while_the_service_is_down() {
    let ((main, healthy), spare) = (with_switch("main"), Origin::named("spare"));
    let proxy = Proxy::start(&services(&format!(
        "    app:
      failover: {{service: main, fallback: spare}}
    main:
      loadBalancer:
        {CHECK}
        servers:
          - url: {}
    spare: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        main.url(),
        spare.url()
    )));
    assert_eq!(proxy.who("/"), (200, "main".to_owned()));
    healthy.store(false, Ordering::Release);
    until("the fallback answers", || proxy.who("/").1 == "spare");
    healthy.store(true, Ordering::Release);
    until("the service answers", || proxy.who("/").1 == "main");
}

/// F-16, RP 14
#[test]
fn without_a_server_the_answer_is_503_at_once() {
    let (only, healthy) = with_switch("only");
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        {CHECK}
        servers:
          - url: {}
",
        only.url()
    )));
    healthy.store(false, Ordering::Release);
    until("there is no server", || proxy.get("/").status == 503);
    let answer = proxy.get("/");
    assert_eq!(answer.text(), "no available server\n");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    healthy.store(true, Ordering::Release);
    until("it is back", || proxy.get("/").status == 200);

    proxy.reload(&services("    app: {loadBalancer: {servers: []}}\n"));
    assert_eq!((proxy.get("/").status, &*proxy.get("/").text()), (503, "no available server\n"));
}

#[test]
fn a_dead_server_is_a_502() {
    let proxy = Proxy::start(&services(&format!(
        "    app: {{loadBalancer: {{servers: [{{url: '{NOBODY}'}}]}}}}\n"
    )));
    let answer = proxy.get("/");
    assert_eq!((answer.status, &*answer.text()), (502, "Bad Gateway"));
}

#[test]
fn the_host_is_the_clients_unless_told_otherwise() {
    let origin = Origin::start();
    let config = |pass: bool| {
        services(&format!(
            "    app:
      loadBalancer:
        passHostHeader: {pass}
        servers: [{{url: '{}'}}]
",
            origin.url()
        ))
    };
    let proxy = Proxy::start(&config(true));
    proxy.get("shop.test/");
    assert_eq!(origin.last().header("host"), Some("shop.test"));
    proxy.reload(&config(false));
    proxy.get("shop.test/");
    assert_eq!(origin.last().header("host"), Some(&*origin.address().to_string()));
    assert_eq!(origin.last().header("x-forwarded-host"), Some("shop.test"));
}

/// A service that is gone is probed no more, and its gauge is gone with it.
#[test]
fn probes_end_with_their_service() {
    let (origin, other) = (Origin::named("checked"), Origin::named("other"));
    let text = |url: &str, check: &str| {
        services(&format!(
            "    app:
      loadBalancer:
        {check}
        servers:
          - url: {url}
"
        ))
    };
    let proxy = Proxy::start(&text(&origin.url(), CHECK));
    until("it is probed", || origin.count() > 2);
    assert!(proxy.app().metrics().contains("traefik_service_server_up{"));
    proxy.reload(&text(&other.url(), ""));
    // A probe that was under way may still arrive.
    until("the gauge is gone", || !proxy.app().metrics().contains("traefik_service_server_up{"));
    until("the probes have ended", || {
        let before = origin.count();
        pause(Duration::from_millis(300));
        origin.count() == before
    });
    assert_eq!(proxy.who("/").1, "other");
}

/// What a probe asks for is what its options say.
#[test]
fn a_probe_says_what_it_was_told_to() {
    let origin = Origin::named("checked");
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        healthCheck:
          path: /web/health?db_server_status=1
          interval: 50ms
          hostname: probe.test
          method: HEAD
          headers: {{X-Probe: '1'}}
        servers:
          - url: {}/base
",
        origin.url()
    )));
    until("it is probed", || origin.count() > 0);
    let seen = origin.last();
    assert_eq!((&*seen.method, &*seen.target), ("HEAD", "/web/health?db_server_status=1"));
    assert_eq!((seen.header("host"), seen.header("x-probe")), (Some("probe.test"), Some("1")));
    assert_eq!(seen.header("x-forwarded-for"), None);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn two_choices_reach_every_server() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&services(&format!(
        "    app:
      loadBalancer:
        strategy: p2c
        servers:
          - url: {}
          - url: {}
",
        a.url(),
        b.url()
    )));
    assert_eq!(shares(&proxy, 50).len(), 2);
}
