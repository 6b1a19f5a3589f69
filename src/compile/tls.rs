//! TLS options and certificates, and which options the hosts of each entry point get.
//!
//! Options in error, options that do not exist and options that contradict each other never weaken
//! a host: its routers answer 503, or its connections are refused.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Compiler;
use super::router::Instance;
use super::services::summary;
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::tls::{
    BrokenOptions, CertificateStore, Consequence, OptionsRef, TlsOptions, TlsOptionsConfig,
    TlsRoutes, TlsRoutesBuilder,
};
use crate::values::QualifiedName;

/// TLS as configured, for all entry points.
pub(super) struct BuiltTls {
    options: HashMap<QualifiedName, OptionsRef, RandomState>,
    default: OptionsRef,
    pub(super) store: Option<Arc<CertificateStore>>,
    routes: Routes,
}

/// What each entry point got.
pub(super) type Routes = Arc<[Arc<TlsRoutes>]>;

/// The TLS options that a router gets, and why they cannot be used.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TlsChoice {
    pub(super) options: Arc<str>,
    pub(super) problem: Option<String>,
    /// Why the router does not get what it wants, where that is no reason not to serve it.
    pub(super) warning: Option<String>,
    /// Whether the problem is one of the options themselves, which they tell.
    pub(super) of_options: bool,
}

impl Compiler<'_> {
    /// Builds all TLS options and the certificates.
    pub(super) fn build_tls(&mut self) -> BuiltTls {
        let mut options = HashMap::default();
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
        BuiltTls { options, default, store, routes: Arc::default() }
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
    /// Remembers what the entry points got.
    pub(super) fn remember(&mut self, routes: Routes) {
        self.routes = routes;
    }

    /// Whether options and certificates are the same objects as those of `other`.
    pub(super) fn same_inputs(&self, other: &Self) -> bool {
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
    /// For each entry point; nothing if there is no certificate to serve with.
    pub(super) routes: Routes,
    /// The routes are those of the previous time, so nobody has to be asked.
    kept: bool,
    /// Options and certificates are those of the previous time.
    same_options: bool,
    strict: bool,
}

/// What one copy of a router wants.
#[derive(PartialEq)]
pub(super) struct Claim<'r> {
    pub(super) options: &'r QualifiedName,
    pub(super) entry_points: &'r [usize],
    pub(super) hosts: &'r [Arc<str>],
}

/// Collects the claims of all routers.
pub(super) struct TlsPlanner<'t> {
    tls: &'t BuiltTls,
    /// For each entry point; nothing if there is no certificate to serve with.
    builders: Vec<TlsRoutesBuilder<'t>>,
    /// The options of the last claim, which most others want too.
    last: Option<(QualifiedName, OptionsRef)>,
    same_options: bool,
    strict: bool,
}

impl<'t> TlsPlanner<'t> {
    /// Begins a plan for `count` entry points. With `strict`, contradictions take the routers of
    /// their host out of service; without, as in Traefik, these get the default options.
    /// `previous` has the same options and certificates.
    pub(super) fn new(
        tls: &'t BuiltTls,
        previous: Option<&BuiltTls>,
        count: usize,
        strict: bool,
    ) -> Self {
        let builder = |at: usize, store| {
            let before = previous.and_then(|previous| previous.routes.get(at));
            let expected = before.map_or(0, |routes| routes.exact_hosts());
            TlsRoutesBuilder::new(&tls.default, store, expected)
        };
        let builders = tls.store.iter().flat_map(|store| (0..count).map(|at| builder(at, store)));
        let builders = builders.collect();
        Self { tls, builders, last: None, same_options: previous.is_some(), strict }
    }

    /// Adds what one copy of a router wants.
    pub(super) fn claim(&mut self, claim: &Claim<'_>) {
        let options = match &self.last {
            Some((name, options)) if name == claim.options => options,
            _ => {
                let options = self.tls.options(claim.options);
                &self.last.insert((claim.options.clone(), options)).1
            }
        };
        for &entry_point in claim.entry_points {
            if let Some(builder) = self.builders.get_mut(entry_point) {
                builder.claim(claim.hosts, options);
            }
        }
    }

    /// The plan.
    pub(super) fn finish(self) -> TlsPlan<'t> {
        let Self { tls, builders, same_options, strict, .. } = self;
        let routes = builders.into_iter().map(|builder| Arc::new(builder.finish())).collect();
        TlsPlan { tls, routes, kept: false, same_options, strict }
    }
}

impl<'t> TlsPlan<'t> {
    /// The plan of the previous time, when neither options nor claims have changed.
    pub(super) fn keep(tls: &'t BuiltTls, previous: &BuiltTls, strict: bool) -> Self {
        let routes = Arc::clone(&previous.routes);
        Self { tls, routes, kept: true, same_options: true, strict }
    }

    /// Whether a router that once got `then` still gets it.
    pub(super) fn still_gives(
        &self,
        then: Option<&TlsChoice>,
        instance: &Instance,
        hosts: &[Arc<str>],
    ) -> bool {
        if self.kept || instance.tls.is_none() && then.is_none() {
            return true;
        }
        // The usual case, without a look at any host.
        let own = |then: &TlsChoice| {
            let options = instance.tls.as_ref().map(QualifiedName::as_str);
            then.problem.is_none() && then.warning.is_none() && options == Some(&*then.options)
        };
        let agreed = || !self.routes.iter().any(|routes| routes.has_conflicts());
        self.same_options && agreed() && !hosts.is_empty() && then.is_some_and(own)
            || self.choose(instance, hosts).as_ref() == then
    }

    /// The options that a router gets, if it serves TLS.
    pub(super) fn choose(&self, instance: &Instance, hosts: &[Arc<str>]) -> Option<TlsChoice> {
        let options = instance.tls.as_ref()?;
        let found = match self.tls.options(options) {
            Ok(found) => found,
            Err(broken) => {
                return Some(TlsChoice {
                    options: options.shared(),
                    problem: Some(broken.reason.to_string()),
                    warning: None,
                    of_options: self.tls.options.contains_key(options),
                });
            }
        };
        let choice = |options, problem, warning| {
            Some(TlsChoice { options, problem, warning, of_options: false })
        };
        if hosts.is_empty() {
            // Options are chosen by server name: without a host there is none to choose by.
            let default: Arc<str> = Arc::from("default");
            if options.as_str() == &*default {
                return choice(default, None, None);
            }
            let message = format!(
                "TLS options are chosen by the name that a client asks for, and no `Host` of this rule says \
                 which: \"{options}\" cannot apply"
            );
            // Whoever asks for certificates must not be left without, and without a word.
            return if self.strict && found.demands_certificate() {
                choice(default, Some(message), None)
            } else {
                choice(default, None, Some(format!("{message}, the default options do")))
            };
        }
        let at_entry_points = instance.entry_points.iter().filter_map(|&at| self.routes.get(at));
        let mut conflicts = at_entry_points
            .flat_map(|routes| hosts.iter().filter_map(|host| routes.conflict(host)));
        let Some(conflict) = conflicts.next() else {
            return choice(options.shared(), None, None);
        };
        let message = format!(
            "conflicting TLS options for host {} on one entry point ({}): ",
            conflict.host,
            conflict.options.join(", ")
        );
        let (problem, warning) = if self.strict {
            (Some(message + "no router of this host is served"), None)
        } else {
            (None, Some(message + "all routers of this host get the default options"))
        };
        choice(Arc::from("default"), problem, warning)
    }
}
