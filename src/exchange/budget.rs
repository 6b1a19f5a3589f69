//! How many requests may be sent again: a fifth of all, and a hundred in reserve.
//!
//! Whoever fails as a whole must not get a multiple of its load because of it; whoever is quiet may be asked again
//! freely.

use crate::sync::atomic::{AtomicI64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Budget {
    /// In fifths of a request.
    left: AtomicI64,
}

const RESERVE: i64 = 500;
const COST: i64 = 5;

impl Default for Budget {
    fn default() -> Self {
        Self { left: AtomicI64::new(RESERVE) }
    }
}

impl Budget {
    /// Takes note of one request.
    pub fn earn(&self) {
        // Full is the usual state; then nothing is written. Several may find the last fifth missing at once.
        let more = |left: i64| (left < RESERVE).then_some(left + 1);
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether one may be sent again, which this pays for.
    pub fn spend(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left >= COST).then_some(left - COST)
            })
            .is_ok()
    }
}
