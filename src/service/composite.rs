//! Services made of services, and the first of them: `weighted` spreads requests over the others.
//!
//! Whether a child is up is asked when a request comes, down to the atomics of its servers: nobody
//! has to be told of a change, so nothing can be out of step. It is up when any balancer below it
//! that may be chosen is, so each knows those, once: services that name each other in many ways cost no more.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::load_balancer::{warn_of_weights, weight};
use super::sticky::{Holder, Sticky, Visit};
use super::strategy::Edf;
use super::{Service, ServiceContext, WeightedConfig, WeightedServiceConfig};
use crate::exchange::{Attempts, Context, Handler, ProxyError, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// `weighted`: other services by weight.
pub(super) struct Weighted {
    children: Children,
    schedule: Arc<Edf>,
    sticky: Option<Sticky>,
}

/// The child for one request.
struct Choice<'a> {
    service: &'a dyn Service,
    /// Whom the cookie names that the client gets, if it gets one.
    names: Option<usize>,
    /// The client's cookie names another, which is up but was tried.
    visits: bool,
}

impl Weighted {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &WeightedConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let heeds_health = config.health_check.is_some();
        let children = Children::build(&config.services, heeds_health, cx, |name, error| {
            format!("building HTTP service {name:?}: {error}")
        })?;
        let mut key = format!("{}\nweighted", cx.name);
        for child in &config.services {
            let _ = write!(key, "\n{} {}", child.name, weight(child.weight));
        }
        let weights = config.services.iter().map(|child| weight(child.weight));
        let schedule = cx.state.carry_over(&key, || Edf::new(weights));
        let names = config
            .services
            .iter()
            .map(|child| (weight(child.weight) > 0).then_some(child.name.as_str()));
        let cookie = config.sticky.as_ref().and_then(|sticky| sticky.cookie.as_ref());
        let sticky = cookie
            .map(|cookie| Sticky::new(cookie, cx.name.as_str(), cx.profile, names))
            .transpose()?;
        Ok(Self { children, schedule, sticky })
    }

    /// The child for this request.
    fn choose(&self, request: &Request) -> Option<Choice<'_>> {
        Attempts::pick(Attempts::of(request), |avoid| self.choose_but(avoid, request))
    }

    /// The same, with a server that is none of `avoid`.
    fn choose_but(&self, avoid: &[Arc<str>], request: &Request) -> Option<Choice<'_>> {
        let holder = self.sticky.as_ref().and_then(|sticky| sticky.holder(request.headers()));
        let mut kept = None;
        if let Some(Holder { index, outdated }) = holder
            && let Some(service) = self.children.available(index, &[])
        {
            let names = outdated.then_some(index);
            if has_other_than(avoid, service) {
                return Some(Choice { service, names, visits: false });
            }
            // Of one that is down or cannot be reached nothing is left to go back to.
            let lost = Attempts::of(request).map(Attempts::lost).unwrap_or_default();
            let is_up = service.is_up() && has_other_than(&lost, service);
            kept = is_up.then_some(names);
        }
        let index = self.schedule.pick(|at| self.children.available(at, avoid).is_some())?;
        let service = self.children.get(index)?;
        // Who is elsewhere only for this attempt belongs where it did, as in Traefik.
        let stays = || self.sticky.is_some() && !Visit::is(request);
        let names = kept.unwrap_or_else(|| stays().then_some(index));
        Some(Choice { service, names, visits: kept.is_some() })
    }
}

impl Handler for Weighted {
    fn handle<'a>(&'a self, cx: &'a Context, mut request: Request) -> ResponseFuture<'a> {
        let Some(Choice { service, names, visits }) = self.choose(&request) else {
            return ready(ProxyError::NoAvailableServer.into_response());
        };
        if visits {
            request.extensions_mut().insert(Visit);
        }
        match (names, &self.sticky) {
            (Some(named), Some(sticky)) => Box::pin(async move {
                let mut response = service.handle(cx, request).await;
                sticky.attach(named, &mut response);
                response
            }),
            _ => service.handle(cx, request),
        }
    }
}

impl Service for Weighted {
    fn is_up(&self) -> bool {
        self.children.are_up()
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.children.grounds
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        &self.children.leaves
    }

    fn checks_health(&self) -> bool {
        self.children.heed_health
    }

    fn kind(&self) -> Option<&'static str> {
        Some("weighted")
    }
}

/// The services that one with weights chooses among.
pub(super) struct Children {
    /// With whether it may be chosen at all.
    all: Box<[(Arc<dyn Service>, bool)]>,
    pub(super) heed_health: bool,
    pub(super) grounds: Box<[Arc<dyn Service>]>,
    pub(super) leaves: Box<[Arc<dyn Service>]>,
}

impl Children {
    /// Those that `config` names; `unknown` says what is wrong with one that cannot be built.
    pub(super) fn build(
        config: &[WeightedServiceConfig],
        heed_health: bool,
        cx: &mut ServiceContext<'_>,
        unknown: impl Fn(&str, BuildError) -> String,
    ) -> Result<Self, BuildError> {
        warn_of_weights(config, cx.warnings);
        let mut all = Vec::with_capacity(config.len());
        for (at, child) in config.iter().enumerate() {
            let option = format!("services[{at}]");
            let service = (cx.child)(&child.name)
                .map_err(|error| BuildError::at(&*option, unknown(&child.name, error)))?;
            if heed_health {
                must_check_health(&*service, &child.name, cx, &option)?;
            }
            all.push((service, weight(child.weight) > 0));
        }
        let eligible = || all.iter().filter(|child| child.1).map(|child| &child.0);
        let grounds = grounds_of(eligible().filter(|_| heed_health));
        let leaves = leaves_of(eligible());
        Ok(Self { all: all.into(), heed_health, grounds, leaves })
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<&dyn Service> {
        self.all.get(index).map(|child| &*child.0)
    }

    /// The same, if it may be chosen now and has a server that is none of `avoid`.
    pub(super) fn available(&self, index: usize, avoid: &[Arc<str>]) -> Option<&dyn Service> {
        let service = &*self.all.get(index).filter(|child| child.1)?.0;
        let is_up = !self.heed_health || service.is_up();
        (is_up && has_other_than(avoid, service)).then_some(service)
    }

    /// Whether any may be chosen.
    pub(super) fn are_up(&self) -> bool {
        if self.heed_health {
            self.grounds.iter().any(|service| service.is_up())
        } else {
            self.all.iter().any(|child| child.1)
        }
    }
}

/// What makes a service up when any of `children` makes it so: each once.
pub(super) fn grounds_of<'a>(
    children: impl Iterator<Item = &'a Arc<dyn Service>>,
) -> Box<[Arc<dyn Service>]> {
    each_once(children, |child| child.grounds())
}

/// The services that pass requests to servers, of all that `children` are made of: each once.
pub(super) fn leaves_of<'a>(
    children: impl Iterator<Item = &'a Arc<dyn Service>>,
) -> Box<[Arc<dyn Service>]> {
    each_once(children, |child| child.leaves())
}

/// What is below `children`; a child with nothing below stands for itself.
fn each_once<'a>(
    children: impl Iterator<Item = &'a Arc<dyn Service>>,
    below: impl Fn(&dyn Service) -> &[Arc<dyn Service>],
) -> Box<[Arc<dyn Service>]> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for child in children {
        let below = below(&**child);
        let below = if below.is_empty() { std::slice::from_ref(child) } else { below };
        let new = below.iter().filter(|one| seen.insert(Arc::as_ptr(one).cast::<()>()));
        all.extend(new.cloned());
    }
    all.into()
}

/// Whether a server of `service` is up that is none of these. Nobody is asked about none.
pub(super) fn has_other_than(servers: &[Arc<str>], service: &dyn Service) -> bool {
    let leaves = service.leaves();
    servers.is_empty()
        || leaves.iter().any(|leaf| leaf.has_other_than(servers))
        || leaves.is_empty() && service.has_other_than(servers)
}

/// The service that `option` names.
pub(super) fn child(
    name: &str,
    option: &str,
    cx: &mut ServiceContext<'_>,
) -> Result<Arc<dyn Service>, BuildError> {
    if name.is_empty() {
        return Err(BuildError::at(option, format!("`{option}` is required")));
    }
    (cx.child)(name).map_err(|error| BuildError::at(option, error.to_string()))
}

/// A parent that asks for health must get an answer: Traefik's errors for a child without one.
pub(super) fn must_check_health(
    service: &dyn Service,
    child: &str,
    cx: &ServiceContext<'_>,
    option: &str,
) -> Result<(), BuildError> {
    if service.checks_health() {
        return Ok(());
    }
    let parent = cx.name;
    let message = match service.kind() {
        Some(kind) => format!(
            "cannot register {child} as updater for {parent}: healthCheck not enabled in config \
             for this {kind} service"
        ),
        None => format!("child service {child} of {parent} not a healthcheck.StatusUpdater"),
    };
    Err(BuildError::at(option, message))
}

#[cfg(test)]
mod tests;
