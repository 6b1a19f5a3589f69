//! Traefik's HTTP matchers: their names, what they take, and what they look at.
//!
//! A new matcher is an entry in `MATCHERS`, an arm in `build` and one in `matches`. Matching does
//! not allocate, except for query values and headers that a regular expression reads decoded.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use http::header::{HOST, HeaderName, TRAILER, TRANSFER_ENCODING};
use ipnet::IpNet;
use regex::Regex;

use super::RuleError;
use super::query;
use crate::exchange::view::RequestView;
use crate::values::go_regex;

/// One matcher with its arguments. Small, because a hundred thousand are held at once.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// ``Host(`*`)``: every request, even one without a host.
    AnyHost,
    /// One host, in lower case and without trailing dot.
    Host(Box<str>),
    /// The labels after the first one, which may be any.
    HostBelow(Box<str>),
    /// A host that no request has: a star that is not a whole label.
    NoHost(Box<str>),
    HostRegexp(Box<Regex>),
    Path(Box<str>),
    PathPrefix(Box<str>),
    PathRegexp(Box<Regex>),
    Method(Box<str>),
    Header(Box<(HeaderName, Box<str>)>),
    HeaderRegexp(Box<(HeaderName, Regex)>),
    /// A header that Go takes out of the header map, or that cannot be sent.
    NoHeader,
    Query(Box<(Box<str>, Box<str>)>),
    QueryRegexp(Box<(Box<str>, Regex)>),
    /// As `QueryRegexp`, of the first value alone (v2).
    QueryFirst(Box<(Box<str>, Regex)>),
    ClientIp(IpNet),
}

/// A string argument and where it stands, quotes included.
pub(super) struct Argument {
    pub(super) value: String,
    pub(super) range: Range<usize>,
    /// Whether the text between the quotes is the value, so that offsets carry over.
    pub(super) verbatim: bool,
}

/// Which matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ClientIp,
    Method,
    Host,
    HostRegexp,
    Path,
    PathRegexp,
    PathPrefix,
    Header,
    HeaderRegexp,
    Query,
    QueryRegexp,
}

/// Every matcher: its name and the numbers of arguments it takes.
const MATCHERS: [(&str, Kind, &[usize]); 11] = [
    ("ClientIP", Kind::ClientIp, &[1]),
    ("Method", Kind::Method, &[1]),
    ("Host", Kind::Host, &[1]),
    ("HostRegexp", Kind::HostRegexp, &[1]),
    ("Path", Kind::Path, &[1]),
    ("PathRegexp", Kind::PathRegexp, &[1]),
    ("PathPrefix", Kind::PathPrefix, &[1]),
    ("Header", Kind::Header, &[2]),
    ("HeaderRegexp", Kind::HeaderRegexp, &[2]),
    ("Query", Kind::Query, &[1, 2]),
    ("QueryRegexp", Kind::QueryRegexp, &[1, 2]),
];

/// Names that mean something elsewhere, and what to write instead.
const ELSEWHERE: [(&str, &str); 7] = [
    ("HostHeader", "did you mean Host?"),
    ("Headers", "did you mean Header?"),
    ("HeadersRegexp", "did you mean HeaderRegexp?"),
    ("PathPrefixStrip", "use PathPrefix and the middleware stripPrefix"),
    ("HostSNI", "HostSNI is for TCP routers, did you mean Host?"),
    ("HostSNIRegexp", "HostSNIRegexp is for TCP routers, did you mean HostRegexp?"),
    ("ALPN", "ALPN is for TCP routers"),
];

/// The matcher of this name in one of its four spellings: canonical, lower, upper and title case.
pub(super) fn named(name: &str) -> Result<Kind, String> {
    let known = || MATCHERS.iter().map(|(known, ..)| *known);
    if let Some((_, kind, _)) = find(name, known())?.and_then(|at| MATCHERS.get(at)) {
        return Ok(*kind);
    }
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(known, _)| same(known)) {
        return Err(format!("unsupported function: {name}; {advice}"));
    }
    Err(nearest(name, known()))
}

/// Which of the `known` names is spelt like this; an error for one in a fifth spelling.
pub(super) fn find<'k>(
    name: &str,
    mut known: impl Iterator<Item = &'k str>,
) -> Result<Option<usize>, String> {
    let lower = |text: &str| !text.bytes().any(|b| b.is_ascii_uppercase());
    let mut canonical = "";
    let same = |known: &'k str| {
        canonical = known;
        known.eq_ignore_ascii_case(name)
    };
    let Some(at) = known.position(same) else { return Ok(None) };
    let upper = !name.bytes().any(|b| b.is_ascii_lowercase());
    let title =
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.get(1..).is_some_and(lower);
    if name == canonical || upper || title || lower(name) {
        return Ok(Some(at));
    }
    Err(format!("unsupported function: {name}; did you mean {canonical}?"))
}

/// The error for a name that is none of those that are `known`.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    let lower_name = name.to_lowercase();
    let nearest = known
        .map(|known| (strsim::damerau_levenshtein(&lower_name, &known.to_lowercase()), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 1 + name.len() / 4);
    match nearest {
        Some((_, known)) => format!("unsupported function: {name}; did you mean {known}?"),
        None => format!("unsupported function: {name}"),
    }
}

/// Checks the arguments and makes the matcher; `call` is where the whole call stands.
pub(super) fn build(
    kind: Kind,
    arguments: Vec<Argument>,
    call: Range<usize>,
) -> Result<Matcher, RuleError> {
    let (name, arity) = MATCHERS
        .iter()
        .find(|(_, known, _)| *known == kind)
        .map_or(("", [].as_slice()), |(name, _, arity)| (*name, *arity));
    if let Some(empty) = arguments.iter().find(|argument| argument.value.is_empty()) {
        return Err(RuleError::new(format!("empty args for matcher {name}"), empty.range.clone()));
    }
    let count = arguments.len();
    if !arity.contains(&count) {
        let message = if count == 0 {
            format!("no args for matcher {name}")
        } else {
            let expected = arity.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("unexpected number of parameters; got {count}, expected one of [{expected}]")
        };
        return Err(RuleError::new(message, call));
    }
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else {
        return Err(RuleError::new(format!("no args for matcher {name}"), call));
    };
    let second = arguments.next();
    Ok(match (kind, second) {
        (Kind::ClientIp, _) => Matcher::ClientIp(network(&first)?),
        (Kind::Method, _) => Matcher::Method(first.value.to_uppercase().into()),
        (Kind::Host, _) => host(&first)?,
        (Kind::HostRegexp, _) => {
            ascii(name, &first)?;
            Matcher::HostRegexp(regexp(name, &first)?.into())
        }
        (Kind::Path, _) => Matcher::Path(absolute(first)?),
        (Kind::PathPrefix, _) => Matcher::PathPrefix(absolute(first)?),
        (Kind::PathRegexp, _) => Matcher::PathRegexp(regexp(name, &first)?.into()),
        (Kind::Header | Kind::HeaderRegexp, None) => Matcher::NoHeader,
        (Kind::Header, Some(value)) => match header_name(&first) {
            Some(header) => Matcher::Header(Box::new((header, value.value.into()))),
            None => Matcher::NoHeader,
        },
        (Kind::HeaderRegexp, Some(value)) => {
            let regexp = regexp(name, &value)?;
            match header_name(&first) {
                Some(header) => Matcher::HeaderRegexp(Box::new((header, regexp))),
                None => Matcher::NoHeader,
            }
        }
        (Kind::Query, value) => {
            let value = value.map(|value| value.value).unwrap_or_default();
            Matcher::Query(Box::new((first.value.into(), value.into())))
        }
        (Kind::QueryRegexp, None) => Matcher::Query(Box::new((first.value.into(), "".into()))),
        (Kind::QueryRegexp, Some(value)) => {
            let regexp = regexp(name, &value)?;
            Matcher::QueryRegexp(Box::new((first.value.into(), regexp)))
        }
    })
}

impl Matcher {
    /// Whether the request has what the matcher asks for.
    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::AnyHost => true,
            Self::Host(host) => any_host(request, |known| known == &**host),
            Self::HostBelow(parent) => any_host(request, |known| host_parent(known) == &**parent),
            Self::NoHost(_) | Self::NoHeader => false,
            Self::HostRegexp(regexp) => {
                regexp.is_match(request.host)
                    || request.flat_host.is_some_and(|host| regexp.is_match(host))
            }
            Self::Path(path) => *request.path == **path,
            Self::PathPrefix(prefix) => request.path.starts_with(&**prefix),
            Self::PathRegexp(regexp) => regexp.is_match(request.path),
            Self::Method(method) => request.method.as_str() == &**method,
            Self::Header(header) => {
                let (name, wanted) = &**header;
                request
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|value| value.as_bytes() == wanted.as_bytes())
            }
            Self::HeaderRegexp(header) => {
                let (name, regexp) = &**header;
                request
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|value| regexp.is_match(&go_text(value.as_bytes())))
            }
            Self::Query(query) => {
                let (key, wanted) = &**query;
                query::values(request.query, key).any(|value| value.equals(wanted))
            }
            Self::QueryRegexp(query) => {
                let (key, regexp) = &**query;
                query::values(request.query, key).any(|value| {
                    value.decode().is_some_and(|value| regexp.is_match(&go_text(&value)))
                })
            }
            Self::QueryFirst(query) => {
                let (key, regexp) = &**query;
                query::values(request.query, key)
                    .find_map(query::Value::decode)
                    .is_some_and(|value| regexp.is_match(&go_text(&value)))
            }
            Self::ClientIp(network) => network.contains(&request.client_ip),
        }
    }
}

/// Whether the host, or what it is an alias of, is as is asked for; a request without a host has none.
fn any_host(request: &RequestView<'_>, is: impl Fn(&str) -> bool) -> bool {
    !request.host.is_empty() && (is(request.host) || request.flat_host.is_some_and(is))
}

/// The labels after the first one; empty for a host of one label.
pub(super) fn host_parent(host: &str) -> &str {
    host.split_once('.').map_or("", |(_, parent)| parent)
}

/// Bytes as Go's regexp reads them: every byte outside UTF-8 is one replacement character.
fn go_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text.into()
}

pub(super) fn ascii(name: &str, argument: &Argument) -> Result<(), RuleError> {
    if argument.value.is_ascii() {
        return Ok(());
    }
    let value = &argument.value;
    let message =
        format!("invalid value {value:?} for {name} matcher, non-ASCII characters are not allowed");
    Err(RuleError::new(message, argument.range.clone()))
}

fn host(argument: &Argument) -> Result<Matcher, RuleError> {
    ascii("Host", argument)?;
    let written = argument.value.to_ascii_lowercase();
    if written == "*" {
        return Ok(Matcher::AnyHost);
    }
    let host = written.strip_suffix('.').unwrap_or(&written);
    if host.is_empty() {
        // As a name it would stand for clients that ask for none.
        let message = format!("invalid value {:?} for Host matcher, no host", argument.value);
        return Err(RuleError::new(message, argument.range.clone()));
    }
    Ok(if host == "*" {
        // `*.` has one label before an empty parent: any host of one label.
        Matcher::HostBelow("".into())
    } else if let Some(parent) = host.strip_prefix("*.") {
        Matcher::HostBelow(parent.into())
    } else if host.starts_with('*') {
        Matcher::NoHost(host.into())
    } else {
        Matcher::Host(host.into())
    })
}

fn absolute(argument: Argument) -> Result<Box<str>, RuleError> {
    if argument.value.starts_with('/') {
        return Ok(argument.value.into());
    }
    let message = format!("path {:?} does not start with a '/'", argument.value);
    Err(RuleError::new(message, argument.range))
}

fn regexp(name: &str, argument: &Argument) -> Result<Regex, RuleError> {
    go_regex::compile(&argument.value).map_err(|error| {
        let mut range = argument.range.clone();
        if argument.verbatim {
            range.start += 1 + error.offset;
        }
        RuleError::new(format!("compiling {name} matcher: {error}"), range)
    })
}

/// The name of a header that can be in Go's header map.
pub(super) fn header_name(argument: &Argument) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(argument.value.as_bytes()).ok()?;
    // Go's server moves these three out of the map before any handler runs.
    (![HOST, TRANSFER_ENCODING, TRAILER].contains(&name)).then_some(name)
}

pub(super) fn network(argument: &Argument) -> Result<IpNet, RuleError> {
    let text = &argument.value;
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => text.parse::<IpNet>().ok().map(|network| unmapped(network.trunc())),
    };
    parsed.ok_or_else(|| {
        let message = format!(
            "initializing IP checker for ClientIP matcher: parsing CIDR trusted IPs: invalid CIDR address: {text}"
        );
        RuleError::new(message, argument.range.clone())
    })
}

/// A network of IPv4-mapped addresses as the IPv4 network it is.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped();
    let v4 = mapped.zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network)
}
