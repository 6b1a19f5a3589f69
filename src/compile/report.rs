//! What runs and what is wrong with it: the API, the log, `check` and `/ready` read this.

use std::sync::Arc;

use serde::Serialize;

use super::routers::BuiltRouter;
use super::services::BuiltService;
use super::{Compiler, StaticFacts};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::middleware::MiddlewareConfig;
use crate::router::{HttpRouter, RouterConfig, RouterObservabilityConfig};
use crate::service::{Service, ServiceConfig};
use crate::tls::CertificateStore;
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

/// The state of one configuration.
#[derive(Default)]
pub struct Report {
    /// Routers by name, sorted.
    pub routers: Vec<RouterReport>,
    /// Services by name, sorted.
    pub services: Vec<ServiceReport>,
    /// Middlewares by name, sorted.
    pub middlewares: Vec<MiddlewareReport>,
    /// Everything that is wrong, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// Why this configuration does not count as ready; empty when it does.
    pub not_ready: Vec<String>,
    /// The certificates in use.
    pub certificates: Option<Arc<CertificateStore>>,
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
    fn new(name: &QualifiedName, built: &Arc<BuiltRouter>) -> Self {
        Self {
            name: name.clone(),
            priority: built.priority,
            status: built.status,
            errors: built.errors.clone(),
            router: built.in_table().cloned(),
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
        let models = self.built.entry_points.iter().filter_map(|&at| facts.entry_points.get(at));
        models.map(|model| Arc::clone(&model.name)).collect()
    }

    /// As compiled: names qualified, entry point defaults filled in.
    pub fn effective_config(&self, facts: &StaticFacts) -> RouterConfig {
        let model = self.built.model.and_then(|position| facts.entry_points.get(position));
        let mut config = self.config().clone();
        config.entry_points = self.using(facts).iter().map(ToString::to_string).collect();
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

impl Report {
    /// How many errors and warnings there are.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.diagnostics.len() - errors)
    }
}

impl Compiler<'_> {
    pub(super) fn report(&mut self) -> Report {
        let mut diagnostics = std::mem::take(&mut self.diagnostics);
        diagnostics.extend(self.transport_diagnostics().cloned());
        let mut routers: Vec<_> =
            self.memo.routers.iter().map(|(name, built)| RouterReport::new(name, built)).collect();
        routers.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for built in self.memo.routers.values() {
            diagnostics.extend(built.diagnostics.iter().cloned());
        }
        let mut services: Vec<_> =
            self.memo.services.iter().map(|(name, built)| service_report(name, built)).collect();
        services.extend(self.internal_services());
        services.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for built in self.memo.services.values() {
            diagnostics.extend(built.diagnostics.iter().cloned());
        }
        let middlewares = self.middleware_reports(&mut diagnostics);
        sort_and_deduplicate(&mut diagnostics);
        Report {
            routers,
            services,
            middlewares,
            diagnostics,
            not_ready: std::mem::take(&mut self.not_ready),
            certificates: None,
        }
    }

    fn internal_services(&self) -> impl Iterator<Item = ServiceReport> {
        let known = &self.env.facts.internal_services;
        known.iter().filter(|(_, handler)| handler.is_ok()).map(|(name, _)| ServiceReport {
            name: QualifiedName::new(name, "internal"),
            object: None,
            service: None,
            status: Status::Enabled,
            errors: Vec::new(),
        })
    }

    /// A middleware is built per router: its errors are those of its builds, and of its own text.
    fn middleware_reports(&self, diagnostics: &mut Vec<Diagnostic>) -> Vec<MiddlewareReport> {
        let mut reports: Vec<_> = self
            .config
            .middlewares
            .iter()
            .map(|(name, object)| {
                diagnostics.extend(object.errors.iter().cloned());
                MiddlewareReport {
                    name: name.clone(),
                    object: Arc::clone(object),
                    status: Status::Enabled,
                    errors: object.errors.iter().map(|error| error.message.clone()).collect(),
                }
            })
            .collect();
        reports.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for diagnostic in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
            let Some(subject) = diagnostic.subject.as_ref().filter(|s| s.kind == "middleware")
            else {
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
}

fn service_report(name: &QualifiedName, built: &BuiltService) -> ServiceReport {
    let errors: Vec<_> = match &built.service {
        Ok(_) => Vec::new(),
        Err(missing) => {
            let own = built.diagnostics.iter().filter(|d| d.severity == Severity::Error);
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
    diagnostics.sort_by_cached_key(Diagnostic::one_line);
    diagnostics.dedup_by(|one, other| one.one_line() == other.one_line());
}
