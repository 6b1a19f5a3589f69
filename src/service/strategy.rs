//! How a balancer picks: earliest deadline first by weight, or the less busy of two at random.
//!
//! A pick allocates nothing, never waits and always ends: whoever may not be picked is passed over
//! in one walk over the list, so no combination of weights and failures can make it loop.

use std::hash::{BuildHasher, RandomState};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// Weighted round robin: out of as many picks as the weights add up to, each gets its weight.
///
/// Deadlines are fractions of whole numbers, so that shares are exact and do not drift as sums of
/// floating-point numbers do.
pub(super) struct Edf {
    weights: Box<[u64]>,
    schedule: Mutex<Schedule>,
}

struct Schedule {
    /// Deadline of each, in units of one by its weight.
    due: Box<[u128]>,
    /// Deadline of the last pick as a fraction, less than one.
    clock: (u128, u128),
}

impl Edf {
    /// A schedule for these weights. Zero is never picked.
    pub(super) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let weights: Box<[u64]> = weights.collect();
        let due = weights.iter().map(|_| 1).collect();
        Self { weights, schedule: Mutex::new(Schedule { due, clock: (0, 1) }) }
    }

    /// Picks the one with the earliest deadline that is `available`; the first of equals.
    pub(super) fn pick(&self, available: impl Fn(usize) -> bool) -> Option<usize> {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let Schedule { due, clock } = &mut *schedule;
        let mut best: Option<(usize, u128, u128)> = None;
        for (at, (due, &weight)) in due.iter_mut().zip(&self.weights).enumerate() {
            if weight == 0 || !available(at) {
                continue;
            }
            let weight = u128::from(weight);
            if *due * clock.1 < clock.0 * weight {
                // It was not available for a while: what it missed is not made up for.
                *due = (clock.0 * weight).div_ceil(clock.1);
            }
            if best.is_none_or(|(_, due_of_best, of_best)| *due * of_best < due_of_best * weight) {
                best = Some((at, *due, weight));
            }
        }
        let (picked, deadline, weight) = best?;
        *clock = (deadline, weight);
        if let Some(due) = due.get_mut(picked) {
            *due += 1;
        }
        // Whole rounds are taken off everywhere, so that the numbers stay small for ever.
        let rounds = deadline / weight;
        if rounds > 0 {
            clock.0 -= rounds * weight;
            for (due, &weight) in due.iter_mut().zip(&self.weights) {
                *due = due.saturating_sub(rounds * u128::from(weight));
            }
        }
        Some(picked)
    }
}

/// Power of two choices: of two at random, the one with fewer requests in flight.
pub(super) struct P2c {
    random: AtomicU64,
}

impl P2c {
    /// With its own source of chance.
    pub(super) fn new() -> Self {
        Self { random: AtomicU64::new(RandomState::new().hash_one("p2c")) }
    }

    /// Picks among `0..count`.
    pub(super) fn pick(
        &self,
        count: usize,
        available: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        // Two out of an unknown number in one walk (reservoir sampling): health is read once.
        let mut chosen: [Option<usize>; 2] = [None, None];
        let mut seen = 0;
        for at in (0..count).filter(|&at| available(at)) {
            seen += 1;
            let place = if seen <= 2 { seen - 1 } else { self.below(seen) };
            if let Some(place) = chosen.get_mut(place) {
                *place = Some(at);
            }
        }
        match chosen {
            [Some(one), Some(other)] => {
                let (one_has, other_has) = (in_flight(one), in_flight(other));
                let first = one_has < other_has || one_has == other_has && self.below(2) == 0;
                Some(if first { one } else { other })
            }
            [only, _] => only,
        }
    }

    /// A number below `limit`, by SplitMix64: good enough to spread load, and nothing to lock.
    fn below(&self, limit: usize) -> usize {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let scaled = (u128::from(mixed) * limit as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(edf: &Edf, count: usize, available: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..count).filter_map(|_| edf.pick(&available)).collect()
    }

    fn shares(picks: &[usize], of: usize) -> Vec<u64> {
        (0..of).map(|at| picks.iter().filter(|&&pick| pick == at).count() as u64).collect()
    }

    #[test]
    fn three_to_one_in_every_four() {
        let edf = Edf::new([3, 1].into_iter());
        for _ in 0..1000 {
            assert_eq!(shares(&picks(&edf, 4, |_| true), 2), [3, 1]);
        }
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        let edf = Edf::new([1, 1, 1].into_iter());
        assert_eq!(picks(&edf, 7, |_| true), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn nothing_to_pick_is_an_answer_and_not_a_loop() {
        let edf = Edf::new([0, 1].into_iter());
        assert_eq!(edf.pick(|at| at == 0), None);
        assert_eq!(edf.pick(|at| at == 1), Some(1));
        assert_eq!(Edf::new(std::iter::empty()).pick(|_| true), None);
    }

    #[test]
    fn who_comes_back_gets_a_fair_share_and_no_flood() {
        let edf = Edf::new([1, 1].into_iter());
        assert_eq!(picks(&edf, 1000, |at| at == 0).len(), 1000);
        assert_eq!(shares(&picks(&edf, 10, |_| true), 2), [5, 5]);
    }

    #[test]
    fn huge_weights_do_not_overflow() {
        let most = u64::try_from(i64::MAX).unwrap();
        let edf = Edf::new([most, 1, most].into_iter());
        let picked = picks(&edf, 1000, |_| true);
        assert_eq!(shares(&picked, 3), [500, 0, 500]);
        assert_eq!(picks(&edf, 100, |at| at == 1).len(), 100);
        assert_eq!(shares(&picks(&edf, 1000, |_| true), 3)[1], 0);
    }

    proptest! {
        #[test]
        fn shares_equal_weights_over_full_cycles(
            servers in prop::collection::vec((0_u64..20, any::<bool>()), 1..8),
            warm_up in 0_usize..40,
            cycles in 1_usize..4,
        ) {
            let weights: Vec<u64> = servers.iter().map(|(weight, _)| *weight).collect();
            let live: Vec<u64> =
                servers.iter().map(|(weight, up)| if *up { *weight } else { 0 }).collect();
            let cycle = usize::try_from(live.iter().sum::<u64>()).unwrap();
            let edf = Edf::new(weights.iter().copied());
            // Any history in front of it, with everybody up, must not matter.
            picks(&edf, warm_up * usize::try_from(weights.iter().sum::<u64>()).unwrap(), |_| true);
            let picked = picks(&edf, cycle * cycles, |at| servers[at].1);
            let want: Vec<u64> = live.iter().map(|weight| weight * cycles as u64).collect();
            prop_assert_eq!(shares(&picked, weights.len()), want);
        }

        #[test]
        fn down_servers_do_not_bend_the_shares_of_the_others(
            weights in prop::collection::vec(1_u64..20, 2..8),
            outages in prop::collection::vec((0_usize..8, 1_usize..50), 0..5),
        ) {
            let edf = Edf::new(weights.iter().copied());
            for (down, requests) in outages {
                prop_assert_eq!(picks(&edf, requests, |at| at != down).len(), requests);
            }
            let total = usize::try_from(weights.iter().sum::<u64>()).unwrap();
            picks(&edf, total, |_| true);
            prop_assert_eq!(shares(&picks(&edf, total, |_| true), weights.len()), weights);
        }
    }

    #[test]
    fn the_less_busy_of_two_wins() {
        let p2c = P2c::new();
        let busy = [3, 0];
        for _ in 0..100 {
            assert_eq!(p2c.pick(2, |_| true, |at| busy[at]), Some(1));
        }
    }

    #[test]
    fn chance_reaches_everybody_that_is_available() {
        let p2c = P2c::new();
        let picked: Vec<usize> =
            (0..4000).filter_map(|_| p2c.pick(5, |at| at != 2, |_| 0)).collect();
        let shares = shares(&picked, 5);
        assert_eq!(shares[2], 0);
        for at in [0, 1, 3, 4] {
            assert!((800..1200).contains(&shares[at]), "{shares:?}");
        }
        assert_eq!(p2c.pick(3, |at| at == 1, |_| 9), Some(1));
        assert_eq!(p2c.pick(3, |_| false, |_| 0), None);
    }
}
