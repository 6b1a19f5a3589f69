//! What becomes of a configuration that was read: merged and compiled, without network and without the disk. The
//! `configuration` target calls this.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use doorward::api::Noop;
use doorward::compile::{
    Compiled, EntryPointModel, Environment, Memo, OnBrokenRouter, StaticFacts, Status, compile,
};
use doorward::config::diagnostics::Diagnostic;
use doorward::config::dynamic_config::{DynamicConfig, Object};
use doorward::config::merge::merge;
use doorward::config::tree::{Format, Source, parse};
use doorward::exchange::Handler;
use doorward::observability::metrics::{Metrics, MetricsConfig, PrometheusConfig};
use doorward::router::RoutingTable;
use doorward::service::ServerGauge;
use doorward::state::SharedState;
use doorward::upstream::ServersTransportConfig;
use doorward::values::{Files, Profile, QualifiedName};

use super::configuration::print;

const MODES: [(Profile, OnBrokenRouter); 4] = [
    (Profile::Safe, OnBrokenRouter::Refuse),
    (Profile::Safe, OnBrokenRouter::LastGood),
    (Profile::Exact, OnBrokenRouter::Skip),
    (Profile::Hardened, OnBrokenRouter::Refuse),
];

/// Compiles what `read` gives, which is the same each time, under one of the profiles; and compiles it again as a
/// reload does, from memory. Memory must change nothing.
pub(super) fn check(seed: usize, read: impl Fn(&str) -> DynamicConfig) {
    let (profile, on_broken_router) = MODES[seed % MODES.len()];
    let world = World::new(profile, on_broken_router);
    let merged = |again: bool| {
        let internal = ("internal", Arc::clone(&world.internal));
        let file = ("file", Arc::new(read("file")));
        let other = ("other", Arc::new(read("other")));
        if again && seed.is_multiple_of(3) {
            merge(&[internal, file])
        } else {
            merge(&[internal, file, other])
        }
    };
    let (first, then) = (merged(false), merged(true));
    let before = world.compile(&first, None);
    look_at(&before);
    let fresh = world.compile(&then, None);
    look_at(&fresh);
    // What went wrong may be answered by the last good build, which only memory has.
    if on_broken_router != OnBrokenRouter::LastGood {
        let reloaded = world.compile(&then, Some(&before.memo));
        assert_eq!(outline(&reloaded), outline(&fresh), "a reload is not what a start is");
        let unchanged = world.compile(&then, Some(&reloaded.memo));
        assert_eq!(outline(&unchanged), outline(&fresh), "the same again is not the same");
    }
    STATE.sweep();
}

/// Everything is told, and nothing is told of what works.
fn look_at(compiled: &Compiled) {
    let report = &compiled.report;
    print(&report.diagnostics);
    assert_eq!(report.routers.len(), report.router_count);
    let statuses = report
        .routers
        .iter()
        .map(|one| (&one.name, one.status, &one.errors))
        .chain(report.services.iter().map(|one| (&one.name, one.status, &one.errors)))
        .chain(report.middlewares.iter().map(|one| (&one.name, one.status, &one.errors)));
    for (name, status, errors) in statuses {
        assert_eq!(
            status == Status::Enabled,
            errors.is_empty(),
            "{name} is {status:?}: {errors:?}"
        );
    }
    for router in report.routers.iter().filter(|router| router.status == Status::Enabled) {
        assert!(router.router.as_ref().is_some_and(|router| !router.broken), "{}", router.name);
    }
}

/// What two results must have in common to be the same: routers in match order, and what is said of them.
fn outline(compiled: &Compiled) -> Vec<String> {
    let mut lines = Vec::new();
    for (position, routes) in compiled.table.entry_points.iter().enumerate() {
        for (scheme, routers) in [("http", &routes.http), ("https", &routes.https)] {
            lines.extend(routers.iter().map(|router| {
                let (name, priority, broken) = (&router.name, router.priority, router.broken);
                format!("{position} {scheme} {name} {priority} {broken} {:?}", router.tls_options)
            }));
        }
    }
    lines.extend(compiled.report.diagnostics.iter().map(Diagnostic::one_line));
    lines.extend(compiled.report.not_ready.iter().cloned());
    lines
}

/// The table for this text alone, in which `origin@internal` is this handler.
pub(super) fn table(text: &str, origin: Arc<dyn Handler>) -> Arc<RoutingTable> {
    let mut world = World::new(Profile::Safe, OnBrokenRouter::Refuse);
    world.facts.internal_services.insert("origin", Ok(origin));
    world.facts.entry_points.truncate(1);
    let source = Source::new("exchange.yml", text, Format::Yaml);
    let root = parse(&source).unwrap();
    let file = Arc::new(DynamicConfig::read(&root, "file"));
    let config = merge(&[("internal", Arc::clone(&world.internal)), ("file", file)]);
    let compiled = world.compile(&config, None);
    let told: Vec<String> = compiled.report.diagnostics.iter().map(Diagnostic::one_line).collect();
    assert!(compiled.report.routers.iter().all(|one| one.errors.is_empty()), "{told:#?}");
    compiled.table
}

struct World {
    metrics: Metrics,
    server_up: Arc<dyn ServerGauge>,
    facts: StaticFacts,
    internal: Arc<DynamicConfig>,
}

/// One for the whole process, for the sake of the certificate that is made when there is none: `STANDING` keeps it.
static STATE: LazyLock<SharedState> = LazyLock::new(SharedState::default);
static STANDING: LazyLock<Memo> = LazyLock::new(|| {
    let world = World::with_nothing_standing(Profile::Safe, OnBrokenRouter::Refuse);
    world.compile(&world.internal, None).memo
});

impl World {
    fn new(profile: Profile, on_broken_router: OnBrokenRouter) -> Self {
        LazyLock::force(&STANDING);
        Self::with_nothing_standing(profile, on_broken_router)
    }

    fn with_nothing_standing(profile: Profile, on_broken_router: OnBrokenRouter) -> Self {
        let model = |name: &str, is_default| EntryPointModel {
            name: name.into(),
            is_default,
            ..EntryPointModel::default()
        };
        let mut shaped = model("shaped", true);
        shaped.middlewares = vec!["a@file".to_owned()];
        let mut internal = DynamicConfig::default();
        let transport = Object::implied(ServersTransportConfig::default());
        internal.servers_transports.insert(QualifiedName::new("default", "internal"), transport);
        let noop: Arc<dyn Handler> = Arc::new(Noop);
        let metrics = MetricsConfig {
            prometheus: Some(PrometheusConfig {
                add_routers_labels: true,
                ..PrometheusConfig::default()
            }),
            ..MetricsConfig::default()
        };
        Self {
            metrics: Metrics::new(&metrics).unwrap(),
            server_up: Arc::new(NoGauge),
            facts: StaticFacts {
                profile,
                strict_tls_options: profile != Profile::Exact,
                on_broken_router,
                entry_points: vec![model("web", true), shaped],
                default_rule_syntax: doorward::rule::Syntax::V3,
                resolvers: BTreeSet::from(["acme".to_owned()]),
                internal_services: HashMap::from([("noop", Ok(noop)), ("api", Err("it is off"))]),
                precedence: vec!["internal".to_owned(), "file".to_owned()],
                proxies: doorward::upstream::Proxies::default(),
                add_internals_metrics: false,
                add_internals_access_log: false,
            },
            internal: Arc::new(internal),
        }
    }

    fn compile(&self, config: &DynamicConfig, previous: Option<&Memo>) -> Compiled {
        let environment = Environment {
            files: &FewFiles,
            state: &STATE,
            metrics: &self.metrics,
            server_up: &self.server_up,
            facts: &self.facts,
        };
        compile(config, previous, &environment)
    }
}

/// The files of this world, in no directory.
struct FewFiles;

const FILES: [(&str, &[u8]); 4] = [
    ("a.pem", include_bytes!("../../certs/development-only-leaf.pem")),
    ("a.key", include_bytes!("../../certs/development-only-leaf.key.pem")),
    ("ca.pem", include_bytes!("../../certs/development-only-ca.pem")),
    ("users", b"# users\na:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\nbroken\n"),
];

impl Files for FewFiles {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let found = FILES.iter().find(|(name, _)| path == Path::new(name));
        found.map(|(_, content)| Arc::from(*content)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        FILES.iter().any(|(name, _)| path == Path::new(name))
    }
}

struct NoGauge;

impl ServerGauge for NoGauge {
    fn set(&self, _: &str, _: &str, _: bool) {}
    fn remove(&self, _: &str, _: &str) {}
}
