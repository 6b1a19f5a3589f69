//! A service and what stands below it, with the state of its servers where a running instance tells it.

use super::subject::Subject;
use super::told::{MiddlewareTold, ServerTold, ServiceTold};
use super::walk::is_guard;
use crate::service::{
    HealthCheckConfig, LoadBalancerConfig, ServiceConfig, StickyConfig, WeightedServiceConfig,
    without_credentials,
};
use crate::values::QualifiedName;

/// No more services are told of: few that name each other twice are many.
const MOST: usize = 500;

/// What is known of the service `name`.
pub(super) fn told(name: &QualifiedName, subject: &Subject) -> ServiceTold {
    let mut left = MOST;
    of(name, None, subject, &mut left)
}

/// Whether every server below is known to be down, or none may be asked.
pub(super) fn nobody_answers(service: &ServiceTold) -> Option<String> {
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
    let counts =
        |child: &&ServiceTold| child.role.as_deref().is_none_or(|role| !role.starts_with("mirror"));
    let children: Vec<_> = service.services.iter().filter(counts).map(nobody_answers).collect();
    let all = !children.is_empty() && children.iter().all(Option::is_some);
    children.into_iter().flatten().next().filter(|_| all)
}

fn of(
    name: &QualifiedName,
    role: Option<String>,
    subject: &Subject,
    left: &mut usize,
) -> ServiceTold {
    let mut told = ServiceTold { name: name.to_string(), role, ..ServiceTold::default() };
    let Some(object) = subject.table.merged.services.get(name) else {
        match name.provider() {
            "internal" => "internal".clone_into(&mut told.kind),
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
    for middleware in &config.middlewares {
        let name = QualifiedName::resolve(middleware, name.provider());
        let kind = subject.middleware_kind(&name);
        told.middlewares.push(MiddlewareTold {
            place: subject.middleware_place(&name),
            effect: is_guard(&kind).then(|| "may refuse the request".to_owned()),
            name: name.to_string(),
            kind,
        });
    }
    if let Some(balancer) = &config.load_balancer {
        balanced(balancer, name, subject, &mut told);
    }
    if *left > 0 {
        *left -= 1;
        children(config, name, subject, left, &mut told);
    }
    told
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
    format!("health check {} every {}", check.path, check.interval)
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
    subject: &Subject,
    left: &mut usize,
    told: &mut ServiceTold,
) {
    let mut child = |name: &str, role: String| {
        of(&QualifiedName::resolve(name, owner.provider()), Some(role), subject, left)
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
