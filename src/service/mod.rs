//! Traefik's services: which kind, which options, and what they need to be built.

mod composite;
pub mod health;
mod load_balancer;
mod sticky;
mod strategy;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use health::ServerGauge;
pub(crate) use load_balancer::without_credentials;

use composite::{Failover, Weighted};
use load_balancer::LoadBalancer;

use crate::exchange::{Handler, Observer};
use crate::state::SharedState;
use crate::upstream::ServersTransport;
use crate::values::{BuildError, GoDuration, Profile, QualifiedName, Unsupported, is_default};

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
    /// `highestRandomWeight`, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_random_weight: Option<Unsupported>,
    /// `mirroring`, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirroring: Option<Unsupported>,
    /// Middlewares of the service; not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub middlewares: Option<Vec<String>>,
}

impl ServiceConfig {
    /// The kind that is set, as the API names it; `None` when there is none or several.
    pub fn kind(&self) -> Option<&'static str> {
        let kinds = [
            (self.load_balancer.is_some(), "loadbalancer"),
            (self.weighted.is_some(), "weighted"),
            (self.failover.is_some(), "failover"),
            (self.highest_random_weight.is_some(), "highestrandomweight"),
            (self.mirroring.is_some(), "mirroring"),
        ];
        let mut set = kinds.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
        let kind = set.next();
        if set.next().is_some() { None } else { kind }
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
    /// `wrr` (default) or `p2c`; `hrw` and `leasttime` are not served yet.
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
    /// `http` (default); `grpc` is not served yet.
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

/// One child of `weighted`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightedServiceConfig {
    /// Name of the service.
    pub name: String,
    /// Share of the requests. Default: 1; zero or less: never chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
}

/// `failover`: a service and the one that stands in for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FailoverConfig {
    /// The main service. Required; it must have a health check.
    pub service: String,
    /// The service that stands in. Required.
    pub fallback: String,
    /// Present: a parent is told when both are down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<PropagationConfig>,
    /// Failover by status, not served yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Unsupported>,
}

/// `healthCheck: {}` of a service made of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PropagationConfig {}

/// Builds, or finds, a service by the name as it is written in another service.
pub type FindService<'a> = dyn FnMut(&str) -> Result<Arc<dyn Service>, BuildError> + 'a;

/// What a service may look at while it is built. No socket, no clock.
pub struct ServiceContext<'a> {
    /// The service's own name.
    pub name: &'a QualifiedName,
    /// The servers transport that a `loadBalancer` names; `None` when there is none.
    pub transport: Option<Arc<ServersTransport>>,
    /// Builds, or finds, a service that this one is made of, by the name as written.
    pub child: &'a mut FindService<'a>,
    /// What outlives a reload.
    pub state: &'a SharedState,
    /// How far to differ from Traefik.
    pub profile: Profile,
    /// The counters of this service.
    pub metrics: Option<Arc<dyn Observer>>,
    /// The gauge of servers that are up.
    pub server_up: Arc<dyn ServerGauge>,
    /// Sentences for the user that do not keep the service from working.
    pub warnings: &'a mut Vec<BuildError>,
}

impl ServiceConfig {
    /// Makes the service. Sentences are Traefik's where it has them.
    pub fn build(&self, cx: &mut ServiceContext<'_>) -> Result<Arc<dyn Service>, BuildError> {
        let kinds = [
            self.load_balancer.is_some(),
            self.weighted.is_some(),
            self.failover.is_some(),
            self.highest_random_weight.is_some(),
            self.mirroring.is_some(),
        ];
        if kinds.iter().filter(|set| **set).count() > 1 {
            return Err(BuildError::new(
                "cannot create service: multi-types service not supported, consider declaring two \
                 different pieces of service instead",
            ));
        }
        if self.middlewares.as_ref().is_some_and(|middlewares| !middlewares.is_empty()) {
            return Err(BuildError::unsupported("middlewares"));
        }
        if self.highest_random_weight.is_some() {
            return Err(BuildError::unsupported("highestRandomWeight"));
        }
        if self.mirroring.is_some() {
            return Err(BuildError::unsupported("mirroring"));
        }
        if let Some(config) = &self.load_balancer {
            return Ok(Arc::new(inside("loadBalancer", cx, |cx| LoadBalancer::build(config, cx))?));
        }
        if let Some(config) = &self.weighted {
            return Ok(Arc::new(inside("weighted", cx, |cx| Weighted::build(config, cx))?));
        }
        if let Some(config) = &self.failover {
            return Ok(Arc::new(inside("failover", cx, |cx| Failover::build(config, cx))?));
        }
        let message = format!("the service {:?} does not have any type defined", cx.name.as_str());
        Err(BuildError::new(message))
    }
}

/// Puts the kind in front of the options at fault.
fn inside<'a, T>(
    kind: &str,
    cx: &mut ServiceContext<'a>,
    build: impl FnOnce(&mut ServiceContext<'a>) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let prefix = |error: &mut BuildError| {
        if !error.option.is_empty() {
            error.option = format!("{kind}.{}", error.option);
        }
    };
    let known = cx.warnings.len();
    let result = build(cx);
    cx.warnings.iter_mut().skip(known).for_each(prefix);
    result.map_err(|mut error| {
        prefix(&mut error);
        error
    })
}

/// What the API shows of live servers: URL as configured, and whether it is up.
pub type ServerStatus = Vec<(Arc<str>, bool)>;

/// A built service.
pub trait Service: Handler {
    /// Whether a request may be sent to it: at least one server, or child, is up.
    fn is_up(&self) -> bool;

    /// Services below that make this one up when any of them is; empty for one that says so by itself, also because
    /// nothing below it counts.
    fn grounds(&self) -> &[Arc<dyn Service>] {
        &[]
    }

    /// Whether it knows if it is up: a health check of its own, or of children that it is told of.
    fn checks_health(&self) -> bool;

    /// What Traefik's errors call it when it should check health and does not; `None` for a
    /// service that never does.
    fn kind(&self) -> Option<&'static str> {
        None
    }

    /// What the API shows under `serverStatus`: every server, also without a health check; empty
    /// for services made of services.
    fn server_status(&self) -> ServerStatus {
        Vec::new()
    }

    /// The probes that the health monitor carries out for it.
    fn health_plan(&self) -> Option<Arc<health::HealthPlan>> {
        None
    }
}

#[cfg(test)]
mod tests;
