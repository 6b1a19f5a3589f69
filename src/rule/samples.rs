//! Requests that a rule is about: one for each way through it, and those just behind its negations.
//!
//! Who compares two tables tries these. They need not match: another part of the rule may be against it.

use std::net::IpAddr;

use http::HeaderName;

use super::Rule;
use super::matcher::Matcher;
use super::sample_text::example;
use super::tree::{Node, Test};

/// No rule has more samples.
const MOST: usize = 4096;

/// What a request has that takes one way through a rule. What is not there may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Host, in lower case.
    pub host: Option<String>,
    /// Path, as rules see it.
    pub path: Option<String>,
    /// Whether paths that begin with `path` take the same way.
    pub is_prefix: bool,
    /// Method.
    pub method: Option<String>,
    /// Headers.
    pub headers: Vec<(HeaderName, String)>,
    /// Parameters of the query, decoded.
    pub query: Vec<(String, String)>,
    /// Address of the client.
    pub client_ip: Option<IpAddr>,
    /// Whether a regular expression stands on the way that no example could be made for.
    pub is_incomplete: bool,
}

impl Rule {
    /// See the module.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = of_node(&self.root);
        let mut seen = std::collections::HashSet::new();
        samples.retain(|sample| seen.insert(sample.clone()));
        samples
    }
}

fn of_node(node: &Node) -> Vec<Sample> {
    match node {
        // What a negation keeps out is sampled beside what it lets in.
        Node::Test(test) if test.negated => vec![Sample::default(), of_test(test)],
        Node::Test(test) => vec![of_test(test)],
        Node::Any(group) => group.nodes.iter().flat_map(of_node).take(MOST).collect(),
        Node::All(group) => {
            group.nodes.iter().map(of_node).fold(vec![Sample::default()], |ways, next| {
                let both = |way: Sample| next.iter().map(move |one| way.clone().and(one));
                ways.into_iter().flat_map(both).take(MOST).collect()
            })
        }
    }
}

impl Sample {
    /// Both; where they contradict each other, what `self` says.
    fn and(mut self, other: &Self) -> Self {
        if self.path.is_none() || self.is_narrowed_by(other) {
            self.path.clone_from(&other.path);
            self.is_prefix = other.is_prefix;
        }
        self.host = self.host.or_else(|| other.host.clone());
        self.method = self.method.or_else(|| other.method.clone());
        self.client_ip = self.client_ip.or(other.client_ip);
        self.headers.extend(other.headers.iter().cloned());
        self.query.extend(other.query.iter().cloned());
        self.is_incomplete |= other.is_incomplete;
        self
    }

    fn is_narrowed_by(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (&self.path, &other.path) else { return false };
        self.is_prefix && others.starts_with(&**own)
    }
}

fn of_test(test: &Test) -> Sample {
    let mut sample = Sample::default();
    let mut made = |text: Option<String>| {
        sample.is_incomplete |= text.is_none();
        text
    };
    match &test.matcher {
        Matcher::AnyHost | Matcher::NoHost(_) | Matcher::NoHeader => {}
        Matcher::Host(host) => sample.host = Some((**host).to_owned()),
        Matcher::HostBelow(parent) if parent.is_empty() => sample.host = Some("any".to_owned()),
        Matcher::HostBelow(parent) => sample.host = Some(format!("any.{parent}")),
        Matcher::HostRegexp(regex) => {
            let host = made(example(regex));
            sample.host = host;
        }
        Matcher::Path(path) => sample.path = Some((**path).to_owned()),
        Matcher::PathPrefix(prefix) => {
            sample.path = Some((**prefix).to_owned());
            sample.is_prefix = true;
        }
        Matcher::PathRegexp(regex) => {
            let path = made(example(regex));
            // A pattern without an anchor matches in the middle of a path.
            sample.path =
                path.map(|path| if path.starts_with('/') { path } else { format!("/{path}") });
        }
        Matcher::Method(method) => sample.method = Some((**method).to_owned()),
        Matcher::Header(header) => sample.headers.push((header.0.clone(), (*header.1).to_owned())),
        Matcher::HeaderRegexp(header) => {
            let value = made(example(&header.1));
            sample.headers.extend(value.map(|value| (header.0.clone(), value)));
        }
        Matcher::Query(query) => sample.query.push(((*query.0).to_owned(), (*query.1).to_owned())),
        Matcher::QueryRegexp(query) | Matcher::QueryFirst(query) => {
            let value = made(example(&query.1));
            sample.query.extend(value.map(|value| ((*query.0).to_owned(), value)));
        }
        Matcher::ClientIp(network) => sample.client_ip = Some(network.addr()),
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let samples = Rule::parse(text).unwrap().samples();
        let place = |sample: &Sample| {
            let method = sample.method.as_deref().unwrap_or("*");
            let (host, path) = (sample.host.as_deref(), sample.path.as_deref());
            let more = if sample.is_prefix { ".." } else { "" };
            format!("{method} {}{}{more}", host.unwrap_or("*"), path.unwrap_or(""))
        };
        samples.iter().map(place).collect()
    }

    #[test]
    fn every_way_has_a_sample() {
        assert_eq!(
            places("(Host(`a.test`) || Host(`*.b.test`)) && (Path(`/x`) || PathPrefix(`/y`))"),
            ["* a.test/x", "* a.test/y..", "* any.b.test/x", "* any.b.test/y.."]
        );
        assert_eq!(places("HostRegexp(`^[a-z]+\\.test$`) && Method(`post`)"), ["POST a.test"]);
        assert_eq!(places("PathPrefix(`/a`) && Path(`/a/b`)"), ["* */a/b"]);
    }

    #[test]
    fn a_negation_has_both_sides() {
        assert_eq!(places("Host(`a`) && !PathPrefix(`/x`)"), ["* a", "* a/x.."]);
    }

    #[test]
    fn rules_match_their_samples() {
        let rule = Rule::parse(
            "Header(`X-A`, `1`) && Query(`q`, `2`) && ClientIP(`10.0.0.0/8`) && PathRegexp(`\\.js$`)",
        );
        let samples = rule.unwrap().samples();
        assert_eq!(samples.len(), 1);
        let sample = &samples[0];
        assert_eq!(sample.headers, [(HeaderName::from_static("x-a"), "1".to_owned())]);
        assert_eq!(sample.query, [("q".to_owned(), "2".to_owned())]);
        assert_eq!(sample.client_ip, Some("10.0.0.0".parse().unwrap()));
        assert_eq!(sample.path.as_deref(), Some("/.js"));
        assert!(!sample.is_incomplete);
    }

    #[test]
    fn the_number_of_ways_has_a_bound() {
        let pair = "(Path(`/a`) || Path(`/b`))";
        let text = vec![pair; 40].join(" && ");
        assert!(Rule::parse(&text).unwrap().samples().len() <= MOST);
    }
}
