//! The configuration that is explained: the table as the proxy would serve it, and what is known of its objects.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::app::facts;
use crate::app::written::{ConfigSet, Table};
use crate::compile::RouterReport;
use crate::config::dynamic_config::Object;
use crate::config::entry_points::Address;
use crate::entry_point::EntryPoint;
use crate::observability::metrics::{Metrics, MetricsConfig};
use crate::service::ServiceConfig;
use crate::values::{Profile, QualifiedName};

/// What a running instance says of itself.
#[derive(Default)]
pub(in crate::app) struct Live {
    /// Where it was asked.
    pub(in crate::app) url: String,
    /// What kind of thing each middleware is, also of those that do not come with all of their options.
    pub(in crate::app) kinds: HashMap<String, String>,
    /// Routers that do not work there, and why.
    pub(in crate::app) router_errors: HashMap<String, Vec<String>>,
    /// The profile that nobody has told, and that is taken to be the one there.
    pub(in crate::app) assumed_profile: Option<Profile>,
    /// Whether a router that does not work is left out there.
    pub(in crate::app) skips_broken: bool,
    /// Servers of services, with `UP` or `DOWN`.
    pub(in crate::app) servers: HashMap<String, BTreeMap<String, String>>,
}

/// See the module.
pub(in crate::app) struct Subject {
    pub(in crate::app) table: Table,
    /// Entry points by position. They listen nowhere.
    pub(in crate::app) doors: Vec<Arc<EntryPoint>>,
    pub(in crate::app) live: Option<Live>,
    /// Positions in the report, by name.
    reports: HashMap<String, usize>,
}

impl Subject {
    /// Compiles `set`.
    pub(in crate::app) fn new(set: ConfigSet, live: Option<Live>) -> anyhow::Result<Self> {
        let table = set.compile()?;
        let mut nowhere = table.fixed.clone();
        for entry_point in nowhere.entry_points.values_mut() {
            // A name would be looked up, and what was implied has no address.
            "127.0.0.1:0".clone_into(&mut entry_point.address);
        }
        let metrics = Metrics::new(&MetricsConfig::default())?;
        let doors = facts::entry_points(&nowhere, &metrics).context("the entry points")?;
        let names = table.compiled.report.routers.iter().map(|router| router.name.to_string());
        let reports = names.zip(0..).collect();
        Ok(Self { table, doors, live, reports })
    }

    /// The address of an entry point, where the configuration has one.
    pub(in crate::app) fn address(&self, position: usize) -> Option<&str> {
        let name = &*self.table.facts.entry_points.get(position)?.name;
        let address = &self.table.fixed.entry_points.get(name)?.address;
        Some(address.as_str()).filter(|address| !address.is_empty())
    }

    /// The port of an entry point.
    pub(in crate::app) fn port(&self, position: usize) -> Option<u16> {
        let address: Address = self.address(position)?.parse().ok()?;
        Some(address.port)
    }

    /// What the compiler says of a router.
    pub(in crate::app) fn report(&self, router: &str) -> Option<&RouterReport> {
        self.table.compiled.report.routers.get(*self.reports.get(router)?)
    }

    /// Why a router does not work; `None` for one that does.
    pub(in crate::app) fn errors(&self, router: &str, is_broken: bool) -> Option<Vec<String>> {
        if let Some(errors) = self.live.as_ref().and_then(|live| live.router_errors.get(router)) {
            return Some(errors.clone());
        }
        is_broken.then(|| self.report(router).map(|one| one.errors.clone()).unwrap_or_default())
    }

    /// What kind of thing a middleware is.
    pub(in crate::app) fn middleware_kind(&self, name: &QualifiedName) -> String {
        if let Some(kind) = self.live.as_ref().and_then(|live| live.kinds.get(name.as_str())) {
            return kind.clone();
        }
        let object = self.table.merged.middlewares.get(name);
        let kind = object.and_then(|object| object.config.set().first().map(|(kind, _)| *kind));
        kind.unwrap_or_default().to_owned()
    }

    /// The middlewares of a service, chains taken apart.
    pub(in crate::app) fn links_of_service(
        &self,
        service: &QualifiedName,
        config: &ServiceConfig,
    ) -> Vec<QualifiedName> {
        let mut links = Vec::new();
        for link in &config.middlewares {
            self.flatten(&QualifiedName::resolve(link, service.provider()), 0, &mut links);
        }
        links
    }

    fn flatten(&self, name: &QualifiedName, depth: usize, into: &mut Vec<QualifiedName>) {
        const DEEPEST: usize = 16;
        let object = self.table.merged.middlewares.get(name);
        match object.and_then(|object| object.config.chain.as_ref()) {
            Some(chain) if depth < DEEPEST => {
                for member in &chain.middlewares {
                    let member = QualifiedName::resolve(member, name.provider());
                    self.flatten(&member, depth + 1, into);
                }
            }
            _ => into.push(name.clone()),
        }
    }

    /// Where a middleware is written.
    pub(in crate::app) fn middleware_place(&self, name: &QualifiedName) -> Option<String> {
        place(self.table.merged.middlewares.get(name)?)
    }

    /// Where a service is written.
    pub(in crate::app) fn service_place(&self, name: &QualifiedName) -> Option<String> {
        place(self.table.merged.services.get(name)?)
    }

    /// Where a router is written. The copies that entry points make of it have other names.
    pub(in crate::app) fn router_place(&self, router: &str) -> Option<String> {
        let name = QualifiedName::resolve(router, "");
        if let Some(object) = self.table.merged.routers.get(&name) {
            return place(object);
        }
        let entry_points = self.table.facts.entry_points.iter();
        entry_points
            .filter_map(|entry_point| router.strip_prefix(&*entry_point.name)?.strip_prefix('-'))
            .find_map(|original| {
                self.table.merged.routers.get(&QualifiedName::resolve(original, ""))
            })
            .and_then(|object| place(object))
    }
}

/// `file:line` of an object that a file says.
fn place<T>(object: &Object<T>) -> Option<String> {
    let span = &object.node.as_ref()?.span;
    let (name, here) = (Path::new(&*span.source.name), std::env::current_dir().ok()?);
    let name = name.strip_prefix(here).unwrap_or(name);
    Some(format!("{}:{}", name.display(), span.line_column().0))
}
