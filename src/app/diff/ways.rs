//! The way of one request through one configuration, and how two ways differ.

use std::sync::Arc;

use super::values::Values;
use crate::app::explain::{Ask, Canonical, End, Refused, Subject, is_guard, pass};
use crate::compile::RouterReport;
use crate::router::{Below, HttpRouter};
use crate::values::QualifiedName;

/// Where a request goes.
#[derive(Default)]
pub(super) struct Way {
    /// What the client gets without a service; `None`: what the service answers.
    pub(super) refusal: Option<String>,
    /// Routers that take it, from the entry point down.
    pub(super) routers: Vec<String>,
    tls_options: Option<String>,
}

/// How the ways of a request differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Change {
    /// Protection that is gone.
    pub(super) lost: Vec<String>,
    pub(super) kind: Kind,
    /// Routers then and now, where they are others.
    pub(super) routers: Option<(String, String)>,
    /// What else differs.
    pub(super) what: Vec<String>,
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// A service answered it, and none does now.
    Removed,
    /// Another router takes it.
    Moved,
    /// The same router does something else with it.
    #[default]
    Changed,
    /// A service answers it, and none did.
    Added,
}

impl Way {
    /// The way of `ask` at the entry point of this name.
    pub(super) fn of(
        ask: &Ask,
        subject: &Subject,
        position: Option<usize>,
    ) -> anyhow::Result<Self> {
        let refused = |why: String| Self { refusal: Some(why), ..Self::default() };
        let Some((position, door)) =
            position.and_then(|position| Some((position, subject.doors.get(position)?)))
        else {
            return Ok(refused("404: no such entry point".to_owned()));
        };
        let canonical = match Canonical::of(ask, subject, door)? {
            Ok(canonical) => canonical,
            Err(Refused { status, reason }) => {
                let status = status.map_or_else(String::new, |code| format!("{}: ", code.as_u16()));
                return Ok(refused(format!("{status}{reason}")));
            }
        };
        let Some(here) = subject.table.compiled.table.entry_points.get(position) else {
            return Ok(refused("404: no such entry point".to_owned()));
        };
        let tls = canonical.tls();
        let routers = if tls.is_some() { &here.https } else { &here.http };
        let Some(first) = routers.find(&canonical.view()) else {
            return Ok(refused("404: no router matches".to_owned()));
        };
        let mut way = Self {
            routers: vec![first.name.to_string()],
            tls_options: first.tls_options.as_ref().map(ToString::to_string),
            ..Self::default()
        };
        let encoded = first.encoded_characters.as_ref();
        if encoded.is_some_and(|characters| characters.denied(canonical.parts.uri.path())) {
            way.refusal = Some("400: an encoded character".to_owned());
        } else if tls.is_some_and(|tls| {
            here.is_misdirected(first, &canonical.cx.host, tls, door.strict_tls_options)
        }) {
            way.refusal = Some("421: TLS options of another host".to_owned());
        } else {
            way.go_down(first, subject, &canonical);
        }
        Ok(way)
    }

    /// Follows the request through routers below others.
    fn go_down(&mut self, first: &Arc<HttpRouter>, subject: &Subject, canonical: &Canonical) {
        let mut router = Arc::clone(first);
        let mut request = None;
        loop {
            if router.broken {
                self.refusal = Some(format!("503: router {} is in error", router.name));
                return;
            }
            let end = router.chain.handler().as_any();
            let leads_on = end.and_then(|end| end.downcast_ref::<Below>()).is_some();
            if !leads_on {
                return;
            }
            let here = request.take().unwrap_or_else(|| canonical.request());
            let end = pass(&router, subject, canonical, here, false).end;
            let next = end.next(&canonical.cx).cloned();
            match (end, next) {
                (End::Below(_, changed), Some(next)) => {
                    self.routers.push(next.name.to_string());
                    (router, request) = (next, Some(*changed));
                }
                (End::Below(..), None) => {
                    self.refusal = Some(format!("404: no router below {} matches", router.name));
                    return;
                }
                (End::Answered { by, status, .. }, _) => {
                    self.refusal = Some(format!("{} from middleware {by}", status.as_u16()));
                    return;
                }
                (End::Service(_), _) => return,
            }
        }
    }

    /// What is the same for all requests on this way.
    pub(super) fn key(&self) -> (String, Option<String>) {
        (self.routers.join(" -> "), self.refusal.clone())
    }

    fn reports<'s>(&self, subject: &'s Subject) -> Vec<&'s RouterReport> {
        self.routers.iter().filter_map(|router| subject.report(router)).collect()
    }

    /// Middlewares on the way, those of the service behind those of routers.
    fn links(&self, subject: &Subject) -> Vec<QualifiedName> {
        let reports = self.reports(subject);
        let mut links: Vec<_> =
            reports.iter().flat_map(|report| report.links.iter().cloned()).collect();
        let service = self.service(subject);
        let object = service.as_ref().and_then(|name| subject.table.merged.services.get(name));
        if let (Some(name), Some(object)) = (&service, object) {
            let own = object.config.middlewares.iter();
            links.extend(own.map(|link| QualifiedName::resolve(link, name.provider())));
        }
        links
    }

    fn service(&self, subject: &Subject) -> Option<QualifiedName> {
        let last = self.routers.last().and_then(|router| subject.report(router))?;
        let service = &last.config().service;
        (!service.is_empty()).then(|| QualifiedName::resolve(service, last.name.provider()))
    }
}

/// How `old` and `new` differ; `None` when the request gets the same.
pub(super) fn change(old: &Way, new: &Way, values: &Values<'_>) -> Option<Change> {
    let mut change = Change::default();
    match (&old.refusal, &new.refusal) {
        (Some(then), Some(now)) if then == now && old.routers == new.routers => return None,
        (Some(then), Some(now)) => {
            if then.starts_with("404") && now.starts_with("404") {
                return None;
            }
            change.what.push(format!("{then}; now {now}"));
        }
        (None, Some(now)) => {
            change.kind = Kind::Removed;
            change.what.push(format!("now {now}"));
        }
        (Some(then), None) => {
            change.kind = Kind::Added;
            change.what.push(format!("until now {then}"));
        }
        (None, None) => {}
    }
    if old.routers != new.routers {
        if old.refusal.is_none() && new.refusal.is_none() {
            change.kind = Kind::Moved;
        }
        let name = |way: &Way| way.routers.join(" -> ");
        change.routers = Some((name(old), name(new)));
    }
    if old.refusal.is_none() && new.refusal.is_none() {
        middlewares(old, new, values, &mut change);
        services(old, new, values, &mut change);
        tls_options(old, new, values, &mut change);
    }
    let is_same = change.routers.is_none() && change.what.is_empty() && change.lost.is_empty();
    (!is_same).then_some(change)
}

/// Whether a middleware of this kind keeps somebody out, or off clear text.
fn protects(kind: &str) -> bool {
    is_guard(kind) || kind == "redirectScheme"
}

fn middlewares(old: &Way, new: &Way, values: &Values<'_>, change: &mut Change) {
    let (then, mut now) = (old.links(values.old), new.links(values.new));
    if then == now && then.iter().all(|name| values.same_middleware(name, name)) {
        return;
    }
    let order: Vec<_> = now.clone();
    let mut met = Vec::new();
    for name in &then {
        let kind = values.old.middleware_kind(name);
        let by_name = now.iter().position(|other| other == name);
        let by_value = || now.iter().position(|other| values.same_middleware(name, other));
        match by_name.or_else(by_value) {
            Some(at) => {
                let other = now.remove(at);
                if !values.same_middleware(name, &other) {
                    change.what.push(format!("{kind} {name} changed"));
                }
                met.push(order.iter().position(|one| *one == other));
            }
            None if protects(&kind) => change.lost.push(format!("{kind} {name}")),
            None => change.what.push(format!("{kind} {name} no longer applies")),
        }
    }
    for name in &now {
        let kind = values.new.middleware_kind(name);
        change.what.push(format!("{kind} {name} applies now"));
    }
    if !met.is_sorted() {
        change.what.push("middlewares stand in another order".to_owned());
    }
}

fn services(old: &Way, new: &Way, values: &Values<'_>, change: &mut Change) {
    let (Some(then), Some(now)) = (old.service(values.old), new.service(values.new)) else {
        return;
    };
    if values.same_service(&then, &now) {
        return;
    }
    change.what.push(if then == now {
        format!("service {now} changed")
    } else {
        format!("service {then} is now {now}")
    });
}

fn tls_options(old: &Way, new: &Way, values: &Values<'_>, change: &mut Change) {
    let (Some(then), Some(now)) = (&old.tls_options, &new.tls_options) else { return };
    if values.same_tls_options(then, now) {
        return;
    }
    let asks = |subject: &Subject, name: &str| {
        let object = subject.table.merged.tls_options.get(name);
        let value = object.and_then(|object| serde_json::to_value(&object.config).ok());
        value.is_some_and(|value| value.get("clientAuth").is_some_and(|auth| !auth.is_null()))
    };
    if asks(values.old, then) && !asks(values.new, now) {
        change.lost.push(format!("client certificates of TLS options {then}"));
    }
    change.what.push(if then == now {
        format!("TLS options {now} changed")
    } else {
        format!("TLS options {then} are now {now}")
    });
}
