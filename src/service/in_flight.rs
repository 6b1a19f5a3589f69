//! How many requests one server has: what `p2c` and `leasttime` choose by.

use http::HeaderMap;

use crate::exchange::{BodyEnd, EndHook};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Requests that one server has, counted until the exchange is over.
#[derive(Default)]
pub(super) struct InFlight(AtomicUsize);

impl InFlight {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more.
    pub(super) fn enter(self: &Arc<Self>) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }
}

/// One request, counted until it is dropped.
pub(super) struct Counted(Arc<InFlight>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EndHook for Counted {
    fn ended(self: Box<Self>, _: BodyEnd, _: Option<&HeaderMap>) {}
}
