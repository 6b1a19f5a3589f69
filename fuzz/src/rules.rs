//! `rules` and `rules_v2`: the first line is a rule, in the syntax of version 3 or 2, the second a request, further lines
//! are its header fields.

use std::net::{IpAddr, Ipv4Addr};

use doorward::exchange::canonical::canonical_host;
use doorward::exchange::view::RequestView;
use doorward::rule::{HostPattern, IndexHosts, Rule, Syntax, readable_hosts};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Reads a rule of version 3 and asks it about a request, in every way there is.
pub fn run(data: &[u8]) {
    check(data, Syntax::V3);
}

/// The same for one of version 2.
pub fn run_v2(data: &[u8]) {
    check(data, Syntax::V2);
}

fn check(data: &[u8], syntax: Syntax) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (text, request) = text.split_once('\n').unwrap_or((text, "GET a.test /"));
    for host in readable_hosts(text) {
        assert!(!host.is_empty() && host == host.to_ascii_lowercase(), "readable host {host:?}");
    }
    let rule = match Rule::parse_as(text, syntax) {
        Ok(rule) => rule,
        Err(error) => {
            assert!(!error.message.is_empty(), "an error says nothing");
            assert!(text.get(error.offset..error.end).is_some(), "{error:?} is not in {text:?}");
            return;
        }
    };
    assert_eq!(rule.text(), text);
    assert!(Rule::parse_as(rule.text(), syntax).is_ok_and(|again| again == rule));
    for domain in rule.domains() {
        assert!(!domain.is_empty());
        assert_eq!(domain, domain.to_ascii_lowercase());
    }
    ask(&rule, request);
}

fn ask(rule: &Rule, request: &str) {
    let mut lines = request.lines();
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let method = words.next().and_then(|word| word.parse().ok()).unwrap_or(Method::GET);
    let host = canonical_host(words.next().unwrap_or_default());
    let target = words.next().unwrap_or("/");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(value.trim()))
        {
            headers.append(name, value);
        }
    }
    let client_ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let view = RequestView {
        host: &host,
        flat_host: None,
        path,
        query,
        method: &method,
        headers: &headers,
        client_ip,
    };
    let matches = rule.matches(&view);
    match rule.explain(&view) {
        None => assert!(matches, "{rule} does not match and has no explanation"),
        Some(explanation) => {
            assert!(!matches, "{rule} matches, but {explanation:?}");
            assert!(rule.text().get(explanation.range.clone()).is_some(), "{explanation:?}");
            assert!(!explanation.predicate.is_empty(), "{explanation:?}");
        }
    }
    if matches {
        assert!(is_indexed(&rule.index_hosts(), &host), "{rule} matches {host:?} unindexed");
    }
}

/// Whether the host index would have offered the rule for this host.
fn is_indexed(hosts: &IndexHosts<'_>, host: &str) -> bool {
    let IndexHosts::Hosts(patterns) = hosts else { return true };
    patterns.iter().any(|pattern| match *pattern {
        HostPattern::Exact(exact) => exact == host,
        HostPattern::Wildcard("") => !host.contains('.'),
        HostPattern::Wildcard(parent) => {
            host.split_once('.').is_some_and(|(_, behind)| behind == parent)
        }
    })
}
