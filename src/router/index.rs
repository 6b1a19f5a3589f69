//! Finds a router by host: the walk over the rules costs the same with ten routers and a hundred
//! thousand.
//!
//! Invariant: `find` gives what a scan over all rules in match order would give, because every rule
//! is a candidate for every host that it can match.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::rule::{HostPattern, IndexHosts, Rule};

/// Finds the first router, in match order, whose rule matches.
#[derive(Debug, Default)]
pub struct HostIndex {
    hasher: RandomState,
    /// Rules that name a host, by that host.
    exact: HostTable,
    /// Rules that name `*.parent`, by that parent.
    wildcard: HostTable,
    /// Rules that may match any host.
    any: Vec<u32>,
}

impl HostIndex {
    /// Indexes rules that are in match order, best first. A position is a rule's place in that order.
    pub fn build<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let rules = rules.into_iter();
        let expected = rules.size_hint().0;
        let hasher = RandomState::default();
        let mut exact = TableBuilder::with_capacity(expected);
        let mut wildcard = TableBuilder::with_capacity(0);
        let mut any = Vec::new();
        // A table of four thousand million rules would not fit in memory.
        for (position, rule) in (0_u32..).zip(rules) {
            match rule.index_hosts() {
                IndexHosts::Any => any.push(position),
                IndexHosts::Hosts(hosts) => {
                    for host in hosts {
                        match host {
                            HostPattern::Exact(host) => exact.add(&hasher, host, position),
                            HostPattern::Wildcard(parent) => {
                                wildcard.add(&hasher, parent, position);
                            }
                        }
                    }
                }
            }
        }
        Self { exact: exact.finish(), wildcard: wildcard.finish(), any, hasher }
    }

    /// Walks the candidates for this host in match order; the first for which `matches(position)`
    /// is true wins. The host is in lower case, without port or trailing dot; empty if there is none. So is `flat`,
    /// what the host is an alias of, where that counts too.
    pub fn find(
        &self,
        host: &str,
        flat: Option<&str>,
        matches: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let (exact, wildcard) = if host.is_empty() {
            // Only a rule that may match any host matches a request without one.
            ([].as_slice(), [].as_slice())
        } else {
            self.named(host)
        };
        let Some(flat) = flat.filter(|_| !host.is_empty()) else {
            return Self::walk([exact, wildcard, self.any.as_slice()], matches);
        };
        let (flat_exact, flat_wildcard) = self.named(flat);
        Self::walk([exact, wildcard, flat_exact, flat_wildcard, self.any.as_slice()], matches)
    }

    /// Rules that name this host, and those that name its parent.
    fn named(&self, host: &str) -> (&[u32], &[u32]) {
        let parent = host.split_once('.').map_or("", |(_, parent)| parent);
        (self.exact.get(&self.hasher, host), self.wildcard.get(&self.hasher, parent))
    }

    fn walk<const LISTS: usize>(
        mut lists: [&[u32]; LISTS],
        mut matches: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        loop {
            let position = *lists.iter().filter_map(|list| list.first()).min()?;
            for list in &mut lists {
                // A rule that names `a.example.com` and `*.example.com` is in two lists.
                if let [first, rest @ ..] = list
                    && *first == position
                {
                    *list = rest;
                }
            }
            let position = wide(position);
            if matches(position) {
                return Some(position);
            }
        }
    }
}

/// Host to positions, in three allocations whatever the number of hosts.
#[derive(Debug, Default)]
struct HostTable {
    entries: HashTable<Entry>,
    /// All hosts, one after the other.
    hosts: Box<str>,
    /// The positions of hosts that have several, one host after the other.
    positions: Box<[u32]>,
}

#[derive(Debug)]
struct Entry {
    host_start: usize,
    host_length: u32,
    count: u32,
    /// The position if there is one, else where the positions start.
    first: u32,
}

impl HostTable {
    fn get(&self, hasher: &RandomState, host: &str) -> &[u32] {
        if self.entries.is_empty() {
            return &[];
        }
        let hash = hasher.hash_one(host);
        let Some(entry) = self.entries.find(hash, |entry| entry.is(host, &self.hosts)) else {
            return &[];
        };
        if entry.count == 1 {
            return std::slice::from_ref(&entry.first);
        }
        let positions = self.positions.get(wide(entry.first)..).unwrap_or_default();
        positions.get(..wide(entry.count)).unwrap_or_default()
    }
}

impl Entry {
    fn host<'h>(&self, hosts: &'h str) -> &'h str {
        hosts.get(self.host_start..self.host_start + wide(self.host_length)).unwrap_or_default()
    }

    fn is(&self, host: &str, hosts: &str) -> bool {
        self.host(hosts) == host
    }
}

/// Collects pairs of host and position, then sorts the positions by host.
#[derive(Default)]
struct TableBuilder {
    /// While building, `first` is the number of the host.
    entries: HashTable<Entry>,
    hosts: String,
    /// The last position of each host, by its number.
    last: Vec<u32>,
    /// Number of the host and position, in match order.
    pairs: Vec<(u32, u32)>,
}

/// Room that is taken for a host, so that the text of all of them is not copied as it grows.
const USUAL_LENGTH: usize = 24;

impl TableBuilder {
    fn with_capacity(hosts: usize) -> Self {
        Self {
            entries: HashTable::with_capacity(hosts),
            hosts: String::with_capacity(hosts * USUAL_LENGTH),
            last: Vec::with_capacity(hosts),
            pairs: Vec::with_capacity(hosts),
        }
    }

    fn add(&mut self, hasher: &RandomState, host: &str, position: u32) {
        let hash = hasher.hash_one(host);
        let number =
            if let Some(entry) = self.entries.find_mut(hash, |entry| entry.is(host, &self.hosts)) {
                let Some(last) = self.last.get_mut(wide(entry.first)) else { return };
                if *last == position {
                    return;
                }
                *last = position;
                entry.count += 1;
                entry.first
            } else {
                let number = narrow(self.last.len());
                let host_start = self.hosts.len();
                self.hosts.push_str(host);
                self.last.push(position);
                let entry =
                    Entry { host_start, host_length: narrow(host.len()), count: 1, first: number };
                self.entries
                    .insert_unique(hash, entry, |entry| hasher.hash_one(entry.host(&self.hosts)));
                number
            };
        self.pairs.push((number, position));
    }

    fn finish(mut self) -> HostTable {
        // Where the next position of a host goes; nowhere if the entry itself holds the only one.
        let mut next = vec![None; self.last.len()];
        let mut total = 0;
        for entry in &mut self.entries {
            let number = wide(entry.first);
            if entry.count == 1 {
                entry.first = self.last.get(number).copied().unwrap_or_default();
            } else {
                entry.first = narrow(total);
                if let Some(next) = next.get_mut(number) {
                    *next = Some(total);
                }
                total += wide(entry.count);
            }
        }
        let mut positions = vec![0; total];
        for (number, position) in self.pairs {
            if let Some(Some(next)) = next.get_mut(wide(number))
                && let Some(slot) = positions.get_mut(*next)
            {
                *slot = position;
                *next += 1;
            }
        }
        HostTable { entries: self.entries, hosts: self.hosts.into(), positions: positions.into() }
    }
}

/// Counts here are of hosts written in rules, which fit 32 bits many times over.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn wide(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::HostIndex;
    use crate::exchange::view::RequestView;
    use crate::rule::Rule;

    fn rules(texts: &[impl AsRef<str>]) -> Vec<Rule> {
        texts.iter().map(|text| Rule::parse(text.as_ref()).expect("a rule")).collect()
    }

    fn candidates(rules: &[Rule], host: &str) -> Vec<usize> {
        let mut seen = Vec::new();
        HostIndex::build(rules).find(host, None, |position| {
            seen.push(position);
            false
        });
        seen
    }

    fn matches(rule: &Rule, host: &str, flat: Option<&str>, path: &str) -> bool {
        rule.matches(&RequestView {
            host,
            flat_host: flat,
            path,
            query: None,
            method: &Method::GET,
            headers: &HeaderMap::new(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        })
    }

    #[test]
    fn candidates_come_in_match_order_and_once() {
        let rules = rules(&[
            "PathPrefix(`/.well-known`)",
            "Host(`*.b.c`) || Host(`a.b.c`)",
            "Host(`a.b.c`) && Path(`/x`)",
            "Host(`other`)",
            "Host(`A.b.c.`)",
            "!Host(`a.b.c`)",
            "Host(`*.b.c`)",
            "Host(`*a.b.c`)",
            "Host(`*`)",
            "Host(`a.b.c`) || Host(`a.b.c`)",
        ]);
        assert_eq!(candidates(&rules, "a.b.c"), [0, 1, 2, 4, 5, 6, 8, 9]);
        assert_eq!(candidates(&rules, "z.b.c"), [0, 1, 5, 6, 8]);
        assert_eq!(candidates(&rules, "other"), [0, 3, 5, 8]);
        assert_eq!(candidates(&rules, "b.c"), [0, 5, 8]);
        assert_eq!(candidates(&rules, "y.z.b.c"), [0, 5, 8]);
        assert_eq!(candidates(&rules, ""), [0, 5, 8]);
    }

    #[test]
    fn the_first_that_matches_wins_and_ends_the_walk() {
        let rules = rules(&["Host(`a`) && Path(`/x`)", "Host(`a`)", "Host(`*`)"]);
        let mut asked = Vec::new();
        let found = HostIndex::build(&rules).find("a", None, |position| {
            asked.push(position);
            position == 1
        });
        assert_eq!((found, asked), (Some(1), vec![0, 1]));
        assert_eq!(HostIndex::build(&[]).find("a", None, |_| true), None);
    }

    #[test]
    fn candidates_do_not_grow_with_other_hosts() {
        let texts: Vec<_> = (0..20_000).map(|n| format!("Host(`tenant{n}.example.com`)")).collect();
        let rules = rules(&texts);
        let index = HostIndex::build(&rules);
        for n in [0, 9_999, 19_999] {
            let mut asked = 0;
            let host = format!("tenant{n}.example.com");
            let found = index.find(&host, None, |position| {
                asked += 1;
                matches(&rules[position], &host, None, "/")
            });
            assert_eq!((found, asked), (Some(n), 1));
        }
        assert_eq!(index.find("tenant20000.example.com", None, |_| true), None);
    }

    fn host_argument() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => "[ab](\\.[ab]){0,2}\\.?",
            3 => "\\*(\\.[ab]){1,2}\\.?",
            1 => Just("*".to_owned()),
            1 => Just("*.".to_owned()),
            1 => Just("*a.b".to_owned()),
        ]
    }

    fn rule_text() -> impl Strategy<Value = String> {
        let matcher = prop_oneof![
            6 => host_argument().prop_map(|host| format!("Host(`{host}`)")),
            2 => "/[xy]".prop_map(|path| format!("Path(`{path}`)")),
            1 => "/[xy]?".prop_map(|path| format!("PathPrefix(`{path}`)")),
            1 => Just("HostRegexp(`^a`)".to_owned()),
            1 => Just("Header(`Host`, `a`)".to_owned()),
        ];
        matcher.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                2 => inner.clone().prop_map(|rule| format!("!({rule})")),
                3 => prop::collection::vec(inner.clone(), 2..4).prop_map(|rules| format!("({})", rules.join(" && "))),
                4 => prop::collection::vec(inner, 2..4).prop_map(|rules| format!("({})", rules.join(" || "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            texts in prop::collection::vec(rule_text(), 0..12),
            requests in prop::collection::vec(
                ("([ab](\\.[ab]){0,2})?", prop::option::of("[ab](\\.[ab]){0,2}"), "/[xyz]?"),
                1..12,
            ),
        ) {
            let rules = rules(&texts);
            let index = HostIndex::build(&rules);
            for (host, flat, path) in &requests {
                let flat = flat.as_deref();
                let scanned = rules.iter().position(|rule| matches(rule, host, flat, path));
                let found = index.find(host, flat, |at| matches(&rules[at], host, flat, path));
                prop_assert_eq!(found, scanned, "{} {} in {:?}", host, path, &texts);
                for rule in &rules {
                    let view = RequestView {
                        host,
                        flat_host: flat,
                        path,
                        query: None,
                        method: &Method::GET,
                        headers: &HeaderMap::new(),
                        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    };
                    prop_assert_eq!(rule.explain(&view).is_none(), rule.matches(&view));
                }
            }
        }
    }
}
