//! Metrics under Traefik's names, for Prometheus.
//!
//! Entry points, routers and services get their counters when a table is compiled; a finished
//! exchange only adds to atomics. What no table holds any more leaves after one further scrape.

mod bound;
mod config;
mod limits;
mod overload;
mod process;
mod render;
mod series;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

pub use bound::{ExchangeMetrics, ServerGauge, is_label};
pub use config::{MetricsConfig, PrometheusConfig};
pub use overload::{OverloadMetrics, ResourceMetrics};

use bound::{Counters, Kept, Named, Setup, lock};
use limits::LimitCounts;
use render::{family, labels, sample};
use series::Buckets;

use crate::values::BuildError;

/// The counters of an entry point.
pub type EntryPointMetrics = ExchangeMetrics;
/// The counters of a router.
pub type RouterMetrics = ExchangeMetrics;
/// The counters of a service.
pub type ServiceMetrics = ExchangeMetrics;

/// `Content-Type` of what `Metrics::render` returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Shares of the counters of an entry point, which every request touches.
const ENTRY_POINT_SHARES: usize = 16;
/// Shares of the counters of a router or service, of which there may be thousands.
const TABLE_SHARES: usize = 4;

/// What is known of a certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMetric {
    /// Common name of the subject.
    pub cn: String,
    /// Serial number, in decimal as Go writes it.
    pub serial: String,
    /// Names that it is for, sorted and joined by commas.
    pub sans: String,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
}

/// The registry.
pub struct Metrics {
    prometheus: Option<PrometheusConfig>,
    add_internals: bool,
    setup: Arc<Setup>,
    shares: usize,
    entry_points: Kept<Counters, ExchangeMetrics>,
    routers: Kept<Counters, ExchangeMetrics>,
    services: Kept<Counters, ExchangeMetrics>,
    servers: Kept<AtomicI64, ServerGauge>,
    connections: Mutex<BTreeMap<Box<str>, Vec<Arc<AtomicI64>>>>,
    certificates: Mutex<Vec<CertificateMetric>>,
    reloads: Reloads,
    drops: Mutex<Vec<(&'static str, &'static str, Arc<AtomicU64>)>>,
    bans: OnceLock<Arc<dyn BanCounts>>,
    limits: LimitCounts,
    overload: OnceLock<Arc<OverloadMetrics>>,
}

/// Bans of one middleware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanCount {
    /// Its name.
    pub middleware: String,
    /// Bans so far.
    pub total: u64,
    /// Bans in force.
    pub in_force: usize,
}

/// Counts bans when somebody looks.
pub trait BanCounts: Send + Sync {
    /// The counts of every middleware, in the order of their names.
    fn counts(&self) -> Vec<BanCount>;
}

#[derive(Default)]
struct Reloads {
    total: AtomicU64,
    failures: AtomicU64,
    last_success: AtomicI64,
    last_failure: AtomicI64,
}

/// How many connections of an entry point are open that one worker counts.
#[derive(Clone)]
pub struct OpenConnections(Arc<AtomicI64>);

impl OpenConnections {
    /// Counts one more.
    pub fn opened(&self) -> OpenConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection { gauge: Arc::clone(&self.0) }
    }
}

/// An open connection; closed when it is dropped.
pub struct OpenConnection {
    gauge: Arc<AtomicI64>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// An empty registry. Without `prometheus` it counts nothing by entry point, router or
    /// service.
    pub fn new(config: &MetricsConfig) -> Result<Self, BuildError> {
        config.check()?;
        let prometheus = config.prometheus.clone();
        let defaults = PrometheusConfig::default();
        let options = prometheus.as_ref().unwrap_or(&defaults);
        let setup = Setup {
            buckets: Buckets::new(&options.buckets),
            header_labels: bound::label_headers(options.header_labels.iter()),
        };
        let shares = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            prometheus,
            add_internals: config.add_internals,
            setup: Arc::new(setup),
            shares,
            entry_points: Kept::default(),
            routers: Kept::default(),
            services: Kept::default(),
            servers: Kept::default(),
            connections: Mutex::default(),
            certificates: Mutex::default(),
            reloads: Reloads::default(),
            drops: Mutex::default(),
            bans: OnceLock::new(),
            limits: LimitCounts::default(),
            overload: OnceLock::new(),
        })
    }

    /// The options of Prometheus, when it is on.
    pub fn prometheus(&self) -> Option<&PrometheusConfig> {
        self.prometheus.as_ref()
    }

    /// Whether internal services are counted (`addInternals`).
    pub fn add_internals(&self) -> bool {
        self.add_internals
    }

    /// A copy of those request headers that are labels, for `Observation::headers`.
    /// Empty, and for nothing, unless `headerLabels` is set.
    pub fn capture(&self, headers: &HeaderMap) -> HeaderMap {
        let mut captured = HeaderMap::new();
        for (_, name) in &self.setup.header_labels {
            if let Some(value) = headers.get(name) {
                captured.insert(name.clone(), value.clone());
            }
        }
        captured
    }

    /// Headers that are labels.
    pub fn label_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.setup.header_labels.iter().map(|(_, name)| name)
    }

    /// The counters of the entry point `name`; `None` when entry points are not counted.
    pub fn entry_point(&self, name: &str) -> Option<Arc<EntryPointMetrics>> {
        let on = self.prometheus.as_ref()?.add_entry_points_labels;
        on.then(|| self.bind(&self.entry_points, (name, ""), ENTRY_POINT_SHARES))
    }

    /// The counters of the router `name` with its service; `None` when routers are not counted.
    pub fn router(&self, name: &str, service: &str) -> Option<Arc<RouterMetrics>> {
        let on = self.prometheus.as_ref()?.add_routers_labels;
        on.then(|| self.bind(&self.routers, (name, service), TABLE_SHARES))
    }

    /// The counters of the service `name`; `None` when services are not counted.
    pub fn service(&self, name: &str) -> Option<Arc<ServiceMetrics>> {
        let on = self.prometheus.as_ref()?.add_services_labels;
        on.then(|| self.bind(&self.services, (name, ""), TABLE_SHARES))
    }

    /// The gauge of one server of a service with health checks; shown once it is set, and gone
    /// after one further scrape when it is dropped. `None` when services are not counted.
    pub fn server(&self, service: &str, url: &str) -> Option<Arc<ServerGauge>> {
        self.prometheus.as_ref().filter(|options| options.add_services_labels)?;
        Some(self.servers.bind(
            (service, url),
            || AtomicI64::new(ServerGauge::UNKNOWN),
            ServerGauge::new,
        ))
    }

    fn bind(
        &self,
        kept: &Kept<Counters, ExchangeMetrics>,
        name: (&str, &str),
        most: usize,
    ) -> Arc<ExchangeMetrics> {
        let make = || Counters::new(&self.setup, self.shares.min(most));
        kept.bind(name, make, ExchangeMetrics::new)
    }

    /// Counts connections of `entry_point`, which is listed from now on: besides whoever else counts some, so that
    /// workers do not wait for each other.
    pub fn connections(&self, entry_point: &str) -> OpenConnections {
        let gauge = Arc::new(AtomicI64::new(0));
        let mut connections = lock(&self.connections);
        connections.entry(entry_point.into()).or_default().push(Arc::clone(&gauge));
        OpenConnections(gauge)
    }

    /// Says which certificates are served now.
    pub fn set_certificates(&self, certificates: Vec<CertificateMetric>) {
        *lock(&self.certificates) = certificates;
    }

    /// Takes note of a configuration that is in use now.
    pub fn reload_succeeded(&self) {
        self.reloads.total.fetch_add(1, Ordering::Relaxed);
        self.reloads.last_success.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// Takes note of a configuration that was refused.
    pub fn reload_failed(&self) {
        self.reloads.failures.fetch_add(1, Ordering::Relaxed);
        self.reloads.last_failure.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// Shows how many lines of the access log were dropped: `AccessLog::dropped`.
    pub fn watch_access_log(&self, dropped: Arc<AtomicU64>) {
        let help = "Access log lines dropped because the writer did not keep up.";
        lock(&self.drops).push(("doorward_access_log_dropped_total", help, dropped));
    }

    /// Shows how many lines of the log were dropped: `LogGuard::dropped`.
    pub fn watch_log(&self, dropped: Arc<AtomicU64>) {
        let help = "Log lines dropped because the writer did not keep up.";
        lock(&self.drops).push(("doorward_log_dropped_total", help, dropped));
    }

    /// Shows how many authentications at the admin API have failed: `Admin::failures`.
    pub fn watch_admin(&self, failures: Arc<AtomicU64>) {
        let help = "Failed authentications at the admin API.";
        let name = "doorward_admin_failed_authentications_total";
        lock(&self.drops).push((name, help, failures));
    }

    /// Shows how many bans there are. The first one to be named counts.
    pub fn watch_bans(&self, bans: Arc<dyn BanCounts>) {
        let _ = self.bans.set(bans);
    }

    /// Shows what overload protection does. The first one to be named counts.
    pub fn watch_overload(&self, overload: Arc<OverloadMetrics>) {
        let _ = self.overload.set(overload);
    }

    /// The counter of one limit of clients; shown from then on.
    pub fn limit(&self, name: &'static str) -> Arc<AtomicU64> {
        self.limits.counter(name)
    }

    /// Everything in the text format 0.0.4. Counts as a scrape.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        for (name, help, dropped) in &*lock(&self.drops) {
            family(&mut out, name, "counter", help);
            sample(&mut out, name, "", dropped.load(Ordering::Relaxed));
        }
        process::render(&mut out);
        self.render_reloads(&mut out);
        render::level(&mut out, &render::ENTRY_POINT, &self.entry_points.scrape());
        self.render_connections(&mut out);
        render::level(&mut out, &render::ROUTER, &self.routers.scrape());
        let services = self.services.scrape();
        render::level(&mut out, &render::SERVICE, &services);
        render_retries(&mut out, &services);
        self.render_servers(&mut out);
        self.render_certificates(&mut out);
        self.render_bans(&mut out);
        self.limits.render(&mut out);
        if let Some(overload) = self.overload.get() {
            overload.render(&mut out);
        }
        out
    }

    fn render_reloads(&self, out: &mut String) {
        let load = |value: &AtomicI64| value.load(Ordering::Relaxed);
        let name = "traefik_config_last_reload_failure";
        family(out, name, "gauge", "Last config reload failure");
        sample(out, name, "", load(&self.reloads.last_failure));
        let name = "traefik_config_last_reload_success";
        family(out, name, "gauge", "Last config reload success");
        sample(out, name, "", load(&self.reloads.last_success));
        let name = "traefik_config_reloads_failure_total";
        family(out, name, "counter", "Config reload failures");
        sample(out, name, "", self.reloads.failures.load(Ordering::Relaxed));
        let name = "traefik_config_reloads_total";
        family(out, name, "counter", "Config reloads");
        sample(out, name, "", self.reloads.total.load(Ordering::Relaxed));
    }

    fn render_connections(&self, out: &mut String) {
        let connections = lock(&self.connections);
        let name = "traefik_open_connections";
        if !connections.is_empty() {
            let help = "How many open connections exist, by entryPoint and protocol";
            family(out, name, "gauge", help);
        }
        for (entry_point, gauges) in &*connections {
            let open: i64 = gauges.iter().map(|gauge| gauge.load(Ordering::Relaxed)).sum();
            let labels = labels(&mut [("entrypoint", &**entry_point), ("protocol", "TCP")]);
            sample(out, name, &labels, open);
        }
    }

    fn render_servers(&self, out: &mut String) {
        let name = "traefik_service_server_up";
        let mut servers = self.servers.scrape();
        servers.retain(|(_, up)| up.load(Ordering::Relaxed) != ServerGauge::UNKNOWN);
        if !servers.is_empty() {
            let help = "service server is up, described by gauge value of 0 or 1.";
            family(out, name, "gauge", help);
        }
        for ((service, url), up) in &servers {
            let labels = labels(&mut [("service", &**service), ("url", &**url)]);
            sample(out, name, &labels, up.load(Ordering::Relaxed));
        }
    }

    fn render_bans(&self, out: &mut String) {
        let counts = self.bans.get().map(|bans| bans.counts()).unwrap_or_default();
        if counts.is_empty() {
            return;
        }
        let labels = |count: &BanCount| labels(&mut [("middleware", &*count.middleware)]);
        let name = "doorward_banned";
        family(out, name, "gauge", "How many sources a middleware has banned now.");
        for count in &counts {
            sample(out, name, &labels(count), count.in_force);
        }
        let name = "doorward_bans_total";
        family(out, name, "counter", "How many bans a middleware has made.");
        for count in &counts {
            sample(out, name, &labels(count), count.total);
        }
    }

    fn render_certificates(&self, out: &mut String) {
        let certificates = lock(&self.certificates);
        let name = "traefik_tls_certs_not_after";
        if !certificates.is_empty() {
            family(out, name, "gauge", "Certificate expiration timestamp");
        }
        // Two certificates with the same labels would make the whole scrape invalid.
        let rows: BTreeMap<String, i64> = certificates
            .iter()
            .map(|certificate| {
                let CertificateMetric { cn, serial, sans, not_after } = certificate;
                (labels(&mut [("cn", &**cn), ("serial", &**serial), ("sans", &**sans)]), *not_after)
            })
            .collect();
        for (labels, not_after) in rows {
            sample(out, name, &labels, not_after);
        }
    }
}

fn render_retries(out: &mut String, services: &[Named<Counters>]) {
    let name = "traefik_service_retries_total";
    let mut rows = services.iter().filter(|(_, counters)| counters.retries() > 0).peekable();
    if rows.peek().is_some() {
        family(out, name, "counter", "How many request retries happened on a service.");
    }
    for ((service, _), counters) in rows {
        sample(out, name, &labels(&mut [("service", &**service)]), counters.retries());
    }
}

#[cfg(test)]
mod tests;
