//! Whether servers are up: what probes found, what the traffic shows, and who carries probes out.
//!
//! A server's condition is a few atomics that requests read. It belongs to the server of a service
//! with its health check settings and outlives a reload as long as these stay; a server that nobody
//! has looked at yet is up.

mod grpc;
mod monitor;
mod passive;
mod plan;
mod probe;
mod reference;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub use monitor::HealthMonitor;
pub use plan::HealthPlan;

pub(super) use passive::PassiveSettings;

use super::PassiveHealthCheckConfig;
use passive::{Passive, Verdict};
use plan::Thresholds;
use probe::ProbeError;

/// Where `traefik_service_server_up` is counted.
pub trait ServerGauge: Send + Sync {
    /// Says that a server of a service is up or down.
    fn set(&self, service: &str, url: &str, up: bool);
    /// Says that a service does not have this server any more.
    fn remove(&self, service: &str, url: &str);
}

/// One line of the gauge, which is gone when the last that speaks through it is gone.
pub(super) struct Series {
    service: Arc<str>,
    url: Arc<str>,
    gauge: Arc<dyn ServerGauge>,
}

impl Series {
    /// The line of a server. `url` must not hold secrets.
    pub(super) fn new(service: Arc<str>, url: Arc<str>, gauge: Arc<dyn ServerGauge>) -> Self {
        Self { service, url, gauge }
    }

    fn set(&self, up: bool) {
        self.gauge.set(&self.service, &self.url, up);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.gauge.remove(&self.service, &self.url);
    }
}

/// The condition of one server of one service.
pub(super) struct ServerHealth {
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
    pub(super) fn new(
        probed: bool,
        passive: Option<PassiveSettings>,
        series: Option<Arc<Series>>,
    ) -> Self {
        if let Some(series) = &series {
            series.set(true);
        }
        let passive = passive.map(|settings| Passive::new(settings, probed));
        Self { up: AtomicBool::new(true), contrary: AtomicU32::new(0), passive, series }
    }

    /// Whether requests may be sent to it.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && self.passive.as_ref().is_none_or(Passive::is_up)
    }

    /// Whether it stands on the side of those that are probed as healthy.
    fn is_probed_as_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Takes note of what a probe found.
    fn probed(&self, result: Result<(), ProbeError>, thresholds: Thresholds) {
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
                series.set(true);
                tracing::info!(serviceName = service, targetURL = url, "server is up again");
            }
            Err(error) if was_up => {
                series.set(false);
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
    pub(super) fn is_passive(&self) -> bool {
        self.passive.is_some()
    }

    /// Takes note of how a request went.
    pub(super) fn observe(self: &Arc<Self>, failed: bool) {
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
        series.set(false);
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
            if let Some(health) = health.upgrade()
                && health.is_up()
                && let Some(series) = &health.series
            {
                series.set(true);
                tracing::info!(
                    serviceName = &*series.service,
                    targetURL = &*series.url,
                    "server may be tried again"
                );
            }
        });
    }
}

impl From<&PassiveHealthCheckConfig> for PassiveSettings {
    fn from(config: &PassiveHealthCheckConfig) -> Self {
        let default = PassiveHealthCheckConfig::default();
        Self {
            window: config
                .failure_window
                .positive()
                .unwrap_or_else(|| default.failure_window.or_zero()),
            max_failures: config.max_failed_attempts.max(1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Keeps what the gauge was told.
    #[derive(Default)]
    pub(in crate::service) struct Gauge(Mutex<BTreeMap<(String, String), bool>>);

    impl Gauge {
        pub(in crate::service) fn value(&self, service: &str, url: &str) -> Option<bool> {
            let key = (service.to_owned(), url.to_owned());
            self.0.lock().unwrap().get(&key).copied()
        }
    }

    impl ServerGauge for Gauge {
        fn set(&self, service: &str, url: &str, up: bool) {
            self.0.lock().unwrap().insert((service.to_owned(), url.to_owned()), up);
        }

        fn remove(&self, service: &str, url: &str) {
            self.0.lock().unwrap().remove(&(service.to_owned(), url.to_owned()));
        }
    }

    /// RP-5.5.17, RP-15.14
    #[test]
    fn passive_checks_have_traefiks_defaults() {
        let config: PassiveHealthCheckConfig = serde_json::from_str("{}").unwrap();
        let none = PassiveHealthCheckConfig {
            failure_window: crate::values::GoDuration::ZERO,
            max_failed_attempts: 0,
        };
        for config in [config, none] {
            let settings = PassiveSettings::from(&config);
            assert_eq!((settings.window, settings.max_failures), (Duration::from_secs(10), 1));
        }
    }

    pub(in crate::service) fn server(
        gauge: &Arc<Gauge>,
        url: &str,
        probed: bool,
        passive: Option<PassiveSettings>,
    ) -> Arc<ServerHealth> {
        let gauge: Arc<dyn ServerGauge> = Arc::<Gauge>::clone(gauge);
        let series = Some(Arc::new(Series::new("s@file".into(), url.into(), gauge)));
        Arc::new(ServerHealth::new(probed, passive, series))
    }

    const TWICE: PassiveSettings =
        PassiveSettings { window: Duration::from_secs(10), max_failures: 2 };

    const AT_ONCE: Thresholds = Thresholds { rise: 1, fall: 1 };

    /// F-17
    #[test]
    fn so_many_probes_in_a_row_decide() {
        let gauge = Arc::new(Gauge::default());
        let failed = || Err(ProbeError::Timeout);
        let thresholds = Thresholds { rise: 3, fall: 2 };
        let health = server(&gauge, "http://a", true, Some(TWICE));
        for (results, up) in
            [("-+-+-+", true), ("--", false), ("++-++-++", false), ("+", true), ("-", true)]
        {
            for result in results.chars() {
                let result = if result == '+' { Ok(()) } else { failed() };
                health.probed(result, thresholds);
            }
            assert_eq!(health.is_up(), up, "{results}");
            assert_eq!(gauge.value("s@file", "http://a"), Some(up), "{results}");
        }
        // The traffic takes it out between two probes: what they said before does not count.
        health.observe(true);
        health.observe(true);
        assert!(!health.is_up());
        for up in [false, false, true] {
            health.probed(Ok(()), thresholds);
            assert_eq!(health.is_up(), up);
        }
        // Zero is one.
        health.probed(failed(), Thresholds { rise: 0, fall: 0 });
        assert!(!health.is_up());
    }

    #[test]
    fn one_probe_decides_both_ways() {
        let gauge = Arc::new(Gauge::default());
        let health = server(&gauge, "http://a", true, None);
        assert!(health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(true));
        health.probed(Err(ProbeError::Timeout), AT_ONCE);
        assert!(!health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(false));
        health.probed(Ok(()), AT_ONCE);
        assert!(health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(true));
        drop(health);
        assert_eq!(gauge.value("s@file", "http://a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_take_a_server_out_for_the_window() {
        let gauge = Arc::new(Gauge::default());
        let health = server(&gauge, "http://a", false, Some(TWICE));
        health.observe(true);
        assert!(health.is_up());
        health.observe(true);
        assert!(!health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(false));
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!health.is_up());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_and_time_forgive() {
        let gauge = Arc::new(Gauge::default());
        let health = server(&gauge, "http://a", false, Some(TWICE));
        health.observe(true);
        health.observe(false);
        health.observe(true);
        assert!(health.is_up());
        tokio::time::sleep(Duration::from_secs(11)).await;
        health.observe(true);
        assert!(health.is_up());
        health.observe(true);
        assert!(!health.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn with_probes_it_is_a_probe_that_brings_a_server_back() {
        let gauge = Arc::new(Gauge::default());
        let health = server(&gauge, "http://a", true, Some(TWICE));
        health.observe(true);
        health.observe(true);
        assert!(!health.is_up());
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!health.is_up());
        assert!(!health.is_probed_as_up());
        health.probed(Ok(()), AT_ONCE);
        assert!(health.is_up());
    }
}
