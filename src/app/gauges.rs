//! Health of servers as metrics: keeps each gauge for as long as its server is watched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::observability::metrics::{self, Metrics};
use crate::service::ServerGauge;

/// Writes what the health monitor finds to `traefik_service_server_up`.
pub(super) struct Gauges {
    metrics: Arc<Metrics>,
    held: Mutex<HashMap<ServerKey, Arc<metrics::ServerGauge>>>,
}

/// Service and URL of a server.
type ServerKey = (Box<str>, Box<str>);

impl Gauges {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, held: Mutex::default() }
    }
}

impl ServerGauge for Gauges {
    fn set(&self, service: &str, url: &str, up: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(service), Box::from(url));
        if let Some(gauge) = held.get(&key) {
            gauge.set(up);
        } else if let Some(gauge) = self.metrics.server(service, url) {
            gauge.set(up);
            held.insert(key, gauge);
        }
    }

    fn remove(&self, service: &str, url: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&(Box::from(service), Box::from(url)));
    }
}
