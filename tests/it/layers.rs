//! Routers below routers (RP 3.6): each level sees what the one above has made of the request.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Ask, Origin, Proxy, Reply, until};

/// Answers with its name; `X-Seen` says what it was asked for.
fn named(name: &'static str) -> Origin {
    Origin::with(move |seen| {
        let shown = format!("{} {}", seen.target, seen.header("x-tenant").unwrap_or("none"));
        Reply::ok(name).header("X-Origin", name).header("X-Seen", &shown)
    })
}

fn config(a: &Origin, b: &Origin, routers: &str) -> String {
    format!(
        "http:
  middlewares:
    tenant: {{headers: {{customRequestHeaders: {{X-Tenant: acme}}}}}}
    strip: {{stripPrefix: {{prefixes: [/api]}}}}
    deny: {{ipAllowList: {{sourceRange: [192.0.2.0/24]}}}}
  services:
    a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    b: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
  routers:
{routers}",
        a.url(),
        b.url()
    )
}

/// RP-3.6
#[test]
fn children_match_what_the_middlewares_above_have_left() {
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::start(&config(
        &a,
        &b,
        "    root: {rule: PathPrefix(`/api`), middlewares: [strip, tenant]}
    acme: {rule: 'Header(`X-Tenant`, `acme`) && Path(`/v1`)', parentRefs: [root], service: a}
    any: {rule: PathPrefix(`/v`), parentRefs: [root@file], service: b}
    inner: {rule: PathPrefix(`/deep`), parentRefs: [root]}
    leaf: {rule: Path(`/deep/er`), parentRefs: [inner], service: b}
",
    ));
    for (place, status, origin) in [
        ("x/api/v1", 200, "a"),
        ("x/api/v2", 200, "b"),
        ("x/api/deep/er", 200, "b"),
        ("x/api/deep/other", 404, ""),
        ("x/api/other", 404, ""),
        ("x/v1", 404, ""),
    ] {
        let answer = proxy.get(place);
        assert_eq!(
            (answer.status, answer.header("x-origin").unwrap_or("")),
            (status, origin),
            "{place}"
        );
    }
    assert_eq!(proxy.get("x/api/other").text(), "404 page not found\n");
    assert_eq!(proxy.get("x/api/v1").header("x-seen"), Some("/v1 acme"));
    // A client that says it himself does not get past the middleware above.
    let ask = Ask::get("x/api/v1").header("X-Tenant", "other");
    assert_eq!(proxy.send(&ask).header("x-seen"), Some("/v1 acme"));

    let root = proxy.api("/api/http/routers/root@file");
    assert_eq!(
        (&root["status"], &root["using"]),
        (&json!("enabled"), &json!(["web", "websecure"]))
    );
    let leaf = proxy.api("/api/http/routers/leaf@file");
    assert_eq!((&leaf["status"], &leaf["parentRefs"]), (&json!("enabled"), &json!(["inner@file"])));
    assert_eq!((leaf.get("using"), leaf.get("observability")), (None, None));
    let counted = |router: &str, service: &str| {
        let labels = format!(
            "code=\"200\",method=\"GET\",protocol=\"http\",router=\"{router}@file\",service=\"{service}\""
        );
        proxy.metric(&format!("traefik_router_requests_total{{{labels}}}"))
    };
    assert!((counted("leaf", "b@file") - 1.0).abs() < f64::EPSILON);
    assert!(counted("root", "root@file-muxer") >= 5.0);
}

/// RP-3.6, RP-3.5: what is wrong with one stops that one, and never opens another way.
#[test]
fn what_is_wrong_below_stays_below() {
    let (a, b) = (named("a"), named("b"));
    let routers = |more: &str| {
        config(
            &a,
            &b,
            &format!(
                "    root: {{rule: PathPrefix(`/`)}}
    good: {{rule: Path(`/good`), parentRefs: [root], service: a}}
{more}"
            ),
        )
    };
    let proxy = Proxy::start(&routers(""));
    assert_eq!(proxy.who("/good"), (200, "a".to_owned()));
    let error = |name: &str| {
        let view = proxy.api(&format!("/api/http/routers/{name}@file"));
        assert_eq!(view["status"], "disabled", "{name}");
        view["error"][0].as_str().unwrap().to_owned()
    };
    for (options, message) in [
        (
            "parentRefs: [root], tls: {}, service: b",
            "non-root router cannot have TLS configuration",
        ),
        (
            "parentRefs: [root], entryPoints: [web], service: b",
            "non-root router cannot have Entrypoints configuration",
        ),
        (
            "parentRefs: [root], observability: {metrics: false}, service: b",
            "non-root router cannot have Observability configuration",
        ),
        ("parentRefs: [root]", "router has no service and no child routers"),
        ("parentRefs: [root, gone], service: b", "parent router \"gone@file\" does not exist"),
        ("parentRefs: [bad], service: b", "router is not reachable"),
        (
            "parentRefs: [root], service: b, middlewares: [gone]",
            "middleware \"gone@file\" does not exist",
        ),
    ] {
        proxy.reload(&routers(&format!("    bad: {{rule: PathPrefix(`/bad`), {options}}}\n")));
        assert_eq!(error("bad"), message, "{options}");
        let status = if options.contains("[bad]") { 404 } else { 503 };
        assert_eq!(proxy.get("/bad").status, status, "{options}");
        assert_eq!(proxy.who("/good"), (200, "a".to_owned()), "{options}");
    }
    // A parent with a service of its own is in error, and all below it with it.
    proxy.reload(&config(
        &a,
        &b,
        "    root: {rule: PathPrefix(`/`), service: b}
    good: {rule: Path(`/good`), parentRefs: [root], service: a}
",
    ));
    assert_eq!(
        error("root"),
        "router has both a service and is referenced as a parent by other routers"
    );
    assert_eq!(proxy.get("/good").status, 503);
}

/// RP-3.6
#[test]
fn a_tree_changes_with_the_configuration() {
    let (a, b) = (named("a"), named("b"));
    let tree = |rule: &str, middlewares: &str, service: &str| {
        config(
            &a,
            &b,
            &format!(
                "    root: {{rule: Host(`a.test`)}}
    other: {{rule: Host(`b.test`), middlewares: [{middlewares}]}}
    leaf: {{rule: {rule}, parentRefs: [root, other], service: {service}}}
"
            ),
        )
    };
    let proxy = Proxy::start(&tree("Path(`/x`)", "", "a"));
    for host in ["a.test", "b.test"] {
        assert_eq!(proxy.who(&format!("{host}/x")), (200, "a".to_owned()));
    }
    proxy.reload(&tree("Path(`/y`)", "deny", "b"));
    assert_eq!(proxy.get("a.test/x").status, 404);
    assert_eq!(proxy.who("a.test/y"), (200, "b".to_owned()));
    assert_eq!(proxy.get("b.test/y").status, 403);
    // Without children, a parent is a router without a service.
    proxy.reload(&config(&a, &b, "    root: {rule: Host(`a.test`)}\n"));
    assert_eq!(proxy.get("a.test/y").status, 503);
    proxy.reload(&tree("Path(`/y`)", "", "a"));
    assert_eq!(proxy.who("b.test/y"), (200, "a".to_owned()));

    // A cycle loses the link that closes it; the rest works.
    proxy.reload(&config(
        &a,
        &b,
        "    root: {rule: Host(`a.test`)}
    one: {rule: PathPrefix(`/`), parentRefs: [root, two]}
    two: {rule: Path(`/y`), parentRefs: [one], service: a}
",
    ));
    assert_eq!(proxy.who("a.test/y"), (200, "a".to_owned()));
    let two = proxy.api("/api/http/routers/two@file");
    assert_eq!(two["status"], "warning");
    assert_eq!(
        two["error"][0],
        "cyclic reference detected in router tree: one@file -> two@file -> one@file"
    );
}

/// RP-3.6: the access log names the whole way.
#[test]
fn the_access_log_names_every_level() {
    let (a, b) = (named("a"), named("b"));
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("access.log");
    let log = json!({"accessLog": {"filePath": file, "format": "json"}});
    let proxy = Proxy::with(log).start(&config(
        &a,
        &b,
        "    root: {rule: PathPrefix(`/`)}
    inner: {rule: PathPrefix(`/`), parentRefs: [root]}
    leaf: {rule: Path(`/x`), parentRefs: [inner], service: a}
",
    ));
    let last = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok())
    };
    for (place, routers, service) in [
        ("/x", "root@file -> inner@file -> leaf@file", json!("a@file")),
        ("/y", "root@file -> inner@file", Value::Null),
    ] {
        proxy.get(place);
        until("it is written", || last().is_some_and(|line| line["RequestPath"] == place));
        let line = last().unwrap();
        assert_eq!((&line["RouterName"], &line["ServiceName"]), (&json!(routers), &service));
    }
}
