//! The hosts a rule names: what the host index needs, and what certificates need.

use smallvec::{SmallVec, smallvec};

use super::matcher::Matcher;
use super::tree::Node;

/// A set of hosts of which a request must have one for the rule to be able to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexHosts<'r> {
    /// The rule may match whatever the host is.
    Any,
    /// Only a request for one of these can match; none at all if the list is empty.
    Hosts(SmallVec<[HostPattern<'r>; 1]>),
}

/// A host as a rule names it, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern<'r> {
    /// This host.
    Exact(&'r str),
    /// Any single label, a dot and this; if this is empty, any host of a single label.
    Wildcard(&'r str),
}

impl Node {
    pub(super) fn index_hosts(&self) -> IndexHosts<'_> {
        match self {
            Self::Test(test) if test.negated => IndexHosts::Any,
            Self::Test(test) => match &test.matcher {
                Matcher::Host(host) => IndexHosts::Hosts(smallvec![HostPattern::Exact(host)]),
                Matcher::HostBelow(parent) => {
                    IndexHosts::Hosts(smallvec![HostPattern::Wildcard(parent)])
                }
                Matcher::NoHost(_) | Matcher::NoHeader => IndexHosts::Hosts(SmallVec::new()),
                _ => IndexHosts::Any,
            },
            // Each side is a set that must be hit, so any one of them will do.
            Self::All(group) => {
                group.nodes.iter().map(Self::index_hosts).fold(IndexHosts::Any, IndexHosts::smaller)
            }
            Self::Any(group) => {
                let nothing = IndexHosts::Hosts(SmallVec::new());
                group.nodes.iter().map(Self::index_hosts).fold(nothing, IndexHosts::union)
            }
        }
    }

    pub(super) fn domains(&self) -> Vec<String> {
        let mut domains = Vec::new();
        self.visit(&mut |test| match &test.matcher {
            Matcher::AnyHost => domains.push("*".to_owned()),
            Matcher::Host(host) | Matcher::NoHost(host) => domains.push((**host).to_owned()),
            Matcher::HostBelow(parent) => domains.push(format!("*.{parent}")),
            _ => {}
        });
        domains
    }
}

impl IndexHosts<'_> {
    fn smaller(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Any, _) => other,
            (Self::Hosts(a), Self::Hosts(b)) if b.len() < a.len() => other,
            _ => self,
        }
    }

    fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hosts(mut a), Self::Hosts(b)) => {
                a.extend(b);
                Self::Hosts(a)
            }
            _ => Self::Any,
        }
    }
}

/// The hosts that a rule seems to name, for a rule that cannot be read: so that a broken router can
/// keep its hosts. Any spelling of `Host` counts, with any quotes or none.
pub fn readable_hosts(text: &str) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word_on = rest.get(start..).unwrap_or_default();
        let end = word_on.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word_on.len());
        let (word, after) = word_on.split_at(end);
        rest = after;
        let names_hosts =
            ["host", "hostheader"].iter().any(|known| known.eq_ignore_ascii_case(word));
        let Some(mut arguments) = after.trim_start().strip_prefix('(').filter(|_| names_hosts)
        else {
            continue;
        };
        while let Some((host, behind)) = readable_argument(arguments.trim_start()) {
            let host = host.trim().to_ascii_lowercase();
            let host = host.strip_suffix('.').unwrap_or(&host);
            if is_hostlike(host) && !hosts.iter().any(|known| known == host) {
                hosts.push(host.to_owned());
            }
            rest = behind;
            match behind.trim_start().strip_prefix(',') {
                Some(next) => arguments = next,
                None => break,
            }
        }
    }
    hosts
}

/// Splits one argument off, quoted or not.
fn readable_argument(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next()?;
    if matches!(quote, '`' | '"' | '\'') {
        let body = text.get(1..)?;
        // No host has a bracket or a comma: there the call goes on, and the quote is not closed.
        let end = body.find([quote, ')', ','])?;
        let (argument, behind) = body.split_at(end);
        return Some((argument, behind.strip_prefix(quote).unwrap_or(behind)));
    }
    let end = text.find(|c| !is_host_char(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_hostlike(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_host_char)
}

fn is_host_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.:*".contains(c)
}
