//! The condition of one server, and the line of the gauge that tells of it.
//!
//! Probes, requests and the clock change the condition at the same time; whoever does tells the gauge afterwards what is
//! then, one after the other. So the last word on the gauge is what requests go by.

use super::passive::{Passive, PassiveSettings, Verdict};
use super::probe::ProbeError;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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

/// The condition of one server of one service.
pub(in crate::service) struct ServerHealth {
    /// What the last probes, or with probes the traffic, said.
    up: AtomicBool,
    /// Probes in a row that said otherwise.
    contrary: AtomicU32,
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
        Self { up: AtomicBool::new(true), contrary: AtomicU32::new(0), passive, series }
    }

    /// Whether requests may be sent to it.
    pub(in crate::service) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && self.passive.as_ref().is_none_or(Passive::is_up)
    }

    /// Whether it stands on the side of those that are probed as healthy.
    pub(super) fn is_probed_as_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Takes note of what a probe found.
    pub(super) fn probed(&self, result: Result<(), ProbeError>, thresholds: Thresholds) {
        let Some(series) = &self.series else { return };
        if !self.is_enough(result.is_ok(), thresholds) {
            tracing::debug!(
                serviceName = &*series.service,
                targetURL = &*series.url,
                ?result,
                "a health check said otherwise, and not often enough yet"
            );
            return;
        }
        let was_up = self.up.swap(result.is_ok(), Ordering::Relaxed);
        let (service, url) = (&*series.service, &*series.url);
        match result {
            Ok(()) if was_up => {}
            Ok(()) => {
                series.tell(|| self.is_up());
                tracing::info!(serviceName = service, targetURL = url, "server is up again");
            }
            Err(error) if was_up => {
                series.tell(|| self.is_up());
                tracing::warn!(
                    serviceName = service,
                    targetURL = url,
                    %error,
                    "health check failed, the server is down"
                );
            }
            Err(error) => {
                tracing::debug!(
                    serviceName = service,
                    targetURL = url,
                    %error,
                    "health check failed, the server is still down"
                );
            }
        }
    }

    /// Whether a probe with this result counts: it says what is known, or is the last of so many
    /// that say otherwise.
    fn is_enough(&self, up: bool, Thresholds { rise, fall }: Thresholds) -> bool {
        if up == self.is_probed_as_up() {
            self.contrary.store(0, Ordering::Relaxed);
            return true;
        }
        let contrary = self.contrary.fetch_add(1, Ordering::Relaxed) + 1;
        let enough = contrary >= if up { rise } else { fall };
        if enough {
            self.contrary.store(0, Ordering::Relaxed);
        }
        enough
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
                if !self.up.swap(false, Ordering::Relaxed) {
                    return;
                }
                self.contrary.store(0, Ordering::Relaxed);
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
