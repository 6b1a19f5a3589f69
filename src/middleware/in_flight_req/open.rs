//! Who has how many requests in flight. Invariant: no source ever has more than it may, and who has none is forgotten.

use std::collections::HashMap;

use crate::middleware::source::Source;
use crate::sync::{Arc, Mutex, PoisonError};

/// Requests in flight by source. Who has none is not in it.
#[derive(Default)]
pub(in crate::middleware) struct Open {
    counts: Mutex<HashMap<Source, u64>>,
}

impl Open {
    /// Counts one more of `source`, unless it has as many as it may have.
    pub(in crate::middleware) fn enter(
        self: &Arc<Self>,
        source: Source,
        amount: u64,
    ) -> Option<Slot> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let open = counts.get(&source).copied().unwrap_or_default();
        if open >= amount {
            return None;
        }
        counts.insert(source, open + 1);
        Some(Slot { open: Arc::clone(self), source })
    }
}

/// One request in flight, until it is dropped.
pub(in crate::middleware) struct Slot {
    open: Arc<Open>,
    source: Source,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.source) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                counts.remove(&self.source);
            }
        }
    }
}
