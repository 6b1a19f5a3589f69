//! Options of services, as Traefik's schema has them; their comments are the reference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::upstream::limits::TimeoutsConfig;
use crate::values::{BuildError, GoDuration, is_default};

/// One entry of `http.services`: exactly one kind is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceConfig {
    /// Servers behind a balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerConfig>,
    /// Other services, by weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted: Option<WeightedConfig>,
    /// A service and the one that stands in for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverConfig>,
    /// Other services, by a hash of the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_random_weight: Option<HighestRandomWeightConfig>,
    /// A service, and others that get copies of its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirroring: Option<MirroringConfig>,
    /// Middlewares in front of the service, behind those of routers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub middlewares: Vec<String>,
    /// How long exchanges may take, where the router does not say: Doorward's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsConfig>,
}

impl ServiceConfig {
    /// The kinds that are set, as options.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.load_balancer.is_some(), "loadBalancer"),
            (self.weighted.is_some(), "weighted"),
            (self.failover.is_some(), "failover"),
            (self.highest_random_weight.is_some(), "highestRandomWeight"),
            (self.mirroring.is_some(), "mirroring"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
    }

    /// The kind that is set, as the API names it; `None` when there is none or several.
    pub fn kind(&self) -> Option<String> {
        let mut kinds = self.kinds();
        let kind = kinds.next()?;
        if kinds.next().is_some() { None } else { Some(kind.to_lowercase()) }
    }
}

/// `loadBalancer`: servers that requests are spread over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerConfig {
    /// Cookie affinity. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyConfig>,
    /// The servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerConfig>,
    /// How a server is picked. Default: `wrr`, in turn by weight; `p2c`, the less busy of two;
    /// `hrw`, by a hash of the client's address; `leasttime`, the quickest.
    pub strategy: String,
    /// Active health check. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckConfig>,
    /// Passive health check. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive_health_check: Option<PassiveHealthCheckConfig>,
    /// Pass the client's `Host` on. Default: true; false: host and port of the server's URL.
    pub pass_host_header: bool,
    /// How responses are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_forwarding: Option<ResponseForwardingConfig>,
    /// Name of the servers transport. Default: `default@internal`.
    #[serde(skip_serializing_if = "is_default")]
    pub servers_transport: String,
}

impl Default for LoadBalancerConfig {
    fn default() -> Self {
        Self {
            sticky: None,
            servers: Vec::new(),
            strategy: "wrr".to_owned(),
            health_check: None,
            passive_health_check: None,
            pass_host_header: true,
            response_forwarding: Some(ResponseForwardingConfig::default()),
            servers_transport: String::new(),
        }
    }
}

/// One server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerConfig {
    /// `http://`, `https://` or `h2c://`, host and port.
    pub url: String,
    /// Share of the requests. Default: 1; zero or less: never chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Put the URL's path in front of the request's. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub preserve_path: bool,
}

/// `responseForwarding`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResponseForwardingConfig {
    /// Accepted for Traefik's sake: bytes are always passed on as they come. Default: 100ms.
    pub flush_interval: GoDuration,
}

impl Default for ResponseForwardingConfig {
    fn default() -> Self {
        Self { flush_interval: GoDuration::from_millis(100) }
    }
}

/// `sticky`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StickyConfig {
    /// Affinity by cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<StickyCookieConfig>,
}

/// `sticky.cookie`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StickyCookieConfig {
    /// Name. Default: `_` and five hexadecimal digits made of the service's name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// `Secure`. Default: false.
    #[serde(skip_serializing_if = "is_default")]
    pub secure: bool,
    /// `HttpOnly`. Default: false; always with `core.profile: hardened`.
    #[serde(skip_serializing_if = "is_default")]
    pub http_only: bool,
    /// `none`, `lax` or `strict`, in any case. Default: no attribute.
    #[serde(skip_serializing_if = "is_default")]
    pub same_site: String,
    /// Seconds. Default: 0, a session cookie; negative: `Max-Age=0`.
    #[serde(skip_serializing_if = "is_default")]
    pub max_age: i64,
    /// Path. Default: `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Domain. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub domain: String,
}

/// `healthCheck`: probes that we send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthCheckConfig {
    /// Scheme of the probe. Default: the server URL's.
    #[serde(skip_serializing_if = "is_default")]
    pub scheme: String,
    /// `http` (default) or `grpc`: the standard health service of gRPC, for which path, method,
    /// status, headers and hostname say nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    /// Path and query, resolved against the server's URL.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Method. Default: GET.
    #[serde(skip_serializing_if = "is_default")]
    pub method: String,
    /// Status that means healthy. Default: 0, anything from 200 to 399.
    #[serde(skip_serializing_if = "is_default")]
    pub status: u16,
    /// Port of the probe. Default: 0, the server URL's.
    #[serde(skip_serializing_if = "is_default")]
    pub port: u16,
    /// From one round to the next. Default: 30s; zero or less: 30s.
    pub interval: GoDuration,
    /// The same for servers that are down. Default: `interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_interval: Option<GoDuration>,
    /// For one probe. Default: 5s; zero or less: 5s.
    pub timeout: GoDuration,
    /// `Host` of the probe. Default: the server URL's.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    /// Follow redirects. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_redirects: Option<bool>,
    /// Headers of the probe.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Doorward's own: as many probes have to succeed one after the other before a server that is
    /// down is used again. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Doorward's own: as many probes have to fail one after the other before a server is taken
    /// out. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            scheme: String::new(),
            mode: "http".to_owned(),
            path: String::new(),
            method: String::new(),
            status: 0,
            port: 0,
            interval: GoDuration::from_secs(30),
            unhealthy_interval: None,
            timeout: GoDuration::from_secs(5),
            hostname: String::new(),
            follow_redirects: Some(true),
            headers: BTreeMap::new(),
            rise: None,
            fall: None,
        }
    }
}

/// `passiveHealthCheck`: what the traffic itself tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PassiveHealthCheckConfig {
    /// Failures count for this long, and a server stays down for this long. Default: 10s.
    pub failure_window: GoDuration,
    /// As many failures inside the window take a server out. Default: 1.
    pub max_failed_attempts: u32,
}

impl Default for PassiveHealthCheckConfig {
    fn default() -> Self {
        Self { failure_window: GoDuration::from_secs(10), max_failed_attempts: 1 }
    }
}

impl PassiveHealthCheckConfig {
    /// Values that are taken as others.
    pub(super) fn oddities(&self) -> Vec<BuildError> {
        let mut oddities = Vec::new();
        if self.failure_window.positive().is_none() {
            let used = Self::default().failure_window;
            let message = format!("`failureWindow` is not more than zero, {used} is used instead");
            oddities.push(BuildError::at("passiveHealthCheck.failureWindow", message));
        }
        if self.max_failed_attempts == 0 {
            let message = "`maxFailedAttempts` is 0, which means 1";
            oddities.push(BuildError::at("passiveHealthCheck.maxFailedAttempts", message));
        }
        oddities
    }
}

/// `weighted`: other services by weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightedConfig {
    /// The services.
    pub services: Vec<WeightedServiceConfig>,
    /// Cookie affinity. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyConfig>,
    /// Present: a child that is down is left out, and a parent is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<PropagationConfig>,
}

/// `highestRandomWeight`: other services, one of which a client always gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HighestRandomWeightConfig {
    /// The services.
    pub services: Vec<WeightedServiceConfig>,
    /// Present: a child that is down is left out, and a parent is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<PropagationConfig>,
}

/// One child of `weighted` or `highestRandomWeight`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightedServiceConfig {
    /// Name of the service.
    pub name: String,
    /// Share of the requests, or of the clients. Default: 1; zero or less: never chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
}

impl Default for WeightedServiceConfig {
    fn default() -> Self {
        Self { name: String::new(), weight: Some(1) }
    }
}

/// `mirroring`: a service, and others that get copies of its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MirroringConfig {
    /// The service that answers. Required.
    pub service: String,
    /// Send the body along. Default: true.
    pub mirror_body: bool,
    /// Longest body that is copied; requests with a longer one are not mirrored. Default: -1, any.
    pub max_body_size: i64,
    /// Who gets copies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorConfig>,
    /// Present: a parent is told of the health of `service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<PropagationConfig>,
}

impl Default for MirroringConfig {
    fn default() -> Self {
        Self {
            service: String::new(),
            mirror_body: true,
            max_body_size: -1,
            mirrors: Vec::new(),
            health_check: None,
        }
    }
}

/// One mirror.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MirrorConfig {
    /// Name of the service.
    pub name: String,
    /// Share of the requests that it gets, 0 to 100. Default: 0.
    #[serde(skip_serializing_if = "is_default")]
    pub percent: i64,
}

/// `failover`: a service and the one that stands in for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FailoverConfig {
    /// The main service. Required; without `errors.status` it must have a health check.
    pub service: String,
    /// The service that stands in. Required.
    pub fallback: String,
    /// Present: a parent is told when both are down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<PropagationConfig>,
    /// Answers of the main service that are a reason to ask the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<FailoverErrorsConfig>,
}

/// `failover.errors`: failover by status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FailoverErrorsConfig {
    /// Longest body that is kept for the second try; a longer one is refused. -1: any. Default: -1, in
    /// the hardened profile 2 MiB.
    #[serde(serialize_with = "or_any")]
    pub max_request_body_bytes: Option<i64>,
    /// Statuses: `503` or `500-599`, one per item. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
}

/// The API shows what Traefik's shows.
#[expect(clippy::ref_option, reason = "serde hands fields over so")]
fn or_any<S: Serializer>(bytes: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(bytes.unwrap_or(-1))
}

/// `healthCheck: {}` of a service made of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PropagationConfig {}
