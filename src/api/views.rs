//! Objects of the report as Traefik's API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Query;
use crate::compile::{MiddlewareReport, Report, RouterReport, ServiceReport, StaticFacts, Status};
use crate::service::without_credentials;
use crate::tls::CertificateInfo;
use crate::values::QualifiedName;

/// `/api/rawdata`: everything by qualified name, without what the lists add.
pub(super) fn raw_data(report: &Report, facts: &StaticFacts) -> Value {
    let mut raw = Map::new();
    let mut add = |key: &str, objects: Map<String, Value>| {
        if !objects.is_empty() {
            raw.insert(key.to_owned(), Value::Object(objects));
        }
    };
    add("routers", by_name(&report.routers, |one| (&one.name, router_body(one, facts))));
    add(
        "middlewares",
        by_name(&report.middlewares, |one| (&one.name, middleware_body(one, report))),
    );
    let services = by_name(&report.services, |one| (&one.name, service_body(one, report)));
    add("services", services);
    Value::Object(raw)
}

fn by_name<'r, T>(
    objects: &'r [T],
    view: impl Fn(&'r T) -> (&'r QualifiedName, Map<String, Value>),
) -> Map<String, Value> {
    let views = objects.iter().map(view);
    views.map(|(name, body)| (name.to_string(), Value::Object(body))).collect()
}

pub(super) fn routers(report: &Report, facts: &StaticFacts, query: &Query) -> Vec<Value> {
    let wanted = |router: &&RouterReport| {
        let config = router.config();
        let name = router.name.as_str();
        (query.search.is_empty()
            || name.to_lowercase().contains(&query.search)
            || config.rule.to_lowercase().contains(&query.search))
            && of_status(router.status, query)
            && (query.service_name.is_empty() || serves(router, &query.service_name))
            && (query.middleware_name.is_empty()
                || router.links.iter().any(|link| link.as_str() == query.middleware_name))
    };
    let found = report.routers.iter().filter(wanted);
    sorted(found.map(|router| listed(&router.name, router_body(router, facts), None)), query)
}

fn serves(router: &RouterReport, service: &str) -> bool {
    let own = &router.config().service;
    own == service || own == service.rsplit_once('@').map_or(service, |(name, _)| name)
}

pub(super) fn router(report: &Report, facts: &StaticFacts, name: &str) -> Option<Value> {
    let router = report.routers.iter().find(|router| router.name.as_str() == name)?;
    Some(listed(&router.name, router_body(router, facts), None))
}

fn router_body(router: &RouterReport, facts: &StaticFacts) -> Map<String, Value> {
    let mut body = object(&router.effective_config(facts));
    body.insert("priority".to_owned(), json!(router.priority));
    if !body.contains_key("ruleSyntax") {
        body.insert("ruleSyntax".to_owned(), json!("default"));
    }
    if !router.errors.is_empty() {
        body.insert("error".to_owned(), json!(router.errors));
    }
    body.insert("status".to_owned(), json!(router.status));
    body.insert("using".to_owned(), json!(router.using(facts)));
    body
}

pub(super) fn services(report: &Report, query: &Query) -> Vec<Value> {
    let found = report
        .services
        .iter()
        .filter(|service| named(service.name.as_str(), query) && of_status(service.status, query));
    sorted(found.map(|service| service_view(service, report)), query)
}

pub(super) fn service(report: &Report, name: &str) -> Option<Value> {
    let service = report.services.iter().find(|service| service.name.as_str() == name)?;
    Some(service_view(service, report))
}

fn service_view(service: &ServiceReport, report: &Report) -> Value {
    let kind = service.object.as_ref().and_then(|one| one.config.kind());
    listed(&service.name, service_body(service, report), kind)
}

fn service_body(service: &ServiceReport, report: &Report) -> Map<String, Value> {
    let mut body = match &service.object {
        Some(object_) => object(&object_.config),
        None => Map::new(),
    };
    let servers = body.get_mut("loadBalancer").and_then(|one| one.get_mut("servers"));
    for server in servers.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::String(url)) = server.get_mut("url") {
            *url = without_credentials(url).into_owned();
        }
    }
    if !service.errors.is_empty() {
        body.insert("error".to_owned(), json!(service.errors));
    }
    body.insert("status".to_owned(), json!(service.status));
    let used_by = report.routers.iter().filter(|router| {
        let wanted = QualifiedName::resolve(&router.config().service, router.name.provider());
        wanted == service.name
    });
    let used_by: Vec<_> = used_by.map(|router| router.name.as_str()).collect();
    if !used_by.is_empty() {
        body.insert("usedBy".to_owned(), json!(used_by));
    }
    let status = service.service.as_ref().map(|one| one.server_status()).unwrap_or_default();
    if !status.is_empty() {
        let status: BTreeMap<_, _> = status
            .iter()
            .map(|(url, up)| (without_credentials(url), if *up { "UP" } else { "DOWN" }))
            .collect();
        body.insert("serverStatus".to_owned(), json!(status));
    }
    body
}

pub(super) fn middlewares(report: &Report, query: &Query) -> Vec<Value> {
    let found = report
        .middlewares
        .iter()
        .filter(|one| named(one.name.as_str(), query) && of_status(one.status, query));
    sorted(found.map(|one| middleware_view(one, report)), query)
}

pub(super) fn middleware(report: &Report, name: &str) -> Option<Value> {
    let found = report.middlewares.iter().find(|one| one.name.as_str() == name)?;
    Some(middleware_view(found, report))
}

fn middleware_view(one: &MiddlewareReport, report: &Report) -> Value {
    let set = one.object.config.set();
    let kind = set.first().map(|(kind, _)| kind.to_lowercase());
    listed(&one.name, middleware_body(one, report), kind.as_deref())
}

fn middleware_body(one: &MiddlewareReport, report: &Report) -> Map<String, Value> {
    let mut body = object(&one.object.config);
    redact(&mut body);
    if !one.errors.is_empty() {
        body.insert("error".to_owned(), json!(one.errors));
    }
    body.insert("status".to_owned(), json!(one.status));
    let used_by: Vec<_> = report
        .routers
        .iter()
        .filter(|router| router.links.contains(&one.name) || names(router, one))
        .map(|router| router.name.as_str())
        .collect();
    if !used_by.is_empty() {
        body.insert("usedBy".to_owned(), json!(used_by));
    }
    body
}

/// Whether a router names a middleware itself: a chain is not among what it is taken apart to.
fn names(router: &RouterReport, middleware: &MiddlewareReport) -> bool {
    let names = &router.config().middlewares;
    middleware.object.config.chain.is_some()
        && names
            .iter()
            .any(|name| QualifiedName::resolve(name, router.name.provider()) == middleware.name)
}

/// Credentials that are plain text in Traefik's schema are hidden (Traefik shows them).
fn redact(body: &mut Map<String, Value>) {
    for (key, value) in body.iter_mut() {
        match value {
            Value::Object(inner) => redact(inner),
            Value::Array(items) if key == "users" => {
                for item in items {
                    *item = json!("xxxx");
                }
            }
            _ => {}
        }
    }
}

pub(super) fn certificates(report: &Report, query: &Query) -> Vec<Value> {
    let now = jiff::Timestamp::now().as_second();
    let infos = report.certificates.iter().flat_map(|store| store.infos());
    let views = infos.map(|info| certificate_view(info, now));
    let found = views.filter(|view| {
        query.search.is_empty()
            || Value::Object(view.clone()).to_string().to_lowercase().contains(&query.search)
    });
    found.map(Value::Object).collect()
}

/// Fewer days than these left, and a certificate is shown as a warning.
const SOON: i64 = 30 * 24 * 3600;

fn certificate_view(info: &CertificateInfo, now: i64) -> Map<String, Value> {
    let mut view = object(info);
    view.retain(|_, value| *value != json!("") && *value != json!([]));
    view.insert("name".to_owned(), json!(info.cert_fingerprint));
    for (key, seconds) in [("notAfter", info.not_after), ("notBefore", info.not_before)] {
        let time = jiff::Timestamp::from_second(seconds).map(|time| time.to_string());
        view.insert(key.to_owned(), json!(time.unwrap_or_default()));
    }
    let status = match info.not_after - now {
        ..=0 => "expired",
        1..SOON => "warning",
        _ => "enabled",
    };
    view.insert("status".to_owned(), json!(status));
    view
}

pub(super) fn certificate(report: &Report, name: &str) -> Option<Value> {
    let all = certificates(report, &Query::parse(""));
    all.into_iter().find(|one| one.get("name").and_then(Value::as_str) == Some(name))
}

pub(super) fn certificate_counts(report: &Report) -> Value {
    let all = certificates(report, &Query::parse(""));
    let of = |status: &str| {
        all.iter().filter(|one| one.get("status").and_then(Value::as_str) == Some(status)).count()
    };
    json!({"total": all.len(), "warnings": of("warning"), "errors": of("expired")})
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// What lists and single objects add to a body.
fn listed(name: &QualifiedName, mut body: Map<String, Value>, kind: Option<&str>) -> Value {
    body.insert("name".to_owned(), json!(name));
    body.insert("provider".to_owned(), json!(name.provider()));
    if let Some(kind) = kind {
        body.insert("type".to_owned(), json!(kind));
    }
    // A priority may exceed what JavaScript's numbers hold.
    if let Some(priority) = body.get("priority").map(Value::to_string) {
        body.insert("priorityStr".to_owned(), json!(priority));
    }
    Value::Object(body)
}

fn named(name: &str, query: &Query) -> bool {
    query.search.is_empty() || name.to_lowercase().contains(&query.search)
}

fn of_status(status: Status, query: &Query) -> bool {
    query.status.is_empty() || json!(status) == json!(query.status)
}

fn sorted(items: impl Iterator<Item = Value>, query: &Query) -> Vec<Value> {
    let mut items: Vec<_> = items.collect();
    let key = match &*query.sort_by {
        "" => "name",
        key => key,
    };
    items.sort_by(|one, other| {
        let order = match (one.get(key), other.get(key)) {
            (Some(Value::Number(one)), Some(Value::Number(other))) => {
                one.as_i64().cmp(&other.as_i64())
            }
            (one, other) => {
                let text = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
                text(one).cmp(&text(other))
            }
        };
        if query.descending { order.reverse() } else { order }
    });
    items
}
