//! Failed authentications: counted, and a source that fails too often is told to wait for a while.
//! Only who is wrong again is: what is right is let in whoever shares the address, so a token that
//! nobody could guess is still what protects.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Place;

/// Failures of one source within [`WINDOW`] after which it has to wait.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Sources that are remembered; the one whose window began first goes for a new one.
const SOURCES: usize = 1024;

/// An address, or its /64; or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Ip(IpAddr),
    User(u32),
}

/// See the module.
#[derive(Default)]
pub(super) struct Failures {
    total: Arc<AtomicU64>,
    recent: Mutex<HashMap<Source, (u32, Instant)>>,
}

impl Failures {
    /// Failures so far.
    pub(super) fn total(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.total)
    }

    /// How long this source has to wait, if it has.
    pub(super) fn wait(&self, from: Place) -> Option<Duration> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, began) = recent.get(&source(from))?;
        let left = WINDOW.checked_sub(began.elapsed())?;
        (*count >= MOST && !left.is_zero()).then_some(left)
    }

    /// Somebody has shown nothing, which is no guess, or has to wait already.
    pub(super) fn nothing(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody has shown something wrong; returns whether he has to wait from now on.
    pub(super) fn wrong(&self, from: Place) -> bool {
        self.total.fetch_add(1, Ordering::Relaxed);
        let source = source(from);
        let now = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= SOURCES && !recent.contains_key(&source) {
            recent.retain(|_, (_, began)| began.elapsed() < WINDOW);
            let oldest = recent.iter().min_by_key(|(_, (_, began))| *began);
            let oldest = oldest.map(|(source, _)| *source).filter(|_| recent.len() >= SOURCES);
            if let Some(oldest) = oldest {
                recent.remove(&oldest);
            }
        }
        let (count, began) = recent.entry(source).or_insert((0, now));
        if began.elapsed() >= WINDOW {
            (*count, *began) = (0, now);
        }
        *count += 1;
        *count == MOST
    }
}

fn source(from: Place) -> Source {
    match from {
        Place::User(user) => Source::User(user),
        Place::Address(address) => Source::Ip(match address.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
            ip @ IpAddr::V4(_) => ip,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Place {
        Place::Address(address.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_too_often_waits() {
        let failures = Failures::default();
        let one = at("[2001:db8::1]:1");
        for count in 1..=MOST {
            assert_eq!(failures.wait(one), None);
            assert_eq!(failures.wrong(one), count == MOST);
        }
        assert_eq!(failures.wait(at("[2001:db8::2]:9")), Some(WINDOW));
        assert_eq!(failures.wait(at("[2001:db8:1::1]:1")), None);
        assert_eq!(failures.wait(Place::User(0)), None);
        failures.nothing();
        tokio::time::advance(WINDOW).await;
        assert_eq!(failures.wait(one), None);
        assert!(!failures.wrong(one));
        assert_eq!(failures.total().load(Ordering::Relaxed), u64::from(MOST) + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_sources_are_not_remembered() {
        let failures = Failures::default();
        for user in 0..5000 {
            failures.wrong(Place::User(user));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(failures.recent.lock().unwrap().len(), SOURCES);
    }
}
