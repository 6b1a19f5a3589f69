//! A service with middlewares of its own: all that use it share them, and what they remember.

use std::sync::Arc;

use super::health::HealthPlan;
use super::{ServerStatus, Service};
use crate::exchange::{Chain, Context, Handler, Middleware, Request, ResponseFuture};

/// A service behind its middlewares. Its health is the service's.
pub struct Chained {
    chain: Chain,
    service: Arc<dyn Service>,
}

impl Chained {
    /// Puts `middlewares` in front of `service`.
    pub fn new(middlewares: Vec<Arc<dyn Middleware>>, service: Arc<dyn Service>) -> Self {
        let handler: Arc<dyn Handler> = Arc::<dyn Service>::clone(&service);
        Self { chain: Chain::new(middlewares, handler), service }
    }
}

impl Handler for Chained {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        self.chain.handle(cx, request)
    }
}

impl Service for Chained {
    fn is_up(&self) -> bool {
        self.service.is_up()
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        self.service.grounds()
    }

    fn has_other_than(&self, servers: &[Arc<str>]) -> bool {
        self.service.has_other_than(servers)
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        self.service.leaves()
    }

    fn checks_health(&self) -> bool {
        self.service.checks_health()
    }

    fn kind(&self) -> Option<&'static str> {
        self.service.kind()
    }

    fn server_status(&self) -> ServerStatus {
        self.service.server_status()
    }

    fn health_plan(&self) -> Option<Arc<HealthPlan>> {
        self.service.health_plan()
    }
}
