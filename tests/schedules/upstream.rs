//! Idle connections of one server, which workers keep each for itself and count together.

use crate::runner::{Scenario, each};
use crate::sync::Arc;

#[path = "../../src/upstream/idle.rs"]
mod idle;

use idle::IdleCount;

pub(crate) const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "upstream::idle_connections_are_bounded",
    by_chance: false,
    holds: "no more connections stay idle than may, none is closed while there is room, and the count ends at zero",
    run: idle_connections_are_bounded,
}];

fn idle_connections_are_bounded() {
    const MOST: usize = 2;
    let idle = Arc::new(IdleCount::default());
    let shared = Arc::clone(&idle);
    let kept = each(3, move |_| {
        let kept = shared.enter(MOST);
        assert!(shared.count() <= MOST, "one too many");
        kept
    });
    assert_eq!(kept.iter().filter(|&&kept| kept).count(), MOST, "there was room");
    let shared = Arc::clone(&idle);
    each(MOST, move |_| {
        shared.leave(1);
        // Somebody else comes, and goes.
        assert!(shared.enter(MOST), "there was room");
        shared.leave(1);
    });
    assert_eq!(idle.count(), 0);
}
