//! A router that cannot be built never lets its requests reach another router, unless that is
//! what the user asked for (`core.profile: exact`, `core.onBrokenRouter`; RP 3.5).

use serde_json::{Value, json};

use crate::harness::{Origin, Proxy, until};

/// `admin` in front of a catch-all for the same host. `admin` adds lines to that router, `rest`
/// adds sections below `http`.
fn config(url: &str, rule: &str, admin: &str, rest: &str) -> String {
    format!(
        "
http:
  routers:
    admin:
      rule: {rule}
      priority: 100
      service: app
      {admin}
    all:
      rule: Host(`app.test`)
      service: app
  services:
    app:
      loadBalancer:
        servers:
          - url: {url}
  {rest}
"
    )
}

const RULE: &str = "Host(`app.test`) && PathPrefix(`/admin`)";
const GUARDED: &str = "middlewares: [guard]";

/// Every way to write `admin` so that it cannot be built: what, the router's lines, the sections.
const BROKEN: [(&str, &str, &str); 8] = [
    ("basicAuth without users", GUARDED, "middlewares: {guard: {basicAuth: {users: []}}}"),
    ("an empty basicAuth", GUARDED, "middlewares: {guard: {basicAuth: {}}}"),
    ("no such middleware", GUARDED, ""),
    (
        "a usersFile that cannot be read",
        GUARDED,
        "middlewares: {guard: {basicAuth: {usersFile: /does/not/exist}}}",
    ),
    (
        "a misspelt option of the middleware",
        GUARDED,
        "middlewares: {guard: {basicAuth: {usrs: ['a:$apr1$x$y']}}}",
    ),
    ("a misspelt middleware", GUARDED, "middlewares: {guard: {basicAut: {users: ['a:b']}}}"),
    ("a misspelt option of the router", "middleware: [guard]", ""),
    ("an option of the wrong type", "middlewares: {guard: true}", ""),
];

#[test]
fn its_requests_answer_503_and_its_neighbours_go_on() {
    for (what, admin, rest) in BROKEN {
        let origin = Origin::start();
        let proxy = Proxy::start(&config(&origin.url(), RULE, admin, rest));
        for path in ["/admin", "/admin/users?x=1", "/x/../admin", "/administrator"] {
            let answer = proxy.get(path);
            let said = (answer.status, answer.text());
            assert_eq!(said, (503, "Service Unavailable\n".to_owned()), "{what}: {path}");
        }
        assert_eq!(origin.count(), 0, "{what}");
        assert_eq!(proxy.get("/").status, 200, "{what}");
        assert_eq!(proxy.get("other.test/admin").status, 404, "{what}");
        let shown = proxy.api("/api/http/routers/admin@file");
        assert_eq!(shown["status"], "disabled", "{what}");
        assert!(!shown["error"][0].as_str().unwrap().is_empty(), "{what}");
        assert_eq!(proxy.inside("/ready").status, 200, "{what}: it has a place");
    }
}

#[test]
fn the_profile_exact_leaves_it_out_as_traefik_does() {
    for (what, admin, rest) in BROKEN {
        let origin = Origin::start();
        let proxy = Proxy::with(json!({"core": {"profile": "exact"}})).start(&config(
            &origin.url(),
            RULE,
            admin,
            rest,
        ));
        assert_eq!(proxy.who("/admin"), (200, "origin".to_owned()), "{what}");
    }
}

#[test]
fn a_switch_of_its_own_wins_over_the_profile() {
    let (_, admin, rest) = BROKEN[0];
    for (profile, mode, status) in
        [("exact", "503", 503), ("safe", "skip", 200), ("hardened", "skip", 200)]
    {
        let origin = Origin::start();
        let core = json!({"core": {"profile": profile, "onBrokenRouter": mode}});
        let proxy = Proxy::with(core).start(&config(&origin.url(), RULE, admin, rest));
        assert_eq!(proxy.get("/admin").status, status, "{profile} with {mode}");
    }
}

fn after_a_break(options: Value, rule: &str, admin: &str, rest: &str) -> (u16, String) {
    let (good, other) = (Origin::named("admin"), Origin::named("other"));
    let text = |rule: &str, admin: &str, rest: &str| {
        let own = format!(
            "    own:\n      loadBalancer:\n        servers:\n          - url: {}\n    app:\n",
            good.url()
        );
        config(&other.url(), rule, admin, rest)
            .replacen("service: app", "service: own", 1)
            .replace("    app:\n", &own)
    };
    let proxy = Proxy::with(options).start(&text(RULE, "", ""));
    assert_eq!(proxy.who("/admin"), (200, "admin".to_owned()));
    proxy.reload(&text(rule, admin, rest));
    assert_eq!(proxy.who("/"), (200, "other".to_owned()));
    proxy.who("/admin")
}

#[test]
fn last_good_keeps_what_was_right() {
    let last_good = json!({"core": {"onBrokenRouter": "lastGood"}});
    let (_, admin, rest) = BROKEN[1];
    assert_eq!(
        after_a_break(last_good, RULE, admin, rest),
        (200, "admin".to_owned()),
        "the router of before"
    );
    assert_eq!(after_a_break(json!({}), RULE, admin, rest).0, 503, "without it");
}

#[test]
fn last_good_is_503_when_nothing_ever_was_right() {
    let origin = Origin::start();
    let (_, admin, rest) = BROKEN[1];
    let proxy = Proxy::with(json!({"core": {"onBrokenRouter": "lastGood"}})).start(&config(
        &origin.url(),
        RULE,
        admin,
        rest,
    ));
    assert_eq!(proxy.get("/admin").status, 503);
    assert_eq!(proxy.get("/").status, 200);
}

const UNREADABLE: &str = "Host(`app.test`) && PathPrefix(`/admin`";

#[test]
fn a_rule_that_cannot_be_read_any_more_keeps_the_last_good_router() {
    let after = after_a_break(json!({}), UNREADABLE, "", "");
    assert_eq!(after, (200, "admin".to_owned()));
}

#[test]
fn a_rule_that_never_could_be_read_closes_the_hosts_that_can_be_read_from_it() {
    let origin = Origin::start();
    let text = config(&origin.url(), UNREADABLE, "", "").replace(
        "    all:\n",
        "    else:\n      rule: Host(`else.test`)\n      service: app\n    all:\n",
    );
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("/admin").status, 503);
    assert_eq!(proxy.get("/").status, 503, "which part of the host it meant nobody can know");
    assert_eq!(proxy.get("else.test/admin").status, 200);
    assert_eq!(proxy.inside("/ready").status, 200);
    proxy.reload(&config(&origin.url(), RULE, "", ""));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.get("/admin").status, 200);
}

#[test]
fn a_rule_from_which_no_host_can_be_read_makes_the_process_unready() {
    let origin = Origin::start();
    let proxy = Proxy::start(&config(&origin.url(), "PathPrefix(`/admin`", "", ""));
    let ready = proxy.inside("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("admin@file"), "{}", ready.text());
    assert_eq!(proxy.app().not_ready().len(), 1);
    assert_eq!(proxy.inside("/ping").status, 200, "it lives");
    assert_eq!(proxy.inside("/live").status, 200);
    assert_eq!(proxy.get("/").status, 200, "the others are served");
    proxy.reload(&config(&origin.url(), RULE, "", ""));
    until("it is ready again", || proxy.inside("/ready").status == 200);
}

#[test]
fn a_broken_service_breaks_its_routers_and_no_others() {
    let origin = Origin::start();
    let text = config(&origin.url(), RULE, "", "")
        .replacen("service: app", "service: broken", 1)
        .replace(
            "    app:\n",
            "    broken:\n      loadBalancer:\n        strategy: best\n        servers: []\n    app:\n",
        );
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("/admin").status, 503);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.api("/api/http/services/broken@file")["status"], "disabled");
    assert_eq!(proxy.api("/api/http/services/app@file")["status"], "enabled");
}
