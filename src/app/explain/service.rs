//! A service and what stands below it, with the state of its servers where a running instance tells it.

use http::request::Parts;

use super::subject::Subject;
use super::told::{ServerTold, ServiceEnd, ServiceTold};
use super::walk::{Walker, target};
use crate::exchange::{Body, Request};
use crate::service::{
    HealthCheckConfig, LoadBalancerConfig, ServiceConfig, StickyConfig, WeightedServiceConfig,
};
use crate::values::QualifiedName;
use crate::values::secret::without_credentials;

/// No more services are told of: few that name each other twice are many.
const MOST: usize = 500;

/// What is known of the service `name`, and what becomes of a request that comes to it.
pub(super) fn told(name: &QualifiedName, walker: &Walker<'_>, request: Request) -> ServiceTold {
    let mut left = MOST;
    of(name, None, walker, Some(request.into_parts().0), &mut left)
}

/// Whether every server below is known to be down, or none may be asked.
pub(super) fn nobody_answers(service: &ServiceTold) -> Option<String> {
    if matches!(service.end, Some(ServiceEnd::Answered(_))) {
        return None;
    }
    if service.kind == "loadBalancer" {
        if service.servers.is_empty() {
            return Some(format!("service {} has no server", service.name));
        }
        let down = |server: &ServerTold| server.status.as_deref() == Some("DOWN");
        if service.servers.iter().all(down) {
            return Some(format!("every server of service {} is down", service.name));
        }
        return None;
    }
    let children: Vec<_> = members(service).map(nobody_answers).collect();
    let all = !children.is_empty() && children.iter().all(Option::is_some);
    children.into_iter().flatten().next().filter(|_| all)
}

/// The services below that may answer: nobody waits for mirrors.
fn members(service: &ServiceTold) -> impl Iterator<Item = &ServiceTold> {
    let counts =
        |child: &&ServiceTold| child.role.as_deref().is_none_or(|role| !role.starts_with("mirror"));
    service.services.iter().filter(counts)
}

/// `request` is the one that comes here; `None` if none does.
fn of(
    name: &QualifiedName,
    role: Option<String>,
    walker: &Walker<'_>,
    request: Option<Parts>,
    left: &mut usize,
) -> ServiceTold {
    let subject = walker.subject;
    let mut told = ServiceTold { name: name.to_string(), role, ..ServiceTold::default() };
    let Some(object) = subject.table.merged.services.get(name) else {
        match name.provider() {
            "internal" => {
                "internal".clone_into(&mut told.kind);
                told.end = request.map(asked);
            }
            _ => told.problem = Some("it does not exist".to_owned()),
        }
        return told;
    };
    told.place = subject.service_place(name);
    let services = &subject.table.compiled.report.services;
    let report = services.binary_search_by(|report| report.name.cmp(name));
    if let Some(report) =
        report.ok().and_then(|at| services.get(at)).filter(|one| !one.errors.is_empty())
    {
        told.problem = Some(report.errors.join("; "));
    }
    let config = &object.config;
    let request = behind_middlewares(name, config, walker, request, &mut told);
    if let Some(balancer) = &config.load_balancer {
        balanced(balancer, name, subject, &mut told);
    }
    if *left > 0 {
        *left -= 1;
        children(config, name, walker, request.as_ref(), left, &mut told);
    }
    let Some(request) = request else { return told };
    let mut ends = members(&told).map(|member| &member.end);
    let end = match (&config.load_balancer, ends.next()) {
        (Some(_), _) | (None, None) => Some(asked(request)),
        (None, Some(first)) if ends.all(|end| end == first) => first.clone(),
        (None, Some(_)) => None,
    };
    drop(ends);
    ServiceTold { end, ..told }
}

fn asked(parts: Parts) -> ServiceEnd {
    ServiceEnd::Asked(target(&Request::from_parts(parts, Body::empty())))
}

/// What the service's own middlewares make of a request; `None` when one of them answers, or when none comes.
fn behind_middlewares(
    name: &QualifiedName,
    config: &ServiceConfig,
    walker: &Walker<'_>,
    request: Option<Parts>,
    told: &mut ServiceTold,
) -> Option<Parts> {
    let links = walker.subject.links_of_service(name, config);
    let Some(parts) = request else {
        let unreached = links.iter().map(|link| walker.unreached(link).told(walker.subject));
        told.middlewares = unreached.collect();
        return None;
    };
    let request = Request::from_parts(parts, Body::empty());
    let (steps, end) =
        walker.through(&links, |_, middleware| walker.build(middleware, name), request);
    told.middlewares = steps.into_iter().map(|step| step.told(walker.subject)).collect();
    match end {
        Ok(request) => Some(request.into_parts().0),
        Err(answer) => {
            told.end = Some(ServiceEnd::Answered(answer));
            None
        }
    }
}

fn balanced(
    balancer: &LoadBalancerConfig,
    name: &QualifiedName,
    subject: &Subject,
    told: &mut ServiceTold,
) {
    "loadBalancer".clone_into(&mut told.kind);
    told.details.push(format!("strategy {}", balancer.strategy));
    told.details.extend(sticky(balancer.sticky.as_ref()));
    told.details.extend(balancer.health_check.as_ref().map(health_check));
    if balancer.passive_health_check.is_some() {
        told.details.push("passive health check".to_owned());
    }
    if !balancer.servers_transport.is_empty() {
        told.details.push(format!("transport {}", balancer.servers_transport));
    }
    let live = subject.live.as_ref().and_then(|live| live.servers.get(name.as_str()));
    for server in &balancer.servers {
        let url = without_credentials(&server.url).into_owned();
        let status = live.and_then(|servers| servers.get(&url)).cloned();
        told.servers.push(ServerTold { url, weight: server.weight, status });
    }
}

fn health_check(check: &HealthCheckConfig) -> String {
    // What follows may be a credential.
    let path = check.path.split('?').next().unwrap_or_default();
    format!("health check {path} every {}", check.interval)
}

fn sticky(sticky: Option<&StickyConfig>) -> Option<String> {
    let cookie = sticky?.cookie.as_ref()?;
    Some(match &*cookie.name {
        "" => "sticky by cookie".to_owned(),
        name => format!("sticky by cookie {name}"),
    })
}

fn children(
    config: &ServiceConfig,
    owner: &QualifiedName,
    walker: &Walker<'_>,
    request: Option<&Parts>,
    left: &mut usize,
    told: &mut ServiceTold,
) {
    let mut child = |name: &str, role: String| {
        let name = QualifiedName::resolve(name, owner.provider());
        of(&name, Some(role), walker, request.cloned(), left)
    };
    let weight = |one: &WeightedServiceConfig| format!("weight {}", one.weight.unwrap_or(1));
    if let Some(weighted) = &config.weighted {
        "weighted".clone_into(&mut told.kind);
        told.details.extend(sticky(weighted.sticky.as_ref()));
        told.services.extend(weighted.services.iter().map(|one| child(&one.name, weight(one))));
    }
    if let Some(hashed) = &config.highest_random_weight {
        "highestRandomWeight".clone_into(&mut told.kind);
        told.services.extend(hashed.services.iter().map(|one| child(&one.name, weight(one))));
    }
    if let Some(failover) = &config.failover {
        "failover".clone_into(&mut told.kind);
        told.services.push(child(&failover.service, "main".to_owned()));
        told.services.push(child(&failover.fallback, "fallback".to_owned()));
    }
    if let Some(mirroring) = &config.mirroring {
        "mirroring".clone_into(&mut told.kind);
        told.services.push(child(&mirroring.service, "main".to_owned()));
        let mirrors = mirroring.mirrors.iter();
        told.services
            .extend(mirrors.map(|one| child(&one.name, format!("mirror of {} %", one.percent))));
    }
}
