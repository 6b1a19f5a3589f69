//! Objects that cannot be built, and where the default is not a plain router.

use super::*;
use crate::compile::{MiddlewareReport, Status};
use crate::config::diagnostics::{Diagnostic, without_consequences};

const GOOD: &str = "  routers:\n    r: {rule: Host(`a.test`), service: s}\n";
const NO_SERVICE: &str = "  routers:\n    r: {rule: Host(`a.test`), service: gone}\n";

#[test]
fn a_broken_router_keeps_its_place() {
    let world = World::new();
    let compiled = world.text(&with_service(NO_SERVICE));
    assert_eq!(names(&compiled), ["r@file!"]);
    assert_eq!(compiled.report.routers[0].status, Status::Disabled);
    assert_eq!(messages(&compiled), ["the service \"gone@file\" does not exist"]);
    assert!(compiled.report.not_ready.is_empty());
}

#[test]
fn a_broken_router_can_go_on_as_it_was() {
    let world = World::on_broken_router(OnBrokenRouter::LastGood);
    let good = world.text(&with_service(GOOD));
    let broken = world.compile(&read(&with_service(NO_SERVICE)), Some(&good.memo));
    assert_eq!(names(&broken), ["r@file"]);
    assert_eq!(broken.report.diagnostics.len(), 1);
    // And still after another reload.
    let again = world.compile(&read(&with_service(NO_SERVICE)), Some(&broken.memo));
    assert_eq!(names(&again), ["r@file"]);
    // Without a good one before it is the 503.
    assert_eq!(names(&world.text(&with_service(NO_SERVICE))), ["r@file!"]);
}

#[test]
fn a_broken_router_can_be_left_out() {
    let world = World::on_broken_router(OnBrokenRouter::Skip);
    let compiled = world.text(&with_service(NO_SERVICE));
    assert!(names(&compiled).is_empty());
    assert_eq!(compiled.report.diagnostics.len(), 1);
}

#[test]
fn a_rule_that_cannot_be_read_keeps_the_hosts_that_can() {
    let world = World::new();
    let rule = "  routers:\n    r: {rule: 'Host(`a.test`) && Hosst(`b.test`) || Host(`c.test`', service: s}\n";
    let compiled = world.text(&with_service(rule));
    let http = &compiled.table.entry_points[0].http;
    let rules: Vec<_> = http.iter().map(|router| router.rule.text().to_owned()).collect();
    assert_eq!(rules, ["Host(`a.test`)", "Host(`c.test`)"]);
    assert!(http.iter().all(|router| router.broken));
    assert!(compiled.report.not_ready.is_empty());

    let nothing = "  routers:\n    r: {rule: 'Path(`/a`', service: s}\n";
    let compiled = world.text(&with_service(nothing));
    assert!(names(&compiled).is_empty());
    assert_eq!(compiled.report.not_ready.len(), 1);
}

#[test]
fn an_unreadable_rule_goes_on_with_the_last_good_one() {
    let world = World::new();
    let good = world.text(&with_service(GOOD));
    let bad = read(&with_service("  routers:\n    r: {rule: 'Host(`a.test', service: s}\n"));
    let compiled = world.compile(&bad, Some(&good.memo));
    assert_eq!(names(&compiled), ["r@file"]);
    assert_eq!(compiled.report.routers[0].status, Status::Disabled);
}

#[test]
fn chains_in_a_circle_are_an_error_of_their_router() {
    let world = World::new();
    let compiled = world.text(&with_service(
        "  middlewares:\n    a: {chain: {middlewares: [b]}}\n    b: {chain: {middlewares: [a]}}\n  \
         routers:\n    r: {rule: Host(`a.test`), service: s, middlewares: [a]}\n    \
         other: {rule: Host(`b.test`), service: s}\n",
    ));
    assert_eq!(names(&compiled), ["other@file", "r@file!"]);
    let expected = [
        "could not instantiate middleware a@file: recursion detected in a@file->b@file->a@file",
        "could not instantiate middleware b@file: recursion detected in b@file->a@file->b@file",
    ];
    let told = without_consequences(&compiled.report.diagnostics);
    assert!(told.iter().map(|one| &*one.message).eq(expected), "{told:#?}");
    assert_eq!(told[0].note(), Some("router r@file is in error because of it"));
    assert!(compiled.report.middlewares.iter().all(|one| one.status == Status::Disabled));
}

#[test]
fn services_in_a_circle_are_errors_the_same_way_every_time() {
    let text = with_service(
        "    c: {weighted: {services: [{name: a}]}}\n    b: {weighted: {services: [{name: c}]}}\n    \
         a: {weighted: {services: [{name: b}]}}\n    z: {weighted: {services: [{name: s}]}}\n  \
         routers:\n    r: {rule: Host(`a.test`), service: c}\n    \
         other: {rule: Host(`b.test`), service: z}\n",
    );
    let world = World::new();
    let first = world.text(&text);
    assert_eq!(names(&first), ["other@file", "r@file!"]);
    let all = messages(&first);
    let circle = "recursion detected in a@file -> b@file -> c@file -> a@file";
    assert!(all.iter().any(|message| message.contains(circle)), "{all:#?}");
    let config = read(&text);
    let again = world.compile(&config, Some(&first.memo));
    assert_eq!(messages(&again), all);
}

/// A circle as long as services may stand in each other is a circle still.
#[test]
fn a_long_circle_is_called_a_circle() {
    use std::fmt::Write as _;

    let mut text = with_service("");
    for at in 0..32 {
        let next = (at + 1) % 32;
        let _ = writeln!(text, "    c{at:02}: {{weighted: {{services: [{{name: c{next:02}}}]}}}}");
    }
    let all = messages(&World::new().text(&text));
    let circle = "recursion detected in c00@file -> c01@file -> ";
    assert!(all.iter().any(|message| message.contains(circle)), "{all:#?}");
    assert!(!all.iter().any(|message| message.contains("stand in each other")), "{all:#?}");
}

#[test]
fn chains_that_multiply_are_an_error_of_their_router() {
    use std::fmt::Write as _;

    for last in ["    c40: {addPrefix: {prefix: /x}}\n", "    c40: {chain: {middlewares: []}}\n"] {
        let mut text = with_service(
            "  routers:\n    r: {rule: Host(`a.test`), service: s, middlewares: [c0, c0]}\n    \
             other: {rule: Host(`b.test`), service: s, middlewares: [c35]}\n  middlewares:\n",
        );
        for level in 0..40 {
            let next = level + 1;
            let _ = writeln!(text, "    c{level}: {{chain: {{middlewares: [c{next}, c{next}]}}}}");
        }
        text += last;
        let compiled = World::new().text(&text);
        assert_eq!(names(&compiled), ["other@file", "r@file!"]);
        let all = messages(&compiled);
        let too_many = "more than 1000 middlewares, those of chains counted";
        assert!(all.iter().all(|message| message == too_many), "{all:#?}");
        let works = |one: &&MiddlewareReport| one.status == Status::Enabled;
        let working = compiled.report.middlewares.iter().filter(works);
        let names: Vec<_> = working.map(|one| one.name.name()).collect();
        assert_eq!(names, ["c32", "c33", "c34", "c35", "c36", "c37", "c38", "c39", "c40"]);
    }
}

#[test]
fn services_may_not_stand_in_each_other_without_end() {
    use std::fmt::Write as _;

    let world = World::new();
    // Whether the one that holds all others comes first or last by name.
    for reversed in [false, true] {
        let name = |at: usize| format!("s{:05}", if reversed { 5000 - at } else { at });
        let mut text = "http:\n  services:\n".to_owned();
        for at in 0..5000 {
            let (one, next) = (name(at), name(at + 1));
            let _ = writeln!(text, "    {one}: {{weighted: {{services: [{{name: {next}}}]}}}}");
        }
        let last = name(5000);
        let _ = writeln!(text, "    {last}: {{loadBalancer: {{servers: [{{url: 'http://a'}}]}}}}");
        let config = read(&text);
        let compiled = world.compile(&config, None);
        let works = |at: usize| {
            let services = &compiled.report.services;
            let found =
                services.iter().find(|one| one.name.as_str() == format!("{}@file", name(at)));
            found.unwrap().status == Status::Enabled
        };
        assert!((4969..=5000).all(works));
        assert!(![0, 1, 2500, 4967, 4968].into_iter().any(works));
        assert_eq!(compiled.report.diagnostics.len(), 4969);
        let again = world.compile(&config, Some(&compiled.memo));
        assert_eq!(messages(&again), messages(&compiled));
    }
}

#[test]
fn routers_without_entry_points_stand_at_the_default_ones() {
    let compiled = World::new().text(&with_service(GOOD));
    let at = |entry_point| names_at(&compiled.table, entry_point);
    assert_eq!((at(0), at(1)), (vec!["r@file".to_owned()], vec!["r@file".to_owned()]));
    assert!(at(2).is_empty());
}

#[test]
fn an_entry_point_with_a_model_gets_a_copy() {
    let compiled = World::new().text(&with_service(
        "  middlewares:\n    m0: {addPrefix: {prefix: /x}}\n  routers:\n    \
         r: {rule: Host(`a.test`), service: s, entryPoints: [web, shaped, nowhere]}\n    \
         alone: {rule: Host(`b.test`), service: s, entryPoints: [shaped]}\n",
    ));
    assert_eq!(names(&compiled), ["r@file"]);
    assert_eq!(names_at(&compiled.table, 2), ["alone@file", "shaped-r@file"]);
    let routers = &compiled.report.routers;
    let links: Vec<_> = routers.iter().map(|one| (one.name.as_str(), one.links.len())).collect();
    assert_eq!(links, [("alone@file", 1), ("r@file", 0), ("shaped-r@file", 1)]);
    assert_eq!(messages(&compiled), ["entryPoint \"nowhere\" doesn't exist"; 2]);
}

#[test]
fn all_that_is_wrong_with_a_router_is_told() {
    let compiled = World::new().text(&with_service(
        "  middlewares:\n    bad: {ipAllowList: {sourceRange: [nonsense]}}\n  routers:\n    \
         r:\n      rule: Host(`a.test`) && Oops(`b`)\n      entryPoints: [web, nowhere]\n      \
         service: gone\n      middlewares: [lost, bad, missing]\n      tls: {options: none}\n      \
         priority: 9223372036854775807\n",
    ));
    let said = messages(&compiled);
    for part in [
        "\"nowhere\" doesn't exist",
        "unsupported function: Oops",
        "exceeds the max",
        "unknown TLS options: none@file",
        "middleware \"lost@file\" does not exist",
        "middleware \"missing@file\" does not exist",
        "middleware \"bad@file\" is in error",
        "service \"gone@file\" does not exist",
    ] {
        let count = |all: &[String]| all.iter().filter(|one| one.contains(part)).count();
        assert_eq!(count(&said), 1, "{part}: {said:#?}");
        assert_eq!(count(&compiled.report.routers[0].errors), 1, "{part}");
    }
    let oops = &compiled.report.diagnostics.iter().find(|one| one.message.contains("Oops"));
    assert_eq!(oops.unwrap().span.as_ref().unwrap().text(), "Oops");
}

#[test]
fn who_suffers_from_an_object_in_error_knows_it() {
    let compiled = World::new().text(&with_service(
        "    sick: {loadBalancer: {servers: [], serversTransport: gone}}\n  middlewares:\n    \
         odd: {oops: 1}\n    outer: {chain: {middlewares: [odd]}}\n    \
         hollow: {chain: {middlewares: [gone]}}\n  routers:\n    \
         a: {rule: Host(`a.test`), service: sick, middlewares: [outer]}\n    \
         b: {rule: Host(`b.test`), service: gone, middlewares: [gone, hollow]}\n    \
         c: {rule: Host(`c.test`), service: s, tls: {options: wrong}}\n\
         tls:\n  options:\n    wrong: {minVersion: Oops}\n",
    ));
    let diagnostics = compiled.report.diagnostics.iter();
    let of_routers =
        diagnostics.filter(|one| one.subject.as_ref().is_some_and(|one| one.kind == "router"));
    let causes: Vec<_> = of_routers
        .map(|one| {
            let cause = one.cause().map(|cause| (cause.kind, &*cause.name));
            (&*one.subject.as_ref().unwrap().name, cause)
        })
        .collect();
    let expected = [
        ("a@file", Some(("service", "sick@file"))),
        ("a@file", Some(("middleware", "odd@file"))),
        ("b@file", None),
        ("b@file", None),
        ("b@file", Some(("middleware", "hollow@file"))),
        ("c@file", Some(("tls options", "wrong@file"))),
    ];
    assert_eq!(causes, expected);
}

#[test]
fn one_broken_middleware_is_said_once() {
    let compiled = World::new().text(&with_service(
        "  middlewares:\n    bad: {ipAllowList: {sourceRange: [nonsense]}}\n  routers:\n    \
         a: {rule: Host(`a.test`), service: s, middlewares: [bad]}\n    \
         b: {rule: Host(`b.test`), service: s, middlewares: [bad]}\n",
    ));
    assert_eq!(names(&compiled), ["a@file!", "b@file!"]);
    let of_the_middleware = |one: &&Diagnostic| {
        one.subject.as_ref().is_some_and(|subject| subject.kind == "middleware")
    };
    assert_eq!(compiled.report.diagnostics.iter().filter(of_the_middleware).count(), 1);
    assert_eq!(compiled.report.diagnostics.len(), 3);
    let told = without_consequences(&compiled.report.diagnostics);
    let notes: Vec<_> = told.iter().map(Diagnostic::note).collect();
    assert_eq!(notes, [Some("routers a@file, b@file are in error because of it")]);
    assert_eq!(compiled.report.middlewares[0].status, Status::Disabled);
    let places: Vec<_> =
        compiled.report.diagnostics.iter().map(|one| one.span.as_ref().unwrap().start).collect();
    assert!(places.is_sorted(), "in the order of the file: {places:?}");
}
