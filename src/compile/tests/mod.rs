//! Tests of compiling: what becomes of objects that are wrong, and that remembering changes nothing.

mod broken;
mod incremental;
mod order;
mod services;
mod tls;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Compiled, EntryPointModel, Environment, Memo, OnBrokenRouter, StaticFacts, compile};
use crate::config::dynamic_config::{DynamicConfig, Object};
use crate::config::merge::merge;
use crate::config::tree::{Format, Source, parse};
use crate::observability::metrics::{Metrics, MetricsConfig};
use crate::router::{HttpRouter, RoutingTable};
use crate::service::ServerGauge;
use crate::state::SharedState;
use crate::upstream::ServersTransportConfig;
use crate::values::{Disk, Profile, QualifiedName};

struct NoGauge;

impl ServerGauge for NoGauge {
    fn set(&self, _: &str, _: &str, _: bool) {}
    fn remove(&self, _: &str, _: &str) {}
}

/// Everything that compiling needs besides a configuration.
struct World {
    state: SharedState,
    metrics: Metrics,
    server_up: Arc<dyn ServerGauge>,
    facts: StaticFacts,
    internal: Arc<DynamicConfig>,
}

impl World {
    /// Entry points `web` and `alt` without anything, both default, and `shaped` with a middleware.
    fn new() -> Self {
        let model = |name: &str, is_default| EntryPointModel {
            name: name.into(),
            is_default,
            ..EntryPointModel::default()
        };
        let mut shaped = model("shaped", false);
        shaped.middlewares = vec!["m0@file".to_owned()];
        let mut internal = DynamicConfig::default();
        let transport = Object::implied(ServersTransportConfig::default());
        internal.servers_transports.insert(QualifiedName::new("default", "internal"), transport);
        Self {
            state: SharedState::default(),
            metrics: Metrics::new(&MetricsConfig::default()).unwrap(),
            server_up: Arc::new(NoGauge),
            facts: StaticFacts {
                profile: Profile::default(),
                strict_tls_options: true,
                on_broken_router: OnBrokenRouter::Refuse,
                entry_points: vec![model("web", true), model("alt", true), shaped],
                default_rule_syntax: crate::rule::Syntax::V3,
                resolvers: BTreeSet::new(),
                internal_services: HashMap::new(),
                precedence: vec!["internal".to_owned(), "file".to_owned()],
                proxies: crate::upstream::Proxies::default(),
                add_internals_metrics: false,
                add_internals_access_log: false,
            },
            internal: Arc::new(internal),
        }
    }

    fn on_broken_router(mode: OnBrokenRouter) -> Self {
        let mut world = Self::new();
        world.facts.on_broken_router = mode;
        world
    }

    fn compile(&self, file: &Arc<DynamicConfig>, previous: Option<&Memo>) -> Compiled {
        let config = merge(&[("internal", Arc::clone(&self.internal)), ("file", Arc::clone(file))]);
        self.compile_merged(&config, previous)
    }

    fn compile_merged(&self, config: &DynamicConfig, previous: Option<&Memo>) -> Compiled {
        let environment = Environment {
            files: &Disk,
            state: &self.state,
            metrics: &self.metrics,
            server_up: &self.server_up,
            facts: &self.facts,
        };
        compile(config, previous, &environment)
    }

    fn text(&self, text: &str) -> Compiled {
        self.compile(&read(text), None)
    }
}

fn read(text: &str) -> Arc<DynamicConfig> {
    let source = Source::new("dynamic.yml", text, Format::Yaml);
    Arc::new(DynamicConfig::read(&parse(&source).unwrap(), "file"))
}

/// Routers of `web` for clear text, each as `name` or `name!` when it is broken.
fn names(compiled: &Compiled) -> Vec<String> {
    names_at(&compiled.table, 0)
}

fn names_at(table: &RoutingTable, entry_point: usize) -> Vec<String> {
    table.entry_points[entry_point].http.iter().map(shown).collect()
}

fn names_of_tls(compiled: &Compiled) -> Vec<String> {
    compiled.table.entry_points[0].https.iter().map(shown).collect()
}

fn shown(router: &Arc<HttpRouter>) -> String {
    format!("{}{}", router.name, if router.broken { "!" } else { "" })
}

fn messages(compiled: &Compiled) -> Vec<String> {
    compiled.report.diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect()
}

/// One good service `s`, and more of `http` in flow style.
fn with_service(more: &str) -> String {
    format!(
        "http:\n  services:\n    s: {{loadBalancer: {{servers: [{{url: 'http://10.0.0.1'}}]}}}}\n{more}"
    )
}
