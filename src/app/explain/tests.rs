//! Tests of `explain` from configuration text to what is told.

use std::fmt::Write as _;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::told::{EntryPointTold, Verdict};
use super::*;

const STATIC: &str = "
entryPoints:
  web: {address: ':80', http: {redirections: {entryPoint: {to: websecure}}}}
  websecure: {address: ':443', http: {tls: {}, encodedCharacters: {allowEncodedSlash: false}}}
  inside: {address: ':9000'}
";
const ROUTES: &str = "
http:
  routers:
    shop: {rule: 'Host(`shop.test`) && PathPrefix(`/api`)', middlewares: [both], service: shop}
    all: {rule: Host(`shop.test`), service: shop}
    broken: {rule: Host(`broken.test`), service: missing}
    strict: {rule: Host(`mtls.test`), tls: {options: strict}, service: shop}
    top: {rule: Host(`tree.test`), middlewares: [both], entryPoints: [inside]}
    left: {rule: PathPrefix(`/v1`), service: shop, parentRefs: [top]}
    right: {rule: PathPrefix(`/v2`), service: empty, parentRefs: [top]}
  middlewares:
    both: {chain: {middlewares: [local, strip]}}
    local: {ipAllowList: {sourceRange: [10.0.0.0/8]}}
    strip: {stripPrefix: {prefixes: [/api]}}
  services:
    shop: {loadBalancer: {servers: [{url: 'http://10.0.0.1:8069'}]}}
    empty: {loadBalancer: {servers: []}}
tls: {options: {strict: {minVersion: VersionTLS13}}}
";

fn subject(texts: &[(&str, &str)]) -> Subject {
    let directory = TempDir::new().unwrap();
    let mut files = Vec::new();
    for (name, text) in texts {
        files.push(directory.path().join(name));
        fs::write(files.last().unwrap(), text).unwrap();
    }
    let mut said = Vec::new();
    compiled(Written::read(&files).unwrap(), &mut said).unwrap()
}

fn shops() -> Subject {
    subject(&[("static.yml", STATIC), ("routes.yml", ROUTES)])
}

fn ask(url: &str, headers: &[(&'static str, &'static str)]) -> Ask {
    let mut ask = Ask::get(url).unwrap();
    for (name, value) in headers {
        ask.headers.insert(*name, value.parse().unwrap());
    }
    ask
}

fn only(ask: &Ask, subject: &Subject) -> EntryPointTold {
    let mut told = explain(ask, None, false, subject).unwrap().entry_points;
    assert_eq!(told.len(), 1);
    told.remove(0)
}

/// Status, answered or not, and the routers on the way.
fn outcome(told: &EntryPointTold) -> (Option<u16>, bool, Vec<&str>) {
    let names = told.routers.iter().map(|router| &*router.name);
    (told.outcome.status, told.outcome.answered, names.collect())
}

#[test]
fn the_winner_its_middlewares_and_what_they_do() {
    let told = only(&ask("https://SHOP.test/x/../api/y?q", &[]), &shops());
    assert_eq!(outcome(&told), (None, true, vec!["websecure-shop@file"]));
    assert_eq!(told.became.as_deref(), Some("/api/y?q"));
    let [local, strip] = &told.routers[0].middlewares[..] else { panic!("{:?}", told.routers) };
    assert_eq!(
        (&*local.kind, local.effect.as_deref()),
        ("ipAllowList", Some("may refuse the request"))
    );
    assert_eq!(strip.effect.as_deref(), Some("the path becomes /y?q"));
    assert!(strip.place.as_ref().unwrap().ends_with("routes.yml:14"), "{:?}", strip.place);
    let other = told.others.iter().find(|other| other.name == "websecure-all@file").unwrap();
    assert_eq!(other.verdict, Verdict::Loses);
    assert_eq!(other.why, ["also matches, but its priority 17 is below 39 of websecure-shop@file"]);
}

#[test]
fn what_a_known_client_gets() {
    let mut asked = ask("http://shop.test:9000/api/", &[]);
    (asked.client, asked.is_client_assumed) = ("192.0.2.1".parse().unwrap(), false);
    let told = only(&asked, &shops());
    assert_eq!(outcome(&told), (Some(403), false, vec!["shop@file"]));
    let effects: Vec<_> =
        told.routers[0].middlewares.iter().map(|one| one.effect.as_deref()).collect();
    assert_eq!(effects, [Some("answers 403"), Some("is not reached")]);
}

#[test]
fn what_does_not_come_to_a_service() {
    let subject = shops();
    let broken = only(&ask("https://broken.test/", &[]), &subject);
    assert_eq!(outcome(&broken), (Some(503), false, vec!["websecure-broken@file"]));
    assert!(broken.outcome.why.contains("the service \"missing@file\" does not exist"));
    let nobody = only(&ask("https://nobody.test/", &[]), &subject);
    assert_eq!(outcome(&nobody), (Some(404), false, vec![]));
    let redirected = only(&ask("http://shop.test/a", &[]), &subject);
    assert_eq!(outcome(&redirected), (Some(301), true, vec!["web-to-websecure@internal"]));
    assert!(redirected.outcome.why.ends_with("redirects to https://shop.test/a"));
    let encoded = only(&ask("https://shop.test/a%2Fb", &[]), &subject);
    assert_eq!(outcome(&encoded), (Some(400), false, vec!["websecure-all@file"]));
    let malformed = only(&ask("https://shop.test/%zz", &[]), &subject);
    assert_eq!(outcome(&malformed), (Some(400), false, vec![]));
}

#[test]
fn another_host_over_the_connection_of_a_first_is_misdirected() {
    let subject = shops();
    let right = only(&ask("https://mtls.test/", &[]), &subject);
    assert_eq!(outcome(&right), (None, true, vec!["websecure-strict@file"]));
    let wrong = only(&ask("https://shop.test/", &[("host", "mtls.test")]), &subject);
    assert_eq!(outcome(&wrong), (Some(421), false, vec!["websecure-strict@file"]));
    assert!(wrong.outcome.why.contains("strict@file"), "{}", wrong.outcome.why);
}

#[test]
fn routers_below_are_judged_on_the_changed_path() {
    let subject = shops();
    let told = only(&ask("http://tree.test:9000/api/v1/x", &[]), &subject);
    assert_eq!(outcome(&told), (None, true, vec!["top@file", "left@file"]));
    let right = told.others.iter().find(|other| other.name == "right@file").unwrap();
    assert_eq!(right.why, ["PathPrefix(`/v2`): the path is `/v1/x`"]);
    let empty = only(&ask("http://tree.test:9000/v2", &[]), &subject);
    assert_eq!(outcome(&empty), (Some(503), false, vec!["top@file", "right@file"]));
    let none = only(&ask("http://tree.test:9000/v3", &[]), &subject);
    assert_eq!(outcome(&none), (Some(404), false, vec!["top@file"]));
}

#[test]
fn entry_points_are_found_by_port_or_named() {
    let subject = shops();
    let told = explain(&ask("http://tree.test:8080/", &[]), None, false, &subject).unwrap();
    let names: Vec<_> = told.entry_points.iter().map(|one| &*one.entry_point).collect();
    assert_eq!(names, ["inside", "web"]);
    assert!(told.notes[0].contains("no entry point listens at port 8080"));
    let inside = explain(&ask("http://tree.test/", &[]), Some("inside"), false, &subject).unwrap();
    assert_eq!(inside.entry_points[0].entry_point, "inside");
    let unknown = explain(&ask("http://tree.test/", &[]), Some("insid"), false, &subject);
    assert!(unknown.unwrap_err().to_string().contains("did you mean `inside`?"));
}

#[test]
fn of_many_routers_those_that_are_near_are_listed() {
    let mut text = "http:\n  services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}}\n  routers:\n".to_owned();
    for number in 0..2_000 {
        let _ = writeln!(text, "    r{number}: {{rule: Host(`h{number}.test`), service: s}}");
    }
    let _ = writeln!(text, "    near: {{rule: 'Host(`h7.test`) && Path(`/x`)', service: s}}");
    let subject = subject(&[("routes.yml", &text)]);
    let told = only(&ask("http://h7.test/", &[]), &subject);
    assert_eq!(outcome(&told), (None, true, vec!["r7@file"]));
    let names: Vec<_> = told.others.iter().map(|other| &*other.name).collect();
    assert_eq!(names, ["near@file"]);
    assert_eq!((told.not_listed.len(), told.not_listed[0].count), (1, 1_999));
    let mut page = Vec::new();
    let whole = explain(&ask("http://h7.test/", &[]), None, false, &subject).unwrap();
    text::write(&whole, &mut page, false).unwrap();
    assert!(String::from_utf8(page).unwrap().contains("1,999 others are for other hosts"));
    let all = explain(&ask("http://h7.test/", &[]), None, true, &subject).unwrap();
    assert_eq!(all.entry_points[0].others.len(), 2_000);
}

#[test]
fn middlewares_of_services_are_run_too() {
    let text = "
http:
  routers:
    one: {rule: Host(`one.test`), middlewares: [v1], service: api}
    away: {rule: Host(`away.test`), service: away}
    mixed: {rule: Host(`mixed.test`), service: mixed}
    alike: {rule: Host(`alike.test`), service: alike}
    limited: {rule: Host(`limited.test`), middlewares: [v1], service: plain, requestBody: {maxBytes: 9}}
  middlewares:
    v1: {addPrefix: {prefix: /v1}}
    chain: {chain: {middlewares: [api]}}
    api: {addPrefix: {prefix: /api}}
    secure: {redirectScheme: {scheme: https}}
  services:
    plain: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}
    api: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}, middlewares: [chain]}
    away: {weighted: {services: [{name: api}]}, middlewares: [secure]}
    mixed: {weighted: {services: [{name: api}, {name: plain}]}}
    alike: {mirroring: {service: api, mirrors: [{name: plain, percent: 10}]}}
";
    let subject = subject(&[("routes.yml", text)]);
    let why = |host: &str| only(&ask(&format!("http://{host}.test/x"), &[]), &subject).outcome;
    assert_eq!(why("one").why, "service api@file answers, asked for /api/v1/x");
    assert_eq!(why("alike").why, "service alike@file answers, asked for /api/x");
    let mixed = why("mixed");
    assert_eq!(
        (mixed.answered, &*mixed.why),
        (true, "service mixed@file answers; what it is asked for depends on the member")
    );
    let away = only(&ask("http://away.test/x", &[]), &subject);
    assert_eq!(outcome(&away), (Some(302), true, vec!["away@file"]));
    assert_eq!(away.outcome.why, "middleware secure@file redirects to https://away.test/x");
    let member = &away.service.unwrap().services[0];
    assert_eq!(member.middlewares[0].effect.as_deref(), Some("is not reached"));
    // Who keeps the limits of a router stands in front of its middlewares and is none of them.
    assert_eq!(why("limited").why, "service plain@file answers, asked for /v1/x");
}

#[test]
fn a_handshake_that_depends_on_certificates() {
    let text = "
http:
  routers:
    strict: {rule: Host(`strict.test`), tls: {options: strict}, service: s}
    mtls: {rule: Host(`mtls.test`), tls: {options: mtls}, service: s}
    gone: {rule: Host(`mtls.test`) && Path(`/gone`), tls: {options: mtls}, service: missing}
  services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}}
tls:
  options:
    strict: {sniStrict: true}
    mtls: {clientAuth: {clientAuthType: RequireAnyClientCert}}
";
    let plain = subject(&[("routes.yml", text)]);
    let refused = only(&ask("https://strict.test/", &[]), &plain);
    assert_eq!(outcome(&refused), (None, false, vec![]));
    assert!(refused.outcome.why.contains("no certificate that is configured covers `strict.test`"));
    let mtls = only(&ask("https://mtls.test/", &[]), &plain);
    assert_eq!(outcome(&mtls), (None, true, vec!["mtls@file"]));
    assert!(
        mtls.outcome.why.ends_with(", if the client shows a certificate"),
        "{:?}",
        mtls.outcome
    );
    assert_eq!(mtls.handshake.as_deref(), Some("the client must show a certificate"));
    let gone = only(&ask("https://mtls.test/gone", &[]), &plain);
    assert_eq!(gone.outcome.status, Some(503));
    // What a resolver has obtained is not in the files.
    let acme = text.replace("{options: strict}", "{options: strict, certResolver: le}");
    let acme = subject(&[("routes.yml", &acme)]);
    let perhaps = only(&ask("https://strict.test/", &[]), &acme);
    assert!(perhaps.outcome.answered);
    assert!(perhaps.handshake.unwrap().contains("unless a certificates resolver has obtained one"));
}

#[test]
fn what_middlewares_and_the_dashboard_answer() {
    let fixed = "
entryPoints: {web: {address: ':80'}, traefik: {address: ':8080'}}
api: {insecure: true}
core: {onBrokenRouter: lastGood}
";
    let text = "
http:
  routers:
    cors: {rule: Host(`cors.test`), entryPoints: [web], middlewares: [cors], service: s}
    broken: {rule: Host(`broken.test`), entryPoints: [web], service: missing}
  middlewares:
    cors: {headers: {accessControlAllowMethods: [GET], accessControlAllowOriginList: ['*']}}
  services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}}
";
    let subject = subject(&[("static.yml", fixed), ("routes.yml", text)]);
    let headers = [("origin", "http://a.test"), ("access-control-request-method", "GET")];
    let mut preflight = ask("http://cors.test/", &headers);
    preflight.method = http::Method::OPTIONS;
    let told = only(&preflight, &subject);
    assert_eq!(outcome(&told), (Some(200), true, vec!["cors@file"]));
    assert_eq!(told.outcome.why, "middleware cors@file answers");
    let ping = only(&ask("http://any.test:8080/ping", &[]), &subject);
    assert_eq!(outcome(&ping), (Some(404), false, vec!["dashboard@internal"]));
    let page = only(&ask("http://any.test:8080/dashboard/", &[]), &subject);
    assert_eq!(outcome(&page), (None, true, vec!["dashboard@internal"]));
    let broken = only(&ask("http://broken.test/", &[]), &subject);
    assert_eq!(broken.outcome.status, Some(503));
    assert!(broken.outcome.why.contains("may serve the last good build"), "{:?}", broken.outcome);
    let mut twice = ask("http://cors.test/", &[]);
    twice.headers.append("host", "other.test".parse().unwrap());
    assert_eq!(outcome(&only(&twice, &subject)), (Some(400), false, vec![]));
}

fn rule() -> impl Strategy<Value = String> {
    let matcher = prop_oneof![
        4 => "[ab]\\.test".prop_map(|host| format!("Host(`{host}`)")),
        1 => Just("Host(`*.test`)".to_owned()),
        2 => "/[xy]?".prop_map(|path| format!("PathPrefix(`{path}`)")),
        1 => Just("Method(`POST`)".to_owned()),
        1 => Just("Header(`X-A`, `1`)".to_owned()),
    ];
    matcher.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|rule| format!("!({rule})")),
            3 => (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} && {other})")),
            2 => (inner.clone(), inner).prop_map(|(one, other)| format!("({one} || {other})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// The one that is named is the one that the running table picks, and the first in match order of all that match;
    /// nobody who matches has a reason not to, and everybody else has one.
    #[test]
    fn the_winner_is_the_router_that_the_table_picks(
        rules in prop::collection::vec((rule(), 0..3_i64), 1..8),
        host in "[abc]\\.test",
        path in "/[xyz]?",
        post in any::<bool>(),
        header in any::<bool>(),
    ) {
        let mut text = "http:\n  services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}}\n  routers:\n".to_owned();
        for (number, (rule, priority)) in rules.iter().enumerate() {
            let _ = writeln!(text, "    r{number}: {{rule: '{rule}', priority: {priority}, service: s}}");
        }
        let subject = subject(&[("routes.yml", &text)]);
        let mut asked = ask(&format!("http://{host}{path}"), if header { &[("x-a", "1")] } else { &[] });
        if post {
            asked.method = http::Method::POST;
        }
        let told = explain(&asked, None, true, &subject).unwrap().entry_points.remove(0);
        let canonical = Canonical::of(&asked, &subject, &subject.doors[0]).unwrap().ok().unwrap();
        let routers = &subject.table.compiled.table.entry_points[0].http;
        let picked = routers.find(&canonical.view()).map(|router| router.name.to_string());
        let first = routers.iter().find(|router| router.rule.matches(&canonical.view()));
        prop_assert_eq!(&picked, &first.map(|router| router.name.to_string()));
        prop_assert_eq!(told.routers.first().map(|router| router.name.clone()), picked);
        prop_assert_eq!(told.others.len() + told.routers.len(), rules.len());
        for other in &told.others {
            let rule = crate::rule::Rule::parse(&other.rule).unwrap();
            prop_assert_eq!(rule.matches(&canonical.view()), other.verdict == Verdict::Loses, "{:?}", other);
            prop_assert!(!other.why.is_empty());
        }
    }
}
