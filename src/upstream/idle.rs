//! How many connections to one server are idle, on all workers together.
//!
//! Invariant: no more stay than may, and none is closed while there is room.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct IdleCount(AtomicUsize);

impl IdleCount {
    /// Whether one more may stay, of so many at most. It is counted then.
    pub(super) fn enter(&self, most: usize) -> bool {
        let more = |count: usize| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// So many are not idle any more.
    pub(super) fn leave(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
