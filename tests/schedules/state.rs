//! What outlives a reload.

use crate::runner::{Scenario, each};
use crate::sync::Arc;

#[path = "../../src/state.rs"]
mod shared;

pub(crate) use shared::SharedState;

pub(crate) const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "state::what_lives_is_carried_over",
    by_chance: true,
    holds: "all who hold the thing of one name at the same time hold the same thing, while others sweep",
    run: what_lives_is_carried_over,
}];

fn what_lives_is_carried_over() {
    let state = Arc::new(SharedState::default());
    let running = state.carry_over("bucket", || 0_usize);
    let found = {
        let state = Arc::clone(&state);
        each(3, move |number| {
            // Something else comes and goes.
            drop(state.carry_over("other", || number));
            state.sweep();
            state.carry_over("bucket", || number + 1)
        })
    };
    for one in &found {
        assert!(Arc::ptr_eq(one, &running));
    }
    drop((found, running));
    state.sweep();
    assert!(state.is_empty());
}
