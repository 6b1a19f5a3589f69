//! The runs: how many requests, of which seed, and how one that fails is told.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::generate::{Case, Random, case};
use crate::http2::{self, Connection};
use crate::inside::Inside;
use crate::sockets::{Lane, Proxy};

/// Every run has this seed once, so that what is mended stays mended.
const FIXED: u64 = 0x0d00_12a2_d000_0001;

/// How many requests, and of which seeds.
fn plan(usual: usize) -> (usize, Vec<u64>) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let count =
        number("DOORWARD_DIFFERENTIAL").map_or(usual, |count| usize::try_from(count).unwrap());
    match number("DOORWARD_DIFFERENTIAL_SEED") {
        Some(seed) => (count, vec![seed]),
        // A change is not to fail for what was there before it.
        None if env::var_os("CI").is_some() => (count, vec![FIXED]),
        None => (count / 2, vec![FIXED, RandomState::new().hash_one(0)]),
    }
}

/// Shortens `case` for as long as `fails` says that it still does.
fn shrink(mut case: Case, fails: impl Fn(&Case) -> bool) -> Case {
    let end = Instant::now() + Duration::from_secs(30);
    let fails = |case: &Case| Instant::now() < end && fails(case);
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
                    least.bytes[..least.bytes.len().min(4000)].escape_ascii(),
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

/// Connections at once.
const LANES: usize = 8;

#[test]
fn a_backend_gets_what_was_meant() {
    let (count, seeds) = plan(3_000);
    for seed in seeds {
        let (proxy, lanes) = Proxy::start(LANES);
        let check = |lane: &Lane, case: &Case| lane.check(case);
        let (requests, taken) = on_all(&lanes, "sockets", count, seed, &check);
        eprintln!(
            "sockets, seed {seed}: {requests} requests, {taken} of them good, no disagreement"
        );
        proxy.stop();
    }
}

/// Runs `check` on all lanes at once, each with a part of the requests.
fn on_all(
    lanes: &[Lane],
    what: &str,
    count: usize,
    seed: u64,
    check: &(impl Fn(&Lane, &Case) -> Result<usize, String> + Sync),
) -> (usize, usize) {
    thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .iter()
            .zip(seed..)
            .map(|(lane, seed)| {
                scope.spawn(move || all(what, count / LANES, seed, |case| check(lane, case)))
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().expect("see above"));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

#[test]
fn a_backend_gets_what_was_meant_over_http_2() {
    let (count, seeds) = plan(3_000);
    for seed in seeds {
        let (proxy, lanes) = Proxy::start(LANES);
        let taken: usize = thread::scope(|scope| {
            let talk = |(lane, seed)| scope.spawn(move || streams(lane, count / LANES, seed));
            let threads: Vec<_> = lanes.iter().zip(seed..).map(talk).collect();
            threads.into_iter().map(|thread| thread.join().expect("see above")).sum()
        });
        eprintln!("HTTP/2, seed {seed}: {count} requests, {taken} of them good, no disagreement");
        proxy.stop();
    }
}

/// So many requests, one behind the other; returns how many were good.
fn streams(lane: &Lane, count: usize, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut connection = Connection::new(lane);
    let mut taken = 0;
    for number in 0..count {
        let stream = http2::request(&mut random);
        match connection.check(&stream) {
            Ok(good) => taken += usize::from(good),
            Err(why) => panic!("HTTP/2, seed {seed}, request {number}: {why}\n{stream}"),
        }
    }
    taken
}
