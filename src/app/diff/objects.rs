//! Objects that say something else than before, with the routers that they matter to; and routers whose difference no
//! request has shown.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;

use super::groups::Names;
use super::values::{Difference, Values, below, options, transport};
use crate::app::explain::Subject;
use crate::compile::RouterReport;
use crate::config::dynamic_config::{DynamicConfig, Section};
use crate::rule::without_secrets;
use crate::values::QualifiedName;

/// One object that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectTold {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) differences: Vec<Difference>,
    /// Routers that use it, themselves or through others.
    pub(super) routers: Names,
}

/// Objects that are in both configurations, differ, and matter to some router.
pub(super) fn changed(values: &Values<'_>) -> Vec<ObjectTold> {
    let [then, now] = [values.old, values.new].map(|subject| &subject.table.merged);
    let mut found = Vec::new();
    differing("middleware", &then.middlewares, &now.middlewares, &mut found);
    differing("service", &then.services, &now.services, &mut found);
    differing("serversTransport", &then.servers_transports, &now.servers_transports, &mut found);
    differing("tls options", &then.tls_options, &now.tls_options, &mut found);
    let mut served = super::certificates::changed(values);
    if found.is_empty() {
        return served;
    }
    let mut users: BTreeMap<(&'static str, String), BTreeSet<String>> = BTreeMap::new();
    for report in values.new.table.compiled.report.routers.iter() {
        for object in used(report, now) {
            users.entry(object).or_default().insert(report.name.to_string());
        }
    }
    for object in &mut found {
        let Some(users) = users.get(&(object.kind, object.name.clone())) else { continue };
        object.routers = Names::from(users);
    }
    found.retain(|object| object.routers.count > 0);
    found.append(&mut served);
    found.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    found
}

fn differing<T: PartialEq + Serialize>(
    kind: &'static str,
    then: &Section<T>,
    now: &Section<T>,
    found: &mut Vec<ObjectTold>,
) {
    for (name, old) in then {
        let Some(new) = now.get(name).filter(|new| new.config != old.config) else { continue };
        found.push(ObjectTold {
            kind,
            name: name.to_string(),
            differences: options(&old.config, &new.config, [&old.node, &new.node]),
            routers: Names { count: 0, first: Vec::new() },
        });
    }
}

/// Everything that a router uses, themselves or through others.
fn used(report: &RouterReport, config: &DynamicConfig) -> Vec<(&'static str, String)> {
    let provider = report.name.provider();
    let mut used: Vec<(&'static str, String)> =
        report.links.iter().map(|link| ("middleware", link.to_string())).collect();
    if let Some(options) = report.router.as_ref().and_then(|router| router.tls_options.as_ref()) {
        used.push(("tls options", options.to_string()));
    }
    let mut seen: HashSet<QualifiedName> = HashSet::new();
    let mut names = vec![QualifiedName::resolve(&report.config().service, provider)];
    while let Some(name) = names.pop() {
        let Some(object) = config.services.get(&name).filter(|_| seen.insert(name.clone())) else {
            continue;
        };
        let resolve = |reference: &str| QualifiedName::resolve(reference, name.provider());
        let own = object.config.middlewares.iter();
        used.extend(own.map(|link| ("middleware", resolve(link).to_string())));
        if let Some(transport) = transport(&object.config) {
            used.push(("serversTransport", resolve(transport).to_string()));
        }
        names.extend(below(&object.config).into_iter().map(resolve));
        used.push(("service", name.to_string()));
    }
    used
}

/// Routers that are new, gone or written otherwise, and that no request that was tried has shown.
pub(super) fn unseen(old: &Subject, new: &Subject, seen: &BTreeSet<&String>) -> Vec<String> {
    let [then, now] = [old, new].map(|subject| &subject.table.merged.routers);
    let mut names: Vec<&QualifiedName> = then.keys().chain(now.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let seen = originals([old, new], seen);
    let mut told = Vec::new();
    for name in names {
        let what = match (then.get(name), now.get(name)) {
            (Some(one), Some(other)) if one.config == other.config => continue,
            _ if seen.contains(name.as_str()) => continue,
            (Some(one), Some(other)) => {
                let options = options(&one.config, &other.config, [&one.node, &other.node]);
                let options: Vec<_> = options.iter().map(Difference::one_line).collect();
                format!("changed: {}", options.join("; "))
            }
            (Some(one), None) => format!("is gone: {}", without_secrets(&one.config.rule)),
            (None, Some(other)) => format!("is new: {}", without_secrets(&other.config.rule)),
            (None, None) => continue,
        };
        let samples = [old, new].into_iter().filter_map(|subject| subject.report(name.as_str()));
        let mut samples = samples.filter_map(|report| report.router.as_ref());
        let is_incomplete =
            samples.any(|router| router.rule.samples().iter().any(|sample| sample.is_incomplete));
        let why = if is_incomplete {
            " (its regular expression has no example, so it was compared as text)"
        } else {
            ""
        };
        told.push(format!("router {name} {what}{why}"));
    }
    told
}

/// The routers on these ways, also as what they are copies of: a copy has the name of its entry point in front.
fn originals<'n>(subjects: [&Subject; 2], ways: &BTreeSet<&'n String>) -> HashSet<&'n str> {
    let entry_points = subjects.iter().flat_map(|subject| &subject.table.facts.entry_points);
    let prefixes: BTreeSet<&str> = entry_points.map(|model| &*model.name).collect();
    let mut names = HashSet::new();
    for name in ways.iter().flat_map(|way| way.split(" -> ")) {
        names.insert(name);
        let original = |prefix: &&str| name.strip_prefix(*prefix)?.strip_prefix('-');
        names.extend(prefixes.iter().filter_map(original));
    }
    names
}
