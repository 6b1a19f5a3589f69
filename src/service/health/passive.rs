//! Passive health check: failures of real requests inside a window take a server out.
//!
//! While requests succeed, an observation is one atomic read; the list of failures is only locked
//! when there is one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// Options of a passive health check, with Traefik's defaults put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct PassiveSettings {
    /// Failures count for this long, and without probes a server stays down for this long.
    pub(in crate::service) window: Duration,
    /// As many failures take a server out.
    pub(in crate::service) max_failures: u32,
}

/// What an observation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Unchanged,
    /// Down from now on for this long.
    DownFor(Duration),
    /// Down until a probe says otherwise.
    DownUntilProbed,
}

/// The failures of one server.
pub(super) struct Passive {
    settings: PassiveSettings,
    probed: bool,
    failures: Mutex<VecDeque<Instant>>,
    has_failures: AtomicBool,
    epoch: Instant,
    /// Nanoseconds after `epoch`; zero while up.
    down_until: AtomicU64,
}

impl Passive {
    pub(super) fn new(settings: PassiveSettings, probed: bool) -> Self {
        Self {
            settings,
            probed,
            failures: Mutex::default(),
            has_failures: AtomicBool::new(false),
            epoch: Instant::now(),
            down_until: AtomicU64::new(0),
        }
    }

    /// Whether the server is not out, or not any more.
    pub(super) fn is_up(&self) -> bool {
        match self.down_until.load(Ordering::Relaxed) {
            0 => true,
            until if self.nanos(Instant::now()) < until => false,
            until => {
                // Only this outage is over: another one may have begun meanwhile.
                let _ = self.down_until.compare_exchange(
                    until,
                    0,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                true
            }
        }
    }

    /// Takes note of one request.
    pub(super) fn observe(&self, failed: bool) -> Verdict {
        if !failed {
            if self.has_failures.load(Ordering::Relaxed) {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.clear();
                self.has_failures.store(false, Ordering::Relaxed);
            }
            return Verdict::Unchanged;
        }
        let now = Instant::now();
        if !self.is_too_often(now) {
            return Verdict::Unchanged;
        }
        if self.probed {
            return Verdict::DownUntilProbed;
        }
        let until = self.nanos(now + self.settings.window).max(1);
        let begun =
            self.down_until.compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed);
        if begun.is_ok() { Verdict::DownFor(self.settings.window) } else { Verdict::Unchanged }
    }

    fn is_too_often(&self, now: Instant) -> bool {
        let max = usize::try_from(self.settings.max_failures).unwrap_or(usize::MAX);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|&at| now.duration_since(at) >= self.settings.window) {
            failures.pop_front();
        }
        if failures.len() >= max {
            failures.pop_front();
        }
        failures.push_back(now);
        self.has_failures.store(true, Ordering::Relaxed);
        failures.len() >= max
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}
