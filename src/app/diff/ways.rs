//! The way of one request through one configuration, and how two ways differ.

use std::sync::Arc;

use super::guards::{self, Link, links_of_service, protects};
use super::values::Values;
use crate::app::explain::{Ask, Canonical, End, Refused, Subject, pass};
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
    /// The middleware that answers in the place of a service.
    answered_by: Option<QualifiedName>,
}

/// How the ways of a request differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Change {
    /// Protection that is gone.
    pub(super) lost: Vec<String>,
    /// Protection that is another.
    pub(super) altered: Vec<String>,
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
                    self.answered_by = Some(by);
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

    /// Middlewares on the way, those of services behind those of routers.
    fn links(&self, subject: &Subject) -> Vec<Link> {
        let reports = self.reports(subject);
        let of_routers = reports.iter().flat_map(|report| report.links.iter().cloned());
        let mut links: Vec<_> = of_routers.map(Link::of_router).collect();
        let service = self.service(subject);
        links.extend(service.into_iter().flat_map(|name| links_of_service(&name, subject)));
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
            if let Some(by) = old.answered_by.as_ref().filter(|by| protects(by, values.old)) {
                let kind = values.old.middleware_kind(by);
                change.lost.push(format!("{kind} {by} no longer applies"));
            }
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
        let (then, now) = (old.links(values.old), new.links(values.new));
        guards::compare(&then, &now, values, &mut change);
        services(old, new, values, &mut change);
        tls_options(old, new, values, &mut change);
    }
    let is_same = change.routers.is_none()
        && change.what.is_empty()
        && change.lost.is_empty()
        && change.altered.is_empty();
    (!is_same).then_some(change)
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
    guards::compare_tls(then, now, values, change);
}
