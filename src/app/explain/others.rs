//! The routers that do not take a request, and why.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::request::Canonical;
use super::subject::Subject;
use super::told::{Count, OtherTold, Verdict};
use crate::compile::RouterReport;
use crate::exchange::view::RequestView;
use crate::router::{HttpRouter, HttpRouters, RouterConfig};
use crate::rule::{HostPattern, IndexHosts, Rule, Syntax, without_secrets};

/// As many are told of unless all are asked for.
const SHOWN: usize = 20;
/// As many reasons of one rule are told.
const REASONS: usize = 3;

/// The routers that were asked, and the one that takes the request.
pub(super) struct Asked<'t> {
    pub(super) routers: &'t HttpRouters,
    pub(super) winner: Option<&'t Arc<HttpRouter>>,
    /// Position of the entry point; `None` for routers below others.
    pub(super) entry_point: Option<usize>,
}

/// All others, in the order of how near they came; those that are left out are counted.
pub(super) fn others(
    asked: &Asked<'_>,
    view: &RequestView<'_>,
    subject: &Subject,
    canonical: &Canonical,
    all: bool,
) -> (Vec<OtherTold>, Vec<Count>) {
    let mut found = Vec::new();
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut note = |other: Option<OtherTold>, verdict: Verdict| match other {
        Some(other) => found.push(other),
        None => *counts.entry(verdict).or_default() += 1,
    };
    // A router has a copy for each entry point that adds something to it: the one that is asked here will do.
    let mut known: HashSet<*const RouterConfig> = HashSet::new();
    for router in asked.routers.iter() {
        known
            .extend(subject.report(&router.name).map(|report| std::ptr::from_ref(report.config())));
        if asked.winner.is_some_and(|winner| Arc::ptr_eq(winner, router)) {
            continue;
        }
        let verdict = verdict_of(&router.rule, view);
        let wanted = all || verdict != Verdict::OtherHost;
        note(wanted.then(|| of_asked(router, verdict, asked, view, subject)), verdict);
    }
    if let Some(entry_point) = asked.entry_point {
        for report in subject.table.compiled.report.routers.iter() {
            if !known.insert(std::ptr::from_ref(report.config())) {
                continue;
            }
            let Some((verdict, rule)) = verdict_elsewhere(report, view) else { continue };
            let other = || of_elsewhere(report, verdict, rule, subject, canonical, entry_point);
            let is_near = !matches!(verdict, Verdict::OtherHost | Verdict::AnyHost)
                && report.name.provider() != "internal";
            note((all || is_near).then(other), verdict);
        }
    }
    found.sort_by(|one, other| {
        (one.verdict.cmp(&other.verdict)).then(other.priority.cmp(&one.priority))
    });
    if !all {
        for left_out in found.drain(SHOWN.min(found.len())..) {
            *counts.entry(left_out.verdict).or_default() += 1;
        }
    }
    let counts = counts.into_iter().map(|(verdict, count)| Count { count, verdict }).collect();
    (found, counts)
}

fn verdict_of(rule: &Rule, view: &RequestView<'_>) -> Verdict {
    if rule.matches(view) {
        return Verdict::Loses;
    }
    match rule.index_hosts() {
        IndexHosts::Any => Verdict::AnyHost,
        IndexHosts::Hosts(hosts) if hosts.iter().any(|host| is_host(*host, view.host)) => {
            Verdict::DoesNotMatch
        }
        IndexHosts::Hosts(_) => Verdict::OtherHost,
    }
}

fn is_host(pattern: HostPattern<'_>, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact == host,
        HostPattern::Wildcard(parent) => {
            host.split_once('.').map_or("", |(_, rest)| rest) == parent
        }
    }
}

/// One that was asked here.
fn of_asked(
    router: &HttpRouter,
    verdict: Verdict,
    asked: &Asked<'_>,
    view: &RequestView<'_>,
    subject: &Subject,
) -> OtherTold {
    let why = match (verdict, asked.winner) {
        (Verdict::Loses, Some(winner)) => vec![loses(router, winner)],
        _ => reasons(&router.rule, view),
    };
    OtherTold {
        name: router.name.to_string(),
        place: subject.router_place(&router.name),
        rule: without_secrets(router.rule.text()),
        priority: router.priority,
        verdict,
        why,
    }
}

fn loses(router: &HttpRouter, winner: &HttpRouter) -> String {
    let (own, other) = (router.priority, winner.priority);
    if own < other {
        return format!("also matches, but its priority {own} is below {other} of {}", winner.name);
    }
    format!(
        "also matches with the same priority {own}; {} comes first by provider and name",
        winner.name
    )
}

fn reasons(rule: &Rule, view: &RequestView<'_>) -> Vec<String> {
    let reasons = rule.reasons(view);
    let more = reasons.len().saturating_sub(REASONS);
    let told = reasons.iter().take(REASONS);
    let mut told: Vec<_> =
        told.map(|one| format!("{}: {}", without_secrets(&one.predicate), one.has)).collect();
    if more > 0 {
        told.push(format!("and {more} alternatives more"));
    }
    told
}

/// The verdict of one that is not asked here, and its rule; `None` for what stands below others, which is asked by
/// those.
fn verdict_elsewhere(
    report: &RouterReport,
    view: &RequestView<'_>,
) -> Option<(Verdict, Option<Arc<Rule>>)> {
    let config = report.config();
    if !config.parent_refs.is_empty() {
        return None;
    }
    let rule = report.router.as_ref().map(|router| Arc::clone(&router.rule)).or_else(|| {
        let syntax = if config.rule_syntax == "v2" { Syntax::V2 } else { Syntax::V3 };
        Rule::parse_as(&config.rule, syntax).ok().map(Arc::new)
    });
    let verdict = match &rule {
        None => Verdict::Elsewhere,
        Some(rule) => match verdict_of(rule, view) {
            Verdict::Loses => Verdict::Elsewhere,
            other => other,
        },
    };
    Some((verdict, rule))
}

/// One that is not asked here.
fn of_elsewhere(
    report: &RouterReport,
    verdict: Verdict,
    rule: Option<Arc<Rule>>,
    subject: &Subject,
    canonical: &Canonical,
    entry_point: usize,
) -> OtherTold {
    let facts = &subject.table.facts;
    let using = report.using(facts);
    let here = facts.entry_points.get(entry_point).map(|model| Arc::clone(&model.name));
    let mut why = Vec::new();
    if using.is_empty() {
        why.push("at no entry point that exists".to_owned());
    } else if !using.iter().any(|name| here.as_ref() == Some(name)) {
        let names: Vec<_> = using.iter().map(|name| format!("`{name}`")).collect();
        let plural = if names.len() > 1 { "s" } else { "" };
        why.push(format!("only at entry point{plural} {}", names.join(", ")));
    }
    match (report.effective_config(facts).tls.is_some(), canonical.tls().is_some()) {
        (true, false) => why.push("needs TLS, and the request is in clear text".to_owned()),
        (false, true) => {
            why.push(
                "is for clear text: it has no `tls`, and the request comes over TLS".to_owned(),
            );
        }
        _ => {}
    }
    if report.router.is_none() && !report.errors.is_empty() {
        why.push(format!("is in error and left out: {}", report.errors.join("; ")));
    }
    if let Some(rule) = rule {
        why.extend(reasons(&rule, &canonical.view()));
    }
    OtherTold {
        name: report.name.to_string(),
        place: subject.router_place(report.name.as_str()),
        rule: without_secrets(&report.config().rule),
        priority: report.priority,
        verdict,
        why,
    }
}
