//! TLS options and certificates, and which options the hosts of each entry point get.
//!
//! Options in error, options that do not exist and options that contradict each other never weaken
//! a host: its routers answer 503, or its connections are refused.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Compiler;
use super::router::Instance;
use super::services::summary;
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::tls::{
    BrokenOptions, CertificateStore, Consequence, OptionsRef, TlsOptions, TlsOptionsConfig,
    TlsRoutes,
};
use crate::values::QualifiedName;

/// TLS as configured, for all entry points.
pub(super) struct BuiltTls {
    options: HashMap<QualifiedName, OptionsRef, RandomState>,
    default: OptionsRef,
    pub(super) store: Option<Arc<CertificateStore>>,
    routes: Routes,
}

/// The options that routers want for each host: sorted, each once.
type Claims = HashMap<Arc<str>, SmallVec<[QualifiedName; 1]>, RandomState>;

/// What each entry point got, and what it was made of.
pub(super) type Routes = Arc<[(Claims, Arc<TlsRoutes>)]>;

/// The TLS options that a router gets, and why they cannot be used.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TlsChoice {
    pub(super) options: Arc<str>,
    pub(super) problem: Option<String>,
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
    /// Everything is as it was, so nobody has to be asked.
    kept: Option<Routes>,
    claims: Vec<Claims>,
    /// Whether any host is claimed with several options.
    conflicting: bool,
    /// Options and certificates are those of the previous time.
    same_options: bool,
    strict: bool,
}

impl<'t> TlsPlan<'t> {
    /// A plan for `count` entry points. With `strict`, contradictions take the routers of their
    /// host out of service; without, as in Traefik, these get the default options.
    /// `previous` has the same options and certificates.
    pub(super) fn new(
        tls: &'t BuiltTls,
        previous: Option<&BuiltTls>,
        count: usize,
        strict: bool,
    ) -> Self {
        let before = |position| {
            let routes = previous.and_then(|previous| previous.routes.get(position));
            routes.map_or(0, |routes: &(Claims, _)| routes.0.len())
        };
        let empty =
            |position| Claims::with_capacity_and_hasher(before(position), RandomState::default());
        Self {
            tls,
            kept: None,
            claims: (0..count).map(empty).collect(),
            conflicting: false,
            same_options: previous.is_some(),
            strict,
        }
    }

    /// The plan of the previous time, when neither options nor routers with TLS have changed.
    pub(super) fn keep(tls: &'t BuiltTls, previous: &BuiltTls, strict: bool) -> Self {
        let kept = Some(Arc::clone(&previous.routes));
        Self { tls, kept, claims: Vec::new(), conflicting: true, same_options: true, strict }
    }

    /// A router wants its options for these hosts.
    pub(super) fn claim(&mut self, instance: &Instance, hosts: &[Arc<str>]) {
        let Some(options) = &instance.tls else { return };
        for &entry_point in &instance.entry_points {
            let Some(claims) = self.claims.get_mut(entry_point) else { continue };
            for host in hosts {
                let claimed = claims.entry(Arc::clone(host)).or_default();
                if let Err(place) = claimed.binary_search(options) {
                    claimed.insert(place, options.clone());
                    self.conflicting |= claimed.len() > 1;
                }
            }
        }
    }

    /// Whether a router that once got `then` still gets it.
    pub(super) fn still_gives(
        &self,
        then: Option<&TlsChoice>,
        instance: &Instance,
        hosts: &[Arc<str>],
    ) -> bool {
        if self.kept.is_some() || instance.tls.is_none() && then.is_none() {
            return true;
        }
        // The usual case, without a look at any host.
        let own = |then: &TlsChoice| {
            let options = instance.tls.as_ref().map(QualifiedName::as_str);
            then.problem.is_none() && options == Some(&*then.options)
        };
        self.same_options && !self.conflicting && !hosts.is_empty() && then.is_some_and(own)
            || self.choose(instance, hosts).as_ref() == then
    }

    /// The options that a router gets, if it serves TLS.
    pub(super) fn choose(&self, instance: &Instance, hosts: &[Arc<str>]) -> Option<TlsChoice> {
        let options = instance.tls.as_ref()?;
        if let Err(broken) = self.tls.options(options) {
            let problem = Some(broken.reason.to_string());
            return Some(TlsChoice { options: options.shared(), problem });
        }
        if hosts.is_empty() {
            // Options are chosen by server name: without a host there is none to choose by.
            return Some(TlsChoice { options: Arc::from("default"), problem: None });
        }
        let conflict = self.conflict(&instance.entry_points, hosts);
        let Some((host, names)) = conflict else {
            return Some(TlsChoice { options: options.shared(), problem: None });
        };
        let names: Vec<_> = names.iter().map(QualifiedName::as_str).collect();
        let problem = self.strict.then(|| {
            format!(
                "conflicting TLS options for host {host} on one entry point ({}): no router of \
                 this host is served",
                names.join(", ")
            )
        });
        Some(TlsChoice { options: Arc::from("default"), problem })
    }

    /// The first of `hosts` that routers want several options for.
    fn conflict<'h>(
        &self,
        entry_points: &[usize],
        hosts: &'h [Arc<str>],
    ) -> Option<(&'h str, &[QualifiedName])> {
        let claims = |&position: &usize| match &self.kept {
            Some(routes) => routes.get(position).map(|(claims, _)| claims),
            None => self.claims.get(position),
        };
        entry_points.iter().filter_map(claims).find_map(|claims| {
            let claimed = |host: &'h Arc<str>| Some((&**host, claims.get(host)?.as_slice()));
            hosts.iter().filter_map(claimed).find(|(_, names)| names.len() > 1)
        })
    }

    /// The routes of each entry point with what they were made of; those of the previous table
    /// where nothing changed. `previous` has the same options and certificates.
    pub(super) fn finish(self, previous: Option<&BuiltTls>) -> Routes {
        let Some(store) = &self.tls.store else { return Routes::default() };
        if let Some(kept) = self.kept {
            return kept;
        }
        let mut all = Vec::with_capacity(self.claims.len());
        for (position, claims) in self.claims.into_iter().enumerate() {
            let kept = previous
                .and_then(|previous| previous.routes.get(position))
                .filter(|(then, _)| *then == claims)
                .map(|(_, routes)| Arc::clone(routes));
            let routes = kept.unwrap_or_else(|| {
                let hosts = claims.iter().flat_map(|(host, names)| {
                    names.iter().map(|name| (host.to_string(), self.tls.options(name)))
                });
                Arc::new(TlsRoutes::build(hosts, &self.tls.default, store))
            });
            all.push((claims, routes));
        }
        all.into()
    }
}
