//! `doorward check`: every mistake is told once, at its place, whether or not anything uses it, and
//! without the secrets beside it.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::binary::{command, run};

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
fn one_broken_middleware_is_one_error_however_many_use_it() {
    let mut text = "http:
  middlewares:
    range: {ipAllowList: {sourceRange: [10.0.0.0/99]}}
    odd: {oops: 1}
    outside: {chain: {middlewares: [range]}}
  routers:
"
    .to_owned();
    for (number, used) in (0..30).zip(["range", "odd", "outside"].iter().cycle()) {
        let router = format!(
            "    r{number:02}: {{rule: Path(`/{number}`), service: noop@internal, \
             middlewares: [{used}]}}\n"
        );
        text.push_str(&router);
    }
    let found = check(&[("routes.yml", &text)]);
    assert_eq!(found.lines().len(), 3, "{:#?}", found.lines());
    let note = |line: u64| {
        let mut there = found.diagnostics.iter().filter(|one| one["line"] == line);
        there.find_map(|one| one["note"].as_str()).unwrap_or_default().to_owned()
    };
    assert_eq!(
        note(3),
        "routers r00@file, r02@file, r03@file, r05@file, r06@file and 15 more are in error \
         because of it"
    );
    assert!(note(4).starts_with("routers r01@file, r04@file, "), "{}", note(4));
    assert!(found.text.contains("note: routers r00@file"), "{}", found.text);
}

#[test]
fn a_mistake_in_a_rule_is_marked_where_it_is() {
    let found = check(&[(
        "routes.yml",
        "http:
  routers:
    plain:
      rule: Host(`a.test`) && Pth(`/b`)
      service: noop@internal
    quoted: {rule: 'Path(`/`) || PathRegexp(`[`)', service: noop@internal}
    open:
      rule: Host(`a.test`
      service: noop@internal
    folded:
      rule: >-
        Host(`a.test`) &&
        Pth(`/b`)
      service: noop@internal
",
    )]);
    let places: Vec<_> =
        found.diagnostics.iter().map(|one| format!("{}:{}", one["line"], one["column"])).collect();
    assert_eq!(places, ["4:31", "6:46", "8:26", "12:9"], "{}", found.text);
    assert!(found.text.contains("^^^\n"), "{}", found.text);
}

#[test]
fn everything_that_is_wrong_with_a_router_is_told_at_once() {
    let found = check(&[
        ("static.yml", "entryPoints: {web: {address: ':8000'}}\n"),
        (
            "routes.yml",
            "http:
  routers:
    one:
      rule: Host(`a.test`
      entryPoints: [wbe]
      middlewares: [lost, atuh]
      service: ap
  middlewares:
    auth: {addPrefix: {prefix: /a}}
  services:
    app: {loadBalancer: {servers: [{url: http://a.test}]}}
",
        ),
    ]);
    let places: Vec<_> = found.diagnostics.iter().map(|one| one["line"].as_u64()).collect();
    assert_eq!(places, [4, 5, 5, 6, 6, 7].map(Some), "{:#?}", found.lines());
    let help: Vec<_> = found.diagnostics.iter().filter_map(|one| one["help"].as_str()).collect();
    assert_eq!(help, ["did you mean `auth`?", "did you mean `app`?"]);
}

#[test]
fn a_section_of_a_file_that_is_static_and_dynamic_is_told_once() {
    let text = "entryPoints: {web: {address: ':8000'}}
http: {}
entryPoint: {}
providers: {file: {filename: shared.yml}}
";
    let found = check(&[("shared.yml", text)]);
    assert_eq!(found.lines().len(), 1, "{:#?}", found.lines());
    assert_eq!(found.diagnostics[0]["line"], 3);
    assert_eq!(found.diagnostics[0]["help"], "did you mean `entryPoints`?");
}

#[test]
fn authorities_that_cannot_be_read_are_one_error() {
    let found = check(&[(
        "routes.yml",
        "http: {serversTransports: {tls: {rootCAs: [/does/not/exist.pem]}}}\n",
    )]);
    assert_eq!(found.lines().len(), 1, "{:#?}", found.lines());
    assert!(found.text.contains("/does/not/exist.pem"), "{}", found.text);
}

#[test]
fn one_broken_servers_transport_is_one_error_however_many_use_it() {
    let mut text = String::from(
        "http:
  serversTransports: {tls: {rootCAs: [/does/not/exist.pem]}, good: {}}
  services:
    both: {weighted: {services: [{name: s0}, {name: s1}]}}
    lost: {loadBalancer: {servers: [{url: https://a.test}], serversTransport: nobody}}
",
    );
    for service in ["s0", "s1", "s2"] {
        let _ = writeln!(
            text,
            "    {service}: {{loadBalancer: {{servers: [{{url: https://a.test}}], \
             serversTransport: tls}}}}"
        );
    }
    text.push_str("  routers:\n    one: {rule: Path(`/a`), service: both}\n");
    let found = check(&[("routes.yml", &text)]);
    let all: Vec<_> =
        found.diagnostics.iter().map(|one| (&one["line"], &one["kind"], &one["name"])).collect();
    let want = [(2, "serversTransport", "tls@file"), (5, "service", "lost@file")];
    let want = want.map(|(line, kind, name)| (json!(line), json!(kind), json!(name)));
    assert_eq!(all, want.each_ref().map(|(line, kind, name)| (line, kind, name)), "{}", found.text);
    assert_eq!(
        found.diagnostics[0]["note"],
        "services s0@file, s1@file, s2@file, router one@file, service both@file are in error \
         because of it"
    );
}

#[test]
fn nobody_reading_on_is_no_error() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("routes.yml");
    fs::write(&file, "http: {routers: {a: {rule: Oops}}}\n").unwrap();
    for arguments in [&["check", "routes.yml"][..], &["check", "--format=json", "routes.yml"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(directory.path()).args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "the file is as wrong as before");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(directory.path()).arg("help").stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
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
    five: {rule: Path(`/e`), service: both, middlewares: [pages]}
  middlewares:
    add: {addPrefix: {prefix: /a}}
    auth: {addPrefix: {prefix: /a}}
    chain: {chain: {middlewares: [ad]}}
    pages: {errors: {status: ['404'], service: faar}}
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
    for (line, name) in
        [(3, "app"), (4, "auth"), (5, "modern"), (11, "add"), (12, "far"), (14, "slow")]
    {
        assert_eq!(help(line), format!("did you mean `{name}`?"), "{line}: {}", found.text);
    }
    assert_eq!(help(6), "", "{}", found.text);
    assert_eq!(help(16), "", "{}", found.text);
}

/// Values that can never work, with their severity, place and what the sentence says.
type Hopeless = (&'static str, &'static str, u64, &'static str);

fn tells(found: &Checked, table: &[Hopeless]) {
    for &(name, severity, line, says) in table {
        let fits = |one: &&Value| {
            let said = one["message"].as_str().unwrap_or_default();
            (one["name"].as_str(), one["line"].as_u64()) == (Some(name), Some(line))
                && said.contains(says)
        };
        let all: Vec<_> = found.diagnostics.iter().filter(fits).collect();
        assert_eq!(all.len(), 1, "{name} {says}: {:#?}", found.lines());
        assert_eq!(all[0]["severity"], severity, "{name}: {says}");
        assert!(all[0]["column"].as_u64().is_some_and(|column| column > 1), "{name}: {says}");
    }
    assert_eq!(found.diagnostics.len(), table.len(), "{:#?}", found.lines());
}

#[test]
fn middlewares_that_can_never_do_what_is_written_say_so() {
    let directory = TempDir::new().unwrap();
    let users = directory.path().join("users");
    fs::write(&users, "# users\nok:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\nfile:markOfPlain\n").unwrap();
    let text = "http:
  middlewares:
    login:
      basicAuth:
        users:
          - 'ok:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/'
          - 'plain:markOfPlain'
          - 'sha512:$6$markOfSalt$markOfHash'
          - 'argon:$argon2id$v=19$m=65536,t=3,p=4$markOfSalt$markOfHash'
          - 'short:$2y$10$markOfHash'
        usersFile: USERS
    digest: {digestAuth: {users: ['a:traefik:markOfHash']}}
    rate: {rateLimit: {average: -1, burst: -2}}
    nowhere: {redirectRegex: {}}
    retry: {retry: {attempts: 2, status: ['600'], maxRequestBodyBytes: -5}}
    headers: {headers: {stsSeconds: -1, accessControlMaxAge: -3}}
    kept: {headers: {stsSeconds: 0, accessControlMaxAge: -1}}
    body: {buffering: {maxRequestBodyBytes: -5}}
";
    let found = check(&[("routes.yml", &text.replace("USERS", users.to_str().unwrap()))]);
    tells(
        &found,
        &[
            ("login@file", "warning", 7, "this user can never log in"),
            ("login@file", "warning", 8, "this user can never log in"),
            ("login@file", "warning", 9, "write bcrypt (`$2y$`), MD5-crypt (`$apr1$`"),
            ("login@file", "warning", 10, "or `{SHA}`"),
            ("login@file", "warning", 11, "line 3 of the users file: this user can never log in"),
            ("digest@file", "warning", 12, "it never matches"),
            ("digest@file", "warning", 12, "nobody can log in"),
            ("rate@file", "warning", 13, "`average` is -1, which means 0: there is no limit"),
            ("rate@file", "warning", 13, "`burst` is -2, which means 1"),
            ("nowhere@file", "warning", 14, "nothing is redirected"),
            ("retry@file", "warning", 15, "`status` 600: servers have no status above 599"),
            ("retry@file", "warning", 15, "`maxRequestBodyBytes` is -5, which means -1"),
            ("headers@file", "warning", 16, "`stsSeconds` is -1"),
            ("headers@file", "warning", 16, "`accessControlMaxAge` is -3"),
            ("body@file", "error", 18, "`maxRequestBodyBytes` should be >= 0, got -5"),
        ],
    );
    let shown = format!("{}{:?}", found.text, found.diagnostics);
    assert!(!shown.contains("markOf"), "{shown}");
}

#[test]
fn limits_and_retries_name_the_option_that_is_wrong() {
    let text = "http:
  middlewares:
    scope:
      rateLimit:
        average: 1
        scope: routers
    told: {rateLimit: {responseHeaders: true}}
    share:
      retry:
        attempts: 2
        budget:
          minPerSecond: 1
          percent: 120
    reserve: {retry: {attempts: 2, budget: {minPerSecond: -1}}}
    never: {retry: {attempts: 2, budget: {percent: 0, minPerSecond: 0}}}
";
    tells(
        &check(&[("routes.yml", text)]),
        &[
            ("scope@file", "error", 6, "\"routers\" is no scope: write `router` or `middleware`"),
            ("told@file", "warning", 7, "`responseHeaders` has no effect without `average`"),
            ("share@file", "error", 13, "`percent` is 120: it must be 0 to 100"),
            ("reserve@file", "error", 14, "`minPerSecond` is -1: it must be 0 to 4294967295"),
            ("never@file", "error", 15, "nothing is ever sent again"),
        ],
    );
}

#[test]
fn services_that_can_never_do_what_is_written_say_so() {
    let check_of = |options: &str| {
        format!(
            "{{loadBalancer: {{servers: [{{url: http://a.test}}], healthCheck: {{{options}}}}}}}"
        )
    };
    let mut text = "http:\n  services:\n".to_owned();
    for (name, options) in [
        ("scheme", "scheme: foo"),
        ("mode", "mode: foo"),
        ("status", "status: 9999"),
        ("method", "method: 'A B'"),
        ("host", "hostname: \"a\\nb\""),
        ("header", "headers: {X-Key: \"markOf\\nKey\"}"),
        ("interval", "interval: -1s"),
        ("elsewhere", "path: http://b.test/"),
        ("fine", "scheme: HTTPS, mode: http, status: 204, path: '/foo bar', method: PROPFIND"),
    ] {
        let _ = writeln!(text, "    {name}: {}", check_of(options));
    }
    text.push_str(
        "    sticky: {loadBalancer: {servers: [], sticky: {cookie: {sameSite: foo, domain: 'a b'}}}}
    nobody: {weighted: {services: [], sticky: {cookie: {sameSite: bar}}}}
    nameless: {failover: {service: '', fallback: fine}}
",
    );
    let found = check(&[("routes.yml", &text)]);
    tells(
        &found,
        &[
            ("scheme@file", "error", 3, "`healthCheck.scheme` is `foo`"),
            ("mode@file", "warning", 4, "`healthCheck.mode` is `foo`, which means `http`"),
            ("status@file", "error", 5, "`healthCheck.status`: `9999` is no status"),
            ("method@file", "error", 6, "`healthCheck.method`: `A B` is no HTTP method"),
            ("host@file", "error", 7, "`healthCheck.hostname`"),
            ("header@file", "error", 8, "`healthCheck.headers.X-Key` is no header"),
            ("interval@file", "warning", 9, "`healthCheck.interval` is not more than zero"),
            ("elsewhere@file", "warning", 10, "`healthCheck.path` is an absolute URL"),
            ("sticky@file", "warning", 12, "`sticky.cookie.sameSite` is `foo`"),
            ("sticky@file", "warning", 12, "`sticky.cookie.domain` is `a b`"),
            ("nobody@file", "warning", 13, "`weighted.services` is empty"),
            ("nobody@file", "warning", 13, "`sticky.cookie.sameSite` is `bar`"),
            ("nameless@file", "error", 14, "`service` is required"),
        ],
    );
    assert!(!found.text.contains("markOf"), "{}", found.text);
}

#[test]
fn authorities_of_the_static_configuration_have_their_place() {
    let found = check(&[(
        "static.yml",
        "entryPoints: {web: {address: ':8000'}}
serversTransport:
  rootCAs: [/does/not/exist.pem]
",
    )]);
    let says = "none of the authorities in `rootCAs` can be read: ";
    tells(&found, &[("default@internal", "error", 3, says)]);
}

#[test]
fn files_that_cannot_be_read_are_all_told_and_the_others_are_checked() {
    let directory = TempDir::new().unwrap();
    let place = |name: &str| directory.path().join(name).display().to_string();
    for (name, text) in [
        ("static.yml", "entryPoints: {web: {address: ':8000'}}\n"),
        ("second.yml", "entryPoints: {web: {address: ':8001'}}\n"),
        ("routes.yml", "http: {middlewares: {old: {oops: 1}}}\n"),
        ("notes.txt", "nothing\n"),
    ] {
        fs::write(place(name), text).unwrap();
    }
    let names = ["lost.yml", "static.yml", "notes.txt", "gone.yml", "second.yml", "routes.yml"];
    let places = names.map(place);
    let mut arguments = vec!["check", "--format=json"];
    arguments.extend(places.iter().map(String::as_str));
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told: Vec<_> = said["diagnostics"].as_array().unwrap().iter().collect();
    let wanted = [
        ("lost.yml", "No such file"),
        ("notes.txt", "not a .toml"),
        ("gone.yml", "No such file"),
        ("second.yml", "more than one static configuration"),
        ("routes.yml", "oops"),
    ];
    assert_eq!(told.len(), wanted.len(), "{said:#}");
    for (one, (name, says)) in told.iter().zip(wanted) {
        let text = one.to_string();
        assert!(text.contains(name) && text.contains(says), "{name}: {said:#}");
        assert_eq!(one["severity"], "error");
    }
}

#[test]
fn a_list_of_values_names_each_once() {
    let found = check(&[(
        "static.yml",
        "core:
  onBrokenRouter: whatever
entryPoints:
  web:
    address: ':8000'
    http: {underscoreHeadersStrategy: whatever}
",
    )]);
    let help: Vec<_> = found.diagnostics.iter().filter_map(|one| one["help"].as_str()).collect();
    assert_eq!(
        help,
        ["known here: 503, lastGood, skip", "known here: keep, delete, reject"],
        "{}",
        found.text
    );
}

#[test]
fn files_of_another_store_are_looked_at_too() {
    let found = check(&[(
        "routes.yml",
        "tls:
  certificates:
    - certFile: /does/not/exist.crt
      keyFile: /does/not/exist.key
      stores: [foo]
",
    )]);
    let lines = found.lines();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, place, says) in [
        (&lines[0], " 3:17 ", "/does/not/exist.crt"),
        (&lines[1], " 4:16 ", "/does/not/exist.key"),
        (&lines[2], " 5:15 ", "only the store `default` is ever consulted"),
    ] {
        assert!(line.contains(place) && line.contains(says), "{lines:#?}");
    }
    assert_eq!(found.code, Some(1));
}
