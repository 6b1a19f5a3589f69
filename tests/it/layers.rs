//! Routers below routers (RP 3.6): each level sees what the one above has made of the request.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Ask, Client, Origin, Proxy, Reply, until};

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

const DENIED: &str = "    root: {rule: PathPrefix(`/p`), middlewares: [deny]}
    child: {rule: Path(`/p/c`), service: a, parentRefs: [root]}
";

/// What went on as it was would go on in front of nothing: a router that has left its tree, or its entry point, is not
/// served by its last good build.
#[test]
fn a_broken_router_takes_nothing_along_from_where_it_stood() {
    let (a, b) = (named("a"), named("b"));
    for (mode, moved) in [
        ("503", "    child: {rule: Path(`/p/c, service: a, middlewares: [deny]}\n"),
        ("lastGood", "    child: {rule: Path(`/p/c`), service: a, middlewares: [dney]}\n"),
    ] {
        let options = json!({"core": {"onBrokenRouter": mode}});
        let proxy = Proxy::with(options).start(&config(&a, &b, DENIED));
        assert_eq!(proxy.get("x/p/c").status, 403, "{mode}");
        let text = DENIED.lines().next().unwrap().to_owned() + "\n" + moved;
        proxy.reload(&config(&a, &b, &text));
        assert_ne!(proxy.get("x/p/c").status, 200, "{mode}");
    }
    let entry_points = json!({"entryPoints": {
        "web": {},
        "guarded": {"address": "127.0.0.1:0", "http": {"middlewares": ["deny@file"]}},
    }});
    let at = |entry_point: &str, rule: &str| {
        let router = format!("    r: {{rule: {rule}, service: a, entryPoints: [{entry_point}]}}\n");
        config(&a, &b, &router)
    };
    let proxy = Proxy::with(entry_points).start(&at("web", "Path(`/p/c`)"));
    assert_eq!(proxy.get("x/p/c").status, 200);
    proxy.reload(&at("guarded", "Path(`/p/c"));
    let mut client = Client::connect(proxy.address("guarded")).unwrap();
    assert_ne!(client.send(&Ask::get("x/p/c")).unwrap().status, 200);
}

/// A tree never goes on as it was: its other routers have changed meanwhile.
#[test]
fn a_broken_root_does_not_lead_to_what_was_below_it() {
    let (a, b) = (named("a"), named("b"));
    for (mode, root) in [
        ("503", "    root: {rule: PathPrefix(`/p}\n"),
        ("lastGood", "    root: {rule: PathPrefix(`/p`), middlewares: [nobody]}\n"),
    ] {
        let options = json!({"core": {"onBrokenRouter": mode}});
        let open = "    root: {rule: PathPrefix(`/p`)}\n    child: {rule: Path(`/p/c`), service: a, parentRefs: [root]}\n";
        let proxy = Proxy::with(options).start(&config(&a, &b, open));
        assert_eq!(proxy.get("x/p/c").status, 200, "{mode}");
        let closed = "    child: {rule: Path(`/p/c`), service: a, parentRefs: [root], middlewares: [deny]}\n";
        proxy.reload(&config(&a, &b, &format!("{root}{closed}")));
        assert_eq!(proxy.get("x/p/c").status, 503, "{mode}");
    }
}

/// A running proxy sees that a router has become a parent, as one that starts does.
#[test]
fn a_router_with_a_service_cannot_become_a_parent() {
    let (a, b) = (named("a"), named("b"));
    let alone = "    p: {rule: PathPrefix(`/p`), service: a}\n";
    let child = "    c: {rule: Path(`/p/c`), service: b, parentRefs: [p], middlewares: [deny]}\n";
    let proxy = Proxy::start(&config(&a, &b, alone));
    assert_eq!(proxy.get("x/p/c").status, 200);
    let both = config(&a, &b, &format!("{alone}{child}"));
    proxy.reload(&both);
    assert_eq!(proxy.get("x/p/c").status, 503);
    assert_eq!(Proxy::start(&both).get("x/p/c").status, 503);
}

/// A rule that cannot be read never lets those behind it have its requests.
#[test]
fn a_child_without_a_rule_keeps_its_place_before_its_siblings() {
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::start(&config(
        &a,
        &b,
        "    root: {rule: PathPrefix(`/p`)}
    first: {rule: Path(`/p/first`), priority: 9, service: b, parentRefs: [root]}
    admin: {rule: PathPrefix(`/p/adm, priority: 5, service: a, parentRefs: [root], middlewares: [deny]}
    all: {rule: PathPrefix(`/p`), priority: 1, service: a, parentRefs: [root]}
    other: {rule: PathPrefix(`/q`), service: a}
",
    ));
    assert_eq!(proxy.get("x/p/adm").status, 503);
    assert_eq!(proxy.get("x/p/first").status, 200);
    assert_eq!(proxy.get("x/q").status, 200);
}
