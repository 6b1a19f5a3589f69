//! One router at its entry points: built, kept, or its place when it cannot be built.
//!
//! A router that cannot be built never lets its requests reach another router, unless the user
//! asked for that (`core.onBrokenRouter: skip`).

use std::sync::Arc;

use smallvec::SmallVec;

use super::chains::{Link, UsedService};
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use super::report::Status;
use super::routers::Draft;
use super::tls::{TlsChoice, TlsPlan};
use super::{Compiler, OnBrokenRouter};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::exchange::{
    Chain, Context, Handler, Observer, ProxyError, Request, ResponseFuture, ready,
};
use crate::router::{HttpRouter, RouterConfig, RouterObservabilityConfig};
use crate::rule::{Rule, readable_hosts};
use crate::values::{BuildError, QualifiedName};

/// Users may not go above this; what is above belongs to routers of provider `internal`.
const MAX_USER_PRIORITY: i64 = i64::MAX - 1000;

/// Positions of entry points.
pub(super) type EntryPoints = SmallVec<[usize; 2]>;

/// Where one copy of a router stands.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) name: QualifiedName,
    pub(super) entry_points: EntryPoints,
    pub(super) model: Option<usize>,
    /// Name of the TLS options that it wants, if it serves TLS.
    pub(super) tls: Option<QualifiedName>,
}

/// A router, or its place, and what it was made of.
pub(super) struct BuiltRouter {
    pub(super) instance: Instance,
    pub(super) object: Arc<Object<RouterConfig>>,
    pub(super) status: Status,
    pub(super) errors: Vec<String>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) links: Vec<Link>,
    pub(super) priority: i64,
    /// What stands in the table; more than one where only hosts of a rule can be read.
    pub(super) routers: Vec<Arc<HttpRouter>>,
    services: Vec<UsedService>,
    tls: Option<TlsChoice>,
    files: FileInputs,
    last_good: Option<Arc<HttpRouter>>,
}

impl Compiler<'_> {
    /// Whether building it again would give the same. What is in error is always built again.
    pub(super) fn is_current(
        &self,
        built: &BuiltRouter,
        hosts: &[Arc<str>],
        plan: &TlsPlan<'_>,
    ) -> bool {
        let same_links = || {
            let links = self.links_of(&built.instance, &built.object.config);
            links.is_ok_and(|links| {
                links.len() == built.links.len()
                    && links.iter().zip(&built.links).all(|(one, other)| same(&one.1, &other.1))
            })
        };
        let same_services = || {
            built.services.iter().all(|(name, then)| match (self.handler(name), then) {
                (Ok(now), Ok(then)) => same(&now, then),
                _ => false,
            })
        };
        built.status != Status::Disabled
            && plan.still_gives(built.tls.as_ref(), &built.instance, hosts)
            && (self.unchanged.middlewares || same_links())
            && unchanged(&built.files, self.env.files)
            && (self.unchanged.services || same_services())
    }

    fn links_of(&self, instance: &Instance, config: &RouterConfig) -> Result<Vec<Link>, String> {
        let mut links = Vec::new();
        let model = instance.model.and_then(|position| self.env.facts.entry_points.get(position));
        if let Some(model) = model {
            self.links(&model.middlewares, "internal", &mut links)?;
        }
        self.links(&config.middlewares, instance.name.provider(), &mut links)?;
        Ok(links)
    }

    /// Builds one copy of a router. `previous` is what stood under its name.
    pub(super) fn build_router(
        &mut self,
        draft: &Draft,
        instance: &Instance,
        tls: Option<TlsChoice>,
        previous: Option<&BuiltRouter>,
    ) -> BuiltRouter {
        let mut built = BuiltRouter {
            instance: instance.clone(),
            object: Arc::clone(&draft.object),
            status: Status::Enabled,
            errors: draft.warnings.clone(),
            diagnostics: draft.object.errors.clone(),
            links: Vec::new(),
            priority: draft.priority,
            routers: Vec::new(),
            services: Vec::new(),
            tls,
            files: FileInputs::default(),
            last_good: None,
        };
        for warning in &draft.warnings {
            built.diagnose(Severity::Warning, &BuildError::at("entryPoints", warning.as_str()));
            built.status = Status::Warning;
        }
        let chain = self.chain_of(draft, &mut built);
        match (chain, &draft.rule) {
            (Ok(chain), Ok(rule)) => {
                let router = Arc::new(self.http_router(&built, Arc::clone(rule), Some(chain)));
                built.last_good = Some(Arc::clone(&router));
                built.routers = vec![router];
            }
            (Ok(_), Err(_)) => {}
            (Err(error), _) => {
                if error.message.is_empty() {
                    built.errors.extend(built.object.errors.iter().map(|e| e.message.clone()));
                } else {
                    built.errors.push(error.message.clone());
                    built.diagnose(Severity::Error, &error);
                }
                self.place_of_broken(draft, previous, &mut built);
            }
        }
        built
    }

    /// Everything that a router leads to. An empty message: the object's own errors say it.
    fn chain_of(&self, draft: &Draft, built: &mut BuiltRouter) -> Result<Chain, BuildError> {
        let config = &draft.object.config;
        let provider = draft.name.provider();
        if !draft.object.is_good() {
            return Err(BuildError::new(""));
        }
        if built.instance.entry_points.is_empty() {
            return Err(BuildError::at("entryPoints", "no valid entryPoint for this router"));
        }
        if config.parent_refs.is_some() {
            return Err(BuildError::unsupported("parentRefs"));
        }
        match &*config.rule_syntax {
            "" | "v3" | "default" => {}
            "v2" => {
                return Err(BuildError::at("ruleSyntax", "`ruleSyntax: v2` is not supported yet"));
            }
            other => {
                let message = format!("unknown rule syntax `{other}`: write v3 or leave it out");
                return Err(BuildError::at("ruleSyntax", message));
            }
        }
        if let Err(problem) = &draft.rule {
            return Err(BuildError::at("rule", problem.as_str()));
        }
        if built.priority > MAX_USER_PRIORITY && provider != "internal" {
            let message = format!(
                "the router priority {} exceeds the max user-defined priority {MAX_USER_PRIORITY}",
                built.priority
            );
            return Err(BuildError::at("priority", message));
        }
        if let Some(problem) = built.tls.as_ref().and_then(|tls| tls.problem.clone()) {
            return Err(BuildError::at("tls.options", problem));
        }
        self.resolver_warning(built);
        built.links =
            self.links_of(&built.instance, config).map_err(|e| BuildError::at("middlewares", e))?;
        let files = RecordedFiles::new(self.env.files);
        let mut middlewares = Vec::with_capacity(built.links.len());
        for link in &built.links {
            let owner = &built.instance.name;
            let (services, diagnostics) = (&mut built.services, &mut built.diagnostics);
            let middleware = self.middleware(link, owner, &files, services, diagnostics);
            middlewares.push(middleware.map_err(|e| BuildError::at("middlewares", e))?);
        }
        built.files = files.finish();
        if config.service.is_empty() {
            return Err(BuildError::new("the service is missing on the router"));
        }
        let service = QualifiedName::resolve(&config.service, provider);
        let handler = self.handler(&service);
        built.services.push((service, handler.clone()));
        let handler = handler.map_err(|missing| BuildError::at("service", missing))?;
        Ok(Chain::new(middlewares, handler))
    }

    /// A resolver that is not served yet, or that nobody defined: the router works, with another
    /// certificate (Traefik's behaviour for the latter).
    fn resolver_warning(&self, built: &mut BuiltRouter) {
        let Some(resolver) = self
            .tls_of(&built.object.config, built.instance.model)
            .map(|tls| &tls.cert_resolver)
            .filter(|resolver| !resolver.is_empty())
        else {
            return;
        };
        let message = if self.env.facts.resolvers.contains(resolver) {
            format!(
                "certificates resolver \"{resolver}\" is not served yet: the router uses \
                 certificates from files, or the default certificate"
            )
        } else {
            format!("router uses a nonexistent certificate resolver \"{resolver}\"")
        };
        built.diagnose(Severity::Warning, &BuildError::at("tls.certResolver", &*message));
        built.errors.push(message);
        built.status = Status::Warning;
    }

    fn http_router(
        &self,
        built: &BuiltRouter,
        rule: Arc<Rule>,
        chain: Option<Chain>,
    ) -> HttpRouter {
        let (instance, config) = (&built.instance, &built.object.config);
        let facts = self.env.facts;
        let model = instance.model.and_then(|position| facts.entry_points.get(position));
        let service = QualifiedName::resolve(&config.service, instance.name.provider());
        let internal = service.provider() == "internal";
        let observed = |of: fn(&RouterObservabilityConfig) -> Option<bool>| {
            let own = config.observability.as_ref().and_then(of);
            let entry_point = model.and_then(|model| model.observability.as_ref()).and_then(of);
            own.or(entry_point).unwrap_or(true)
        };
        let count = observed(|o| o.metrics) && (!internal || facts.add_internals_metrics);
        let broken = chain.is_none();
        let metrics = if count {
            let bound = self.env.metrics.router(instance.name.as_str(), service.as_str());
            bound.map(|metrics| -> Arc<dyn Observer> { metrics })
        } else {
            None
        };
        HttpRouter {
            name: instance.name.shared(),
            service: service.shared(),
            rule,
            priority: built.priority,
            chain: chain.unwrap_or_else(|| Chain::new(Vec::new(), Arc::new(Broken))),
            tls_options: built.tls.as_ref().map(|tls| Arc::clone(&tls.options)),
            encoded_characters: model.and_then(|model| model.encoded_characters),
            metrics,
            count,
            access_log: observed(|o| o.access_logs)
                && (!internal || facts.add_internals_access_log),
            broken,
        }
    }

    /// What stands where a router cannot be built.
    fn place_of_broken(
        &mut self,
        draft: &Draft,
        previous: Option<&BuiltRouter>,
        built: &mut BuiltRouter,
    ) {
        built.status = Status::Disabled;
        let mode = self.env.facts.on_broken_router;
        let last_good = previous
            .and_then(|previous| previous.last_good.clone())
            // A router that moved between clear text and TLS is another router.
            .filter(|router| router.tls_options.is_some() == built.tls.is_some());
        built.last_good.clone_from(&last_good);
        if mode == OnBrokenRouter::Skip || built.instance.entry_points.is_empty() {
            return;
        }
        match (&draft.rule, last_good) {
            (_, Some(router)) if mode == OnBrokenRouter::LastGood => built.routers.push(router),
            (Ok(rule), _) => {
                let router = self.http_router(built, Arc::clone(rule), None);
                built.routers.push(Arc::new(router));
            }
            (Err(_), Some(router)) => built.routers.push(router),
            (Err(problem), None) => self.place_without_rule(problem, built),
        }
    }

    /// A rule that cannot be read and never could: the hosts that can be read from it answer 503.
    fn place_without_rule(&mut self, problem: &str, built: &mut BuiltRouter) {
        let hosts = readable_hosts(&built.object.config.rule);
        for host in &hosts {
            if let Ok(rule) = Rule::parse(&format!("Host(`{host}`)")) {
                let router = self.http_router(built, Arc::new(rule), None);
                built.routers.push(Arc::new(router));
            }
        }
        if built.routers.is_empty() {
            let reason = format!(
                "router {} has no place to keep: {problem}, and no host can be read from it",
                built.instance.name
            );
            self.not_ready.push(reason);
        }
    }
}

impl BuiltRouter {
    fn diagnose(&mut self, severity: Severity, error: &BuildError) {
        let diagnostic = self.object.diagnose(severity, "router", &self.instance.name, error);
        self.diagnostics.push(diagnostic);
    }
}

/// The end of a broken router's chain.
struct Broken;

impl Handler for Broken {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        ready(ProxyError::BrokenRouter.into_response())
    }
}
