//! The words that all tests are told in: origins, a proxy in front of them, and a client.
//!
//! Everything listens on port 0 and lives in a directory of its own, so tests run side by side.
//! Waiting is always for a condition, with a deadline that a busy machine can keep.

pub(crate) mod binary;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod flood;
pub(crate) mod forward;
pub(crate) mod http2;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod proxy;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use client::{Answer, Ask, Client};
pub(crate) use origin::{Origin, Reply};
pub(crate) use proxy::Proxy;

/// No wait in these tests is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An address where nobody listens: `tcpmux` is served by no machine that runs tests.
pub(crate) const NOBODY: &str = "http://127.0.0.1:1";

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "this did not come true in time: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Between two looks at a condition, or to let time pass where time is the subject.
#[expect(clippy::disallowed_methods, reason = "the tests have no worker to stall")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Runs what has to be async: HTTP/2 and WebSockets.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, future).await.expect("this did not end in time")
    })
}

/// One router for every host and path, in front of one server.
pub(crate) fn everything_to(url: &str) -> String {
    format!(
        "
        http:
          routers:
            all:
              rule: PathPrefix(`/`)
              service: app
          services:
            app:
              loadBalancer:
                servers:
                  - url: {url}
        "
    )
}

/// A router for everything through `middleware`, which is written in one line.
pub(crate) fn through(url: &str, middleware: &str) -> String {
    format!(
        "
        http:
          routers:
            all: {{rule: PathPrefix(`/`), service: app, middlewares: [one]}}
          middlewares:
            one: {{{middleware}}}
          services:
            app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}
        "
    )
}

/// The same, with a second service `pages`.
pub(crate) fn with_pages(url: &str, pages: &str, middleware: &str) -> String {
    let one = through(url, middleware);
    format!("{one}    pages: {{loadBalancer: {{servers: [{{url: '{pages}'}}]}}}}\n        ")
}
