//! The matchers of Traefik v2, for rules whose syntax says so. Traefik calls them deprecated.
//!
//! A call becomes matchers of v3: several arguments are alternatives, or conditions where they come
//! in pairs, and gorilla's templates (`/{id:[0-9]+}`) become regular expressions.

use std::ops::Range;

use regex::Regex;

use super::RuleError;
use super::matcher::{Argument, Matcher, ascii, find, header_name, nearest, network};
use super::parser::group;
use super::tree::{Node, Span, Test};
use crate::values::go_regex;

/// Which matcher.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    ClientIp,
    Method,
    Host,
    HostRegexp,
    Path,
    PathPrefix,
    Headers,
    HeadersRegexp,
    Query,
}

const MATCHERS: [(&str, Kind); 10] = [
    ("ClientIP", Kind::ClientIp),
    ("Method", Kind::Method),
    ("Host", Kind::Host),
    ("HostHeader", Kind::Host),
    ("HostRegexp", Kind::HostRegexp),
    ("Path", Kind::Path),
    ("PathPrefix", Kind::PathPrefix),
    ("Headers", Kind::Headers),
    ("HeadersRegexp", Kind::HeadersRegexp),
    ("Query", Kind::Query),
];

/// The matcher of this name in one of its four spellings.
pub(super) fn named(name: &str) -> Result<(&'static str, Kind), String> {
    let known = || MATCHERS.iter().map(|(known, _)| *known);
    match find(name, known())?.and_then(|at| MATCHERS.get(at)) {
        Some(found) => Ok(*found),
        None => Err(nearest(name, known())),
    }
}

/// Checks the arguments and makes what the call asks for; `call` is where it stands.
pub(super) fn build(
    (name, kind): (&str, Kind),
    arguments: &[Argument],
    call: Range<usize>,
    negated: bool,
) -> Result<Node, RuleError> {
    if let Some(empty) = arguments.iter().find(|argument| argument.value.is_empty()) {
        return Err(RuleError::new(format!("empty args for matcher {name}"), empty.range.clone()));
    }
    if arguments.is_empty() {
        return Err(RuleError::new(format!("no args for matcher {name}"), call));
    }
    let each = |make: fn(&Argument) -> Result<Matcher, RuleError>| {
        arguments.iter().map(make).collect::<Result<Vec<_>, _>>()
    };
    let (matchers, all) = match kind {
        Kind::ClientIp => (each(|one| network(one).map(Matcher::ClientIp))?, false),
        Kind::Method => (each(|one| Ok(Matcher::Method(one.value.to_uppercase().into())))?, false),
        Kind::Host => (each(host)?, false),
        Kind::HostRegexp => (each(host_regexp)?, false),
        Kind::Path => (each(|one| path(one, false))?, false),
        Kind::PathPrefix => (each(|one| path(one, true))?, false),
        Kind::Headers | Kind::HeadersRegexp => {
            let regexp = matches!(kind, Kind::HeadersRegexp);
            (pairs(arguments, &call, |name, value| header(name, value, regexp))?, true)
        }
        Kind::Query => (queries(arguments, &call)?, true),
    };
    let test = |matcher| Node::Test(Test { matcher, span: Span::new(call.clone()), negated });
    let mut nodes: Vec<Node> = matchers.into_iter().map(test).collect();
    match nodes.pop() {
        Some(only) if nodes.is_empty() => Ok(only),
        last => {
            nodes.extend(last);
            Ok(group(all != negated, nodes, negated, call))
        }
    }
}

fn odd(call: &Range<usize>) -> RuleError {
    RuleError::new("mux: number of parameters must be multiple of 2", call.clone())
}

fn pairs(
    arguments: &[Argument],
    call: &Range<usize>,
    make: impl Fn(&Argument, &Argument) -> Result<Matcher, RuleError>,
) -> Result<Vec<Matcher>, RuleError> {
    let pair = |pair: &[Argument]| match pair {
        [name, value] => make(name, value),
        _ => Err(odd(call)),
    };
    arguments.chunks(2).map(pair).collect()
}

fn host(argument: &Argument) -> Result<Matcher, RuleError> {
    ascii("\"Host\"", argument)?;
    let written = argument.value.to_ascii_lowercase();
    let host = written.strip_suffix('.').unwrap_or(&written);
    // v2 knows no wildcards, and no request has a host with a star; a lone dot names none.
    Ok(if host.is_empty() || host.contains('*') {
        Matcher::NoHost(host.into())
    } else {
        Matcher::Host(host.into())
    })
}

fn host_regexp(argument: &Argument) -> Result<Matcher, RuleError> {
    ascii("HostRegexp", argument)?;
    let pattern = template(argument, &argument.value, "[^.]+")?;
    let pattern = format!("(?i)^{}$", pattern.unwrap_or_else(|| quoted(&argument.value)));
    Ok(Matcher::HostRegexp(compile(argument, &pattern)?.into()))
}

fn path(argument: &Argument, prefix: bool) -> Result<Matcher, RuleError> {
    let text = &argument.value;
    if !text.starts_with('/') {
        let message = format!("mux: path must start with a slash, got {text:?}");
        return Err(RuleError::new(message, argument.range.clone()));
    }
    Ok(match template(argument, text, "[^/]+")? {
        Some(pattern) => {
            let end = if prefix { "" } else { "$" };
            Matcher::PathRegexp(compile(argument, &format!("^{pattern}{end}"))?.into())
        }
        None if prefix => Matcher::PathPrefix(text.as_str().into()),
        None => Matcher::Path(text.as_str().into()),
    })
}

fn header(name: &Argument, value: &Argument, regexp: bool) -> Result<Matcher, RuleError> {
    let regexp = if regexp { Some(compile(value, &value.value)?) } else { None };
    Ok(match (header_name(name), regexp) {
        (None, _) => Matcher::NoHeader,
        (Some(name), Some(regexp)) => Matcher::HeaderRegexp(Box::new((name, regexp))),
        (Some(name), None) => Matcher::Header(Box::new((name, value.value.as_str().into()))),
    })
}

/// `key=value` each, or one after the other: gorilla is given all parts in a row.
fn queries(arguments: &[Argument], call: &Range<usize>) -> Result<Vec<Matcher>, RuleError> {
    let parts = |argument| {
        let Argument { value, .. }: &Argument = argument;
        let (key, value) = value.split_once('=').map_or((&**value, None), |(k, v)| (k, Some(v)));
        std::iter::once(key).chain(value).map(move |part| (argument, part))
    };
    let parts: Vec<(&Argument, &str)> = arguments.iter().flat_map(parts).collect();
    let query = |pair: &[(&Argument, &str)]| {
        let [(_, key), (argument, value)] = pair else { return Err(odd(call)) };
        let mut pattern = template(argument, value, ".*")?.unwrap_or_else(|| quoted(value));
        if value.is_empty() {
            pattern.push_str(".*");
        }
        let regexp = compile(argument, &format!("^{pattern}$"))?;
        Ok(Matcher::QueryFirst(Box::new(((*key).into(), regexp))))
    };
    parts.chunks(2).map(query).collect()
}

/// The regular expression of a template, `None` for one without variables. `any` is what a
/// variable without a pattern stands for.
fn template(argument: &Argument, text: &str, any: &str) -> Result<Option<String>, RuleError> {
    let wrong = |what: &str, part: &str| {
        RuleError::new(format!("mux: {what} in {part:?}"), argument.range.clone())
    };
    let mut pattern = String::with_capacity(text.len() + 8);
    let (mut level, mut done, mut start, mut found) = (0_u32, 0, 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => {
                if level == 0 {
                    start = at;
                }
                level += 1;
            }
            b'}' => {
                level = level.checked_sub(1).ok_or_else(|| wrong("unbalanced braces", text))?;
                if level > 0 {
                    continue;
                }
                let variable = text.get(start + 1..at).unwrap_or_default();
                let (name, inner) = variable.split_once(':').unwrap_or((variable, any));
                if name.is_empty() || inner.is_empty() {
                    return Err(wrong("missing name or pattern", &format!("{{{variable}}}")));
                }
                // By itself first, so that no parenthesis reaches beyond the variable.
                compile(argument, &format!("^{inner}$"))?;
                pattern.push_str(&quoted(text.get(done..start).unwrap_or_default()));
                for part in ["(?:", inner, ")"] {
                    pattern.push_str(part);
                }
                (done, found) = (at + 1, true);
            }
            _ => {}
        }
    }
    if level > 0 {
        return Err(wrong("unbalanced braces", text));
    }
    pattern.push_str(&quoted(text.get(done..).unwrap_or_default()));
    Ok(found.then_some(pattern))
}

/// A pattern that matches just this text.
fn quoted(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn compile(argument: &Argument, pattern: &str) -> Result<Regex, RuleError> {
    go_regex::compile(pattern)
        .map_err(|error| RuleError::new(error.to_string(), argument.range.clone()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, HeaderName, Method};

    use crate::exchange::view::RequestView;
    use crate::rule::{HostPattern, IndexHosts, Rule, Syntax};

    fn rule(text: &str) -> Rule {
        Rule::parse_as(text, Syntax::V2).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Whether a rule matches a GET of `host/path?query` from 10.0.0.7 with `X-App: one`.
    fn matches(text: &str, url: &str) -> bool {
        let (host, rest) = url.split_at(url.find('/').unwrap_or(url.len()));
        let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-app"), "one".parse().unwrap());
        rule(text).matches(&RequestView {
            host,
            flat_host: None,
            path,
            query,
            method: &Method::GET,
            headers: &headers,
            client_ip: IpAddr::from([10, 0, 0, 7]),
        })
    }

    /// RP-3.4
    #[test]
    fn several_arguments_are_alternatives() {
        for (text, url, want) in [
            ("Host(`a.test`, `B.test.`)", "b.test/", true),
            ("Host(`a.test`, `b.test`)", "c.test/", false),
            ("HostHeader(`a.test`)", "a.test/", true),
            ("!Host(`a.test`, `b.test`)", "b.test/", false),
            ("!Host(`a.test`, `b.test`)", "c.test/", true),
            ("Host(`*.test`)", "a.test/", false),
            ("Path(`/a`, `/b`)", "x/b", true),
            ("Path(`/a`, `/b`)", "x/b/c", false),
            ("PathPrefix(`/a`, `/b`)", "x/bc", true),
            ("Method(`POST`, `get`)", "x/", true),
            ("Method(`POST`, `PUT`)", "x/", false),
            ("ClientIP(`::1`, `10.0.0.0/8`)", "x/", true),
            ("ClientIP(`::1`, `192.168.0.1`)", "x/", false),
            ("hostheader(`a.test`) && PATHPREFIX(`/x`)", "a.test/x", true),
        ] {
            assert_eq!(matches(text, url), want, "{text} {url}");
        }
    }

    /// RP-3.4
    #[test]
    fn templates_are_regular_expressions() {
        for (text, url, want) in [
            ("HostRegexp(`{sub:[a-z]+}.test`)", "ab.test/", true),
            ("HostRegexp(`{sub:[a-z]+}.test`)", "a1.test/", false),
            ("HostRegexp(`{sub:[a-z]+}.test`)", "ab.testing/", false),
            ("HostRegexp(`{sub:[A-Z]+}.TEST`)", "ab.test/", true),
            ("HostRegexp(`{sub}.test`)", "a.test/", true),
            ("HostRegexp(`{sub}.test`)", "a.b.test/", false),
            ("HostRegexp(`{any:.+}`)", "a.b.test/", true),
            ("HostRegexp(`a.test`, `b.test`)", "b.test/", true),
            ("HostRegexp(`a.test`)", "aXtest/", false),
            ("HostRegexp(`(a.test`)", "a.test/", false),
            ("HostRegexp(`{d:[a-zA-Z-]+\\.com}`)", "example.com/", true),
            ("Path(`/p/{id:[0-9]+}`)", "x/p/42", true),
            ("Path(`/p/{id:[0-9]+}`)", "x/p/42/y", false),
            ("Path(`/p/{id}`)", "x/p/a.b", true),
            ("Path(`/p/{id}`)", "x/p/a/b", false),
            ("Path(`/css{path:(/.*)?}`)", "x/css/a/b", true),
            ("Path(`/{n:[0-9]{2}}`)", "x/12", true),
            ("Path(`/{n:[0-9]{2}}`)", "x/123", false),
            ("Path(`/a|b{n:c|d}`)", "x/a|bd", true),
            ("Path(`/a.b`)", "x/aXb", false),
            ("PathPrefix(`/css-{name:[0-9]?}`)", "x/css-1/more", true),
            ("PathPrefix(`/{lang:(de|fr)}/`)", "x/fr/app", true),
            ("PathPrefix(`/{lang:(de|fr)}/`)", "x/en/app", false),
        ] {
            assert_eq!(matches(text, url), want, "{text} {url}");
        }
    }

    /// RP-3.4
    #[test]
    fn pairs_are_conditions() {
        for (text, url, want) in [
            ("Headers(`x-app`, `one`)", "x/", true),
            ("Headers(`X-App`, `two`)", "x/", false),
            ("Headers(`X-App`, `one`, `X-Other`, `1`)", "x/", false),
            ("!Headers(`X-App`, `one`, `X-Other`, `1`)", "x/", true),
            ("HeadersRegexp(`X-App`, `^o`)", "x/", true),
            ("HeadersRegexp(`X-App`, `^t`)", "x/", false),
            ("Query(`a=1`)", "x/?a=1", true),
            ("Query(`a=1`)", "x/?a=2&a=1", false),
            ("Query(`a=1`)", "x/?b=1", false),
            ("Query(`a=1`, `b=2`)", "x/?b=2&a=1", true),
            ("Query(`a=1`, `b=2`)", "x/?a=1", false),
            ("!Query(`a=1`, `b=2`)", "x/?a=1", true),
            ("Query(`a`, `1`)", "x/?a=1", true),
            ("Query(`a=`)", "x/?a=what", true),
            ("Query(`a=`)", "x/?b", false),
            ("Query(`a={n:[0-9]+}`)", "x/?a=12", true),
            ("Query(`a={n:[0-9]+}`)", "x/?a=1b", false),
            ("Query(`a=x=y`)", "x/?a=x=y", true),
            ("Query(`a=b c`)", "x/?a=b+c", true),
        ] {
            assert_eq!(matches(text, url), want, "{text} {url}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_at_its_place() {
        for (text, message) in [
            ("Host()", "no args for matcher Host"),
            ("Host(`a`, ``)", "empty args for matcher Host"),
            ("Host(`ä.test`)", "invalid value \"ä.test\" for \"Host\" matcher"),
            ("HostRegexp(`ä.test`)", "non-ASCII"),
            ("HostRegexp(`{a.test`)", "mux: unbalanced braces in \"{a.test\""),
            ("HostRegexp(`a}.test`)", "mux: unbalanced braces"),
            ("HostRegexp(`{:x}.test`)", "mux: missing name or pattern in \"{:x}\""),
            ("Path(`/{x:}`)", "mux: missing name or pattern"),
            ("Path(`/{x:a)|(b}`)", "error parsing regexp"),
            ("Path(`css`)", "mux: path must start with a slash, got \"css\""),
            ("Headers(`X-App`)", "multiple of 2"),
            ("Headers(`a`, `b`, `c`)", "multiple of 2"),
            ("HeadersRegexp(`a`, `(b`)", "error parsing regexp"),
            ("Query(`a`)", "multiple of 2"),
            ("ClientIP(`1`)", "invalid CIDR address"),
            ("PathRegexp(`^/x`)", "unsupported function: PathRegexp"),
            ("hostHeader(`a`)", "did you mean HostHeader?"),
        ] {
            let error = Rule::parse_as(text, Syntax::V2).unwrap_err();
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert!(error.end > error.offset && error.end <= text.len(), "{text}");
        }
        assert!(Rule::parse("HostHeader(`a`)").is_err(), "v3 does not know it");
    }

    #[test]
    fn hosts_are_found_by_the_index() {
        let text = rule("Host(`a.test`, `b.test`) && Path(`/x`)");
        let IndexHosts::Hosts(hosts) = text.index_hosts() else { panic!("{text:?}") };
        assert_eq!(hosts[..], [HostPattern::Exact("a.test"), HostPattern::Exact("b.test")]);
        assert_eq!(text.domains(), ["a.test", "b.test"]);
        assert_eq!(rule("HostRegexp(`a.test`)").index_hosts(), IndexHosts::Any);
    }
}
