//! Whether servers are up: what probes found, what the traffic shows, and who carries probes out.
//!
//! A server's condition is a few atomics that requests read. It belongs to the server of a service
//! with its health check settings and outlives a reload as long as these stay; a server that nobody
//! has looked at yet is up.

mod condition;
pub mod grpc;
mod monitor;
mod passive;
mod plan;
mod probe;
mod reference;

pub use condition::ServerGauge;
pub use monitor::HealthMonitor;
pub use plan::HealthPlan;

pub(super) use condition::{Series, ServerHealth};
pub(super) use passive::PassiveSettings;

use super::PassiveHealthCheckConfig;

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
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::condition::Thresholds;
    use super::probe::ProbeError;
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
                health.probed(health.is_probed_as_up(), result, thresholds);
            }
            assert_eq!(health.is_up(), up, "{results}");
            assert_eq!(gauge.value("s@file", "http://a"), Some(up), "{results}");
        }
        // The traffic takes it out between two probes: what they said before does not count.
        health.observe(true);
        health.observe(true);
        assert!(!health.is_up());
        for up in [false, false, true] {
            health.probed(health.is_probed_as_up(), Ok(()), thresholds);
            assert_eq!(health.is_up(), up);
        }
        // What a probe says that was on its way then does not count either.
        assert!(health.is_up());
        health.observe(true);
        health.observe(true);
        health.probed(true, Ok(()), AT_ONCE);
        assert!(!health.is_up());
        health.probed(false, Ok(()), AT_ONCE);
        assert!(health.is_up());
        // Zero is one.
        health.probed(health.is_probed_as_up(), failed(), Thresholds { rise: 0, fall: 0 });
        assert!(!health.is_up());
    }

    #[test]
    fn one_probe_decides_both_ways() {
        let gauge = Arc::new(Gauge::default());
        let health = server(&gauge, "http://a", true, None);
        assert!(health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(true));
        health.probed(health.is_probed_as_up(), Err(ProbeError::Timeout), AT_ONCE);
        assert!(!health.is_up());
        assert_eq!(gauge.value("s@file", "http://a"), Some(false));
        health.probed(health.is_probed_as_up(), Ok(()), AT_ONCE);
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
        health.probed(health.is_probed_as_up(), Ok(()), AT_ONCE);
        assert!(health.is_up());
    }
}
