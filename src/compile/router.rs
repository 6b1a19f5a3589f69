//! One router at its entry points: built, kept, or its place when it cannot be built.
//!
//! A router that cannot be built never lets its requests reach another router, unless the user
//! asked for that (`core.onBrokenRouter: skip`).

use std::sync::Arc;

use smallvec::SmallVec;

use super::chains::{Link, UsedService, Walk};
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use super::problem::Problem;
use super::report::Status;
use super::routers::Draft;
use super::tls::{TlsChoice, TlsPlan};
use super::{Compiler, OnBrokenRouter};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::exchange::{
    Chain, Context, Handler, Middleware, Observer, ProxyError, Request, ResponseFuture, ready,
};
use crate::router::{Below, HttpRouter, RouterConfig, RouterObservabilityConfig};
use crate::rule::{Rule, readable_hosts};
use crate::upstream::limits::{Keeper, Limits, RequestBodyConfig};
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
    /// Whether it stands below another router, or another below it.
    in_tree: bool,
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
            let mut problems = Vec::new();
            let links = self.links_of(&built.instance, &built.object.config, &mut problems);
            problems.is_empty()
                && links.len() == built.links.len()
                && links.iter().zip(&built.links).all(|(one, other)| same(&one.1, &other.1))
        };
        let same_services = || {
            built.services.iter().all(|(name, then)| match (self.handler(name), then) {
                (Ok(now), Ok(then)) => same(&now, then),
                _ => false,
            })
        };
        // What stands below a router, or above it, is looked at anew every time.
        !built.in_tree
            && built.status != Status::Disabled
            && plan.still_gives(built.tls.as_ref(), &built.instance, hosts)
            && (self.unchanged.middlewares || same_links())
            && unchanged(&built.files, self.env.files)
            && (self.unchanged.services || same_services())
    }

    /// The middlewares of an entry point and of a router, as far as they can be found.
    fn links_of(
        &self,
        instance: &Instance,
        config: &RouterConfig,
        problems: &mut Vec<Problem>,
    ) -> Vec<Link> {
        let model = instance.model.and_then(|position| self.env.facts.entry_points.get(position));
        let of_model = model.iter().flat_map(|model| &model.middlewares);
        let of_model =
            of_model.map(|name| (QualifiedName::resolve(name, "internal"), String::new()));
        let own = config.middlewares.iter().enumerate().map(|(index, name)| {
            let name = QualifiedName::resolve(name, instance.name.provider());
            (name, format!("middlewares[{index}]"))
        });
        let (mut links, mut walk) = (Vec::new(), Walk::default());
        for (name, option) in of_model.chain(own) {
            problems.extend(self.links(&name, &option, &mut walk, &mut links).err());
            if walk.is_too_long() {
                return Vec::new();
            }
        }
        links
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
            errors: draft.warnings.iter().map(|warning| warning.message.clone()).collect(),
            diagnostics: draft.object.errors.clone(),
            links: Vec::new(),
            priority: draft.priority,
            in_tree: draft.place.is_some(),
            routers: Vec::new(),
            services: Vec::new(),
            tls,
            files: FileInputs::default(),
            last_good: None,
        };
        for warning in &draft.warnings {
            built.diagnose(Severity::Warning, warning);
            built.status = Status::Warning;
        }
        if let Some(warning) = built.tls.as_ref().and_then(|tls| tls.warning.clone()) {
            built.diagnose(Severity::Warning, &BuildError::at("tls.options", warning.as_str()));
            built.errors.push(warning);
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
            (Err(problems), _) => {
                built.errors.extend(built.object.errors.iter().map(|e| e.message.clone()));
                for problem in problems {
                    built.errors.push(problem.error.message.clone());
                    built.diagnostics.push(problem.diagnose(&built.object, &built.instance.name));
                }
                self.place_of_broken(draft, previous, &mut built);
            }
        }
        built
    }

    /// Everything that a router leads to, or all that is wrong with it besides the object's own
    /// errors.
    fn chain_of(&self, draft: &Draft, built: &mut BuiltRouter) -> Result<Chain, Vec<Problem>> {
        if !draft.object.is_good() {
            return Err(Vec::new());
        }
        let mut problems = own_problems(draft, built);
        self.resolver_warning(built);
        warn_of_tracing(built);
        let mut middlewares = self.middlewares_of(built, &mut problems);
        if let Some(keeper) = self.keeper_of(draft, built, &mut problems) {
            middlewares.insert(0, keeper);
        }
        match self.end_of(draft, built) {
            Ok(service) if problems.is_empty() => return Ok(Chain::new(middlewares, service)),
            service => problems.extend(service.err()),
        }
        Err(problems)
    }

    /// Who sees to the router's limits.
    fn keeper_of(
        &self,
        draft: &Draft,
        built: &mut BuiltRouter,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<dyn Middleware>> {
        let config = &draft.object.config;
        let model = built.instance.model.and_then(|at| self.env.facts.entry_points.get(at));
        let own = config.request_body.and_then(|body| body.max_bytes);
        let max_bytes = own.or_else(|| model?.max_body_bytes);
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let body = RequestBodyConfig { max_bytes };
        let limits = Limits::read(config.timeouts.as_ref(), body, &mut errors, &mut warnings);
        problems.extend(errors.into_iter().map(Problem::new));
        for warning in warnings {
            built.diagnose(Severity::Warning, &warning);
            built.errors.push(warning.message);
            built.status = Status::Warning;
        }
        let slowest = self.env.facts.entry_points.iter().find_map(|one| one.slowest_body);
        let limits = match slowest {
            Some((rate, grace)) => limits.with_slowest_body(rate, grace),
            None => limits,
        };
        let keeper = || Arc::new(Keeper::of_router(limits)) as Arc<dyn Middleware>;
        (!limits.is_empty()).then(keeper)
    }

    fn middlewares_of(
        &self,
        built: &mut BuiltRouter,
        problems: &mut Vec<Problem>,
    ) -> Vec<Arc<dyn Middleware>> {
        let before = problems.len();
        let links = self.links_of(&built.instance, &built.object.config, problems);
        let all_found = problems.len() == before;
        let files = RecordedFiles::new(self.env.files);
        let mut middlewares = Vec::with_capacity(links.len());
        for link in &links {
            let owner = &built.instance.name;
            let (services, diagnostics) = (&mut built.services, &mut built.diagnostics);
            match self.middleware(link, owner, &files, services, diagnostics) {
                Ok(middleware) => middlewares.push(middleware),
                Err(problem) => problems.push(problem),
            }
        }
        built.files = files.finish();
        if all_found {
            built.links = links;
        }
        middlewares
    }

    /// What a router leads to: a service, or the routers below it.
    fn end_of(&self, draft: &Draft, built: &mut BuiltRouter) -> Result<Arc<dyn Handler>, Problem> {
        let Some(place) = draft.place.as_ref().filter(|place| !place.children.is_empty()) else {
            return self.service_of(built);
        };
        if !built.object.config.service.is_empty() {
            let message =
                "router has both a service and is referenced as a parent by other routers";
            return Err(Problem::at("service", message));
        }
        let below = self.below.get(&draft.name).filter(|below| !below.is_empty());
        let Some(below) = below else {
            let count = place.children.len();
            let message = format!("no child routers could be added to muxer ({count} skipped)");
            return Err(Problem::new(BuildError::new(message)));
        };
        Ok(Arc::new(Below::new(below.clone().in_match_order())))
    }

    fn service_of(&self, built: &mut BuiltRouter) -> Result<Arc<dyn Handler>, Problem> {
        let reference = &built.object.config.service;
        if reference.is_empty() {
            let error = BuildError::new(if built.in_tree {
                "router has no service and no child routers"
            } else {
                "the service is missing on the router"
            });
            return Err(Problem::new(error));
        }
        let name = QualifiedName::resolve(reference, built.instance.name.provider());
        let handler = self.handler(&name);
        built.services.push((name.clone(), handler.clone()));
        handler.map_err(|missing| {
            let problem = Problem::at("service", missing);
            let exists = self.config.services.contains_key(&name);
            if exists { problem.because_of("service", &name) } else { problem }
        })
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
        let service = if config.service.is_empty() && built.in_tree {
            // Traefik's name for what leads to the routers below.
            QualifiedName::global(&format!("{}-muxer", instance.name))
        } else {
            QualifiedName::resolve(&config.service, instance.name.provider())
        };
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
            .filter(|previous| previous.stood_where(built))
            .and_then(|previous| previous.last_good.clone());
        built.last_good.clone_from(&last_good);
        let is_nowhere = built.instance.entry_points.is_empty() && !draft.is_child();
        if mode == OnBrokenRouter::Skip || is_nowhere {
            return;
        }
        // In a tree the old one would lead to the others as they were, whatever has become of them.
        let goes_on = !built.in_tree;
        match (&draft.rule, last_good) {
            (_, Some(router)) if goes_on && mode == OnBrokenRouter::LastGood => {
                built.routers.push(router);
            }
            (Ok(rule), _) => {
                let router = self.http_router(built, Arc::clone(rule), None);
                built.routers.push(Arc::new(router));
            }
            (Err(_), Some(router)) if goes_on => built.routers.push(router),
            (Err(_), Some(router)) => {
                let router = self.http_router(built, Arc::clone(&router.rule), None);
                built.routers.push(Arc::new(router));
            }
            (Err(_), None) if draft.is_child() => {
                // It refuses no more than what its parent would have sent to those behind it.
                if let Ok(everything) = Rule::parse("PathPrefix(`/`)") {
                    let router = self.http_router(built, Arc::new(everything), None);
                    built.routers.push(Arc::new(router));
                }
            }
            (Err(problem), None) => self.place_without_rule(&problem.error.message, built),
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

/// What is wrong with a router without a look at what it leads to.
/// What a router asks of tracing, which is not there. Its state stays as in Traefik.
fn warn_of_tracing(built: &mut BuiltRouter) {
    let object = Arc::clone(&built.object);
    let Some(observed) = &object.config.observability else { return };
    let mut warn = |option: &str, message: String| {
        built.diagnose(Severity::Warning, &BuildError::at(option, message));
    };
    let no_effect = |option: &str| format!("`{option}` has no effect: there is no tracing yet");
    if observed.tracing == Some(true) {
        warn("observability.tracing", no_effect("observability.tracing"));
    }
    match observed.trace_verbosity.as_deref() {
        None | Some("minimal") => {}
        Some("detailed") => {
            warn("observability.traceVerbosity", no_effect("observability.traceVerbosity"));
        }
        // Traefik takes it for `minimal`.
        Some(word) => {
            let message = format!("unknown value `{word}`: write `minimal` or `detailed`");
            warn("observability.traceVerbosity", message);
        }
    }
}

fn own_problems(draft: &Draft, built: &BuiltRouter) -> Vec<Problem> {
    let config = &draft.object.config;
    let mut problems = Vec::new();
    if built.instance.entry_points.is_empty() && !draft.is_child() {
        problems.push(Problem::at("entryPoints", "no valid entryPoint for this router"));
    }
    problems.extend(draft.place.iter().flat_map(|place| place.problems.iter().cloned()));
    match (&*config.rule_syntax, &draft.rule) {
        ("" | "v3" | "v2" | "default", rule) => problems.extend(rule.as_ref().err().cloned()),
        // What the rule means in another syntax nobody knows.
        (other, _) => {
            let message = format!("unknown rule syntax `{other}`: write v3 or v2");
            problems.push(Problem::at("ruleSyntax", message));
        }
    }
    if built.priority > MAX_USER_PRIORITY && draft.name.provider() != "internal" {
        let message = format!(
            "the router priority {} exceeds the max user-defined priority {MAX_USER_PRIORITY}",
            built.priority
        );
        problems.push(Problem::at("priority", message));
    }
    if let Some(tls) = &built.tls
        && let Some(message) = &tls.problem
    {
        let problem = Problem::at("tls.options", message);
        let options = built.instance.tls.as_ref().filter(|_| tls.of_options);
        problems.push(match options {
            Some(options) => problem.because_of("tls options", options),
            None => problem,
        });
    }
    problems
}

impl BuiltRouter {
    /// Whether the same stood in front of it: the middlewares of its entry point, or the routers above it.
    fn stood_where(&self, now: &Self) -> bool {
        let (then, is) = (&self.instance, &now.instance);
        then.model == is.model
            && then.entry_points == is.entry_points
            && then.tls.is_some() == is.tls.is_some()
            && self.object.config.parent_refs == now.object.config.parent_refs
    }

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
