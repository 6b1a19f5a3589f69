//! What operators see and do: logs, metrics, the API, checks, signals, and how it all ends
//! (CO 1, 6, 7; F-49 to F-51).

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::binary::{Process, command, run};
use crate::harness::certs::Ca;
use crate::harness::client::socket;
use crate::harness::{
    Ask, Client, DEADLINE, Origin, Proxy, Reply, block_on, everything_to, http2, pause, until,
};
use crate::wire::{echoed, websocket, websocket_echo};

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// ACC-3, ACC-20 to ACC-24
#[test]
fn the_access_log_in_json() {
    let origin = Origin::start();
    let setup = Proxy::with(json!({}));
    let file = setup.directory().join("access.log");
    let log = json!({"accessLog": {
        "filePath": file, "format": "json",
        "fields": {"headers": {"names": {"User-Agent": "keep", "Authorization": "redact"}}},
    }});
    let proxy = Proxy::with(log).start(&everything_to(&origin.url()));
    let ask = Ask::post("log.test:80/p?q=1", "12345")
        .header("User-Agent", "test/1")
        .header("Authorization", "Basic c2VjcmV0");
    assert_eq!(proxy.send(&ask).status, 200);
    until("the line is written", || !lines(&file).is_empty());
    let line: Value = serde_json::from_str(&lines(&file)[0]).unwrap();
    for (field, wanted) in [
        ("RequestMethod", json!("POST")),
        ("RequestPath", json!("/p?q=1")),
        ("RequestProtocol", json!("HTTP/1.1")),
        ("RequestAddr", json!("log.test:80")),
        ("RequestHost", json!("log.test")),
        ("RequestPort", json!("80")),
        ("RequestScheme", json!("http")),
        ("RequestContentSize", json!(5)),
        ("DownstreamStatus", json!(200)),
        ("DownstreamContentSize", json!(5)),
        ("OriginStatus", json!(200)),
        ("OriginContentSize", json!(5)),
        ("RouterName", json!("all@file")),
        ("ServiceName", json!("app@file")),
        ("ServiceURL", json!(origin.url())),
        ("ServiceAddr", json!(origin.address().to_string())),
        ("ClientHost", json!("127.0.0.1")),
        ("RetryAttempts", json!(0)),
        ("entryPointName", json!("web")),
        ("request_User-Agent", json!("test/1")),
        ("request_Authorization", json!("REDACTED")),
        ("level", json!("info")),
    ] {
        assert_eq!(line[field], wanted, "{field} in {line}");
    }
    for field in ["StartUTC", "StartLocal", "time", "Duration", "Overhead", "OriginDuration"] {
        assert!(!line[field].is_null(), "{field} in {line}");
    }
}

/// ACC-1, ACC-2, ACC-5
#[test]
fn the_access_log_in_the_common_format() {
    let origin = Origin::start();
    for (format, has_more) in [("common", true), ("genericCLF", false)] {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("below/access.log");
        let log = json!({"accessLog": {"filePath": file, "format": format}});
        let proxy = Proxy::with(log).start(&everything_to(&origin.url()));
        assert_eq!(proxy.get("log.test/p?q=1").status, 200);
        until("the line is written", || !lines(&file).is_empty());
        let line = lines(&file)[0].clone();
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains("] \"GET /p?q=1 HTTP/1.1\" 200 6 \"-\" \"-\""), "{line}");
        let more = format!(" 1 \"all@file\" \"{}\" ", origin.url());
        assert_eq!(line.contains(&more), has_more, "{line}");
        assert_eq!(line.ends_with("ms"), has_more, "{line}");
    }
}

/// SIG-1, F-51: log rotation renames the file and says so.
#[test]
fn the_access_log_is_opened_anew() {
    let origin = Origin::start();
    let directory = TempDir::new().unwrap();
    let (file, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let log = json!({"accessLog": {"filePath": file}});
    let proxy = Proxy::with(log).start(&everything_to(&origin.url()));
    proxy.get("/before");
    until("the first line is written", || lines(&file).len() == 1);
    fs::rename(&file, &old).unwrap();
    proxy.app().reopen_logs();
    until("there is a new file", || {
        proxy.get("/after");
        file.exists() && !lines(&file).is_empty()
    });
    assert!(lines(&old)[0].contains("/before"));
    assert!(lines(&file).iter().all(|line| line.contains("/after")));
}

/// SIG-1, RP-16.8, LOG-3: two files are renamed, and the signal is about one of them.
#[test]
fn sigusr1_opens_the_access_log_anew_and_nothing_else() {
    let origin = Origin::start();
    let directory = TempDir::new().unwrap();
    let (file, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let process = process(&origin, &json!({"accessLog": {"filePath": file}}));
    let log = process.directory().join("doorward.log");
    let old_log = process.directory().join("doorward.log.1");
    let mut client = Client::connect(process.address("web")).unwrap();
    let mut ask = |path: &str| client.send(&Ask::get(path)).unwrap().status;
    assert_eq!(ask("/before"), 200);
    until("the first line is written", || lines(&file).len() == 1);
    fs::rename(&file, &old).unwrap();
    fs::rename(&log, &old_log).unwrap();
    assert_eq!(ask("/between"), 200);
    until("the second line goes where the first did", || lines(&old).len() == 2);
    assert!(!file.exists());
    process.signal(Signal::USR1);
    until("there is a new file", || file.exists());
    assert_eq!(ask("/after"), 200);
    until("its line is there", || lines(&file).len() == 1);
    assert!(lines(&file)[0].contains("/after"));
    assert_eq!(lines(&old).len(), 2);
    // The program's own log goes on where it is.
    let before = lines(&old_log).len();
    process.write(&everything_to(&origin.url()).replace("`/`", "`/only`"));
    until("the new content counts", || ask("/") == 404);
    until("it is told in the old file", || lines(&old_log).len() > before);
    assert!(!log.exists());
}

/// CO 7.3
#[test]
fn metrics_are_there_after_traffic() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    assert_eq!(proxy.send(&Ask::post("/", "12345")).status, 200);
    let labels = "code=\"200\",entrypoint=\"web\",method=\"POST\",protocol=\"http\"";
    let line = format!("traefik_entrypoint_requests_total{{{labels}}}");
    until("the request is counted", || proxy.metric(&line) > 0.0);
    let scraped = proxy.inside("/metrics");
    assert_eq!(scraped.status, 200);
    assert!(scraped.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = scraped.text();
    for name in [
        "traefik_config_reloads_total",
        "traefik_config_last_reload_success",
        "traefik_open_connections",
        "traefik_entrypoint_requests_total",
        "traefik_entrypoint_request_duration_seconds_bucket",
        "traefik_entrypoint_requests_bytes_total",
        "traefik_entrypoint_responses_bytes_total",
        "traefik_router_requests_total",
        "traefik_router_request_duration_seconds_sum",
        "traefik_service_requests_total",
        "traefik_service_request_duration_seconds_count",
        "traefik_service_requests_bytes_total",
        "traefik_service_responses_bytes_total",
        "process_open_fds",
    ] {
        let is_there =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(text.lines().any(is_there), "{name} is not in\n{text}");
    }
    for bucket in ["0.1", "0.3", "1.2", "5", "+Inf"] {
        assert!(text.contains(&format!("le=\"{bucket}\"")), "{bucket}");
    }
    let bytes = format!("traefik_entrypoint_requests_bytes_total{{{labels}}}");
    assert!(proxy.metric(&bytes) >= 5.0);
}

/// PING-1
#[test]
fn ping_live_and_ready() {
    let proxy = Proxy::start("http: {}");
    for path in ["/ping", "/ping/x", "/live", "/ready"] {
        let answer = proxy.inside(path);
        assert_eq!((answer.status, &*answer.text()), (200, "OK"), "{path}");
    }
    assert!(proxy.app().not_ready().is_empty());
    assert_eq!(proxy.get("/ping").status, 404, "not at the other entry points");
}

/// API-1 to API-29
#[test]
fn the_api() {
    let origin = Origin::start();
    let text = format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [cut]}}
            second: {{rule: 'Host(`b.test`) && PathPrefix(`/<&>`)', service: app}}
          middlewares:
            cut: {{addPrefix: {{prefix: /x}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    );
    let proxy = Proxy::start(&text);
    let router = proxy.api("/api/http/routers/all@file");
    for (field, wanted) in [
        ("name", json!("all@file")),
        ("provider", json!("file")),
        ("rule", json!("PathPrefix(`/`)")),
        ("service", json!("app")),
        ("status", json!("enabled")),
        ("priority", json!(15)),
        ("priorityStr", json!("15")),
        ("ruleSyntax", json!("default")),
        ("using", json!(["web", "websecure"])),
        ("entryPoints", json!(["web", "websecure"])),
        ("middlewares", json!(["cut@file"])),
    ] {
        assert_eq!(router[field], wanted, "{field} in {router}");
    }
    let service = proxy.api("/api/http/services/app@file");
    assert_eq!(service["type"], "loadbalancer");
    assert_eq!(service["usedBy"], json!(["all@file", "second@file"]));
    assert_eq!(service["serverStatus"][origin.url()], "UP");
    assert_eq!(service["loadBalancer"]["servers"][0]["url"], origin.url());
    let middleware = proxy.api("/api/http/middlewares/cut@file");
    assert_eq!(
        (&middleware["type"], &middleware["usedBy"]),
        (&json!("addprefix"), &json!(["all@file"]))
    );

    let raw = proxy.api("/api/rawdata");
    assert!(raw["routers"]["all@file"]["name"].is_null(), "the name is the key");
    for name in ["api@internal", "dashboard@internal", "second@file"] {
        assert!(raw["routers"][name].is_object(), "{name}");
    }
    for name in ["app@file", "api@internal", "dashboard@internal", "noop@internal"] {
        assert!(raw["services"][name].is_object(), "{name}");
    }
    assert!(raw["middlewares"]["dashboard_redirect@internal"].is_object());
    assert_eq!(raw.get("tcpRouters"), None);

    let overview = proxy.api("/api/overview");
    assert_eq!(overview["providers"], json!(["File"]));
    assert_eq!(overview["features"]["metrics"], "Prometheus");
    assert_eq!(overview["http"]["middlewares"]["errors"], 0);
    assert_eq!(overview["tcp"]["routers"]["total"], 0);
    assert_eq!(proxy.api("/api/entrypoints/web")["name"], "web");
    assert_eq!(proxy.api("/api/entrypoints").as_array().unwrap().len(), 3);
    assert!(proxy.api("/api/version")["Version"].is_string());
    assert_eq!(proxy.api("/api/tcp/routers"), json!([]));
    let text = proxy.inside("/api/http/routers/second@file").text();
    assert!(text.contains("\\u003c\\u0026\\u003e") && text.ends_with("}\n"), "{text}");
}

/// API-20 to API-30
#[test]
fn lists_have_pages_and_errors_are_traefiks() {
    let origin = Origin::start();
    let mut text = "http:\n  routers:\n".to_owned();
    for number in 0..25 {
        let _ = writeln!(text, "    r{number:02}: {{rule: Host(`h{number}.test`), service: app}}");
    }
    let _ = writeln!(
        text,
        "  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}",
        origin.url()
    );
    let proxy = Proxy::start(&text);
    let names = |path: &str| -> (Vec<String>, String) {
        let answer = proxy.inside(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let list: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
        let names = list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        (names, answer.header("x-next-page").unwrap().to_owned())
    };
    let (first, next) = names("/api/http/routers?search=@file&per_page=10");
    assert_eq!((first.len(), &*first[0], &*next), (10, "r00@file", "2"));
    let (last, next) = names("/api/http/routers?search=@file&per_page=10&page=3");
    assert_eq!((last.len(), &*last[4], &*next), (5, "r24@file", "1"));
    assert_eq!(names("/api/http/routers?search=h7.test").0, ["r07@file"]);
    let (down, _) = names("/api/http/routers?search=@file&sortBy=name&direction=desc");
    assert_eq!(down[0], "r24@file");
    assert_eq!(names("/api/http/routers?serviceName=app@file").0.len(), 25);
    assert_eq!(names("/api/http/routers?status=disabled").0.len(), 0);

    for (path, status, message) in [
        ("/api/http/routers/no@file", 404, "router not found: no@file"),
        ("/api/http/services/no@file", 404, "service not found: no@file"),
        ("/api/http/middlewares/no@file", 404, "middleware not found: no@file"),
        ("/api/entrypoints/no", 404, "entry point not found: no"),
        ("/api/http/routers?page=0", 400, "invalid request: page: 0"),
        ("/api/http/routers?page=9&per_page=10", 400, "invalid request: page: 9, per_page: 10"),
    ] {
        let answer = proxy.inside(path);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.text(), format!("{{\"message\":\"{message}\"}}\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let mut client = Client::connect(proxy.address("traefik")).unwrap();
    assert_eq!(client.send(&Ask::new("DELETE", "/api/rawdata")).unwrap().status, 405);
}

/// A backend that answers when it is told to.
fn slow() -> (Origin, Receiver<()>, SyncSender<()>) {
    let (arrived, arrival) = sync_channel(1);
    let (go, wait) = sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    let origin = Origin::with(move |_| {
        let _ = arrived.send(());
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        Reply::ok("late")
    });
    (origin, arrival, go)
}

fn refuses(proxy: &Proxy, entry_point: &str) -> bool {
    TcpStream::connect(proxy.address(entry_point)).is_err()
}

/// SIG-4 to SIG-6, F-49, PING-2
#[test]
fn a_stop_lets_running_requests_end() {
    let (origin, arrival, go) = slow();
    let life = json!({"lifeCycle": {"requestAcceptGraceTimeout": "1s", "graceTimeOut": "60s"}});
    let proxy = Proxy::with(json!({"entryPoints": {
        "web": {"transport": life}, "traefik": {"transport": life},
    }}))
    .start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    client.write(&Ask::get("/")).unwrap();
    arrival.recv_timeout(DEADLINE).unwrap();
    let mut idle = proxy.client();

    let start = Instant::now();
    proxy.app().begin_shutdown();
    let ping = proxy.inside("/ping");
    assert_eq!((ping.status, &*ping.text()), (503, "Service Unavailable"));
    assert_eq!(proxy.inside("/ready").status, 503);
    assert_eq!(proxy.inside("/live").status, 200);
    // The first stage: still serving, so that whoever balances has time to look away.
    if start.elapsed() < Duration::from_millis(500) {
        assert!(!refuses(&proxy, "web"));
    }
    until("new connections are refused", || refuses(&proxy, "web") && refuses(&proxy, "traefik"));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(idle.is_closed(), "an idle connection is closed");

    go.send(()).unwrap();
    let answer = client.read("GET").unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "late"));
    assert!(client.is_closed(), "and its connection after it");
    proxy.into_app().finish();
    assert!(start.elapsed() < DEADLINE);
}

#[test]
fn a_stop_cuts_what_outlasts_the_grace_time() {
    let (origin, arrival, _go) = slow();
    let life = json!({"transport": {"lifeCycle": {"graceTimeOut": "300ms"}}});
    let proxy =
        Proxy::with(json!({"entryPoints": {"web": life}})).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    client.write(&Ask::get("/")).unwrap();
    arrival.recv_timeout(DEADLINE).unwrap();
    let start = Instant::now();
    proxy.app().begin_shutdown();
    proxy.into_app().finish();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(client.read("GET").is_err());
}

/// The program in front of `origin`.
fn process(origin: &Origin, options: &Value) -> Process {
    Process::start(options, &everything_to(&origin.url()))
}

fn patient() -> Value {
    json!({"entryPoints": {"web": {"transport": {"lifeCycle": {"graceTimeOut": "60s"}}}}})
}

/// SIG-3, RP-16.9, F-49
#[test]
fn sigterm_and_sigint_end_the_program_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let (origin, arrival, go) = slow();
        let mut process = process(&origin, &patient());
        let address = process.address("web");
        let mut client = Client::connect(address).unwrap();
        client.write(&Ask::get("/")).unwrap();
        arrival.recv_timeout(DEADLINE).unwrap();
        process.signal(signal);
        until("new connections are refused", || TcpStream::connect(address).is_err());
        assert!(!process.is_over());
        go.send(()).unwrap();
        assert_eq!(client.read("GET").unwrap().text(), "late");
        assert_eq!(process.end().code(), Some(0), "{signal:?}");
    }
}

/// F-50: Traefik swallows the second signal; here it is the way to hurry.
#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (origin, arrival, _go) = slow();
        let mut process = process(&origin, &patient());
        let mut client = Client::connect(process.address("web")).unwrap();
        client.write(&Ask::get("/")).unwrap();
        arrival.recv_timeout(DEADLINE).unwrap();
        process.signal(Signal::TERM);
        until("it is stopping", || TcpStream::connect(process.address("web")).is_err());
        let start = Instant::now();
        process.signal(second);
        assert_eq!(process.end().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

/// SIG-2
#[test]
fn sighup_looks_at_the_files_again() {
    let origin = Origin::start();
    let process = process(&origin, &json!({"providers": {"file": {"watch": false}}}));
    let ask = |path: &str| {
        Client::connect(process.address("web")).unwrap().send(&Ask::get(path)).unwrap().status
    };
    assert_eq!(ask("/"), 200);
    let file = process.directory().join("dynamic/config.yml");
    fs::write(&file, everything_to(&origin.url()).replace("`/`", "`/only`")).unwrap();
    process.signal(Signal::HUP);
    until("the new content counts", || ask("/") == 404);
    assert_eq!(ask("/only"), 200);
}

/// CLI-2
#[test]
fn healthcheck_asks_the_running_program() {
    let origin = Origin::start();
    let mut process = process(&origin, &json!({}));
    let port = process.address("traefik").port();
    let entry_point = format!("--entryPoints.traefik.address=127.0.0.1:{port}");
    let asked = run(&["healthcheck", "--ping=true", &entry_point]);
    assert_eq!(asked.status.code(), Some(0), "{}", String::from_utf8_lossy(&asked.stderr));
    let said = String::from_utf8(asked.stdout).unwrap();
    assert_eq!(said, format!("OK: http://127.0.0.1:{port}/ping\n"));
    process.signal(Signal::TERM);
    process.end();
    assert_eq!(run(&["healthcheck", "--ping=true", &entry_point]).status.code(), Some(1));
    let without = run(&["healthcheck", &entry_point]);
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8(without.stderr).unwrap().contains("ping"));
}
/// CLI-2: how it asks, and what each answer means.
#[test]
fn healthcheck_sends_head_past_any_proxy() {
    let detour = Origin::start();
    for (status, code, says) in
        [(200, 0, "OK: http://"), (503, 1, "Bad healthcheck status: 503"), (204, 1, "204")]
    {
        let origin = Origin::with(move |_| Reply::status(status));
        let asked = command(Path::new("."))
            .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, detour.url())))
            .args(["healthcheck", "--ping", "--api.basePath=/base"])
            .arg(format!("--entryPoints.traefik.address={}", origin.address()))
            .output()
            .unwrap();
        let said = [asked.stdout, asked.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(asked.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
        let seen = origin.last();
        assert_eq!((&*seen.method, &*seen.target, origin.count()), ("HEAD", "/ping", 1));
    }
    assert_eq!(detour.connections(), 0);
    let nobody = ["healthcheck", "--ping", "--entryPoints.traefik.address=127.0.0.1:1"];
    let asked = run(&nobody);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8(asked.stderr).unwrap().contains("Error calling healthcheck"));
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = "http:\n  routers:\n    a:\n      rule: Host(`a.test`)\n      service: app\n  \
                services:\n    app:\n      loadBalancer:\n        servers:\n          - url: http://127.0.0.1:1\n";
    let good_file = file("good.yml", good);
    let checked = run(&["check", &good_file]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("1 routers, 1 services, 0 middlewares; 0 errors"), "{said}");

    let bad = file("bad.yml", &good.replace("      service", "      servce"));
    let checked = run(&["check", &bad]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("bad.yml:5:7"), "{said}");
    assert!(said.contains("servce") && said.contains("service"), "{said}");

    let checked = run(&["check", "--format", "json", &bad]);
    assert_eq!(checked.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(said["errors"].as_u64().unwrap() >= 1, "{said}");
    assert!(said["diagnostics"][0].to_string().contains("bad.yml"), "{said}");

    let broken = file("broken.yml", "http: [");
    let checked = run(&["check", &broken]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8(checked.stdout).unwrap().contains("broken.yml:1:"));

    let fixed = file(
        "static.yml",
        &format!(
            "entryPoints:\n  web:\n    address: ':80'\nproviders:\n  file:\n    filename: {good_file}\n"
        ),
    );
    assert_eq!(run(&["check", &fixed]).status.code(), Some(0));
    let wrong = file("wrong.yml", "entryPoints:\n  web:\n    adress: ':80'\n");
    let checked = run(&["check", &wrong]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("wrong.yml:3:5"), "{said}");
}

/// CLI-3 to CLI-6
#[test]
fn commands() {
    let version = run(&["version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8(version.stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
    for (help, words) in [
        (&["--help"][..], ["doorward healthcheck", "--entrypoints.<name>.address"]),
        (&["-h"], ["doorward check FILE", "--core.profile"]),
        (&["help"], ["doorward demo", "--providers.file.directory"]),
        (&["healthcheck", "--help"], ["usage: doorward healthcheck", "--ping.entrypoint"]),
        (&["version", "--help"], ["usage: doorward version", "platform"]),
        (&["help", "version"], ["usage: doorward version", "platform"]),
        (&["bans", "--help"], ["usage: doorward bans", "--admin.socket"]),
        (&["check", "--help"], ["doorward check", "--format"]),
        (&["demo", "--help"], ["doorward demo", "--https-port"]),
        (&["help", "demo"], ["doorward demo", "--https-port"]),
    ] {
        let helped = run(help);
        assert_eq!(helped.status.code(), Some(0), "{help:?}");
        let said = String::from_utf8(helped.stdout).unwrap();
        assert!(words.iter().all(|word| said.contains(word)), "{help:?}: {said}");
    }
    let unknown = run(&["chekc"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8(unknown.stdout).unwrap().contains("doorward check FILE"));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("command not found: chekc") && said.contains("`check`"), "{said}");
    let missing = run(&["--configFile=/does/not/exist.yml"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("/does/not/exist.yml"), "{said}");
}

/// F-49 for HTTP/2 and for tunnels.
#[test]
fn a_stop_lets_streams_and_tunnels_end() {
    let (origin, arrival, go) = slow();
    let chat = websocket_echo();
    let life = json!({"lifeCycle": {"graceTimeOut": "4s"}});
    let proxy = Proxy::with(json!({"entryPoints": {"web": {"transport": life}}})).start(&format!(
        "
        http:
          routers:
            app: {{rule: Host(`app.test`), service: app}}
            chat: {{rule: Host(`chat.test`), service: chat}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            chat: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url(),
        chat.url()
    ));
    let mut talk = websocket(socket(proxy.address("web")).unwrap(), "ws://chat.test/");
    echoed(&mut talk, "before");
    let at = proxy.address("web");
    let proxy = block_on(async {
        let mut sender = http2::connect(at).await;
        let request = http::Request::get("http://app.test/");
        let answer = http2::send(&mut sender, request, b"");
        let stop = tokio::task::spawn_blocking(move || {
            arrival.recv_timeout(DEADLINE).unwrap();
            proxy.app().begin_shutdown();
            until("new connections are refused", || refuses(&proxy, "web"));
            go.send(()).unwrap();
            proxy
        });
        let (answer, proxy) = tokio::join!(answer, stop);
        assert_eq!((answer.response.status.as_u16(), &answer.body[..]), (200, &b"late"[..]));
        proxy.unwrap()
    });
    echoed(&mut talk, "still here");
    let began = Instant::now();
    proxy.into_app().finish();
    assert!(began.elapsed() < DEADLINE, "the tunnel is cut when the grace time is over");
    assert!(talk.read().is_err());
}

/// A provider that has read nothing yet is a reason not to be ready.
#[test]
fn a_start_with_a_broken_file_is_not_ready() {
    let origin = Origin::start();
    let proxy = Proxy::start("http: [");
    let ready = proxy.inside("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("config.yml"), "{}", ready.text());
    assert_eq!(proxy.inside("/ping").status, 200);
    proxy.reload(&everything_to(&origin.url()));
    assert_eq!((proxy.inside("/ready").status, proxy.get("/").status), (200, 200));
}

/// CO: API and dashboard behind a router of the user's, below a path of their own.
#[test]
fn the_api_stands_behind_a_router() {
    let options = json!({"api": {"insecure": false, "basePath": "/ops"}});
    let proxy = Proxy::with(options).start(
        "
        http:
          routers:
            api:
              rule: Host(`ops.test`) && PathPrefix(`/ops`)
              service: api@internal
              middlewares: [near]
          middlewares:
            near: {ipAllowList: {sourceRange: [127.0.0.1/32]}}
        ",
    );
    let answer = proxy.get("ops.test/ops/api/version");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("Version"));
    assert_eq!(proxy.get("ops.test/ops/api/no").status, 404);
    assert_eq!(proxy.get("other.test/ops/api/version").status, 404);
    assert_eq!(proxy.inside("/api/version").status, 404);
}

/// API-4: what nobody uses is looked at as well, and the log, the API and `check` say the same.
#[test]
fn middlewares_that_nobody_uses_are_told() {
    let origin = Origin::start();
    let text = |first: &str, unused: &str| {
        format!(
            "
            http:
              routers:
                all: {{rule: PathPrefix(`/`), service: app, middlewares: [used]}}
              middlewares:
                used: {{addPrefix: {{prefix: {first}}}}}
                unused: {unused}
                foreign: {{plugin: {{some: {{}}}}}}
                inner: {{chain: {{middlewares: [missing]}}}}
                pages: {{errors: {{status: ['500'], service: later}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            ",
            origin.url()
        )
    };
    let broken = text("/x", "{basicAuth: {}}");
    let mut process = Process::start(&json!({}), &broken);
    let file = process.directory().join("dynamic/config.yml").display().to_string();
    let checked = run(&["check", "--format=json", &file]);
    assert_eq!(checked.status.code(), Some(1));
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let api = |path: &str| -> Value {
        let mut client = Client::connect(process.address("traefik")).unwrap();
        serde_json::from_slice(&client.send(&Ask::get(path)).unwrap().body).unwrap()
    };
    for (name, says) in [
        ("unused@file", "no users are configured"),
        ("foreign@file", "plugins are not supported yet: `some`"),
        ("inner@file", "middleware \"missing@file\" does not exist"),
        ("pages@file", "the service \"later@file\" does not exist"),
    ] {
        let shown = api(&format!("/api/http/middlewares/{name}"));
        assert_eq!(shown["status"], "disabled", "{shown}");
        let error = shown["error"][0].as_str().unwrap();
        assert!(error.contains(says), "{shown}");
        let told = checked["diagnostics"].as_array().unwrap();
        let told: Vec<_> = told.iter().filter(|one| one["name"] == name).collect();
        assert_eq!((told.len(), &told[0]["message"]), (1, &json!(error)), "{checked:#}");
        let headline = format!("middleware {name}: {error}");
        let log = process.log();
        let logged = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let logged = logged.filter(|line| {
            line["level"] == "error" && line["message"].as_str().unwrap().contains(&headline)
        });
        assert_eq!(logged.count(), 1, "{headline}\n{log}");
    }
    assert_eq!(api("/api/http/middlewares/used@file")["status"], "enabled");
    let counts = &api("/api/overview")["http"]["middlewares"];
    let internal = 2;
    assert_eq!(*counts, json!({"total": 5 + internal, "warnings": 0, "errors": 4}));
    let status = api("/api/http/middlewares?status=disabled");
    assert_eq!(status.as_array().unwrap().len(), 4);

    // One is mended, another one is no longer used, and a service is there that was not.
    let mended = text("/x", "{basicAuth: {users: ['a:b']}}")
        .replace("middlewares: [used]", "middlewares: []")
        .replace(
            "              services:",
            "              services:\n                later: {loadBalancer: {servers: []}}",
        );
    process.write(&mended);
    until("it is mended", || api("/api/http/middlewares/unused@file")["status"] == "enabled");
    assert_eq!(api("/api/overview")["http"]["middlewares"]["errors"], 2);
    process.write(&mended.replace("{addPrefix: {prefix: /x}}", "{basicAuth: {}}"));
    until("it is broken", || api("/api/http/middlewares/used@file")["status"] == "disabled");
    process.write(&mended.replace("later: ", "sooner: "));
    until("the service is gone", || {
        api("/api/http/middlewares/pages@file")["status"] == "disabled"
    });
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
}

/// API-32, DASH-1: one router to `api@internal` is all that Traefik's documentation asks for.
#[test]
fn the_dashboard_is_reached_through_the_api() {
    let router = |base: &str| {
        format!(
            "
            http:
              routers:
                dashboard:
                  rule: PathPrefix(`{base}/api`) || PathPrefix(`{base}/dashboard`) || Path(`{base}/`)
                  service: api@internal
            "
        )
    };
    for base in ["", "/ops"] {
        let set = |dashboard: bool| {
            let base = if base.is_empty() { "/" } else { base };
            json!({"api": {"insecure": false, "basePath": base, "dashboard": dashboard}})
        };
        let proxy = Proxy::with(set(true)).start(&router(base));
        for path in ["/", "/dashboard"] {
            let answer = proxy.get(&format!("ops.test{base}{path}"));
            let location = format!("{base}/dashboard/");
            assert_eq!((answer.status, answer.header("location")), (302, Some(&*location)));
        }
        let page = proxy.get(&format!("ops.test{base}/dashboard/"));
        assert_eq!((page.status, page.header("location")), (200, None));
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains(&format!("href=\"{base}/api/overview\"")), "{}", page.text());
        assert_eq!(proxy.get(&format!("ops.test{base}/api/overview")).status, 200);
        assert_eq!(proxy.get(&format!("ops.test{base}/dashboard/x.js")).status, 404);
        let posted = proxy.send(&Ask::post(&format!("ops.test{base}/dashboard/"), ""));
        assert_eq!(posted.status, 405);

        let without = Proxy::with(set(false)).start(&router(base));
        for path in ["/", "/dashboard", "/dashboard/"] {
            assert_eq!(without.get(&format!("ops.test{base}{path}")).status, 404, "{path}");
        }
        assert_eq!(without.get(&format!("ops.test{base}/api/overview")).status, 200);
    }
    let behind_another = json!({
        "api": {"insecure": false},
        "entryPoints": {"web": {"forwardedHeaders": {"insecure": true}}},
    });
    let proxy = Proxy::with(behind_another).start(&router(""));
    for (prefix, location) in [("/front", "/front/dashboard/"), ("//evil.test", "/dashboard/")] {
        let answer = proxy.send(&Ask::get("ops.test/").header("X-Forwarded-Prefix", prefix));
        assert_eq!((answer.status, answer.header("location")), (302, Some(location)), "{prefix}");
    }
}

/// Every example is loaded, with the place that it names put into a directory of the test's.
#[test]
fn the_examples_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let place = TempDir::new().unwrap();
    let here = place.path().display().to_string();
    for folder in ["dynamic", "certs", "demo"] {
        fs::create_dir(place.path().join(folder)).unwrap();
    }
    Ca::new().issue(&["example.test"]).write(&place.path().join("certs"), "example.test");
    let copy = |name: &str| {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let text =
            text.replace("/etc/doorward", &here).replace("config/demo/", &format!("{here}/demo/"));
        fs::write(place.path().join(name), text).unwrap();
    };
    for folder in ["dynamic", "demo"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            copy(&format!("{folder}/{}", entry.unwrap().file_name().display()));
        }
    }
    for file in ["doorward.yml", "doorward.toml", "demo/static.yml"] {
        copy(file);
        let checked = run(&["check", &format!("{here}/{file}")]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{file}:\n{said}");
        assert!(said.contains(" 0 errors, 0 warnings"), "{file}:\n{said}");
        assert!(!said.contains(", 0 services"), "{file} brings no dynamic files along:\n{said}");
    }
}

/// F-49: a stop under load. Whoever got its request in gets its answer; only a connection that was
/// idle may be closed under a request that crosses it on the wire.
#[test]
fn a_stop_under_load_loses_no_request() {
    let origin = Origin::with(|_| {
        pause(Duration::from_millis(2));
        Reply::ok("ok")
    });
    let life = json!({"lifeCycle": {"requestAcceptGraceTimeout": "300ms", "graceTimeOut": "60s"}});
    let mut process = process(&origin, &json!({"entryPoints": {"web": {"transport": life}}}));
    let at = process.address("web");
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    // A connection for each request: it was accepted, so it is served.
                    while let Ok(mut client) = Client::connect(at) {
                        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
                        answered.fetch_add(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        until("there is load", || answered.load(Ordering::Acquire) > 100);
        process.signal(Signal::TERM);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert_eq!(process.end().code(), Some(0));
}

/// F-51: a rotation under load loses no line.
#[test]
fn a_rotation_under_load_loses_no_line() {
    const COUNT: usize = 400;
    let origin = Origin::start();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("access.log");
    let log = json!({"accessLog": {"filePath": file, "format": "json"}});
    let proxy = Proxy::with(log).start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    for number in 0..COUNT {
        assert_eq!(client.send(&Ask::get(&format!("/{number}"))).unwrap().status, 200);
        if number % 100 == 50 {
            fs::rename(&file, directory.path().join(format!("access.log.{number}"))).unwrap();
            proxy.app().reopen_logs();
            until("there is a new file", || file.exists());
        }
    }
    let written = || {
        let files = fs::read_dir(directory.path()).unwrap();
        let mut paths: Vec<String> = files
            .flat_map(|entry| lines(&entry.unwrap().path()))
            .map(|line| {
                let line: Value = serde_json::from_str(&line).unwrap();
                line["RequestPath"].as_str().unwrap().to_owned()
            })
            .collect();
        paths.sort();
        paths.dedup();
        paths.len()
    };
    until("all lines are written, each whole", || written() == COUNT);
}

/// A chain is used by the routers that name it, although it is taken apart for them (CO 6.2).
#[test]
fn the_api_says_who_uses_a_chain() {
    let text = "
        http:
          routers:
            one: {rule: Path(`/one`), service: noop@internal, middlewares: [both]}
          middlewares:
            both: {chain: {middlewares: [add]}}
            add: {addPrefix: {prefix: /a}}
            spare: {chain: {middlewares: [add]}}
        ";
    let process = Process::start(&json!({}), text);
    let used_by = |name: &str| -> Value {
        let mut client = Client::connect(process.address("traefik")).unwrap();
        let path = format!("/api/http/middlewares/{name}@file");
        let answer = client.send(&Ask::get(&path)).unwrap();
        serde_json::from_str::<Value>(&answer.text()).unwrap()["usedBy"].clone()
    };
    assert_eq!(used_by("both"), json!(["one@file"]));
    assert_eq!(used_by("add"), json!(["one@file"]));
    assert_eq!(used_by("spare"), Value::Null);
    assert!(process.log().contains(r#""source":""#), "{}", process.log());
    assert!(!process.log().contains("File("), "{}", process.log());
}

/// ST-3
#[test]
fn the_peer_is_appended_nowhere_if_the_global_switch_says_so() {
    let switch = json!({"global": {"notAppendXForwardedFor": true}});
    let exact = json!({"global": {"notAppendXForwardedFor": true}, "core": {"profile": "exact"}});
    for (options, appended) in [(json!({}), true), (switch, false), (exact, true)] {
        let origin = Origin::start();
        let proxy = Proxy::with(options).start(&everything_to(&origin.url()));
        assert_eq!(proxy.get("/").status, 200);
        assert_eq!(origin.last().header("X-Forwarded-For").is_some(), appended);
    }
}
