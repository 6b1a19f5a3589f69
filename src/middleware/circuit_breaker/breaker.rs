//! The three states of a circuit breaker and what leads from one to the next.
//!
//! Closed, a request costs one look at a flag before and one short lock behind. The condition is
//! looked at when a request has ended, and by nothing else.

use std::time::Duration;

use tokio::time::Instant;

use super::condition::Condition;
use super::window::Window;
use crate::middleware::expression::Expression;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, PoisonError};

/// The times of a breaker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Between two looks at the condition.
    pub(super) check: Duration,
    /// While nothing passes.
    pub(super) open: Duration,
    /// While requests pass in growing number.
    pub(super) recovery: Duration,
}

/// A breaker, which outlives reloads.
pub(super) struct Breaker {
    condition: Expression<Condition>,
    times: Times,
    router: String,
    name: String,
    start: Instant,
    /// Every request passes. The lock is not needed to know that.
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    window: Window,
    /// No look at the condition up to here.
    checked: Option<Instant>,
}

#[derive(Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant },
    Recovering { since: Instant, passed: u32, refused: u32 },
}

impl Breaker {
    /// A closed breaker that opens as soon as the condition holds.
    pub(super) fn new(
        condition: Expression<Condition>,
        times: Times,
        by_latency: bool,
        router: String,
        name: String,
    ) -> Self {
        Self {
            condition,
            times,
            router,
            name,
            start: Instant::now(),
            closed: AtomicBool::new(true),
            inner: Mutex::new(Inner {
                state: State::Closed,
                window: Window::new(by_latency),
                checked: None,
            }),
        }
    }

    /// Whether a request passes that comes now.
    pub(super) fn admits(&self) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return true;
        }
        let now = Instant::now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open { until } = inner.state
            && now >= until
        {
            inner.state = State::Recovering { since: now, passed: 0, refused: 0 };
            self.tell_recovering();
        }
        match &mut inner.state {
            State::Closed => true,
            State::Open { .. } => false,
            State::Recovering { since, passed, refused } => {
                let elapsed = now.duration_since(*since);
                if elapsed > self.times.recovery {
                    inner.state = State::Closed;
                    self.closed.store(true, Ordering::Relaxed);
                    drop(inner);
                    self.tell_closed();
                    return true;
                }
                let share = 0.5 * elapsed.as_secs_f64() / self.times.recovery.as_secs_f64();
                let with_this = f64::from(*passed) + 1.0;
                let passes = with_this / (with_this + f64::from(*refused)) < share;
                let count = if passes { passed } else { refused };
                *count = count.saturating_add(1);
                passes
            }
        }
    }

    /// Takes note of a request that has ended, and opens the breaker if that is one too many.
    pub(super) fn note(&self, status: u16, latency: Duration) {
        let now = Instant::now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { state, window, checked } = &mut *inner;
        window.note(now.duration_since(self.start), status, latency);
        if checked.is_some_and(|checked| now <= checked) {
            return;
        }
        *checked = Some(now + self.times.check);
        if matches!(state, State::Open { .. })
            || !self.condition.holds(&mut |condition| condition.holds(window))
        {
            return;
        }
        *state = State::Open { until: now + self.times.open };
        window.clear();
        self.closed.store(false, Ordering::Relaxed);
        drop(inner);
        self.tell_open();
    }

    fn tell_open(&self) {
        tracing::warn!(
            routerName = self.router,
            middlewareName = self.name,
            "the circuit breaker is open"
        );
    }

    fn tell_recovering(&self) {
        tracing::info!(
            routerName = self.router,
            middlewareName = self.name,
            "the circuit breaker lets requests through again, a few at first"
        );
    }

    fn tell_closed(&self) {
        tracing::info!(
            routerName = self.router,
            middlewareName = self.name,
            "the circuit breaker is closed again"
        );
    }
}
