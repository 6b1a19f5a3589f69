//! TLS options and certificates, and which options the hosts of each entry point get.
//!
//! Options in error, options that do not exist and options that contradict each other never weaken
//! a host: its routers answer 503, or its connections are refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::Compiler;
use super::routers::TlsChoice;
use super::services::summary;
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::rule::Rule;
use crate::tls::{
    BrokenOptions, CertificateStore, Consequence, OptionsRef, TlsOptions, TlsOptionsConfig,
    TlsRoutes,
};
use crate::values::QualifiedName;

/// TLS as configured, for all entry points.
pub(super) struct BuiltTls {
    options: HashMap<QualifiedName, OptionsRef>,
    default: OptionsRef,
    pub(super) store: Option<Arc<CertificateStore>>,
    routes: Vec<(Claims, Arc<TlsRoutes>)>,
}

/// Hosts and the options that routers want for them, sorted.
pub(super) type Claims = Vec<(String, QualifiedName)>;

impl Compiler<'_> {
    /// Builds all TLS options and the certificates.
    pub(super) fn build_tls(&mut self) -> BuiltTls {
        let mut options = HashMap::new();
        let config = self.config;
        for name in super::sorted_names(&config.tls_options) {
            let built = self.build_options(name);
            options.insert(name.clone(), built);
        }
        let global = QualifiedName::global("default");
        let default = options.get(&global).cloned().unwrap_or_else(|| {
            let mut warnings = Vec::new();
            TlsOptions::build(
                &global.shared(),
                &TlsOptionsConfig::default(),
                self.env.files,
                self.env.state,
                self.env.facts.profile,
                &mut warnings,
            )
            .map_err(|error| BrokenOptions { name: global.shared(), reason: error.message.into() })
        });
        let store = self.build_certificates();
        BuiltTls { options, default, store, routes: Vec::new() }
    }

    fn build_options(&mut self, name: &QualifiedName) -> OptionsRef {
        const KIND: &str = "tls options";
        let Some(object) = self.config.tls_options.get(name) else {
            return Err(BrokenOptions {
                name: name.shared(),
                reason: "unknown TLS options".into(),
            });
        };
        self.diagnostics.extend(object.errors.iter().cloned());
        if !object.is_good() {
            return Err(BrokenOptions {
                name: name.shared(),
                reason: format!("TLS options \"{name}\" are in error: {}", summary(&object.errors))
                    .into(),
            });
        }
        let mut warnings = Vec::new();
        let built = TlsOptions::build(
            &name.shared(),
            &object.config,
            self.env.files,
            self.env.state,
            self.env.facts.profile,
            &mut warnings,
        );
        for warning in &warnings {
            self.diagnostics.push(object.diagnose(Severity::Warning, KIND, name, warning));
        }
        built.map_err(|error| {
            self.diagnostics.push(object.diagnose(Severity::Error, KIND, name, &error));
            BrokenOptions {
                name: name.shared(),
                reason: format!("TLS options \"{name}\" are in error: {}", error.message).into(),
            }
        })
    }

    fn build_certificates(&mut self) -> Option<Arc<CertificateStore>> {
        let previous = self.previous.tls.as_ref().and_then(|tls| tls.store.as_ref());
        let global = QualifiedName::global("default");
        let default = self.config.tls_stores.get(&global);
        let good: Vec<_> = self.config.certificates.iter().filter(|one| one.is_good()).collect();
        for broken in self.config.certificates.iter().filter(|one| !one.is_good()) {
            self.diagnostics.extend(broken.errors.iter().cloned());
        }
        for (_, store) in self.config.tls_stores.iter().filter(|(_, store)| !store.is_good()) {
            self.diagnostics.extend(store.errors.iter().cloned());
        }
        let built = CertificateStore::build(
            good.iter().map(|object| &object.config),
            default.map(|store| &store.config),
            self.env.files,
            self.env.state,
            previous,
        );
        let built = match built {
            Ok(built) => built,
            Err(error) => {
                self.diagnostics
                    .push(Diagnostic::error(error.message).about("tls", "certificates"));
                return previous.cloned();
            }
        };
        for problem in &built.problems {
            let severity = match problem.consequence {
                Consequence::NeverChosen => Severity::Warning,
                _ => Severity::Error,
            };
            let diagnostic = match (problem.index.and_then(|index| good.get(index)), default) {
                (Some(object), _) => {
                    let at = problem.index.unwrap_or_default();
                    let name = QualifiedName::global(&format!("certificates[{at}]"));
                    object.diagnose(severity, "certificate", &name, &problem.error)
                }
                (None, Some(store)) => {
                    store.diagnose(severity, "tls store", &global, &problem.error)
                }
                (None, None) => Diagnostic::error(problem.error.message.as_str()),
            };
            self.diagnostics.push(diagnostic);
        }
        Some(built.store)
    }
}

impl BuiltTls {
    /// A plan for `count` entry points.
    pub(super) fn plan(&self, count: usize) -> TlsPlan<'_> {
        TlsPlan {
            tls: self,
            claims: vec![Claims::new(); count],
            conflicts: vec![HashMap::new(); count],
            strict: true,
        }
    }

    /// Remembers what the entry points got.
    pub(super) fn remember(&mut self, routes: Vec<(Claims, Arc<TlsRoutes>)>) {
        self.routes = routes;
    }

    /// Whether options and certificates are the same objects as those of `other`.
    fn same_inputs(&self, other: &Self) -> bool {
        let same = |one: &OptionsRef, other: &OptionsRef| match (one, other) {
            (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
            (Err(one), Err(other)) => one == other,
            _ => false,
        };
        let stores = match (&self.store, &other.store) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        stores
            && same(&self.default, &other.default)
            && self.options.len() == other.options.len()
            && self.options.iter().all(|(name, options)| {
                other.options.get(name).is_some_and(|now| same(options, now))
            })
    }

    fn options(&self, name: &QualifiedName) -> OptionsRef {
        if name.as_str() == "default" {
            return self.default.clone();
        }
        self.options.get(name).cloned().unwrap_or_else(|| {
            Err(BrokenOptions {
                name: name.shared(),
                reason: format!("unknown TLS options: {name}").into(),
            })
        })
    }
}

/// Which options the hosts of each entry point get.
pub(super) struct TlsPlan<'t> {
    tls: &'t BuiltTls,
    claims: Vec<Claims>,
    conflicts: Vec<HashMap<String, Vec<QualifiedName>>>,
    strict: bool,
}

impl TlsPlan<'_> {
    /// A router at `entry_point` wants `options` for the hosts of its rule.
    pub(super) fn claim(&mut self, entry_point: usize, rule: &Rule, options: &QualifiedName) {
        if let Some(claims) = self.claims.get_mut(entry_point) {
            claims.extend(rule.domains().into_iter().map(|host| (host, options.clone())));
        }
    }

    /// All routers have spoken: finds the contradictions. With `strict` they take the routers of
    /// their host out of service; without, as in Traefik, these get the default options.
    pub(super) fn settle(&mut self, strict: bool) {
        self.strict = strict;
        for (claims, conflicts) in self.claims.iter_mut().zip(&mut self.conflicts) {
            claims.sort_unstable();
            claims.dedup();
            for (one, other) in claims.iter().zip(claims.iter().skip(1)) {
                if one.0 == other.0 {
                    let names =
                        conflicts.entry(one.0.clone()).or_insert_with(|| vec![one.1.clone()]);
                    names.push(other.1.clone());
                }
            }
        }
    }

    /// The options that a router gets, and why they cannot be used.
    pub(super) fn choose(
        &self,
        entry_points: &[usize],
        rule: Option<&Rule>,
        options: &QualifiedName,
    ) -> TlsChoice {
        let default = QualifiedName::global("default");
        if let Err(broken) = self.tls.options(options) {
            let problem = Some(broken.reason.to_string());
            return TlsChoice { options: options.shared(), problem };
        }
        let domains = rule.map(Rule::domains).unwrap_or_default();
        if domains.is_empty() {
            // Options are chosen by server name: without a host there is none to choose by.
            return TlsChoice { options: default.shared(), problem: None };
        }
        let conflict = entry_points
            .iter()
            .filter_map(|&entry_point| self.conflicts.get(entry_point))
            .find_map(|conflicts| {
                domains.iter().find_map(|host| conflicts.get(host).map(|names| (host, names)))
            });
        let Some((host, names)) = conflict else {
            return TlsChoice { options: options.shared(), problem: None };
        };
        let names: Vec<_> = names.iter().map(QualifiedName::as_str).collect();
        let problem = self.strict.then(|| {
            format!(
                "conflicting TLS options for host {host} on one entry point ({}): no router of \
                 this host is served",
                names.join(", ")
            )
        });
        TlsChoice { options: default.shared(), problem }
    }

    /// The routes of each entry point with what they were made of; those of the previous table
    /// where nothing changed.
    pub(super) fn finish(self, previous: Option<&BuiltTls>) -> Vec<(Claims, Arc<TlsRoutes>)> {
        let Some(store) = &self.tls.store else { return Vec::new() };
        let previous = previous.filter(|previous| previous.same_inputs(self.tls));
        let mut all = Vec::with_capacity(self.claims.len());
        for (position, claims) in self.claims.into_iter().enumerate() {
            let kept = previous
                .and_then(|previous| previous.routes.get(position))
                .filter(|(then, _)| *then == claims)
                .map(|(_, routes)| Arc::clone(routes));
            let routes = kept.unwrap_or_else(|| {
                let hosts =
                    claims.iter().map(|(host, name)| (host.clone(), self.tls.options(name)));
                Arc::new(TlsRoutes::build(hosts, &self.tls.default, store))
            });
            all.push((claims, routes));
        }
        all
    }
}
