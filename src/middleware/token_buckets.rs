//! Token buckets, one per source, that decide as the limiter of Go's `x/time/rate` does.
//!
//! A bucket is one moment: when it will be full again. A bucket that is full is forgotten, which
//! loses nothing. When there is no room for a new source, an eighth of the buckets of its shard
//! goes, those with the fewest requests first, of equals the fullest: they start with a full
//! bucket when they come again. Refused requests count, so that who runs against the limit is not
//! let in by a flood of others: nobody can aim at a shard, and 57,000 of them would have to ask as
//! often.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use hashbrown::HashTable;
use tokio::time::Instant;

use super::rate_limit::Left;
use super::source::Source;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes.
    Now,
    /// It passes after this time; its token is taken.
    After(Duration),
    /// It would have to wait this long, which is too long. No token is taken.
    Refused(Duration),
}

/// What became of a request, and of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// What becomes of the request.
    pub(super) verdict: Verdict,
    /// Cells that are left.
    cells: u32,
}

/// The buckets of one limiter.
pub(super) struct Buckets {
    limiter: RateLimiter<Source, Shards, SinceStart, StateInformationMiddleware>,
    shards: Shards,
    /// Cells that make one token: governor counts in whole cells, and a finer count makes waiting
    /// times exact.
    token: NonZeroU32,
    /// Time in which one cell comes back.
    cell: Duration,
    /// Cells that a bucket may be overdrawn by, which is what waiting means.
    slack: u32,
    next_sweep: AtomicU64,
    sweeps: AtomicUsize,
}

impl Buckets {
    /// Buckets of `burst` tokens, of which one comes back each `interval`. Nobody waits longer
    /// than `max_delay`.
    pub(super) fn new(interval: Duration, burst: u32, max_delay: Duration) -> Self {
        // Rounding a cell of ten microseconds to nanoseconds changes the rate by less than 1e-4.
        let interval = interval.clamp(Duration::from_nanos(1), LONGEST);
        let token = u32::try_from((interval.as_micros() / 10).clamp(1, 1000)).unwrap_or(1000);
        let cell = ((interval + Duration::from_nanos(u64::from(token) / 2)) / token)
            .max(Duration::from_nanos(1));
        let slack = max_delay.as_nanos() / cell.as_nanos().max(1);
        let slack = u32::try_from(slack).unwrap_or(u32::MAX / 4).min(u32::MAX / 4);
        // Times are u64 nanoseconds, so a bucket must fill in less than a lifetime.
        let most = LONGEST.as_nanos() / interval.as_nanos().max(1);
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(u32::MAX / 2 / token).max(1);
        let token = NonZeroU32::new(token).unwrap_or(NonZeroU32::MIN);
        let cells = NonZeroU32::new(burst.clamp(1, most)).unwrap_or(NonZeroU32::MIN);
        let capacity = cells.saturating_mul(token).saturating_add(slack);
        let quota = Quota::with_period(cell)
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(capacity);
        let shards = Shards::default();
        let clock = SinceStart { start: Instant::now() };
        Self {
            limiter: RateLimiter::<_, _, _, NoOpMiddleware<Duration>>::new(
                quota,
                shards.clone(),
                clock,
            )
            .with_middleware(),
            shards,
            token,
            cell,
            slack,
            next_sweep: AtomicU64::new(0),
            sweeps: AtomicUsize::new(0),
        }
    }

    /// Takes a token of this source.
    pub(super) fn take(&self, source: Source) -> Taken {
        let now = self.limiter.clock().now();
        self.sweep(now);
        let (verdict, cells) = match self.limiter.check_key_n(&source, self.token) {
            Ok(Ok(state)) => {
                let cells = state.remaining_burst_capacity();
                match self.slack.saturating_sub(cells) {
                    0 => (Verdict::Now, cells),
                    overdrawn => (Verdict::After(self.cell * overdrawn), cells),
                }
            }
            Ok(Err(refusal)) => {
                (Verdict::Refused(refusal.wait_time_from(now) + self.cell * self.slack), 0)
            }
            // Never: a bucket holds at least one token.
            Err(_) => (Verdict::Refused(self.cell * self.token.get()), 0),
        };
        Taken { verdict, cells }
    }

    /// What is left in the bucket that a token was taken of, when the wait is over.
    pub(super) fn left(&self, taken: &Taken) -> Left {
        if let Verdict::Refused(wait) = taken.verdict {
            return Left { requests: 0, next: wait };
        }
        let spare = taken.cells.saturating_sub(self.slack);
        let begun = spare % self.token;
        Left {
            requests: u64::from(spare / self.token),
            next: self.cell * (self.token.get() - begun),
        }
    }

    /// Forgets full buckets, one shard at a time: all of them about each minute.
    fn sweep(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(SWEEP_EACH_SHARD_NANOS);
        if now >= due
            && self
                .next_sweep
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let turn = self.sweeps.fetch_add(1, Ordering::Relaxed);
            self.shards.sweep(turn % SHARDS, Nanos::from(now));
        }
    }

    /// How many buckets are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.parts.tables.iter().map(|table| table.lock().unwrap().len()).sum()
    }
}

/// As many sources as Traefik remembers.
const CAPACITY: usize = 65_536;
const SHARDS: usize = 16;
const SWEEP_EACH_SHARD_NANOS: u64 = 60_000_000_000 / SHARDS as u64;
/// About 30 years.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// tokio's clock, so that tests can turn it.
struct SinceStart {
    start: Instant,
}

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

#[derive(Clone, Default)]
struct Shards {
    parts: Arc<Parts>,
}

#[derive(Default)]
struct Parts {
    hasher: RandomState,
    tables: [Mutex<Table>; SHARDS],
}

/// A source is hashed once, for its shard and for its place there.
type Table = HashTable<(Source, Bucket)>;

/// When it is full again, and above that how often it was asked since it is known, up to 15: those
/// that come first in order are forgotten first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket(u64);

impl Bucket {
    const ASKED: u64 = 1 << 60;
    const FULL_AT: u64 = Self::ASKED - 1;

    fn new(full_at: Nanos) -> Self {
        Self(Self::ASKED | full_at.as_u64().min(Self::FULL_AT))
    }

    fn full_at(self) -> Nanos {
        Nanos::from(self.0 & Self::FULL_AT)
    }

    /// Once more.
    fn asked(&mut self) {
        self.0 = self.0.checked_add(Self::ASKED).unwrap_or(self.0);
    }

    fn fill_at(&mut self, full_at: Nanos) {
        self.0 = (self.0 & !Self::FULL_AT) | full_at.as_u64().min(Self::FULL_AT);
    }
}

impl Shards {
    fn sweep(&self, shard: usize, now: Nanos) {
        if let Some(table) = self.parts.tables.get(shard) {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.retain(|(_, bucket)| bucket.full_at() > now);
            if table.len() < table.capacity() / 4 {
                table.shrink_to_fit(|(source, _)| self.parts.hasher.hash_one(source));
            }
        }
    }
}

impl StateStore for Shards {
    type Key = Source;

    fn measure_and_replace<T, F, E>(&self, key: &Source, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.parts.hasher.hash_one(key);
        // The table looks at the lowest bits, and at the highest.
        let shard = usize::try_from(hash >> 32).unwrap_or_default();
        let Some(table) = self.parts.tables.get(shard % SHARDS) else {
            return decide(None).map(|(outcome, _)| outcome);
        };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bucket)) = table.find_mut(hash, |(source, _)| source == key) {
            bucket.asked();
            let (outcome, next) = decide(Some(bucket.full_at()))?;
            bucket.fill_at(next);
            return Ok(outcome);
        }
        let (outcome, next) = decide(None)?;
        if table.len() >= CAPACITY / SHARDS {
            make_room(&mut table);
        }
        let hasher = |(source, _): &(Source, Bucket)| self.parts.hasher.hash_one(source);
        table.insert_unique(hash, (*key, Bucket::new(next)), hasher);
        Ok(outcome)
    }
}

/// Forgets the eighth of the buckets that comes first.
fn make_room(table: &mut Table) {
    let mut buckets: Vec<Bucket> = table.iter().map(|(_, bucket)| *bucket).collect();
    let surplus = buckets.len() / 8 + 1;
    if surplus >= buckets.len() {
        table.clear();
        return;
    }
    let (before, limit, _) = buckets.select_nth_unstable(surplus);
    let limit = *limit;
    // Of equals only as many as there must be.
    let mut equals = before.iter().filter(|&&bucket| bucket == limit).count();
    table.retain(|(_, bucket)| {
        if *bucket == limit && equals > 0 {
            equals -= 1;
            return false;
        }
        *bucket >= limit
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(number: u32) -> Source {
        Source::Ip(std::net::Ipv4Addr::from_bits(number).into())
    }

    /// `x/time/rate`: `ReserveN(now, 1)`, cancelled when its delay is too long.
    struct GoLimiter {
        per_second: f64,
        burst: f64,
        tokens: f64,
        last: f64,
    }

    impl GoLimiter {
        fn reserve(&mut self, now: f64, max_delay: f64) -> (bool, f64) {
            let tokens = (self.tokens + (now - self.last) * self.per_second).min(self.burst) - 1.0;
            let delay = (-tokens / self.per_second).max(0.0);
            if delay <= max_delay {
                (self.tokens, self.last) = (tokens, now);
            }
            (delay <= max_delay, delay)
        }
    }

    proptest! {
        #[test]
        fn buckets_decide_as_go_does(
            average in 1_u32..2000,
            period in prop_oneof![Just(1_u32), Just(10), Just(60)],
            burst in 1_u32..40,
            gaps in prop::collection::vec(0_u32..60_000, 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let interval = f64::from(period) / f64::from(average);
                let max_delay = if interval > 1.0 { 0.5 } else { 0.5 / (1.0 / interval).floor() };
                let buckets = Buckets::new(
                    Duration::from_secs_f64(interval),
                    burst,
                    Duration::from_secs_f64(max_delay),
                );
                let mut go = GoLimiter {
                    per_second: 1.0 / interval,
                    burst: f64::from(burst),
                    tokens: f64::from(burst),
                    last: 0.0,
                };
                let start = Instant::now();
                // A cell; what rounding does to the rate comes to it with time.
                let granularity = interval / 400.0 + 2e-5;
                for gap in gaps {
                    tokio::time::advance(Duration::from_micros(u64::from(gap))).await;
                    let before = (go.tokens, go.last);
                    let now = start.elapsed().as_secs_f64();
                    let tolerance = granularity + now * 1e-4;
                    let (passes, delay) = go.reserve(now, max_delay);
                    let verdict = buckets.take(ip(1)).verdict;
                    let ours = match verdict {
                        Verdict::Now => 0.0,
                        Verdict::After(wait) | Verdict::Refused(wait) => wait.as_secs_f64(),
                    };
                    let we_pass = !matches!(verdict, Verdict::Refused(_));
                    prop_assert!((ours - delay).abs() < tolerance, "{ours} {delay}");
                    if we_pass != passes {
                        // Only where the delay is the limit itself may rounding decide.
                        prop_assert!((delay - max_delay).abs() < tolerance, "{delay}");
                        (go.tokens, go.last) = before;
                        if we_pass {
                            go.reserve(now, f64::INFINITY);
                        }
                    }
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn extreme_settings_do_not_overflow() {
        for (interval, burst) in [
            (Duration::ZERO, u32::MAX),
            (Duration::from_nanos(1), 1),
            (Duration::MAX, u32::MAX),
            (Duration::from_hours(24), 1_000_000),
        ] {
            let buckets = Buckets::new(interval, burst, Duration::from_millis(500));
            assert_eq!(buckets.take(ip(1)).verdict, Verdict::Now, "{interval:?} {burst}");
            tokio::time::advance(Duration::from_hours(1)).await;
            assert_eq!(buckets.take(ip(2)).verdict, Verdict::Now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let buckets = Buckets::new(Duration::from_secs(1), 5, Duration::from_millis(500));
        for number in 0..1000 {
            buckets.take(ip(number));
        }
        assert_eq!(buckets.len(), 1000);
        for _ in 0..200 {
            tokio::time::advance(Duration::from_secs(1)).await;
            buckets.take(ip(0));
        }
        assert!(buckets.len() < 5, "{}", buckets.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_sources_does_not_free_the_one_that_used_most() {
        let buckets = Buckets::new(Duration::from_mins(1), 3, Duration::from_millis(500));
        for _ in 0..3 {
            assert_eq!(buckets.take(ip(0)).verdict, Verdict::Now);
        }
        for number in 1..100_000 {
            buckets.take(ip(number));
        }
        assert!(buckets.len() <= CAPACITY);
        assert!(matches!(buckets.take(ip(0)).verdict, Verdict::Refused(_)));
    }

    /// Also where each of the others is emptier, since it came later.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_sources_does_not_free_the_one_that_is_refused() {
        let buckets = Buckets::new(Duration::from_hours(1), 1, Duration::ZERO);
        assert_eq!(buckets.take(ip(0)).verdict, Verdict::Now);
        assert!(matches!(buckets.take(ip(0)).verdict, Verdict::Refused(_)));
        tokio::time::advance(Duration::from_millis(1)).await;
        for number in 1..100_000 {
            if number % 1000 == 0 {
                tokio::time::advance(Duration::from_micros(1)).await;
            }
            assert_eq!(buckets.take(ip(number)).verdict, Verdict::Now);
        }
        assert!(buckets.len() <= CAPACITY);
        assert!(matches!(buckets.take(ip(0)).verdict, Verdict::Refused(_)));
        // Whoever came once is forgotten, the first ones first.
        assert_eq!(buckets.take(ip(1)).verdict, Verdict::Now);
        assert!(matches!(buckets.take(ip(99_999)).verdict, Verdict::Refused(_)));
    }

    /// What it takes to push out one that asked five times: as much of tens of thousands.
    #[tokio::test(start_paused = true)]
    async fn who_asks_more_often_stays_longer() {
        let buckets = Buckets::new(Duration::from_hours(1), 1, Duration::ZERO);
        let often = |number, times| {
            for _ in 0..times {
                buckets.take(ip(number));
            }
        };
        often(0, 5);
        tokio::time::advance(Duration::from_millis(1)).await;
        for number in 1..70_000 {
            often(number, 3);
        }
        assert!(matches!(buckets.take(ip(0)).verdict, Verdict::Refused(_)));
        for number in 70_000..140_000 {
            often(number, 6);
        }
        assert!(buckets.len() <= CAPACITY);
        assert_eq!(buckets.take(ip(0)).verdict, Verdict::Now);
    }

    #[test]
    fn moments_and_counts_do_not_touch_each_other() {
        let mut bucket = Bucket::new(Nanos::from(u64::MAX));
        assert_eq!(bucket.full_at().as_u64(), (1 << 60) - 1);
        for _ in 0..100 {
            bucket.asked();
        }
        assert_eq!(bucket, Bucket(u64::MAX));
        bucket.fill_at(Nanos::from(7));
        assert_eq!((bucket.full_at().as_u64(), bucket.0 >> 60), (7, 15));
    }
}
