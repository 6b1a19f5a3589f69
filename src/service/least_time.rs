//! Least time: the server whose answers begin soonest, weighed by what it has to do and its weight.
//!
//! Times are whole milliseconds, as in Traefik: quicker servers are equals and take turns. But who
//! does not answer at all is not the quickest one: such a server is tried once in a while only. That it
//! cannot serve counts when it is said again and again, or a client could take it out by a URL that fails.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::strategy::Edf;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};

/// How many answers of a server are remembered.
const SAMPLES: usize = 100;

/// A server that failed gets one request in this time, until it answers.
const TRIED_EACH: Duration = Duration::from_secs(10);

/// So many answers in a row that it cannot serve are taken for those of the server, and not of a URL.
const REFUSALS: u32 = 3;

/// What a server said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer.
    Answer,
    /// That it cannot serve, or nothing that makes sense in time.
    Refusal,
    /// It cannot be reached, or closes the connection.
    Nothing,
}

/// How long one server takes until its answers begin, on average.
pub(super) struct Times {
    epoch: Instant,
    /// When the server may be tried again, in milliseconds after `epoch`; zero when it did not fail.
    next_try: AtomicU64,
    /// Refusals in a row, up to [`REFUSALS`].
    refusals: AtomicU32,
    /// In milliseconds, as the bits of a float; zero before the first answer.
    average: AtomicU64,
    samples: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    /// Milliseconds, in a ring once it is full.
    ring: Vec<u64>,
    next: usize,
    sum: u64,
}

impl Times {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            next_try: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            average: AtomicU64::new(0),
            samples: Mutex::default(),
        }
    }

    /// Takes note of what the server said to a request.
    pub(super) fn heard(&self, heard: Heard) {
        match heard {
            Heard::Nothing => self.try_later(),
            Heard::Refusal => {
                let count = |before: u32| (before < REFUSALS).then_some(before + 1);
                let before =
                    self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
                if before.is_ok_and(|before| before + 1 < REFUSALS) && !self.has_failed() {
                    return;
                }
                self.try_later();
            }
            // Mostly there is nothing to forget, and nothing is written.
            Heard::Answer => {
                if self.refusals.load(Ordering::Relaxed) != 0 {
                    self.refusals.store(0, Ordering::Relaxed);
                }
                if self.has_failed() {
                    self.next_try.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.next_try.load(Ordering::Relaxed) != 0
    }

    fn try_later(&self) {
        self.next_try.store(self.now() + millis(TRIED_EACH), Ordering::Relaxed);
    }

    fn may_be_tried(&self) -> bool {
        match self.next_try.load(Ordering::Relaxed) {
            0 => true,
            at => at <= self.now(),
        }
    }

    /// Whether a request goes to it: when it has failed, one of those that come at the same time.
    fn claim(&self) -> bool {
        match self.next_try.load(Ordering::Relaxed) {
            0 => true,
            at => {
                let now = self.now();
                let next = now + millis(TRIED_EACH);
                let relaxed = Ordering::Relaxed;
                at <= now && self.next_try.compare_exchange(at, next, relaxed, relaxed).is_ok()
            }
        }
    }

    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    /// Takes note of one answer that began after `time`.
    pub(super) fn note(&self, time: Duration) {
        let time = millis(time);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let next = samples.next;
        let old = if let Some(place) = samples.ring.get_mut(next) {
            std::mem::replace(place, time)
        } else {
            samples.ring.push(time);
            0
        };
        samples.next = (next + 1) % SAMPLES;
        samples.sum = samples.sum - old + time;
        let average = float(samples.sum) / float(samples.ring.len() as u64);
        self.average.store(average.to_bits(), Ordering::Relaxed);
    }

    fn average(&self) -> f64 {
        f64::from_bits(self.average.load(Ordering::Relaxed))
    }
}

/// No time that matters is longer, and no sum of them overflows.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(1 << 40)
}

/// The choice among the servers of one service.
pub(super) struct LeastTime {
    servers: Box<[(Arc<Times>, u64)]>,
    /// Whose turn it is among equals.
    turns: Arc<Edf>,
    /// As in Traefik, who fails is taken for quick.
    exact: bool,
}

impl LeastTime {
    /// A choice among servers with these times and weights; `turns` has the same weights.
    pub(super) fn new(
        servers: impl Iterator<Item = (Arc<Times>, u64)>,
        turns: Arc<Edf>,
        exact: bool,
    ) -> Self {
        Self { servers: servers.collect(), turns, exact }
    }

    /// Picks the `available` server with the lowest score of those that did not just fail.
    pub(super) fn pick(
        &self,
        available: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        if self.exact {
            return self.quickest(available, in_flight);
        }
        let may_be_tried = |at| self.times(at).is_some_and(Times::may_be_tried);
        // Each turn but the last is lost to somebody who tries a server at this very moment.
        for _ in 0..=self.servers.len() {
            let picked = self.quickest(|at| may_be_tried(at) && available(at), &in_flight);
            let Some(picked) = picked else { break };
            // This request tries it, and the next ones wait for what comes of it.
            if self.times(picked).is_none_or(Times::claim) {
                return Some(picked);
            }
        }
        // All of them fail: no score says anything.
        self.turns.pick(available)
    }

    fn quickest(
        &self,
        available: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        // Looked at once: what changes meanwhile is for the next request.
        let scores: SmallVec<[f64; 16]> = self
            .servers
            .iter()
            .enumerate()
            .map(|(at, (times, weight))| {
                if *weight == 0 || !available(at) {
                    return f64::INFINITY;
                }
                times.average() * (1.0 + float(in_flight(at) as u64)) / float(*weight)
            })
            .collect();
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        if lowest.is_infinite() {
            return None;
        }
        self.turns.pick(|at| scores.get(at).is_some_and(|score| *score <= lowest))
    }

    /// The times of one server.
    pub(super) fn times(&self, at: usize) -> Option<&Times> {
        self.servers.get(at).map(|(times, _)| &**times)
    }
}

#[expect(clippy::cast_precision_loss, reason = "scores only have to be compared")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(servers: &[(u64, u64)]) -> LeastTime {
        let servers: Vec<(Arc<Times>, u64)> = servers
            .iter()
            .map(|&(millis, weight)| {
                let times = Times::new();
                if millis > 0 {
                    times.note(Duration::from_millis(millis));
                }
                (Arc::new(times), weight)
            })
            .collect();
        let turns = Arc::new(Edf::new(servers.iter().map(|(_, weight)| *weight)));
        LeastTime::new(servers.into_iter(), turns, false)
    }

    fn picks(choice: &LeastTime, count: usize, in_flight: &[usize]) -> Vec<usize> {
        (0..count).map(|_| choice.pick(|_| true, |at| in_flight[at]).unwrap()).collect()
    }

    /// RP-5.3
    #[test]
    fn the_lowest_score_wins() {
        assert_eq!(picks(&choice(&[(30, 1), (10, 1), (20, 1)]), 2, &[0; 3]), [1, 1]);
        // 10 ms and two requests on their way are 30, against 20.
        assert_eq!(picks(&choice(&[(10, 1), (20, 1)]), 1, &[2, 0]), [1]);
        // A weight divides: 30 / 4 against 10.
        assert_eq!(picks(&choice(&[(30, 4), (10, 1)]), 1, &[0; 2]), [0]);
        // Who has not answered yet is tried.
        assert_eq!(picks(&choice(&[(1, 1), (0, 1)]), 1, &[0, 9]), [1]);
    }

    #[test]
    fn equals_take_turns_by_weight() {
        let picked = picks(&choice(&[(0, 3), (0, 1)]), 8, &[0; 2]);
        assert_eq!(picked.iter().filter(|&&at| at == 0).count(), 6);
        let picked = picks(&choice(&[(20, 1), (10, 1), (10, 1)]), 4, &[0; 3]);
        assert_eq!(picked.iter().filter(|&&at| at == 1).count(), 2, "{picked:?}");
        assert!(!picked.contains(&0));
    }

    #[test]
    fn who_may_not_be_picked_is_not() {
        let some = choice(&[(10, 1), (20, 1), (1, 0)]);
        assert_eq!(some.pick(|at| at != 0, |_| 0), Some(1));
        assert_eq!(some.pick(|at| at == 2, |_| 0), None);
        assert_eq!(choice(&[]).pick(|_| true, |_| 0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_is_not_taken_for_quick() {
        let dead = choice(&[(0, 1), (20, 1)]);
        assert_eq!(picks(&dead, 1, &[0; 2]), [0]);
        dead.times(0).unwrap().heard(Heard::Nothing);
        assert_eq!(picks(&dead, 3, &[0; 2]), [1; 3]);
        for _ in 0..2 {
            tokio::time::advance(TRIED_EACH).await;
            assert_eq!(picks(&dead, 3, &[0; 2]), [0, 1, 1], "one request tries it");
        }
        dead.times(0).unwrap().heard(Heard::Answer);
        assert_eq!(picks(&dead, 2, &[0; 2]), [0; 2]);
        // When all fail, they take turns.
        for at in 0..2 {
            dead.times(at).unwrap().heard(Heard::Nothing);
        }
        let mut picked = picks(&dead, 4, &[0; 2]);
        picked.sort_unstable();
        assert_eq!(picked, [0, 0, 1, 1]);
        assert_eq!(dead.pick(|_| false, |_| 0), None);
        // Traefik asks the dead one for ever.
        let exact = LeastTime { exact: true, ..dead };
        assert_eq!(picks(&exact, 3, &[0; 2]), [0; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_that_fails_does_not_take_its_server_out() {
        let some = choice(&[(0, 1), (20, 1)]);
        let first = || some.times(0).unwrap();
        for _ in 0..20 {
            for heard in [Heard::Refusal, Heard::Refusal, Heard::Answer] {
                first().heard(heard);
                assert_eq!(picks(&some, 1, &[0; 2]), [0]);
            }
        }
        for want in [0, 0, 1, 1] {
            first().heard(Heard::Refusal);
            assert_eq!(picks(&some, 1, &[0; 2]), [want]);
        }
        // What it says to the one that tries it counts at once.
        tokio::time::advance(TRIED_EACH).await;
        assert_eq!(picks(&some, 1, &[0; 2]), [0]);
        first().heard(Heard::Refusal);
        tokio::time::advance(TRIED_EACH / 2).await;
        assert_eq!(picks(&some, 1, &[0; 2]), [1]);
        tokio::time::advance(TRIED_EACH / 2).await;
        first().heard(Heard::Answer);
        first().heard(Heard::Refusal);
        assert_eq!(picks(&some, 2, &[0; 2]), [0; 2], "it counts anew");
        // The same if it was dead before.
        first().heard(Heard::Nothing);
        first().heard(Heard::Refusal);
        assert_eq!(picks(&some, 2, &[0; 2]), [1; 2]);
    }

    #[test]
    fn a_hundred_answers_are_remembered() {
        let times = Times::new();
        assert!(times.average() < f64::EPSILON);
        for _ in 0..SAMPLES {
            times.note(Duration::from_millis(100));
        }
        for _ in 0..SAMPLES / 2 {
            times.note(Duration::from_micros(200_900));
        }
        assert!((times.average() - 150.0).abs() < f64::EPSILON);
        for _ in 0..SAMPLES {
            times.note(Duration::from_micros(900));
        }
        assert!(times.average() < f64::EPSILON, "less than a millisecond is none");
        times.note(Duration::MAX);
        assert!(times.average().is_finite());
    }
}
