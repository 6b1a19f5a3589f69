//! What stands on the way of a request behind its router, and what of it protects: middlewares of routers and of all
//! services below them, and the client certificates that TLS options demand.
//!
//! A guard counts as kept only when it stands in front of as much as before.

use std::collections::HashSet;

use super::values::{Values, members};
use super::ways::Change;
use crate::app::explain::{Subject, is_guard};
use crate::middleware::MiddlewareConfig;
use crate::tls::TlsOptionsConfig;
use crate::values::QualifiedName;

/// As many ways through one service are looked at: few services that name each other twice have many.
const MOST: usize = 1_000;

/// How much of what lies behind a router a middleware stands in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    /// Some members of a service.
    Some,
    All,
}

/// One middleware on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: QualifiedName,
    pub(super) share: Share,
}

impl Link {
    pub(super) fn of_router(name: QualifiedName) -> Self {
        Self { name, share: Share::All }
    }
}

/// The middlewares of `service` and of all services below it that may answer.
pub(super) fn links_of_service(service: &QualifiedName, subject: &Subject) -> Vec<Link> {
    let mut leaves = Vec::new();
    walk(service, subject, &mut Vec::new(), &mut HashSet::new(), &mut leaves);
    let mut links: Vec<Link> = Vec::new();
    for name in leaves.iter().flatten() {
        if links.iter().any(|link| link.name == *name) {
            continue;
        }
        let everywhere = leaves.iter().all(|leaf| leaf.contains(name));
        let share = if everywhere { Share::All } else { Share::Some };
        links.push(Link { name: name.clone(), share });
    }
    links
}

/// Every way through a service: the middlewares in front of each end of it.
fn walk(
    service: &QualifiedName,
    subject: &Subject,
    above: &mut Vec<QualifiedName>,
    open: &mut HashSet<QualifiedName>,
    leaves: &mut Vec<Vec<QualifiedName>>,
) {
    let merged = &subject.table.merged;
    let object = merged.services.get(service);
    let Some(object) = object.filter(|_| leaves.len() < MOST && !open.contains(service)) else {
        leaves.push(above.clone());
        return;
    };
    open.insert(service.clone());
    let length = above.len();
    above.extend(subject.links_of_service(service, &object.config));
    let members = members(&object.config);
    if members.is_empty() {
        leaves.push(above.clone());
    }
    for member in members {
        let member = QualifiedName::resolve(member, service.provider());
        walk(&member, subject, above, open, leaves);
    }
    above.truncate(length);
    open.remove(service);
}

/// Whether a middleware keeps somebody out, or off clear text.
pub(super) fn protects(name: &QualifiedName, subject: &Subject) -> bool {
    let kind = subject.middleware_kind(name);
    let object = subject.table.merged.middlewares.get(name);
    (is_guard(&kind) || kind == "redirectScheme")
        && object.is_none_or(|object| !lets_everybody_through(&object.config))
}

/// A limit of nothing, and an address of everybody.
fn lets_everybody_through(config: &MiddlewareConfig) -> bool {
    let is_all = |range: &String| range.ends_with("/0");
    config.rate_limit.as_ref().is_some_and(|limit| limit.average == 0)
        || config.ip_allow_list.as_ref().is_some_and(|one| one.source_range.iter().any(is_all))
        || config.ip_white_list.as_ref().is_some_and(|one| one.source_range.iter().any(is_all))
}

/// What has become of the middlewares on a way.
pub(super) fn compare(then: &[Link], now: &[Link], values: &Values<'_>, change: &mut Change) {
    if then == now && then.iter().all(|link| values.same_middleware(&link.name, &link.name)) {
        return;
    }
    let partners = partners(then, now, values);
    for (link, partner) in then.iter().zip(&partners) {
        let kind = values.old.middleware_kind(&link.name);
        let label = format!("{kind} {}", link.name);
        let guarded = protects(&link.name, values.old);
        let Some(other) = partner.and_then(|at| now.get(at)) else {
            let into = if guarded { &mut change.lost } else { &mut change.what };
            into.push(format!("{label} no longer applies"));
            continue;
        };
        if guarded && !protects(&other.name, values.new) {
            change.lost.push(format!("{label} lets everybody through now"));
        } else if guarded && other.share < link.share {
            change.lost.push(format!("{label} no longer applies to all members of the service"));
        } else if !values.same_middleware(&link.name, &other.name) {
            let into = if guarded { &mut change.altered } else { &mut change.what };
            into.push(format!("{label} changed"));
        }
    }
    let is_new = |at: &usize| !partners.contains(&Some(*at));
    for link in (0..now.len()).filter(is_new).filter_map(|at| now.get(at)) {
        let kind = values.new.middleware_kind(&link.name);
        change.what.push(format!("{kind} {} applies now", link.name));
    }
    if !partners.iter().flatten().is_sorted() {
        change.what.push("middlewares stand in another order".to_owned());
    }
}

/// Whether one may be what has become of another.
type Fits<'f> = dyn Fn(&Link, &Link) -> bool + 'f;

/// Which of `now` each of `then` has become: the same, one that does the same, or one of its name and kind.
fn partners(then: &[Link], now: &[Link], values: &Values<'_>) -> Vec<Option<usize>> {
    let mut partners = vec![None; then.len()];
    let mut free = vec![true; now.len()];
    let kinds_agree = |old: &QualifiedName, new: &QualifiedName| {
        values.old.middleware_kind(old) == values.new.middleware_kind(new)
    };
    let is_partner: [&Fits<'_>; 3] = [
        &|one, other| one.name == other.name && values.same_middleware(&one.name, &other.name),
        &|one, other| values.same_middleware(&one.name, &other.name),
        &|one, other| one.name == other.name && kinds_agree(&one.name, &other.name),
    ];
    for fits in is_partner {
        for (link, partner) in then.iter().zip(&mut partners).filter(|(_, one)| one.is_none()) {
            let mut all = now.iter().zip(&mut free).enumerate();
            if let Some((at, (_, free))) =
                all.find(|(_, (other, free))| **free && fits(link, other))
            {
                *free = false;
                *partner = Some(at);
            }
        }
    }
    partners
}

/// What TLS options ask of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    Nothing,
    /// Any certificate.
    Any,
    /// One that an authority has signed.
    Verified,
}

fn demand(config: &TlsOptionsConfig) -> Demand {
    let auth = &config.client_auth;
    match auth.client_auth_type.as_str() {
        "" if !auth.ca_files.is_empty() => Demand::Verified,
        "RequireAndVerifyClientCert" => Demand::Verified,
        "RequireAnyClientCert" => Demand::Any,
        _ => Demand::Nothing,
    }
}

/// What has become of the TLS options of a way. They differ.
pub(super) fn compare_tls(then: &str, now: &str, values: &Values<'_>, change: &mut Change) {
    let [old, new] = [(values.old, then), (values.new, now)].map(|(subject, name)| {
        subject.table.merged.tls_options.get(name).map(|object| &object.config)
    });
    let (nothing, nothing_new) = (TlsOptionsConfig::default(), TlsOptionsConfig::default());
    let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing_new));
    match (demand(old), demand(new)) {
        (Demand::Any | Demand::Verified, Demand::Nothing) => change
            .lost
            .push(format!("client certificates of TLS options {then} are no longer demanded")),
        (Demand::Verified, Demand::Any) => change
            .lost
            .push(format!("client certificates of TLS options {then} are no longer verified")),
        _ => {}
    }
    let told = if then == now {
        format!("TLS options {now} changed")
    } else {
        format!("TLS options {then} are now {now}")
    };
    if old.client_auth != new.client_auth
        || old.min_version != new.min_version
        || old.cipher_suites != new.cipher_suites
        || old.sni_strict != new.sni_strict
    {
        change.altered.push(told);
    } else {
        change.what.push(told);
    }
}
