//! How much is used of what may run out: memory and descriptors.

use std::fs;

use rustix::process::{Resource, getrlimit};
use tokio::time::{Duration, Instant};

use super::cgroup::{self, Groups, Used};

/// Limits of cgroups may be changed while they are in force.
const LIMITS_EVERY: Duration = Duration::from_secs(10);
/// Where counting descriptors means listing them.
const LISTING_EVERY: Duration = Duration::from_secs(1);

/// What is known of memory.
pub(super) struct Memory {
    max: Option<u64>,
    groups: Groups,
    /// When they were looked for.
    since: Instant,
    buffer: Vec<u8>,
}

impl Memory {
    /// Of which there is `max`, besides what the kernel says.
    pub(super) fn new(max: Option<u64>) -> Self {
        Self { max, groups: Groups::find(), since: Instant::now(), buffer: Vec::new() }
    }

    /// What is used of every limit; for `enough` and `ours` see [`Groups::used`].
    pub(super) fn look(&mut self, enough: f64, ours: f64) -> Vec<Used> {
        let now = Instant::now();
        if now >= self.since + LIMITS_EVERY {
            (self.groups, self.since) = (Groups::find(), now);
        }
        let mut all = self.groups.used(&mut self.buffer, enough, ours);
        all.extend(self.max.and_then(|limit| {
            let bytes = cgroup::resident()?;
            Some(Used { bytes, limit })
        }));
        all
    }
}

/// What is known of descriptors.
#[derive(Default)]
pub(super) struct Descriptors {
    /// How many were open, beside connections, and when.
    listed: Option<(u64, Instant)>,
}

impl Descriptors {
    /// How many of them are in use; `None`: nobody knows, or there is no limit.
    pub(super) fn look(&mut self, now: Instant, connections: usize) -> Option<Used> {
        let limit = getrlimit(Resource::Nofile).current?;
        let used = |bytes| Some(Used { bytes, limit });
        // Since Linux 6.2 the size of the folder is their number.
        let size = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
        if size > 0 {
            return used(size);
        }
        let connections = connections as u64;
        let others = match self.listed {
            Some((others, at)) if now < at + LISTING_EVERY => others,
            _ => {
                // The listing itself has one open.
                let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
                let others = (open as u64).saturating_sub(connections);
                self.listed = Some((others, now));
                others
            }
        };
        used(others + connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        let mut descriptors = Descriptors::default();
        let before = descriptors.look(Instant::now(), 0).unwrap();
        assert!(before.bytes > 2 && before.bytes < before.limit, "{before:?}");
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        assert!(before.bytes.abs_diff(listed) < 64, "{before:?} {listed}");
    }

    #[test]
    fn configured_memory_is_a_limit() {
        let all = Memory::new(Some(1 << 40)).look(0.0, 0.95);
        let used = all.iter().find(|used| used.limit == 1 << 40).unwrap();
        assert!(used.bytes > 0);
    }
}
