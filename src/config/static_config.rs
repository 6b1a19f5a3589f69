//! `StaticConfig`: what is read once at the start. Names and defaults are Traefik's; Doorward's own options stand in
//! `core`, `admin` and `limits`, and as `http.maxHeaderFields` at entry points.
//!
//! What Traefik has and Doorward does not serve yet is no field here: `not_supported` takes it out of the tree, with
//! an error, before the tree is decoded.

use std::collections::BTreeMap;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::admin::AdminConfig;
use crate::config::diagnostics::did_you_mean;
use crate::config::entry_points::EntryPointConfig;
use crate::config::limits::LimitsConfig;
use crate::config::resolvers::CertificatesResolverConfig;
use crate::entry_point::HostResolverConfig;
use crate::observability::access_log::AccessLogConfig;
use crate::observability::log::LogConfig;
use crate::observability::metrics::MetricsConfig;
use crate::provider::file::FileProviderConfig;
use crate::upstream::{Proxies, StaticServersTransportConfig};
use crate::values::{GoDuration, Profile, is_default};

/// The whole static configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StaticConfig {
    /// Read for Traefik's sake.
    pub global: GlobalConfig,
    /// How the whole behaves.
    pub core: CoreConfig,
    /// Traefik's switches for what is new.
    pub experimental: ExperimentalConfig,
    /// Connections to servers whose services name no transport.
    pub servers_transport: StaticServersTransportConfig,
    /// Where requests come in.
    pub entry_points: BTreeMap<String, EntryPointConfig>,
    /// Where dynamic configuration comes from.
    pub providers: ProvidersConfig,
    /// API and dashboard. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiConfig>,
    /// The API that changes things, Doorward's own. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminConfig>,
    /// `/ping`. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<PingConfig>,
    /// Doorward's own log. Absent: the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
    /// A line for every request. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogConfig>,
    /// Metrics. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsConfig>,
    /// What hosts are aliases of, for rules to compare too. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_resolver: Option<HostResolverConfig>,
    /// How much clients may take, one and all together: Doorward's own.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: LimitsConfig,
    /// Where certificates come from that nobody gave us.
    #[serde(skip_serializing_if = "is_default")]
    pub certificates_resolvers: BTreeMap<String, CertificatesResolverConfig>,
    /// The proxies that servers are reached through. No option: `HTTP_PROXY` and its like say it.
    #[serde(skip)]
    pub proxies: Proxies,
}

/// `global`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GlobalConfig {
    /// Accepted without effect: Doorward never calls home.
    pub check_new_version: bool,
    /// Accepted without effect: Doorward never calls home.
    pub send_anonymous_usage: bool,
    /// Do not add the peer to `X-Forwarded-For`, at any entry point. Documented in Traefik, where nothing reads it.
    #[serde(skip_serializing_if = "is_default")]
    pub not_append_x_forwarded_for: bool,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            check_new_version: true,
            send_anonymous_usage: false,
            not_append_x_forwarded_for: false,
        }
    }
}

/// `core`. But for `defaultRuleSyntax`, these options are Doorward's own: the profile, and one switch for each
/// difference from Traefik, which wins over the profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CoreConfig {
    /// `v3`, which is also the default, or `v2`: for routers that do not say it themselves.
    #[serde(skip_serializing_if = "is_default")]
    pub default_rule_syntax: String,
    /// How far Doorward may differ from Traefik. Default: `safe`.
    pub profile: Profile,
    /// What a router does whose configuration is wrong. Default: `503`; `skip` under `exact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_broken_router: Option<OnBrokenRouter>,
    /// Threads that serve requests. Default: the cores that the machine or its cgroup allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Routers that want different TLS options for one host are broken, where Traefik serves all of them with the
    /// default options and so without client certificates (CVE-2026-85597). Default: on; off under `exact`.
    #[serde(rename = "strictTLSOptions", skip_serializing_if = "Option::is_none")]
    pub strict_tls_options: Option<bool>,
    /// `underscoreHeadersStrategy` means every character but letters, digits and `-`, not only `_`
    /// (CVE-2026-88011). Default: on under `hardened`, else off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_headers: Option<bool>,
}

/// What a router does whose configuration is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnBrokenRouter {
    /// It answers 503 to the requests that are its own.
    #[default]
    #[serde(rename = "503")]
    Unavailable,
    /// It goes on as it was when it last was right; 503 if it never was.
    #[serde(rename = "lastGood", alias = "lastgood")]
    LastGood,
    /// It is left out, so that its requests go to other routers, as in Traefik.
    #[serde(rename = "skip")]
    Skip,
}

/// The differences from Traefik that are on, after profile and switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differences {
    /// See [`CoreConfig::on_broken_router`].
    pub on_broken_router: OnBrokenRouter,
    /// See [`CoreConfig::strict_tls_options`].
    pub strict_tls_options: bool,
    /// See [`CoreConfig::alias_headers`].
    pub alias_headers: bool,
}

impl CoreConfig {
    /// The differences from Traefik that are on.
    pub fn differences(&self) -> Differences {
        let safe = self.profile != Profile::Exact;
        let broken = if safe { OnBrokenRouter::Unavailable } else { OnBrokenRouter::Skip };
        Differences {
            on_broken_router: self.on_broken_router.unwrap_or(broken),
            strict_tls_options: self.strict_tls_options.unwrap_or(safe),
            alias_headers: self.alias_headers.unwrap_or(self.profile == Profile::Hardened),
        }
    }

    /// How many threads serve requests.
    pub fn workers(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(cores).max(1)
    }
}

/// `experimental`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExperimentalConfig {
    /// Accepted without effect: there are no plugins.
    #[serde(skip_serializing_if = "is_default")]
    pub abort_on_plugin_failure: bool,
    /// Accepted without effect: there is one way to the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_proxy: Option<FastProxyConfig>,
    /// Accepted without effect, as in Traefik.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes_gateway: bool,
    /// Accepted without effect, as in Traefik.
    #[serde(rename = "kubernetesIngressNGINX", skip_serializing_if = "is_default")]
    pub kubernetes_ingress_nginx: bool,
}

/// `experimental.fastProxy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FastProxyConfig {
    /// Accepted without effect.
    #[serde(skip_serializing_if = "is_default")]
    pub debug: bool,
}

/// `providers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProvidersConfig {
    /// How long changes are collected before they are taken over. Default: 2s.
    pub providers_throttle_duration: GoDuration,
    /// Which provider's router wins when rule and priority are the same. Default: [`PRECEDENCE`].
    pub precedence: Vec<String>,
    /// Files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileProviderConfig>,
}

/// Every name that `providers.precedence` may have, in the documented order.
pub const PRECEDENCE: [&str; 17] = [
    "kubernetesgateway",
    "kubernetescrd",
    "kubernetes",
    "kubernetesingressnginx",
    "swarm",
    "docker",
    "file",
    "redis",
    "knative",
    "consul",
    "consulcatalog",
    "nomad",
    "etcd",
    "ecs",
    "http",
    "zookeeper",
    "rest",
];

impl Default for ProvidersConfig {
    fn default() -> Self {
        Self {
            providers_throttle_duration: GoDuration::from_secs(2),
            precedence: PRECEDENCE.map(str::to_owned).to_vec(),
            file: None,
        }
    }
}

/// `api`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiConfig {
    /// Path that API and dashboard stand below. Default: `/`.
    pub base_path: String,
    /// Serve them without a router at the entry point `traefik`, without authentication.
    #[serde(skip_serializing_if = "is_default")]
    pub insecure: bool,
    /// Serve the dashboard. Default: true.
    pub dashboard: bool,
    /// Go's debug endpoints, which there is nothing like here: `true` is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub debug: bool,
    /// Accepted without effect: the dashboard has no advertisement.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_dashboard_ad: bool,
    /// Name that the dashboard shows.
    #[serde(skip_serializing_if = "is_default")]
    pub dashboard_name: String,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            base_path: "/".to_owned(),
            insecure: false,
            dashboard: true,
            debug: false,
            disable_dashboard_ad: false,
            dashboard_name: String::new(),
        }
    }
}

/// `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PingConfig {
    /// Entry point that serves `/ping`. Default: `traefik`.
    pub entry_point: String,
    /// Do not serve `/ping`: a router names `ping@internal`.
    #[serde(skip_serializing_if = "is_default")]
    pub manual_routing: bool,
    /// Answer while the process stops. Default: 503.
    pub terminating_status_code: u16,
}

impl Default for PingConfig {
    fn default() -> Self {
        Self {
            entry_point: TRAEFIK.to_owned(),
            manual_routing: false,
            terminating_status_code: 503,
        }
    }
}

/// The entry point that API, `/ping` and `/metrics` stand at when nothing else is said.
pub const TRAEFIK: &str = "traefik";

/// The sections that a static document may begin with, and those that are refused later.
const ROOTS: [&str; 20] = [
    "global",
    "core",
    "experimental",
    "serversTransport",
    "tcpServersTransport",
    "entryPoints",
    "providers",
    "api",
    "admin",
    "ping",
    "log",
    "accessLog",
    "metrics",
    "tracing",
    "hostResolver",
    "limits",
    "certificatesResolvers",
    "spiffe",
    "ocsp",
    "pilot",
];

/// Whether a root key, in whatever case, is a section of static configuration.
pub fn is_static_root(key: &str) -> bool {
    ROOTS.iter().any(|root| root.eq_ignore_ascii_case(key))
}

/// The section that was probably meant by a misspelt root key.
pub(crate) fn similar_static_root(key: &str) -> Option<&'static str> {
    did_you_mean(key, ROOTS)
}

impl StaticConfig {
    /// Adds what is implied: the entry points `http` and `traefik`, and the defaults that follow from the profile.
    pub fn complete(&mut self) {
        if self.entry_points.is_empty() {
            self.entry_points.insert("http".to_owned(), EntryPointConfig::at(":80"));
        }
        if self.needs_traefik() && !self.entry_points.contains_key(TRAEFIK) {
            self.entry_points.insert(TRAEFIK.to_owned(), EntryPointConfig::at(":8080"));
        }
        for entry_point in self.entry_points.values_mut() {
            entry_point.complete(self.core.profile);
        }
        for name in &mut self.providers.precedence {
            *name = name.to_lowercase();
        }
    }

    /// Whether something is served at the entry point `traefik`.
    fn needs_traefik(&self) -> bool {
        let prometheus = self.metrics.as_ref().and_then(|metrics| metrics.prometheus.as_ref());
        self.api.as_ref().is_some_and(|api| api.insecure)
            || self
                .ping
                .as_ref()
                .is_some_and(|ping| ping.entry_point == TRAEFIK && !ping.manual_routing)
            || prometheus
                .is_some_and(|metrics| metrics.entry_point == TRAEFIK && !metrics.manual_routing)
    }

    /// Names of the entry points that routers without `entryPoints` listen at, sorted.
    pub fn default_entry_points(&self) -> Vec<&str> {
        let chosen = self.entry_points.values().any(|entry_point| entry_point.as_default);
        let wanted = |(name, entry_point): &(&String, &EntryPointConfig)| {
            name.as_str() != TRAEFIK && (entry_point.as_default || !chosen)
        };
        self.entry_points.iter().filter(wanted).map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &StaticConfig) -> Vec<(&str, &str)> {
        config.entry_points.iter().map(|(name, at)| (&**name, &*at.address)).collect()
    }

    #[test]
    fn an_entry_point_is_there_even_when_none_is_written() {
        let mut config = StaticConfig::default();
        config.complete();
        assert_eq!(names(&config), [("http", ":80")]);
    }

    /// RP-3.5.2
    #[test]
    fn providers_have_traefiks_order() {
        let names = "kubernetesgateway kubernetescrd kubernetes kubernetesingressnginx swarm docker \
                     file redis knative consul consulcatalog nomad etcd ecs http zookeeper rest";
        assert_eq!(PRECEDENCE.join(" "), names);
    }

    #[test]
    fn the_entry_point_traefik_appears_when_something_needs_it() {
        let completed = |config: StaticConfig| {
            let mut config = config;
            config.entry_points.insert("web".to_owned(), EntryPointConfig::at(":81"));
            config.complete();
            let found = config.entry_points.get(TRAEFIK);
            assert!(found.is_none_or(|entry_point| entry_point.address == ":8080"));
            found.is_some()
        };
        let api = |insecure| Some(ApiConfig { insecure, ..ApiConfig::default() });
        assert!(completed(StaticConfig { api: api(true), ..StaticConfig::default() }));
        assert!(!completed(StaticConfig { api: api(false), ..StaticConfig::default() }));
        let ping = |entry_point: &str, manual_routing| {
            let entry_point = entry_point.to_owned();
            Some(PingConfig { entry_point, manual_routing, ..PingConfig::default() })
        };
        let metrics = |entry_point: &str, manual_routing| {
            let text = format!(
                r#"{{"prometheus": {{"entryPoint": "{entry_point}", "manualRouting": {manual_routing}}}}}"#
            );
            Some(serde_json::from_str(&text).unwrap())
        };
        for (entry_point, manual, appears) in
            [("traefik", false, true), ("traefik", true, false), ("web", false, false)]
        {
            let config =
                StaticConfig { ping: ping(entry_point, manual), ..StaticConfig::default() };
            assert_eq!(completed(config), appears, "{entry_point} {manual}");
            let config =
                StaticConfig { metrics: metrics(entry_point, manual), ..StaticConfig::default() };
            assert_eq!(completed(config), appears, "{entry_point} {manual}");
        }
    }

    #[test]
    fn a_written_entry_point_traefik_stays() {
        let mut config =
            StaticConfig { ping: Some(PingConfig::default()), ..StaticConfig::default() };
        config.entry_points.insert(TRAEFIK.to_owned(), EntryPointConfig::at(":9000"));
        config.complete();
        assert_eq!(names(&config), [("traefik", ":9000")]);
    }

    #[test]
    fn default_entry_points_never_hold_traefik() {
        let mut config = StaticConfig::default();
        for name in ["web", "a", TRAEFIK] {
            config.entry_points.insert(name.to_owned(), EntryPointConfig::at(":0"));
        }
        assert_eq!(config.default_entry_points(), ["a", "web"]);
        for name in ["web", TRAEFIK] {
            config.entry_points.get_mut(name).unwrap().as_default = true;
        }
        assert_eq!(config.default_entry_points(), ["web"]);
    }

    #[test]
    fn switches_win_over_the_profile() {
        let core = |profile| CoreConfig { profile, ..CoreConfig::default() };
        let exact = core(Profile::Exact).differences();
        assert_eq!(exact.on_broken_router, OnBrokenRouter::Skip);
        assert!(!exact.strict_tls_options && !exact.alias_headers);
        let safe = core(Profile::Safe).differences();
        assert_eq!(safe.on_broken_router, OnBrokenRouter::Unavailable);
        assert!(safe.strict_tls_options && !safe.alias_headers);
        assert!(core(Profile::Hardened).differences().alias_headers);
        let mixed = CoreConfig {
            strict_tls_options: Some(true),
            on_broken_router: Some(OnBrokenRouter::LastGood),
            ..core(Profile::Exact)
        };
        assert!(mixed.differences().strict_tls_options);
        assert_eq!(mixed.differences().on_broken_router, OnBrokenRouter::LastGood);
    }

    #[test]
    fn there_is_at_least_one_worker() {
        assert!(CoreConfig::default().workers() >= 1);
        assert_eq!(CoreConfig { workers: Some(3), ..CoreConfig::default() }.workers(), 3);
    }

    #[test]
    fn every_section_is_a_root() {
        let sections = serde_json::to_value(StaticConfig::default()).unwrap();
        for key in sections.as_object().unwrap().keys() {
            assert!(is_static_root(key) && is_static_root(&key.to_lowercase()), "{key}");
        }
        assert!(!is_static_root("http") && !is_static_root("x-anchors"));
    }
}
