//! The condition of servers.

use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread::spawn;

use crate::runner::{at_once, each, pass};
use crate::sync::{Arc, Mutex, PoisonError};

#[path = "../../../src/service/health/condition.rs"]
mod condition;
#[path = "../../../src/service/health/passive.rs"]
mod passive;

/// Why a probe failed.
mod probe {
    #[derive(Debug, Clone)]
    pub(in crate::service) struct ProbeError;

    impl std::fmt::Display for ProbeError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("it does not answer")
        }
    }
}

use condition::{Series, ServerGauge, ServerHealth, Thresholds};
use passive::{Passive, PassiveSettings, Verdict};
use probe::ProbeError;

const WINDOW: Duration = Duration::from_secs(10);

fn settings(max_failures: u32) -> PassiveSettings {
    PassiveSettings { window: WINDOW, max_failures }
}

pub(super) fn an_outage_is_announced_once() {
    let passive = Arc::new(Passive::new(settings(3), false));
    let shared = Arc::clone(&passive);
    let announced = each(2, move |_| {
        (0..2).filter(|_| matches!(shared.observe(true), Verdict::DownFor(_))).count()
    });
    assert_eq!(announced.iter().sum::<usize>(), 1);
    assert!(!passive.is_up());
}

pub(super) fn a_new_outage_is_not_ended_by_an_old_one() {
    let passive = Arc::new(Passive::new(settings(1), false));
    assert_eq!(passive.observe(true), Verdict::DownFor(WINDOW));
    pass(WINDOW);
    let shared = Arc::clone(&passive);
    let announced = each(2, move |_| {
        shared.is_up();
        shared.observe(true) != Verdict::Unchanged
    });
    assert_eq!(announced.iter().filter(|&&one| one).count(), 1);
    assert!(!passive.is_up(), "said to be down, and up");
}

/// What the gauge was told last.
#[derive(Default)]
struct Gauge(Mutex<Option<bool>>);

impl Gauge {
    fn say(&self, what: Option<bool>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

impl ServerGauge for Gauge {
    fn set(&self, _: &str, _: &str, up: bool) {
        self.say(Some(up));
    }

    fn remove(&self, _: &str, _: &str) {
        self.say(None);
    }
}

fn server(probed: bool, max_failures: u32) -> (Arc<ServerHealth>, Arc<Gauge>) {
    let gauge = Arc::new(Gauge::default());
    let line = Series::new("odoo@file".into(), "http://a".into(), Arc::clone(&gauge) as _);
    let settings = Some(settings(max_failures));
    (Arc::new(ServerHealth::new(probed, settings, Some(Arc::new(line)))), gauge)
}

pub(super) fn the_gauge_says_what_is() {
    let (health, gauge) = server(true, 1);
    let probes = {
        let health = Arc::clone(&health);
        spawn(move || {
            for result in [Err(ProbeError), Ok(())] {
                health.probed(health.is_probed_as_up(), result, Thresholds { rise: 1, fall: 1 });
            }
        })
    };
    let requests = {
        let health = Arc::clone(&health);
        spawn(move || health.observe(true))
    };
    probes.join().unwrap();
    requests.join().unwrap();
    assert_eq!(*gauge.0.lock().unwrap(), Some(health.is_up()));
}

pub(super) fn what_a_probe_said_before_an_outage_does_not_end_it() {
    let (health, gauge) = server(true, 1);
    let probes = {
        let health = Arc::clone(&health);
        spawn(move || {
            for result in [Ok(()), Err(ProbeError), Ok(())] {
                health.probed(health.is_probed_as_up(), result, Thresholds { rise: 2, fall: 2 });
            }
        })
    };
    health.observe(true);
    probes.join().unwrap();
    assert!(!health.is_up(), "one good probe in a row, and not two");
    assert_eq!(*gauge.0.lock().unwrap(), Some(false));
}

pub(super) fn the_gauge_follows_outages() {
    let (health, gauge) = server(false, 1);
    health.observe(true);
    pass(WINDOW);
    let ending = {
        let health = Arc::clone(&health);
        spawn(move || health.outage_over())
    };
    let requests = {
        let health = Arc::clone(&health);
        spawn(move || {
            if health.is_up() {
                health.observe(true);
            }
        })
    };
    ending.join().unwrap();
    requests.join().unwrap();
    assert_eq!(*gauge.0.lock().unwrap(), Some(health.is_up()));
}
