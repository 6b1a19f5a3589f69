//! The line between a request gate and the service of its connection.

use std::future::poll_fn;
use std::task::Poll;

use http::StatusCode;
use shuttle::future::block_on;
use shuttle::sync::mpsc::sync_channel;
use shuttle::thread::spawn;

use crate::runner::Scenario;
use crate::sync::Arc;

#[path = "../../src/wire/control.rs"]
mod control;

/// As much of a head as the line speaks of.
mod head {
    use http::StatusCode;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Violation {
        pub(super) status: StatusCode,
        pub(super) reason: &'static str,
    }
}

use control::{GateControl, Rejection};

pub(crate) const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "wire::only_who_asked_decides_about_a_tunnel",
        by_chance: false,
        holds: "the gate hears the decision about an upgrade, and it is that of the request that asked",
        run: only_who_asked_decides,
    },
    Scenario {
        name: "wire::a_refused_head_is_answered_in_its_turn",
        by_chance: false,
        holds: "a refused head is answered with its rejection, and no request before it is",
        run: a_refused_head_is_answered_in_its_turn,
    },
    Scenario {
        name: "wire::idle_is_idle",
        by_chance: false,
        holds: "a connection counts as idle only when every request that was passed on is over",
        run: idle_is_idle,
    },
];

fn only_who_asked_decides() {
    // hyper calls the service for what it was given.
    let (hyper, heads) = sync_channel(2);
    let control = Arc::new(GateControl::new(None));
    let service = {
        let control = Arc::clone(&control);
        spawn(move || {
            for status in [StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS] {
                heads.recv().unwrap();
                let guard = control.admit().unwrap();
                control.answered(status);
                drop(guard);
            }
        })
    };
    for upgrade in [false, true] {
        control.head_delivered(upgrade, false);
        hyper.send(()).unwrap();
    }
    let decided = block_on(poll_fn(|cx| match control.decision(cx.waker()) {
        Some(tunnel) => Poll::Ready(tunnel),
        None => Poll::Pending,
    }));
    assert!(decided, "the first request's answer was taken for the second one's");
    service.join().unwrap();
}

fn a_refused_head_is_answered_in_its_turn() {
    // hyper calls the service for what it was given.
    let (hyper, heads) = sync_channel(2);
    let control = Arc::new(GateControl::new(None));
    let service = {
        let control = Arc::clone(&control);
        spawn(move || {
            let mut answers = Vec::new();
            for () in heads {
                answers.push(control.admit().map(drop).map_err(|rejection| rejection.status));
            }
            answers
        })
    };
    control.head_delivered(false, false);
    hyper.send(()).unwrap();
    control.request_received();
    let violation = head::Violation { status: StatusCode::BAD_REQUEST, reason: "bare CR" };
    control.reject(Rejection::new(violation, b"GET / HTTP/1.1\r\r\n"));
    hyper.send(()).unwrap();
    drop(hyper);
    assert_eq!(service.join().unwrap(), [Ok(()), Err(StatusCode::BAD_REQUEST)]);
}

fn idle_is_idle() {
    // hyper calls the service for what it was given.
    let (hyper, heads) = sync_channel(2);
    let control = Arc::new(GateControl::new(None));
    let service = {
        let control = Arc::clone(&control);
        spawn(move || {
            let mut busy = Vec::new();
            for () in heads {
                let guard = control.admit().unwrap();
                busy.push(control.idle_since().is_some());
                drop(guard);
            }
            busy
        })
    };
    assert!(control.idle_since().is_some(), "nothing has begun");
    for _ in 0..2 {
        control.head_delivered(false, false);
        hyper.send(()).unwrap();
    }
    drop(hyper);
    assert_eq!(service.join().unwrap(), [false, false]);
    assert!(control.idle_since().is_some() && control.current_since().is_some());
}
