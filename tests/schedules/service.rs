//! Which server gets a request, and what is known of its health.

use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread::spawn;

use crate::runner::{Scenario, at_once, each, pass};
use crate::sync::Arc;

pub(crate) mod health;
#[path = "../../src/service/in_flight.rs"]
mod in_flight;
#[path = "../../src/service/least_time.rs"]
mod least_time;
#[path = "../../src/service/strategy.rs"]
mod strategy;

use in_flight::InFlight;
use least_time::{Heard, LeastTime, Times};
use strategy::{Edf, P2c};

pub(crate) const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "service::shares_are_exact",
        by_chance: false,
        holds: "of as many picks as the weights add up to, each server gets its weight, whoever picks",
        run: shares_are_exact,
    },
    Scenario {
        name: "service::a_pick_is_available",
        by_chance: true,
        holds: "nobody who may not be picked is picked, and somebody is when one may",
        run: a_pick_is_available,
    },
    Scenario {
        name: "service::in_flight_returns_to_zero",
        by_chance: false,
        holds: "requests in flight are never fewer than those that run, and none when all are over",
        run: in_flight_returns_to_zero,
    },
    Scenario {
        name: "service::who_failed_is_tried_by_one",
        by_chance: false,
        holds: "a server that failed gets one request in its time, however many ask at that moment",
        run: who_failed_is_tried_by_one,
    },
    Scenario {
        name: "service::an_outage_is_announced_once",
        by_chance: false,
        holds: "as many failures as are allowed take a server out, once, whoever sees them",
        run: health::an_outage_is_announced_once,
    },
    Scenario {
        name: "service::a_new_outage_is_not_ended_by_an_old_one",
        by_chance: false,
        holds: "a server that was said to be down is down, also when an outage before has just ended",
        run: health::a_new_outage_is_not_ended_by_an_old_one,
    },
    Scenario {
        name: "service::the_gauge_says_what_is",
        by_chance: false,
        holds: "when all is said, the gauge of a probed server says what requests go by",
        run: health::the_gauge_says_what_is,
    },
    Scenario {
        name: "service::what_a_probe_said_before_an_outage_does_not_end_it",
        by_chance: false,
        holds: "a server that the traffic takes out needs as many good probes as `rise` says, all of them later",
        run: health::what_a_probe_said_before_an_outage_does_not_end_it,
    },
    Scenario {
        name: "service::the_gauge_follows_outages",
        by_chance: false,
        holds: "an outage that begins as another ends is on the gauge",
        run: health::the_gauge_follows_outages,
    },
];

fn shares_are_exact() {
    let edf = Arc::new(Edf::new([3, 1].into_iter()));
    let picked = each(2, move |_| (0..4).filter(|_| edf.pick(|_| true) == Some(0)).count());
    assert_eq!(picked.iter().sum::<usize>(), 6);
}

fn a_pick_is_available() {
    let counts: Arc<Vec<_>> = Arc::new((0..3).map(|_| Arc::new(InFlight::default())).collect());
    let (p2c, edf) = (Arc::new(P2c::new()), Arc::new(Edf::new([1, 5, 1].into_iter())));
    each(2, move |number| {
        let busy = |at: usize| counts[at].count();
        let one = p2c.pick(3, |at| at != number, busy).unwrap();
        let _running = counts[one].enter();
        let other = edf.pick(|at| at != number).unwrap();
        assert!(one != number && other != number);
        assert_eq!(edf.pick(|_| false), None);
    });
}

fn in_flight_returns_to_zero() {
    let in_flight = Arc::new(InFlight::default());
    let shared = Arc::clone(&in_flight);
    each(3, move |_| {
        let one = shared.enter();
        assert!((1..=3).contains(&shared.count()), "{}", shared.count());
        drop(one);
    });
    assert_eq!(in_flight.count(), 0);
}

fn who_failed_is_tried_by_one() {
    let times: Vec<_> = (0..2).map(|_| Arc::new(Times::new())).collect();
    times[1].note(Duration::from_millis(20));
    times[0].heard(Heard::Nothing);
    let turns = Arc::new(Edf::new([1, 1].into_iter()));
    let choice = Arc::new(LeastTime::new(times.into_iter().map(|one| (one, 1)), turns, false));
    for _ in 0..2 {
        pass(Duration::from_secs(10));
        let choice = Arc::clone(&choice);
        let picked = each(3, move |_| choice.pick(|_| true, |_| 0));
        let tried = picked.iter().filter(|one| **one == Some(0)).count();
        assert_eq!((tried, picked.iter().flatten().count()), (1, 3));
    }
}
