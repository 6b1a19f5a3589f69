//! The contract with Traefik's users, row by row (`tests/compat/request-path.md`): routers.

use serde_json::json;

use crate::harness::certs::Tls;
use crate::harness::{Ask, Client, Origin, Proxy};

/// RP-3.1.1 to RP-3.1.6, RP-3.5.5, RP-3.5.7
#[test]
fn a_router_says_what_is_odd_about_it_and_its_neighbours_go_on() {
    let routers = [
        ("here", "rule: Host(`here.test`), service: app, entryPoints: [web, gone]"),
        ("nowhere", "rule: Host(`nowhere.test`), service: app, entryPoints: [gone]"),
        ("bare", "service: app"),
        ("odd", "rule: Host(`odd.test`), service: app, ruleSyntax: v9"),
        ("low", "rule: Host(`low.test`), service: app, priority: -5"),
        ("high", "rule: Host(`high.test`), service: app, priority: 9223372036854774808"),
        ("highest", "rule: Host(`highest.test`), service: app, priority: 9223372036854774807"),
        ("idle", "rule: Host(`idle.test`)"),
        ("lost", "rule: Host(`lost.test`), service: gone"),
        ("foreign", "rule: Host(`foreign.test`), service: app@gone"),
        ("paper", "rule: Host(`paper.test`), service: app, tls: {certResolver: gone}"),
    ];
    let lines = routers.map(|(name, options)| format!("    {name}: {{{options}}}\n")).concat();
    let origin = Origin::start();
    let proxy = Proxy::start(&format!(
        "http:\n  routers:\n{lines}  services:\n    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
        origin.url()
    ));
    for (name, status, says) in [
        ("here", "warning", "entryPoint \"gone\" doesn't exist"),
        ("nowhere", "disabled", "no valid entryPoint for this router"),
        ("bare", "disabled", "router has no rule"),
        ("odd", "disabled", "unknown rule syntax `v9`"),
        ("low", "enabled", ""),
        ("high", "disabled", "exceeds the max user-defined priority 9223372036854774807"),
        ("highest", "enabled", ""),
        ("idle", "disabled", "the service is missing on the router"),
        ("lost", "disabled", "the service \"gone@file\" does not exist"),
        ("foreign", "disabled", "the service \"app@gone\" does not exist"),
        ("paper", "warning", "nonexistent certificate resolver \"gone\""),
    ] {
        let shown = proxy.api(&format!("/api/http/routers/{name}@file"));
        assert_eq!(shown["status"], status, "{name}: {shown}");
        let errors = shown["error"].to_string();
        assert!(errors.contains(&says.replace('"', "\\\"")), "{name}: {errors}");
        assert_eq!(errors == "null", says.is_empty(), "{name}: {errors}");
        let asked = proxy.get(&format!("{name}.test/")).status;
        let served = match (name, status) {
            ("nowhere" | "bare" | "paper", _) => 404,
            (_, "disabled") => 503,
            _ => 200,
        };
        assert_eq!(asked, served, "{name}");
    }
    let at = proxy.address("websecure");
    let mut secured = Tls::anyone().connect(at, Some("paper.test")).unwrap();
    assert_eq!(secured.client.send(&Ask::get("paper.test/")).unwrap().status, 200);
}

/// RP-3.5.8
#[test]
fn names_hold_no_provider() {
    let origin = Origin::start();
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            a@b: {{rule: Host(`a.test`), service: app}}
            good: {{rule: Host(`b.test`), service: app@file}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    ));
    assert_eq!((proxy.get("a.test/").status, proxy.get("b.test/").status), (503, 200));
    let report = proxy.app().report();
    let told: Vec<_> = report.diagnostics.iter().map(|one| &*one.message).collect();
    assert_eq!(told, ["`@` is not allowed in a name"]);
}

/// RP-3.6.2, RP-3.6.9: what an entry point adds stands before the root, once, whatever copies of the root there are.
#[test]
fn entry_points_shape_roots_and_no_children() {
    let origin = Origin::start();
    let options = json!({"entryPoints": {
        "web": {"http": {"middlewares": ["first@file"]}},
        "alt": {"address": "127.0.0.1:0"},
    }});
    let proxy = Proxy::with(options).start(&format!(
        "
        http:
          routers:
            root: {{rule: PathPrefix(`/`), entryPoints: [web, alt]}}
            child: {{rule: PathPrefix(`/`), parentRefs: [root], middlewares: [second], service: app}}
          middlewares:
            first: {{addPrefix: {{prefix: /first}}}}
            second: {{addPrefix: {{prefix: /second}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    ));
    assert_eq!(proxy.get("a.test/x").status, 200);
    assert_eq!(origin.last().target, "/second/first/x");
    let mut client = Client::connect(proxy.address("alt")).unwrap();
    assert_eq!(client.send(&Ask::get("a.test/x")).unwrap().status, 200);
    assert_eq!(origin.last().target, "/second/x");
    for name in ["root", "web-root", "child"] {
        let shown = proxy.api(&format!("/api/http/routers/{name}@file"));
        assert_eq!(shown["status"], "enabled", "{shown}");
    }
}
