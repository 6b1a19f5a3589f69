//! The runs: how many requests, of which seed, and how one that fails is told.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::generate::{Case, Random, case};
use crate::inside::Inside;

/// Every run has this seed once, so that what is mended stays mended.
const FIXED: u64 = 0x0d00_12a2_d000_0001;

/// How many requests, and of which seeds.
fn plan(usual: usize) -> (usize, Vec<u64>) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let count =
        number("DOORWARD_DIFFERENTIAL").map_or(usual, |count| usize::try_from(count).unwrap());
    match number("DOORWARD_DIFFERENTIAL_SEED") {
        Some(seed) => (count, vec![seed]),
        None => (count / 2, vec![FIXED, RandomState::new().hash_one(0)]),
    }
}

/// Shortens `case` for as long as `fails` says that it still does.
fn shrink(mut case: Case, fails: impl Fn(&Case) -> bool) -> Case {
    let whole = Case { cuts: Vec::new(), ..case.clone() };
    if fails(&whole) {
        case = whole;
    }
    let mut step = case.bytes.len() / 2;
    while step > 0 {
        let mut at = 0;
        while at < case.bytes.len() {
            let end = (at + step).min(case.bytes.len());
            let mut less = case.clone();
            less.bytes.drain(at..end);
            let moved = |cut: usize| if cut <= at { cut } else { cut.saturating_sub(step).max(at) };
            less.cuts = less.cuts.into_iter().map(moved).collect();
            if fails(&less) { case = less } else { at += step }
        }
        step /= 2;
    }
    case
}

/// Runs `check` with cases until there were `count` requests; panics with the shortest case that fails.
pub(crate) fn all(
    what: &str,
    count: usize,
    seed: u64,
    check: impl Fn(&Case) -> Result<usize, String>,
) -> (usize, usize) {
    let mut random = Random::new(seed);
    let (mut requests, mut taken) = (0, 0);
    let checked = |case: &Case| {
        catch_unwind(AssertUnwindSafe(|| check(case))).unwrap_or_else(|_| Err("a panic".to_owned()))
    };
    while requests < count {
        let case = case(&mut random);
        requests += case.requests;
        match checked(&case) {
            Ok(good) => taken += good,
            Err(first) => {
                let least = shrink(case, |case| checked(case).is_err());
                let why = checked(&least).err().unwrap_or(first);
                panic!(
                    "{what}, seed {seed}, behind {requests} requests: {why}\n{}\ncut at {:?}",
                    least.bytes.escape_ascii(),
                    least.cuts
                );
            }
        }
    }
    (requests, taken)
}

#[test]
fn both_readers_see_the_same_requests() {
    let (count, seeds) = plan(20_000);
    for seed in seeds {
        let inside = Inside::new();
        let (requests, taken) = all("inside", count, seed, |case| inside.check(case));
        eprintln!(
            "inside, seed {seed}: {requests} requests, {taken} of them good, no disagreement"
        );
    }
}
