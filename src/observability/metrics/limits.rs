//! How often limits of clients were reached, as `doorward_limits_total`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::bound::lock;
use super::render::{family, labels, sample};

/// The counters, by the name of the limit.
#[derive(Default)]
pub(super) struct LimitCounts(Mutex<Vec<(&'static str, Arc<AtomicU64>)>>);

impl LimitCounts {
    pub(super) fn counter(&self, limit: &'static str) -> Arc<AtomicU64> {
        let mut counters = lock(&self.0);
        if let Some((_, counter)) = counters.iter().find(|(name, _)| *name == limit) {
            return Arc::clone(counter);
        }
        let counter = Arc::default();
        counters.push((limit, Arc::clone(&counter)));
        counters.sort_unstable_by_key(|(name, _)| *name);
        counter
    }

    pub(super) fn render(&self, out: &mut String) {
        let counters = lock(&self.0);
        let name = "doorward_limits_total";
        if !counters.is_empty() {
            family(out, name, "counter", "How often clients reached a limit.");
        }
        for (limit, counter) in &*counters {
            let labels = labels(&mut [("limit", limit)]);
            sample(out, name, &labels, counter.load(Ordering::Relaxed));
        }
    }
}
