//! Which of several routers comes first.

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
