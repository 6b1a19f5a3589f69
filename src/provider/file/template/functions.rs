//! Template functions on single values: text, numbers, defaults, encodings, environment. Names,
//! argument order and results are sprig's; `normalize` is Traefik's own. Writing to a string does
//! not fail, so those results are dropped.

use std::env;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gtmpl_ng::{Func, FuncError, NumberKind, Value, limits};
use sha2::{Digest, Sha256};

use crate::values::hex;

pub(super) type Outcome = Result<Value, FuncError>;

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("env", |args| take(args).map(|[name]| env::var(text(name)).unwrap_or_default().into())),
    ("expandenv", |args| take(args).map(|[value]| expand(&text(value)).into())),
    ("normalize", |args| take(args).map(|[value]| normalize(&text(value)).into())),
    ("default", |args| match args {
        [fallback] => Ok(fallback.clone()),
        [fallback, value] => Ok(if is_empty(value) { fallback } else { value }.clone()),
        _ => Err(count("default", 2)),
    }),
    ("empty", |args| take(args).map(|[value]| is_empty(value).into())),
    ("coalesce", |args| {
        Ok(args.iter().find(|value| !is_empty(value)).cloned().unwrap_or(Value::Nil))
    }),
    ("ternary", |args| {
        take(args).map(|[yes, no, choice]| if is_empty(choice) { no } else { yes }.clone())
    }),
    ("fail", |args| take(args).and_then(|[message]| error(text(message)))),
    ("toStrings", |args| {
        take(args).map(|[list]| match list {
            Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().into(),
            other => vec![text(other)].into(),
        })
    }),
    ("toString", |args| take(args).map(|[value]| text(value).into())),
    ("upper", |args| take(args).map(|[value]| text(value).to_uppercase().into())),
    ("lower", |args| take(args).map(|[value]| text(value).to_lowercase().into())),
    ("title", |args| take(args).map(|[value]| title(&text(value)).into())),
    ("trim", |args| take(args).map(|[value]| text(value).trim().into())),
    ("trimAll", |args| {
        take(args).map(|[set, value]| {
            let set = text(set);
            text(value).trim_matches(|character| set.contains(character)).into()
        })
    }),
    ("trimall", |args| {
        take(args).map(|[set, value]| {
            let set = text(set);
            text(value).trim_matches(|character| set.contains(character)).into()
        })
    }),
    ("trimSuffix", |args| {
        take(args).map(|[end, value]| {
            let value = text(value);
            value.strip_suffix(text(end).as_str()).unwrap_or(&value).into()
        })
    }),
    ("trimPrefix", |args| {
        take(args).map(|[start, value]| {
            let value = text(value);
            value.strip_prefix(text(start).as_str()).unwrap_or(&value).into()
        })
    }),
    ("nospace", |args| {
        take(args).map(|[value]| text(value).split_whitespace().collect::<String>().into())
    }),
    ("contains", |args| take(args).map(|[part, value]| text(value).contains(&text(part)).into())),
    ("hasPrefix", |args| {
        take(args).map(|[start, value]| text(value).starts_with(&text(start)).into())
    }),
    ("hasSuffix", |args| take(args).map(|[end, value]| text(value).ends_with(&text(end)).into())),
    ("replace", |args| take(args).and_then(|[old, new, value]| replace(old, new, value))),
    ("repeat", |args| take(args).and_then(|[times, value]| repeat(times, value))),
    ("substr", |args| take(args).map(|[from, to, value]| substring(from, to, &text(value)))),
    ("trunc", |args| take(args).map(|[length, value]| truncate(int(length), &text(value)))),
    ("quote", |args| Ok(each(args, |value| quote(&text(value))))),
    ("squote", |args| Ok(each(args, |value| format!("'{}'", text(value))))),
    ("cat", |args| Ok(each(args, text))),
    ("indent", |args| take(args).and_then(|[width, value]| indent("", width, value))),
    ("nindent", |args| take(args).and_then(|[width, value]| indent("\n", width, value))),
    ("int", |args| take(args).map(|[value]| int(value).into())),
    ("int64", |args| take(args).map(|[value]| int(value).into())),
    ("atoi", |args| take(args).map(|[value]| int(value).into())),
    ("add", |args| fold(args, Some(0), i64::checked_add)),
    ("add1", |args| take(args).and_then(|[value]| number(int(value).checked_add(1)))),
    ("mul", |args| fold(args, Some(1), i64::checked_mul)),
    ("sub", |args| take(args).and_then(|[a, b]| number(int(a).checked_sub(int(b))))),
    ("div", |args| take(args).and_then(|[a, b]| number(int(a).checked_div(int(b))))),
    ("mod", |args| take(args).and_then(|[a, b]| number(int(a).checked_rem(int(b))))),
    ("biggest", |args| fold(args, None, |a, b| Some(a.max(b)))),
    ("max", |args| fold(args, None, |a, b| Some(a.max(b)))),
    ("min", |args| fold(args, None, |a, b| Some(a.min(b)))),
    ("b64enc", |args| take(args).map(|[value]| STANDARD.encode(text(value)).into())),
    ("b64dec", |args| take(args).and_then(|[value]| decode(&text(value)))),
    ("sha256sum", |args| take(args).map(|[value]| hex(&Sha256::digest(text(value))).into())),
];

/// Exactly so many arguments.
pub(super) fn take<const N: usize>(args: &[Value]) -> Result<&[Value; N], FuncError> {
    args.try_into().map_err(|_| count("the function", N))
}

pub(super) fn count(function: &str, arguments: usize) -> FuncError {
    FuncError::ExactlyXArgs(function.to_owned(), arguments)
}

pub(super) fn error(message: impl Into<String>) -> Outcome {
    Err(FuncError::Generic(message.into()))
}

/// Refuses a text that the template may not make, before it is made.
pub(super) fn check_length(length: Option<usize>) -> Result<(), FuncError> {
    let limit = limits::active().function_output.unwrap_or(usize::MAX);
    if length.is_some_and(|length| length <= limit) {
        return Ok(());
    }
    error(format!("a text of more than {limit} bytes")).map(drop)
}

/// The text of a value (sprig `strval`).
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The whole number that a value is; what is none counts as 0 (sprig `toInt64`).
pub(super) fn int(value: &Value) -> i64 {
    match value {
        Value::Number(number) => match number.kind() {
            NumberKind::Signed(number) => number,
            NumberKind::Unsigned(number) => i64::try_from(number).unwrap_or(i64::MAX),
            #[expect(clippy::cast_possible_truncation, reason = "Go truncates, Rust saturates")]
            NumberKind::Float(number) => number as i64,
        },
        Value::Bool(flag) => i64::from(*flag),
        Value::String(text) => text.trim().parse().unwrap_or(0),
        _ => 0,
    }
}

/// What a template's `if` takes for false.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::NoValue | Value::Nil => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Object(map) | Value::Map(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Function(_) => false,
        Value::Number(number) => match number.kind() {
            NumberKind::Unsigned(number) => number == 0,
            NumberKind::Signed(number) => number == 0,
            NumberKind::Float(number) => number == 0.0,
        },
    }
}

fn number(number: Option<i64>) -> Outcome {
    number.map_or_else(|| error("the result is not a whole number of 64 bits"), |n| Ok(n.into()))
}

fn fold(args: &[Value], start: Option<i64>, step: fn(i64, i64) -> Option<i64>) -> Outcome {
    let mut numbers = args.iter().map(int);
    let Some(start) = start.or_else(|| numbers.next()) else {
        return Err(FuncError::AtLeastXArgs("the function".to_owned(), 1));
    };
    number(numbers.try_fold(start, step))
}

fn each(args: &[Value], write: impl Fn(&Value) -> String) -> Value {
    let there = args.iter().filter(|value| !matches!(value, Value::Nil | Value::NoValue));
    there.map(write).collect::<Vec<_>>().join(" ").into()
}

/// Traefik `provider.Normalize`: only letters and digits, the rest becomes `-`.
fn normalize(value: &str) -> String {
    let words = value.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

fn title(value: &str) -> String {
    let mut result = String::with_capacity(value.len());
    let mut inside = false;
    for character in value.chars() {
        if inside {
            result.push(character);
        } else {
            result.extend(character.to_uppercase());
        }
        // Go's `strings.Title`, to which an apostrophe separates.
        inside = character.is_alphanumeric()
            || character == '_'
            || !character.is_ascii() && !character.is_whitespace();
    }
    result
}

/// Go's `%q`.
fn quote(value: &str) -> String {
    let mut result = String::with_capacity(value.len() + 2);
    result.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => result.extend(['\\', character]),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            control if control.is_ascii_control() => {
                let _ = write!(result, "\\x{:02x}", u32::from(control));
            }
            control if control.is_control() => {
                let _ = write!(result, "\\u{:04x}", u32::from(control));
            }
            other => result.push(other),
        }
    }
    result.push('"');
    result
}

fn replace(old: &Value, new: &Value, value: &Value) -> Outcome {
    let (old, new, value) = (text(old), text(new), text(value));
    let grown = value.matches(old.as_str()).count().checked_mul(new.len());
    check_length(grown.and_then(|grown| grown.checked_add(value.len())))?;
    Ok(value.replace(&old, &new).into())
}

fn repeat(times: &Value, value: &Value) -> Outcome {
    let (times, value) = (usize::try_from(int(times)).unwrap_or(0), text(value));
    check_length(value.len().checked_mul(times))?;
    Ok(value.repeat(times).into())
}

fn indent(before: &str, width: &Value, value: &Value) -> Outcome {
    let (width, value) = (usize::try_from(int(width)).unwrap_or(0), text(value));
    let lines = value.matches('\n').count() + 1;
    check_length(lines.checked_mul(width).and_then(|grown| grown.checked_add(value.len())))?;
    let pad = " ".repeat(width);
    Ok(format!("{before}{pad}{}", value.replace('\n', &format!("\n{pad}"))).into())
}

/// The bytes from `from` to `to`, moved to whole characters; a negative bound is none.
fn substring(from: &Value, to: &Value, value: &str) -> Value {
    let bound = |bound: &Value, open: usize| {
        usize::try_from(int(bound)).map_or(open, |at| at.min(value.len()))
    };
    let from = value.floor_char_boundary(bound(from, 0));
    let to = value.floor_char_boundary(bound(to, value.len()));
    value.get(from..to).unwrap_or_default().into()
}

fn truncate(length: i64, value: &str) -> Value {
    let size = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX).min(value.len());
    let part = if length < 0 {
        value.get(value.ceil_char_boundary(value.len() - size)..)
    } else {
        value.get(..value.floor_char_boundary(size))
    };
    part.unwrap_or_default().into()
}

fn decode(value: &str) -> Outcome {
    let bytes = STANDARD.decode(value).map_err(|error| FuncError::Generic(error.to_string()))?;
    String::from_utf8(bytes)
        .map_or_else(|_| error("b64dec: the result is not UTF-8"), |text| Ok(text.into()))
}

/// Go's `os.ExpandEnv`: `$NAME` and `${NAME}`.
fn expand(value: &str) -> String {
    let mut result = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (name, remaining) = match after.strip_prefix('{').map(|name| name.split_once('}')) {
            Some(Some((name, remaining))) => (name, remaining),
            // An open brace without its end is dropped with the sign, as in Go.
            Some(None) => ("", after.get(1..).unwrap_or_default()),
            None => {
                let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !inside(c)).unwrap_or(after.len());
                if end == 0 {
                    result.push('$');
                }
                after.split_at(end)
            }
        };
        result.push_str(&env::var(name).unwrap_or_default());
        rest = remaining;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::super::lists;

    fn eval(expression: &str) -> String {
        let mut template = gtmpl_ng::Template::default();
        template.add_funcs(super::TABLE);
        template.add_funcs(lists::TABLE);
        template.parse(format!("{{{{ {expression} }}}}")).unwrap();
        template
            .render(&gtmpl_ng::Context::from(false))
            .unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn text_functions() {
        assert_eq!(eval(r#"normalize "a.b--c_ü/1""#), "a-b-c-ü-1");
        assert_eq!(
            eval(r#""shop.example.com" | replace "." "-" | trimSuffix "-com""#),
            "shop-example"
        );
        assert_eq!(eval(r#"trimPrefix "a" "ab" | title"#), "B");
        assert_eq!(eval(r#"title "two words it's""#), "Two Words It'S");
        assert_eq!(eval(r#"quote "a\"b\n" 1"#), r#""a\"b\n" "1""#);
        assert_eq!(eval(r#"squote "x" | cat "y""#), "y 'x'");
        assert_eq!(eval(r#"contains "b" "abc""#), "true");
        assert_eq!(eval(r#"and (hasPrefix "a" "abc") (hasSuffix "c" "abc")"#), "true");
        assert_eq!(eval(r#"nindent 2 "a\nb""#), "\n  a\n  b");
        assert_eq!(eval(r#"repeat 3 "ab""#), "ababab");
        assert_eq!(eval(r#"repeat -1 "ab""#), "");
        assert_eq!(eval(r#"substr 1 3 "abcdef""#), "bc");
        assert_eq!(eval(r#"substr 4 -1 "abcdef""#), "ef");
        assert_eq!(eval(r#"trunc 2 "abc""#), "ab");
        assert_eq!(eval(r#"trunc -2 "abc""#), "bc");
        assert_eq!(eval(r#"trimAll "$" "$5$""#), "5");
        assert_eq!(eval(r#"nospace " a b ""#), "ab");
    }

    #[test]
    fn numbers_and_choices() {
        assert_eq!(eval("add 1 2 3"), "6");
        assert_eq!(eval("sub 1 2 | mul 3 4"), "-12");
        assert_eq!(eval("div 7 2"), "3");
        assert_eq!(eval("mod 7 2"), "1");
        assert!(eval("div 1 0").starts_with("error"));
        assert!(eval("add 9223372036854775807 1").starts_with("error"));
        assert_eq!(eval("max 1 5 3"), "5");
        assert_eq!(eval("min 4 2"), "2");
        assert!(eval("max").starts_with("error"));
        assert_eq!(eval(r#"int "42" | add1"#), "43");
        assert_eq!(eval(r#"default "d" """#), "d");
        assert_eq!(eval(r#""v" | default "d""#), "v");
        assert_eq!(eval(r#"coalesce 0 "" "x""#), "x");
        assert_eq!(eval(r#"ternary "y" "n" true"#), "y");
        assert_eq!(eval("empty 0.0"), "true");
        assert!(eval("upper").starts_with("error"));
    }

    #[test]
    fn encodings() {
        assert_eq!(eval(r#"b64enc "user:pw""#), "dXNlcjpwdw==");
        assert_eq!(eval(r#"b64dec "dXNlcjpwdw==""#), "user:pw");
        assert!(eval(r#"b64dec "?""#).starts_with("error"));
        assert_eq!(
            eval(r#"sha256sum "abc""#),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn environment() {
        let name = env!("CARGO_PKG_NAME");
        assert_eq!(eval(r#"env "CARGO_PKG_NAME""#), name);
        assert_eq!(eval(r#"env "NO_SUCH_VARIABLE_HERE" | default "d""#), "d");
        assert_eq!(
            eval(r#"expandenv "<$CARGO_PKG_NAME-${CARGO_PKG_NAME}$>""#),
            format!("<{name}-{name}$>")
        );
        assert_eq!(eval(r#"expandenv "a${b""#), "ab");
    }
}
