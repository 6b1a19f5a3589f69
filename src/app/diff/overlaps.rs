//! Regular expressions that may take each other's requests. Only examples of them are tried, so what two of them have
//! in common cannot be told; that they stand for the same hosts can.

use std::collections::HashMap;
use std::sync::Arc;

use crate::app::explain::Subject;
use crate::compile::RouterReport;
use crate::router::HttpRouter;
use crate::rule::{HostPattern, IndexHosts};

/// As many are told.
const MOST: usize = 5;

/// A note for each router that is new or written otherwise and stands before an older one of the same host, both with
/// regular expressions.
pub(super) fn notes(old: &Subject, new: &Subject) -> Vec<String> {
    let (mut older, mut newer) = (Vec::<Regexp<'_>>::new(), Vec::<Regexp<'_>>::new());
    for report in new.table.compiled.report.routers.iter() {
        let Some(router) = report.router.as_ref().filter(|router| has_regexp(router)) else {
            continue;
        };
        let before = old.report(report.name.as_str());
        let is_same = before.is_some_and(|before| before.config() == report.config());
        (if is_same { &mut older } else { &mut newer }).push((report, router));
    }
    if newer.is_empty() {
        return Vec::new();
    }
    let by_host = ByHost::of(&older);
    let mut notes = Vec::new();
    for (report, router) in &newer {
        let mut below: Vec<&RouterReport> = by_host
            .sharing(router)
            .into_iter()
            .filter_map(|at| older.get(at))
            .filter(|(other, _)| {
                other.priority <= report.priority && share_door(report, other, new)
            })
            .map(|(other, _)| *other)
            .collect();
        below.sort_by_key(|other| &other.name);
        below.dedup_by_key(|other| &other.name);
        let Some(first) = below.first() else { continue };
        let more = match below.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        notes.push(format!(
            "router {} may take requests of {}{more}: both have regular expressions for one host, and \
             only examples of these were tried",
            report.name, first.name
        ));
    }
    if let Some(more) = notes.len().checked_sub(MOST).filter(|more| *more > 0) {
        notes.truncate(MOST);
        notes.push(format!("the same of {more} routers more"));
    }
    notes
}

/// A router with a regular expression.
type Regexp<'s> = (&'s RouterReport, &'s Arc<HttpRouter>);

fn has_regexp(router: &HttpRouter) -> bool {
    router.rule.text().to_ascii_lowercase().contains("regexp(")
}

fn share_door(one: &RouterReport, other: &RouterReport, subject: &Subject) -> bool {
    let (ours, theirs) = (one.using(&subject.table.facts), other.using(&subject.table.facts));
    // One that stands below others has none of its own.
    ours.is_empty() || theirs.is_empty() || ours.iter().any(|name| theirs.contains(name))
}

/// Positions of routers by what their rules say of hosts.
#[derive(Default)]
struct ByHost<'s> {
    exact: HashMap<&'s str, Vec<usize>>,
    /// Exact hosts, by what follows their first label.
    exact_below: HashMap<&'s str, Vec<usize>>,
    wildcard: HashMap<&'s str, Vec<usize>>,
    any: Vec<usize>,
    count: usize,
}

fn parent(host: &str) -> &str {
    host.split_once('.').map_or("", |(_, parent)| parent)
}

impl<'s> ByHost<'s> {
    fn of(routers: &[Regexp<'s>]) -> Self {
        let mut by_host = Self { count: routers.len(), ..Self::default() };
        for (at, (_, router)) in routers.iter().enumerate() {
            let IndexHosts::Hosts(hosts) = router.rule.index_hosts() else {
                by_host.any.push(at);
                continue;
            };
            for host in hosts {
                match host {
                    HostPattern::Exact(host) => {
                        by_host.exact.entry(host).or_default().push(at);
                        by_host.exact_below.entry(parent(host)).or_default().push(at);
                    }
                    HostPattern::Wildcard(parent) => {
                        by_host.wildcard.entry(parent).or_default().push(at);
                    }
                }
            }
        }
        by_host
    }

    /// Those that may be for a host of `router`.
    fn sharing(&self, router: &HttpRouter) -> Vec<usize> {
        let IndexHosts::Hosts(hosts) = router.rule.index_hosts() else {
            return (0..self.count).collect();
        };
        let mut found = self.any.clone();
        for host in hosts {
            let maps = match host {
                HostPattern::Exact(host) => [(&self.exact, host), (&self.wildcard, parent(host))],
                HostPattern::Wildcard(parent) => {
                    [(&self.exact_below, parent), (&self.wildcard, parent)]
                }
            };
            for (map, key) in maps {
                found.extend(map.get(key).into_iter().flatten());
            }
        }
        found
    }
}
