//! `highestRandomWeight`: other services, of which a client always gets the same one.
//!
//! Nothing is remembered: the client's address and the name of a child say all.

use std::sync::Arc;

use super::composite::Children;
use super::load_balancer::weight;
use super::rendezvous::Rendezvous;
use super::{HighestRandomWeightConfig, Service, ServiceContext};
use crate::exchange::{Attempts, Context, Handler, ProxyError, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// See the module.
pub(super) struct HighestRandomWeight {
    children: Children,
    choice: Rendezvous,
}

impl HighestRandomWeight {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &HighestRandomWeightConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        if config.services.is_empty() {
            let message = "`highestRandomWeight.services` is empty: every request gets a 503";
            cx.warnings.push(BuildError::at("services", message));
        }
        let heeds_health = config.health_check.is_some();
        let plain = |_: &str, error: BuildError| error.to_string();
        let children = Children::build(&config.services, heeds_health, cx, plain)?;
        let members = config.services.iter().map(|one| (&*one.name, weight(one.weight)));
        Ok(Self { children, choice: Rendezvous::new(members) })
    }

    fn choose(&self, cx: &Context, request: &Request) -> Option<&dyn Service> {
        let client = cx.connection.peer_ip_text.as_bytes();
        let index = Attempts::pick(Attempts::of(request), |avoid| {
            self.choice.pick(client, |at| self.children.available(at, avoid).is_some())
        })?;
        self.children.get(index)
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
        self.children.are_up()
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.children.grounds
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        &self.children.leaves
    }

    fn checks_health(&self) -> bool {
        self.children.heed_health
    }

    fn kind(&self) -> Option<&'static str> {
        Some("HRW")
    }
}
