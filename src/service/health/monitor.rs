//! Carries out the plans of the newest table, on a thread of its own.
//!
//! A plan whose key is known goes on where it is: its interval really elapses, however often the
//! rest of the configuration changes. Probes never share a thread with requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::plan::HealthPlan;
use super::probe::probe;

/// Sends the probes. Ends when it is dropped.
pub struct HealthMonitor {
    plans: watch::Sender<Vec<Arc<HealthPlan>>>,
}

impl HealthMonitor {
    /// Starts the thread. There is nothing to probe yet.
    pub fn start() -> io::Result<Self> {
        let (plans, newest) = watch::channel(Vec::new());
        let (started, ready) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    run(runtime, newest);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self { plans })
    }

    /// Makes `plans` the ones that are carried out: starts what is new, stops what is gone, leaves
    /// alone what is the same. Only the newest plans count, and the caller does not wait.
    pub fn reconcile(&self, plans: Vec<Arc<HealthPlan>>) {
        self.plans.send_replace(plans);
    }
}

fn run(runtime: LocalRuntime, mut newest: watch::Receiver<Vec<Arc<HealthPlan>>>) {
    runtime.block_on(async {
        let mut running: HashMap<String, Watch> = HashMap::new();
        while newest.changed().await.is_ok() {
            let plans = newest.borrow_and_update().clone();
            let mut before = std::mem::take(&mut running);
            for plan in plans {
                let watch = match before.remove(plan.key()) {
                    Some(watch) => {
                        watch.plan.replace(Arc::clone(&plan));
                        watch
                    }
                    None => Watch::start(Arc::clone(&plan)),
                };
                running.insert(plan.key().to_owned(), watch);
            }
        }
    });
    // Name resolution may hang in a blocking thread: nobody waits for it.
    runtime.shutdown_background();
}

/// One plan under way; dropping it ends it.
struct Watch {
    plan: Rc<RefCell<Arc<HealthPlan>>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(plan: Arc<HealthPlan>) -> Self {
        let plan = Rc::new(RefCell::new(plan));
        let watched = Rc::clone(&plan);
        let task = tokio::task::spawn_local(async move {
            tokio::join!(rounds(&watched, true), rounds(&watched, false));
        });
        Self { plan, task }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Probes the servers that are `up`, or those that are not, round after round.
async fn rounds(plan: &RefCell<Arc<HealthPlan>>, up: bool) {
    let (period, delay) = {
        let plan = plan.borrow();
        let period = if up { plan.interval } else { plan.unhealthy_interval };
        (period, spread(plan.key(), period))
    };
    let mut timer = interval_at(Instant::now() + period + delay, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let plan = Arc::clone(&plan.borrow());
        // Who changes sides during a round is not probed twice.
        let due = plan.servers.iter().filter(|server| server.health.is_probed_as_up() == up);
        for server in due.collect::<Vec<_>>() {
            let was_up = server.health.is_probed_as_up();
            let result = match &server.address {
                Ok(address) => probe(&plan.sender, address, &plan.settings).await,
                Err(error) => Err(error.clone()),
            };
            server.health.probed(was_up, result, plan.thresholds);
        }
    }
}

/// Up to a tenth of the period, by name: services that start together are not probed together.
fn spread(key: &str, period: Duration) -> Duration {
    let hash =
        key.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    period / 10 * (hash % 100) / 100
}
