//! Dynamic configuration to a routing table: pure, collected, incremental.
//!
//! `compile` never fails: it returns a table of everything that works and a diagnostic for
//! everything that does not. It opens no socket, spawns nothing and looks at no clock; its doors
//! to the world are in `Environment`. What did not change is taken over from the previous result
//! as the same object, and the table always equals what compiling from nothing would give.

mod chains;
mod inputs;
mod problem;
mod report;
mod router;
mod routers;
mod services;
mod tls;
mod tree;
mod trials;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::chains::Middlewares;
pub use self::inputs::RecordedFiles;
pub use self::report::{Lazy, MiddlewareReport, Report, RouterReport, ServiceReport, Status};
use self::routers::{Placed, Side};
use self::services::{ServiceMap, Services, TransportMap};
use self::tls::BuiltTls;
use self::tree::Tree;
use self::trials::Trials;
use crate::config::diagnostics::Diagnostic;
use crate::config::dynamic_config::{DynamicConfig, Section};
use crate::exchange::Handler;
use crate::exchange::canonical::EncodedCharacters;
use crate::observability::metrics::Metrics;
use crate::router::{RouterObservabilityConfig, RouterTlsConfig, RoutingTable};
use crate::rule::Syntax;
use crate::service::ServerGauge;
use crate::service::health::HealthPlan;
use crate::state::SharedState;
use crate::upstream::Proxies;
use crate::values::GoDuration;
use crate::values::{Files, Profile, QualifiedName};

/// What becomes of the requests of a router that cannot be built (`core.onBrokenRouter`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBrokenRouter {
    /// It keeps its place and answers 503.
    #[default]
    #[serde(rename = "503")]
    Refuse,
    /// It keeps its place with its last good build, or answers 503 without one.
    #[serde(rename = "lastGood")]
    LastGood,
    /// It is left out, as in Traefik: requests may reach another router.
    #[serde(rename = "skip")]
    Skip,
}

/// One entry point, as far as routers depend on it.
#[derive(Debug, Clone, Default)]
pub struct EntryPointModel {
    /// Its name.
    pub name: Arc<str>,
    /// Whether routers without entry points listen here, as `asDefault` decides.
    pub is_default: bool,
    /// Middlewares in front of every router's own.
    pub middlewares: Vec<String>,
    /// TLS for routers without a section of their own.
    pub tls: Option<RouterTlsConfig>,
    /// What is observed, for routers that do not say.
    pub observability: Option<RouterObservabilityConfig>,
    /// Encoded characters that are refused.
    pub encoded_characters: Option<EncodedCharacters>,
    /// Longest request body, for routers that do not say.
    pub max_body_bytes: Option<i64>,
    /// Bytes per second that a request's body must have, and how long it may be slower at its beginning, where nobody
    /// says.
    pub slowest_body: Option<(i64, GoDuration)>,
}

impl EntryPointModel {
    /// Whether routers of several entry points get one copy for this one (Traefik's models).
    fn shapes_routers(&self) -> bool {
        !self.middlewares.is_empty()
            || self.tls.is_some()
            || self.observability.is_some()
            || self.encoded_characters.is_some()
            || self.max_body_bytes.is_some()
    }
}

/// What the static configuration says to the compiler.
pub struct StaticFacts {
    /// How far to differ from Traefik.
    pub profile: Profile,
    /// Routers that want different TLS options for one host are refused, all of them.
    pub strict_tls_options: bool,
    /// See [`OnBrokenRouter`].
    pub on_broken_router: OnBrokenRouter,
    /// Entry points by position.
    pub entry_points: Vec<EntryPointModel>,
    /// Syntax of the rules of routers that do not say (`core.defaultRuleSyntax`).
    pub default_rule_syntax: Syntax,
    /// Names of the certificates resolvers.
    pub resolvers: BTreeSet<String>,
    /// Services of provider `internal` by their name without provider: the handler, or why it is
    /// not there.
    pub internal_services: HashMap<&'static str, Result<Arc<dyn Handler>, &'static str>>,
    /// Providers, the one that wins ties first.
    pub precedence: Vec<String>,
    /// The proxies that servers are reached through.
    pub proxies: Proxies,
    /// Count and log requests to internal services.
    pub add_internals_metrics: bool,
    /// The same for the access log.
    pub add_internals_access_log: bool,
}

/// The compiler's doors to the world.
pub struct Environment<'a> {
    /// Reads files that options name.
    pub files: &'a dyn Files,
    /// What outlives a reload.
    pub state: &'a SharedState,
    /// Where counters are bound.
    pub metrics: &'a Metrics,
    /// Where the health of servers is counted.
    pub server_up: &'a Arc<dyn ServerGauge>,
    /// The static configuration.
    pub facts: &'a StaticFacts,
}

/// What compiling remembers, so that the next time costs what changed. It is good for the same
/// static facts and the same state only.
#[derive(Default, Clone)]
pub struct Memo {
    transports: Arc<TransportMap>,
    services: Arc<Services>,
    middlewares: Arc<Middlewares>,
    trials: Arc<Trials>,
    /// In match order, which the next compile begins with: sorting what is sorted costs little.
    routers: Arc<Vec<Arc<Placed>>>,
    /// Whether some of them stand below others.
    has_tree: bool,
    tls: Option<Arc<BuiltTls>>,
}

/// The result of compiling.
pub struct Compiled {
    /// For the data plane.
    pub table: Arc<RoutingTable>,
    /// For the API, the log and `check`.
    pub report: Arc<Report>,
    /// For the health monitor.
    pub health_plans: Vec<Arc<HealthPlan>>,
    /// For the next compile.
    pub memo: Memo,
}

/// Compiles `config`. `previous` is the memo of the running table.
pub fn compile(
    config: &DynamicConfig,
    previous: Option<&Memo>,
    environment: &Environment<'_>,
) -> Compiled {
    let empty = Memo::default();
    let mut compiler = Compiler {
        config,
        previous: previous.unwrap_or(&empty),
        env: environment,
        memo: Memo::default(),
        unchanged: Unchanged::default(),
        services: ServiceMap::default(),
        building: Vec::new(),
        too_high: false,
        diagnostics: config.diagnostics.clone(),
        not_ready: Vec::new(),
        tree: Tree::default(),
        below: HashMap::new(),
    };
    let mut tls = compiler.build_tls();
    compiler.build_transports();
    compiler.note_middlewares();
    compiler.build_services();
    let table = compiler.build_routers(&mut tls);
    compiler.try_middlewares();
    compiler.memo.tls = Some(Arc::new(tls));
    compiler.finish(table)
}

struct Compiler<'a> {
    config: &'a DynamicConfig,
    previous: &'a Memo,
    env: &'a Environment<'a>,
    memo: Memo,
    unchanged: Unchanged,
    /// Services that are kept or built so far.
    services: ServiceMap,
    /// Services that are being built, to find cycles.
    building: Vec<QualifiedName>,
    /// What is being built was given up because too many services stand in each other.
    too_high: bool,
    diagnostics: Vec<Diagnostic>,
    /// Why this configuration must not count as ready.
    not_ready: Vec<String>,
    /// Which routers stand below which.
    tree: Tree,
    /// What stands below a router, as far as it is built.
    below: HashMap<QualifiedName, Side>,
}

/// Kinds of objects that are all the same as the previous time, so that nobody who uses one has to
/// look it up.
#[derive(Default)]
struct Unchanged {
    transports: bool,
    services: bool,
    middlewares: bool,
}

impl Compiler<'_> {
    fn finish(mut self, table: RoutingTable) -> Compiled {
        let report = self.report();
        Compiled {
            table: Arc::new(table),
            report: Arc::new(report),
            health_plans: self.memo.services.health_plans(),
            memo: self.memo,
        }
    }
}

fn sorted_names<T>(section: &Section<T>) -> Vec<&QualifiedName> {
    let mut names: Vec<_> = section.keys().collect();
    names.sort_unstable();
    names
}
