//! Limiters, budgets, bans and nonces: what all workers count in together.

use std::net::Ipv4Addr;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread::spawn;

use crate::runner::{Scenario, at_once, each, pass};
use crate::sync::Arc;

#[path = "../../src/middleware/nonces.rs"]
mod nonces;
#[path = "../../src/middleware/token_buckets.rs"]
mod token_buckets;

/// Whom a request counts for, as `src/middleware/source.rs` has it.
mod source {
    use std::net::IpAddr;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub(super) enum Source {
        Ip(IpAddr),
        Text(u64, u64),
        Common,
    }
}

/// What a limiter tells of a bucket.
mod rate_limit {
    use std::time::Duration;

    #[derive(Debug)]
    pub(super) struct Left {
        pub(super) requests: u64,
        pub(super) next: Duration,
    }
}

#[path = "../../src/middleware/in_flight_req"]
mod in_flight_req {
    pub(super) mod open;
}

#[path = "../../src/middleware/retry"]
mod retry {
    pub(super) mod budget;

    use shuttle::sync::atomic::{AtomicUsize, Ordering};

    use crate::runner::each;
    use crate::state::SharedState;
    use crate::sync::Arc;

    pub(super) fn a_retry_is_earned() {
        let state = SharedState::default();
        let config = budget::RetryBudgetConfig { percent: 50, min_per_second: 0 };
        let budgets = config.build(&super::BuildContext { state: &state }).unwrap();
        let (counted, spent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let shared = Arc::clone(&spent);
        each(2, move |_| {
            for _ in 0..2 {
                counted.fetch_add(1, Ordering::SeqCst);
                budgets.count("odoo");
            }
            for _ in 0..2 {
                if budgets.spend("odoo") {
                    let spent = shared.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(2 * spent <= counted.load(Ordering::SeqCst), "not earned");
                }
            }
        });
        assert!((1..=2).contains(&spent.load(Ordering::SeqCst)), "earned, and refused");
    }
}

/// What of it the files here ask for.
pub(crate) struct BuildContext<'a> {
    pub(crate) state: &'a crate::state::SharedState,
}

pub(crate) mod ban;
pub(crate) mod circuit_breaker;
#[path = "../../src/middleware/expression.rs"]
mod expression;
mod forward_auth;

use crate::exchange::budget::Budget;
use in_flight_req::open::Open;
use nonces::Nonces;
use source::Source;
use token_buckets::{Buckets, Verdict};

pub(crate) const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "middleware::no_more_pass_than_the_burst",
        by_chance: true,
        holds: "however many ask at the same time, exactly the burst of them passes",
        run: no_more_pass_than_the_burst,
    },
    Scenario {
        name: "middleware::who_is_refused_stays_known",
        by_chance: true,
        holds: "a source that runs against its limit is not forgotten by the sweep of its shard",
        run: who_is_refused_stays_known,
    },
    Scenario {
        name: "middleware::in_flight_is_bounded_and_returns_to_zero",
        by_chance: true,
        holds: "no source has more requests in flight than it may, and in the end it has none",
        run: in_flight_is_bounded,
    },
    Scenario {
        name: "middleware::a_retry_is_earned",
        by_chance: true,
        holds: "a service is sent again no more requests than its share of those that it got",
        run: retry::a_retry_is_earned,
    },
    Scenario {
        name: "middleware::the_reserve_is_never_exceeded",
        by_chance: false,
        holds: "however many requests refill the reserve at once, it holds a hundred retries and not one more",
        run: the_reserve_is_never_exceeded,
    },
    Scenario {
        name: "middleware::a_nonce_is_fresh_once",
        by_chance: true,
        holds: "of several requests with one nonce and one count, one is let in",
        run: a_nonce_is_fresh_once,
    },
    Scenario {
        name: "middleware::a_ban_is_pronounced_once",
        by_chance: true,
        holds: "offences of several threads lead to one ban, and it is in force when it is pronounced",
        run: ban::pronounced_once,
    },
    Scenario {
        name: "middleware::bans_come_and_go",
        by_chance: true,
        holds: "a ban by hand is in force until it is lifted, whatever other bans come, end and are swept away",
        run: ban::come_and_go,
    },
    Scenario {
        name: "middleware::one_asks_the_authentication_server_for_all",
        by_chance: true,
        holds: "of those who ask the same at once one leads at a time, and all go on, whatever becomes of it",
        run: forward_auth::one_asks_for_all,
    },
    Scenario {
        name: "middleware::what_is_forgotten_is_asked_again",
        by_chance: true,
        holds: "after a refusal what was allowed is asked again, by whoever comes next",
        run: forward_auth::what_is_forgotten_is_asked_again,
    },
];

fn ip(number: u32) -> Source {
    Source::Ip(Ipv4Addr::from_bits(number).into())
}

fn no_more_pass_than_the_burst() {
    let buckets = Arc::new(Buckets::new(Duration::from_hours(1), 3, Duration::ZERO));
    let passed = each(3, move |_| {
        (0..2).filter(|_| matches!(buckets.take(ip(1)).verdict, Verdict::Now)).count()
    });
    assert_eq!(passed.iter().sum::<usize>(), 3);
}

fn who_is_refused_stays_known() {
    let buckets = Arc::new(Buckets::new(Duration::from_hours(1), 1, Duration::ZERO));
    assert_eq!(buckets.take(ip(1)).verdict, Verdict::Now);
    let passed = each(3, move |number| {
        // Long enough for a shard to be swept, and too short for a token.
        pass(Duration::from_secs(5));
        let other = u32::try_from(number).unwrap() + 2;
        buckets.take(ip(other));
        matches!(buckets.take(ip(1)).verdict, Verdict::Now)
    });
    assert_eq!(passed, [false; 3]);
}

fn in_flight_is_bounded() {
    const AMOUNT: u64 = 2;
    let open = Arc::new(Open::default());
    let (now, shared) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&open));
    let entered = each(3, move |_| {
        let mut entered = 0;
        for _ in 0..2 {
            let Some(slot) = shared.enter(ip(1), AMOUNT) else { continue };
            assert!(now.fetch_add(1, Ordering::SeqCst) < 2, "one too many");
            now.fetch_sub(1, Ordering::SeqCst);
            drop(slot);
            entered += 1;
        }
        entered
    });
    assert!(entered.iter().sum::<usize>() >= 2, "nobody was let in");
    let slots: Vec<_> = (0..3).map(|_| open.enter(ip(1), AMOUNT)).collect();
    assert_eq!(slots.iter().flatten().count(), 2, "a slot is lost");
}

fn the_reserve_is_never_exceeded() {
    let budget = Arc::new(Budget::default());
    assert!(budget.spend());
    // One fifth of a retry is missing.
    (0..4).for_each(|_| budget.earn());
    let shared = Arc::clone(&budget);
    each(2, move |_| shared.earn());
    assert_eq!((0..200).filter(|_| budget.spend()).count(), 100);
    // Nothing is left, so that four fifths more are none.
    (0..4).for_each(|_| budget.earn());
    assert!(!budget.spend(), "there was more in it");
}

fn a_nonce_is_fresh_once() {
    let nonces = Arc::new(Nonces::new().unwrap());
    let nonce = nonces.issue();
    let fresh = each(3, move |_| nonces.take(nonce.as_bytes(), 1) == nonces::Verdict::Fresh);
    assert_eq!(fresh.iter().filter(|&&fresh| fresh).count(), 1);
}
