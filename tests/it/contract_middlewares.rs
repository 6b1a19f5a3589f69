//! The contract with Traefik's users, row by row (`tests/compat/request-path.md`): what all
//! middlewares have in common, and those that are not ours.

use std::io::Read;
use std::sync::mpsc::sync_channel;

use serde_json::Value;

use crate::harness::binary::run;
use crate::harness::{Ask, DEADLINE, Origin, Proxy, until};

/// The metric of requests that their clients have left.
const LEFT: &str = "traefik_entrypoint_requests_total{code=\"499\",entrypoint=\"web\",method=\"GET\",protocol=\"http\"}";

/// Routers `/a` and `/b` through these middlewares.
fn through(url: &str, names: &str, middlewares: &str) -> String {
    format!(
        "
        http:
          routers:
            a: {{rule: PathPrefix(`/a`), service: app, middlewares: [{names}]}}
            b: {{rule: PathPrefix(`/b`), service: app, middlewares: [{names}]}}
            free: {{rule: PathPrefix(`/free`), service: app}}
          middlewares: {{{middlewares}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        "
    )
}

/// RP-7.0.1, RP-7.0.2
#[test]
fn a_middleware_has_one_type() {
    let origin = Origin::start();
    for (middlewares, says) in [
        ("m: {retry: {attempts: 2}, compress: {}}", "multi-types middleware not supported"),
        ("m: {}", "invalid middleware configuration"),
        ("n: {compress: {}}", "middleware \"m@file\" does not exist"),
        ("m: {adPrefix: {prefix: /x}}", "unknown option `adPrefix`"),
        ("m: {rewriteTarget: {}}", "unknown option `rewriteTarget`"),
    ] {
        let proxy = Proxy::start(&through(&origin.url(), "m", middlewares));
        assert_eq!(proxy.get("/a").status, 503, "{middlewares}");
        assert_eq!(proxy.get("/free").status, 200, "{middlewares}");
        let shown = proxy.api("/api/http/routers/a@file");
        assert_eq!(shown["status"], "disabled", "{shown}");
        assert!(shown["error"][0].as_str().unwrap().contains(says), "{shown}");
    }
}

/// RP-7.0.7: the types that Traefik keeps for its Gateway and ingress-nginx providers.
#[test]
fn types_of_other_providers_are_unknown() {
    const HIDDEN: [&str; 9] = [
        "requestHeaderModifier",
        "responseHeaderModifier",
        "requestRedirect",
        "urlRewrite",
        "snippet",
        "rewriteTarget",
        "upstreamVHost",
        "appRoot",
        "authTLSPassCertificateToUpstream",
    ];
    let origin = Origin::start();
    let mut text = through(&origin.url(), "fine", "fine: {compress: {}}");
    for name in HIDDEN {
        let router =
            format!("{name}: {{rule: PathPrefix(`/{name}`), service: app, middlewares: [{name}]}}");
        text = text
            .replace("routers:", &format!("routers:\n            {router}"))
            .replace("middlewares: {", &format!("middlewares: {{{name}: {{{name}: {{}}}}, "));
    }
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("/a").status, 200);
    for name in HIDDEN {
        assert_eq!(proxy.get(&format!("/{name}")).status, 503, "{name}");
        let shown = proxy.api(&format!("/api/http/routers/{name}@file"));
        assert_eq!(shown["status"], "disabled", "{shown}");
        let says = format!("unknown option `{name}`");
        assert!(shown["error"][0].as_str().unwrap().contains(&says), "{shown}");
    }
    assert_eq!(origin.count(), 1);
}

/// RP-7.4.22: whoever writes them is told what to write, and they change nothing.
#[test]
fn options_of_headers_without_effect_are_warned_of() {
    const DEPRECATED: [(&str, &str, &str); 5] = [
        ("sslRedirect", "true", "redirectScheme"),
        ("sslTemporaryRedirect", "true", "redirectScheme"),
        ("sslHost", "other.test", "redirectRegex"),
        ("sslForceHost", "true", "redirectRegex"),
        ("featurePolicy", "camera", "permissionsPolicy"),
    ];
    let origin = Origin::start();
    let options = DEPRECATED.map(|(option, value, _)| format!("{option}: {value}")).join(", ");
    let headers = format!("m: {{headers: {{{options}, customResponseHeaders: {{X-Here: yes}}}}}}")
        .replace("yes", "'yes'");
    let proxy = Proxy::start(&through(&origin.url(), "m", &headers));
    let answer = proxy.get("/a");
    assert_eq!((answer.status, answer.header("x-here")), (200, Some("yes")));
    for header in ["location", "feature-policy", "permissions-policy"] {
        assert_eq!(answer.header(header), None);
    }
    let checked = run(&["check", "--format=json", &proxy.file().display().to_string()]);
    assert_eq!(checked.status.code(), Some(0));
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let found: Vec<_> = said["diagnostics"].as_array().unwrap().iter().collect();
    for (option, _, instead) in DEPRECATED {
        let says = format!("`{option}` is deprecated and has no effect, use `{instead}`");
        let told = |one: &&&Value| one["message"].as_str().unwrap().contains(&says);
        assert_eq!(found.iter().filter(told).count(), 1, "{option}: {found:#?}");
    }
    assert!(found.iter().all(|one| one["severity"] == "warning"), "{found:#?}");
}

/// RP-7.0.3
#[test]
fn requests_pass_in_order_and_answers_in_reverse() {
    let origin = Origin::start();
    let proxy = Proxy::start(&through(
        &origin.url(),
        "first, second",
        "first: {headers: {customRequestHeaders: {X-At: first}, customResponseHeaders: {X-At: first}}}, \
         second: {headers: {customRequestHeaders: {X-At: second}, customResponseHeaders: {X-At: second}}}",
    ));
    assert_eq!(proxy.get("/a").header("x-at"), Some("first"));
    assert_eq!(origin.last().header("x-at"), Some("second"));
}

/// RP-7.0.4
#[test]
fn each_router_counts_for_itself() {
    let origin = Origin::start();
    let limit = "m: {rateLimit: {average: 1, period: 1h, burst: 1}}";
    let proxy = Proxy::start(&through(&origin.url(), "m", limit));
    for (place, status) in [("/a", 200), ("/b", 200), ("/a", 429), ("/b", 429)] {
        assert_eq!(proxy.get(place).status, status, "{place}");
    }
}

/// RP-7.3.24
#[test]
fn who_leaves_while_the_authentication_is_asked_asks_no_backend() {
    let (asked, question) = sync_channel(1);
    let keeper = Origin::raw(move |mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = asked.send(());
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let origin = Origin::start();
    let auth = format!("m: {{forwardAuth: {{address: '{}'}}}}", keeper.url());
    let proxy = Proxy::start(&through(&origin.url(), "m", &auth));
    let mut client = proxy.client();
    client.write(&Ask::get("/a")).unwrap();
    question.recv_timeout(DEADLINE).unwrap();
    client.leave();
    until("it counts as 499", || proxy.metric(LEFT) > 0.0);
    assert_eq!(origin.count(), 0);
}

/// RP-9.11, RP-7.7.22
#[test]
fn a_router_through_a_plugin_is_closed_and_says_why() {
    let origin = Origin::start();
    for (plugin, says) in [
        (
            "jwt: {signingSecret: hush}",
            "`plugin.jwt` is a middleware of Traefik Hub; use `forwardAuth`",
        ),
        ("distributedRateLimit: {}", "use `rateLimit` with its section `redis`"),
        ("demo: {}", "plugins are not supported yet: `demo`"),
    ] {
        let text = through(&origin.url(), "m", &format!("m: {{plugin: {{{plugin}}}}}"));
        let proxy = Proxy::start(&text);
        assert_eq!((proxy.get("/a").status, proxy.get("/free").status), (503, 200), "{plugin}");
        let shown = proxy.api("/api/http/middlewares/m@file");
        assert_eq!(shown["status"], "disabled");
        assert!(shown["error"][0].as_str().unwrap().contains(says), "{shown}");
        assert!(!shown.to_string().contains("hush"), "{shown}");
    }
}

/// RP-7.2.1, RP-7.2.2
#[test]
fn redirects_know_the_url_as_it_came() {
    let origin = Origin::start();
    let redirects = "m: {redirectRegex: {regex: '^(.*)$', replacement: 'https://to.test/?$1', permanent: true}}";
    let proxy = Proxy::start(&through(&origin.url(), "m", redirects));
    let place = "A.test:8080/a%2Fb?c=%7e";
    for (method, status) in [("GET", 301), ("HEAD", 308), ("POST", 308)] {
        let answer = proxy.send(&Ask::new(method, place));
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.header("location"), Some(&*format!("https://to.test/?http://{place}")));
    }
    assert_eq!(origin.count(), 0);
}
