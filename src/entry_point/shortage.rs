//! What the log hears of an entry point that cannot accept: that it begins, how it goes on, and
//! that it is over. Workers try many times in a second, so no attempt has a line of its own.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// From one line to the next.
const REMINDER: Duration = Duration::from_secs(10);
/// After so long without a failure it is over. Sooner it may be a single descriptor that one
/// connection has left to another.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Failures to accept at one entry point, those of all workers together.
#[derive(Debug, Default)]
pub struct Shortage {
    /// Lets whoever accepts pass by without the lock.
    lasts: AtomicBool,
    failures: Mutex<Failures>,
}

impl Shortage {
    /// Whether there were failures just now.
    pub(super) fn lasts(&self) -> bool {
        self.lasts.load(Ordering::Relaxed)
    }

    /// Takes note of a failure.
    pub(super) fn failed(&self, entry_point: &str, error: &io::Error) {
        let due = {
            let mut failures = self.lock();
            self.lasts.store(true, Ordering::Relaxed);
            failures.count(Instant::now())
        };
        match due {
            Some(0) => warn!(entryPointName = entry_point, %error, "cannot accept"),
            Some(failures) => {
                warn!(entryPointName = entry_point, %error, failures, "still cannot accept");
            }
            None => {}
        }
    }

    /// Looks whether it is over.
    pub(super) fn look(&self, entry_point: &str) {
        let mut failures = self.lock();
        if let Some(failures) = failures.end(Instant::now()) {
            self.lasts.store(false, Ordering::Relaxed);
            warn!(entryPointName = entry_point, failures, "accepting again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Failures {
    /// When the last one was, and when the last line was written; `None`: all is well.
    last: Option<(Instant, Instant)>,
    /// How many there were since that line.
    since: u64,
}

impl Failures {
    /// One more. When a line is due, the number of failures that had none.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if let Some((last, line)) = &mut self.last {
            self.since += 1;
            *last = now;
            if now < *line + REMINDER {
                return None;
            }
        }
        self.last = Some((now, now));
        Some(std::mem::take(&mut self.since))
    }

    /// Forgets them all when the last one is long ago. The number of those that had no line.
    fn end(&mut self, now: Instant) -> Option<u64> {
        self.last.take_if(|(last, _)| now >= *last + QUIET)?;
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lines_count_many_failures() {
        let mut failures = Failures::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(failures.end(at(0)), None, "nothing has begun");
        assert_eq!(failures.count(at(0)), Some(0));
        for time in 1..200 {
            assert_eq!(failures.count(at(50 * time)), None);
        }
        assert_eq!(failures.count(at(10_000)), Some(200));
        assert_eq!(failures.count(at(10_050)), None);
        assert_eq!(failures.end(at(10_900)), None, "too early to say");
        assert_eq!(failures.end(at(11_050)), Some(1));
        assert_eq!(failures.end(at(30_000)), None, "said already");
        assert_eq!(failures.count(at(30_000)), Some(0), "it begins again");
    }
}
