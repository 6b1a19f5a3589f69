//! What is refused and what is only noted, each with its place.

use super::*;
use crate::config::diagnostics::Severity;
use crate::config::tree::{Format, Source, decode, parse};

fn validate(text: &str) -> Vec<Diagnostic> {
    let node = parse(&Source::new("f.yml", text, Format::Yaml)).unwrap();
    let mut config: StaticConfig = decode(&node).unwrap();
    config.complete();
    config.validate(&node)
}

fn lines(text: &str) -> Vec<String> {
    validate(text).iter().map(Diagnostic::one_line).collect()
}

/// One finding, with the parts that its line must have.
fn one(text: &str, severity: Severity, parts: &[&str]) {
    let found = validate(text);
    let lines: Vec<_> = found.iter().map(Diagnostic::one_line).collect();
    assert_eq!(found.len(), 1, "{text}: {lines:?}");
    assert_eq!(found[0].severity, severity, "{lines:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
}

fn error(text: &str, parts: &[&str]) {
    one(text, Severity::Error, parts);
}

fn warning(text: &str, parts: &[&str]) {
    one(text, Severity::Warning, parts);
}

fn web(options: &str) -> String {
    let mut text = "entryPoints:\n  web:\n    address: :80\n".to_owned();
    for line in options.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn what_traefik_takes_is_taken() {
    let text = "entryPoints:\n  web:\n    address: ':80'\n    http:\n      redirections:\n        entryPoint: {to: websecure}\n  \
                websecure:\n    address: '[::]:443/tcp'\n    http:\n      tls: {certResolver: le}\n      middlewares: [a@file]\n    \
                proxyProtocol: {trustedIPs: [10.0.0.0/8, '::1']}\n    forwardedHeaders: {insecure: true}\n\
                ping: {}\napi: {insecure: true}\nmetrics: {prometheus: {}}\nproviders: {file: {directory: /x}, precedence: [File, docker]}\n\
                certificatesResolvers:\n  le:\n    acme: {email: a@b.c, httpChallenge: {entryPoint: web}}\n";
    assert_eq!(lines(text), Vec::<String>::new());
    assert_eq!(lines("log: {}\n"), Vec::<String>::new());
}

#[test]
fn addresses() {
    error("entryPoints: {web: {}}\n", &["f.yml:1:", "`entryPoints.web.address` is required"]);
    error("entryPoints:\n  web: {address: 80}\n", &["f.yml:2:18", "did you mean `:80`?"]);
    error("entryPoints:\n  web: {address: ':53/sctp'}\n", &["invalid address `:53/sctp`"]);
    error("entryPoints:\n  w@b: {address: ':53'}\n", &["f.yml:2:", "cannot be the name"]);
    let twice = |options: &str| {
        format!(
            "entryPoints:\n  a: {{address: ':80'{options}}}\n  b: {{address: ':80/tcp', reusePort: true}}\n"
        )
    };
    error(&twice(""), &["f.yml:3:16", "`a` and `b` both listen at `:80`"]);
    assert!(validate(&twice(", reusePort: true")).is_empty());
    assert!(validate("entryPoints: {a: {address: ':0'}, b: {address: ':0'}}\n").is_empty());
}

#[test]
fn trusted_addresses() {
    error(
        &web("forwardedHeaders:\n  trustedIPs:\n    - 10.0.0.0/8\n    - 10.0.0.0/99"),
        &["f.yml:7:11", "`10.0.0.0/99` is neither"],
    );
    error(&web("proxyProtocol:\n  trustedIPs: [x]"), &["f.yml:5:20", "`x` is neither"]);
    error(&web("proxyProtocol: {}"), &["`entryPoints.web.proxyProtocol` trusts nobody"]);
    assert!(validate(&web("proxyProtocol: {insecure: true}")).is_empty());
}

#[test]
fn names_of_requests_have_a_header() {
    for header in ["X-Request-Id", "x-trace"] {
        assert_eq!(lines(&web(&format!("http: {{requestId: {{header: {header}}}}}"))), [""; 0]);
    }
    assert_eq!(lines(&web("http: {requestId: {}}")), [""; 0]);
    for (header, word) in [("'a b'", "no name"), ("''", "no name"), ("Host", "something else")] {
        error(&web(&format!("http: {{requestId: {{header: {header}}}}}")), &[word]);
    }
}

#[test]
fn numbers() {
    error(
        &web("http2: {maxConcurrentStreams: -1}"),
        &["f.yml:4:35", "`http2.maxConcurrentStreams`"],
    );
    error(&web("http2: {maxDecoderHeaderTableSize: -1}"), &["must not be negative"]);
    error(&web("http2: {maxEncoderHeaderTableSize: -1}"), &["must not be negative"]);
    warning(&web("http2: {maxEncoderHeaderTableSize: 8192}"), &["always has 4096"]);
    error(&web("http: {maxHeaderFields: 16385}"), &["f.yml:4:29", "is 16384 at most"]);
    assert!(validate(&web("http: {maxHeaderFields: 16384}")).is_empty());
    warning(&web("transport: {lifeCycle: {graceTimeOut: -1}}"), &["f.yml:4:", "negative"]);
    error(&web("observability: {traceVerbosity: much}"), &["unknown value `much`"]);
    assert!(validate(&web("udp: {timeout: 3s}")).is_empty());
}

#[test]
fn numbers_that_go_takes_for_the_default() {
    for options in ["{maxConcurrentStreams: 0}", "{maxDecoderHeaderTableSize: 0}"] {
        assert!(validate(&web(&format!("http2: {options}"))).is_empty(), "{options}");
    }
    assert!(validate(&web("http2: {maxEncoderHeaderTableSize: 0}")).is_empty());
    for bytes in ["0", "-1"] {
        warning(
            &web(&format!("http: {{maxHeaderBytes: {bytes}}}")),
            &["f.yml:4:28", "`http.maxHeaderBytes`", "the default, 1048576"],
        );
    }
    assert!(validate(&web("http: {maxHeaderBytes: 1}")).is_empty());
}

#[test]
fn sections_that_can_never_work() {
    for timeout in ["0", "-1s"] {
        let text = web(&format!("udp: {{timeout: {timeout}}}"));
        warning(&text, &["f.yml:4:20", "`udp.timeout` must be more than zero", "no effect"]);
        error(&text.replace(":80", ":80/udp"), &["f.yml:4:20", "`udp.timeout` must be"]);
    }
    warning(&web("http: {redirections: {}}"), &["f.yml:4:26", "has no `entryPoint`"]);
    error("accessLog: {bufferingSize: -1}\n", &["f.yml:1:28", "must not be negative"]);
    assert!(validate("accessLog: {bufferingSize: 0}\n").is_empty());
    let buckets = |list: &str| format!("metrics: {{prometheus: {{buckets: [{list}]}}}}\n");
    error(&buckets("0.1, 5, 1.2"), &["f.yml:1:42", "must increase: 1.2 follows 5"]);
    error(&buckets("1, 1"), &["f.yml:1:37", "must increase: 1 follows 1"]);
    warning(&buckets("-1, 1"), &["f.yml:1:34", "this bucket is left out"]);
    assert!(validate(&buckets("0.1, 0.3, 1")).is_empty());
}

#[test]
fn references_of_entry_points() {
    error(
        &web("http: {redirections: {entryPoint: {to: wbe}}}"),
        &["f.yml:4:44", "there is no entry point `wbe`", "did you mean `web`?"],
    );
    error(&web("http: {redirections: {entryPoint: {scheme: http}}}"), &[".to` is required"]);
    error(&web("http: {redirections: {entryPoint: {to: ':x'}}}"), &["`:x` is no port"]);
    assert!(validate(&web("http: {redirections: {entryPoint: {to: ':443'}}}")).is_empty());
    warning(&web("http: {redirections: {entryPoint: {to: web}}}"), &["redirects to itself"]);
    error(&web("http: {redirections: {entryPoint: {to: ':1', scheme: ftp}}}"), &["unknown scheme"]);
    warning(&web("http: {middlewares: [auth]}"), &["f.yml:4:26", "`auth@file`"]);
    warning(&web("http: {tls: {certResolver: el}}"), &["no certificates resolver `el`"]);
}

#[test]
fn core_and_api() {
    error(
        "core: {defaultRuleSyntax: v4}\n",
        &["unsupported default rule syntax configuration: `v4`"],
    );
    assert!(validate("core: {defaultRuleSyntax: v3}\n").is_empty());
    error("core: {workers: 0}\n", &["at least one worker"]);
    for path in ["x", "/a b", "/ä", ""] {
        error(&format!("api: {{basePath: '{path}'}}\n"), &["invalid `api.basePath`"]);
    }
    assert!(validate("api: {basePath: '/a-b/_.:~'}\n").is_empty());
    error("api: {basePath: /x, insecure: true}\n", &["f.yml:1:17", "together with `api.insecure`"]);
}

#[test]
fn sections_that_name_entry_points() {
    error(
        "ping: {entryPoint: wbe}\nentryPoints: {web: {address: ':80'}}\n",
        &["1:20", "did you mean `web`?"],
    );
    assert!(validate("ping: {entryPoint: wbe, manualRouting: true}\n").is_empty());
    error("ping: {terminatingStatusCode: 99}\n", &["99 is no status code"]);
    error("metrics: {prometheus: {entryPoint: x}}\n", &["1:36", "no entry point `x`"]);
}

#[test]
fn providers() {
    error(
        "providers:\n  precedence:\n    - file\n    - dokcer\n",
        &["f.yml:4:7", "unknown provider `dokcer`", "did you mean `docker`?"],
    );
    error("providers: {providersThrottleDuration: -2}\n", &["must not be negative"]);
    error("providers: {file: {watch: true}}\n", &["neither `filename` nor `directory`"]);
    warning("providers: {file: {filename: a, directory: b}}\n", &["1:30", "no effect beside"]);
}

#[test]
fn resolvers() {
    let acme =
        |options: &str| format!("certificatesResolvers:\n  le:\n    acme:\n      {options}\n");
    let tls = "tlsChallenge: {}";
    assert!(validate(&acme(tls)).is_empty());
    error(
        &acme(&format!("storage: ''\n      {tls}")),
        &["f.yml:4:16", "resolver `le` with no storage location"],
    );
    error(&acme(&format!("certificatesDuration: 0\n      {tls}")), &["at least one hour"]);
    error(
        &acme(&format!("clientTimeout: 20\n      {tls}")),
        &["at least `clientResponseHeaderTimeout`"],
    );
    error(&acme("httpChallenge: {}"), &["httpChallenge.entryPoint` is required"]);
    error(&acme("httpChallenge: {entryPoint: x}"), &["no entry point `x`"]);
    error(&acme("dnsChallenge: {}"), &["dnsChallenge.provider` is required"]);
    warning(&acme("dnsChallenge: {provider: x, delayBeforeCheck: 2}"), &["deprecated"]);
    warning(&acme("dnsChallenge: {provider: x, disablePropagationCheck: true}"), &["deprecated"]);
    warning(&acme("email: a@b.c"), &["has no challenge"]);
    warning("certificatesResolvers: {le: {}}\n", &["has no `acme` section"]);
}

#[test]
fn everything_is_reported_at_once() {
    let found = lines(
        "entryPoints:\n  a: {address: x}\n  b: {}\nping: {entryPoint: c}\napi: {basePath: x}\n\
         providers: {precedence: [y]}\n",
    );
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn logs_go_on_with_their_defaults_and_say_so() {
    warning("log: {level: INFOO}\n", &["f.yml:1:14", "`infoo`", "did you mean `info`?"]);
    assert!(validate("log: {level: Info, format: json}\n").is_empty());
    warning("log: {format: yaml}\n", &["f.yml:1:15", "`common` is used instead"]);
    warning("accessLog: {format: jsn}\n", &["f.yml:1:21", "did you mean `json`?"]);
    for (codes, good) in [("'200'", true), ("200-302", true), ("5xx", false), ("600-500", false)] {
        let text = format!("accessLog: {{filters: {{statusCodes: [{codes}]}}}}\n");
        assert_eq!(validate(&text).is_empty(), good, "{codes}");
    }
    let fields = |text: &str| format!("accessLog:\n  fields: {text}\n");
    warning(&fields("{defaultMode: kep}"), &["f.yml:2:25", "did you mean `keep`?"]);
    warning(&fields("{names: {ClientUsrname: drop}}"), &["did you mean `ClientUsername`?"]);
    warning(&fields("{names: {clientusername: redact}}"), &["unknown value `redact`"]);
    warning(&fields("{headers: {defaultMode: redct}}"), &["did you mean `redact`?"]);
    warning(&fields("{headers: {names: {Cookie: no}}}"), &["f.yml:2:38", "unknown value `no`"]);
    warning(&fields("{queryParameters: {defaultMode: redact}}"), &["unknown value `redact`"]);
    warning(
        "metrics: {prometheus: {entryPoint: web, headerLabels: {'a b': X}}}\nentryPoints: {web: {address: ':1'}}\n",
        &["`a b: X` is left out"],
    );
}

#[test]
fn names_at_entry_points_that_lead_nowhere() {
    warning(
        &web("http: {tls: {options: modern}}"),
        &["f.yml:4:", "write for example `modern@file`"],
    );
    assert!(validate(&web("http: {tls: {options: default}}")).is_empty());
    error(&web("forwardedHeaders: {connection: ['a b']}"), &["`a b` is no name of a header"]);
    error("providers: {file: {filename: routes.conf}}\n", &["f.yml:1:30", "use .toml, .yaml"]);
}

#[test]
fn steps_of_overload_ascend() {
    assert_eq!(lines("limits: {overload: {stopKeepAlive: 0.5, maxMemory: 1000}}\n"), [""; 0]);
    error(
        "limits: {overload: {stopKeepAlive: 0.96}}\n",
        &["`refuseRequests` must be above the step before it"],
    );
    error("limits: {overload: {resetHeaviest: 1.5}}\n", &["f.yml:1:36", "at most 1"]);
    error("limits: {overload: {interval: 0s}}\n", &["longer than nothing"]);
}
