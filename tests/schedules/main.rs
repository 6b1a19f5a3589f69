//! What several threads do at once, in thousands of orders.
//!
//! The files under test are compiled a second time, with the primitives of shuttle in the place of the standard
//! library's (`crate::sync`): before each step of an atomic or a lock any other thread may come. Tiny scenarios are
//! tried in all orders, others in random ones, and in those where a thread is overtaken at few and unlucky places (PCT).
//!
//! shuttle orders steps; it does not reorder memory. What a relaxed load may read too late is not found here.

#![expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "files are compiled without those that use them, and unit tests without their harness"
)]
#![expect(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "it is its own test harness")]
#![expect(
    clippy::disallowed_methods,
    reason = "the harness tells real time; tokio's is that of the scenarios"
)]

mod exchange;
mod middleware;
mod observability;
mod runner;
mod service;
mod state;
mod upstream;
#[path = "../../src/values/mod.rs"]
mod values;
mod wire;

/// What `src/sync.rs` is to the proxy.
mod sync {
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

    pub(crate) mod atomic {
        pub(crate) use shuttle::sync::atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        };
    }

    pub(crate) mod thread {
        pub(crate) use shuttle::thread::{Builder, JoinHandle};
    }
}

fn main() -> std::process::ExitCode {
    runner::run(&[
        &exchange::SCENARIOS,
        &wire::SCENARIOS,
        &state::SCENARIOS,
        &middleware::SCENARIOS,
        &middleware::circuit_breaker::SCENARIOS,
        &service::SCENARIOS,
        &upstream::SCENARIOS,
        &observability::SCENARIOS,
    ])
}
