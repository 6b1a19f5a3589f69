//! `/ping`, `/live` and `/ready`: whether the process lives, and whether it should get traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::StatusCode;

use crate::exchange::error::bare;
use crate::exchange::{Body, Context, Handler, Request, Response, ResponseFuture, ready};

/// What the whole process knows of its own state.
#[derive(Default)]
pub struct Readiness {
    stopping: AtomicBool,
    applied: AtomicBool,
    problems: ArcSwap<Vec<String>>,
}

impl Readiness {
    /// Shutdown has begun.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A configuration was applied; `problems` says why it does not count as ready.
    pub fn applied(&self, problems: Vec<String>) {
        self.problems.store(Arc::new(problems));
        self.applied.store(true, Ordering::Release);
    }

    /// Why the process is not ready; empty when it is.
    pub fn problems(&self) -> Vec<String> {
        if self.stopping.load(Ordering::Acquire) {
            return vec!["shutting down".to_owned()];
        }
        if !self.applied.load(Ordering::Acquire) {
            return vec!["no configuration was applied yet".to_owned()];
        }
        self.problems.load().to_vec()
    }
}

/// `ping@internal`: 200 `OK` until shutdown begins.
pub struct Ping {
    /// The process.
    pub readiness: Arc<Readiness>,
    /// Answer from the first moment of shutdown (`ping.terminatingStatusCode`).
    pub terminating: StatusCode,
}

impl Handler for Ping {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        if self.readiness.stopping.load(Ordering::Acquire) {
            return ready(bare(self.terminating));
        }
        ready(Response::new(Body::from_static(b"OK")))
    }
}

/// `live@internal`: 200 as long as requests are answered at all.
pub struct Live;

impl Handler for Live {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        ready(Response::new(Body::from_static(b"OK")))
    }
}

/// `ready@internal`: 200 when the running configuration is whole, else 503 and why.
pub struct Ready {
    /// The process.
    pub readiness: Arc<Readiness>,
}

impl Handler for Ready {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        let problems = self.readiness.problems();
        if problems.is_empty() {
            return ready(Response::new(Body::from_static(b"OK")));
        }
        let mut response = Response::new(Body::from(problems.join("\n") + "\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        ready(response)
    }
}
