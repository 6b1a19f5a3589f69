//! Texts as they may be printed: without credentials in URLs, rules and examples.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::service::without_credentials;
use crate::values::secret::is_secret_name;

/// Matchers whose first argument is a name, and whose others are its value.
const NAMED: [&str; 6] =
    ["Header", "HeaderRegexp", "Headers", "HeadersRegexp", "Query", "QueryRegexp"];
/// What stands in the place of a value.
pub(super) const HIDDEN: &str = "(hidden)";

/// The value of an option. A URL may have credentials before its host and in its query.
pub(super) fn value(text: &str) -> Cow<'_, str> {
    let is_url = text.starts_with('/') || text.contains("://");
    match text.split_once('?').filter(|_| is_url) {
        Some((before, query)) => {
            let before = without_credentials(before);
            format!("{before}?{}", parameters(query, |_| true)).into()
        }
        None => without_credentials(text),
    }
}

/// A URL of an example, where only what is named like a secret is hidden.
pub(super) fn url(text: &str) -> Cow<'_, str> {
    match text.split_once('?') {
        Some((before, query)) => format!("{before}?{}", parameters(query, is_secret_name)).into(),
        None => text.into(),
    }
}

fn parameters(query: &str, is_hidden: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(query.len());
    for (number, parameter) in query.split('&').enumerate() {
        if number > 0 {
            out.push('&');
        }
        match parameter.split_once('=') {
            Some((name, _)) if is_hidden(name) => {
                let _ = write!(out, "{name}={HIDDEN}");
            }
            _ => out.push_str(parameter),
        }
    }
    out
}

/// A rule, without the values of headers and parameters that are named like secrets.
pub(super) fn rule(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut call, mut name) = (String::new(), None::<bool>);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
        out.push(next);
        match next {
            '`' | '"' | '\'' => {
                let end = end_of_quoted(rest, next);
                let (argument, after) = rest.split_at(end);
                out.push_str(&shown(argument, &call, &mut name));
                rest = after;
                let closing = rest.chars().next().map_or(0, char::len_utf8);
                let (quote, after) = rest.split_at(closing);
                out.push_str(quote);
                rest = after;
            }
            // The name of the matcher stays until its arguments are over.
            '(' => name = None,
            ')' => (call, name) = (String::new(), None),
            other if other.is_ascii_alphanumeric() => call.push(other),
            ',' => {}
            other if other.is_whitespace() => {}
            _ => call.clear(),
        }
    }
    out
}

/// Where the quoted text ends that begins here.
fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if letter == quote && !escaped {
            return at;
        }
        escaped = quote == '"' && letter == '\\' && !escaped;
    }
    text.len()
}

/// One argument of the matcher `call`; `name` says whether the first one was the name of a secret.
fn shown(argument: &str, call: &str, name: &mut Option<bool>) -> String {
    if !NAMED.iter().any(|one| one.eq_ignore_ascii_case(call)) {
        return argument.to_owned();
    }
    match *name {
        None => {
            // The syntax of version 2 has parameters of a query in one piece.
            let (before, value) = argument
                .split_once('=')
                .map_or((argument, None), |(before, value)| (before, Some(value)));
            let is_secret = is_secret_name(before);
            *name = Some(is_secret);
            match value {
                Some(_) if is_secret => format!("{before}={HIDDEN}"),
                _ => argument.to_owned(),
            }
        }
        Some(true) => HIDDEN.to_owned(),
        Some(false) => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_texts() {
        for (text, expected) in [
            ("http://u:p@a/x?key=1&b", "http://a/x?key=(hidden)&b"),
            ("/health?who=me", "/health?who=(hidden)"),
            ("^/a?b=c", "^/a?b=c"),
        ] {
            assert_eq!(value(text), expected);
        }
        assert_eq!(url("http://a/?page=1&token=x"), "http://a/?page=1&token=(hidden)");
        for (text, expected) in [
            ("Host(`a`) && Header(`X-Token`, `x`)", "Host(`a`) && Header(`X-Token`, `(hidden)`)"),
            ("!Header(`X-Tenant`,`x`) || Path(`/(`)", "!Header(`X-Tenant`,`x`) || Path(`/(`)"),
            (
                r#"HeaderRegexp("x-api-key", "a\"b") && Query(`token`, `y`)"#,
                r#"HeaderRegexp("x-api-key", "(hidden)") && Query(`token`, `(hidden)`)"#,
            ),
            ("Query(`token=x`, `page=1`)", "Query(`token=(hidden)`, `(hidden)`)"),
            ("Header(`Cookie`, `broken", "Header(`Cookie`, `(hidden)"),
        ] {
            assert_eq!(rule(text), expected);
        }
    }
}
