//! Rules as they may be printed: a value that is compared with a credential is one. The text may be of either syntax, and
//! wrong.

use crate::values::secret::{HIDDEN, is_secret_name, is_secret_parameter};

/// Matchers whose first argument is a name, and whose others are its value.
const NAMED: [&str; 6] =
    ["Header", "HeaderRegexp", "Headers", "HeadersRegexp", "Query", "QueryRegexp"];

/// The text of a rule, or of a part of one, without the values of headers and parameters that are named like secrets.
pub fn without_secrets(text: &str) -> String {
    masked(text, HIDDEN, is_secret_name)
}

/// The text of a rule, or of a part of one, with `mask` in the place of the values of headers that carry credentials and
/// of those parameters of the query that are named like secrets, or that `is_secret` names.
pub fn masked(text: &str, mask: &str, is_secret: impl Fn(&str) -> bool) -> String {
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
                let is_query = is_of_query(&call);
                let is_secret =
                    |name: &str| is_secret_of(&call, name) || is_query && is_secret(name);
                out.push_str(&shown(argument, &call, mask, &mut name, is_secret));
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

/// Whether a text ends with the first argument of a matcher, and this argument is the name of a secret: what follows must
/// not be shown. Quotes may be of any kind, and escaped.
pub fn compares_secret(text: &str) -> bool {
    // Only the nearest, because the whole of a long line is asked about for every comma of it.
    let nearest = text.rfind(['(', ',']).and_then(|at| text.split_at_checked(at));
    nearest.is_some_and(|(before, argument)| {
        let is_around = |one: char| !one.is_ascii_alphanumeric();
        let call = before.rsplit(is_around).next().unwrap_or_default();
        argument.starts_with('(')
            && is_named(call)
            && is_secret_of(call, argument.trim_matches(is_around))
    })
}

/// Whether what the matcher `call` compares this name with must not be shown.
fn is_secret_of(call: &str, name: &str) -> bool {
    if is_of_query(call) { is_secret_parameter(name) } else { is_secret_name(name) }
}

fn is_of_query(call: &str) -> bool {
    call.to_ascii_lowercase().starts_with("query")
}

/// Whether this is one of the matchers whose first argument is a name.
fn is_named(call: &str) -> bool {
    NAMED.iter().any(|one| one.eq_ignore_ascii_case(call))
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
fn shown(
    argument: &str,
    call: &str,
    mask: &str,
    name: &mut Option<bool>,
    is_secret: impl Fn(&str) -> bool,
) -> String {
    if !is_named(call) {
        return argument.to_owned();
    }
    match *name {
        None => {
            // The syntax of version 2 has parameters of a query in one piece.
            let (before, value) = argument
                .split_once('=')
                .map_or((argument, None), |(before, value)| (before, Some(value)));
            let hidden = is_secret(before);
            *name = Some(hidden);
            match value {
                Some(_) if hidden => format!("{before}={mask}"),
                _ => argument.to_owned(),
            }
        }
        Some(true) => mask.to_owned(),
        Some(false) => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_credentials_are_not_shown() {
        for (text, expected) in [
            ("Host(`a`) && Header(`X-Token`, `x`)", "Host(`a`) && Header(`X-Token`, `(hidden)`)"),
            ("!Header(`X-Tenant`,`x`) || Path(`/(`)", "!Header(`X-Tenant`,`x`) || Path(`/(`)"),
            (
                r#"HeaderRegexp("x-api-key", "a\"b") && Query(`token`, `y`)"#,
                r#"HeaderRegexp("x-api-key", "(hidden)") && Query(`token`, `(hidden)`)"#,
            ),
            ("Query(`token=x`, `page=1`)", "Query(`token=(hidden)`, `(hidden)`)"),
            ("Header(`Cookie`, `broken", "Header(`Cookie`, `(hidden)"),
            (
                "Query(`sig`, `y`) && Query(`design`, `z`)",
                "Query(`sig`, `(hidden)`) && Query(`design`, `z`)",
            ),
            ("Header(`Sig`, `y`)", "Header(`Sig`, `y`)"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn the_name_that_a_text_ends_with_is_judged() {
        for text in ["Header(`X-Token`", "Path(`a,b`) && Query( \\\"sid\\\" ", "HEADERS('Cookie'"] {
            assert!(compares_secret(text), "{text}");
        }
        for text in
            ["", "Header(`X-Tenant`", "Header(`X-Token`,`a`", "Host(`token`", "token", "(token"]
        {
            assert!(!compares_secret(text), "{text}");
        }
    }

    /// Every comma of a line is asked about. Were the line gone over for each, this would take minutes.
    #[test]
    fn a_long_text_is_not_gone_over_for_every_comma() {
        let text = "a,".repeat(500_000);
        assert!(!text.match_indices(',').any(|(at, _)| compares_secret(&text[..at])));
    }
}
