//! What runs and what is wrong with it: the API, the log, `check` and `/ready` read this.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use serde::Serialize;

use super::chains::Middlewares;
use super::router::BuiltRouter;
use super::services::BuiltService;
use super::{Compiler, StaticFacts};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::middleware::MiddlewareConfig;
use crate::router::{HttpRouter, RouterConfig, RouterObservabilityConfig};
use crate::rule::Syntax;
use crate::service::{Service, ServiceConfig};
use crate::tls::CertificateStore;
use crate::upstream::limits::RequestBodyConfig;
use crate::values::QualifiedName;

/// Traefik's statuses of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works.
    Enabled,
    /// It does not work.
    Disabled,
    /// It works, and something about it is odd.
    Warning,
}

/// Something that is put together when somebody looks at it: most reports are never read.
pub type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

/// The state of one configuration.
pub struct Report {
    /// Routers by name, sorted.
    pub routers: Lazy<Vec<RouterReport>>,
    /// Services by name, sorted.
    pub services: Lazy<Vec<ServiceReport>>,
    /// Middlewares by name, sorted.
    pub middlewares: Lazy<Vec<MiddlewareReport>>,
    /// How many routers there are.
    pub router_count: usize,
    /// Everything that is wrong, in the order of the files.
    pub diagnostics: Arc<[Diagnostic]>,
    /// Why this configuration does not count as ready; empty when it does.
    pub not_ready: Vec<String>,
    /// The certificates in use.
    pub certificates: Option<Arc<CertificateStore>>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            routers: LazyLock::new(Box::new(Vec::new)),
            services: LazyLock::new(Box::new(Vec::new)),
            middlewares: LazyLock::new(Box::new(Vec::new)),
            router_count: 0,
            diagnostics: Arc::default(),
            not_ready: Vec::new(),
            certificates: None,
        }
    }
}

/// One router.
pub struct RouterReport {
    /// `name@provider`.
    pub name: QualifiedName,
    /// Priority that counts.
    pub priority: i64,
    /// Whether it works.
    pub status: Status,
    /// Why not, or what is odd.
    pub errors: Vec<String>,
    /// What stands in the table for it.
    pub router: Option<Arc<HttpRouter>>,
    /// Middlewares that it uses, chains taken apart.
    pub links: Vec<QualifiedName>,
    built: Arc<BuiltRouter>,
}

impl RouterReport {
    fn new(built: &Arc<BuiltRouter>) -> Self {
        Self {
            name: built.instance.name.clone(),
            priority: built.priority,
            status: built.status,
            errors: built.errors.clone(),
            router: built.routers.first().cloned(),
            links: built.links.iter().map(|(name, _)| name.clone()).collect(),
            built: Arc::clone(built),
        }
    }

    /// As configured.
    pub fn config(&self) -> &RouterConfig {
        &self.built.object.config
    }

    /// Entry points that it stands at.
    pub fn using(&self, facts: &StaticFacts) -> Vec<Arc<str>> {
        let models =
            self.built.instance.entry_points.iter().filter_map(|&at| facts.entry_points.get(at));
        models.map(|model| Arc::clone(&model.name)).collect()
    }

    /// As compiled: names qualified, entry point defaults filled in.
    pub fn effective_config(&self, facts: &StaticFacts) -> RouterConfig {
        let model = self.built.instance.model.and_then(|position| facts.entry_points.get(position));
        let mut config = self.config().clone();
        let using = self.using(facts);
        if model.is_some() || config.entry_points.is_empty() {
            config.entry_points = using.iter().map(ToString::to_string).collect();
        } else {
            // What does not exist is shown as written; where it has a copy of its own is not.
            let exists = |name: &str| facts.entry_points.iter().any(|one| *one.name == *name);
            config
                .entry_points
                .retain(|name| using.iter().any(|one| **one == **name) || !exists(name));
        }
        config.middlewares = config
            .middlewares
            .iter()
            .map(|reference| QualifiedName::resolve(reference, self.name.provider()).to_string())
            .collect();
        if let Some(model) = model {
            config.middlewares.splice(0..0, model.middlewares.iter().cloned());
            if config.tls.is_none() {
                config.tls.clone_from(&model.tls);
            }
            let own = config.request_body.and_then(|body| body.max_bytes);
            if own.is_none() && model.max_body_bytes.is_some() {
                config.request_body = Some(RequestBodyConfig { max_bytes: model.max_body_bytes });
            }
        }
        for parent in &mut config.parent_refs {
            *parent = QualifiedName::resolve(parent, self.name.provider()).to_string();
        }
        if config.rule_syntax.is_empty() && facts.default_rule_syntax == Syntax::V2 {
            "v2".clone_into(&mut config.rule_syntax);
        }
        if !config.parent_refs.is_empty() {
            // Entry points have no say below other routers.
            return config;
        }
        let own = config.observability.take().unwrap_or_default();
        let model = model.and_then(|model| model.observability.clone()).unwrap_or_default();
        config.observability = Some(RouterObservabilityConfig {
            access_logs: own.access_logs.or(model.access_logs).or(Some(true)),
            metrics: own.metrics.or(model.metrics).or(Some(true)),
            tracing: own.tracing.or(model.tracing).or(Some(true)),
            trace_verbosity: own
                .trace_verbosity
                .or(model.trace_verbosity)
                .or_else(|| Some("minimal".to_owned())),
        });
        config
    }
}

/// One service.
pub struct ServiceReport {
    /// `name@provider`.
    pub name: QualifiedName,
    /// As configured.
    pub object: Option<Arc<Object<ServiceConfig>>>,
    /// The running service.
    pub service: Option<Arc<dyn Service>>,
    /// Whether it works.
    pub status: Status,
    /// Why not.
    pub errors: Vec<String>,
}

/// One middleware.
pub struct MiddlewareReport {
    /// `name@provider`.
    pub name: QualifiedName,
    /// As configured.
    pub object: Arc<Object<MiddlewareConfig>>,
    /// Whether it works wherever it is used.
    pub status: Status,
    /// Why not.
    pub errors: Vec<String>,
}

impl Compiler<'_> {
    /// The report. Its lists hold what compiling remembers anyway.
    pub(super) fn report(&mut self) -> Report {
        let mut diagnostics = std::mem::take(&mut self.diagnostics);
        diagnostics.extend(self.memo.services.diagnostics.iter().cloned());
        sort_and_deduplicate(&mut diagnostics);
        let diagnostics: Arc<[Diagnostic]> = diagnostics.into();
        let mut not_ready = std::mem::take(&mut self.not_ready);
        not_ready.sort_unstable();
        let (placed, services) = (Arc::clone(&self.memo.routers), Arc::clone(&self.memo.services));
        let router_count = placed.iter().map(|placed| placed.copies.len()).sum();
        let internal = self.internal_services();
        let (middlewares, of_middlewares) =
            (Arc::clone(&self.memo.middlewares), Arc::clone(&diagnostics));
        Report {
            routers: LazyLock::new(Box::new(move || {
                let copies = placed.iter().flat_map(|placed| &placed.copies);
                let mut routers: Vec<_> = copies.map(RouterReport::new).collect();
                routers.sort_by(|one, other| one.name.cmp(&other.name));
                routers
            })),
            services: LazyLock::new(Box::new(move || {
                let built = services.by_name.iter();
                let mut services: Vec<_> =
                    built.map(|(name, built)| service_report(name, built)).collect();
                services.extend(internal.into_iter().map(internal_service));
                services.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                services
            })),
            middlewares: LazyLock::new(Box::new(move || {
                middleware_reports(&middlewares, &of_middlewares)
            })),
            router_count,
            diagnostics,
            not_ready,
            certificates: self.memo.tls.as_ref().and_then(|tls| tls.store.clone()),
        }
    }

    fn internal_services(&self) -> Vec<QualifiedName> {
        let known = self.env.facts.internal_services.iter();
        let served = known.filter(|(_, handler)| handler.is_ok());
        served.map(|(name, _)| QualifiedName::new(name, "internal")).collect()
    }
}

fn internal_service(name: QualifiedName) -> ServiceReport {
    ServiceReport { name, object: None, service: None, status: Status::Enabled, errors: Vec::new() }
}

/// A middleware is built per router, or for nobody when none uses it: its errors are those of its
/// builds, and of its own text.
fn middleware_reports(
    middlewares: &Middlewares,
    diagnostics: &[Diagnostic],
) -> Vec<MiddlewareReport> {
    let report = |(name, object): &(QualifiedName, _)| MiddlewareReport {
        name: name.clone(),
        object: Arc::clone(object),
        status: Status::Enabled,
        errors: Vec::new(),
    };
    let mut reports: Vec<_> = middlewares.iter().map(report).collect();
    for report in &mut reports {
        report.errors.extend(report.object.errors.iter().map(|error| error.message.clone()));
    }
    for diagnostic in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
        let Some(subject) = diagnostic.subject.as_ref().filter(|s| s.kind == "middleware") else {
            continue;
        };
        let found = reports.binary_search_by(|report| report.name.as_str().cmp(&subject.name));
        if let Some(report) = found.ok().and_then(|position| reports.get_mut(position))
            && !report.errors.contains(&diagnostic.message)
        {
            report.errors.push(diagnostic.message.clone());
        }
    }
    for report in &mut reports {
        if !report.errors.is_empty() {
            report.status = Status::Disabled;
        }
    }
    reports
}

fn service_report(name: &QualifiedName, built: &BuiltService) -> ServiceReport {
    let errors: Vec<_> = match &built.service {
        Ok(_) => Vec::new(),
        Err(missing) => {
            let own = built.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            // Those of its middlewares are said of them.
            let own = own.filter(|d| d.subject.as_ref().is_none_or(|s| s.kind != "middleware"));
            let own: Vec<_> = own.map(|diagnostic| diagnostic.message.clone()).collect();
            if own.is_empty() { vec![missing.clone()] } else { own }
        }
    };
    ServiceReport {
        name: name.clone(),
        object: Some(Arc::clone(&built.object)),
        service: built.service.as_ref().ok().cloned(),
        status: if errors.is_empty() { Status::Enabled } else { Status::Disabled },
        errors,
    }
}

/// One middleware in error is reported by every router that uses it: once is enough.
fn sort_and_deduplicate(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(in_order);
    diagnostics.dedup_by(|one, other| in_order(one, other) == Ordering::Equal);
}

/// By file, place, and what is said.
fn in_order(one: &Diagnostic, other: &Diagnostic) -> Ordering {
    fn key(one: &Diagnostic) -> impl Ord {
        let span = one.span.as_ref().map(|span| (&*span.source.name, span.start));
        let subject = one.subject.as_ref().map(|subject| (subject.kind, &*subject.name));
        (span, one.severity, subject, &*one.message, one.help.as_deref())
    }
    key(one).cmp(&key(other))
}
