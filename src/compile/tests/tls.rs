//! TLS options that contradict each other, do not exist, or are defined twice.

use super::*;

const CONFLICT: &str = "  routers:\n    \
    a: {rule: Host(`a.test`) && Path(`/a`), service: s, tls: {options: one}}\n    \
    b: {rule: Host(`a.test`), service: s, tls: {options: two}}\n    \
    c: {rule: Host(`c.test`), service: s, tls: {options: one}}\n\
    tls:\n  options:\n    one: {minVersion: VersionTLS12}\n    two: {minVersion: VersionTLS13}\n";

#[test]
fn a_strict_conflict_takes_its_host_out_of_service() {
    let compiled = World::new().text(&with_service(CONFLICT));
    assert_eq!(names_of_tls(&compiled), ["a@file!", "b@file!", "c@file"]);
    let message = "conflicting TLS options for host a.test on one entry point (one@file, two@file): \
                   no router of this host is served";
    assert_eq!(messages(&compiled), [message, message]);
}

#[test]
fn a_conflict_gives_the_default_options_where_traefik_does() {
    let mut world = World::new();
    world.facts.strict_tls_options = false;
    let compiled = world.text(&with_service(CONFLICT));
    assert_eq!(names_of_tls(&compiled), ["a@file", "b@file", "c@file"]);
    let https = compiled.table.entry_points[0].https.iter();
    let options: Vec<_> = https.map(|router| router.tls_options.clone().unwrap()).collect();
    assert_eq!(
        options.iter().map(|one| &**one).collect::<Vec<_>>(),
        ["default", "default", "one@file"]
    );
}

#[test]
fn who_caused_a_conflict_and_goes_gives_the_host_back() {
    let world = World::new();
    let before = world.text(&with_service(CONFLICT));
    let mut after = DynamicConfig::clone(&read(&with_service(CONFLICT)));
    after.routers.remove("b@file");
    let after = Arc::new(after);
    let compiled = world.compile(&after, Some(&before.memo));
    assert_eq!(names_of_tls(&compiled), ["a@file", "c@file"]);
    // What conflicts anew breaks a router that nobody has touched.
    let mut with_b = DynamicConfig::clone(&after);
    let b = read(&with_service(CONFLICT)).routers.get("b@file").cloned().unwrap();
    with_b.routers.insert(QualifiedName::new("b", "file"), b);
    let compiled = world.compile(&Arc::new(with_b), Some(&compiled.memo));
    assert_eq!(names_of_tls(&compiled), ["a@file!", "b@file!", "c@file"]);
}

#[test]
fn a_conflict_is_still_one_when_nothing_changes() {
    let world = World::new();
    let config = read(&with_service(CONFLICT));
    let first = world.compile(&config, None);
    let again = world.compile(&config, Some(&first.memo));
    assert_eq!(names_of_tls(&again), ["a@file!", "b@file!", "c@file"]);
    assert_eq!(messages(&again), messages(&first));
}

#[test]
fn options_that_do_not_exist_break_their_router() {
    let compiled = World::new().text(&with_service(
        "  routers:\n    a: {rule: Host(`a.test`), service: s, tls: {options: gone}}\n",
    ));
    assert_eq!(names_of_tls(&compiled), ["a@file!"]);
    assert_eq!(messages(&compiled), ["unknown TLS options: gone@file"]);
}

#[test]
fn default_options_of_two_providers_break_who_uses_them() {
    let world = World::new();
    let options = "tls:\n  options:\n    default: {minVersion: VersionTLS13}\n";
    let routers = "  routers:\n    a: {rule: Host(`a.test`), service: s, tls: {}}\n    \
                   b: {rule: Host(`b.test`), service: s}\n";
    let file = read(&format!("{}{options}", with_service(routers)));
    let config = merge(&[
        ("internal", Arc::clone(&world.internal)),
        ("file", file),
        ("other", read(options)),
    ]);
    let compiled = world.compile_merged(&config, None);
    assert_eq!(names_of_tls(&compiled), ["a@file!"]);
    assert_eq!(names(&compiled), ["b@file"]);
    let said = messages(&compiled);
    let conflict = "default TLS options defined by several providers: file, other";
    assert!(said.iter().any(|message| message == conflict), "{said:#?}");
}

/// V-43: two things hold a host whose options a connection does not have, and either does without the other.
#[test]
fn a_connection_of_other_options_is_misdirected_twice() {
    let compiled = World::new().text(
        "{http: {routers: {own: {rule: Host(`a.test`), service: s, tls: {options: mtls}},
                           any: {rule: PathPrefix(`/`), service: s, tls: {}}},
                 services: {s: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}}},
          tls: {options: {mtls: {minVersion: VersionTLS13}}}}",
    );
    let routes = &compiled.table.entry_points[0];
    let named = |name: &str| routes.https.iter().find(|router| *router.name == *name).unwrap();
    let (own, any) = (named("own@file"), named("any@file"));
    for (router, host, connection, strict, want) in [
        // By the router alone.
        (own, "a.test", ("", "default"), false, true),
        (own, "a.test", ("a.test", "default"), true, true),
        // By the host alone: the router wants nothing else.
        (any, "a.test", ("", "default"), true, true),
        (any, "a.test", ("b.test", "default"), true, true),
        (any, "a.test", ("", "default"), false, false),
        (any, "b.test", ("", "default"), true, false),
        (own, "a.test", ("a.test", "mtls@file"), true, false),
    ] {
        let told = routes.is_misdirected(router, host, connection, strict);
        assert_eq!(told, want, "{} {host} {connection:?} {strict}", router.name);
    }
}
