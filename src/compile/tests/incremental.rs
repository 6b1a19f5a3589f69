//! The table always equals what compiling from nothing would give.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::config::diagnostics::Diagnostic;

/// What can be written for one object; the names are few, so that objects meet.
type Written = BTreeMap<&'static str, String>;

/// One object is written, rewritten or removed.
#[derive(Debug, Clone)]
enum Edit {
    Router(&'static str, Option<String>),
    Service(&'static str, Option<String>),
    Middleware(&'static str, Option<String>),
    Options(&'static str, Option<String>),
}

#[derive(Debug, Clone, Default)]
struct Configuration {
    routers: Written,
    services: Written,
    middlewares: Written,
    options: Written,
}

impl Configuration {
    fn apply(&mut self, edit: Edit) {
        let (section, name, text) = match edit {
            Edit::Router(name, text) => (&mut self.routers, name, text),
            Edit::Service(name, text) => (&mut self.services, name, text),
            Edit::Middleware(name, text) => (&mut self.middlewares, name, text),
            Edit::Options(name, text) => (&mut self.options, name, text),
        };
        match text {
            Some(text) => drop(section.insert(name, text)),
            None => drop(section.remove(name)),
        }
    }

    fn text(&self) -> String {
        let mut text = "http:\n".to_owned();
        for (kind, section) in [
            ("  routers", &self.routers),
            ("  services", &self.services),
            ("  middlewares", &self.middlewares),
            ("tls:\n  options", &self.options),
        ] {
            let _ = writeln!(text, "{kind}:");
            for (name, object) in section {
                let _ = writeln!(text, "    {name}: {object}");
            }
        }
        text
    }
}

fn pick(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn router() -> impl Strategy<Value = String> {
    let rule = pick(&[
        "Host(`a.test`)",
        "Host(`b.test`)",
        "Host(`*.test`) && Path(`/x`)",
        "Host(`a.test`) || Host(`b.test`)",
        "Host(`a.test`, `b.test`)",
        "PathPrefix(`/`)",
        "Host(`a.test`",
        "Oops(`a`)",
        "",
    ]);
    let service = pick(&["s0", "s1", "s2", "gone", "\'\'"]);
    let middlewares = pick(&["", "m0", "m1", "m2", "m0, m1", "m2, m0", "gone"]);
    let entry_points = pick(&["", "web", "shaped", "web, shaped", "alt, shaped", "nowhere"]);
    let tls = pick(&["", "", ", tls: {}", ", tls: {options: o0}", ", tls: {options: o1}"]);
    let more = pick(&[
        "",
        "",
        "",
        ", ruleSyntax: v2",
        ", parentRefs: [r0]",
        ", parentRefs: [r1, r2, r1]",
        ", priority: 7",
        ", priority: 9223372036854775807",
        ", oops: 1",
    ]);
    (rule, service, middlewares, entry_points, tls, more).prop_map(
        |(rule, service, middlewares, entry_points, tls, more)| {
            format!(
                "{{rule: '{rule}', service: {service}, middlewares: [{middlewares}], \
                 entryPoints: [{entry_points}]{tls}{more}}}"
            )
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let services = pick(&[
        "{loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}",
        "{loadBalancer: {servers: [{url: 'http://10.0.0.2'}]}}",
        "{loadBalancer: {servers: [], serversTransport: gone}}",
        "{weighted: {services: [{name: s0}]}}",
        "{weighted: {services: [{name: s1}, {name: s2}]}}",
        "{failover: {service: s2, fallback: s0}}",
        "{failover: {service: s2, fallback: s0, errors: {status: ['500']}}}",
        "{highestRandomWeight: {services: [{name: s0}, {name: s2}]}}",
        "{mirroring: {service: s0, mirrors: [{name: s1, percent: 50}]}}",
        "{middlewares: [m0, m2], loadBalancer: {servers: []}}",
        "{middlewares: [m1, gone], weighted: {services: [{name: s0}]}}",
        "{oops: 1}",
    ]);
    let middlewares = pick(&[
        "{addPrefix: {prefix: /x}}",
        "{addPrefix: {prefix: /y}}",
        "{chain: {middlewares: [m0]}}",
        "{chain: {middlewares: [m1, m2]}}",
        "{ipAllowList: {sourceRange: [nonsense]}}",
        "{oops: 1}",
    ]);
    let options =
        pick(&["{minVersion: VersionTLS12}", "{minVersion: VersionTLS13}", "{minVersion: Oops}"]);
    let maybe = |one: BoxedStrategy<String>| prop::option::weighted(0.8, one);
    prop_oneof![
        6 => (pick(&["r0", "r1", "r2", "r3", "shaped-r0"]), maybe(router().boxed()))
            .prop_map(|(name, text)| Edit::Router(name, text)),
        3 => (pick(&["s0", "s1", "s2"]), maybe(services.prop_map(str::to_owned).boxed()))
            .prop_map(|(name, text)| Edit::Service(name, text)),
        3 => (pick(&["m0", "m1", "m2"]), maybe(middlewares.prop_map(str::to_owned).boxed()))
            .prop_map(|(name, text)| Edit::Middleware(name, text)),
        1 => (pick(&["o0", "o1", "default"]), maybe(options.prop_map(str::to_owned).boxed()))
            .prop_map(|(name, text)| Edit::Options(name, text)),
    ]
}

fn is_unreadable(router: &str) -> bool {
    ["rule: ''", "Oops", "Host(`a.test`'", "Host(`a.test`, "]
        .iter()
        .any(|part| router.contains(part))
}

/// All that a table and its report say, in their order.
fn said(compiled: &Compiled) -> Vec<String> {
    let mut said = Vec::new();
    for (position, entry_point) in compiled.table.entry_points.iter().enumerate() {
        for (side, routers) in [("http", &entry_point.http), ("https", &entry_point.https)] {
            for router in routers.iter() {
                said.push(format!(
                    "{position} {side} {} {} {} {} broken={} tls={:?}",
                    router.name,
                    router.service,
                    router.rule.text(),
                    router.priority,
                    router.broken,
                    router.tls_options,
                ));
            }
        }
        let tls = entry_point.tls.as_ref().unwrap();
        for host in ["a.test", "b.test", "x.test", "other"] {
            said.push(format!("{position} {host} {}", tls.options_name_for(host)));
        }
        let hosts = ["a.test", "b.test", "*.test"];
        said.extend(hosts.map(|host| format!("{:?}", tls.conflict(host))));
    }
    let report = &compiled.report;
    for one in &*report.routers {
        let links: Vec<_> = one.links.iter().map(QualifiedName::as_str).collect();
        said.push(format!(
            "{} {} {:?} {:?} {links:?}",
            one.name, one.priority, one.status, one.errors
        ));
    }
    for one in &*report.services {
        said.push(format!(
            "{} {:?} {:?} {}",
            one.name,
            one.status,
            one.errors,
            one.service.is_some()
        ));
    }
    for one in &*report.middlewares {
        said.push(format!("{} {:?} {:?}", one.name, one.status, one.errors));
    }
    said.extend(report.diagnostics.iter().map(Diagnostic::one_line));
    said.extend(report.not_ready.iter().cloned());
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn remembering_changes_nothing(
        skip in any::<bool>(),
        start in prop::collection::vec(edit(), 0..20),
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..3), 1..8),
    ) {
        let mode = if skip { OnBrokenRouter::Skip } else { OnBrokenRouter::Refuse };
        // Where places are kept, a rule that became unreadable means the last one on purpose.
        let usable = |edit: &Edit| skip || !matches!(edit, Edit::Router(_, Some(text)) if is_unreadable(text));
        let world = World::on_broken_router(mode);
        let mut configuration = Configuration::default();
        for edit in start.into_iter().filter(usable) {
            configuration.apply(edit);
        }
        let mut config = read(&configuration.text());
        let mut compiled = world.compile(&config, None);
        for edits in rounds {
            for edit in edits.into_iter().filter(usable) {
                configuration.apply(edit);
            }
            let mut next = DynamicConfig::clone(&read(&configuration.text()));
            next.reuse(&config);
            config = Arc::new(next);
            compiled = world.compile(&config, Some(&compiled.memo));
            // Places in the file come from the objects, so both are given the same ones.
            let fresh = World::on_broken_router(mode).compile(&config, None);
            prop_assert_eq!(said(&compiled), said(&fresh), "{}", configuration.text());
        }
    }
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let world = World::new();
    let routers = |host: &str| {
        with_service(&format!(
            "  middlewares:\n    m: {{addPrefix: {{prefix: /x}}}}\n  routers:\n    \
             a: {{rule: Host(`{host}`), service: s}}\n    \
             b: {{rule: Host(`b.test`), service: s, middlewares: [m], tls: {{}}}}\n"
        ))
    };
    let before = read(&routers("a.test"));
    let first = world.compile(&before, None);
    let mut after = DynamicConfig::clone(&read(&routers("z.test")));
    after.reuse(&before);
    let second = world.compile(&Arc::new(after), Some(&first.memo));
    let [one, two] = [&first, &second].map(|compiled| &compiled.table.entry_points[0]);
    let secure =
        |routes: &crate::router::EntryPointRoutes| Arc::clone(routes.https.iter().next().unwrap());
    assert!(Arc::ptr_eq(&secure(one), &secure(two)));
    assert!(Arc::ptr_eq(one.tls.as_ref().unwrap(), two.tls.as_ref().unwrap()));
    assert!(Arc::ptr_eq(&first.memo.services, &second.memo.services));
    assert_eq!(two.http.iter().next().unwrap().rule.text(), "Host(`z.test`)");
}
