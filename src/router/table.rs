//! What the data plane reads: one immutable table, replaced whole by a single store.
//!
//! A request finishes on the table that it began with. Finding a router takes no lock, allocates
//! nothing, and costs the same with ten routers and with a hundred thousand.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::index::HostIndex;
use crate::exchange::canonical::EncodedCharacters;
use crate::exchange::view::RequestView;
use crate::exchange::{Chain, Observer};
use crate::rule::{Explanation, Rule};
use crate::tls::TlsRoutes;

/// Everything that the data plane reads.
pub struct RoutingTable {
    /// By the entry point's position in the static configuration.
    pub entry_points: Box<[EntryPointRoutes]>,
}

/// The routes of one entry point.
#[derive(Default)]
pub struct EntryPointRoutes {
    /// Routers for clear text.
    pub http: HttpRouters,
    /// Routers for TLS.
    pub https: HttpRouters,
    /// Which TLS options belong to which host; `None` before the first table.
    pub tls: Option<Arc<TlsRoutes>>,
}

/// The routers of one entry point, in match order.
#[derive(Default)]
pub struct HttpRouters {
    index: HostIndex,
    routers: Box<[Arc<HttpRouter>]>,
}

/// One of Traefik's routers, compiled.
pub struct HttpRouter {
    /// `name@provider`.
    pub name: Arc<str>,
    /// Name of the service, for logs and metrics.
    pub service: Arc<str>,
    /// Which requests are meant.
    pub rule: Arc<Rule>,
    /// Higher comes first.
    pub priority: i64,
    /// Middlewares and service.
    pub chain: Chain,
    /// Name of the TLS options that its connections must have been made with.
    pub tls_options: Option<Arc<str>>,
    /// Encoded characters that the entry point refuses.
    pub encoded_characters: Option<EncodedCharacters>,
    /// The router's own metrics, when they are wanted.
    pub metrics: Option<Arc<dyn Observer>>,
    /// Whether its requests count in metrics at all.
    pub count: bool,
    /// Whether its requests are written to the access log.
    pub access_log: bool,
    /// Whether it is in error, so that its chain only says 503.
    pub broken: bool,
}

impl EntryPointRoutes {
    /// Whether a request for `host` that goes to `router` came over a connection of other TLS options than it must: one
    /// for `server_name`, made with `options`. With `strict`, a router that any host may reach is no way around those
    /// of the host either.
    pub fn is_misdirected(
        &self,
        router: &HttpRouter,
        host: &str,
        (server_name, options): (&str, &str),
        strict: bool,
    ) -> bool {
        let of_host = || self.tls.as_ref().map(|routes| routes.options_name_for(host));
        router.tls_options.as_ref().is_some_and(|wanted| {
            **wanted != *options
                || strict && host != server_name && of_host().is_some_and(|name| **name != *options)
        })
    }
}

impl HttpRouters {
    /// Sorts out `routers`, which are in match order, best first.
    pub fn new(routers: Vec<Arc<HttpRouter>>) -> Self {
        let index = HostIndex::build(routers.iter().map(|router| &*router.rule));
        Self { index, routers: routers.into_boxed_slice() }
    }

    /// The router for this request.
    pub fn find(&self, request: &RequestView<'_>) -> Option<&Arc<HttpRouter>> {
        let position = self.index.find(request.host, request.flat_host, |position| {
            self.routers.get(position).is_some_and(|router| router.rule.matches(request))
        })?;
        self.routers.get(position)
    }

    /// For each router in match order: the first predicate that this request does not fulfil;
    /// `None` for the router that it goes to. Ends there.
    pub fn explain(
        &self,
        request: &RequestView<'_>,
    ) -> Vec<(&Arc<HttpRouter>, Option<Explanation>)> {
        let mut explained = Vec::new();
        for router in &self.routers {
            let failed = router.rule.explain(request);
            let found = failed.is_none();
            explained.push((router, failed));
            if found {
                break;
            }
        }
        explained
    }

    /// All routers in match order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<HttpRouter>> {
        self.routers.iter()
    }

    /// Whether there is no router.
    pub fn is_empty(&self) -> bool {
        self.routers.is_empty()
    }
}

/// The running table.
pub struct LiveTable(ArcSwap<RoutingTable>);

impl LiveTable {
    /// Starts with `table`.
    pub fn new(table: RoutingTable) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// The table for one request. A count, not a guard: a guard held over a request would slow
    /// down every other load.
    pub fn current(&self) -> Arc<RoutingTable> {
        self.0.load_full()
    }

    /// Replaces the table: routes, certificates, transports and TLS options of all entry points
    /// change together.
    pub fn publish(&self, table: Arc<RoutingTable>) {
        self.0.store(table);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn table(number: usize) -> Arc<RoutingTable> {
        let entry_points = (0..number).map(|_| EntryPointRoutes::default()).collect();
        Arc::new(RoutingTable { entry_points })
    }

    /// No request gets a table older than one that a finished reload has announced, none goes back
    /// to an older one, and tables that nobody uses are gone.
    #[test]
    fn who_comes_after_a_reload_gets_its_table() {
        const RELOADS: usize = 300;
        let live = LiveTable::new(RoutingTable { entry_points: Box::default() });
        let (announced, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let newest = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !over.load(Ordering::Acquire) {
                        let known = announced.load(Ordering::Acquire);
                        let number = live.current().entry_points.len();
                        assert!(number >= known.max(last), "{number} after {known} and {last}");
                        last = number;
                    }
                });
            }
            let mut newest = Arc::downgrade(&live.current());
            for number in 1..=RELOADS {
                let next = table(number);
                newest = Arc::downgrade(&next);
                live.publish(next);
                announced.store(number, Ordering::Release);
            }
            over.store(true, Ordering::Release);
            newest
        });
        assert_eq!(live.current().entry_points.len(), RELOADS);
        live.publish(table(0));
        assert!(newest.upgrade().is_none(), "a table outlives its requests");
    }
}
