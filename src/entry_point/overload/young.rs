//! How many connections came just now and are still open: what they take does not show yet.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Duration;

/// How long it takes a connection to show what it takes: so many slices of time that are over, and the one that it is.
const SLICES: usize = 5;
/// How long one of them lasts.
pub(super) const SLICE: Duration = Duration::from_millis(500);

/// See the module. A worker counts, and whoever watches lets time pass.
#[derive(Debug, Default)]
pub(super) struct Young {
    /// By the slice of time in which they came.
    open: [AtomicUsize; SLICES],
    /// The slice that it is, counted from the start.
    slice: AtomicUsize,
}

impl Young {
    /// One more. What is returned says when it came.
    pub(super) fn come(&self) -> usize {
        let slice = self.slice.load(Relaxed);
        if let Some(open) = self.open.get(slice % SLICES) {
            open.fetch_add(1, Relaxed);
        }
        slice
    }

    /// One that came in this slice has gone.
    pub(super) fn gone(&self, came: usize) {
        let is_young = self.slice.load(Relaxed).wrapping_sub(came) < SLICES;
        if let (true, Some(open)) = (is_young, self.open.get(came % SLICES)) {
            // The slice may have been over just now.
            let _ = open.fetch_update(Relaxed, Relaxed, |open| open.checked_sub(1));
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open.iter().map(|open| open.load(Relaxed)).sum()
    }

    /// Another slice begins.
    pub(super) fn pass(&self) {
        let next = self.slice.load(Relaxed).wrapping_add(1);
        if let Some(open) = self.open.get(next % SLICES) {
            open.store(0, Relaxed);
        }
        self.slice.store(next, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_young_are_those_that_came_just_now_and_stay() {
        let young = Young::default();
        let early = [young.come(), young.come()];
        assert_eq!(young.count(), 2);
        young.pass();
        let late = young.come();
        young.gone(early[0]);
        assert_eq!(young.count(), 2, "one has left");
        for _ in 0..3 {
            young.pass();
            assert_eq!(young.count(), 2);
        }
        young.pass();
        assert_eq!(young.count(), 1, "not young any more");
        let last = young.come();
        young.gone(early[1]);
        assert_eq!(young.count(), 2, "who leaves old is no loss");
        young.gone(late);
        young.gone(last);
        assert_eq!(young.count(), 0);
    }
}
