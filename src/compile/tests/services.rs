//! Services with middlewares of their own, and services of the provider `internal` below others.

use std::sync::Arc;

use super::*;
use crate::config::diagnostics::Diagnostic;
use crate::exchange::{Context, Handler, Request, ResponseFuture, error};

struct Teapot;

impl Handler for Teapot {
    fn handle<'a>(&'a self, _: &'a Context, _: Request) -> ResponseFuture<'a> {
        crate::exchange::ready(error::empty(http::StatusCode::IM_A_TEAPOT))
    }
}

fn config(more: &str) -> String {
    with_service(&format!(
        "    t: {{middlewares: [m], loadBalancer: {{servers: []}}}}\n{more}  routers:\n    \
         r: {{rule: Host(`a.test`), service: t}}\n"
    ))
}

fn lines(compiled: &Compiled) -> Vec<String> {
    compiled.report.diagnostics.iter().map(Diagnostic::one_line).collect()
}

#[test]
fn what_is_wrong_with_a_middleware_is_wrong_with_its_service_and_the_routers() {
    let world = World::new();
    for (middlewares, said) in [
        ("", "middleware \"m@file\" does not exist"),
        ("  middlewares:\n    m: {addPrefix: {}}\n", "middleware \"m@file\" is in error: "),
        ("  middlewares:\n    m: {compress: {}, retry: {}}\n", "multi-types middleware"),
        (
            "  middlewares:\n    m: {chain: {middlewares: [m]}}\n",
            "recursion detected in m@file->m@file",
        ),
    ] {
        let compiled = world.text(&config(middlewares));
        assert_eq!(names(&compiled), ["r@file!"]);
        let report = compiled.report.services.iter().find(|one| one.name.name() == "t").unwrap();
        assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
        assert!(report.errors[0].contains(said), "{:?}", report.errors);
        let lines = lines(&compiled);
        assert!(
            lines.iter().any(|line| line.starts_with("dynamic.yml:4:") && line.contains(said)),
            "{lines:?}"
        );
    }
}

#[test]
fn a_middleware_that_changes_makes_its_service_anew() {
    let world = World::new();
    let text = |prefix: &str| {
        config(&format!("  middlewares:\n    m: {{addPrefix: {{prefix: {prefix}}}}}\n"))
    };
    let before = read(&text("/x"));
    let first = world.compile(&before, None);
    assert_eq!(messages(&first), Vec::<String>::new());
    let again = |text: &str, compiled: &Compiled, before: &Arc<DynamicConfig>| {
        let mut after = DynamicConfig::clone(&read(text));
        after.reuse(before);
        world.compile(&Arc::new(after), Some(&compiled.memo))
    };
    let service = |compiled: &Compiled, name: &str| {
        let name = QualifiedName::new(name, "file");
        compiled.memo.services.by_name[&name].service.clone().unwrap()
    };
    let same = |one: &Compiled, other: &Compiled, name: &str| {
        std::ptr::addr_eq(Arc::as_ptr(&service(one, name)), Arc::as_ptr(&service(other, name)))
    };
    let second = again(&text("/y"), &first, &before);
    assert!(same(&first, &second, "s") && !same(&first, &second, "t"));
    let unrelated = text("/x").replace("a.test", "b.test");
    let third = again(&unrelated, &first, &before);
    assert!(same(&first, &third, "s") && same(&first, &third, "t"));
}

/// RP-5.1
#[test]
fn internal_services_may_stand_below_others() {
    let mut world = World::new();
    world.facts.internal_services.insert("noop", Ok(Arc::new(Teapot)));
    world.facts.internal_services.insert("rest", Err("not here"));
    let weighted = |name: &str, more: &str| {
        with_service(&format!("    w: {{weighted: {{services: [{{name: {name}}}]{more}}}}}\n"))
    };
    let first = read(&weighted("noop@internal", ""));
    let compiled = world.compile(&first, None);
    assert_eq!(messages(&compiled), Vec::<String>::new());
    let second = world.compile(&first, Some(&compiled.memo));
    assert!(Arc::ptr_eq(&compiled.memo.services, &second.memo.services));
    for (name, more, want) in [
        ("rest@internal", "", "building HTTP service \"rest@internal\": not here"),
        ("gone@internal", "", "the service \"gone@internal\" does not exist"),
        ("noop@internal", ", healthCheck: {}", "not a healthcheck.StatusUpdater"),
    ] {
        let messages = messages(&world.text(&weighted(name, more)));
        assert!(messages.len() == 1 && messages[0].contains(want), "{messages:?}");
    }
}

#[test]
fn a_middleware_of_a_service_may_ask_another_service_but_not_its_own() {
    let world = World::new();
    let text = |service: &str| {
        let errors = format!("{{status: ['500'], service: {service}, query: /}}");
        config(&format!("  middlewares:\n    m: {{errors: {errors}}}\n"))
    };
    let before = read(&text("s"));
    let first = world.compile(&before, None);
    assert_eq!(messages(&first), Vec::<String>::new());
    // What the middleware asks changes, so its service is made anew.
    let mut after = DynamicConfig::clone(&read(&text("s").replace("10.0.0.1", "10.0.0.2")));
    after.reuse(&before);
    let second = world.compile(&Arc::new(after), Some(&first.memo));
    let service = |compiled: &Compiled| {
        let services = &compiled.memo.services.by_name;
        services[&QualifiedName::new("t", "file")].service.clone().unwrap()
    };
    assert!(!std::ptr::addr_eq(Arc::as_ptr(&service(&first)), Arc::as_ptr(&service(&second))));
    let messages = messages(&world.text(&text("t")));
    let cycle = "recursion detected in t@file -> t@file";
    assert!(messages.iter().any(|message| message.contains(cycle)), "{messages:?}");
}

/// What a service's middleware remembers is never a router's, whatever that is called.
#[test]
fn services_and_routers_share_no_memory() {
    let text = |router: &str| {
        with_service(&format!(
            "    t: {{middlewares: [m], loadBalancer: {{servers: []}}}}\n  middlewares:\n    \
             m: {{inFlightReq: {{amount: 1}}}}\n  routers:\n    \
             {router}: {{rule: Host(`a.test`), service: s, middlewares: [m]}}\n"
        ))
    };
    for name in ["t", "service t", "t|m"] {
        let world = World::new();
        let compiled = world.text(&text(name));
        assert_eq!(messages(&compiled), Vec::<String>::new(), "{name}");
        let before = world.state.len();
        let other = world.text(&text("unlike"));
        assert_eq!(world.state.len(), before + 1, "{name}: only the router's own is new");
        drop((compiled, other));
    }
}
