//! How many connections one entry point has at one worker, and how many of them came just now.
//!
//! Every connection is counted here and given back. Only its worker writes it, so that it stays in the cache of one core.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::connections::connected;
use super::young::Young;
use crate::exchange::memory::Held;

/// See the module.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(in crate::entry_point) struct Tally {
    open: AtomicUsize,
    pub(super) young: Young,
}

/// A connection that was counted.
pub(in crate::entry_point) struct Counted {
    /// When it came, for the young.
    came: usize,
    held: Arc<Held>,
}

impl Tally {
    /// One more, which this worker looks after from now on; it is to be given back by [`Tally::leave`].
    pub(in crate::entry_point) fn enter(&self, entry_point: usize) -> Counted {
        self.open.fetch_add(1, Relaxed);
        Counted { came: self.young.come(), held: connected(entry_point) }
    }

    /// It is over.
    pub(in crate::entry_point) fn leave(&self, counted: &Counted) {
        self.open.fetch_sub(1, Relaxed);
        self.young.gone(counted.came);
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// For tests: so many at once.
    #[cfg(test)]
    pub(super) fn set_open(&self, open: usize) {
        self.open.store(open, Relaxed);
    }
}

impl Counted {
    /// What is held for it.
    pub(in crate::entry_point) fn held(&self) -> &Arc<Held> {
        &self.held
    }
}
