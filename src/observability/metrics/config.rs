//! Options of `metrics`, with Traefik's names and defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::values::{BuildError, Unsupported};

/// `metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricsConfig {
    /// Count exchanges with internal services too.
    pub add_internals: bool,
    /// Prometheus. Unset: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusConfig>,
    /// Datadog, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datadog: Option<Unsupported>,
    /// StatsD, not served yet.
    #[serde(rename = "statsD", skip_serializing_if = "Option::is_none")]
    pub stats_d: Option<Unsupported>,
    /// InfluxDB 2, not served yet.
    #[serde(rename = "influxDB2", skip_serializing_if = "Option::is_none")]
    pub influx_db2: Option<Unsupported>,
    /// OpenTelemetry, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Unsupported>,
}

impl MetricsConfig {
    /// Refuses what is not served.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        for (name, option) in [
            ("datadog", self.datadog),
            ("statsD", self.stats_d),
            ("influxDB2", self.influx_db2),
            ("otlp", self.otlp),
        ] {
            if option.is_some() {
                return Err(BuildError::unsupported(name));
            }
        }
        Ok(())
    }
}

/// `metrics.prometheus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PrometheusConfig {
    /// Upper bounds of the duration histograms, in seconds.
    pub buckets: Vec<f64>,
    /// Count by entry point.
    pub add_entry_points_labels: bool,
    /// Count by router.
    pub add_routers_labels: bool,
    /// Count by service.
    pub add_services_labels: bool,
    /// Entry point that serves `/metrics`.
    pub entry_point: String,
    /// Do not serve `/metrics`: a router names `prometheus@internal`.
    pub manual_routing: bool,
    /// Label and the request header that it is taken from.
    pub header_labels: BTreeMap<String, String>,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            buckets: vec![0.1, 0.3, 1.2, 5.0],
            add_entry_points_labels: true,
            add_routers_labels: false,
            add_services_labels: true,
            entry_point: "traefik".to_owned(),
            manual_routing: false,
            header_labels: BTreeMap::new(),
        }
    }
}
