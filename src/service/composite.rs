//! Services made of services, and the first of them: `weighted` spreads requests over the others.
//!
//! Whether a child is up is asked when a request comes, down to the atomics of its servers: nobody
//! has to be told of a change, so nothing can be out of step. It is up when any balancer below it
//! that may be chosen is, so each knows those, once: services that name each other in many ways cost no more.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::load_balancer::{warn_of_weights, weight};
use super::sticky::{Holder, Sticky};
use super::strategy::Edf;
use super::{Service, ServiceContext, WeightedConfig};
use crate::exchange::{Attempts, Context, Handler, ProxyError, Request, ResponseFuture, ready};
use crate::values::BuildError;

/// `weighted`: other services by weight.
pub(super) struct Weighted {
    children: Box<[Child]>,
    schedule: Arc<Edf>,
    sticky: Option<Sticky>,
    heeds_health: bool,
    grounds: Box<[Arc<dyn Service>]>,
    leaves: Box<[Arc<dyn Service>]>,
}

struct Child {
    service: Arc<dyn Service>,
    eligible: bool,
}

impl Weighted {
    /// Builds the service that `config` describes.
    pub(super) fn build(
        config: &WeightedConfig,
        cx: &mut ServiceContext<'_>,
    ) -> Result<Self, BuildError> {
        let heeds_health = config.health_check.is_some();
        warn_of_weights(&config.services, cx.warnings);
        let mut children = Vec::with_capacity(config.services.len());
        let mut key = format!("{}\nweighted", cx.name);
        for (at, child) in config.services.iter().enumerate() {
            let option = || format!("services[{at}]");
            let service = (cx.child)(&child.name).map_err(|error| {
                let message = format!("building HTTP service {:?}: {error}", child.name);
                BuildError::at(option(), message)
            })?;
            if heeds_health {
                must_check_health(&*service, &child.name, cx, &option())?;
            }
            let _ = write!(key, "\n{} {}", child.name, weight(child.weight));
            children.push(Child { service, eligible: weight(child.weight) > 0 });
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
        let eligible =
            || children.iter().filter(|child| child.eligible).map(|child| &child.service);
        let grounds = grounds_of(eligible().filter(|_| heeds_health));
        let leaves = leaves_of(eligible());
        Ok(Self { children: children.into(), schedule, sticky, heeds_health, grounds, leaves })
    }

    fn is_available(&self, child: &Child, avoid: &[Arc<str>]) -> bool {
        child.eligible
            && (!self.heeds_health || child.service.is_up())
            && has_other_than(avoid, &*child.service)
    }

    /// The child for this request, and whether the client gets a cookie that names it.
    fn choose(&self, request: &Request) -> Option<(usize, &dyn Service, bool)> {
        Attempts::pick(Attempts::of(request), |avoid| self.choose_but(avoid, request))
    }

    /// The same, with a server that is none of `avoid`.
    fn choose_but(
        &self,
        avoid: &[Arc<str>],
        request: &Request,
    ) -> Option<(usize, &dyn Service, bool)> {
        let holder = self.sticky.as_ref().and_then(|sticky| sticky.holder(request.headers()));
        if let Some(Holder { index, outdated }) = holder
            && let Some(child) = self.children.get(index)
            && self.is_available(child, avoid)
        {
            return Some((index, &*child.service, outdated));
        }
        let index = self.schedule.pick(|at| {
            self.children.get(at).is_some_and(|child| self.is_available(child, avoid))
        })?;
        Some((index, &*self.children.get(index)?.service, self.sticky.is_some()))
    }
}

impl Handler for Weighted {
    fn handle<'a>(&'a self, cx: &'a Context, request: Request) -> ResponseFuture<'a> {
        match (self.choose(&request), &self.sticky) {
            (None, _) => ready(ProxyError::NoAvailableServer.into_response()),
            (Some((index, service, true)), Some(sticky)) => Box::pin(async move {
                let mut response = service.handle(cx, request).await;
                sticky.attach(index, &mut response);
                response
            }),
            (Some((_, service, _)), _) => service.handle(cx, request),
        }
    }
}

impl Service for Weighted {
    fn is_up(&self) -> bool {
        if self.heeds_health {
            self.grounds.iter().any(|service| service.is_up())
        } else {
            self.children.iter().any(|child| child.eligible)
        }
    }

    fn grounds(&self) -> &[Arc<dyn Service>] {
        &self.grounds
    }

    fn leaves(&self) -> &[Arc<dyn Service>] {
        &self.leaves
    }

    fn checks_health(&self) -> bool {
        self.heeds_health
    }

    fn kind(&self) -> Option<&'static str> {
        Some("weighted")
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
