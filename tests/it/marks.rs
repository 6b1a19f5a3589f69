//! Marks in every place that holds a secret, and a search for them in everything that anybody is shown (T-03, G-59,
//! G-66). The options are those of the files that hold every option, so that none is missing.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::{fs, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use doorward::config::diagnostics::Diagnostic;
use doorward::config::dynamic_config::DynamicConfig;
use doorward::config::loader::{Origin as From, from_tree};
use doorward::config::static_config::StaticConfig;
use doorward::config::tree::{
    Format, Node, Source, Value as Written, decode_what_is_right, is_secret, parse,
};
use doorward::middleware::MiddlewareConfig;
use doorward::upstream::ServersTransportConfig;
use serde_json::{Value, json};

use crate::harness::binary::{Process, command};
use crate::harness::certs::Ca;
use crate::harness::{Ask, Client, Origin, Reply, until};

const STATIC: &str = include_str!("../compat/every-static-option.yml");
const DYNAMIC: &str = include_str!("../compat/every-dynamic-option.yml");

/// Options of Doorward's own that hold secrets.
const OWN: &str = "
admin:
  address: '127.0.0.1:9'
  tls: {certFile: DIRECTORY/c.pem, keyFile: DIRECTORY/k.pem}
  tokens: [{name: a, tokenHash: '0000'}]
";

fn read(text: &str) -> Node {
    parse(&Source::new("every.yml", text, Format::Yaml)).unwrap()
}

/// One scalar: the way to it, the name that it has there, and where both stand.
struct Scalar<'n> {
    path: String,
    name: &'n str,
    key: Range<usize>,
    value: Range<usize>,
}

fn scalars<'n>(
    node: &'n Node,
    path: &str,
    name: &'n str,
    key: &Range<usize>,
    all: &mut Vec<Scalar<'n>>,
) {
    match &node.value {
        Written::Mapping(entries) => {
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                let key = entry.key_span.start..entry.key_span.end;
                scalars(&entry.value, &path, &entry.key, &key, all);
            }
        }
        Written::Sequence(items) => {
            for item in items {
                scalars(item, &format!("{path}[]"), name, key, all);
            }
        }
        Written::Scalar(_) => {
            let value = node.span.start..node.span.end;
            all.push(Scalar { path: path.to_owned(), name, key: key.clone(), value });
        }
        Written::Null => {}
    }
}

/// Every scalar of a tree that is named like a secret.
fn secrets(root: &Node) -> Vec<Scalar<'_>> {
    let mut found = Vec::new();
    scalars(root, "", "", &(0..0), &mut found);
    // The modes of the access log have names of headers, and are no secrets.
    found.retain(|one| is_secret(one.name) && !one.path.contains(".fields.headers."));
    found
}

/// The parts of a text that begin with a name at its margin.
fn sections(text: &str) -> impl Iterator<Item = String> {
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.into_iter()
}

fn plain(node: &Node) -> Value {
    match &node.value {
        Written::Null => Value::Null,
        Written::Scalar(scalar) => {
            let text = &*scalar.text;
            let bare = serde_json::from_str(text).ok().filter(|_| !scalar.quoted);
            bare.unwrap_or_else(|| json!(text))
        }
        Written::Sequence(items) => items.iter().map(plain).collect(),
        Written::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.value))).collect()
        }
    }
}

/// Names of the options whose value a type does not write out. `pem` says whether all texts are keys for once.
fn hidden_by_type(given: &Value, written: &Value, name: &str, found: &mut BTreeSet<String>) {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => {
            for (name, value) in given {
                hidden_by_type(value, written.get(name).unwrap_or(&Value::Null), name, found);
            }
        }
        (Value::Array(given), Value::Array(written)) => {
            for (given, written) in given.iter().zip(written) {
                hidden_by_type(given, written, name, found);
            }
        }
        (Value::String(given), Value::String(written)) if written == "xxxx" && given != "xxxx" => {
            found.insert(name.to_owned());
        }
        _ => {}
    }
}

/// What the types know as secret, messages must know by its name.
#[test]
fn every_option_that_a_type_hides_is_secret_by_name() {
    let mut found = BTreeSet::new();
    let root = read(DYNAMIC);
    let section = |name: &str| plain(root.at_path(&format!("http.{name}")));
    for (_, given) in section("middlewares").as_object().unwrap() {
        let typed: MiddlewareConfig = serde_json::from_value(given.clone()).unwrap();
        hidden_by_type(given, &serde_json::to_value(&typed).unwrap(), "", &mut found);
    }
    for text in [STATIC, OWN] {
        let (typed, _) = decode_what_is_right::<StaticConfig>(&read(text));
        let written = serde_json::to_value(typed.unwrap()).unwrap();
        hidden_by_type(&plain(&read(text)), &written, "", &mut found);
    }
    let known: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    for name in ["users", "password", "tokenHash", "hmacEncoded"] {
        assert!(known.contains(name), "`{name}` is written out, or in no file: {known:?}");
    }
    // Where a file or its content may stand, the content of a key is hidden, and its name tells.
    let pem = "-----BEGIN PRIVATE KEY-----";
    let given = json!({"certificates": [{"certFile": "a", "keyFile": pem}], "rootCAs": ["a"]});
    let typed: ServersTransportConfig = serde_json::from_value(given.clone()).unwrap();
    hidden_by_type(&given, &serde_json::to_value(&typed).unwrap(), "", &mut found);
    for given in [
        json!({"forwardAuth": {"address": "http://a", "tls": {"key": pem}}}),
        json!({"rateLimit": {"average": 1, "redis": {"tls": {"key": pem}}}}),
    ] {
        let typed: MiddlewareConfig = serde_json::from_value(given.clone()).unwrap();
        hidden_by_type(&given, &serde_json::to_value(&typed).unwrap(), "", &mut found);
    }
    assert!(found.contains("keyFile") && found.contains("key"), "{found:?}");
    for name in &found {
        assert!(is_secret(name), "`{name}` is hidden by its type, and not by its name");
    }
}

/// All that is said of a text, by all who print it.
fn said(text: &str, is_static: bool, format: Format) -> String {
    let shown = |all: &[Diagnostic]| -> String {
        let told = all.iter().flat_map(|one| {
            let json = serde_json::to_string(one).unwrap();
            [one.render(false), one.one_line(), json]
        });
        told.collect::<Vec<_>>().join("\n")
    };
    let node = match parse(&Source::new("wrong.yml", text, format)) {
        Ok(node) => node,
        Err(errors) => return shown(&errors),
    };
    if is_static {
        return match from_tree(node, From::Flags) {
            Ok(loaded) => shown(&loaded.warnings),
            Err(errors) => shown(&errors),
        };
    }
    let config = DynamicConfig::read(&node, "file");
    let mut all = config.diagnostics.clone();
    all.extend(config.routers.values().flat_map(|one| one.errors.clone()));
    all.extend(config.services.values().flat_map(|one| one.errors.clone()));
    all.extend(config.middlewares.values().flat_map(|one| one.errors.clone()));
    all.extend(config.servers_transports.values().flat_map(|one| one.errors.clone()));
    all.extend(config.certificates.iter().flat_map(|one| one.errors.clone()));
    shown(&all)
}

const MARK: &str = "mArk7Of3A9Secret";

/// Ways to write a secret that YAML reads as something else, or not at all.
const MISTAKES: [&str; 18] = [
    "\"MARK",
    "'MARK",
    "[MARK]",
    "[[MARK]]",
    "{MARK: x}",
    "{a: MARK}",
    "[a, {b: MARK}]",
    "*MARK",
    "&MARK",
    "@MARK",
    "%MARK",
    "`MARK",
    "!!binary MARK",
    "!MARK x",
    "\"\\qMARK\"",
    "\"MARK\" MARK",
    "]MARK",
    "MARK: MARK",
];

/// G-66: neither the value nor its line is in what is said of it.
#[test]
fn a_secret_that_is_written_wrongly_is_not_told() {
    let mut told = Vec::new();
    let mut places = 0;
    let parts = [(true, STATIC), (true, OWN), (false, DYNAMIC)];
    let parts = parts.map(|(is_static, text)| sections(text).map(move |text| (is_static, text)));
    for (is_static, text) in parts.into_iter().flatten() {
        for Scalar { path, name, key, value } in secrets(&read(&text)) {
            places += 1;
            let put = |at: &Range<usize>, new: &str| {
                let mut text = text.clone();
                text.replace_range(at.clone(), new);
                text
            };
            let mut wrong: Vec<(String, String)> = MISTAKES
                .iter()
                .map(|mistake| (mistake.replace("MARK", MARK), mistake.replace("MARK", MARK)))
                .map(|(what, new)| (what, put(&value, &new)))
                .collect();
            // The name misspelt, in the middle and at its end.
            let right = put(&value, MARK);
            let is_word = ["password", "secret", "token"].iter().any(|word| name.ends_with(word));
            for misspelt in [format!("{name}x"), name[..name.len() - 1].to_owned()] {
                if is_word && value.start > key.end {
                    let mut text = right.clone();
                    text.replace_range(key.clone(), &misspelt);
                    wrong.push((format!("{misspelt}: {MARK}"), text));
                }
            }
            wrong.push((MARK.to_owned(), right.clone()));
            // Something else wrong in the same line.
            wrong.push((
                "cut".to_owned(),
                right[..right.find(MARK).unwrap() + MARK.len()].to_owned(),
            ));
            for (what, text) in wrong {
                let said = said(&text, is_static, Format::Yaml);
                if said.contains(MARK) {
                    let line = said.lines().find(|line| line.contains(MARK)).unwrap();
                    told.push(format!("{path}: {what}\n    {line}"));
                }
            }
        }
    }
    assert!(places > 25, "only {places} places");
    assert!(told.is_empty(), "{} of {places} places:\n{}", told.len(), told.join("\n"));
}

/// The same in the other formats, and in texts over several lines.
#[test]
fn a_secret_on_lines_of_its_own_is_not_told() {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----");
    let mut told = Vec::new();
    for (format, text) in [
        (Format::Yaml, format!("tls:\n  certificates:\n  - certFile: a\n    keyFile: |\n{pem}\n")),
        (Format::Yaml, format!("users:\n\t- a:{MARK}\n")),
        (Format::Yaml, format!("password: >-\n    a\n  {MARK}: [\n")),
        (
            Format::Yaml,
            format!(
                "http:\n  middlewares:\n    a:\n      basicAuth:\n        users:\n          - a:{MARK}: [b\n"
            ),
        ),
        (Format::Yaml, format!("token: \"a\n{MARK}\n")),
        (Format::Toml, format!("password = {MARK}\n")),
        (Format::Toml, format!("password = \"{MARK}\n")),
        (Format::Toml, format!("password = '{MARK}' {MARK}\n")),
        (Format::Toml, format!("users = [\n  '{MARK}'\n  'x'\n]\n")),
        (Format::Toml, format!("token = \"\"\"\n{MARK}\\q\n\"\"\"\n")),
        (Format::Toml, format!("a.token = 1\na.token = '{MARK}'\n")),
        (Format::Toml, format!("[x.token]\nb = '{MARK}'\n[x.token]\n")),
        (Format::Json, format!("{{\"password\": {MARK}}}")),
        (Format::Json, format!("{{\"password\": \"{MARK}\n\"}}")),
        (Format::Json, format!("{{\"password\": \"{MARK}\\q\"}}")),
        (Format::Json, format!("{{\"users\": [\n\"{MARK}\"\n\"{MARK}\"]}}")),
        (Format::Json, format!("{{\"password\": \"a\", \"password\": \"{MARK}\"}}")),
        (Format::Json, format!("{{\"token\":\n\"{MARK}\" 1}}")),
    ] {
        for is_static in [false, true] {
            let said = said(&text, is_static, format);
            assert!(!said.is_empty(), "{text}");
            if said.contains(MARK) {
                told.push(format!("{text}\n{said}"));
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// Places that hold a secret. Each has its own mark, so that what is found says where it comes from.
const PLACES: [&str; 46] = [
    "basicAuth.users",
    "basicAuth.usersFile",
    "digestAuth.users",
    "digestAuth.usersFile",
    "broken.users",
    "forwardAuth.address.user",
    "forwardAuth.address.query",
    "forwardAuth.answer.header",
    "forwardAuth.answer.cookie",
    "forwardAuth.refusal.body",
    "redis.password",
    "server.url.user",
    "server.url.of.nobody",
    "mirror.url.user",
    "healthCheck.header",
    "healthCheck.path.query",
    "customRequestHeaders.Authorization",
    "customRequestHeaders.X-Api-Key",
    "customResponseHeaders.Set-Cookie",
    "customResponseHeaders.X-Auth-Token",
    "unwritable.header",
    "ban.header.regex",
    "rule.header",
    "rule.query",
    "environment.proxy.password",
    "admin.token",
    "admin.wrong.token",
    "client.Authorization",
    "client.Authorization.wrong",
    "client.Proxy-Authorization",
    "client.Cookie",
    "client.sticky.cookie",
    "client.X-Api-Key",
    "client.X-Auth-Token",
    "client.query",
    "client.body",
    "client.upgrade",
    "client.malformed",
    "backend.Set-Cookie",
    "backend.X-Auth-Token",
    "backend.body",
    "backend.X-Session-Token",
    "errors.query",
    "redirectRegex.replacement",
    "server.url.query",
    "signin.query",
];

/// The mark of a place: a word that stands nowhere else.
fn mark(place: &str) -> String {
    let at = PLACES.iter().position(|known| *known == place);
    let at = at.unwrap_or_else(|| panic!("{place} is in no table"));
    format!("mArk{at:02}OfThePlace{}", at * 7919 % 9973 + 10_000)
}

/// What stands for a place in an output, if anything does.
fn found(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in PLACES {
        let mark = mark(place);
        let coded = STANDARD.encode(format!("user:{mark}"));
        let bytes: Vec<String> = mark.bytes().take(8).map(|byte| byte.to_string()).collect();
        for form in [mark.to_lowercase(), coded.to_lowercase(), bytes.join(", ")] {
            if let Some(at) = text.to_lowercase().find(&form) {
                let from = text.floor_char_boundary(at.saturating_sub(120));
                let to = text.ceil_char_boundary((at + 60).min(text.len()));
                found.push(format!("{place}: …{}…", &text[from..to]));
            }
        }
    }
    found
}

fn routes(origin: &Origin, auth: &Origin, directory: &Path) -> String {
    let text = "
        http:
          routers:
            basic: {rule: PathPrefix(`/basic`), service: app, middlewares: [basic]}
            basicFile: {rule: PathPrefix(`/file`), service: app, middlewares: [basicFile]}
            digest: {rule: PathPrefix(`/digest`), service: app, middlewares: [digest]}
            digestFile: {rule: PathPrefix(`/other`), service: app, middlewares: [digestFile]}
            asked: {rule: PathPrefix(`/asked`), service: app, middlewares: [asked]}
            refused: {rule: PathPrefix(`/refused`), service: app, middlewares: [refused]}
            unasked: {rule: PathPrefix(`/unasked`), service: app, middlewares: [unasked]}
            limited: {rule: PathPrefix(`/limited`), service: app, middlewares: [limited]}
            broken: {rule: PathPrefix(`/broken`), service: app, middlewares: [wrong, digestWrong, unwritable, noUrl]}
            jailed: {rule: PathPrefix(`/jailed`), service: app, middlewares: [jail]}
            again: {rule: PathPrefix(`/again`), service: nobody, middlewares: [again, small, buffered, cut]}
            mirrored: {rule: PathPrefix(`/mirrored`), service: mirrored}
            far: {rule: PathPrefix(`/far`), service: far}
            named: {rule: 'Path(`/named`) && Header(`X-Auth-Token`, `<rule.header>`) && Query(`token`, `<rule.query>`)', service: app}
            moved: {rule: PathPrefix(`/moved`), service: app, middlewares: [moved]}
            page: {rule: PathPrefix(`/page`), service: noServer, middlewares: [page]}
            all: {rule: PathPrefix(`/`), service: app, middlewares: [key, typed, small]}
          middlewares:
            basic: {basicAuth: {users: ['user:<basicAuth.users>']}}
            basicFile: {basicAuth: {usersFile: DIRECTORY/basic}}
            digest: {digestAuth: {users: ['user:traefik:<digestAuth.users>']}}
            digestFile: {digestAuth: {usersFile: DIRECTORY/digest}}
            wrong: {basicAuth: {users: ['<broken.users>']}}
            digestWrong: {digestAuth: {users: ['<broken.users>']}}
            asked: {forwardAuth: {address: 'http://user:<forwardAuth.address.user>@AUTH/ok?key=<forwardAuth.address.query>&auth=<forwardAuth.address.query>', authResponseHeaders: [X-Auth-Token], addAuthCookiesToResponse: [session], forwardBody: true}}
            refused: {forwardAuth: {address: 'http://AUTH/no'}}
            unasked: {forwardAuth: {address: 'http://user:<forwardAuth.address.user>@127.0.0.1:1/?key=<forwardAuth.address.query>&auth=<forwardAuth.address.query>', authSigninURL: 'https://sso.test/?client_secret=<signin.query>'}}
            noUrl: {forwardAuth: {address: 'user:<forwardAuth.address.user>@127.0.0.1'}}
            limited: {rateLimit: {average: 1, redis: {endpoints: ['127.0.0.1:1'], username: user, password: <redis.password>}}}
            unwritable: {headers: {customRequestHeaders: {Authorization: \"<unwritable.header>\\n\"}}}
            jail: {ban: {threshold: 1, conditions: [{header: {name: X-Auth-Token, regex: '^<ban.header.regex>$'}}, {path: ^/jailed/bad}]}}
            jailWrong: {ban: {threshold: 1, conditions: [{header: {name: X-Auth-Token, regex: '^<ban.header.regex>$', oops: 1}}]}}
            again: {retry: {attempts: 2}}
            moved: {redirectRegex: {regex: '^.*/moved(.*)$', replacement: 'https://moved.test/${1}?token=<redirectRegex.replacement>&session_id=<redirectRegex.replacement>'}}
            page: {errors: {status: ['500-599'], service: app, query: '/{status}.html?api_key=<errors.query>&signature=<errors.query>'}}
            small: {compress: {}}
            typed: {contentType: {}}
            buffered: {buffering: {maxRequestBodyBytes: 100}}
            cut: {circuitBreaker: {expression: NetworkErrorRatio() > 0.5}}
            key:
              headers:
                customRequestHeaders: {X-Api-Key: <customRequestHeaders.X-Api-Key>, Authorization: 'Bearer <customRequestHeaders.Authorization>'}
                customResponseHeaders: {Set-Cookie: 'a=<customResponseHeaders.Set-Cookie>', X-Auth-Token: <customResponseHeaders.X-Auth-Token>}
          services:
            app: {loadBalancer: {sticky: {cookie: {name: pod}}, servers: [{url: 'http://user:<server.url.user>@ORIGIN'}]}}
            nobody: {loadBalancer: {servers: [{url: 'http://user:<server.url.of.nobody>@127.0.0.1:1'}], passiveHealthCheck: {maxFailedAttempts: 1}}}
            far: {loadBalancer: {servers: [{url: 'http://192.0.2.1:81'}]}}
            noServer: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1/?token=<server.url.query>'}]}}
            wrongServer: {loadBalancer: {servers: [{url: 'user:<server.url.of.nobody>@127.0.0.1:1?token=<server.url.query>'}]}}
            slashServer: {loadBalancer: {servers: [{url: 'http://user:a/<server.url.of.nobody>@127.0.0.1:1'}]}}
            mirrored: {mirroring: {service: app, mirrors: [{name: copies, percent: 100}]}}
            copies: {loadBalancer: {servers: [{url: 'http://user:<mirror.url.user>@127.0.0.1:1'}]}}
            probed:
              loadBalancer:
                healthCheck: {path: '/health?key=<healthCheck.path.query>&sid=<healthCheck.path.query>', interval: 20ms, headers: {Authorization: 'Bearer <healthCheck.header>'}}
                servers: [{url: 'http://user:<server.url.of.nobody>@127.0.0.1:1'}]
        ";
    let mut text = text.replace("ORIGIN", &origin.address().to_string());
    text = text.replace("AUTH", &auth.address().to_string());
    text = text.replace("DIRECTORY", &directory.display().to_string());
    for place in PLACES {
        text = text.replace(&format!("<{place}>"), &mark(place));
    }
    assert!(!text.contains(": <"), "a place without a mark");
    text
}

/// What clients send: all kinds of credentials, to every router, and what is refused before it has one.
fn requests() -> Vec<Ask> {
    let paths = [
        "/",
        "/basic",
        "/file",
        "/digest",
        "/other",
        "/asked",
        "/refused",
        "/unasked",
        "/limited",
        "/broken",
        "/jailed",
        "/jailed/bad",
        "/again",
        "/mirrored",
        "/far",
        "/named",
        "/moved",
        "/page",
        "/%zz",
        "/a/../basic",
        "/a%2fb",
        "/\u{7f}",
    ];
    let mut asks = Vec::new();
    for path in paths {
        let token = mark("client.query");
        let ask = Ask::post(&format!("{path}?access_token={token}&q={token}"), mark("client.body"));
        let pair = |place: &str| STANDARD.encode(format!("user:{}", mark(place)));
        let marked = ask
            .header("Proxy-Authorization", &format!("Basic {}", mark("client.Proxy-Authorization")))
            .header(
                "Cookie",
                &format!("session={}; pod={}", mark("client.Cookie"), mark("client.sticky.cookie")),
            )
            .header("X-Api-Key", &mark("client.X-Api-Key"))
            .header("X-Auth-Token", &mark("client.X-Auth-Token"));
        let digest = format!(
            "Digest username=\"user\", realm=\"traefik\", nonce=\"{0}\", uri=\"/\", response=\"{0}\"",
            mark("client.Authorization.wrong")
        );
        for authorization in [
            format!("Basic {}", pair("client.Authorization")),
            format!("Bearer {}", mark("client.Authorization")),
            format!("Basic {}", mark("client.Authorization.wrong")),
            digest,
        ] {
            asks.push(marked.clone().header("Authorization", &authorization));
        }
    }
    asks
}

/// Requests that no gate passes, with marks.
fn malformed() -> Vec<String> {
    let mark = mark("client.malformed");
    vec![
        format!("GET / HTTP/1.1\r\nAuthorization: {mark}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a b\r\nAuthorization: {mark}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthoriz ation: {mark}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {mark}\u{1}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{mark}\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {mark}\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {mark}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        format!("GET / HTTP/9.1\r\nHost: a\r\nCookie: {mark}\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {0}\r\nCookie: {0}\r\n\r\n",
            self::mark("client.upgrade")
        ),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{mark}"),
    ]
}

/// T-03, G-59, G-66: with the log at its most talkative, the access log in both formats and headers kept in one.
#[test]
fn no_mark_is_seen() {
    for access in [
        json!({"format": "common", "fields": {"queryParameters": {"defaultMode": "drop"}}}),
        json!({"format": "json", "fields": {"queryParameters": {"defaultMode": "drop"}, "headers": {
            "defaultMode": "keep",
            "names": {
                "Authorization": "redact", "Proxy-Authorization": "redact", "Cookie": "redact", "Set-Cookie": "redact",
                "X-Api-Key": "drop", "X-Auth-Token": "drop", "X-Session-Token": "redact", "Sec-WebSocket-Key": "drop", "Location": "drop",
            },
        }}}),
        json!({"format": "json", "fields": {"queryParameters": {"defaultMode": "drop"}}}),
    ] {
        let mut shown = Vec::new();
        show_all(access, &mut shown);
        let mut leaks = Vec::new();
        for (output, text) in &shown {
            leaks.extend(found(text).into_iter().map(|leak| format!("{output}: {leak}")));
        }
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }
}

/// Runs everything with marks, and collects everything that can be seen of it.
fn show_all(mut access: Value, shown: &mut Vec<(String, String)>) {
    let origin = Origin::with(|seen| {
        let reply = if seen.target.starts_with("/mirrored") {
            Reply::status(502)
        } else {
            Reply::ok(mark("backend.body"))
        };
        reply
            .header("Set-Cookie", &format!("session={}", mark("backend.Set-Cookie")))
            .header("X-Auth-Token", &mark("backend.X-Auth-Token"))
            .header("X-Session-Token", &mark("backend.X-Session-Token"))
    });
    let auth = Origin::with(|seen| {
        let ok = seen.target.starts_with("/ok");
        let reply =
            if ok { Reply::ok("") } else { Reply::text(403, &mark("forwardAuth.refusal.body")) };
        reply
            .header("X-Auth-Token", &mark("forwardAuth.answer.header"))
            .header("Set-Cookie", &format!("session={}", mark("forwardAuth.answer.cookie")))
    });
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    fs::write(path("basic"), format!("user:{}\n", mark("basicAuth.usersFile"))).unwrap();
    fs::write(path("digest"), format!("user:traefik:{}\n", mark("digestAuth.usersFile"))).unwrap();
    fs::write(path("token"), mark("admin.token")).unwrap();
    let text = routes(&origin, &auth, files.path());
    access["filePath"] = json!(path("access.log"));
    let (cert, key) = Ca::new().issue(&["localhost"]).write(files.path(), "server");
    let key = fs::read_to_string(key).unwrap();
    let options = json!({
        "log": {"level": "TRACE"},
        "accessLog": access,
        "entryPoints": {"web": {"http": {"middlewares": []}}},
        "admin": {
            "socket": path("admin.sock"),
            "tokens": [{"name": "ops", "role": "write", "tokenFile": path("token")}],
            "auditLog": path("audit.jsonl"),
        },
        "serversTransport": {"rootCAs": [cert]},
    });
    let password = mark("environment.proxy.password");
    let proxy = format!("http://user:{password}@127.0.0.1:1");
    let environment = [("HTTP_PROXY", OsStr::new(&proxy))];
    let text = format!(
        "{text}\n        tls: {{certificates: [{{certFile: {}, keyFile: {}}}]}}\n",
        cert.display(),
        json!(key)
    );
    let process = Process::start_in(&environment, &options, &text);
    for ask in requests() {
        let mut client = Client::connect(process.address("web")).unwrap();
        let _ = client.send(&ask);
    }
    for head in malformed() {
        let mut client = Client::connect(process.address("web")).unwrap();
        let _ = client.write_raw(head.as_bytes()).and_then(|()| client.read("GET"));
    }
    let lines = || fs::read_to_string(path("access.log")).unwrap_or_default();
    until("the access log has a line of every request", || {
        lines().lines().count() >= requests().len()
    });
    api(&process, shown);
    admin(&process, &path("admin.sock"), shown);
    shown.push(("the audit log".into(), fs::read_to_string(path("audit.jsonl")).unwrap()));
    let id = process.id().as_raw_nonzero();
    let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    shown.push(("the command line".into(), String::from_utf8_lossy(&words).into_owned()));
    commands(&process, &text, files.path(), shown);
    // What is wrong after a reload is told again.
    process.write(
        &text.replace("PathPrefix(`/basic`)", "PathPrefix(`/basic`").replace("tls:", "tlss:"),
    );
    until("the reload is told", || process.log().contains("tlss"));
    shown.push(("the access log".into(), lines()));
    let log = process.log();
    assert!(log.contains("\"level\":\"debug\"") && log.contains("configuration applied"));
    shown.push(("the log".into(), log));
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    for (output, text) in shown.iter() {
        assert!(!secret.iter().any(|line| text.contains(line)), "{output} has the private key");
    }
    assert!(origin.all().iter().any(|seen| seen.body == mark("client.body").as_bytes()));
    assert!(
        origin
            .all()
            .iter()
            .any(|seen| seen.header("x-api-key") == Some(&mark("customRequestHeaders.X-Api-Key")))
    );
}

/// Every answer of the API, and the metrics.
fn api(process: &Process, shown: &mut Vec<(String, String)>) {
    let mut client = Client::connect(process.address("traefik")).unwrap();
    let mut get = |path: &str| client.send(&Ask::get(path)).unwrap();
    let mut paths: Vec<String> = [
        "overview",
        "rawdata",
        "version",
        "entrypoints",
        "certificates",
        "http/routers",
        "http/services",
        "http/middlewares",
        "tcp/routers",
        "udp/services",
        "http/routers/none@file",
    ]
    .map(|path| format!("/api/{path}"))
    .to_vec();
    paths.extend(["/metrics", "/ping", "/ready", "/dashboard/"].map(str::to_owned));
    for kind in ["routers", "services", "middlewares"] {
        let list: Value =
            serde_json::from_slice(&get(&format!("/api/http/{kind}?per_page=1000")).body).unwrap();
        for one in list.as_array().unwrap() {
            paths.push(format!("/api/http/{kind}/{}", one["name"].as_str().unwrap()));
        }
    }
    assert!(paths.len() > 50, "{paths:?}");
    for path in paths {
        let answer = get(&path);
        assert!(!answer.body.is_empty() || path == "/ping", "{path}");
        shown.push((path, answer.text()));
    }
    let dump = get("/api/support-dump");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&dump.body[..]).read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("basicFile@file"), "the dump has routers");
    shown.push(("/api/support-dump".into(), text));
}

/// The admin API, also for who has no token.
fn admin(process: &Process, socket: &Path, shown: &mut Vec<(String, String)>) {
    use std::io::Write as _;
    for (token, line) in [
        ("admin.token", "GET /v1/bans HTTP/1.1"),
        ("admin.token", "PUT /v1/bans/jail%40file/192.0.2.9 HTTP/1.1"),
        ("admin.token", "DELETE /v1/bans/jail%40file/192.0.2.9 HTTP/1.1"),
        ("admin.token", "GET /v1/nothing HTTP/1.1"),
        ("admin.wrong.token", "GET /v1/bans HTTP/1.1"),
        ("admin.wrong.token", "PUT /v1/bans/jail%40file/192.0.2.9 HTTP/1.1"),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let body = r#"{"duration": "1h", "reason": "told so"}"#;
        let body = if line.starts_with("PUT") { body } else { "" };
        let head = format!(
            "{line}\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            mark(token),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        shown.push((format!("the admin API: {line}"), answer));
    }
    assert!(process.log().contains("192.0.2.9"), "the audit log is in the log");
}

/// What the commands print of files and of the running proxy.
fn commands(process: &Process, text: &str, directory: &Path, shown: &mut Vec<(String, String)>) {
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let old = write("old.yml", text);
    let mut other = text.to_owned();
    for place in PLACES {
        other = other.replace(&mark(place), &format!("{}x", mark(place)));
    }
    let new = write("new.yml", &other.replace("PathPrefix(`/digest`)", "PathPrefix(`/digests`)"));
    let api = format!("http://{}", process.address("traefik"));
    let config = process.directory().join("static.json").display().to_string();
    let header = format!("Authorization: Bearer {}", mark("client.Authorization"));
    let url = "http://a.test/named?token=x";
    for words in [
        &["check", &old][..],
        &["check", "--format=json", &old],
        &["check", &config],
        &["diff", &old, &new],
        &["diff", "--format=json", &old, &new],
        &["diff", "--format=json", &new, &old],
        &["diff", "--api", &api, &new],
        &["explain", url, &old],
        &["explain", "--format=json", "--all", url, &old],
        &["explain", "--all", "http://a.test/again", &old],
        &["explain", "--all", "-H", &header, "http://a.test/basic", &old],
        &["explain", "--all", url, "--api", &api],
        &["explain", "http://a.test/asked", "--format=json", "--api", &api],
        &["explain", "--all", "http://a.test/moved", &old],
        &["explain", "--all", "http://a.test/page", &old],
        &["bans", &format!("--configFile={config}"), "list"],
        &["healthcheck", &format!("--configFile={config}")],
    ] {
        let output = command(directory).args(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.is_empty(), "{words:?}");
        shown.push((words[..2].join(" "), str::from_utf8(&said).unwrap().to_owned()));
    }
}
