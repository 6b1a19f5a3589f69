//! What overload protection has done, and how near its resources are to their limits.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::render::{family, labels, sample};

/// See the module.
#[derive(Debug, Default)]
pub struct OverloadMetrics {
    /// Memory; without a limit, when there is none.
    pub memory: ResourceMetrics,
    /// Descriptors.
    pub descriptors: ResourceMetrics,
    /// Connections; without a limit, when there is none.
    pub connections: ResourceMetrics,
    /// Connections that were not kept alive.
    pub not_kept_alive: AtomicU64,
    /// Connections that rested, and were closed.
    pub idle_closed: AtomicU64,
    /// Requests that were answered with 503.
    pub requests_refused: AtomicU64,
    /// Connections that were closed as soon as they were accepted.
    pub connections_refused: AtomicU64,
    /// Streams of HTTP/2 that were reset.
    pub streams_reset: AtomicU64,
    /// Connections that were reset.
    pub connections_reset: AtomicU64,
}

/// One resource.
#[derive(Debug, Default)]
pub struct ResourceMetrics {
    step: AtomicU8,
    used: AtomicU64,
    limit: AtomicU64,
}

impl ResourceMetrics {
    /// How much of `limit` is used, and the step that follows from it.
    pub fn set(&self, used: u64, limit: u64, step: u8) {
        self.used.store(used, Relaxed);
        self.limit.store(limit, Relaxed);
        self.step.store(step, Relaxed);
    }
}

impl OverloadMetrics {
    pub(super) fn render(&self, out: &mut String) {
        let resources = [
            ("memory", &self.memory),
            ("descriptors", &self.descriptors),
            ("connections", &self.connections),
        ];
        let limited = || resources.iter().filter(|(_, one)| one.limit.load(Relaxed) > 0);
        let of = |name: &str| labels(&mut [("resource", name)]);
        let name = "doorward_overload_pressure";
        family(out, name, "gauge", "Share of a limit that is used.");
        for (resource, one) in limited() {
            let (used, limit) = (one.used.load(Relaxed), one.limit.load(Relaxed));
            #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
            let share = used as f64 / limit as f64;
            let _ = writeln!(out, "{name}{{{}}} {share:.4}", of(resource));
        }
        let name = "doorward_overload_limit";
        family(out, name, "gauge", "The limit, in bytes, descriptors or connections.");
        for (resource, one) in limited() {
            sample(out, name, &of(resource), one.limit.load(Relaxed));
        }
        let name = "doorward_overload_step";
        let help = "0: nothing is given up; 1: keep-alive; 2: new requests; 3: what is heaviest.";
        family(out, name, "gauge", help);
        for (resource, one) in limited() {
            sample(out, name, &of(resource), one.step.load(Relaxed));
        }
        let name = "doorward_overload_actions_total";
        family(out, name, "counter", "What was given up because of overload.");
        for (action, count) in [
            ("connection_not_kept_alive", &self.not_kept_alive),
            ("connection_refused", &self.connections_refused),
            ("connection_reset", &self.connections_reset),
            ("idle_connection_closed", &self.idle_closed),
            ("request_refused", &self.requests_refused),
            ("stream_reset", &self.streams_reset),
        ] {
            sample(out, name, &labels(&mut [("action", action)]), count.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_limit_has_no_pressure() {
        let metrics = OverloadMetrics::default();
        metrics.descriptors.set(93, 100, 1);
        metrics.requests_refused.fetch_add(3, Relaxed);
        let mut out = String::new();
        metrics.render(&mut out);
        for line in [
            "doorward_overload_pressure{resource=\"descriptors\"} 0.9300\n",
            "doorward_overload_step{resource=\"descriptors\"} 1\n",
            "doorward_overload_limit{resource=\"descriptors\"} 100\n",
            "doorward_overload_actions_total{action=\"request_refused\"} 3\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
        assert!(!out.contains("resource=\"memory\""), "{out}");
    }
}
