//! Logs and metrics, row by row of `tests/compat/config-and-ops.md`.

#![expect(clippy::float_cmp, reason = "what is counted here has an exact value")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::binary::command;
use crate::harness::certs::{Ca, Tls};
use crate::harness::client::socket;
use crate::harness::{Ask, Origin, Proxy, Reply, block_on, http2, until};
use crate::wire::{echoed, websocket, websocket_echo};

/// A proxy that writes `accessLog` with these options, and the file.
fn logged(options: &Value, others: Value, text: &str) -> (Proxy, PathBuf) {
    let mut setup = Proxy::with(others);
    let file = setup.directory().join("logs/access.log");
    let mut section = json!({"filePath": file, "format": "json"});
    for (key, value) in options.as_object().unwrap() {
        section[key] = value.clone();
    }
    setup.set("accessLog", &section);
    (setup.start(text), file)
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.lines().filter(|line| line.ends_with('}'));
    whole.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn routes(origin: &Origin) -> String {
    format!(
        "
        http:
          routers:
            open: {{rule: PathPrefix(`/`), service: app}}
            quiet: {{rule: PathPrefix(`/quiet`), service: app, observability: {{accessLogs: false, metrics: false}}}}
            loud: {{rule: PathPrefix(`/loud`), service: app, observability: {{accessLogs: true, metrics: true}}}}
            known: {{rule: PathPrefix(`/known`), service: app, middlewares: [login]}}
            inside: {{rule: Path(`/inside`), service: ping@internal}}
            retried: {{rule: Path(`/retried`), service: flaky, middlewares: [again]}}
          middlewares:
            login: {{basicAuth: {{users: ['ada:{{SHA}}GpHWL3ymc5liWkNopqtdSjuqYHM=']}}}}
            again: {{retry: {{attempts: 2}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{0}'}}], healthCheck: {{path: /health, interval: 1h}}}}}}
            flaky: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:1'}}]}}}}
        ",
        origin.url()
    )
}

/// ACC-8: one of the filters is enough.
#[test]
fn the_access_log_is_filtered() {
    let origin =
        Origin::with(|seen| Reply::status(if seen.target == "/teapot" { 418 } else { 200 }));
    let filters = json!({"filters": {"statusCodes": ["418", "500-599"], "retryAttempts": true}});
    let (proxy, file) = logged(&filters, json!({}), &routes(&origin));
    for path in ["/", "/teapot", "/retried", "/"] {
        proxy.get(path);
    }
    until("both are written", || lines(&file).len() == 2);
    let lines = lines(&file);
    assert_eq!(
        (&lines[0]["RequestPath"], &lines[0]["DownstreamStatus"]),
        (&json!("/teapot"), &json!(418))
    );
    assert_eq!(
        (&lines[1]["RequestPath"], &lines[1]["RetryAttempts"]),
        (&json!("/retried"), &json!(1))
    );
}

/// ACC-6, LOG-3: modes as Traefik's, less what the umask takes.
#[test]
fn files_of_logs_have_traefiks_modes() {
    for (umask, access, folder, log) in
        [("000", 0o664, 0o755, 0o666), ("027", 0o640, 0o750, 0o640), ("022", 0o644, 0o755, 0o644)]
    {
        let directory = tempfile::TempDir::new().unwrap();
        let access_log = directory.path().join("deep/below/access.log");
        let program_log = directory.path().join("program.log");
        let mut child = Command::new("/bin/sh")
            .env_clear()
            .current_dir(directory.path())
            .args(["-c", "umask $0; exec \"$@\"", umask, env!("CARGO_BIN_EXE_doorward")])
            .arg("--entryPoints.web.address=127.0.0.1:0")
            .arg(format!("--accessLog.filePath={}", access_log.display()))
            .arg(format!("--log.filePath={}", program_log.display()))
            .arg("--log.level=INFO")
            .spawn()
            .unwrap();
        let text = || fs::read_to_string(&program_log).unwrap_or_default();
        until("it listens", || text().contains("listening"));
        child.kill().unwrap();
        child.wait().unwrap();
        let octal = |mode: u32| format!("{mode:o}");
        let mode = |path: &Path| octal(fs::metadata(path).unwrap().permissions().mode() & 0o777);
        let below = access_log.parent().unwrap();
        let modes = [&*access_log, below, below.parent().unwrap(), &*program_log].map(mode);
        assert_eq!(modes, [access, folder, folder, log].map(octal), "umask {umask}");
    }
}

/// ACC-6, ACC-7, ACC-9, ACC-10, ACC-11, ACC-22, ACC-23, ACC-27
#[test]
fn fields_of_the_access_log_are_chosen() {
    let origin =
        Origin::with(|_| Reply::ok("x").header("X-Answer", "yes").header("Set-Cookie", "a=b"));
    let options = json!({"bufferingSize": 10, "fields": {
        "defaultMode": "keep",
        "names": {"clientHOST": "drop", "StartLocal": "drop"},
        "headers": {"defaultMode": "drop", "names": {"x-tenant": "keep", "COOKIE": "redact", "X-Answer": "keep"}},
        "queryParameters": {"defaultMode": "drop"},
    }});
    let (proxy, file) = logged(&options, json!({}), &routes(&origin));
    let ask = Ask::get("/p?secret=1")
        .header("X-Tenant", "t1")
        .header("Cookie", "s=1")
        .header("X-Other", "no");
    assert_eq!(proxy.send(&ask).status, 200);
    until("it is written", || lines(&file).len() == 1);
    let line = lines(&file).remove(0);
    for (field, wanted) in [
        ("RequestPath", json!("/p")),
        ("request_X-Tenant", json!("t1")),
        ("request_Cookie", json!("REDACTED")),
        ("request_X-Other", Value::Null),
        ("downstream_X-Answer", json!("yes")),
        ("origin_X-Answer", json!("yes")),
        ("downstream_Set-Cookie", Value::Null),
        ("ClientHost", Value::Null),
        ("StartLocal", Value::Null),
        ("ClientAddr", line["ClientAddr"].clone()),
        ("RequestCount", json!(1)),
        ("RetryAttempts", json!(0)),
        ("RequestLine", Value::Null),
        ("OriginStatusLine", Value::Null),
        ("DownstreamStatusLine", Value::Null),
    ] {
        assert_eq!(line[field], wanted, "{field} in {line:#}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");

    // What nobody keeps, and what we answer ourselves.
    let (proxy, file) = logged(
        &json!({"fields": {"defaultMode": "drop", "names": {"OriginStatus": "keep",
        "DownstreamStatus": "keep", "ClientUsername": "keep"}}}),
        json!({}),
        &routes(&origin),
    );
    assert_eq!(proxy.get("/known").status, 401);
    let login = Ask::get("/known").header("Authorization", "Basic YWRhOnB3");
    assert_eq!(proxy.send(&login).status, 200);
    until("both are written", || lines(&file).len() == 2);
    let lines = lines(&file);
    assert_eq!(
        (&lines[0]["DownstreamStatus"], &lines[0]["OriginStatus"]),
        (&json!(401), &Value::Null)
    );
    assert_eq!(
        (&lines[1]["OriginStatus"], &lines[1]["ClientUsername"]),
        (&json!(200), &json!("ada"))
    );
    assert_eq!(lines[1].get("RequestPath"), None);
}

/// ACC-12, ACC-14, MET-27, PIPE-52, EP-21
#[test]
fn who_is_observed_is_chosen() {
    for (internals, entry_point, wanted) in [
        (false, true, &["/", "/loud"][..]),
        (true, true, &["/", "/loud", "/inside"]),
        (false, false, &["/loud"]),
    ] {
        let origin = Origin::start();
        let others = json!({
            "entryPoints": {"web": {"observability": {"accessLogs": entry_point, "metrics": entry_point}}},
            "metrics": {"addInternals": internals},
        });
        let (proxy, file) = logged(&json!({"addInternals": internals}), others, &routes(&origin));
        for path in ["/", "/quiet", "/inside", "/loud"] {
            assert_eq!(proxy.get(path).status, 200, "{path}");
        }
        until("all are written", || lines(&file).len() >= wanted.len());
        let path = |line: &Value| line["RequestPath"].as_str().unwrap().to_owned();
        let mut paths: Vec<_> = lines(&file).iter().map(path).collect();
        paths.sort();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(paths, wanted);
        let counted = |router: &str| {
            let text = proxy.app().metrics();
            text.lines().any(|line| {
                line.starts_with("traefik_router_requests_total")
                    && line.contains(&format!("{router}@file\""))
            })
        };
        until("the last is counted", || counted("loud"));
        assert!(!counted("quiet"));
        assert_eq!(counted("inside"), internals);
        assert_eq!(counted("open"), entry_point);
    }
}

/// ACC-20, ACC-24, MET-6
#[test]
fn tls_and_the_client_are_named() {
    let origin = Origin::start();
    let asking = "tls: {options: {default: {clientAuth: {clientAuthType: RequestClientCert}}}}
        http:";
    let text = routes(&origin)
        .replace("open: {rule: PathPrefix(`/`)", "open: {rule: Host(`app.test`)")
        .replace("service: app}\n            quiet", "service: app, tls: {}}\n            quiet")
        .replacen("http:", asking, 1);
    let trusting = json!({"entryPoints": {"websecure": {"forwardedHeaders": {"insecure": true}}}});
    let (proxy, file) = logged(&json!({}), trusting, &text);
    let pod = Ca::new().issue(&["pod"]);
    let client = Tls::with_identity(&pod);
    let mut secured = client.connect(proxy.address("websecure"), Some("app.test")).unwrap();
    let ask = Ask::get("/").header("X-Forwarded-For", "203.0.113.7");
    assert_eq!(secured.client.send(&ask).unwrap().status, 200);
    until("it is written", || lines(&file).len() == 1);
    let line = lines(&file).remove(0);
    for (field, wanted) in [
        ("TLSVersion", json!("1.3")),
        ("ClientHost", json!("203.0.113.7")),
        ("entryPointName", json!("websecure")),
        ("RequestScheme", json!("https")),
        ("ClientUsername", json!("-")),
        ("TLSClientSubject", json!("CN=pod")),
    ] {
        assert_eq!(line[field], wanted, "{field} in {line:#}");
    }
    assert!(line["TLSCipher"].as_str().unwrap().starts_with("TLS_"), "{line}");
    assert!(line["ClientAddr"].as_str().unwrap().starts_with("127.0.0.1:"));
    let text = proxy.app().metrics();
    let tls = text
        .lines()
        .find(|line| line.starts_with("traefik_entrypoint_requests_tls_total"))
        .unwrap();
    for label in ["tls_version=\"1.3\"", "tls_cipher=\"TLS_", "entrypoint=\"websecure\""] {
        assert!(tls.contains(label), "{tls}");
    }
    assert!(
        !text.contains("traefik_tls_certs_not_after{"),
        "the generated certificate is not shown, as in Traefik"
    );
}

/// MET-21, MET-22, MET-9, MET-10
#[test]
fn protocols_methods_and_codes_are_labels() {
    let events =
        Origin::with(|_| Reply::ok("data: 1\n\n").header("Content-Type", "text/event-stream"));
    let (chat, grpc) = (websocket_echo(), http2::grpc_origin());
    let proxy = Proxy::start(&format!(
        "
        http:
          routers:
            events: {{rule: Host(`events.test`), service: events}}
            chat: {{rule: Host(`chat.test`), service: chat}}
            grpc: {{rule: Host(`grpc.test`), service: grpc}}
          services:
            events: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            chat: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            grpc: {{loadBalancer: {{servers: [{{url: 'h2c://{}'}}]}}}}
        ",
        events.url(),
        chat.url(),
        grpc.address()
    ));
    assert_eq!(proxy.get("events.test/").status, 200);
    assert_eq!(proxy.send(&Ask::new("BREW", "events.test/")).status, 200);
    let web = Ask::post("grpc.test/a.B/C", "").header("Content-Type", "application/grpc-web");
    assert_eq!(proxy.send(&web).status, 200);
    let mut talk = websocket(socket(proxy.address("web")).unwrap(), "ws://chat.test/");
    echoed(&mut talk, "hello");
    drop(talk);
    block_on(async {
        let mut sender = http2::connect(proxy.address("web")).await;
        let call = http::Request::post("http://grpc.test/a.B/C")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        assert_eq!(http2::send(&mut sender, call, b"x").await.response.status, 200);
    });
    for (router, service, code, method, protocol) in [
        ("events", "events", "200", "GET", "sse"),
        ("events", "events", "200", "EXTENSION_METHOD", "sse"),
        ("chat", "chat", "101", "GET", "websocket"),
        ("grpc", "grpc", "0", "POST", "grpc"),
        ("grpc", "grpc", "0", "POST", "grpc-web"),
    ] {
        let of = format!("code=\"{code}\",method=\"{method}\",protocol=\"{protocol}\"");
        let router = format!(
            "traefik_router_requests_total{{{of},router=\"{router}@file\",service=\"{service}@file\"}}"
        );
        until(&router, || proxy.metric(&router) > 0.0);
        let service = format!("traefik_service_requests_total{{{of},service=\"{service}@file\"}}");
        assert!(proxy.metric(&service) > 0.0, "{service}");
    }
}

/// MET-3, MET-11, MET-12, MET-20, MET-23, MET-24, MET-25, ACCEPT-13
#[test]
fn series_come_and_go_with_what_they_count() {
    let origin = Origin::start();
    let prometheus = json!({"buckets": [0.5, 2], "headerLabels": {"tenant": "X-Tenant"}, "addRoutersLabels": true});
    let proxy = Proxy::with(json!({"metrics": {"prometheus": prometheus}})).start(&routes(&origin));
    assert_eq!(proxy.send(&Ask::get("/").header("X-Tenant", "t1")).status, 200);
    proxy.get("/");
    proxy.get("/retried");
    let labels =
        "code=\"200\",method=\"GET\",protocol=\"http\",router=\"open@file\",service=\"app@file\"";
    let with =
        |tenant: &str| format!("traefik_router_requests_total{{{labels},tenant=\"{tenant}\"}}");
    until("both are counted", || {
        proxy.metric(&with("t1")) == 1.0 && proxy.metric(&with("")) == 1.0
    });
    until("a retry is counted", || {
        proxy.metric("traefik_service_retries_total{service=\"flaky@file\"}") == 1.0
    });
    let up = format!("traefik_service_server_up{{service=\"app@file\",url=\"{}\"}}", origin.url());
    until("the server is shown", || proxy.metric(&up) == 1.0);
    let text = proxy.app().metrics();
    assert!(
        !text.contains("traefik_service_server_up{service=\"flaky@file\""),
        "it is not watched"
    );
    assert!(text.contains("traefik_open_connections{entrypoint=\"web\",protocol=\"TCP\"}"));
    for line in text.lines().filter(|line| line.contains("_bucket{")) {
        let bucket = ["le=\"0.5\"", "le=\"2\"", "le=\"+Inf\""].iter().any(|le| line.contains(le));
        assert!(bucket && !line.contains("tenant="), "{line}");
    }

    // What is gone is in one more scrape, and then no more.
    proxy.reload(&routes(&origin).replace("open:", "renamed:"));
    let scraped = || proxy.app().metrics().contains("router=\"open@file\"");
    until("the series is dropped", || !scraped());
    proxy.get("/");
    until("the new one is there", || proxy.app().metrics().contains("router=\"renamed@file\""));

    let none = json!({"addEntryPointsLabels": false, "addRoutersLabels": false, "addServicesLabels": false});
    let proxy = Proxy::with(json!({"metrics": {"prometheus": none}})).start(&routes(&origin));
    proxy.get("/");
    let answer = proxy.inside("/metrics/below");
    assert_eq!(answer.status, 200, "the route is a prefix (MET-26)");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(!answer.text().contains("requests_total{"), "{}", answer.text());
    assert!(answer.text().contains("traefik_config_reloads_total"));
}

/// LOG-1, LOG-2, LOG-3: the program's log, in both formats and at its level.
#[test]
fn the_log_has_a_level_a_format_and_a_file() {
    for (format, level) in [("common", "info"), ("json", "INFO"), ("common", "ERROR")] {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("below/proxy.log");
        let mut child = command(directory.path())
            .args([
                "--entryPoints.web.address=127.0.0.1:0",
                &format!("--log.level={level}"),
                &format!("--log.format={format}"),
                &format!("--log.filePath={}", file.display()),
            ])
            .spawn()
            .unwrap();
        let text = || fs::read_to_string(&file).unwrap_or_default();
        let is_quiet = level == "ERROR";
        if is_quiet {
            until("the file is there", || file.exists());
        } else {
            until("it listens", || text().contains("listening"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let text = text();
        if is_quiet {
            assert!(!text.contains("INF"), "{text}");
        } else if format == "json" {
            let line = text.lines().find(|line| line.contains("listening")).unwrap();
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["level"], &line["message"]), (&json!("info"), &json!("listening")));
            assert_eq!(line["entryPointName"], "web");
            assert!(line["time"].as_str().unwrap().contains('T'));
        } else {
            let line = text.lines().find(|line| line.contains("listening")).unwrap();
            let words: Vec<_> = line.split(' ').collect();
            assert!(words[0].contains('T') && words[1] == "INF", "{line}");
            assert!(line.contains(" entryPointName=web"), "{line}");
        }
        assert!(!text.contains("DBG"), "{text}");
    }
}
