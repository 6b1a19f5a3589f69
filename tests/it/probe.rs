//! The wire probe: hand-made bytes at the proxy, and a look at both of its sides. Its cases and
//! verdicts are described in `tests/tools/wire_probe.py`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::Proxy;

/// Runs the probe and wants `cases` of them to pass, and no other to be there.
fn probe(profile: &str, h2: (&str, &str), arguments: &[&str], cases: usize) {
    // The probe brings its own backend, so its port has to be known before it listens.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::with(json!({
        "core": {"workers": 1, "profile": profile},
        // Over TLS, the same routers.
        "entryPoints": {"websecure": {"http": {"tls": {}}}},
    }))
    .start(&format!(
        "
        http:
          routers:
            all: &all {{rule: PathPrefix(`/`), priority: 1, service: probe, entryPoints: [web]}}
            private: &private
              {{rule: PathPrefix(`/private`), priority: 100, service: probe, middlewares: [deny], entryPoints: [web]}}
            api: {{rule: PathPrefix(`/api`), priority: 50, service: probe, middlewares: [strip], entryPoints: [web]}}
            all-secure: {{<<: *all, entryPoints: [websecure]}}
            private-secure: {{<<: *private, entryPoints: [websecure]}}
          middlewares:
            deny: {{ipAllowList: {{sourceRange: [192.0.2.1/32]}}}}
            strip: {{stripPrefix: {{prefixes: [/api]}}}}
          services:
            probe: {{loadBalancer: {{servers: [{{url: 'http://{backend}'}}]}}}}
        "
    ));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/wire_probe.py");
    let (option, entry_point) = h2;
    let output = Command::new("python3")
        .arg(script)
        .args(["--http", &proxy.address("web").to_string()])
        .args([option, &proxy.address(entry_point).to_string()])
        .args(["--backend", &backend.to_string()])
        .args(["--strip-prefix", "/api", "--timeout", "5"])
        .args(arguments)
        .output()
        .expect("the probe needs python3");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> =
        said.lines().filter(|line| line.contains(" fail ") || line.contains(" unknown ")).collect();
    assert!(
        output.status.success(),
        "{}\n{}",
        wrong.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let total = format!("total: pass {cases}, fail 0, unknown 0");
    assert_eq!(said.lines().last(), Some(total.as_str()));
}

const CLEAR: (&str, &str) = ("--h2", "web");
const SECURE: (&str, &str) = ("--h2-tls", "websecure");

#[test]
fn the_core_cases_pass_out_of_the_box() {
    probe("safe", CLEAR, &["--profile", "core"], 149);
}

#[test]
fn the_hardened_cases_pass_with_the_hardened_profile() {
    probe("hardened", CLEAR, &["--profile", "hardened"], 158);
}

#[test]
fn the_cases_of_http_2_pass_over_tls() {
    for profile in ["safe", "hardened"] {
        probe(profile, SECURE, &["--only", "H2-*"], 15);
    }
}
