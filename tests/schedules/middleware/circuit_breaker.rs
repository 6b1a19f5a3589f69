//! A breaker and those who ask it.

use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread::spawn;

use crate::middleware::expression::{Comparison, Expression};
use crate::runner::{Scenario, each, pass};
use crate::sync::Arc;

#[path = "../../../src/middleware/circuit_breaker/breaker.rs"]
mod breaker;
#[path = "../../../src/middleware/circuit_breaker/condition.rs"]
mod condition;
#[path = "../../../src/middleware/circuit_breaker/window.rs"]
mod window;

use breaker::{Breaker, Times};
use condition::{Condition, Ratio};

pub(crate) const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "circuit_breaker::open_is_open",
        by_chance: false,
        holds: "once the request that opens a breaker is noted, none passes until the time is over",
        run: open_is_open,
    },
    Scenario {
        name: "circuit_breaker::it_closes_again",
        by_chance: false,
        holds: "whatever fails while it recovers, a breaker that is left alone closes for good",
        run: it_closes_again,
    },
];

fn new() -> Arc<Breaker> {
    let failing = Condition::Ratio(Ratio::NetworkErrors, Comparison::Greater, 0.5);
    let times = Times {
        check: Duration::from_millis(100),
        open: Duration::from_secs(10),
        recovery: Duration::from_secs(10),
    };
    let (router, name) = ("router@file".to_owned(), "breaker@file".to_owned());
    Arc::new(Breaker::new(Expression::Is(failing), times, false, router, name))
}

fn open_is_open() {
    let (breaker, opened) = (new(), Arc::new(AtomicBool::new(false)));
    let failing = {
        let (breaker, opened) = (Arc::clone(&breaker), Arc::clone(&opened));
        spawn(move || {
            breaker.note(502, Duration::ZERO);
            opened.store(true, Ordering::SeqCst);
        })
    };
    each(2, move |_| {
        let known = opened.load(Ordering::SeqCst);
        assert!(!(breaker.admits() && known), "it passes");
    });
    failing.join().unwrap();
}

fn it_closes_again() {
    let breaker = new();
    breaker.note(502, Duration::ZERO);
    assert!(!breaker.admits());
    pass(Duration::from_secs(11));
    breaker.admits();
    pass(Duration::from_secs(11));
    // Its recovery is over, and just now somebody fails who was let in before.
    let failing = {
        let breaker = Arc::clone(&breaker);
        spawn(move || breaker.note(502, Duration::ZERO))
    };
    let shared = Arc::clone(&breaker);
    each(2, move |_| shared.admits());
    failing.join().unwrap();
    for _ in 0..2 {
        pass(Duration::from_secs(11));
        breaker.admits();
    }
    assert!((0..5).all(|_| breaker.admits()), "it stays open");
}
