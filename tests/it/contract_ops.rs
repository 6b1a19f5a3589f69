//! Configuration and its ways in, the pipeline and the API, row by row of `tests/compat/config-and-ops.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;

use flate2::read::GzDecoder;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::binary::{Process, command, run};
use crate::harness::certs::{Ca, Tls};
use crate::harness::{Ask, Client, Origin, Proxy, block_on, everything_to, until};

const STATIC: &str = include_str!("../compat/every-static-option.yml");
const DYNAMIC: &str = include_str!("../compat/every-dynamic-option.yml");

/// What the two files ask for and Doorward does not serve yet.
const NOT_SERVED: [&str; 33] = [
    "accessLog.otlp",
    "api.debug",
    "certificatesResolvers.vpn.tailscale",
    "entryPoints.secure.http3",
    "experimental.knative",
    "experimental.otlpLogs",
    "log.otlp",
    "metrics.datadog",
    "metrics.influxDB2",
    "metrics.otlp",
    "metrics.statsD",
    "ocsp",
    "providers.consul",
    "providers.consulCatalog",
    "providers.docker",
    "providers.ecs",
    "providers.etcd",
    "providers.http",
    "providers.knative",
    "providers.kubernetesCRD",
    "providers.kubernetesGateway",
    "providers.kubernetesIngress",
    "providers.kubernetesIngressNGINX",
    "providers.nomad",
    "providers.plugin",
    "providers.redis",
    "providers.rest",
    "providers.swarm",
    "providers.zooKeeper",
    "serversTransport.spiffe",
    "spiffe",
    "tcpServersTransport",
    "tracing",
];

/// The errors that `check` finds in a file, each without its place.
fn errors(directory: &Path, name: &str, text: &str) -> BTreeSet<String> {
    let place = directory.display().to_string();
    fs::write(directory.join(name), text.replace("DIRECTORY", &place)).unwrap();
    let checked = run(&["check", "--format=json", &format!("{place}/{name}")]);
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let found = said["diagnostics"].as_array().unwrap().iter();
    let errors = found.filter(|one| one["severity"] == "error");
    errors.map(|one| one["message"].as_str().unwrap().to_owned()).collect()
}

fn with_certificates() -> TempDir {
    let directory = TempDir::new().unwrap();
    let ca = Ca::new();
    ca.issue(&["example.test"]).write(directory.path(), "example.test");
    fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
    fs::write(directory.path().join("users"), "u:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\n").unwrap();
    directory
}

/// ST-1 to ST-14, EP-1 to EP-21, TR-1 to TR-5, OB-1 to OB-16, PR-1 to PR-21, CR-1 to CR-6, CLI-27, PLG-1, PLG-2
#[test]
fn every_static_option_is_known() {
    let directory = with_certificates();
    let found = errors(directory.path(), "every-static-option.yml", STATIC);
    let mut wanted =
        BTreeSet::from(NOT_SERVED.map(|path| format!("`{path}` is not supported yet")));
    wanted.extend(
        ["experimental.plugins.one", "experimental.localPlugins.two"]
            .map(|plugin| format!("plugins are not supported yet: `{plugin}`")),
    );
    assert_eq!(found, wanted);
}

/// What Traefik v3 has given up, and stops for.
const REMOVED: [&str; 23] = [
    "experimental.http3",
    "pilot",
    "providers.consul.namespace",
    "providers.consul.tls.caOptional",
    "providers.consulCatalog.endpoint.tls.caOptional",
    "providers.consulCatalog.namespace",
    "providers.docker.swarmMode",
    "providers.docker.tls.caOptional",
    "providers.etcd.tls.caOptional",
    "providers.http.tls.caOptional",
    "providers.marathon",
    "providers.nomad.endpoint.tls.caOptional",
    "providers.nomad.namespace",
    "providers.rancher",
    "providers.redis.tls.caOptional",
    "providers.swarm.tls.caOptional",
    "tracing.datadog",
    "tracing.elastic",
    "tracing.haystack",
    "tracing.instana",
    "tracing.jaeger",
    "tracing.spanNameLimit",
    "tracing.zipkin",
];

/// CLI-40: each is named, in the words that scripts look for, whether it comes from a file or as a flag.
#[test]
fn every_removed_option_stops_the_start() {
    const WORDS: &str = "incompatible deprecated install configuration option found: ";
    let directory = TempDir::new().unwrap();
    let mut tree = json!({"entryPoints": {"web": {"address": "127.0.0.1:0"}}});
    for path in REMOVED {
        let place = path.split('.').fold(&mut tree, |node, step| &mut node[step]);
        *place = json!({});
    }
    let found = errors(directory.path(), "removed.yml", &tree.to_string());
    let of = |path: &str| format!("{WORDS}`{path}`");
    let removed: BTreeSet<_> = found.into_iter().filter(|line| line.starts_with(WORDS)).collect();
    assert_eq!(removed, BTreeSet::from(REMOVED.map(of)));
    let file = directory.path().join("removed.yml").display().to_string();
    let flags: Vec<_> = REMOVED.map(|path| format!("--{path}=x")).into();
    let file = [format!("--configFile={file}")];
    for arguments in [&file[..], &flags] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ended = run(&arguments);
        assert_eq!(ended.status.code(), Some(1));
        let said = String::from_utf8(ended.stderr).unwrap();
        for path in REMOVED {
            assert!(said.contains(&of(path)), "{path}: {said}");
        }
    }
}

/// ST-11: each is noted with its name, and is no error.
#[test]
fn experiments_without_effect_are_noted() {
    let options = ["kubernetesGateway", "kubernetesIngressNGINX"];
    for value in ["true", "false"] {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("static.yml");
        let switches = options.map(|option| format!("{option}: {value}")).join(", ");
        fs::write(&file, format!("api: {{}}\nexperimental: {{{switches}}}\n")).unwrap();
        let checked = run(&["check", "--format=json", &file.display().to_string()]);
        let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
        let found = said["diagnostics"].as_array().unwrap().iter();
        let noted: Vec<_> =
            found.map(|one| (one["severity"].clone(), one["message"].clone())).collect();
        let wanted = options.map(|option| {
            let message = format!("`experimental.{option}` is deprecated and has no effect");
            (json!("warning"), json!(message))
        });
        assert_eq!(noted, wanted);
        assert_eq!(checked.status.code(), Some(0));
    }
}

/// FILE-12, TR-3, PLG-9
#[test]
fn every_dynamic_option_is_known() {
    let directory = with_certificates();
    let found = errors(directory.path(), "every-dynamic-option.yml", DYNAMIC);
    let wanted = ["spiffe", "tcp", "udp"].map(|path| format!("`{path}` is not supported yet"));
    let mut wanted = BTreeSet::from(wanted);
    wanted.insert("plugins are not supported yet: `other`".to_owned());
    assert_eq!(found, wanted);
}

/// CLI-10, CLI-11, CLI-21, CLI-22, CLI-23, CLI-25, CLI-31, ACCEPT-1: which source counts is told by whose mistake stops
/// the start.
#[test]
fn one_source_counts_and_its_mistakes_stop_the_start() {
    let start =
        |file: Option<&str>, flags: &[&str], variable: Option<&str>| -> (Option<i32>, String) {
            let directory = TempDir::new().unwrap();
            if let Some(text) = file {
                fs::write(directory.path().join("traefik.yml"), text).unwrap();
            }
            let mut command = command(directory.path());
            // The command stops by itself: there is no `ping` in any of the sources.
            command.arg("healthcheck").args(flags);
            if let Some(variable) = variable {
                command.env(variable, "true");
            }
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
    let (file, flags, variable) =
        ("log: {inFile: 1}\n", &["--log.inFlags=1"][..], "TRAEFIK_LOG_INENVIRONMENT");
    for (file, flags, variable, wanted) in [
        (Some(file), flags, Some(variable), "inFile"),
        (None, flags, Some(variable), "inFlags"),
        (None, &[], Some(variable), "inenvironment"),
        (Some("unknown: {}\nlog: {}\n"), flags, Some(variable), "ping"),
        (Some("unknown: {}\n"), &[], None, "no valid configuration found in file"),
        (Some(""), &[], None, "no configuration found in file"),
        (None, &["--unknown"], None, "unknown"),
        (None, &["--log.level=INFO", "--", "--unknown"], None, "ping"),
        (None, &["--log.level=INFO", "word", "--unknown"], None, "ping"),
        (None, &[], Some("TRAEFIK_SOMETHING_ELSE"), "ping"),
        (None, &["--configFile="], Some(variable), "ping"),
    ] {
        let (code, said) = start(file, flags, variable);
        assert_eq!(code, Some(1), "{wanted}: {said}");
        let said = said.to_lowercase();
        assert!(said.contains(&wanted.to_lowercase()), "{wanted}: {said}");
        let others =
            ["infile", "inflags", "inenvironment"].iter().filter(|other| said.contains(**other));
        assert!(others.count() <= 1, "{said}");
    }
}

/// CLI-2, PING-2, ACCEPT-2
#[test]
fn healthcheck_fails_while_the_program_stops() {
    let origin = Origin::start();
    let life = json!({"transport": {"lifeCycle": {"requestAcceptGraceTimeout": "60s"}}});
    let options = json!({"entryPoints": {"traefik": life}, "ping": {"terminatingStatusCode": 502}});
    let process = Process::start(&options, &everything_to(&origin.url()));
    let port = process.address("traefik").port();
    let entry_point = format!("--entryPoints.traefik.address=127.0.0.1:{port}");
    let ask = || run(&["healthcheck", "--ping", &entry_point]);
    assert_eq!(ask().status.code(), Some(0));
    process.signal(Signal::TERM);
    until("it says that it stops", || ask().status.code() == Some(1));
    assert!(String::from_utf8_lossy(&ask().stderr).contains("Bad healthcheck status: 502"));
    let mut client = Client::connect(process.address("traefik")).unwrap();
    let ping = client.send(&Ask::get("/ping")).unwrap();
    assert_eq!((ping.status, &*ping.text()), (502, "Bad Gateway"));
}

/// CLI-6, CLI-59, EP-3
#[test]
fn a_port_that_is_taken_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--entryPoints.web.address={}", taken.local_addr().unwrap());
    let output = run(&[&address]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("entry point `web` cannot listen"), "{said}");
}

/// CLI-16, SIG-2
#[test]
fn the_static_configuration_is_read_once() {
    let origin = Origin::start();
    let mut process = Process::start(&json!({}), &everything_to(&origin.url()));
    fs::write(process.directory().join("static.json"), "{\"entryPoints\": 5}").unwrap();
    process.signal(Signal::HUP);
    until("it has looked", || process.log().contains("SIGHUP"));
    let mut client = Client::connect(process.address("web")).unwrap();
    assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
    assert!(!process.is_over());

    // Without a file provider there is nothing to look at, and the signal ends the program.
    let directory = TempDir::new().unwrap();
    let mut child = command(directory.path())
        .args(["--entryPoints.web.address=127.0.0.1:0", "--log.level=INFO", "--log.filePath=log"])
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    until("it listens", || log().contains("listening"));
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    until("it has ended", || child.try_wait().unwrap().is_some());
}

/// CLI-57: at level debug, with secrets redacted.
#[test]
fn the_static_configuration_is_logged_at_level_debug() {
    let acme = json!({"email": "a@b.test", "storage": "acme.json", "tlsChallenge": {},
                      "eab": {"kid": "k", "hmacEncoded": "markOfTheKey"}});
    let process =
        Process::start(&json!({"certificatesResolvers": {"le": {"acme": acme}}}), "http: {}");
    let log = process.log();
    let line = log.lines().find(|line| line.contains("static configuration loaded")).unwrap();
    assert!(line.contains("hmacEncoded") && line.contains("xxxx"), "{line}");
    assert!(!log.contains("markOfTheKey"));
}

fn api_list(proxy: &Proxy, path: &str) -> Vec<String> {
    let answer = proxy.inside(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-next-page").is_some());
    let list: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
    list.iter()
        .map(|one| one["name"].as_str().unwrap().trim_end_matches("@file").to_owned())
        .collect()
}

const SEVERAL: &str = "
    http:
      routers:
        alpha: {rule: Host(`z.test`), service: one, middlewares: [chained], entryPoints: [web, websecure], priority: 5}
        beta: {rule: Host(`y.test`), service: two@file, entryPoints: [web]}
        Gamma: {rule: Host(`x.test`), service: missing, entryPoints: [web], priority: 500}
        a/b+c: {rule: Host(`w.test`), service: one, entryPoints: [web, nowhere]}
      services:
        one: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}
        two: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}, {url: 'http://127.0.0.1:2'}]}}
        three: {weighted: {services: [{name: one}]}}
      middlewares:
        chained: {chain: {middlewares: [prefix]}}
        prefix: {addPrefix: {prefix: /a}}
    ";

/// API-4, API-20 to API-27
#[test]
fn lists_are_searched_filtered_and_sorted() {
    let proxy = Proxy::start(SEVERAL);
    let of = |kind: &str, query: &str, wanted: &[&str]| {
        let path = format!("/api/http/{kind}?{query}");
        assert_eq!(api_list(&proxy, &path), wanted, "{path}");
    };
    let file = "search=@file";
    of("routers", file, &["Gamma", "a/b+c", "alpha", "beta"]);
    of("routers", "search=GAMMA", &["Gamma"]);
    of("routers", "search=Z.test", &["alpha"]);
    of("routers", "search=a%2Fb%2Bc", &["a/b+c"]);
    of("routers", &format!("{file}&direction=desc"), &["beta", "alpha", "a/b+c", "Gamma"]);
    of("routers", &format!("{file}&sortBy=priority"), &["alpha", "a/b+c", "beta", "Gamma"]);
    of("routers", &format!("{file}&sortBy=rule"), &["a/b+c", "Gamma", "beta", "alpha"]);
    of("routers", &format!("{file}&sortBy=service"), &["Gamma", "a/b+c", "alpha", "beta"]);
    of("routers", &format!("{file}&sortBy=status"), &["Gamma", "alpha", "beta", "a/b+c"]);
    of("routers", &format!("{file}&sortBy=bogus"), &["Gamma", "a/b+c", "alpha", "beta"]);
    of("routers", "status=DISABLED", &["Gamma"]);
    of("routers", &format!("{file}&status=warning"), &["a/b+c"]);
    of("routers", "serviceName=one@file", &["a/b+c", "alpha"]);
    of("routers", "serviceName=two@file", &["beta"]);
    of("routers", "serviceName=two", &[]);
    of("routers", "middlewareName=chained@file", &["alpha"]);
    of("routers", "middlewareName=prefix@file", &["alpha"]);
    of("routers", "middlewareName=none@file", &[]);
    of("services", &format!("{file}&sortBy=servers&direction=desc"), &["two", "one", "three"]);
    of("services", &format!("{file}&sortBy=type"), &["one", "two", "three"]);
    of("middlewares", &format!("{file}&sortBy=type"), &["prefix", "chained"]);
    of("middlewares", &format!("{file}&per_page=1&page=2"), &["prefix"]);
    assert_eq!(api_list(&proxy, "/api/entrypoints"), ["traefik", "web", "websecure"]);
    assert_eq!(api_list(&proxy, "/api/entrypoints?search=web&per_page=2"), ["traefik", "web"]);
    assert_eq!(api_list(&proxy, "/api/tcp/routers"), [""; 0]);

    for path in ["/api/http/routers/a%2Fb+c@file", "/api/http/routers/a%2Fb%2Bc%40file"] {
        let router = proxy.api(path);
        assert_eq!((&router["name"], &router["status"]), (&json!("a/b+c@file"), &json!("warning")));
        // PIPE-30
        assert_eq!(router["using"], json!(["web"]));
        assert_eq!(router["entryPoints"], json!(["web", "nowhere"]));
    }
    for (path, status, message) in [
        ("/api/http/routers?page=x", 400, "invalid request: page: 0"),
        ("/api/http/routers?per_page=-3", 400, "invalid request: per_page: -3"),
        ("/api/certificates?page=3", 400, "invalid request: page: 3, per_page: 100"),
        ("/api/certificates/no", 404, "certificate not found: no"),
        ("/api/tcp/routers/no@file", 404, "router not found: no@file"),
        ("/api/tcp/services/no@file", 404, "service not found: no@file"),
        ("/api/tcp/middlewares/no@file", 404, "middleware not found: no@file"),
        ("/api/udp/routers/no@file", 404, "router not found: no@file"),
        ("/api/udp/services/no@file", 404, "service not found: no@file"),
        ("/api/entrypoints/no", 404, "entry point not found: no"),
    ] {
        let answer = proxy.inside(path);
        assert_eq!(
            (answer.status, answer.text()),
            (status, format!("{{\"message\":\"{message}\"}}\n"))
        );
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    let mut client = Client::connect(proxy.address("traefik")).unwrap();
    for method in ["POST", "PUT", "HEAD"] {
        let answer = client.send(&Ask::new(method, "/api/overview")).unwrap();
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

/// API-1 to API-3, API-8, API-33, PIPE-40, PIPE-41, PIPE-43, PIPE-44, PIPE-48, PIPE-51, PIPE-27
#[test]
fn shapes_of_the_api() {
    let options = json!({
        "api": {"insecure": true, "dashboardName": "north", "disableDashboardAd": true},
        "accessLog": {"filePath": "/dev/null"},
        "entryPoints": {"web": {"transport": {"keepAliveMaxRequests": 7}}},
    });
    let proxy = Proxy::with(options).start(SEVERAL);
    let overview = proxy.api("/api/overview");
    // Two of the services and two of the middlewares are the program's own.
    assert_eq!(overview["http"]["routers"], json!({"total": 10, "warnings": 1, "errors": 1}));
    assert_eq!(
        overview["features"],
        json!({"tracing": "", "metrics": "Prometheus", "accessLog": true})
    );
    assert_eq!(overview["udp"]["services"], json!({"total": 0, "warnings": 0, "errors": 0}));
    assert_eq!(overview["tcp"]["middlewares"], json!({"total": 0, "warnings": 0, "errors": 0}));
    let web = proxy.api("/api/entrypoints/web");
    for (place, wanted) in [
        ("/name", json!("web")),
        ("/transport/lifeCycle/graceTimeOut", json!("10s")),
        ("/transport/respondingTimeouts/readTimeout", json!("1m0s")),
        ("/transport/respondingTimeouts/idleTimeout", json!("3m0s")),
        ("/transport/keepAliveMaxRequests", json!(7)),
        ("/forwardedHeaders", json!({})),
        ("/http2/maxConcurrentStreams", json!(250)),
        ("/http/maxHeaderBytes", json!(1_048_576)),
        ("/http/sanitizePath", json!(true)),
        ("/udp/timeout", json!("3s")),
        ("/observability/accessLogs", json!(true)),
        ("/observability/traceVerbosity", json!("minimal")),
    ] {
        assert_eq!(web.pointer(place), Some(&wanted), "{place} in {web:#}");
    }
    let version = proxy.api("/api/version");
    assert_eq!(
        (&version["dashboardName"], &version["disableDashboardAd"]),
        (&json!("north"), &json!(true))
    );
    assert!(version["Version"].is_string() && version["Codename"].is_string());
    assert!(version["startDate"].as_str().unwrap().contains('T') && version["uuid"].is_null());

    let raw = proxy.api("/api/rawdata");
    for (name, rule, priority) in [
        ("api@internal", "PathPrefix(`/api`)", i64::MAX - 1),
        ("dashboard@internal", "PathPrefix(`/`)", i64::MAX - 2),
        ("ping@internal", "PathPrefix(`/ping`)", i64::MAX),
        ("prometheus@internal", "PathPrefix(`/metrics`)", i64::MAX),
    ] {
        let router = &raw["routers"][name];
        assert_eq!(
            (&router["rule"], &router["priority"]),
            (&json!(rule), &json!(priority)),
            "{name}"
        );
        assert_eq!(
            (&router["using"], &router["ruleSyntax"]),
            (&json!(["traefik"]), &json!("default"))
        );
        let seen = &router["observability"];
        assert_eq!(
            (&seen["accessLogs"], &seen["traceVerbosity"]),
            (&json!(true), &json!("minimal"))
        );
    }
    for name in ["dashboard_redirect@internal", "dashboard_stripprefix@internal"] {
        assert_eq!(raw["middlewares"][name]["usedBy"], json!(["dashboard@internal"]));
    }
    for name in ["noop", "api", "ping", "prometheus"] {
        let service = &raw["services"][format!("{name}@internal")];
        assert_eq!(service["status"], "enabled", "{name}");
    }
    assert_eq!(raw["routers"]["alpha@file"].get("priorityStr"), None);
    let mut keys: Vec<_> = raw.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["middlewares", "routers", "services"], "maps without an entry are left out");

    let second = SEVERAL.replace("priority: 5}", "priority: 6, tls: {}}");
    proxy.reload(&second);
    let router = proxy.api("/api/http/routers/alpha@file");
    assert_eq!(
        (&router["priorityStr"], &router["tls"]),
        (&json!("6"), &json!({"options": "default"}))
    );
}

/// API-7, API-22, API-23, API-26
#[test]
fn certificates_are_listed() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let mut tls = "tls:\n  certificates:\n".to_owned();
    for name in ["b.test", "a.test"] {
        let (cert, key) = ca.issue(&[name, &format!("www.{name}")]).write(setup.directory(), name);
        let _ = writeln!(tls, "    - {{certFile: {}, keyFile: {}}}", cert.display(), key.display());
    }
    let routes = format!(
        "http:\n  routers: {{all: {{rule: Host(`a.test`), service: app, tls: {{}}}}}}\n  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n",
        origin.url()
    );
    let proxy = setup.start(&(routes + &tls));
    let names = |query: &str| -> Vec<String> {
        let list = proxy.api(&format!("/api/certificates?{query}"));
        let list = list.as_array().unwrap();
        list.iter().map(|one| one["commonName"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("search=.test"), ["a.test", "b.test"]);
    assert_eq!(names("search=.TEST&sortBy=cn&direction=desc"), ["b.test", "a.test"]);
    assert_eq!(names("search=www.b"), ["b.test"]);
    assert_eq!(names("search=test+authority&sortBy=issuer"), ["a.test", "b.test"]);
    assert_eq!(names("search=.test&status=Enabled&sortBy=validUntil").len(), 2);
    assert_eq!(names("status=expired"), [""; 0]);
    let first = &proxy.api("/api/certificates?search=a.test")[0];
    assert_eq!(first["sans"], json!(["a.test", "www.a.test"]));
    assert_eq!((&first["issuerCN"], &first["version"]), (&json!("test authority"), &json!("v3")));
    assert_eq!((&first["keyType"], &first["keySize"]), (&json!("ECDSA"), &json!(256)));
    assert_eq!((&first["status"], first.get("issuerOrg")), (&json!("enabled"), None));
    assert!(first["notAfter"].as_str().unwrap().ends_with('Z'));
    assert_eq!(first["name"], first["certFingerprint"]);
    let name = first["name"].as_str().unwrap();
    assert_eq!((name.len(), &proxy.api(&format!("/api/certificates/{name}"))), (64, first));
    let counted = &proxy.api("/api/overview")["certificates"];
    assert_eq!((&counted["warnings"], &counted["errors"]), (&json!(0), &json!(0)));
}

/// API-9, MT-8: Traefik leaves the runtime configuration as it is.
#[test]
fn the_support_dump_holds_no_secret() {
    let options = json!({
        "core": {"profile": "exact"},
        "certificatesResolvers": {"le": {"acme": {
            "email": "a@b.test", "storage": "acme.json", "tlsChallenge": {}, "eab": {"kid": "k", "hmacEncoded": "markOfAKey"},
        }}},
    });
    let proxy = Proxy::with(options).start(
        "
        http:
          routers:
            all: {rule: 'Header(`X-Token`, `markInTheRule`) || Query(`k`, `markInTheQuery`)', service: app, middlewares: [users, head]}
          middlewares:
            users: {basicAuth: {users: ['u:$apr1$H6uskkkW$markOfTheHash']}}
            digest: {digestAuth: {users: ['u:r:markOfTheHash']}}
            head: {headers: {customRequestHeaders: {X-Anything: markOfTheHeader}}}
            ask: {forwardAuth: {address: 'http://u:markOfTheUrl@127.0.0.1:1/?k=markOfTheUrl'}}
            bucket: {rateLimit: {average: 1, redis: {password: markOfThePassword}}}
          services:
            app:
              loadBalancer:
                servers: [{url: 'http://u:markOfTheUrl@127.0.0.1:1'}]
                healthCheck: {path: /?k=markOfTheUrl, headers: {X-Anything: markOfTheHeader}}
        ",
    );
    let answer = proxy.inside("/api/support-dump");
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
    let disposition = answer.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename=support-dump.tar.gz"));
    let mut archive = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut archive).unwrap();
    let mut files = Vec::new();
    let mut rest = &archive[..];
    while rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&rest[range]).trim_end_matches('\0').to_owned()
        };
        let size = usize::from_str_radix(&text(124..135), 8).unwrap();
        let content: Value = serde_json::from_slice(&rest[512..512 + size]).unwrap();
        files.push((text(0..100), content));
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["version.json", "static-config.json", "runtime-config.json"]);
    assert_eq!(files[0].1["codename"], "doorward");
    assert_eq!(files[1].1["entryPoints"]["web"]["address"], "127.0.0.1:0");
    let runtime = &files[2].1;
    assert_eq!(runtime["middlewares"]["users@file"]["basicAuth"]["users"], json!(["xxxx"]));
    assert_eq!(runtime["services"]["app@file"]["status"], "enabled");
    let all = String::from_utf8_lossy(&archive);
    assert!(!all.contains("mark"), "{all}");
}

/// PIPE-30 to PIPE-33, PIPE-38, PIPE-50, ACCEPT-5: what is wrong is said by the API, and its neighbours go on. Under
/// `exact` nobody answers for a router that is disabled.
#[test]
fn what_cannot_be_built_is_told_and_hurts_nobody() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            good: {{rule: Host(`good.test`), service: app}}
            empty: {{rule: Host(`empty.test`), service: nobody}}
            noService: {{rule: Host(`a.test`), service: missing}}
            noMiddleware: {{rule: Host(`b.test`), service: app, middlewares: [missing]}}
            noRule: {{rule: Hst(`c.test`), service: app}}
            noOptions: {{rule: Host(`d.test`), service: app, tls: {{options: missing}}}}
            noEntryPoint: {{rule: Host(`e.test`), service: app, entryPoints: [missing]}}
            twoKinds: {{rule: Host(`f.test`), service: app, middlewares: [both]}}
            twoServices: {{rule: Host(`g.test`), service: both}}
            loop: {{rule: Host(`h.test`), service: loop}}
            noTransport: {{rule: Host(`i.test`), service: far}}
            tooHigh: {{rule: Host(`j.test`), service: app, priority: 9223372036854775807}}
            noRest: {{rule: Host(`k.test`), service: rest@internal}}
          middlewares:
            both: {{addPrefix: {{prefix: /a}}, stripPrefix: {{prefixes: [/b]}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{0}'}}]}}}}
            nobody: {{loadBalancer: {{servers: []}}}}
            both: {{loadBalancer: {{servers: [{{url: '{0}'}}]}}, weighted: {{services: [{{name: app}}]}}}}
            loop: {{weighted: {{services: [{{name: loop}}]}}}}
            far: {{loadBalancer: {{servers: [{{url: '{0}'}}], serversTransport: missing}}}}
        ",
        origin.url()
    );
    let proxy = Proxy::with(json!({"core": {"profile": "exact"}})).start(&text);
    assert_eq!((proxy.get("good.test/").status, proxy.get("empty.test/").status), (200, 503));
    for (name, host, says) in [
        ("noService", "a", "the service \"missing@file\" does not exist"),
        ("noMiddleware", "b", "middleware \"missing@file\" does not exist"),
        ("noRule", "c", "Hst"),
        ("noOptions", "d", "missing@file"),
        ("noEntryPoint", "e", "no valid entryPoint for this router"),
        ("twoKinds", "f", "cannot create middleware: multi-types middleware not supported"),
        ("twoServices", "g", "both@file"),
        ("loop", "h", "loop@file"),
        ("noTransport", "i", "servers transport not found missing@file"),
        ("tooHigh", "j", "priority"),
        ("noRest", "k", "the REST provider is not supported yet"),
    ] {
        let router = proxy.api(&format!("/api/http/routers/{name}@file"));
        assert_eq!(router["status"], "disabled", "{router:#}");
        let told = router["error"].to_string();
        assert!(told.contains(&says.replace('"', "\\\"")), "{name}: {told}");
        assert_eq!(proxy.get(&format!("{host}.test/")).status, 404, "{name}");
    }
    let without =
        Proxy::with(json!({"api": false, "ping": false, "metrics": {"prometheus": false}})).start(
            "
        http:
          routers:
            api: {rule: Path(`/a`), service: api@internal}
            ping: {rule: Path(`/b`), service: ping@internal}
            metrics: {rule: Path(`/c`), service: prometheus@internal}
        ",
        );
    let report = without.app().report();
    for (name, says) in [
        ("api@file", "api is not enabled"),
        ("ping@file", "ping is not enabled"),
        ("metrics@file", "prometheus metrics are not enabled"),
    ] {
        let router = report.routers.iter().find(|router| router.name.as_str() == name).unwrap();
        assert!(router.errors.iter().any(|error| error.contains(says)), "{:?}", router.errors);
    }
}

/// PIPE-42, PIPE-45, PING-3, MET-26, API-31, API-32: the program's services stand where somebody puts them.
#[test]
fn services_of_the_program_behind_routers_of_the_user() {
    let options = json!({
        "api": {"insecure": false},
        "ping": {"manualRouting": true},
        "metrics": {"prometheus": {"manualRouting": true}},
    });
    let proxy = Proxy::with(options).start(
        "
        http:
          routers:
            ping: {rule: Path(`/healthy`), service: ping@internal}
            metrics: {rule: Path(`/numbers`), service: prometheus@internal}
            api: {rule: PathPrefix(`/api`), service: api@internal}
            noop: {rule: Path(`/tea`), service: noop@internal}
        ",
    );
    for (path, status) in
        [("/healthy", 200), ("/numbers", 200), ("/api/version", 200), ("/tea", 418), ("/ping", 404)]
    {
        assert_eq!(proxy.get(path).status, status, "{path}");
    }
    assert!(proxy.get("/numbers").header("content-type").unwrap().starts_with("text/plain"));
    for path in ["/ping", "/metrics", "/api/version", "/dashboard/", "/debug/vars"] {
        assert_eq!(proxy.inside(path).status, 404, "{path}");
    }
}

/// PING-1
#[test]
fn ping_answers_any_method() {
    let proxy = Proxy::start("http: [");
    let mut client = Client::connect(proxy.address("traefik")).unwrap();
    for method in ["GET", "POST", "DELETE", "HEAD", "BREW"] {
        let answer = client.send(&Ask::new(method, "/ping/below")).unwrap();
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(answer.text(), if method == "HEAD" { "" } else { "OK" });
    }
}

/// EP-10, EP-11, EP-12, PIPE-22, PIPE-23, PIPE-47
#[test]
fn what_entry_points_add_to_routers() {
    let origin = Origin::start();
    let options = json!({"entryPoints": {
        "web": {"http": {"redirections": {"entryPoint": {"to": "websecure", "permanent": false}}}},
        "websecure": {"http": {"middlewares": ["outer@file"], "tls": {}}, "asDefault": true},
    }});
    let text = everything_to(&origin.url()).replace(
        "          services:",
        "            both: {rule: Host(`both.test`), service: app, middlewares: [inner], entryPoints: [traefik, websecure]}
          middlewares:
            outer: {addPrefix: {prefix: /outer}}
            inner: {addPrefix: {prefix: /inner}}
          services:",
    );
    let proxy = Proxy::with(options).start(&text);
    let answer = proxy.get("a.test/p?q=1");
    assert_eq!(answer.status, 302);
    assert!(answer.header("location").unwrap().starts_with("https://a.test"), "{answer:?}");
    let redirect = proxy.api("/api/http/routers/web-to-websecure@internal");
    assert_eq!(
        (&redirect["rule"], &redirect["service"]),
        (&json!("HostRegexp(`^.+$`)"), &json!("noop@internal"))
    );
    assert_eq!(redirect["priority"], json!(i64::MAX - 1));
    assert_eq!(redirect["middlewares"], json!(["redirect-web-to-websecure@internal"]));
    let redirecting = proxy.api("/api/http/middlewares/redirect-web-to-websecure@internal");
    assert_eq!(
        (&redirecting["type"], &redirecting["redirectScheme"]["scheme"]),
        (&json!("redirectscheme"), &json!("https"))
    );

    let ask = |host: &str| {
        let mut secured = Tls::anyone().connect(proxy.address("websecure"), Some(host)).unwrap();
        secured.client.send(&Ask::get(&format!("{host}/p"))).unwrap().status
    };
    assert_eq!((ask("a.test"), origin.last().target.as_str()), (200, "/outer/p"));
    // Middlewares of the entry point come first, so their prefix is the inner one of the path.
    assert_eq!((ask("both.test"), origin.last().target.as_str()), (200, "/inner/outer/p"));
    let copy = proxy.api("/api/http/routers/websecure-both@file");
    assert_eq!(copy["middlewares"], json!(["outer@file", "inner@file"]));
    assert_eq!(
        (&copy["tls"], &copy["entryPoints"]),
        (&json!({"options": "default"}), &json!(["websecure"]))
    );
    let plain = proxy.api("/api/http/routers/both@file");
    assert_eq!(
        (&plain["middlewares"], &plain["entryPoints"]),
        (&json!(["inner@file"]), &json!(["traefik"]))
    );
    assert_eq!(plain.get("tls"), None);
}

/// PIPE-4 to PIPE-8, FILE-6, ACCEPT-4
#[test]
fn an_update_counts_if_it_says_something() {
    let origin = Origin::start();
    let good = everything_to(&origin.url());
    let proxy = Proxy::start(&good);
    assert_eq!(proxy.get("/").status, 200);
    // A file with mistakes keeps what was there, and the mended one counts.
    for broken in ["http: [", "http: {routerz: {}}", "{{ nothing }}"] {
        proxy.reload(broken);
        assert_eq!(proxy.get("/").status, 200, "{broken}");
    }
    proxy.reload(&good.replace("`/`", "`/only`"));
    assert_eq!((proxy.get("/").status, proxy.get("/only").status), (404, 200));
    // Nothing has changed, so nothing is built.
    let before = proxy.reloads();
    for same in ["\n# a comment\n", "\n        x-note: {}\n"] {
        proxy.write(&(good.replace("`/`", "`/only`") + same));
        block_on(proxy.app().reloaded(proxy.app().look_again()));
        assert!((proxy.reloads() - before).abs() < f64::EPSILON, "{same}");
    }
    proxy.reload(&good);
    assert!((proxy.reloads() - before - 1.0).abs() < f64::EPSILON);
    // Here a file without routers is taken at its word; Traefik takes no notice of it.
    proxy.reload("http: {serversTransports: {t: {insecureSkipVerify: true}}}");
    assert_eq!(proxy.get("/").status, 404);
    proxy.reload(&good);
    proxy.reload("http: {routers: {}, services: {}}");
    assert_eq!(proxy.get("/").status, 404);
}

/// FILE-10, LOG-2
#[test]
fn what_a_template_generates_is_logged_if_it_is_asked_for() {
    let origin = Origin::start();
    let text = everything_to(&origin.url()).replace("`/`", "`{{ `/made` }}`");
    for wanted in [true, false] {
        let options = json!({"providers": {"file": {"debugLogGeneratedTemplate": wanted}}});
        let process = Process::start(&options, &text);
        let mut client = Client::connect(process.address("web")).unwrap();
        assert_eq!(client.send(&Ask::get("/made")).unwrap().status, 200);
        let log = process.log();
        assert_eq!(
            log.contains("\"message\":\"generated\"") && log.contains("`/made`"),
            wanted,
            "{log}"
        );
    }
}

/// FILE-1, FILE-3, FILE-7, FILE-8, FILE-9, CLI-15
#[test]
fn a_directory_of_templates() {
    let origin = Origin::start();
    let setup = Proxy::with(json!({}));
    let below = setup.directory().join("dynamic/deeper/still");
    fs::create_dir_all(&below).unwrap();
    let service = |path: &str| {
        format!(
            "{{loadBalancer: {{servers: [{{url: '{}'}}], healthCheck: {{path: {path}}}}}}}",
            origin.url()
        )
    };
    fs::write(
        below.join("tenants.yml"),
        "aliases: &app {service: app}\nhttp:\n  routers:\n{{ range $i, $name := split \"a,b\" \",\" }}\n    {{ $name }}: \
         {rule: Host(`{{ normalize (printf \"%s.%d\" $name $i) }}.test`), service: app}\n{{ end }}\n",
    )
    .unwrap();
    fs::write(
        below.join("later.toml"),
        "[http.services.app.loadBalancer]\nservers = [{url = 'http://127.0.0.1:1'}]\n",
    )
    .unwrap();
    fs::write(below.join("notes.txt"), "no configuration").unwrap();
    let proxy = setup.start(&format!("http: {{services: {{app: {}}}}}", service("/first")));
    for (host, status) in [("a-0.test/", 200), ("b-1.test/", 200), ("c-2.test/", 404)] {
        assert_eq!(proxy.get(host).status, status, "{host}");
    }
    let app = proxy.api("/api/http/services/app@file");
    assert_eq!(
        app["loadBalancer"]["healthCheck"]["path"], "/first",
        "the first file in order wins"
    );
}
