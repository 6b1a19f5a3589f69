//! Which of several routers comes first, and what references of several providers mean.

use super::*;

/// RP-3.5.1, RP-3.5.3
#[test]
fn priority_comes_before_the_provider_and_that_before_the_name() {
    let text = "http:\n  services:\n    s: {loadBalancer: {servers: []}}\n  routers:\n    \
                b: {rule: Host(`a.test`), service: s}\n    a: {rule: Host(`b.test`), service: s}\n    \
                long: {rule: Host( `a.test` ), service: s}\n    \
                last: {rule: Host(`longest.test`), service: s, priority: -1}\n    \
                first: {rule: Path(`/`), service: s, priority: 99}\n";
    let of = |provider: &str| {
        let source = Source::new("dynamic.yml", text, Format::Yaml);
        Arc::new(DynamicConfig::read(&parse(&source).unwrap(), provider))
    };
    let mut world = World::new();
    for precedence in [["file", "docker"], ["docker", "file"]] {
        world.facts.precedence = precedence.map(str::to_owned).to_vec();
        let config = merge(&[
            ("internal", Arc::clone(&world.internal)),
            ("file", of("file")),
            ("docker", of("docker")),
        ]);
        let compiled = world.compile_merged(&config, None);
        let [one, other] = precedence;
        let want = [
            format!("first@{one}"),
            format!("first@{other}"),
            format!("long@{one}"),
            format!("long@{other}"),
            format!("a@{one}"),
            format!("b@{one}"),
            format!("a@{other}"),
            format!("b@{other}"),
            format!("last@{one}"),
            format!("last@{other}"),
        ];
        assert_eq!(names(&compiled), want);
    }
}

fn read_of(provider: &str, text: &str) -> Arc<DynamicConfig> {
    let source = Source::new("dynamic.yml", text, Format::Yaml);
    Arc::new(DynamicConfig::read(&parse(&source).unwrap(), provider))
}

/// PIPE-60: between routers of one priority the provider that stands earlier in the precedence comes first, one that
/// does not stand there last, and those of one provider by their names.
#[test]
fn ties_are_broken_by_the_precedence_of_providers() {
    let text = with_service(
        "  routers:\n    r: {rule: Host(`a.test`), service: s}\n    q: {rule: Host(`a.test`), service: s}\n",
    );
    for (precedence, wanted) in [
        (["file", "docker"], ["q@file", "r@file", "q@docker", "r@docker", "q@other", "r@other"]),
        (["docker", "file"], ["q@docker", "r@docker", "q@file", "r@file", "q@other", "r@other"]),
    ] {
        let mut world = World::new();
        world.facts.precedence = precedence.map(str::to_owned).to_vec();
        let config = merge(&[
            ("internal", Arc::clone(&world.internal)),
            ("other", read_of("other", &text)),
            ("file", read_of("file", &text)),
            ("docker", read_of("docker", &text)),
        ]);
        assert_eq!(names(&world.compile_merged(&config, None)), wanted);
    }
}

/// PIPE-11, PIPE-12: a reference without a provider means its own, one with a provider means that one.
#[test]
fn references_lead_to_their_own_provider_or_to_the_one_they_name() {
    let world = World::new();
    let middlewares = "  middlewares:\n    m: {addPrefix: {prefix: /x}}\n";
    let file = with_service(&format!(
        "{middlewares}  routers:\n    own: {{rule: Host(`a.test`), service: s, middlewares: [m]}}\n    \
         foreign: {{rule: Host(`b.test`), service: t@docker, middlewares: [m@docker]}}\n    \
         lost: {{rule: Host(`c.test`), service: t}}\n"
    ));
    let docker = with_service(middlewares).replace("    s:", "    t:");
    let config = merge(&[
        ("internal", Arc::clone(&world.internal)),
        ("file", read_of("file", &file)),
        ("docker", read_of("docker", &docker)),
    ]);
    let compiled = world.compile_merged(&config, None);
    assert_eq!(names(&compiled), ["foreign@file", "lost@file!", "own@file"]);
    let links = |name: &str| -> Vec<String> {
        let router = compiled.report.routers.iter().find(|router| router.name.as_str() == name);
        router.unwrap().links.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (links("own@file"), links("foreign@file")),
        (vec!["m@file".to_owned()], vec!["m@docker".to_owned()])
    );
    assert_eq!(messages(&compiled), ["the service \"t@file\" does not exist"]);
}
