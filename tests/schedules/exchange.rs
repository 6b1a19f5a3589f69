//! Signals and open work: how a connection hears that it must stop, and a worker that all is done.

use std::pin::{Pin, pin};
use std::task::Poll;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::runner::Scenario;
use crate::sync::Arc;

#[path = "../../src/exchange/budget.rs"]
pub(crate) mod budget;
#[path = "../../src/exchange/observe.rs"]
pub(crate) mod observe;
#[path = "../../src/exchange/open_work.rs"]
pub(crate) mod open_work;
#[path = "../../src/exchange/signal.rs"]
pub(crate) mod signal;

/// What of the vocabulary the files here speak of.
mod words {
    use http::HeaderMap;

    #[derive(Debug, Default)]
    pub struct ClientTls {
        pub version: &'static str,
        pub cipher: &'static str,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Ending {
        Complete,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ProxyError;

    #[derive(Clone, Copy, Debug)]
    pub struct BodyEnd;

    pub trait EndHook {
        fn ended(self: Box<Self>, end: BodyEnd, trailers: Option<&HeaderMap>);
    }
}

/// Who may say where a request came from.
pub(crate) mod forwarded {
    pub struct TrustedSources;
}

use open_work::OpenWork;
use signal::Signal;

pub use observe::{Observation, Observer, Protocol};
pub use words::{BodyEnd, ClientTls, EndHook, Ending, ProxyError};

pub(crate) const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "exchange::signal_wakes_all",
        by_chance: false,
        holds: "whoever waits for a signal is woken when it is told, and whoever comes late does not wait",
        run: signal_wakes_all,
    },
    Scenario {
        name: "exchange::signal_is_seen_beside_other_work",
        by_chance: false,
        holds: "a task that is woken by something else too, and polls the signal each time, misses nothing",
        run: signal_is_seen_beside_other_work,
    },
    Scenario {
        name: "exchange::drain_waits_for_all_work",
        by_chance: false,
        holds: "a drain ends when no work is open, not before and not never, also when work begins more work",
        run: drain_waits_for_all_work,
    },
    Scenario {
        name: "exchange::cut_reaches_all_work",
        by_chance: false,
        holds: "work that is cut ends, whenever it began, and the drain with it",
        run: cut_reaches_all_work,
    },
];

fn signal_wakes_all() {
    let signal = Signal::default();
    block_on(async move {
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let signal = signal.clone();
                spawn(async move { signal.told().await })
            })
            .collect();
        let teller = signal.clone();
        let telling = spawn(async move { teller.tell() });
        for one in waiting {
            one.await.unwrap();
        }
        telling.await.unwrap();
        signal.told().await;
    });
}

fn signal_is_seen_beside_other_work() {
    let signal = Signal::default();
    let teller = signal.clone();
    let waiting = shuttle::thread::spawn(move || {
        block_on(async {
            let mut told = pin!(signal.told());
            for _ in 0..2 {
                let mut turn = pin!(yield_now());
                let done = std::future::poll_fn(|cx| {
                    if told.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(true);
                    }
                    turn.as_mut().poll(cx).map(|()| false)
                });
                if done.await {
                    return;
                }
            }
            told.await;
        });
    });
    teller.tell();
    waiting.join().unwrap();
}

fn drain_waits_for_all_work() {
    let work = OpenWork::default();
    let ended = Arc::new(AtomicUsize::new(0));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (work, first, ended) = (work.clone(), work.begin(), Arc::clone(&ended));
            shuttle::thread::spawn(move || {
                // As a tunnel takes over from its request.
                let second = work.begin();
                drop(first);
                ended.fetch_add(1, Ordering::SeqCst);
                drop(second);
            })
        })
        .collect();
    block_on(work.finished());
    assert_eq!(ended.load(Ordering::SeqCst), 2, "work was open");
    assert_eq!(work.count(), 0);
    for one in busy {
        one.join().unwrap();
    }
}

fn cut_reaches_all_work() {
    let work = OpenWork::default();
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let item = work.begin();
            shuttle::thread::spawn(move || {
                block_on(item.cut());
                drop(item);
            })
        })
        .collect();
    work.cut();
    block_on(work.finished());
    assert_eq!(work.count(), 0);
    for one in busy {
        one.join().unwrap();
    }
}
