//! `doorward explain` and `doorward diff`: the commands themselves, on files and on a running proxy, which must do what
//! they say.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::binary::{command, run};
use crate::harness::{Ask, Origin, Proxy, Reply};

const ROUTES: &str = "
http:
  routers:
    shop: {rule: 'Host(`shop.test`) && PathPrefix(`/api`)', middlewares: [auth, strip], service: shop}
    all: {rule: Host(`shop.test`), service: shop}
    moved: {rule: Host(`old.test`), middlewares: [away], service: shop}
    broken: {rule: Host(`broken.test`), service: missing}
    inner: {rule: Host(`inner.test`), service: inner}
    secured: {rule: Host(`secured.test`), service: secured}
  middlewares:
    auth: {basicAuth: {users: ['a:$2a$04$aaaaaaaaaaaaaaaaaaaaaOqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq']}}
    strip: {stripPrefix: {prefixes: [/api]}}
    away: {redirectRegex: {regex: '^http://old.test/(.*)', replacement: 'https://new.test/$1'}}
    secure: {redirectScheme: {scheme: https}}
    prefix: {addPrefix: {prefix: /v1}}
  services:
    inner: {weighted: {services: [{name: shop}]}, middlewares: [prefix]}
    secured: {weighted: {services: [{name: shop}]}, middlewares: [secure]}
    shop:
      loadBalancer:
        servers: [{url: 'ORIGIN'}]
        healthCheck: {path: /health, interval: 20ms}
";

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn say(directory: &TempDir, words: &[&str]) -> Said {
    let output = command(directory.path()).args(words).output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn files(texts: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in texts {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn explain_answers_from_files_and_says_it_in_its_exit_code() {
    let fixed = "entryPoints: {web: {address: ':80'}}\nproviders: {file: {filename: routes.yml}}\n";
    let directory = files(&[
        ("doorward.yml", fixed),
        ("routes.yml", &ROUTES.replace("ORIGIN", "http://10.0.0.1:8069")),
    ]);
    let found =
        say(&directory, &["explain", "http://shop.test/api/x", "doorward.yml", "routes.yml"]);
    assert_eq!((found.code, &*found.err), (Some(0), ""), "{}", found.out);
    for line in [
        "GET http://shop.test/api/x  from 127.0.0.1 (assumed)\n",
        "entry point web (:80), clear text\n",
        "  => ok: service shop@file answers, asked for /x\n",
        "  router shop@file  routes.yml:4\n",
        "1. auth@file   basicAuth    routes.yml:11  may refuse the request\n",
        "2. strip@file  stripPrefix  routes.yml:12  the path becomes /x\n",
        "      also matches, but its priority 17 is below 39 of shop@file\n",
        "4 others are for other hosts\n",
    ] {
        assert!(found.out.contains(line), "{line}\n{}", found.out);
    }
    // As the server finds its configuration: here, by its name.
    let default = say(&directory, &["explain", "http://broken.test/"]);
    assert_eq!(default.code, Some(1), "{}{}", default.out, default.err);
    assert!(default.out.contains(
        "=> 503: router broken@file is in error: the service \"missing@file\" does not exist"
    ));
    let named = say(&directory, &["explain", "http://nobody.test/", "--configFile=doorward.yml"]);
    assert_eq!(named.code, Some(1));
    assert!(named.out.contains("=> 404: no router matches"), "{}", named.out);
}

#[test]
fn what_cannot_be_read_is_exit_code_two() {
    let directory = files(&[("bad.yml", "http: [\n"), ("good.yml", "http: {}\n")]);
    for (words, says) in [
        (&["explain"][..], "name a URL"),
        (&["explain", "http://a.test/", "none.yml"], "none.yml"),
        (&["explain", "http://a.test/", "bad.yml"], "bad.yml"),
        (&["explain", "http://a.test/", "--api=http://127.0.0.1:1"], "cannot get"),
        (&["diff", "good.yml"], "name two files"),
        (&["diff", "good.yml", "bad.yml"], "the new side"),
    ] {
        let said = say(&directory, words);
        assert_eq!(said.code, Some(2), "{words:?}: {}", said.out);
        assert!(said.err.contains(says), "{words:?}: {}", said.err);
    }
    for name in ["explain", "diff"] {
        let help = run(&[name, "--help"]);
        assert!(
            String::from_utf8(help.stdout).unwrap().starts_with(&format!("usage: doorward {name}"))
        );
    }
    assert!(String::from_utf8(run(&["--help"]).stdout).unwrap().contains("doorward explain URL"));
}

/// Files and API give one answer, and it is what the proxy does.
#[test]
fn a_running_proxy_does_what_is_explained() {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let origin = Origin::with(move |_| Reply::status(if well.load(Relaxed) { 200 } else { 500 }));
    let text = ROUTES.replace("ORIGIN", &origin.url());
    let proxy = Proxy::start(&text);
    let directory = files(&[]);
    let port = proxy.address("web").port();
    let api = format!("--api=http://{}", proxy.address("traefik"));
    for (host, path, status) in [
        ("shop.test", "/x", 200),
        ("shop.test", "/api/x", 401),
        ("old.test", "/x", 302),
        ("secured.test", "/x", 302),
        ("broken.test", "/", 503),
        ("nobody.test", "/", 404),
        ("shop.test", "/%zz", 400),
    ] {
        let url = format!("http://{host}:{port}{path}");
        let header = format!("Host: {host}");
        let said = say(&directory, &["explain", &url, "-H", &header, &api, "--format=json"]);
        let told: Value =
            serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
        let at = &told["entryPoints"][0];
        assert_eq!(at["entryPoint"], "web", "{url}");
        let got = proxy.send(&Ask::get(host).target(path));
        assert_eq!(got.status, status, "{url}");
        let guarded = status == 401;
        match at["outcome"]["status"].as_u64() {
            Some(told) => assert_eq!(told, u64::from(status), "{url}: {at:#}"),
            None => assert!(status == 200 || guarded, "{url}: {at:#}"),
        }
        let guards = at["routers"][0]["middlewares"].as_array();
        let may_refuse = guards
            .is_some_and(|all| all.iter().any(|one| one["effect"] == "may refuse the request"));
        assert_eq!(may_refuse, guarded, "{url}: {at:#}");
    }
    let url = format!("http://shop.test:{port}/x");
    let said = say(&directory, &["explain", &url, &api]);
    assert!(said.out.contains(&format!("{}  UP", origin.url())), "{}", said.out);
    let note = "note: its profile is not known and taken to be `safe`: say it with `--profile`\n";
    assert!(said.out.contains(note), "{}", said.out);
    let said = say(&directory, &["explain", &url, &api, "--profile=safe"]);
    assert!(!said.out.contains("its profile is not known"), "{}", said.out);
    let url_inner = format!("http://inner.test:{port}/x");
    let inner = say(&directory, &["explain", &url_inner, &api]);
    let ok = "=> ok: service inner@file answers, asked for /v1/x\n";
    assert!(inner.out.contains(ok), "{}", inner.out);
    is_well.store(false, Relaxed);
    crate::harness::until("the health check sees it", || {
        say(&directory, &["explain", &url, &api]).code == Some(1)
    });
    let down = say(&directory, &["explain", &url, &api]);
    assert!(down.out.contains("=> 503: every server of service shop@file is down"), "{}", down.out);
}

#[test]
fn diff_tells_what_protection_is_lost() {
    let old = ROUTES.replace("ORIGIN", "http://10.0.0.1:8069");
    let directory = files(&[
        ("old.yml", &old),
        (
            "new.yml",
            &old.replace("[auth, strip]", "[strip]").replace("http://10.0.0.1", "http://10.0.0.2"),
        ),
    ]);
    let same = say(&directory, &["diff", "old.yml", "old.yml"]);
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);
    assert!(same.out.ends_with("requests tried; 0 get something else\n"), "{}", same.out);
    let text = say(&directory, &["diff", "old.yml", "new.yml"]);
    assert_eq!(text.code, Some(1));
    assert!(text.out.starts_with("protection that is gone\n  router shop@file  ("), "{}", text.out);
    assert!(text.out.contains("    ! basicAuth auth@file no longer applies\n"), "{}", text.out);
    let json = say(&directory, &["diff", "--format=json", "--old", "old.yml", "--new", "new.yml"]);
    let told: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(told["changes"][0]["lost"], json!(["basicAuth auth@file no longer applies"]));
    assert_eq!(told["objects"][0]["name"], "shop@file");
    // A name that stays, and another key: neither is silent.
    let guard = old.lines().find(|line| line.contains("    auth: {")).unwrap();
    let open = old.replace(guard, "    auth: {headers: {frameDeny: true}}");
    let keys =
        |key: &str| format!("tls: {{certificates: [{{certFile: a.pem, keyFile: {key}}}]}}\n");
    for (name, text) in [("open.yml", &open), ("a.yml", &keys("a.key")), ("b.yml", &keys("b.key"))]
    {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let open = say(&directory, &["diff", "old.yml", "open.yml"]);
    assert!(open.out.contains("    ! basicAuth auth@file no longer applies\n"), "{}", open.out);
    let key = say(&directory, &["diff", "a.yml", "b.yml"]);
    assert_eq!(key.code, Some(1));
    assert!(key.out.contains("keyFile: another key, which is not shown\n"), "{}", key.out);
    assert!(!json.out.contains("$2a$") && !text.out.contains("$2a$"));
}
