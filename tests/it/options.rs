//! Every option of every middleware, written wrongly: a diagnostic at its place that says what would be right, the
//! middleware and its router in error, and nothing else. The options are read off the types, so that none is missing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;

use doorward::middleware::MiddlewareConfig;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::binary::run;
use crate::harness::{Origin, Proxy};

/// What an option holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Not read at all.
    Ignored,
    Bool,
    Integer,
    Fraction,
    Text,
    List,
    /// Names that the user gives.
    Names,
    Section(&'static [&'static str]),
}

/// Follows steps from a section to an option, and stops there with its shape.
struct Walk<'a> {
    steps: &'a [String],
    found: &'a Cell<Shape>,
}

#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the walk")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Walk<'_> {
    fn end<T>(&self, shape: Shape) -> Result<T, Stop> {
        self.found.set(if self.steps.is_empty() { shape } else { Shape::Ignored });
        Err(Stop)
    }

    fn below(self) -> Self {
        Self { steps: &self.steps[1..], found: self.found }
    }
}

/// One entry of a mapping, or one item of a list.
struct One<'a>(&'a str, Option<Walk<'a>>);

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        if self.1.is_none() {
            return Ok(None);
        }
        seed.deserialize(de::value::StrDeserializer::new(self.0)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.1.take().unwrap())
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        self.1.take().map(|walk| seed.deserialize(walk)).transpose()
    }
}

macro_rules! leaves {
    ($($shape:ident: $($method:ident)*;)*) => {$($(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            self.end(Shape::$shape)
        }
    )*)*};
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = Stop;

    leaves! {
        Bool: deserialize_bool;
        Integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
            deserialize_u16 deserialize_u32 deserialize_u64;
        Fraction: deserialize_f32 deserialize_f64;
        Text: deserialize_str deserialize_string deserialize_any;
        Ignored: deserialize_ignored_any;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.steps.is_empty() {
            self.end(Shape::List)
        } else {
            visitor.visit_seq(One("", Some(self.below())))
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.steps.first() {
            None => self.end(Shape::Names),
            Some(name) => visitor.visit_map(One(name, Some(self.below()))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.steps.first() {
            None => self.end(Shape::Section(fields)),
            Some(name) => visitor.visit_map(One(name, Some(self.below()))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

fn shape(steps: &[String]) -> Shape {
    let found = Cell::new(Shape::Ignored);
    assert!(MiddlewareConfig::deserialize(Walk { steps, found: &found }).is_err());
    found.get()
}

/// Every option, as steps from the middleware's name on, with its shape; `[n]` is an item, `name` a name.
fn options(steps: &mut Vec<String>, found: &mut Vec<(Vec<String>, Shape)>) {
    let shape = shape(steps);
    if shape == Shape::Ignored {
        return;
    }
    if !steps.is_empty() {
        found.push((steps.clone(), shape));
    }
    let below: Vec<&str> = match shape {
        Shape::Section(fields) => fields.to_vec(),
        Shape::List => vec!["[n]"],
        Shape::Names => vec!["name"],
        _ => Vec::new(),
    };
    for step in below {
        steps.push(step.to_owned());
        options(steps, found);
        steps.pop();
    }
}

/// What must not stand where a value of this shape is expected.
fn wrong(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Ignored => &[],
        Shape::Bool => &["maybe", "2", "[true]", "{a: 1}"],
        Shape::Integer => &["many", "99999999999999999999", "[1]", "{a: 1}"],
        Shape::Fraction => &["many", "[1]", "{a: 1}"],
        Shape::Text => &["[[a]]", "{a: 1}"],
        Shape::List => &["{a: 1}"],
        Shape::Names => &["[a]", "plain"],
        Shape::Section(_) => &["[1]", "plain", "{nonsense: 1}"],
    }
}

/// A file of middlewares, each with a router of its own, beside a router that is right.
#[derive(Default)]
struct Shelf {
    text: String,
    routers: String,
    /// Of each middleware: what was written, and the line of the mistake.
    cases: BTreeMap<String, (String, usize)>,
}

impl Shelf {
    fn new() -> Self {
        let text = "http:\n  services: {app: {loadBalancer: {servers: [{url: ORIGIN}]}}}\n  middlewares:\n    \
                    good: {addPrefix: {prefix: /a}}\n";
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Adds a middleware whose options stand at `steps`, the last of them with `value`.
    fn add(&mut self, steps: &[String], value: &str) {
        let name = format!("m{}", self.cases.len());
        let _ = writeln!(self.text, "    {name}:");
        let mut indent = 6;
        let mut item = false;
        for (at, step) in steps.iter().enumerate() {
            let last = at + 1 == steps.len();
            if !item {
                let _ = write!(self.text, "{}", " ".repeat(indent));
            }
            item = step == "[n]";
            match (item, last) {
                (true, true) => _ = writeln!(self.text, "- {value}"),
                (true, false) => self.text.push_str("- "),
                (false, true) => _ = writeln!(self.text, "{step}: {value}"),
                (false, false) => _ = writeln!(self.text, "{step}:"),
            }
            indent += 2;
        }
        self.written(name, format!("{}: {value}", steps.join(".")));
    }

    fn written(&mut self, name: String, what: String) {
        let _ = writeln!(
            self.routers,
            "    {name}: {{rule: Host(`{name}.test`), service: app, middlewares: [{name}]}}"
        );
        let line = self.text.lines().count();
        self.cases.insert(name, (what, line));
    }

    fn finish(&self, url: &str) -> String {
        let good = "    good: {rule: Host(`good.test`), service: app, middlewares: [good]}\n";
        format!("{}  routers:\n{good}{}", self.text.replace("ORIGIN", url), self.routers)
    }

    /// Checks the file, and that the mistakes found are those that were made.
    fn check(&self) -> Vec<Value> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("routes.yml");
        fs::write(&path, self.finish("http://127.0.0.1:1")).unwrap();
        let said = run(&["check", path.to_str().unwrap(), "--format=json"]);
        assert_eq!(said.status.code(), Some(1));
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        let all = said["diagnostics"].as_array().unwrap().clone();
        let errors =
            all.iter().filter(|one| one["kind"] == "middleware" && one["severity"] == "error");
        let found: BTreeSet<String> =
            errors.map(|one| one["name"].as_str().unwrap().replace("@file", "")).collect();
        let unseen = self.cases.iter().filter(|(name, _)| !found.contains(*name));
        let unseen: Vec<_> = unseen.map(|(_, case)| case).collect();
        assert!(unseen.is_empty(), "taken without an error: {unseen:#?}");
        assert!(!found.contains("good"));
        all
    }

    /// Serves the file: the right router answers, every other one refuses.
    fn serve(&self) {
        let origin = Origin::start();
        let proxy = Proxy::start(&self.finish(&origin.url()));
        for (name, (what, _)) in &self.cases {
            assert_eq!(proxy.get(&format!("{name}.test/")).status, 503, "{what}");
        }
        let enabled = proxy.api("/api/http/routers?status=enabled&search=test&per_page=1000");
        let enabled: Vec<_> =
            enabled.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(enabled, ["good@file"]);
        assert_eq!(origin.count(), 0);
        assert_eq!(proxy.get("good.test/").status, 200);
        assert_eq!(origin.last().target, "/a/");
    }
}

#[test]
fn an_option_of_the_wrong_type_is_an_error_at_its_line() {
    let mut found = Vec::new();
    options(&mut Vec::new(), &mut found);
    let middlewares: BTreeSet<_> = found.iter().map(|(steps, _)| steps[0].as_str()).collect();
    assert!(middlewares.len() > 24, "{middlewares:?}");
    assert!(found.len() > 150, "{}", found.len());
    let mut shelf = Shelf::new();
    for (steps, shape) in &found {
        for value in wrong(*shape) {
            shelf.add(steps, value);
        }
    }
    let all = shelf.check();
    for (name, (what, line)) in &shelf.cases {
        let object = format!("{name}@file");
        let about = |one: &&Value| one["kind"] == "middleware" && one["name"] == *object;
        let of_it: Vec<_> = all.iter().filter(about).collect();
        let at_line = of_it.iter().any(|one| one["line"] == *line);
        assert!(at_line, "{what} at line {line}: {of_it:#?}");
        for one in of_it {
            assert!(one["message"].as_str().unwrap().len() > 8, "{what}: {one}");
        }
    }
    shelf.serve();
}

/// Values of the right type that cannot be meant, and options that contradict each other: the middleware, and a part of
/// what is said.
const SENSELESS: [(&str, &str); 96] = [
    ("{}", "invalid middleware"),
    ("{addPrefix: {prefix: /a}, stripPrefix: {prefixes: [/a]}}", "multi-types middleware"),
    ("{addPrefix: {}}", "prefix"),
    ("{basicAuth: {}}", "no users"),
    ("{basicAuth: {users: []}}", "no users"),
    ("{basicAuth: {users: ['a']}}", "`name:hash`"),
    ("{basicAuth: {usersFile: /does/not/exist}}", "/does/not/exist"),
    (
        "{basicAuth: {users: ['a:$apr1$x$yyyyyyyyyyyyyyyyyyyyyy'], headerField: 'a b'}}",
        "headerField",
    ),
    ("{buffering: {maxRequestBodyBytes: -1}}", ">= 0"),
    ("{buffering: {maxResponseBodyBytes: -1}}", ">= 0"),
    ("{buffering: {memRequestBodyBytes: -1}}", ">= 0"),
    ("{buffering: {memResponseBodyBytes: -1}}", ">= 0"),
    ("{buffering: {retryExpression: 'Attempts() <'}}", "column 13"),
    ("{buffering: {retryExpression: 'Tries() < 2'}}", "Tries"),
    ("{chain: {middlewares: [missing]}}", "does not exist"),
    ("{circuitBreaker: {}}", "write a condition"),
    ("{circuitBreaker: {expression: 'LatencyAtQuantileMS(50.0)'}}", "compare it"),
    ("{circuitBreaker: {expression: 'Nonsense() > 1'}}", "Nonsense"),
    (
        "{circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5', responseCode: 42}}",
        "write 200 to",
    ),
    (
        "{circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5', responseCode: 1000}}",
        "write 200 to",
    ),
    ("{compress: {encodings: []}}", "at least one encoding"),
    ("{compress: {encodings: [deflate]}}", "gzip, br or zstd"),
    ("{compress: {defaultEncoding: lzma}}", "lzma"),
    ("{compress: {encodings: [br], defaultEncoding: gzip}}", "gzip"),
    (
        "{compress: {excludedContentTypes: [a/b], includedContentTypes: [c/d]}}",
        "mutually exclusive",
    ),
    ("{compress: {excludedContentTypes: ['no type;;']}}", "media type"),
    ("{digestAuth: {users: ['a:b']}}", "`name:realm:hash`"),
    ("{digestAuth: {usersFile: /does/not/exist}}", "/does/not/exist"),
    ("{errors: {}}", "service"),
    ("{errors: {status: ['500'], service: missing, query: /}}", "missing"),
    ("{errors: {status: ['5xx'], service: app, query: /}}", "5xx"),
    ("{errors: {status: ['500,501'], service: app, query: /}}", "500,501"),
    ("{errors: {status: ['600-500'], service: app, query: /}}", "600-500"),
    ("{errors: {status: ['500'], statusRewrites: {'418': 1000}, service: app, query: /}}", "1000"),
    ("{errors: {status: ['500'], statusRewrites: {abc: 200}, service: app, query: /}}", "abc"),
    ("{forwardAuth: {}}", "address"),
    ("{forwardAuth: {address: 'not a url'}}", "address"),
    ("{forwardAuth: {address: 'ftp://a.test/'}}", "address"),
    (
        "{forwardAuth: {address: 'http://a.test/', authResponseHeadersRegex: '('}}",
        "missing closing )",
    ),
    ("{forwardAuth: {address: 'https://a.test/', tls: {ca: /does/not/exist}}}", "ca"),
    ("{forwardAuth: {address: 'https://a.test/', tls: {cert: /does/not/exist}}}", "cert"),
    ("{headers: {customRequestHeaders: {'a b': x}}}", "a b"),
    ("{headers: {customResponseHeaders: {X: \"a\\nb\"}}}", "X"),
    ("{headers: {accessControlAllowOriginListRegex: ['(']}}", "missing closing )"),
    (
        "{inFlightReq: {amount: 1, sourceCriterion: {requestHost: true, requestHeaderName: X}}}",
        "mutually exclusive",
    ),
    ("{inFlightReq: {amount: 1, sourceCriterion: {ipStrategy: {depth: -1}}}}", "depth"),
    ("{ipAllowList: {}}", "sourceRange"),
    ("{ipAllowList: {sourceRange: []}}", "sourceRange"),
    ("{ipAllowList: {sourceRange: ['10.0.0.0/33']}}", "10.0.0.0/33"),
    ("{ipAllowList: {sourceRange: ['ten']}}", "ten"),
    ("{ipAllowList: {sourceRange: ['::1'], rejectStatusCode: 42}}", "such as 403"),
    ("{ipAllowList: {sourceRange: ['::1'], rejectStatusCode: 599}}", "such as 403"),
    ("{ipAllowList: {sourceRange: ['::1'], ipStrategy: {depth: -1}}}", "depth"),
    (
        "{ipAllowList: {sourceRange: ['::1'], ipStrategy: {excludedIPs: ['x']}}}",
        "such as 10.0.0.0/8",
    ),
    ("{ipAllowList: {sourceRange: ['::1'], ipStrategy: {ipv6Subnet: 129}}}", "from 1 to 128"),
    ("{ipAllowList: {sourceRange: ['::1'], ipStrategy: {ipv6Subnet: 0}}}", "from 1 to 128"),
    ("{ipWhiteList: {sourceRange: ['x']}}", "x"),
    ("{rateLimit: {average: 1, period: -1s}}", "period"),
    (
        "{rateLimit: {average: 1, sourceCriterion: {requestHost: true, requestHeaderName: X}}}",
        "mutually exclusive",
    ),
    ("{rateLimit: {average: 1, redis: {endpoints: [':nonsense']}}}", "`host:port`"),
    ("{rateLimit: {average: 1, redis: {db: -1}}}", "db"),
    ("{redirectRegex: {regex: '(', replacement: /}}", "regex"),
    ("{redirectRegex: {regex: '(?=a)', replacement: /}}", "regex"),
    ("{redirectScheme: {}}", "scheme"),
    ("{redirectScheme: {scheme: https, port: none}}", "port"),
    ("{replacePathRegex: {regex: '[', replacement: /}}", "regex"),
    ("{retry: {}}", "1 or more"),
    ("{retry: {attempts: 0}}", "1 or more"),
    ("{retry: {attempts: -1}}", "1 or more"),
    ("{retry: {attempts: 2, status: ['abc']}}", "abc"),
    ("{retry: {attempts: 2, disableRetryOnNetworkError: true}}", "`status` is empty"),
    ("{stripPrefixRegex: {regex: ['(']}}", "regex"),
    ("{plugin: {unheard: {}}}", "plugin"),
    ("{addPrefix: {prefx: /a}}", "prefx"),
    ("{adPrefix: {prefix: /a}}", "adPrefix"),
    ("{contentType: {autoDetect: perhaps}}", "autoDetect"),
    ("{encodedCharacters: {allowEncodedSlash: 3}}", "allowEncodedSlash"),
    ("{ban: {}}", "conditions"),
    ("{ban: {conditions: [{}]}}", "condition"),
    ("{ban: {conditions: [{status: [abc]}]}}", "abc"),
    ("{ban: {conditions: [{path: '('}]}}", "missing closing )"),
    ("{ban: {conditions: [{status: ['401']}], threshold: 0}}", "threshold"),
    ("{ban: {conditions: [{status: ['401']}], window: -1s}}", "window"),
    ("{ban: {conditions: [{status: ['401']}], duration: 0}}", "duration"),
    ("{ban: {conditions: [{status: ['401']}], escalation: {factor: 0.5}}}", "factor"),
    ("{ban: {conditions: [{status: ['401']}], allow: [x]}}", "such as 10.0.0.0/8"),
    ("{ban: {conditions: [{status: ['401']}], ipv6Subnet: 129}}", "128"),
    ("{forwardAuth: {address: 'http://a.test/', cache: {ttl: -1s}}}", "ttl"),
    ("{forwardAuth: {address: 'http://a.test/', cache: {maxEntries: -1}}}", "maxEntries"),
    ("{rateLimit: {average: 1, scope: planet}}", "router"),
    ("{retry: {attempts: 2, budget: {percent: 101}}}", "percent"),
    ("{plugin: {jwt: {}}}", "Traefik Hub"),
    ("{redirectScheme: {scheme: https, port: '0'}}", "write 1 to 65535"),
    ("{redirectScheme: {scheme: https, port: '65536'}}", "write 1 to 65535"),
    ("{redirectScheme: {scheme: https, port: '-1'}}", "write 1 to 65535"),
    ("{redirectScheme: {scheme: https, port: '+80'}}", "write 1 to 65535"),
];

#[test]
fn a_value_that_cannot_be_meant_is_an_error_at_its_line() {
    let mut shelf = Shelf::new();
    for (options, _) in SENSELESS {
        let name = format!("m{}", shelf.cases.len());
        let _ = writeln!(shelf.text, "    {name}: {options}");
        shelf.written(name, options.to_owned());
    }
    let all = shelf.check();
    let mut untold = Vec::new();
    for (number, (options, says)) in SENSELESS.iter().enumerate() {
        let object = format!("m{number}@file");
        let about = |one: &&Value| one["kind"] == "middleware" && one["name"] == *object;
        let of_it: Vec<_> = all.iter().filter(about).collect();
        let line = shelf.cases[&format!("m{number}")].1;
        let text = |one: &Value| format!("{} {}", one["message"], one["help"]);
        if !of_it.iter().any(|one| one["line"] == line && text(one).contains(says)) {
            let said: Vec<_> =
                of_it.iter().map(|one| format!("{}: {}", one["line"], text(one))).collect();
            untold.push(format!("{options} at line {line} should say {says:?}, not {said:?}"));
        }
    }
    assert!(untold.is_empty(), "{untold:#?}");
    shelf.serve();
}

/// What Traefik takes although it cannot be meant: a warning, and the middleware does what is said.
const WARNED: [(&str, &str); 28] = [
    ("{digestAuth: {}}", "nobody can log in"),
    ("{inFlightReq: {amount: -1}}", "no request passes"),
    ("{basicAuth: {users: ['a:plain']}}", "this user can never log in"),
    ("{rateLimit: {average: -1}}", "there is no limit"),
    ("{rateLimit: {average: 1, burst: -1}}", "which means 1"),
    ("{rateLimit: {average: 1, burst: 4294967296}}", "which means 4294967295"),
    ("{rateLimit: {average: 1, redis: {poolSize: 5}}}", "`redis.poolSize` has no effect"),
    ("{rateLimit: {average: 1, redis: {minIdleConns: 5}}}", "`redis.minIdleConns` has no effect"),
    ("{rateLimit: {average: 1, redis: {maxActiveConns: -2}}}", "one connection per worker"),
    ("{rateLimit: {average: 1, redis: {readTimeout: -1s}}}", "there is no limit"),
    ("{redirectScheme: {scheme: gopher}}", "write `https`"),
    ("{redirectRegex: {regex: '^a(b)', replacement: 'x${2}'}}", "go from 0 to 1"),
    ("{redirectRegex: {regex: '^a(b)', replacement: 'x$1y'}}", "for group 1 write `${1}y`"),
    ("{replacePathRegex: {regex: '^a(b)', replacement: '/$rest'}}", "`$rest` names a group"),
    (
        "{circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5', checkPeriod: -1s}}",
        "`checkPeriod` is -1s, which means the default, 100ms",
    ),
    (
        "{circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5', fallbackDuration: -1s}}",
        "`fallbackDuration` is -1s, which means the default, 10s",
    ),
    (
        "{circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5', recoveryDuration: -1s}}",
        "`recoveryDuration` is -1s, which means the default, 10s",
    ),
    ("{replacePath: {path: ''}}", "which means `/`"),
    ("{stripPrefix: {prefixes: []}}", "nothing is stripped"),
    ("{stripPrefixRegex: {regex: []}}", "nothing is stripped"),
    ("{grpcWeb: {allowOrigins: [app.example.com]}}", "no origin that a browser names"),
    ("{grpcWeb: {allowOrigins: ['https://app.example.com/']}}", "without a path"),
    (
        "{headers: {frameDeny: true, customFrameOptionsValue: SAMEORIGIN}}",
        "`customFrameOptionsValue`, which counts",
    ),
    (
        "{headers: {browserXssFilter: true, customBrowserXSSValue: '0'}}",
        "`customBrowserXSSValue`, which counts",
    ),
    (
        "{headers: {accessControlAllowOriginList: ['*'], accessControlAllowCredentials: true}}",
        "browsers refuse that",
    ),
    ("{retry: {attempts: 2, maxRequestBodyBytes: -2}}", "which means -1"),
    (
        "{forwardAuth: {address: 'http://a.test/', trustForwardHeader: true, maxResponseBodySize: -2}}",
        "there is no limit",
    ),
    (
        "{forwardAuth: {address: 'http://a.test/', trustForwardHeader: true, maxBodySize: -2}}",
        "there is no limit",
    ),
];

#[test]
fn what_traefik_takes_although_it_makes_no_sense_is_warned_of() {
    for (options, says) in WARNED {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("routes.yml");
        fs::write(&path, format!("http:\n  middlewares:\n    m: {options}\n")).unwrap();
        let said = run(&["check", path.to_str().unwrap(), "--format=json"]);
        assert_eq!(said.status.code(), Some(0), "{options}");
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        let all = said["diagnostics"].as_array().unwrap();
        let [one] = &all[..] else { panic!("{options}: {all:#?}") };
        assert_eq!((&one["severity"], &one["line"]), (&"warning".into(), &3.into()), "{options}");
        assert!(one["message"].as_str().unwrap().contains(says), "{options}: {one}");
    }
}

/// What is said of a dynamic file.
fn checked(text: &str) -> Vec<Value> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("routes.yml");
    fs::write(&path, text).unwrap();
    let said = run(&["check", path.to_str().unwrap(), "--format=json"]);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    said["diagnostics"].as_array().unwrap().clone()
}

#[test]
fn what_makes_no_sense_elsewhere_is_told_at_its_line() {
    let server = "servers: [{url: 'http://127.0.0.1:1'}]";
    let service = |options: String| format!("http:\n  services:\n    s: {options}\n");
    let router = |options: &str| {
        let router = format!("{{rule: Path(`/`), service: s, {options}}}");
        format!(
            "http:\n  services: {{s: {{loadBalancer: {{{server}}}}}}}\n  routers: {{r: {router}}}\n"
        )
    };
    let with = |options: &str| service(format!("{{loadBalancer: {{{server}, {options}}}}}"));
    let weight = |options: &str| {
        let server = "servers: [{url: 'http://127.0.0.1:1', weight: -1}]";
        service(format!("{{loadBalancer: {{{options}{server}}}}}"))
    };
    let of = |options: &str| service(format!("{options}\n    t: {{loadBalancer: {{{server}}}}}"));
    let mut wrong = Vec::new();
    for (text, severity, says) in [
        (weight(""), "warning", "the server is never chosen"),
        (weight("strategy: p2c, "), "warning", "no effect with `strategy: p2c`"),
        (with("healthCheck: {path: /, status: 600}"), "error", "write 100 to 599"),
        (with("healthCheck: {path: /, status: 99}"), "error", "write 100 to 599"),
        (with("passiveHealthCheck: {failureWindow: -1s}"), "warning", "10s is used instead"),
        (with("passiveHealthCheck: {maxFailedAttempts: 0}"), "warning", "which means 1"),
        (of("{weighted: {services: [{name: t, weight: -1}]}}"), "warning", "never chosen"),
        (
            of("{highestRandomWeight: {services: [{name: t, weight: -1}]}}"),
            "warning",
            "never chosen",
        ),
        (of("{mirroring: {service: t, maxBodySize: -2}}"), "warning", "which means -1"),
        (
            of("{mirroring: {service: t, mirrors: [{name: t, percent: -1}]}}"),
            "error",
            "between 0 and 100",
        ),
        (router("observability: {tracing: true}"), "warning", "no tracing yet"),
        (router("observability: {traceVerbosity: detailed}"), "warning", "no tracing yet"),
        (router("observability: {traceVerbosity: much}"), "warning", "`minimal` or `detailed`"),
        (
            "tls:\n  options:\n    o: {preferServerCipherSuites: true}\n".to_owned(),
            "warning",
            "has no effect",
        ),
        (
            format!(
                "http:\n  services: {{s: {{loadBalancer: {{{server}}}}}}}\n  \
                 middlewares: {{e: {{errors: {{status: [], service: s, query: /}}}}}}\n"
            ),
            "warning",
            "no answer is replaced",
        ),
    ] {
        let said = checked(&text);
        let told = |one: &Value| {
            one["severity"] == severity
                && one["message"].as_str().unwrap().contains(says)
                && one["line"] == 3
        };
        if !said.iter().any(told) {
            wrong.push(format!("{text}should say {says:?}, not {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let fine = router("observability: {tracing: false, traceVerbosity: minimal}");
    assert_eq!(checked(&fine), [] as [Value; 0]);
}
