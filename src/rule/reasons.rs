//! Why a rule does not match a request: every part that the request failed, with what it has instead.
//!
//! A rule has a reason exactly when it does not match: both walk the same tree with the same matchers.

use std::ops::Range;

use http::HeaderName;

use super::Rule;
use super::matcher::Matcher;
use super::query;
use super::tree::{Node, Test};
use crate::exchange::view::RequestView;
use crate::values::secret::{is_credential_header, is_secret_parameter};

/// A part of a rule that a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The matcher as it applies: with the negation that it stands under.
    pub predicate: String,
    /// What the request has: a sentence without capital and full stop.
    pub has: String,
    /// Where the matcher stands in the rule's text, without the negation.
    pub range: Range<usize>,
    /// How many matchers held before this one on its way.
    held: usize,
}

impl Rule {
    /// Every matcher that kept the request from matching: the first that failed where all must hold, one for each
    /// alternative where one is enough. What came furthest stands first. Empty if the request matches.
    pub fn reasons(&self, request: &RequestView<'_>) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if !self.root.matches(request) {
            self.collect(&self.root, request, 0, &mut reasons);
            reasons.sort_by_key(|reason| std::cmp::Reverse(reason.held));
        }
        reasons
    }

    /// Adds the reasons of a node that does not match.
    fn collect(&self, node: &Node, request: &RequestView<'_>, held: usize, out: &mut Vec<Reason>) {
        match node {
            Node::Test(test) => out.push(self.reason(test, request, held)),
            Node::All(group) => {
                let failed = group.nodes.iter().position(|node| !node.matches(request));
                if let Some((before, node)) = failed.and_then(|at| Some((at, group.nodes.get(at)?)))
                {
                    self.collect(node, request, held + before, out);
                }
            }
            Node::Any(group) => {
                group.nodes.iter().for_each(|node| self.collect(node, request, held, out));
            }
        }
    }

    fn reason(&self, test: &Test, request: &RequestView<'_>, held: usize) -> Reason {
        let range = test.span.range();
        let call = self.text.get(range.clone()).unwrap_or_default();
        let predicate = if test.negated { format!("!{call}") } else { call.to_owned() };
        Reason { predicate, has: has(&test.matcher, request), range, held }
    }
}

/// What the request has where `matcher` looks.
fn has(matcher: &Matcher, request: &RequestView<'_>) -> String {
    match matcher {
        Matcher::AnyHost
        | Matcher::Host(_)
        | Matcher::HostBelow(_)
        | Matcher::HostRegexp(_)
        | Matcher::NoHost(_)
            if request.host.is_empty() =>
        {
            "the request has no host".to_owned()
        }
        Matcher::NoHost(_) => "no host is matched: a `*` stands for a whole first label".to_owned(),
        Matcher::AnyHost | Matcher::Host(_) | Matcher::HostBelow(_) | Matcher::HostRegexp(_) => {
            format!("the host is `{}`", request.host)
        }
        Matcher::Path(_) | Matcher::PathPrefix(_) | Matcher::PathRegexp(_) => {
            format!("the path is `{}`", request.path)
        }
        Matcher::Method(_) => format!("the method is {}", request.method),
        Matcher::Header(header) => has_header(&header.0, request),
        Matcher::HeaderRegexp(header) => has_header(&header.0, request),
        Matcher::NoHeader => "rules cannot see this header".to_owned(),
        Matcher::Query(query) => has_query(&query.0, request),
        Matcher::QueryRegexp(query) | Matcher::QueryFirst(query) => has_query(&query.0, request),
        Matcher::ClientIp(_) => format!("the client is {}", request.client_ip),
    }
}

fn has_header(name: &HeaderName, request: &RequestView<'_>) -> String {
    let mut values = request.headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return format!("there is no header `{name}`");
    }
    if is_credential_header(name.as_str()) {
        return format!("the header `{name}` has another value");
    }
    let values: Vec<_> =
        values.map(|value| format!("`{}`", String::from_utf8_lossy(value.as_bytes()))).collect();
    format!("the header `{name}` is {}", values.join(", "))
}

fn has_query(key: &str, request: &RequestView<'_>) -> String {
    let values: Vec<_> = query::values(request.query, key)
        .filter_map(query::Value::decode)
        .map(|value| format!("`{}`", String::from_utf8_lossy(&value)))
        .collect();
    if values.is_empty() {
        return format!("the query has no `{key}`");
    }
    if is_secret_parameter(key) {
        return format!("`{key}` of the query has another value");
    }
    format!("`{key}` in the query is {}", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Request;
    use super::*;

    fn reasons(text: &str, host: &'static str, path: &'static str) -> Vec<String> {
        let rule = Rule::parse(text).unwrap();
        let request = Request::to(host, path);
        let reasons = rule.reasons(&request.view());
        assert_eq!(reasons.is_empty(), rule.matches(&request.view()), "{text}");
        reasons.into_iter().map(|reason| format!("{}: {}", reason.predicate, reason.has)).collect()
    }

    #[test]
    fn where_all_must_hold_the_first_that_failed_is_named() {
        let rule = "Host(`a.test`) && PathPrefix(`/api`) && Method(`POST`)";
        assert_eq!(reasons(rule, "b.test", "/x"), ["Host(`a.test`): the host is `b.test`"]);
        assert_eq!(reasons(rule, "a.test", "/x"), ["PathPrefix(`/api`): the path is `/x`"]);
        assert_eq!(reasons(rule, "a.test", "/api"), ["Method(`POST`): the method is GET"]);
        assert!(reasons("Host(`a.test`)", "a.test", "/").is_empty());
    }

    #[test]
    fn of_alternatives_each_is_named_and_the_nearest_stands_first() {
        let rule = "Host(`b.test`) || (Host(`a.test`) && Path(`/x`)) || !PathPrefix(`/`)";
        assert_eq!(
            reasons(rule, "a.test", "/y"),
            [
                "Path(`/x`): the path is `/y`",
                "Host(`b.test`): the host is `a.test`",
                "!PathPrefix(`/`): the path is `/y`",
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_said_so() {
        assert_eq!(reasons("Host(`a`)", "", "/"), ["Host(`a`): the request has no host"]);
        let header = "Header(`X-A`, `1`) || Query(`q`, `1`) || HeaderRegexp(`Host`, `a`)";
        assert_eq!(
            reasons(header, "a.test", "/"),
            [
                "Header(`X-A`, `1`): there is no header `x-a`",
                "Query(`q`, `1`): the query has no `q`",
                "HeaderRegexp(`Host`, `a`): rules cannot see this header",
            ]
        );
        let away = "!(Host(`a.test`) || ClientIP(`10.0.0.0/8`))";
        assert_eq!(reasons(away, "a.test", "/"), ["!Host(`a.test`): the host is `a.test`"]);
    }
}
