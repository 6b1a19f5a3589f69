//! The requests that two configurations are compared with: what their rules are about, and what lies just beside it.
//!
//! Every host that a rule names is asked for every path, method and header that some rule for it names; beside each
//! prefix lie the prefix itself and longer paths, beside each condition the request without it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method};

use super::hidden;
use crate::app::explain::{Ask, Subject};
use crate::compile::RouterReport;
use crate::exchange::Scheme;
use crate::rule::{IndexHosts, Sample};
use crate::values::QualifiedName;
use crate::values::secret::{HIDDEN, is_secret_name};

/// No more requests are tried for rules that name no host.
const MOST_FOR_ANY: usize = 200_000;
/// No more combinations of one host's paths with its other conditions.
const MOST_OF_HOST: usize = 2_048;
/// So few conditions are also tried two at a time.
const FEW: usize = 8;
/// A host that nobody names (RFC 2606).
const NOBODY: &str = "unnamed.invalid";

/// What a request is besides its host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Condition {
    method: Option<String>,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    client: Option<IpAddr>,
}

impl Condition {
    /// Both; where they contradict each other, what `self` says.
    fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.method = both.method.or_else(|| other.method.clone());
        both.client = both.client.or(other.client);
        let is_new = |pair: &&(String, String)| !self.headers.contains(pair);
        both.headers.extend(other.headers.iter().filter(is_new).cloned());
        let is_new = |pair: &&(String, String)| !self.query.contains(pair);
        both.query.extend(other.query.iter().filter(is_new).cloned());
        both
    }
}

/// One request, for any entry point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Trial {
    host: String,
    path: String,
    condition: Condition,
}

/// What is asked of one host.
#[derive(Default)]
struct Wanted {
    /// Paths with conditions as rules have them together.
    pairs: BTreeSet<(String, Condition)>,
}

/// All requests, and whether some had to be left out.
pub(super) fn derive(subjects: [&Subject; 2]) -> (Vec<Trial>, bool) {
    let mut by_host: BTreeMap<String, Wanted> = BTreeMap::new();
    let mut any = Wanted::default();
    by_host.entry(NOBODY.to_owned()).or_default();
    for subject in subjects {
        for report in subject.table.compiled.report.routers.iter() {
            collect(report, subject, &mut by_host, &mut any);
        }
    }
    // Who has a wildcard of a host takes its requests too.
    let names: Vec<String> = by_host.keys().cloned().collect();
    let mut left = MOST_FOR_ANY;
    let mut is_cut = false;
    let mut trials = Vec::new();
    for host in names {
        let parent = host.split_once('.').map_or("", |(_, parent)| parent);
        let mut pairs = by_host.get(&host).map(|wanted| wanted.pairs.clone()).unwrap_or_default();
        let of_wildcard = by_host.get(&format!("any.{parent}"));
        pairs.extend(of_wildcard.into_iter().flat_map(|wanted| wanted.pairs.iter().cloned()));
        if any.pairs.len() <= left || host == NOBODY {
            left = left.saturating_sub(any.pairs.len());
            pairs.extend(any.pairs.iter().cloned());
        } else {
            is_cut = true;
        }
        is_cut |= combine(&host, pairs, &mut trials);
    }
    (trials, is_cut)
}

/// Every path of a host with every condition of it.
fn combine(host: &str, pairs: BTreeSet<(String, Condition)>, trials: &mut Vec<Trial>) -> bool {
    let paths: BTreeSet<String> =
        pairs.iter().map(|(path, _)| path.clone()).chain(["/".to_owned()]).collect();
    let mut conditions: BTreeSet<Condition> = pairs
        .iter()
        .map(|(_, condition)| condition.clone())
        .chain([Condition::default()])
        .collect();
    if conditions.len() <= FEW {
        let both = |one: &Condition| conditions.iter().map(|other| one.and(other)).collect();
        let both: Vec<Vec<Condition>> = conditions.iter().map(both).collect();
        conditions.extend(both.into_iter().flatten());
    }
    let is_cut = paths.len() * conditions.len() > MOST_OF_HOST;
    let mut seen: HashSet<(String, Condition)> = HashSet::new();
    if is_cut {
        seen.extend(paths.into_iter().map(|path| (path, Condition::default())));
        seen.extend(pairs);
    } else {
        for condition in conditions {
            seen.extend(paths.iter().map(|path| (path.clone(), condition.clone())));
        }
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_unstable();
    let trial = |(path, condition)| Trial { host: host.to_owned(), path, condition };
    trials.extend(seen.into_iter().map(trial));
    is_cut
}

/// Adds what one router is about.
fn collect(
    report: &RouterReport,
    subject: &Subject,
    by_host: &mut BTreeMap<String, Wanted>,
    any: &mut Wanted,
) {
    let Some(router) = &report.router else { return };
    let is_child = !report.config().parent_refs.is_empty();
    let above = if is_child { Above::of(report, subject) } else { Above::default() };
    let is_any = matches!(router.rule.index_hosts(), IndexHosts::Any) && above.hosts.is_empty();
    for sample in router.rule.samples() {
        let condition = Condition {
            method: sample.method.clone(),
            headers: sample
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
            query: sample.query.clone(),
            client: sample.client_ip,
        };
        let mut paths = paths(&sample);
        for prefix in &above.prefixes {
            let longer: Vec<_> = paths.iter().map(|path| format!("{prefix}{path}")).collect();
            paths.extend(longer);
        }
        let pairs = || paths.iter().map(|path| (path.clone(), condition.clone()));
        if is_any {
            any.pairs.extend(pairs());
        }
        let hosts = sample.host.iter().chain(above.hosts.iter().filter(|_| sample.host.is_none()));
        for host in hosts {
            by_host.entry(host.clone()).or_default().pairs.extend(pairs());
        }
    }
}

/// The path of a sample and its neighbours.
fn paths(sample: &Sample) -> Vec<String> {
    match (&sample.path, sample.is_prefix) {
        (None, _) => vec!["/".to_owned()],
        (Some(path), false) => vec![path.clone(), format!("{path}/")],
        (Some(prefix), true) => {
            let slash = prefix.trim_end_matches('/');
            vec![prefix.clone(), format!("{prefix}x"), format!("{slash}/x")]
        }
    }
}

/// What stands above a router that stands below others.
#[derive(Default)]
struct Above {
    hosts: BTreeSet<String>,
    /// What may be taken off a path, or must stand in front of it, before it comes to the router.
    prefixes: BTreeSet<String>,
}

impl Above {
    fn of(report: &RouterReport, subject: &Subject) -> Self {
        let mut above = Self::default();
        let mut seen = HashSet::new();
        let mut names: Vec<QualifiedName> = parents(report);
        while let Some(name) = names.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(parent) = subject.report(name.as_str()) else { continue };
            names.extend(parents(parent));
            for sample in parent.router.iter().flat_map(|router| router.rule.samples()) {
                above.hosts.extend(sample.host);
                above.prefixes.extend(sample.path.filter(|_| sample.is_prefix));
            }
            for link in &parent.links {
                let object = subject.table.merged.middlewares.get(link);
                let strip = object.and_then(|object| object.config.strip_prefix.as_ref());
                above.prefixes.extend(strip.into_iter().flat_map(|strip| strip.prefixes.clone()));
            }
        }
        above
    }
}

fn parents(report: &RouterReport) -> Vec<QualifiedName> {
    let parents = report.config().parent_refs.iter();
    parents.map(|parent| QualifiedName::resolve(parent, report.name.provider())).collect()
}

impl Trial {
    /// The request itself, in clear text or over TLS; `None` for what cannot be sent.
    pub(super) fn ask(&self, secure: bool) -> Option<Ask> {
        let scheme = if secure { Scheme::Https } else { Scheme::Http };
        let mut target = escaped(&self.path, false);
        for (number, (key, value)) in self.condition.query.iter().enumerate() {
            target.push(if number == 0 { '?' } else { '&' });
            let _ = write!(target, "{}={}", escaped(key, true), escaped(value, true));
        }
        let authority =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, HeaderValue::from_str(&authority).ok()?);
        for (name, value) in &self.condition.headers {
            let name: http::HeaderName = name.parse().ok()?;
            headers.append(name, HeaderValue::from_str(value).ok()?);
        }
        let method = self.condition.method.as_deref().unwrap_or("GET");
        Some(Ask {
            url: format!("{}://{authority}{target}", scheme.as_str()),
            scheme,
            authority,
            port: None,
            target,
            method: Method::from_bytes(method.as_bytes()).ok()?,
            headers,
            // An address for documentation (RFC 5737): nobody has it.
            client: self.condition.client.unwrap_or(IpAddr::from([192, 0, 2, 1])),
            is_client_assumed: true,
        })
    }

    /// As a person would write it. Values of what is named like a secret are not shown.
    pub(super) fn describe(&self, ask: &Ask) -> String {
        let mut text = format!("{} {}", ask.method, hidden::url(&ask.url));
        for (name, value) in &self.condition.headers {
            let value = if is_secret_name(name) { HIDDEN } else { value };
            let _ = write!(text, " -H '{name}: {value}'");
        }
        if let Some(client) = self.condition.client {
            let _ = write!(text, " from {client}");
        }
        text
    }
}

/// A path, or a part of a query, as it is sent. Escapes in a path are kept.
fn escaped(text: &str, is_query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let hex = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
        let kept = match byte {
            b'%' => !is_query && hex(at + 1) && hex(at + 2),
            b'&' | b'=' | b'+' | b';' => !is_query,
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'?' | b'#' | b'\\' | b'^' | b'|' => false,
            byte => byte.is_ascii_graphic(),
        };
        if kept {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_written_as_they_are_sent() {
        assert_eq!(escaped("/a b/%2F%x?#é", false), "/a%20b/%2F%25x%3F%23%C3%A9");
        assert_eq!(escaped("a&b=c%20", true), "a%26b%3Dc%2520");
    }

    #[test]
    fn conditions_are_tried_alone_and_together() {
        let condition = |method: &str, header: &str| Condition {
            method: Some(method.to_owned()).filter(|method| !method.is_empty()),
            headers: [header]
                .iter()
                .filter(|one| !one.is_empty())
                .map(|one| ((*one).to_owned(), "1".to_owned()))
                .collect(),
            ..Condition::default()
        };
        let pairs =
            [("/x".to_owned(), condition("POST", "")), ("/y".to_owned(), condition("", "x-a"))];
        let mut trials = Vec::new();
        assert!(!combine("a.test", pairs.into(), &mut trials));
        let has = |path: &str, condition: &Condition| {
            let trial = Trial {
                host: "a.test".to_owned(),
                path: path.to_owned(),
                condition: condition.clone(),
            };
            trials.contains(&trial)
        };
        for path in ["/", "/x", "/y"] {
            for (method, header) in [("", ""), ("POST", ""), ("", "x-a"), ("POST", "x-a")] {
                assert!(has(path, &condition(method, header)), "{path} {method} {header}");
            }
        }
        assert_eq!(trials.len(), 12);
        let ask = trials.iter().find(|trial| trial.condition == condition("POST", "x-a")).unwrap();
        let sent = ask.ask(true).unwrap();
        assert_eq!((sent.method.as_str(), &*sent.url), ("POST", "https://a.test/"));
        assert_eq!(ask.describe(&sent), "POST https://a.test/ -H 'x-a: 1'");
    }
}
