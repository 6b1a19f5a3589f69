//! How much of their load services get a second time: `retry.budget`.
//!
//! A service that fails as a whole must not get a multiple of its requests because of it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::middleware::BuildContext;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::values::BuildError;

/// `budget`: how many requests of a service may be sent again within ten seconds. Routers and
/// middlewares whose budgets say the same share them, service by service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBudgetConfig {
    /// Of a hundred requests of the service, 0 to 100. Default: 20.
    pub percent: i64,
    /// Besides these, for each of the ten seconds. Default: 10.
    pub min_per_second: i64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

impl RetryBudgetConfig {
    /// The budgets of all services, as the running table knows them.
    pub(super) fn build(&self, cx: &BuildContext<'_>) -> Result<Arc<ServiceBudgets>, BuildError> {
        let Self { percent, min_per_second } = *self;
        let per_hundred = u64::try_from(percent).ok().filter(|&percent| percent <= 100);
        let per_hundred = per_hundred.ok_or_else(|| {
            let message = format!("`percent` is {percent}: it must be 0 to 100");
            BuildError::at("budget.percent", message)
        })?;
        let per_second = u32::try_from(min_per_second).map_err(|_| {
            let message =
                format!("`minPerSecond` is {min_per_second}: it must be 0 to {}", u32::MAX);
            BuildError::at("budget.minPerSecond", message)
        })?;
        if percent == 0 && min_per_second == 0 {
            let message = "nothing is ever sent again: `percent` and `minPerSecond` are 0";
            return Err(BuildError::at("budget", message));
        }
        let key = format!("retry.budget {per_hundred} {per_second}");
        Ok(cx.state.carry_over(&key, || ServiceBudgets::new(per_hundred, per_second.into())))
    }
}

/// What each service may be sent again.
pub(super) struct ServiceBudgets {
    percent: u64,
    per_second: u64,
    start: Instant,
    services: Mutex<Services>,
}

#[derive(Default)]
struct Services {
    windows: HashMap<Box<str>, Window>,
    /// How many there may be before idle ones are looked for.
    enough: usize,
}

const SECONDS: usize = 10;

/// The last ten seconds of a service, each with its requests and retries.
#[derive(Default)]
struct Window {
    seconds: [(u64, u64); SECONDS],
    /// Of which second the last count is.
    last: u64,
}

impl Window {
    fn current(&mut self, now: u64) -> Option<&mut (u64, u64)> {
        let gone = now.saturating_sub(self.last).min(SECONDS as u64);
        for second in (0..gone).map(|back| now - back) {
            if let Some(old) = self.seconds.get_mut(place(second)) {
                *old = (0, 0);
            }
        }
        self.last = self.last.max(now);
        self.seconds.get_mut(place(self.last))
    }

    fn sum(&self) -> (u64, u64) {
        self.seconds
            .iter()
            .fold((0, 0), |(requests, retries), of| (requests + of.0, retries + of.1))
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

impl ServiceBudgets {
    fn new(percent: u64, per_second: u64) -> Self {
        Self { percent, per_second, start: Instant::now(), services: Mutex::default() }
    }

    /// Takes note of a request that a service got.
    pub(super) fn count(&self, service: &str) {
        self.with(service, |window, now| {
            if let Some((requests, _)) = window.current(now) {
                *requests += 1;
            }
        });
    }

    /// Whether a request of this service may be sent again, which it is then.
    pub(super) fn spend(&self, service: &str) -> bool {
        self.with(service, |window, now| {
            window.current(now);
            let (requests, retries) = window.sum();
            let earned = requests * self.percent + self.per_second * SECONDS as u64 * 100;
            let allowed = (retries + 1) * 100 <= earned;
            if let (true, Some((_, retries))) = (allowed, window.current(now)) {
                *retries += 1;
            }
            allowed
        })
    }

    fn with<T>(&self, service: &str, look: impl FnOnce(&mut Window, u64) -> T) -> T {
        let now = self.start.elapsed().as_secs();
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let Services { windows, enough } = &mut *services;
        if let Some(window) = windows.get_mut(service) {
            return look(window, now);
        }
        if windows.len() >= *enough {
            windows.retain(|_, window| now.saturating_sub(window.last) < SECONDS as u64);
            *enough = (windows.len() * 2).max(64);
        }
        look(windows.entry(service.into()).or_default(), now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spends(budgets: &ServiceBudgets, service: &str) -> usize {
        (0..1000).take_while(|_| budgets.spend(service)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn each_service_has_its_share_of_the_last_ten_seconds() {
        let budgets = ServiceBudgets::new(20, 1);
        assert_eq!(spends(&budgets, "a"), 10, "a reserve");
        for _ in 0..100 {
            budgets.count("a");
        }
        assert_eq!(spends(&budgets, "a"), 20);
        assert_eq!(spends(&budgets, "b"), 10);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(spends(&budgets, "a"), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(spends(&budgets, "a"), 10);
        tokio::time::advance(Duration::from_secs(5)).await;
        for _ in 0..5 {
            budgets.count("a");
        }
        assert_eq!(spends(&budgets, "a"), 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(spends(&budgets, "a"), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_are_gone_are_forgotten() {
        let budgets = ServiceBudgets::new(100, 0);
        for number in 0..1000 {
            budgets.count(&format!("service-{number}"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let known = budgets.services.lock().unwrap().windows.len();
        assert!(known <= 64, "{known}");
        assert!(budgets.spend("service-999") && !budgets.spend("service-1"));
    }
}
