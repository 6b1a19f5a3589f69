//! Routers: entry point defaults, copies per entry point, priorities, and the place of a broken one.
//!
//! A router that cannot be built never lets its requests reach another router, unless the user
//! asked for that (`core.onBrokenRouter: skip`).

use std::cmp::Reverse;
use std::sync::Arc;

use super::chains::Link;
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use super::report::Status;
use super::services::Missing;
use super::tls::BuiltTls;
use super::{Compiler, EntryPointModel, OnBrokenRouter};
use crate::config::diagnostics::{Diagnostic, Severity};
use crate::config::dynamic_config::Object;
use crate::exchange::{
    Chain, Context, Handler, Observer, ProxyError, Request, ResponseFuture, ready,
};
use crate::router::{
    EntryPointRoutes, HttpRouter, HttpRouters, RouterConfig, RouterTlsConfig, RoutingTable,
};
use crate::rule::{Rule, readable_hosts};
use crate::values::{BuildError, QualifiedName};

/// Users may not go above this; what is above belongs to routers of provider `internal`.
const MAX_USER_PRIORITY: i64 = i64::MAX - 1000;

/// A router, or its place, and what it was made of.
pub(super) struct BuiltRouter {
    pub(super) object: Arc<Object<RouterConfig>>,
    pub(super) entry_points: Vec<usize>,
    pub(super) model: Option<usize>,
    pub(super) status: Status,
    pub(super) errors: Vec<String>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) links: Vec<Link>,
    pub(super) priority: i64,
    service: Option<NamedHandler>,
    tls: Option<TlsChoice>,
    files: FileInputs,
    rule: Option<Arc<Rule>>,
    /// What stands in the table; more than one where only hosts of a rule can be read.
    routers: Vec<Arc<HttpRouter>>,
    last_good: Option<Arc<HttpRouter>>,
}

/// The service of a router by its name, or why there is none.
type NamedHandler = (QualifiedName, Result<Arc<dyn Handler>, Missing>);

/// The TLS options of a router: their name, and why they cannot be used.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TlsChoice {
    pub(super) options: Arc<str>,
    pub(super) problem: Option<String>,
}

/// One router as it stands at one or several entry points.
struct Instance {
    name: QualifiedName,
    object: Arc<Object<RouterConfig>>,
    entry_points: Vec<usize>,
    model: Option<usize>,
    warnings: Vec<String>,
    rule: Option<Arc<Rule>>,
    rule_problem: Option<String>,
}

impl Compiler<'_> {
    /// Builds all routers and the table of them.
    pub(super) fn build_routers(&mut self, tls: &mut BuiltTls) -> RoutingTable {
        let mut instances = Vec::with_capacity(self.config.routers.len());
        for (name, object) in &self.config.routers {
            self.instances_of(name, object, &mut instances);
        }
        let mut plan = tls.plan(self.env.facts.entry_points.len());
        for instance in &instances {
            if let (Some(config), Some(rule)) = (self.tls_of(instance), &instance.rule) {
                let options = options_name(&config.options, &instance.name);
                for &entry_point in &instance.entry_points {
                    plan.claim(entry_point, rule, &options);
                }
            }
        }
        plan.settle(self.env.facts.strict_tls_options);
        let count = self.env.facts.entry_points.len();
        let mut clear: Vec<Vec<Arc<HttpRouter>>> = vec![Vec::new(); count];
        let mut secure: Vec<Vec<Arc<HttpRouter>>> = vec![Vec::new(); count];
        for instance in instances {
            let choice = self.tls_of(&instance).map(|config| {
                let options = options_name(&config.options, &instance.name);
                plan.choose(&instance.entry_points, instance.rule.as_deref(), &options)
            });
            let is_tls = choice.is_some();
            let name = instance.name.clone();
            let built = self.router(&instance, choice);
            for &entry_point in &built.entry_points {
                let side = if is_tls { &mut secure } else { &mut clear };
                if let Some(list) = side.get_mut(entry_point) {
                    list.extend(built.routers.iter().cloned());
                }
            }
            self.memo.routers.insert(name, built);
        }
        let routes = plan.finish(self.previous.tls.as_deref());
        let sides = clear.into_iter().zip(secure).enumerate();
        let entry_points = sides.map(|(position, (http, https))| EntryPointRoutes {
            http: HttpRouters::new(self.in_match_order(http)),
            https: HttpRouters::new(self.in_match_order(https)),
            tls: routes.get(position).map(|(_, routes)| Arc::clone(routes)),
        });
        let table = RoutingTable { entry_points: entry_points.collect() };
        tls.remember(routes);
        table
    }

    /// Higher priority first; ties go to the provider named earlier, then by name, so that the
    /// order is the same after every reload.
    fn in_match_order(&self, mut routers: Vec<Arc<HttpRouter>>) -> Vec<Arc<HttpRouter>> {
        let precedence = &self.env.facts.precedence;
        let rank = |router: &HttpRouter| {
            let provider = router.name.rsplit_once('@').map_or("", |(_, provider)| provider);
            precedence.iter().position(|name| name == provider).unwrap_or(precedence.len())
        };
        routers.sort_by(|one, other| {
            Reverse(one.priority)
                .cmp(&Reverse(other.priority))
                .then_with(|| rank(one).cmp(&rank(other)))
                .then_with(|| one.name.cmp(&other.name))
        });
        routers
    }

    /// The router as it stands at its entry points: one copy for each that has a model, one for
    /// all others together (Traefik `applyModel`).
    fn instances_of(
        &self,
        name: &QualifiedName,
        object: &Arc<Object<RouterConfig>>,
        instances: &mut Vec<Instance>,
    ) {
        let models = &self.env.facts.entry_points;
        let mut warnings = Vec::new();
        let wanted: Vec<usize> = if object.config.entry_points.is_empty() {
            let defaults = models.iter().enumerate().filter(|(_, model)| model.is_default);
            defaults.map(|(position, _)| position).collect()
        } else {
            let mut wanted = Vec::new();
            for entry_point in &object.config.entry_points {
                match models.iter().position(|model| *model.name == **entry_point) {
                    Some(position) if !wanted.contains(&position) => wanted.push(position),
                    Some(_) => {}
                    None => warnings.push(format!("entryPoint \"{entry_point}\" doesn't exist")),
                }
            }
            wanted
        };
        let shapes =
            |&position: &usize| models.get(position).is_some_and(EntryPointModel::shapes_routers);
        let (rule, rule_problem) = self.rule_of(name, object);
        let instance = |name: QualifiedName, entry_points, model, warnings| Instance {
            name,
            object: Arc::clone(object),
            entry_points,
            model,
            warnings,
            rule: rule.clone(),
            rule_problem: rule_problem.clone(),
        };
        let alone = wanted.len() == 1;
        let (copied, plain): (Vec<usize>, Vec<usize>) = wanted.into_iter().partition(shapes);
        if !plain.is_empty() || copied.is_empty() {
            instances.push(instance(name.clone(), plain, None, warnings.clone()));
        }
        for position in copied {
            let copy = match models.get(position) {
                Some(model) if !alone => {
                    QualifiedName::new(&format!("{}-{}", model.name, name.name()), name.provider())
                }
                _ => name.clone(),
            };
            instances.push(instance(copy, vec![position], Some(position), warnings.clone()));
        }
    }

    /// The rule of a router, parsed only when its text is new.
    fn rule_of(
        &self,
        name: &QualifiedName,
        object: &Arc<Object<RouterConfig>>,
    ) -> (Option<Arc<Rule>>, Option<String>) {
        let text = &object.config.rule;
        let previous = self.previous.routers.get(name).and_then(|built| built.rule.as_ref());
        if let Some(rule) = previous.filter(|rule| rule.text() == text) {
            return (Some(Arc::clone(rule)), None);
        }
        if text.is_empty() {
            return (None, Some("router has no rule".to_owned()));
        }
        match Rule::parse(text) {
            Ok(rule) => (Some(Arc::new(rule)), None),
            Err(error) => {
                (None, Some(format!("error while parsing rule {text}: {}", error.message)))
            }
        }
    }

    /// The router's own `tls`, or its entry point's.
    fn tls_of<'i>(&'i self, instance: &'i Instance) -> Option<&'i RouterTlsConfig> {
        instance.object.config.tls.as_ref().or_else(|| {
            let model = self.env.facts.entry_points.get(instance.model?)?;
            model.tls.as_ref()
        })
    }

    /// The router as built before, if nothing that it was made of has changed, or built anew.
    fn router(&mut self, instance: &Instance, tls: Option<TlsChoice>) -> Arc<BuiltRouter> {
        if let Some(kept) = self.kept_router(instance, tls.as_ref()) {
            return kept;
        }
        Arc::new(self.build_router(instance, tls))
    }

    fn kept_router(
        &mut self,
        instance: &Instance,
        tls: Option<&TlsChoice>,
    ) -> Option<Arc<BuiltRouter>> {
        let built = Arc::clone(self.previous.routers.get(&instance.name)?);
        if built.status == Status::Disabled
            || !same(&built.object, &instance.object)
            || built.entry_points != instance.entry_points
            || built.model != instance.model
            || built.tls.as_ref() != tls
        {
            return None;
        }
        let links = self.links_of(instance).ok()?;
        let same_links = links.len() == built.links.len()
            && links.iter().zip(&built.links).all(|(one, other)| same(&one.1, &other.1));
        if !same_links || !unchanged(&built.files, self.env.files) {
            return None;
        }
        let (name, Ok(then)) = built.service.as_ref()? else { return None };
        let now = self.handler(name).ok()?;
        same(&now, then).then_some(built)
    }

    fn links_of(&self, instance: &Instance) -> Result<Vec<Link>, String> {
        let mut links = Vec::new();
        let model = instance.model.and_then(|position| self.env.facts.entry_points.get(position));
        if let Some(model) = model {
            self.links(&model.middlewares, "internal", &mut links)?;
        }
        let names = &instance.object.config.middlewares;
        self.links(names, instance.name.provider(), &mut links)?;
        Ok(links)
    }

    fn build_router(&mut self, instance: &Instance, tls: Option<TlsChoice>) -> BuiltRouter {
        let config = &instance.object.config;
        let priority = match (config.priority, &instance.rule) {
            (0, Some(rule)) => i64::try_from(rule.default_priority()).unwrap_or(i64::MAX),
            (0, None) => i64::try_from(config.rule.len()).unwrap_or(i64::MAX),
            (priority, _) => priority,
        };
        let mut built = BuiltRouter {
            object: Arc::clone(&instance.object),
            entry_points: instance.entry_points.clone(),
            model: instance.model,
            status: Status::Enabled,
            errors: instance.warnings.clone(),
            diagnostics: instance.object.errors.clone(),
            links: Vec::new(),
            priority,
            service: None,
            tls,
            files: FileInputs::default(),
            rule: instance.rule.clone(),
            routers: Vec::new(),
            last_good: None,
        };
        for warning in &instance.warnings {
            let warning = BuildError::at("entryPoints", warning.as_str());
            built.diagnose(Severity::Warning, &instance.name, &warning);
        }
        if !built.errors.is_empty() {
            built.status = Status::Warning;
        }
        let chain = self.chain_of(instance, &mut built);
        match (chain, instance.rule.clone()) {
            (Ok(chain), Some(rule)) => {
                let router = Arc::new(self.http_router(instance, &built, rule, Some(chain)));
                built.last_good = Some(Arc::clone(&router));
                built.routers = vec![router];
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                if error.message.is_empty() {
                    built.errors.extend(built.object.errors.iter().map(|e| e.message.clone()));
                } else {
                    built.errors.push(error.message.clone());
                    built.diagnose(Severity::Error, &instance.name, &error);
                }
                self.place_of_broken(instance, &mut built);
            }
        }
        built
    }

    /// Everything that a router leads to. An empty message: the object's own errors say it.
    fn chain_of(
        &mut self,
        instance: &Instance,
        built: &mut BuiltRouter,
    ) -> Result<Chain, BuildError> {
        let config = &instance.object.config;
        if !instance.object.is_good() {
            return Err(BuildError::new(""));
        }
        if instance.entry_points.is_empty() {
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
        if let Some(problem) = &instance.rule_problem {
            return Err(BuildError::at("rule", problem.as_str()));
        }
        let internal = instance.name.provider() == "internal";
        if built.priority > MAX_USER_PRIORITY && !internal {
            let message = format!(
                "the router priority {} exceeds the max user-defined priority {MAX_USER_PRIORITY}",
                built.priority
            );
            return Err(BuildError::at("priority", message));
        }
        if let Some(problem) = built.tls.as_ref().and_then(|tls| tls.problem.clone()) {
            return Err(BuildError::at("tls.options", problem));
        }
        self.resolver_warning(instance, built);
        built.links = self.links_of(instance).map_err(|e| BuildError::at("middlewares", e))?;
        let links = built.links.clone();
        let files = RecordedFiles::new(self.env.files);
        let mut middlewares = Vec::with_capacity(links.len());
        for link in &links {
            let middleware = self.middleware(link, &instance.name, &files, &mut built.diagnostics);
            middlewares.push(middleware.map_err(|e| BuildError::at("middlewares", e))?);
        }
        built.files = files.finish();
        if config.service.is_empty() {
            return Err(BuildError::new("the service is missing on the router"));
        }
        let service = QualifiedName::resolve(&config.service, instance.name.provider());
        let handler = self.handler(&service);
        built.service = Some((service, handler.clone()));
        let handler = handler.map_err(|missing| BuildError::at("service", missing))?;
        Ok(Chain::new(middlewares, handler))
    }

    /// A resolver that is not served yet, or that nobody defined: the router works, with another
    /// certificate (Traefik's behaviour for the latter).
    fn resolver_warning(&self, instance: &Instance, built: &mut BuiltRouter) {
        let Some(resolver) = self
            .tls_of(instance)
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
        built.diagnose(
            Severity::Warning,
            &instance.name,
            &BuildError::at("tls.certResolver", &*message),
        );
        built.errors.push(message);
        built.status = Status::Warning;
    }

    fn http_router(
        &self,
        instance: &Instance,
        built: &BuiltRouter,
        rule: Arc<Rule>,
        chain: Option<Chain>,
    ) -> HttpRouter {
        let config = &instance.object.config;
        let facts = self.env.facts;
        let model = instance.model.and_then(|position| facts.entry_points.get(position));
        let service = QualifiedName::resolve(&config.service, instance.name.provider());
        let internal = service.provider() == "internal";
        let observed = |of: fn(&crate::router::RouterObservabilityConfig) -> Option<bool>| {
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
    fn place_of_broken(&mut self, instance: &Instance, built: &mut BuiltRouter) {
        built.status = Status::Disabled;
        let mode = self.env.facts.on_broken_router;
        let last_good = self
            .previous
            .routers
            .get(&instance.name)
            .and_then(|previous| previous.last_good.clone())
            // A router that moved between clear text and TLS is another router.
            .filter(|router| router.tls_options.is_some() == built.tls.is_some());
        built.last_good.clone_from(&last_good);
        if mode == OnBrokenRouter::Skip || instance.entry_points.is_empty() {
            return;
        }
        match (&instance.rule, last_good) {
            (_, Some(router)) if mode == OnBrokenRouter::LastGood => built.routers.push(router),
            (Some(rule), _) => {
                let router = self.http_router(instance, built, Arc::clone(rule), None);
                built.routers.push(Arc::new(router));
            }
            (None, Some(router)) => built.routers.push(router),
            (None, None) => self.place_without_rule(instance, built),
        }
    }

    /// A rule that cannot be read and never could: the hosts that can be read from it answer 503.
    fn place_without_rule(&mut self, instance: &Instance, built: &mut BuiltRouter) {
        let hosts = readable_hosts(&instance.object.config.rule);
        for host in &hosts {
            if let Ok(rule) = Rule::parse(&format!("Host(`{host}`)")) {
                let router = self.http_router(instance, built, Arc::new(rule), None);
                built.routers.push(Arc::new(router));
            }
        }
        if built.routers.is_empty() {
            let problem = instance.rule_problem.as_deref().unwrap_or("its rule cannot be read");
            let reason = format!(
                "router {} has no place to keep: {problem}, and no host can be read from it",
                instance.name
            );
            self.not_ready.push(reason);
        }
    }
}

impl BuiltRouter {
    fn diagnose(&mut self, severity: Severity, name: &QualifiedName, error: &BuildError) {
        self.diagnostics.push(self.object.diagnose(severity, "router", name, error));
    }

    /// The router in the table, for what the report wants to know of it.
    pub(super) fn in_table(&self) -> Option<&Arc<HttpRouter>> {
        self.routers.first()
    }
}

/// The options that a router's `tls.options` means. `default` belongs to no provider.
fn options_name(reference: &str, router: &QualifiedName) -> QualifiedName {
    match reference {
        "" | "default" => QualifiedName::global("default"),
        other => QualifiedName::resolve(other, router.provider()),
    }
}

/// The end of a broken router's chain.
struct Broken;

impl Handler for Broken {
    fn handle<'a>(&'a self, _cx: &'a Context, _request: Request) -> ResponseFuture<'a> {
        ready(ProxyError::BrokenRouter.into_response())
    }
}
