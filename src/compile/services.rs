//! The graph of services: each is built once, cycles are found, and an unchanged one is kept.
//!
//! When nothing at all has changed, the whole of the previous time is kept as one object.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Compiler;
use super::chains::{Link, Walk, build_link};
use super::inputs::{FileInputs, RecordedFiles, same, unchanged};
use super::problem::Problem;
use crate::config::diagnostics::{Diagnostic, Severity, Subject};
use crate::config::dynamic_config::Object;
use crate::exchange::{Context, Handler, Middleware, Observer, Request, ResponseFuture};
use crate::service::health::HealthPlan;
use crate::service::{Chained, Service, ServiceConfig, ServiceContext};
use crate::upstream::limits::{Keeper, Limits, RequestBodyConfig};
use crate::upstream::{ServersTransport, ServersTransportConfig};
use crate::values::{BuildError, QualifiedName};

/// Why something that is named cannot be had: a sentence for whoever names it.
pub(super) type Missing = String;

/// Servers transports by name.
pub(super) type TransportMap = HashMap<QualifiedName, Arc<BuiltTransport>>;
/// Services by name.
pub(super) type ServiceMap = hashbrown::HashMap<QualifiedName, Arc<BuiltService>, RandomState>;

/// What diagnostics call a servers transport.
const TRANSPORT: &str = "serversTransport";
/// How deep services may stand in services. A request goes down as many calls.
const MAX_HEIGHT: usize = 32;

/// All services, and what they have to say together.
#[derive(Default)]
pub(super) struct Services {
    pub(super) by_name: ServiceMap,
    pub(super) diagnostics: Vec<Diagnostic>,
    plans: Vec<Arc<HealthPlan>>,
}

/// A service, or why there is none, and what it was made of.
pub(super) struct BuiltService {
    pub(super) object: Arc<Object<ServiceConfig>>,
    pub(super) service: Result<Arc<dyn Service>, Missing>,
    pub(super) diagnostics: Vec<Diagnostic>,
    transport: Option<(QualifiedName, Arc<ServersTransport>)>,
    children: Vec<QualifiedName>,
    /// Its own middlewares.
    links: Vec<Link>,
    files: FileInputs,
    /// How many services stand in each other, this one counted.
    height: usize,
}

/// What is learnt of a service while it is made.
#[derive(Default)]
struct Parts {
    children: Vec<QualifiedName>,
    links: Vec<Link>,
    files: FileInputs,
    /// Who is to blame for its error, if that is another object in error.
    cause: Option<Subject>,
    warnings: Vec<BuildError>,
    /// What its middlewares have to say.
    diagnostics: Vec<Diagnostic>,
}

/// A service of provider `internal` below others: always there, and without a health check.
struct Internal(Arc<dyn Handler>);

impl Handler for Internal {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        self.0.handle(cx, request)
    }
}

impl Service for Internal {
    fn is_up(&self) -> bool {
        true
    }

    fn checks_health(&self) -> bool {
        false
    }
}

/// A servers transport, or why there is none.
pub(super) struct BuiltTransport {
    object: Arc<Object<ServersTransportConfig>>,
    transport: Result<Arc<ServersTransport>, Missing>,
    diagnostics: Vec<Diagnostic>,
    files: FileInputs,
}

impl Services {
    fn new(by_name: ServiceMap) -> Self {
        let mut services = Self { by_name, ..Self::default() };
        for built in services.by_name.values() {
            services.diagnostics.extend(built.diagnostics.iter().cloned());
            services.plans.extend(built.service.as_ref().ok().and_then(|one| one.health_plan()));
        }
        services
    }

    /// The probes that the health monitor carries out.
    pub(super) fn health_plans(&self) -> Vec<Arc<HealthPlan>> {
        self.plans.clone()
    }
}

impl Compiler<'_> {
    /// The handler that a router's `service` means. All services are built by now.
    pub(super) fn handler(&self, name: &QualifiedName) -> Result<Arc<dyn Handler>, Missing> {
        if is_internal(name) {
            return self.internal_handler(name);
        }
        match self.memo.services.by_name.get(name) {
            Some(built) => built.service.clone().map(|service| -> Arc<dyn Handler> { service }),
            None => Err(does_not_exist(name)),
        }
    }

    fn internal_handler(&self, name: &QualifiedName) -> Result<Arc<dyn Handler>, Missing> {
        match self.env.facts.internal_services.get(name.name()) {
            Some(Ok(handler)) => Ok(Arc::clone(handler)),
            Some(Err(reason)) => Err((*reason).to_owned()),
            None => Err(does_not_exist(name)),
        }
    }

    /// Keeps the services that nothing has changed for, and builds the others.
    pub(super) fn build_services(&mut self) {
        let config = self.config;
        let previous = Arc::clone(&self.previous.services);
        let mut anew: HashSet<&QualifiedName, RandomState> = HashSet::default();
        let mut composed = Vec::new();
        for (name, object) in &config.services {
            match previous.by_name.get(name).filter(|built| self.may_stay(name, built, object)) {
                Some(built) if built.children.is_empty() => {}
                Some(built) => composed.push((name, &built.children)),
                None => drop(anew.insert(name)),
            }
        }
        // Who is made of one that is built anew is built anew.
        let mut found = true;
        while found {
            let before = anew.len();
            for (name, children) in &composed {
                let gone = |child| {
                    anew.contains(child)
                        || !config.services.contains_key(child) && !is_internal(child)
                };
                if children.iter().any(gone) {
                    anew.insert(name);
                }
            }
            found = anew.len() > before;
        }
        if anew.is_empty() && previous.by_name.len() == config.services.len() {
            self.memo.services = previous;
            self.unchanged.services = true;
            return;
        }
        self.services.clone_from(&previous.by_name);
        for name in &anew {
            self.services.remove(*name);
        }
        if self.services.len() + anew.len() > config.services.len() {
            self.services.retain(|name, _| config.services.contains_key(name));
        }
        // In the order of names: what a cycle is blamed on depends on where it is entered.
        let mut anew: Vec<_> = anew.into_iter().collect();
        anew.sort_unstable();
        for name in anew {
            let _ = self.service(name);
            self.too_high = false;
        }
        self.memo.services = Arc::new(Services::new(std::mem::take(&mut self.services)));
    }

    /// Whether a service may be kept, as far as that does not depend on other services. One in
    /// error never is: what it lacked may be there by now.
    fn may_stay(
        &self,
        name: &QualifiedName,
        built: &BuiltService,
        object: &Arc<Object<ServiceConfig>>,
    ) -> bool {
        let same_transport = || match &built.transport {
            Some((name, then)) if !self.unchanged.transports => {
                self.transport(name).is_ok_and(|now| same(&now, then))
            }
            _ => true,
        };
        let same_links = || {
            let links = self.links_of_service(name, &built.object.config);
            links.is_ok_and(|links| {
                links.len() == built.links.len()
                    && links.iter().zip(&built.links).all(|(one, other)| same(&one.1, &other.1))
            })
        };
        same(&built.object, object)
            && built.service.is_ok()
            && same_transport()
            && unchanged(&built.files, self.env.files)
            && (self.unchanged.middlewares || same_links())
    }

    /// The service of this name, built if it is not there yet.
    fn service(&mut self, name: &QualifiedName) -> Result<Arc<dyn Service>, Missing> {
        let known = self.services.get(name);
        if self.building.len() + known.map_or(1, |built| built.height) > MAX_HEIGHT {
            self.too_high = true;
            return Err(String::new());
        }
        if let Some(built) = known {
            return built.service.clone();
        }
        let Some(object) = self.config.services.get(name) else {
            return Err(does_not_exist(name));
        };
        if self.building.contains(name) {
            return Err(format!(
                "could not instantiate service {name}: recursion detected in {}",
                path_of(&self.building, name)
            ));
        }
        let object = Arc::clone(object);
        self.building.push(name.clone());
        let built = Arc::new(self.build_service(name, &object));
        self.building.pop();
        let service = built.service.clone();
        // Only the one at the top is too high: those in it are asked again for themselves, so that
        // the order of names does not matter.
        if !self.too_high || self.building.is_empty() {
            self.services.insert(name.clone(), built);
        }
        service
    }

    fn build_service(
        &mut self,
        name: &QualifiedName,
        object: &Arc<Object<ServiceConfig>>,
    ) -> BuiltService {
        let transport = self.transport_of(name, object);
        let used = transport
            .as_ref()
            .and_then(|(name, found)| Some((name.clone(), Arc::clone(found.as_ref().ok()?))));
        let mut parts = Parts {
            cause: transport
                .as_ref()
                .filter(|(name, found)| found.is_err() && self.memo.transports.contains_key(name))
                .map(|(name, _)| Subject { kind: TRANSPORT, name: name.as_str().into() }),
            ..Parts::default()
        };
        let transport = transport.map(|(_, found)| found);
        let built = if object.is_good() {
            let made = self.make_service(name, &object.config, transport, &mut parts);
            made.and_then(|service| self.behind_middlewares(name, object, service, &mut parts))
        } else {
            Err(BuildError::new(String::new()))
        };
        let mut diagnostics: Vec<_> = object.errors.clone();
        for warning in &parts.warnings {
            diagnostics.push(object.diagnose(Severity::Warning, "service", name, warning));
        }
        let mut cause = parts.cause;
        let service = built.map_err(|mut error| {
            if self.too_high {
                // Said of the one at the top, and the same however far memory reached.
                error.message = format!("more than {MAX_HEIGHT} services stand in each other");
                cause = None;
            }
            if object.is_good() {
                let diagnostic = object.diagnose(Severity::Error, "service", name, &error);
                diagnostics.push(match cause {
                    Some(cause) => diagnostic.because_of(cause),
                    None => diagnostic,
                });
            }
            format!("the service \"{name}\" is in error: {}", summary(&diagnostics))
        });
        diagnostics.extend(parts.diagnostics);
        let object = Arc::clone(object);
        let Parts { children, links, files, .. } = parts;
        let below = children.iter().filter_map(|child| self.services.get(child));
        // Of one that is too high, what stands below was not kept: whoever stands above must find it too high as well,
        // whoever of them was asked first.
        let height = if self.too_high {
            MAX_HEIGHT + 1
        } else {
            1 + below.map(|child| child.height).max().unwrap_or_default()
        };
        let transport = used;
        BuiltService { object, service, diagnostics, transport, children, links, files, height }
    }

    /// The servers transport that a service names.
    fn transport_of(
        &self,
        name: &QualifiedName,
        object: &Object<ServiceConfig>,
    ) -> Option<(QualifiedName, Result<Arc<ServersTransport>, Missing>)> {
        let reference = &*object.config.load_balancer.as_ref()?.servers_transport;
        let reference = if reference.is_empty() { "default@internal" } else { reference };
        let transport = QualifiedName::resolve(reference, name.provider());
        let found = self.transport(&transport);
        Some((transport, found))
    }

    fn make_service(
        &mut self,
        name: &QualifiedName,
        config: &ServiceConfig,
        transport: Option<Result<Arc<ServersTransport>, Missing>>,
        parts: &mut Parts,
    ) -> Result<Arc<dyn Service>, BuildError> {
        let metrics = self.env.metrics.service(name.as_str());
        let metrics = metrics.map(|metrics| -> Arc<dyn Observer> { metrics });
        let server_up = Arc::clone(self.env.server_up);
        let state = self.env.state;
        let profile = self.env.facts.profile;
        let provider = name.provider();
        let transport = transport
            .transpose()
            .map_err(|missing| BuildError::at("loadBalancer.serversTransport", missing))?;
        let Parts { children, cause, warnings, .. } = parts;
        let mut child = |reference: &str| {
            let name = QualifiedName::resolve(reference, provider);
            if is_internal(&name) {
                let found = self.internal_handler(&name).map_err(BuildError::new)?;
                children.push(name);
                return Ok(Arc::new(Internal(found)) as Arc<dyn Service>);
            }
            let found = self.service(&name);
            // Of a cycle, the one that closes it tells.
            if found.is_err()
                && self.config.services.contains_key(&name)
                && !self.building.contains(&name)
            {
                *cause = Some(Subject { kind: "service", name: name.as_str().into() });
            }
            children.push(name);
            found.map_err(BuildError::new)
        };
        config.build(&mut ServiceContext {
            name,
            transport,
            child: &mut child,
            state,
            profile,
            metrics,
            server_up,
            warnings,
        })
    }

    /// The middlewares that a service names, chains taken apart.
    fn links_of_service(
        &self,
        name: &QualifiedName,
        config: &ServiceConfig,
    ) -> Result<Vec<Link>, Problem> {
        let (mut links, mut walk) = (Vec::new(), Walk::default());
        for (index, reference) in config.middlewares.iter().enumerate() {
            let middleware = QualifiedName::resolve(reference, name.provider());
            self.links(&middleware, &format!("middlewares[{index}]"), &mut walk, &mut links)?;
        }
        Ok(links)
    }

    /// Puts a service's own middlewares in front of it.
    fn behind_middlewares(
        &mut self,
        name: &QualifiedName,
        object: &Object<ServiceConfig>,
        service: Arc<dyn Service>,
        parts: &mut Parts,
    ) -> Result<Arc<dyn Service>, BuildError> {
        let blame = |problem: Problem, parts: &mut Parts| {
            let (error, cause) = problem.into_parts();
            parts.cause = cause;
            error
        };
        let found = self.links_of_service(name, &object.config);
        let links = found.map_err(|problem| blame(problem, parts))?;
        let keeper = keeper_of(&object.config, &mut parts.warnings)?;
        if links.is_empty() && keeper.is_none() {
            return Ok(service);
        }
        let env = self.env;
        let files = RecordedFiles::new(env.files);
        // A router may have the same name and the same middleware.
        let owner = QualifiedName::new(&format!("service {}", name.name()), name.provider());
        let mut middlewares: Vec<_> = keeper.into_iter().collect();
        for link in &links {
            let Parts { children, diagnostics, .. } = &mut *parts;
            let mut find = |target: &QualifiedName| -> Result<Arc<dyn Handler>, Missing> {
                children.push(target.clone());
                if is_internal(target) {
                    return self.internal_handler(target);
                }
                self.service(target).map(|service| -> Arc<dyn Handler> { service })
            };
            let built = build_link(env, link, &owner, &files, &mut find, diagnostics);
            middlewares.push(built.map_err(|problem| blame(problem, parts))?);
        }
        parts.files = files.finish();
        parts.links = links;
        Ok(Arc::new(Chained::new(middlewares, service)))
    }

    /// Keeps the servers transports that nothing has changed for, and builds the others.
    pub(super) fn build_transports(&mut self) {
        let previous = &self.previous.transports;
        let mut transports = TransportMap::new();
        for name in super::sorted_names(&self.config.servers_transports) {
            let Some(object) = self.config.servers_transports.get(name) else { continue };
            let kept = previous.get(name).filter(|built| {
                same(&built.object, object) && unchanged(&built.files, self.env.files)
            });
            let built = match kept {
                Some(built) => Arc::clone(built),
                None => Arc::new(self.build_transport(name, object)),
            };
            self.diagnostics.extend(built.diagnostics.iter().cloned());
            transports.insert(name.clone(), built);
        }
        self.unchanged.transports = previous
            .iter()
            .all(|(name, then)| transports.get(name).is_some_and(|now| same(now, then)));
        self.memo.transports = Arc::new(transports);
    }

    /// The servers transport of this name.
    fn transport(&self, name: &QualifiedName) -> Result<Arc<ServersTransport>, Missing> {
        match self.memo.transports.get(name) {
            Some(built) => built.transport.clone(),
            None => Err(format!("servers transport not found {name}")),
        }
    }

    fn build_transport(
        &self,
        name: &QualifiedName,
        object: &Arc<Object<ServersTransportConfig>>,
    ) -> BuiltTransport {
        let files = RecordedFiles::new(self.env.files);
        let mut diagnostics = object.errors.clone();
        let mut warnings = Vec::new();
        let transport = if object.is_good() {
            ServersTransport::build(
                name.as_str(),
                &object.config,
                &files,
                self.env.facts.profile,
                &mut warnings,
            )
            .map(|transport| transport.through(&self.env.facts.proxies))
            .map_err(|error| {
                diagnostics.push(object.diagnose(Severity::Error, TRANSPORT, name, &error));
            })
        } else {
            Err(())
        };
        for warning in &warnings {
            diagnostics.push(object.diagnose(Severity::Warning, TRANSPORT, name, warning));
        }
        let transport = transport.map(Arc::new).map_err(|()| {
            format!("the servers transport \"{name}\" is in error: {}", summary(&diagnostics))
        });
        BuiltTransport { object: Arc::clone(object), transport, diagnostics, files: files.finish() }
    }
}

/// Who sees to a service's limits.
fn keeper_of(
    config: &ServiceConfig,
    warnings: &mut Vec<BuildError>,
) -> Result<Option<Arc<dyn Middleware>>, BuildError> {
    let mut errors = Vec::new();
    let body = RequestBodyConfig::default();
    let limits = Limits::read(config.timeouts.as_ref(), body, &mut errors, warnings);
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let keeper = || Arc::new(Keeper::of_service(limits)) as Arc<dyn Middleware>;
    Ok((!limits.is_empty()).then(keeper))
}

fn is_internal(name: &QualifiedName) -> bool {
    name.provider() == "internal"
}

fn does_not_exist(name: &QualifiedName) -> Missing {
    format!("the service \"{name}\" does not exist")
}

/// The first error, for a sentence of the "because of" kind.
pub(super) fn summary(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .find(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| diagnostic.message.clone())
        .unwrap_or_default()
}

/// The way from `name` to itself.
fn path_of(building: &[QualifiedName], name: &QualifiedName) -> String {
    let cycle = building.iter().skip_while(|one| *one != name);
    let names: Vec<_> = cycle.chain([name]).map(QualifiedName::as_str).collect();
    names.join(" -> ")
}
