//! Lists of bans.

use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread::spawn;
use tokio::time::Instant;

use super::ip;
use crate::runner::{each, pass};
use crate::sync::Arc;

#[path = "../../../src/middleware/ban/list.rs"]
mod list;

/// Networks of sources, as `src/middleware/ban/source.rs` has them.
mod source {
    use crate::middleware::source::Source;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Prefix(u8);

    pub(super) fn network(source: Source) -> Source {
        source
    }
}

use list::{BanList, Order, Policy, Sentence};

const POLICY: Policy = Policy {
    threshold: 3,
    window: Duration::from_mins(1),
    duration: Duration::from_mins(10),
    factor: 2.0,
    max: Duration::from_hours(1),
    remember: Duration::from_hours(1),
};

pub(super) fn pronounced_once() {
    let list = Arc::new(BanList::new("ban@file".into()));
    let banned = each(3, move |_| {
        let mut banned = 0;
        for _ in 0..2 {
            if let Sentence::Banned { level, .. } = list.offend(ip(1), &POLICY, Instant::now()) {
                assert_eq!(level, 1);
                assert!(list.banned_for(ip(1)).is_some(), "not in force");
                banned += 1;
            }
        }
        banned
    });
    assert_eq!(banned.iter().sum::<usize>(), 1);
}

pub(super) fn come_and_go() {
    let list = Arc::new(BanList::new("ban@file".into()));
    let order = || Order { by: "somebody".to_owned(), reason: "a test".to_owned() };
    let steady = ip(7);
    assert!(list.impose(steady, Duration::from_hours(5), order()));
    let others = {
        let list = Arc::clone(&list);
        spawn(move || {
            for _ in 0..2 {
                list.impose(ip(8), Duration::from_secs(1), order());
                pass(Duration::from_secs(2));
                list.sweep(Instant::now());
                list.lift(ip(8));
            }
        })
    };
    let lifting = {
        let list = Arc::clone(&list);
        spawn(move || list.lift(ip(8)))
    };
    for _ in 0..3 {
        assert!(list.banned_for(steady).is_some(), "the ban is not seen");
    }
    others.join().unwrap();
    lifting.join().unwrap();
    assert!(list.lift(steady));
    assert_eq!(list.banned_for(steady), None);
    assert_eq!(list.in_force(Instant::now()), 0);
    // The count of all bans, by which nobody is looked up while there is none, is right again.
    assert!(list.impose(steady, Duration::from_secs(1), order()));
    assert!(list.banned_for(steady).is_some());
}
