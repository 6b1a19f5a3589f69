//! Which router a request goes to (RP 3.3, 3.5), and that a reload is one store (RP 16).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::{Ask, Origin, Proxy, Reply};

/// Answers with the target that it was asked for.
fn echo_target() -> Origin {
    Origin::with(|seen| Reply::ok(seen.target.as_bytes()))
}

/// Routers `name: rule`, each with a prefix that tells which one it was.
fn telling(url: &str, routers: &[(&str, &str)]) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for (name, rule) in routers {
        let _ = writeln!(
            text,
            "    {name}:\n      rule: '{rule}'\n      service: app\n      middlewares: [{name}]"
        );
    }
    text += "  middlewares:\n";
    for (name, _) in routers {
        let _ = writeln!(text, "    {name}: {{addPrefix: {{prefix: /{name}}}}}");
    }
    text + &format!(
        "  services:\n    app:\n      loadBalancer:\n        servers: [{{url: '{url}'}}]\n"
    )
}

#[test]
fn host_and_path_pick_the_router() {
    let origin = echo_target();
    let proxy = Proxy::start(&telling(
        &origin.url(),
        &[
            ("a", "Host(`a.test`)"),
            ("ax", "Host(`a.test`) && PathPrefix(`/x`)"),
            ("wild", "Host(`*.b.test`)"),
            ("post", "Host(`c.test`) && Method(`POST`)"),
        ],
    ));
    for (place, wanted) in [
        ("a.test/y", "/a/y"),
        ("a.test/x/1?q=1", "/ax/x/1?q=1"),
        ("a.test/xy", "/ax/xy"),
        ("one.b.test/", "/wild/"),
    ] {
        assert_eq!(proxy.get(place).text(), wanted, "{place}");
    }
    assert_eq!(proxy.send(&Ask::post("c.test/", "body")).text(), "/post/");
    for place in ["other.test/", "b.test/", "two.one.b.test/", "c.test/", "sub.a.test/"] {
        let answer = proxy.get(place);
        assert_eq!((answer.status, &*answer.text()), (404, "404 page not found\n"), "{place}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn a_host_is_the_same_in_any_spelling() {
    let origin = echo_target();
    let proxy = Proxy::start(&telling(&origin.url(), &[("a", "Host(`A.test.`)")]));
    for host in ["a.test", "A.TEST", "a.test.", "a.test:80", "A.tesT.:8080"] {
        let answer = proxy.get(&format!("{host}/p"));
        assert_eq!((answer.status, &*answer.text()), (200, "/a/p"), "{host}");
        // What the backend reads is what the client wrote.
        assert_eq!(origin.last().header("host"), Some(host));
    }
}

#[test]
fn priorities_are_lengths_unless_they_are_written() {
    let origin = echo_target();
    let config = |priority: i64| {
        telling(
            &origin.url(),
            &[("long", "Host(`a.test`) && PathPrefix(`/`)"), ("short", "Host(`a.test`)")],
        )
        .replace("    short:\n", &format!("    short:\n      priority: {priority}\n"))
    };
    let proxy = Proxy::start(&config(0));
    assert_eq!(proxy.get("a.test/").text(), "/long/");
    proxy.reload(&config(1000));
    assert_eq!(proxy.get("a.test/").text(), "/short/");
    proxy.reload(&config(-1));
    assert_eq!(proxy.get("a.test/").text(), "/long/");
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host() {
    let origin = echo_target();
    let proxy =
        Proxy::start(&telling(&origin.url(), &[("a", "Host(`a.test`)"), ("b", "Host(`b.test`)")]));
    let answer = proxy.send(&Ask::get("a.test/").target("http://b.test/p?q=1"));
    assert_eq!(answer.text(), "/b/p?q=1");
    let seen = origin.last();
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/b/p?q=1", Some("b.test")));
}

#[test]
fn paths_are_made_canonical_before_they_are_matched() {
    let origin = echo_target();
    let proxy = Proxy::start(&telling(
        &origin.url(),
        &[("all", "PathPrefix(`/`)"), ("admin", "Host(`app.test`) && PathPrefix(`/admin`)")],
    ));
    for target in ["/admin", "/x/../admin", "/./admin", "//admin", "/%61dmin", "/x/%2e%2e/admin"] {
        let answer = proxy.send(&Ask::get("/").target(target));
        assert_eq!(answer.text(), "/admin/admin", "{target}");
    }
    // An encoded slash is no separator, neither here nor at the backend.
    assert_eq!(proxy.get("/x%2Fadmin").text(), "/all/x%2Fadmin");
}

/// Two routers change with every reload. Whoever asks one and then the other never sees the second
/// one older than the first.
#[test]
fn routers_that_change_together_change_in_one_store() {
    let origin = echo_target();
    let config = |generation: usize| {
        telling(&origin.url(), &[("one", "Path(`/one`)"), ("two", "Path(`/two`)")])
            .replace("prefix: /one", &format!("prefix: /{generation}"))
            .replace("prefix: /two", &format!("prefix: /{generation}"))
    };
    let proxy = Proxy::start(&config(1));
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let hammers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = proxy.client();
                    let (mut latest, mut asked) = (0, 0);
                    while !done.load(Ordering::Acquire) {
                        for path in ["/one", "/two"] {
                            let answer = client.send(&Ask::get(path)).unwrap();
                            let text = answer.text();
                            let generation = text.split('/').nth(1).unwrap().parse().unwrap();
                            assert!(latest <= generation, "{path}: {latest}, then {generation}");
                            latest = generation;
                            asked += 1;
                        }
                    }
                    (latest, asked)
                })
            })
            .collect();
        for generation in 2..=25 {
            proxy.reload(&config(generation));
        }
        // Whoever asks now is answered by the newest table.
        assert_eq!(proxy.get("/two").text(), "/25/two");
        done.store(true, Ordering::Release);
        hammers.into_iter().map(|hammer| hammer.join().unwrap().1).sum::<usize>()
    });
    assert!(asked > 100, "only {asked} requests were made meanwhile");
}

#[test]
fn ten_thousand_routers() {
    const COUNT: usize = 10_000;
    let origin = Origin::start();
    let config = |hosts: &dyn Fn(usize) -> String| {
        let mut text = "http:\n  routers:\n".to_owned();
        for number in 0..COUNT {
            let host = hosts(number);
            let _ = writeln!(text, "    r{number}: {{rule: 'Host(`{host}`)', service: app}}");
        }
        let url = origin.url();
        text + &format!("  services: {{app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}}}\n")
    };
    let proxy = Proxy::start(&config(&|number| format!("t{number}.test")));
    for number in [0, 4321, COUNT - 1] {
        assert_eq!(proxy.get(&format!("t{number}.test/")).status, 200);
    }
    assert_eq!(proxy.get(&format!("t{COUNT}.test/")).status, 404);
    proxy.reload(&config(&|number| match number {
        4321 => "moved.test".to_owned(),
        other => format!("t{other}.test"),
    }));
    assert_eq!(proxy.get("moved.test/").status, 200);
    assert_eq!(proxy.get("t4321.test/").status, 404);
    assert_eq!(proxy.get("t9999.test/").status, 200);
}

/// RP-3.4: one router in the syntax of v2 among others, and v2 for all that do not say.
#[test]
fn rules_may_be_written_in_the_syntax_of_v2() {
    let origin = Origin::start();
    let config = |one: &str, other: &str| {
        format!(
            "http:
  routers:
    one: {{rule: '{one}', service: app, ruleSyntax: v2}}
    other: {{rule: '{other}', service: app}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
            origin.url()
        )
    };
    let proxy = Proxy::start(&config(
        "Host(`a.test`, `b.test`) && Path(`/p/{id:[0-9]+}`)",
        "Host(`c.test`)",
    ));
    for (place, status) in [
        ("a.test/p/42", 200),
        ("b.test/p/42", 200),
        ("b.test/p/x", 404),
        ("c.test/p/x", 200),
        ("d.test/p/42", 404),
    ] {
        assert_eq!(proxy.get(place).status, status, "{place}");
    }
    let view = proxy.api("/api/http/routers/one@file");
    assert_eq!((&view["ruleSyntax"], &view["status"]), (&"v2".into(), &"enabled".into()));

    let default = serde_json::json!({"core": {"defaultRuleSyntax": "v2"}});
    let text = config("Host(`a.test`)", "HostRegexp(`{any:c|d}.test`)");
    let proxy = Proxy::with(default).start(&text);
    for (place, status) in [("c.test/", 200), ("d.test/", 200), ("e.test/", 404)] {
        assert_eq!(proxy.get(place).status, status, "{place}");
    }
    assert_eq!(proxy.api("/api/http/routers/other@file")["ruleSyntax"], "v2");
}
