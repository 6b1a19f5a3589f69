//! `doorward check`: every mistake is told once, at its place, whether or not anything uses it, and
//! without the secrets beside it.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::binary::run;

struct Checked {
    diagnostics: Vec<Value>,
    text: String,
    code: Option<i32>,
}

/// Checks files with these names and contents.
fn check(files: &[(&str, &str)]) -> Checked {
    let directory = TempDir::new().unwrap();
    let mut arguments = vec!["check".to_owned()];
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        arguments.push(path.display().to_string());
    }
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let text = String::from_utf8(run(&words).stdout).unwrap();
    let json = run(&[&words[..], &["--format=json"]].concat());
    let said: Value = serde_json::from_slice(&json.stdout).unwrap();
    let diagnostics = said["diagnostics"].as_array().unwrap().clone();
    Checked { diagnostics, text, code: json.status.code() }
}

impl Checked {
    /// `kind name line:column message`, in the order in which they are told.
    fn lines(&self) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |one: &Value| {
            let (kind, name) = (word(&one["kind"]), word(&one["name"]));
            format!("{kind} {name} {}:{} {}", one["line"], one["column"], word(&one["message"]))
        };
        self.diagnostics.iter().map(line).collect()
    }

    /// The only line about this object.
    fn about(&self, name: &str) -> String {
        let mut lines = self.lines();
        lines.retain(|line| line.contains(&format!(" {name} ")));
        assert_eq!(lines.len(), 1, "{name}: {lines:#?}");
        lines.remove(0)
    }
}

#[test]
fn what_no_router_uses_is_looked_at_too() {
    let found = check(&[(
        "routes.yml",
        "http:
  middlewares:
    nobody: {basicAuth: {users: []}}
    unreadable:
      basicAuth:
        usersFile: /does/not/exist
    range:
      ipAllowList:
        sourceRange:
          - 10.0.0.0/8
          - 10.0.0.0/99
    outside: {chain: {middlewares: [range]}}
    nowhere: {chain: {middlewares: [missing]}}
    old: {stripPrefix: {prefixes: [/a], forceSlash: true}}
    fine: {addPrefix: {prefix: /a}}
  serversTransports:
    old: {minVersion: TLS12}
tls:
  options:
    modern: {minVersion: TLS13}
",
    )]);
    assert_eq!(found.code, Some(1));
    let lines = found.lines();
    for (name, start, says) in [
        ("nobody@file", "middleware nobody@file 3:25", "no users are configured"),
        ("unreadable@file", "middleware unreadable@file 6:20", "`/does/not/exist`"),
        ("range@file", "middleware range@file 11:13", "10.0.0.0/99"),
        ("outside@file", "middleware outside@file 12:36", "\"range@file\" is in error"),
        ("nowhere@file", "middleware nowhere@file 13:36", "\"missing@file\" does not exist"),
        ("modern@file", "tls options modern@file 20:26", "write VersionTLS12 or VersionTLS13"),
    ] {
        let line = found.about(name);
        assert!(line.starts_with(start) && line.contains(says), "{line}");
    }
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(
        has("middleware old@file 14:53") && has("serversTransport old@file 17:23"),
        "{lines:#?}"
    );
    assert_eq!(lines.len(), 8, "{lines:#?}");
    assert!(found.text.contains("0 routers, 0 services, 7 middlewares; 7 errors, 1 warnings"));
}

#[test]
fn a_router_at_two_entry_points_has_its_mistakes_once_and_by_line() {
    let found = check(&[
        (
            "static.yml",
            "entryPoints:
  web: {address: ':8000', http: {middlewares: [add@file]}}
  websecure: {address: ':8443', http: {tls: {}}}
",
        ),
        (
            "routes.yml",
            "http:
  routers:
    one: {rule: Host(`one.test`), service: missing}
    two: {rule: Host(`two.test`), service: noop@internal, tls: {options: missing}}
  middlewares:
    add: {addPrefix: {prefix: /a}}
  services:
    wrong: {loadBalancer: {servers: [{ulr: http://a.test}]}}
",
        ),
    ]);
    let lines = found.lines();
    let starts =
        ["router web-one@file 3:44", "router web-two@file 4:74", "service wrong@file 8:39"];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{lines:#?}");
    }
    assert!(found.text.contains("did you mean `url`?"), "{}", found.text);
}

#[test]
fn secrets_beside_a_mistake_are_not_shown() {
    let found = check(&[(
        "routes.yml",
        "http:
  middlewares:
    users:
      basicAuth:
        users:
          - markOfTheUser
    flow: {basicAuth: {users: [\"a:markOfTheUser\"], relm: x}}
  services:
    app: {loadBalancer: {servers: [{url: \"http://u:markOfTheServer@h\", wieght: 1}]}}
",
    )]);
    assert_eq!(found.lines().len(), 3, "{:#?}", found.lines());
    assert!(found.text.contains("wieght: 1") && found.text.contains(":6:13"), "{}", found.text);
    let shown = format!("{}{:?}", found.text, found.diagnostics);
    assert!(!shown.contains("markOf"), "{shown}");
}

#[test]
fn all_that_is_not_served_is_told_at_once() {
    let found = check(&[(
        "static.toml",
        "[entryPoints.web]
address = \":80\"
adress = \":81\"
[entryPoints.web.http3]
[entryPoints.dns]
address = \":53/udp\"
[providers.docker]
[core]
defaultRuleSyntax = \"v2\"
",
    )]);
    let mut places: Vec<_> = found.diagnostics.iter().map(|one| one["line"].as_u64()).collect();
    places.dedup();
    assert_eq!(places, [3, 4, 6, 7, 9].map(Some), "{:#?}", found.lines());
}

#[test]
fn names_that_lead_nowhere_are_close_to_others() {
    let found = check(&[(
        "routes.yml",
        "http:
  routers:
    one: {rule: Path(`/a`), service: ap}
    two: {rule: Path(`/b`), service: app, middlewares: [add, atuh]}
    three: {rule: Path(`/c`), service: app, tls: {options: modren}}
    four: {rule: Path(`/d`), service: elsewhere}
  middlewares:
    add: {addPrefix: {prefix: /a}}
    auth: {addPrefix: {prefix: /a}}
    chain: {chain: {middlewares: [ad]}}
  services:
    app: {loadBalancer: {servers: [{url: http://a.test}], serversTransport: slwo}}
    both: {weighted: {services: [{name: app}, {name: appp}]}}
    far: {loadBalancer: {servers: [{url: http://a.test}], serversTransport: trr}}
  serversTransports:
    slow: {}
    t6: {}
tls:
  options:
    modern: {}
",
    )]);
    let help = |line: u64| {
        let mut there = found.diagnostics.iter().filter(|one| one["line"] == line);
        there.find_map(|one| one["help"].as_str()).unwrap_or_default().to_owned()
    };
    for (line, name) in [(3, "app"), (4, "auth"), (5, "modern"), (10, "add"), (12, "slow")] {
        assert_eq!(help(line), format!("did you mean `{name}`?"), "{line}: {}", found.text);
    }
    assert_eq!(help(6), "", "{}", found.text);
    assert_eq!(help(14), "", "{}", found.text);
}
