//! The condition of one server, and the line of the gauge that tells of it.
//!
//! Probes, requests and the clock change the condition at the same time; whoever does tells the gauge afterwards what is
//! then, one after the other. So the last word on the gauge is what requests go by.

use super::passive::{Passive, PassiveSettings, Verdict};
use super::probe::ProbeError;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};

/// Where `traefik_service_server_up` is counted.
pub trait ServerGauge: Send + Sync {
    /// Says that a server of a service is up or down.
    fn set(&self, service: &str, url: &str, up: bool);
    /// Says that a service does not have this server any more.
    fn remove(&self, service: &str, url: &str);
}

/// One line of the gauge, which is gone when the last that speaks through it is gone.
pub(in crate::service) struct Series {
    service: Arc<str>,
    url: Arc<str>,
    gauge: Arc<dyn ServerGauge>,
    telling: Mutex<()>,
}

impl Series {
    /// The line of a server. `url` must not hold secrets.
    pub(in crate::service) fn new(
        service: Arc<str>,
        url: Arc<str>,
        gauge: Arc<dyn ServerGauge>,
    ) -> Self {
        Self { service, url, gauge, telling: Mutex::default() }
    }

    fn tell(&self, is_up: impl FnOnce() -> bool) {
        let _turn = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauge.set(&self.service, &self.url, is_up());
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.gauge.remove(&self.service, &self.url);
    }
}

/// How many probes in a row it takes to change a server's condition. Less than one is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) rise: u32,
    pub(super) fall: u32,
}

/// In the state of a server: it is down. The rest counts the probes in a row that said otherwise.
const DOWN: u32 = 1 << 31;

impl Thresholds {
    /// What a probe with this result makes of a state.
    fn next(self, state: u32, up: bool) -> u32 {
        let side = state & DOWN;
        if up == (side == 0) {
            return side;
        }
        let contrary = state - side + 1;
        let enough = contrary >= if up { self.rise } else { self.fall };
        if enough { side ^ DOWN } else { side | contrary.min(DOWN - 1) }
    }
}

/// The condition of one server of one service.
pub(in crate::service) struct ServerHealth {
    /// What the last probes, or with probes the traffic, said, and how many probes in a row said otherwise since.
    state: AtomicU32,
    passive: Option<Passive>,
    /// `None` when nobody checks: such a server is always up.
    series: Option<Arc<Series>>,
}

impl ServerHealth {
    /// A server that is up. With `probed`, it is probes that bring it back.
    pub(in crate::service) fn new(
        probed: bool,
        passive: Option<PassiveSettings>,
        series: Option<Arc<Series>>,
    ) -> Self {
        if let Some(series) = &series {
            series.tell(|| true);
        }
        let passive = passive.map(|settings| Passive::new(settings, probed));
        Self { state: AtomicU32::new(0), passive, series }
    }

    /// Whether requests may be sent to it.
    pub(in crate::service) fn is_up(&self) -> bool {
        self.is_probed_as_up() && self.passive.as_ref().is_none_or(Passive::is_up)
    }

    /// Whether it stands on the side of those that are probed as healthy.
    pub(super) fn is_probed_as_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) < DOWN
    }

    /// Takes note of what a probe found that began when the server stood on the side `was_up`. It says nothing of a server
    /// that has changed sides meanwhile.
    pub(super) fn probed(
        &self,
        was_up: bool,
        result: Result<(), ProbeError>,
        thresholds: Thresholds,
    ) {
        let Some(series) = &self.series else { return };
        let up = result.is_ok();
        // One step, as the traffic may take the server out at any time: no probe from before that counts.
        let step = |state| ((state < DOWN) == was_up).then(|| thresholds.next(state, up));
        let stepped = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        let Ok(before) = stepped else { return };
        let is_up = thresholds.next(before, up) < DOWN;
        if was_up != is_up {
            series.tell(|| self.is_up());
        }
        let (service, url) = (&*series.service, &*series.url);
        match result {
            Ok(()) if was_up => {}
            Ok(()) if is_up => {
                tracing::info!(serviceName = service, targetURL = url, "server is up again");
            }
            Err(error) if was_up && !is_up => {
                tracing::warn!(
                    serviceName = service,
                    targetURL = url,
                    %error,
                    "health check failed, the server is down"
                );
            }
            Err(error) if !was_up => {
                tracing::debug!(
                    serviceName = service,
                    targetURL = url,
                    %error,
                    "health check failed, the server is still down"
                );
            }
            result => {
                tracing::debug!(
                    serviceName = service,
                    targetURL = url,
                    ?result,
                    "a health check said otherwise, and not often enough yet"
                );
            }
        }
    }

    /// Whether the traffic is watched.
    pub(in crate::service) fn is_passive(&self) -> bool {
        self.passive.is_some()
    }

    /// Takes note of how a request went.
    pub(in crate::service) fn observe(self: &Arc<Self>, failed: bool) {
        let (Some(passive), Some(series)) = (&self.passive, &self.series) else { return };
        match passive.observe(failed) {
            Verdict::Unchanged => return,
            Verdict::DownUntilProbed => {
                let down = |state| (state < DOWN).then_some(DOWN);
                if self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down).is_err() {
                    return;
                }
            }
            Verdict::DownFor(window) => self.announce_return(window),
        }
        series.tell(|| self.is_up());
        tracing::warn!(
            serviceName = &*series.service,
            targetURL = &*series.url,
            "too many requests failed, the server is down"
        );
    }

    /// Sets the gauge when the time is over. Requests do not wait for this: they look at the clock.
    fn announce_return(self: &Arc<Self>, window: std::time::Duration) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let health = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(window).await;
            if let Some(health) = health.upgrade() {
                health.outage_over();
            }
        });
    }

    /// Says so when the time of an outage is over, unless the next one has begun.
    pub(super) fn outage_over(&self) {
        if self.is_up()
            && let Some(series) = &self.series
        {
            series.tell(|| self.is_up());
            tracing::info!(
                serviceName = &*series.service,
                targetURL = &*series.url,
                "server may be tried again"
            );
        }
    }
}
