//! Template functions that break, shorten and join words, with sprig's names, argument order and results, on characters
//! where sprig counts bytes.

use gtmpl_ng::{Func, FuncError, Value};

use super::functions::{Outcome, check_length, error, int, take, text};

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("wrap", |args| {
        take(args).and_then(|[width, value]| wrapped(int(width), "\n", false, &text(value)))
    }),
    ("wrapWith", |args| {
        take(args).and_then(|[width, end, value]| {
            let end = text(end);
            let end = if end.is_empty() { "\n" } else { &end };
            wrapped(int(width), end, true, &text(value))
        })
    }),
    ("abbrevboth", |args| {
        take(args).map(|[left, right, value]| shortened(int(left), int(right), &text(value)).into())
    }),
    ("camelcase", |args| take(args).map(|[value]| camel_case(&text(value)).into())),
    ("mustSlice", slice),
];

/// Lines of at most `width` characters, broken at spaces; a longer word is broken too where
/// `breaks_words` says so.
fn wrapped(width: i64, end: &str, breaks_words: bool, value: &str) -> Outcome {
    let width = usize::try_from(width).unwrap_or(0).max(1);
    // No line is broken more often than it has characters.
    check_length(
        end.len().checked_mul(value.len()).and_then(|grown| grown.checked_add(value.len())),
    )?;
    let mut result = String::with_capacity(value.len());
    let mut rest = value;
    while rest.chars().nth(width).is_some() {
        if let Some(after) = rest.strip_prefix(' ') {
            rest = after;
            continue;
        }
        let at = |count: usize| rest.char_indices().nth(count).map_or(rest.len(), |(at, _)| at);
        let (full, beyond) = (at(width), at(width + 1));
        let space = rest.get(..beyond).and_then(|line| line.rfind(' '));
        let space = match space {
            None if breaks_words => {
                let (line, after) = rest.split_at(full);
                result.extend([line, end]);
                rest = after;
                continue;
            }
            None => rest.get(full..).and_then(|after| after.find(' ')).map(|at| full + at),
            space => space,
        };
        let Some((line, after)) = space.and_then(|at| Some((rest.get(..at)?, rest.get(at + 1..)?)))
        else {
            break;
        };
        result.extend([line, end]);
        rest = after;
    }
    result.push_str(rest);
    Ok(result.into())
}

/// At most `width` characters, from about `offset` on, with dots where something is missing.
fn shortened(offset: i64, width: i64, value: &str) -> String {
    let length = value.chars().count();
    let Ok(most) = usize::try_from(width) else { return value.to_owned() };
    if most < 4 || offset > 0 && most < 7 || length <= most {
        return value.to_owned();
    }
    let part = |from: usize, count: usize| value.chars().skip(from).take(count).collect::<String>();
    let shown = most - 3;
    let offset = usize::try_from(offset).unwrap_or(0).min(length - shown);
    if offset <= 4 {
        return part(0, shown) + "...";
    }
    if offset + shown < length {
        // Dots at both ends.
        return format!("...{}...", part(offset, shown - 3));
    }
    format!("...{}", part(length - shown, shown))
}

fn is_connector(character: char) -> bool {
    matches!(character, '-' | '_') || character.is_whitespace()
}

/// Words joined by connectors as one, each with a capital. Connectors at both ends stay, and so do all but one of
/// several.
fn camel_case(value: &str) -> String {
    let word = value.trim_start_matches(is_connector);
    let mut result = value.get(..value.len() - word.len()).unwrap_or_default().to_owned();
    if word.is_empty() {
        // Where there is nothing else, sprig doubles the last one.
        result.extend(value.chars().next_back());
    }
    let mut characters = word.chars().peekable();
    let mut begins = true;
    while let Some(character) = characters.next() {
        if is_connector(character) {
            // The last one before a word is dropped.
            if characters.peek().copied().is_none_or(is_connector) {
                result.push(character);
            }
            begins = true;
        } else if begins {
            result.extend(character.to_uppercase());
            begins = false;
        } else {
            result.extend(character.to_lowercase());
        }
    }
    result
}

/// Of a list, the items from one position up to another.
fn slice(args: &[Value]) -> Outcome {
    let Some((Value::Array(list), bounds)) = args.split_first() else {
        return error("list should be type of slice or array");
    };
    if list.is_empty() {
        return Ok(Value::Nil);
    }
    let bound =
        |at: usize, or: usize| bounds.get(at).map_or(Ok(or), |bound| usize::try_from(int(bound)));
    let out = || FuncError::Generic(format!("the list has {} items", list.len()));
    let (from, to) = (bound(0, 0).map_err(|_| out())?, bound(1, list.len()).map_err(|_| out())?);
    list.get(from..to).map(|items| items.to_vec().into()).ok_or_else(out)
}
