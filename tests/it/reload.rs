//! Reloads under load: nobody notices, and what is wrong takes nothing down (RP 16; F-18, F-23 to
//! F-30).

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use doorward::config::diagnostics::Severity;
use serde_json::json;

use crate::harness::client::socket;
use crate::harness::{Ask, DEADLINE, Origin, Proxy, Reply, everything_to, until};
use crate::wire::{echoed, websocket, websocket_echo};

/// How many reloads; more are asked for with an environment variable.
pub(crate) fn count() -> usize {
    let usual = if cfg!(debug_assertions) { 200 } else { 1000 };
    std::env::var("DOORWARD_TEST_RELOADS").map_or(usual, |count| count.parse().unwrap())
}

/// F-29, F-30
#[test]
fn many_reloads_under_load_lose_nothing() {
    let (origin, chat) = (Origin::start(), websocket_echo());
    let config = |number: usize| {
        format!(
            "
            http:
              routers:
                app: {{rule: Host(`app.test`), service: app}}
                chat: {{rule: Host(`chat.test`), service: chat}}
                other: {{rule: Host(`t{number}.test`), service: app, middlewares: [number]}}
              middlewares:
                number: {{addPrefix: {{prefix: /{number}}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
                chat: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            ",
            origin.url(),
            chat.url()
        )
    };
    let proxy = Proxy::start(&config(0));
    let mut talk = websocket(socket(proxy.address("web")).unwrap(), "ws://chat.test/");
    let done = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // One connection for all requests: it must not be closed either.
                let mut client = proxy.client();
                while !done.load(Ordering::Acquire) {
                    let answer = client.send(&Ask::get("/")).unwrap();
                    assert_eq!((answer.status, &*answer.text()), (200, "origin"));
                    let answer = client.send(&Ask::post("/", "body").chunked()).unwrap();
                    assert_eq!((answer.status, &*answer.text()), (200, "body"));
                    answered.fetch_add(2, Ordering::AcqRel);
                }
            });
        }
        for number in 1..=count() {
            proxy.reload(&config(number));
            if number % 20 == 0 {
                echoed(&mut talk, "still here");
                assert_eq!(proxy.get(&format!("t{number}.test/")).status, 200);
            }
        }
        done.store(true, Ordering::Release);
    });
    assert!(answered.load(Ordering::Acquire) > count(), "there was hardly any load");
    assert_eq!(chat.connections(), 1);
    let failed = "traefik_config_reloads_failure_total";
    assert!(proxy.metric(failed).abs() < f64::EPSILON);
    assert_eq!(proxy.get("t0.test/").status, 404);
}

/// F-18, F-30: a request ends on the table that it began with.
#[test]
fn a_running_request_outlives_its_router() {
    let (go, wait) = sync_channel::<()>(0);
    let wait = std::sync::Mutex::new(wait);
    let (arrived, arrival) = sync_channel(1);
    let origin = Origin::with(move |_| {
        let _ = arrived.send(());
        let _ = wait.lock().unwrap().recv_timeout(DEADLINE);
        Reply::ok("late")
    });
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let mut client = proxy.client();
    client.write(&Ask::get("/")).unwrap();
    arrival.recv_timeout(DEADLINE).unwrap();
    proxy.reload("http: {}");
    assert_eq!(proxy.get("/").status, 404);
    go.send(()).unwrap();
    let answer = client.read("GET").unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, "late"));
    assert_eq!(
        client.send(&Ask::get("/")).unwrap().status,
        404,
        "its connection sees the new table"
    );
}

/// F-23, F-28
#[test]
fn a_file_that_cannot_be_read_leaves_the_last_good_content() {
    let origin = Origin::start();
    let good = everything_to(&origin.url());
    let proxy = Proxy::start(&good);
    let failed = || proxy.metric("traefik_config_reloads_failure_total");
    let last = || proxy.metric("traefik_config_last_reload_success");
    let first = last();
    assert!(first > 0.0);
    for (number, broken) in
        ["http: [", "http:\n  routers:\n\tall: {}", "{{ if }}", "http: {a: 1}}"].iter().enumerate()
    {
        let before = failed();
        proxy.reload(&format!("{broken} # {number}"));
        assert!(failed() > before, "{broken}");
        assert_eq!(proxy.get("/").status, 200, "{broken}");
        let ready = proxy.inside("/ready");
        assert_eq!(ready.status, 200, "{broken}: {}", ready.text());
    }
    let before = failed();
    proxy.reload(&format!("{good}\n# mended"));
    assert!((failed() - before).abs() < f64::EPSILON);
    assert!(last() >= first);
    assert!(proxy.metric("traefik_config_last_reload_failure") > 0.0);
}

#[test]
fn a_broken_file_does_not_hold_up_its_neighbours() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let more = proxy.file().with_file_name("more.yml");
    proxy.reload("http: [");
    let before = proxy.reloads();
    let rule = "http: {routers: {more: {rule: Host(`more.test`), service: app}}}";
    fs::write(&more, rule.replace("more.test", "new.test")).unwrap();
    until("the other file counts", || proxy.reloads() > before);
    until("its router is there", || {
        proxy
            .api("/api/http/routers")
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "more@file")
    });
    assert_eq!(proxy.get("new.test/").status, 200);
}

/// F-25 asks that a file which is gone keeps its routes; a file that somebody removed from a
/// directory takes them along, as in Traefik.
#[test]
fn a_file_that_is_removed_takes_its_objects_along() {
    let origin = Origin::start();
    let proxy = Proxy::start(&everything_to(&origin.url()));
    let more = proxy.file().with_file_name("more.yml");
    fs::write(
        &more,
        "http: {routers: {more: {rule: Path(`/more`), priority: 100, service: gone}}}",
    )
    .unwrap();
    until("the router is there", || proxy.get("/more").status == 503);
    fs::remove_file(&more).unwrap();
    until("the router is gone", || proxy.get("/more").status == 200);
    assert_eq!(proxy.inside("/api/http/routers/more@file").status, 404);
}

#[test]
fn what_is_in_error_is_shown() {
    let origin = Origin::start();
    let text = everything_to(&origin.url())
        .replace("service: app", "service: app\n              middlewares: [cut, absent]");
    let proxy = Proxy::start(&text);
    let router = proxy.api("/api/http/routers/all@file");
    assert_eq!(router["status"], "disabled");
    assert!(router["error"][0].as_str().unwrap().contains("cut"), "{router}");
    let overview = proxy.api("/api/overview");
    assert_eq!(overview["http"]["routers"]["errors"], 1);
    let disabled = proxy.api("/api/http/routers?status=disabled");
    assert_eq!(disabled.as_array().unwrap().len(), 1);
    let report = proxy.app().report();
    let errors = report.diagnostics.iter().filter(|one| one.severity == Severity::Error);
    assert_eq!(errors.count(), 2, "both middlewares are told");

    proxy.reload(&everything_to(&origin.url()));
    assert_eq!(proxy.api("/api/http/routers/all@file")["status"], "enabled");
    assert_eq!(proxy.api("/api/overview")["http"]["routers"]["errors"], 0);
}

/// RP 16 says that Traefik forgets buckets at every reload, which makes a reload a way around the
/// limit; here they are kept as long as the limit stays the same.
#[test]
fn an_empty_bucket_stays_empty() {
    let origin = Origin::start();
    let config = |host: &str, average: usize| {
        format!(
            "
            http:
              routers:
                app: {{rule: PathPrefix(`/`), service: app, middlewares: [limit]}}
                other: {{rule: Host(`{host}`), service: app}}
              middlewares:
                limit: {{rateLimit: {{average: {average}, period: 1h, burst: 3}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            ",
            origin.url()
        )
    };
    let proxy = Proxy::start(&config("a.test", 1));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(proxy.get("/").status, 429);
    proxy.reload(&config("b.test", 1));
    assert_eq!(proxy.get("/").status, 429);
    proxy.reload(&config("b.test", 2));
    assert_eq!(proxy.get("/").status, 200, "another limit begins anew");
}

/// A reload that does not concern a service leaves it alone, down to its connections.
#[test]
fn connections_to_backends_outlive_reloads() {
    let origin = Origin::start();
    let text = everything_to(&origin.url());
    let proxy = Proxy::with(json!({"core": {"workers": 1}})).start(&text);
    let mut client = proxy.client();
    for number in 0..10 {
        assert_eq!(client.send(&Ask::get("/")).unwrap().status, 200);
        proxy.reload(&format!(
            "{text}\n          middlewares: {{unused: {{addPrefix: {{prefix: /{number}}}}}}}\n"
        ));
    }
    assert_eq!(origin.connections(), 1);
}

/// Kubernetes puts new content into a mounted ConfigMap by renaming a link (F-26).
#[test]
fn a_renamed_link_is_noticed() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let setup = Proxy::with(json!({}));
    let volume = setup.directory().join("volume");
    for (name, origin) in [("one", &one), ("two", &two)] {
        fs::create_dir_all(volume.join(name)).unwrap();
        fs::write(volume.join(name).join("app.yml"), everything_to(&origin.url())).unwrap();
    }
    let link = |to: &str| {
        let fresh = volume.join("..data_tmp");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        fs::rename(fresh, volume.join("..data")).unwrap();
    };
    link("one");
    let mounted = setup.directory().join("mounted");
    fs::create_dir(&mounted).unwrap();
    std::os::unix::fs::symlink(volume.join("..data/app.yml"), mounted.join("app.yml")).unwrap();
    let directory = setup.directory().join("mounted");
    let proxy = Proxy::with(json!({"providers": {"file": {"directory": directory}}})).start("");
    assert_eq!(proxy.who("/").1, "one");
    link("two");
    until("the new content counts", || proxy.who("/").1 == "two");
    link("one");
    until("the old content counts again", || proxy.who("/").1 == "one");
}
