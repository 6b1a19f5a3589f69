//! Template functions with regular expressions, which are Go's. What sprig lets panic is an error of the template.

use gtmpl_ng::{Func, Value};
use regex::{NoExpand, Regex};

use super::functions::{Outcome, check_length, error, int, take, text};
use crate::values::go_regex;

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("regexMatch", matches),
    ("mustRegexMatch", matches),
    ("regexFind", find),
    ("mustRegexFind", find),
    ("regexFindAll", find_all),
    ("mustRegexFindAll", find_all),
    ("regexReplaceAll", replace_all),
    ("mustRegexReplaceAll", replace_all),
    ("regexReplaceAllLiteral", replace_literally),
    ("mustRegexReplaceAllLiteral", replace_literally),
    ("regexSplit", split),
    ("mustRegexSplit", split),
    ("regexQuoteMeta", |args| take(args).map(|[value]| quoted(&text(value)).into())),
];

fn compiled(pattern: &Value) -> Result<Regex, gtmpl_ng::FuncError> {
    go_regex::compile(&text(pattern))
        .map_err(|problem| gtmpl_ng::FuncError::Generic(problem.to_string()))
}

fn matches(args: &[Value]) -> Outcome {
    let [pattern, value] = take(args)?;
    Ok(compiled(pattern)?.is_match(&text(value)).into())
}

fn find(args: &[Value]) -> Outcome {
    let [pattern, value] = take(args)?;
    let value = text(value);
    Ok(compiled(pattern)?.find(&value).map_or("", |found| found.as_str()).into())
}

/// At most so many; a negative number means all.
fn find_all(args: &[Value]) -> Outcome {
    let [pattern, value, count] = take(args)?;
    let value = text(value);
    let most = usize::try_from(int(count)).unwrap_or(usize::MAX);
    let pattern = compiled(pattern)?;
    let found = pattern.find_iter(&value).take(most);
    Ok(found.map(|found| found.as_str().to_owned()).collect::<Vec<_>>().into())
}

fn replace_all(args: &[Value]) -> Outcome {
    let [pattern, value, new] = take(args)?;
    let (value, new) = (text(value), text(new));
    let pattern = compiled(pattern)?;
    // A reference stands for no more than the whole text.
    let each = new.len().saturating_add(value.len().saturating_mul(new.matches('$').count()));
    check_length(each.checked_mul(pattern.find_iter(&value).count() + 1))?;
    Ok(pattern.replace_all(&value, new.as_str()).into_owned().into())
}

fn replace_literally(args: &[Value]) -> Outcome {
    let [pattern, value, new] = take(args)?;
    let (value, new) = (text(value), text(new));
    let pattern = compiled(pattern)?;
    let grown = new.len().checked_mul(pattern.find_iter(&value).count());
    check_length(grown.and_then(|grown| grown.checked_add(value.len())))?;
    Ok(pattern.replace_all(&value, NoExpand(&new)).into_owned().into())
}

/// Go's `Regexp.Split`, which does not cut at an empty match in front of everything.
fn split(args: &[Value]) -> Outcome {
    let [pattern, value, count] = take(args)?;
    let value = text(value);
    let most = match int(count) {
        0 => return Ok(Vec::<String>::new().into()),
        count => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let empty = text(pattern).is_empty();
    let pattern = compiled(pattern)?;
    if value.is_empty() && !empty {
        return Ok(vec![String::new()].into());
    }
    let mut pieces: Vec<String> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for found in pattern.find_iter(&value) {
        if pieces.len() + 1 == most {
            break;
        }
        end = found.start();
        if found.end() != 0 {
            pieces.push(value.get(start..end).unwrap_or_default().to_owned());
        }
        start = found.end();
    }
    if end != value.len() {
        pieces.push(value.get(start..).unwrap_or_default().to_owned());
    }
    if pieces.len() > gtmpl_ng::limits::active().iterations.unwrap_or(usize::MAX) {
        return error("too many pieces");
    }
    Ok(pieces.into())
}

fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for character in value.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}
