//! The wire probe: hand-made bytes at the proxy, and a look at both of its sides. Its cases and
//! verdicts are described in `tests/tools/wire_probe.py`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::Proxy;

fn probe(profile: &str, arguments: &[&str]) {
    // The probe brings its own backend, so its port has to be known before it listens.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::with(json!({"core": {"workers": 1, "profile": profile}})).start(&format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), priority: 1, service: probe}}
            private: {{rule: PathPrefix(`/private`), priority: 100, service: probe, middlewares: [deny]}}
            api: {{rule: PathPrefix(`/api`), priority: 50, service: probe, middlewares: [strip]}}
          middlewares:
            deny: {{ipAllowList: {{sourceRange: [192.0.2.1/32]}}}}
            strip: {{stripPrefix: {{prefixes: [/api]}}}}
          services:
            probe: {{loadBalancer: {{servers: [{{url: 'http://{backend}'}}]}}}}
        "
    ));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/wire_probe.py");
    let web = proxy.address("web").to_string();
    let output = Command::new("python3")
        .arg(script)
        .args(["--http", &web, "--h2", &web, "--backend", &backend.to_string()])
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
    for class in ["H2  pass", "SP  pass", "total: pass"] {
        assert!(said.lines().any(|line| line.starts_with(class)), "no {class} in\n{said}");
    }
}

#[test]
fn the_core_cases_pass_out_of_the_box() {
    probe("safe", &["--profile", "core"]);
}

#[test]
fn the_hardened_cases_pass_with_the_hardened_profile() {
    probe("hardened", &["--profile", "hardened"]);
}
