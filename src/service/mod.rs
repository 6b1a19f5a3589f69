//! Traefik's services: which kind, which options, and what they need to be built.

mod chained;
mod composite;
mod config;
mod copied;
mod failover;
pub mod health;
mod highest_random_weight;
mod in_flight;
mod least_time;
mod load_balancer;
mod mirroring;
mod rendezvous;
mod sticky;
mod strategy;
mod unseen;

use std::sync::Arc;

pub use chained::Chained;
pub use config::{
    FailoverConfig, FailoverErrorsConfig, HealthCheckConfig, HighestRandomWeightConfig,
    LoadBalancerConfig, MirrorConfig, MirroringConfig, PassiveHealthCheckConfig, PropagationConfig,
    ResponseForwardingConfig, ServerConfig, ServiceConfig, StickyConfig, StickyCookieConfig,
    WeightedConfig, WeightedServiceConfig,
};
pub use health::ServerGauge;

use composite::Weighted;
use failover::Failover;
use highest_random_weight::HighestRandomWeight;
use load_balancer::LoadBalancer;
use mirroring::Mirroring;

use crate::exchange::{Handler, Observer};
use crate::state::SharedState;
use crate::upstream::ServersTransport;
use crate::values::{BuildError, Profile, QualifiedName};

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
    /// Makes the service, without its middlewares. Sentences are Traefik's where it has them.
    pub fn build(&self, cx: &mut ServiceContext<'_>) -> Result<Arc<dyn Service>, BuildError> {
        if self.kinds().count() > 1 {
            return Err(BuildError::new(
                "cannot create service: multi-types service not supported, consider declaring two \
                 different pieces of service instead",
            ));
        }
        if let Some(config) = &self.load_balancer {
            return Ok(Arc::new(inside("loadBalancer", cx, |cx| {
                sticky::warn(config.sticky.as_ref(), cx.warnings);
                LoadBalancer::build(config, cx)
            })?));
        }
        if let Some(config) = &self.weighted {
            return Ok(Arc::new(inside("weighted", cx, |cx| {
                sticky::warn(config.sticky.as_ref(), cx.warnings);
                if config.services.is_empty() {
                    let message = "`weighted.services` is empty: every request gets a 503";
                    cx.warnings.push(BuildError::at("services", message));
                }
                Weighted::build(config, cx)
            })?));
        }
        if let Some(config) = &self.failover {
            return Ok(Arc::new(inside("failover", cx, |cx| Failover::build(config, cx))?));
        }
        if let Some(config) = &self.highest_random_weight {
            let build = |cx: &mut ServiceContext<'_>| HighestRandomWeight::build(config, cx);
            return Ok(Arc::new(inside("highestRandomWeight", cx, build)?));
        }
        if let Some(config) = &self.mirroring {
            return Ok(Arc::new(inside("mirroring", cx, |cx| Mirroring::build(config, cx))?));
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

    /// Whether a server is up that is none of these; asked of balancers, see `leaves`.
    fn has_other_than(&self, _servers: &[Arc<str>]) -> bool {
        self.is_up()
    }

    /// The services below that pass requests to servers, each once; empty for one of them.
    fn leaves(&self) -> &[Arc<dyn Service>] {
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
