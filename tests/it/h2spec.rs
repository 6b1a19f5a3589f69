//! The conformance test of HTTP/2 servers, h2spec, at the proxy: all of it, what is strict too.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::harness::{Origin, Proxy, Reply};

/// Built there by `tests/run`, from what `tests/tools/h2spec` pins.
const PROGRAM: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/h2spec");
/// Cases that h2spec knows with `--strict`.
const CASES: usize = 146;

fn proxy(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "
        http:
          routers:
            clear: {{rule: PathPrefix(`/`), service: app, entryPoints: [web]}}
            secure: {{rule: PathPrefix(`/`), service: app, entryPoints: [websecure], tls: {{}}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
        ",
        origin.url()
    ))
}

/// Large enough for the cases of flow control, which are skipped otherwise.
fn origin() -> Origin {
    Origin::with(|_| Reply::ok(vec![b'x'; 4096]))
}

fn conforms(address: SocketAddr, options: &[&str]) {
    assert!(Path::new(PROGRAM).exists(), "there is no {PROGRAM}: ./tests/run builds it");
    let output = Command::new(PROGRAM)
        .args(["--strict", "--timeout", "5", "--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .args(options)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed");
    // The cases that failed are told again at the end.
    let end = said.find("Failures:").map_or("", |at| &said[at..]);
    assert!(said.lines().any(|line| line == summary), "{end}\n{:?}", said.lines().last());
    assert!(output.status.success());
}

#[test]
fn http_2_in_clear_text_is_as_the_rfcs_want() {
    let origin = origin();
    let proxy = proxy(&origin);
    conforms(proxy.address("web"), &[]);
}

#[test]
fn http_2_over_tls_is_as_the_rfcs_want() {
    let origin = origin();
    let proxy = proxy(&origin);
    conforms(proxy.address("websecure"), &["--tls", "--insecure"]);
}
