//! Objects of the report as Traefik's API shows them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Query;
use crate::compile::{MiddlewareReport, Report, RouterReport, ServiceReport, StaticFacts, Status};
use crate::rule::without_secrets;
use crate::tls::CertificateInfo;
use crate::values::QualifiedName;
use crate::values::secret::without_credentials;

/// `/api/rawdata`: everything by qualified name, without what the lists add.
pub(super) fn raw_data(report: &Report, facts: &StaticFacts) -> Value {
    let mut raw = Map::new();
    let mut add = |key: &str, objects: Map<String, Value>| {
        if !objects.is_empty() {
            raw.insert(key.to_owned(), Value::Object(objects));
        }
    };
    add("routers", by_name(&report.routers, |one| (&one.name, router_body(one, facts))));
    let users = Users::of_middlewares(report);
    let middlewares = by_name(&report.middlewares, |one| (&one.name, middleware_body(one, &users)));
    add("middlewares", middlewares);
    let users = Users::of_services(report);
    let services = by_name(&report.services, |one| (&one.name, service_body(one, &users)));
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
            || without_secrets(&config.rule).to_lowercase().contains(&query.search))
            && of_status(router.status, query)
            && (query.service_name.is_empty() || serves(router, &query.service_name))
            && (query.middleware_name.is_empty() || passes(router, &query.middleware_name))
    };
    let found = report.routers.iter().filter(wanted);
    found.map(|router| router_view(router, facts)).collect()
}

fn serves(router: &RouterReport, service: &str) -> bool {
    let own = &router.config().service;
    let unqualified = || service.split_once('@').map_or(service, |(name, _)| name);
    if own.contains('@') { own == service } else { own == unqualified() }
}

/// Whether requests pass a middleware, by itself or in a chain.
fn passes(router: &RouterReport, middleware: &str) -> bool {
    let named =
        |name: &String| QualifiedName::resolve(name, router.name.provider()).as_str() == middleware;
    router.config().middlewares.iter().any(named)
        || router.links.iter().any(|link| link.as_str() == middleware)
}

pub(super) fn router(report: &Report, facts: &StaticFacts, name: &str) -> Option<Value> {
    let router = report.routers.iter().find(|router| router.name.as_str() == name)?;
    Some(router_view(router, facts))
}

fn router_view(router: &RouterReport, facts: &StaticFacts) -> Value {
    let mut body = router_body(router, facts);
    if let Some(tls) = body.get_mut("tls").and_then(Value::as_object_mut) {
        tls.entry("options").or_insert_with(|| json!("default"));
    }
    listed(&router.name, body, None)
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
    let using = router.using(facts);
    if !using.is_empty() {
        body.insert("using".to_owned(), json!(using));
    }
    body
}

pub(super) fn services(report: &Report, query: &Query) -> Vec<Value> {
    let found = report
        .services
        .iter()
        .filter(|service| named(service.name.as_str(), query) && of_status(service.status, query));
    let users = Users::of_services(report);
    found.map(|service| service_view(service, &users)).collect()
}

pub(super) fn service(report: &Report, name: &str) -> Option<Value> {
    let service = report.services.iter().find(|service| service.name.as_str() == name)?;
    Some(service_view(service, &Users::of_services(report)))
}

fn service_view(service: &ServiceReport, users: &Users<'_>) -> Value {
    let kind = service.object.as_ref().and_then(|one| one.config.kind());
    listed(&service.name, service_body(service, users), kind.as_deref())
}

fn service_body(service: &ServiceReport, users: &Users<'_>) -> Map<String, Value> {
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
    users.add_to(&mut body, &service.name);
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
    let users = Users::of_middlewares(report);
    found.map(|one| middleware_view(one, &users)).collect()
}

pub(super) fn middleware(report: &Report, name: &str) -> Option<Value> {
    let found = report.middlewares.iter().find(|one| one.name.as_str() == name)?;
    Some(middleware_view(found, &Users::of_middlewares(report)))
}

fn middleware_view(one: &MiddlewareReport, users: &Users<'_>) -> Value {
    let set = one.object.config.set();
    let kind = set.first().map(|(kind, _)| kind.to_lowercase());
    listed(&one.name, middleware_body(one, users), kind.as_deref())
}

fn middleware_body(one: &MiddlewareReport, users: &Users<'_>) -> Map<String, Value> {
    let mut body = object(&one.object.config);
    redact(&mut body);
    if !one.errors.is_empty() {
        body.insert("error".to_owned(), json!(one.errors));
    }
    body.insert("status".to_owned(), json!(one.status));
    users.add_to(&mut body, &one.name);
    body
}

/// The routers that use each object, in the order of the report: one walk for all objects.
#[derive(Default)]
struct Users<'r>(HashMap<QualifiedName, Vec<&'r RouterReport>>);

impl<'r> Users<'r> {
    fn of_services(report: &'r Report) -> Self {
        let mut users = Self::default();
        for router in &*report.routers {
            let provider = router.name.provider();
            users.note(QualifiedName::resolve(&router.config().service, provider), router);
        }
        users
    }

    /// A chain is used by the routers that name it: it is not among what it is taken apart to.
    fn of_middlewares(report: &'r Report) -> Self {
        let chains = report.middlewares.iter().filter(|one| one.object.config.chain.is_some());
        let chains: HashSet<&QualifiedName> = chains.map(|one| &one.name).collect();
        let mut users = Self::default();
        for router in &*report.routers {
            for link in &router.links {
                users.note(link.clone(), router);
            }
            for name in &router.config().middlewares {
                let name = QualifiedName::resolve(name, router.name.provider());
                if chains.contains(&name) {
                    users.note(name, router);
                }
            }
        }
        users
    }

    fn note(&mut self, name: QualifiedName, router: &'r RouterReport) {
        let routers = self.0.entry(name).or_default();
        // A router that names an object twice is noted twice in a row.
        if !routers.last().is_some_and(|last| std::ptr::eq(*last, router)) {
            routers.push(router);
        }
    }

    fn add_to(&self, body: &mut Map<String, Value>, name: &QualifiedName) {
        if let Some(routers) = self.0.get(name) {
            let names: Vec<_> = routers.iter().map(|router| router.name.as_str()).collect();
            body.insert("usedBy".to_owned(), json!(names));
        }
    }
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
        (query.status.is_empty() || view.get("status") == Some(&json!(query.status)))
            && (query.search.is_empty() || is_found(view, &query.search))
    });
    found.map(Value::Object).collect()
}

/// By common name, issuer and other names, as in Traefik.
fn is_found(certificate: &Map<String, Value>, search: &str) -> bool {
    let has =
        |value: &Value| value.as_str().is_some_and(|text| text.to_lowercase().contains(search));
    let names = certificate.get("sans").and_then(Value::as_array).into_iter().flatten();
    let fields = ["commonName", "issuerOrg", "issuerCN"].map(|field| certificate.get(field));
    fields.into_iter().flatten().chain(names).any(has)
}

/// Fewer days than these left, and a certificate is shown as a warning.
const SOON: i64 = 30 * 24 * 3600;

fn certificate_view(info: &CertificateInfo, now: i64) -> Map<String, Value> {
    let mut view = object(info);
    // Of a certificate, Traefik leaves out only these when they are empty.
    for key in ["issuerOrg", "issuerCN", "issuerCountry", "organization", "country", "keySize"] {
        if view.get(key).is_some_and(|value| *value == json!("") || *value == json!(0)) {
            view.remove(key);
        }
    }
    view.insert("name".to_owned(), json!(info.cert_fingerprint));
    for (key, seconds) in [("notAfter", info.not_after), ("notBefore", info.not_before)] {
        let time = jiff::Timestamp::from_second(seconds).map(|time| time.to_string());
        view.insert(key.to_owned(), json!(time.unwrap_or_default()));
    }
    let status = match info.not_after - now {
        ..0 => "expired",
        0..SOON => "warning",
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
