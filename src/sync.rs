//! Where code in which several threads meet takes its atomics and locks from: the standard library.
//!
//! `tests/schedules` compiles the same files against primitives whose every step another thread may come before, and
//! tries thousands of orders: that is why such files name this module and not `std::sync`.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// Atomics.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

/// Threads.
pub(crate) mod thread {
    pub(crate) use std::thread::{Builder, JoinHandle};
}
