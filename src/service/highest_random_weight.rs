//! `highestRandomWeight`: other services, of which a client always gets the same one.
//!
//! Nothing is remembered: the client's address and the name of a child say all.

use std::sync::Arc;

use super::composite::{grounds_of, has_other_than, leaves_of, must_check_health};
use super::load_balancer::{warn_of_weights, weight};
use super::rendezvous::Rendezvous;
use super::{HighestRandomWeightConfig, Service, ServiceContext};
use crate::exchange::{Attempts, Context, Handler, ProxyError, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// See the module.
pub(super) struct HighestRandomWeight {
    children: Box<[Arc<dyn Service>]>,
    choice: Rendezvous,
    has_eligible: bool,
    heeds_health: bool,
    grounds: Box<[Arc<dyn Service>]>,
    leaves: Box<[Arc<dyn Service>]>,
}

impl HighestRandomWeight {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &HighestRandomWeightConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let heeds_health = config.health_check.is_some();
        if config.services.is_empty() {
            let message = "`highestRandomWeight.services` is empty: every request gets a 503";
            cx.warnings.push(BuildError::at("services", message));
        }
        warn_of_weights(&config.services, cx.warnings);
        let mut children = Vec::with_capacity(config.services.len());
        for (at, child) in config.services.iter().enumerate() {
            let option = format!("services[{at}]");
            let service = (cx.child)(&child.name)
                .map_err(|error| BuildError::at(&*option, error.to_string()))?;
            if heeds_health {
                must_check_health(&*service, &child.name, cx, &option)?;
            }
            children.push(service);
        }
        let members = || config.services.iter().map(|one| (&*one.name, weight(one.weight)));
        let eligible = children.iter().zip(members()).filter(|(_, (_, weight))| *weight > 0);
        let eligible: Vec<_> = eligible.map(|(service, _)| service).collect();
        let grounds = grounds_of(eligible.iter().copied().filter(|_| heeds_health));
        Ok(Self {
            has_eligible: !eligible.is_empty(),
            choice: Rendezvous::new(members()),
            leaves: leaves_of(eligible.into_iter()),
            children: children.into(),
            heeds_health,
            grounds,
        })
    }

    fn choose(&self, cx: &Context, request: &Request) -> Option<&dyn Service> {
        let index = Attempts::pick(Attempts::of(request), |avoid| {
            self.choice.pick(cx.connection.peer_ip_text.as_bytes(), |at| {
                let service = self.children.get(at);
                service.is_some_and(|one| {
                    (!self.heeds_health || one.is_up()) && has_other_than(avoid, &**one)
                })
            })
        })?;
        self.children.get(index).map(|service| &**service)
    }
}

impl Handler for HighestRandomWeight {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        match self.choose(cx, &request) {
            Some(service) => service.handle(cx, request),
            None => ready(ProxyError::NoAvailableServer.into_response()),
        }
    }
}

impl Service for HighestRandomWeight {
    fn is_up(&self) -> bool {
        if self.heeds_health {
            self.grounds.iter().any(|service| service.is_up())
        } else {
            self.has_eligible
        }
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.grounds
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        &self.leaves
    }

    fn checks_health(&self) -> bool {
        self.heeds_health
    }

    fn kind(&self) -> Option<&'static str> {
        Some("HRW")
    }
}
