//! Template functions for other notations: JSON, base 32, check sums, paths, and what kind a value is of.

use gtmpl_ng::{Func, FuncError, NumberKind, Value};
use sha1::{Digest as _, Sha1};

use super::functions::{Outcome, error, take, text};
use crate::values::hex;

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("toJson", |args| take(args).and_then(|[value]| to_json(value, true, false))),
    ("mustToJson", |args| take(args).and_then(|[value]| to_json(value, true, false))),
    ("toPrettyJson", |args| take(args).and_then(|[value]| to_json(value, true, true))),
    ("mustToPrettyJson", |args| take(args).and_then(|[value]| to_json(value, true, true))),
    ("toRawJson", |args| take(args).and_then(|[value]| to_json(value, false, false))),
    ("mustToRawJson", |args| take(args).and_then(|[value]| to_json(value, false, false))),
    ("fromJson", from_json),
    ("mustFromJson", from_json),
    ("b32enc", |args| take(args).map(|[value]| base_32(text(value).as_bytes()).into())),
    ("b32dec", |args| take(args).and_then(|[value]| from_base_32(&text(value)))),
    ("sha1sum", |args| take(args).map(|[value]| hex(&Sha1::digest(text(value))).into())),
    ("adler32sum", |args| take(args).map(|[value]| adler_32(text(value).as_bytes()).into())),
    ("base", |args| take(args).map(|[path]| base(&text(path)).into())),
    ("osBase", |args| take(args).map(|[path]| base(&text(path)).into())),
    ("dir", |args| take(args).map(|[path]| directory(&text(path)).into())),
    ("osDir", |args| take(args).map(|[path]| directory(&text(path)).into())),
    ("clean", |args| take(args).map(|[path]| clean(&text(path)).into())),
    ("osClean", |args| take(args).map(|[path]| clean(&text(path)).into())),
    ("ext", |args| take(args).map(|[path]| extension(&text(path)).into())),
    ("osExt", |args| take(args).map(|[path]| extension(&text(path)).into())),
    ("isAbs", |args| take(args).map(|[path]| text(path).starts_with('/').into())),
    ("osIsAbs", |args| take(args).map(|[path]| text(path).starts_with('/').into())),
    ("kindOf", |args| take(args).map(|[value]| kind(value).into())),
    ("kindIs", |args| take(args).map(|[wanted, value]| (text(wanted) == kind(value)).into())),
    ("deepEqual", |args| take(args).map(|[one, other]| (one == other).into())),
    // Values are never changed in place, so one is its own copy.
    ("deepCopy", |args| take(args).map(|[value]| value.clone())),
    ("mustDeepCopy", |args| take(args).map(|[value]| value.clone())),
];

fn to_json(value: &Value, for_html: bool, pretty: bool) -> Outcome {
    let tree = tree(value)?;
    let text =
        if pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) };
    let mut text = text.map_err(|problem| FuncError::Generic(problem.to_string()))?;
    if for_html {
        // As Go does, so that the text may stand in a page.
        text = text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    }
    Ok(text.into())
}

fn tree(value: &Value) -> Result<serde_json::Value, FuncError> {
    use serde_json::Value as Json;
    Ok(match value {
        Value::Nil | Value::NoValue => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(items) => Json::Array(items.iter().map(tree).collect::<Result<_, _>>()?),
        Value::Object(map) | Value::Map(map) => {
            let entry = |(key, value): (&String, &Value)| Ok((key.clone(), tree(value)?));
            Json::Object(map.iter().map(entry).collect::<Result<_, FuncError>>()?)
        }
        Value::Number(number) => match number.kind() {
            NumberKind::Signed(number) => number.into(),
            NumberKind::Unsigned(number) => number.into(),
            #[expect(clippy::cast_possible_truncation, reason = "only where nothing is lost")]
            NumberKind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                (number as i64).into()
            }
            NumberKind::Float(number) => number.into(),
        },
        Value::Function(_) => return Err(FuncError::Generic("a function is no JSON".to_owned())),
    })
}

/// Numbers are those with a fraction, as everything in Go's JSON is.
fn from_json(args: &[Value]) -> Outcome {
    fn value(json: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Nil,
            Json::Bool(flag) => flag.into(),
            Json::Number(number) => number.as_f64().unwrap_or_default().into(),
            Json::String(text) => text.into(),
            Json::Array(items) => Value::Array(items.into_iter().map(value).collect()),
            Json::Object(map) => {
                Value::Map(map.into_iter().map(|(key, one)| (key, value(one))).collect())
            }
        }
    }
    let [text_] = take(args)?;
    match serde_json::from_str(&text(text_)) {
        Ok(json) => Ok(value(json)),
        Err(problem) => error(format!("fromJson: {problem}")),
    }
}

const BASE_32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base_32(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let bits =
            (0..5).fold(0_u64, |bits, at| bits << 8 | u64::from(*group.get(at).unwrap_or(&0)));
        let digits = (group.len() * 8).div_ceil(5);
        for digit in 0..8 {
            let code = usize::try_from(bits >> (35 - digit * 5) & 31).unwrap_or_default();
            let letter = BASE_32.get(code).copied().map_or('=', char::from);
            encoded.push(if digit < digits { letter } else { '=' });
        }
    }
    encoded
}

fn from_base_32(value: &str) -> Outcome {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in value.trim_end_matches('=').bytes() {
        let Some(code) = BASE_32.iter().position(|one| *one == letter) else {
            return error("b32dec: the text is not in base 32");
        };
        bits = bits << 5 | u32::try_from(code).unwrap_or_default();
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).unwrap_or_default());
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if value.len().is_multiple_of(8) => Ok(text.into()),
        Ok(_) => error("b32dec: the text is not in base 32"),
        Err(_) => error("b32dec: the result is not UTF-8"),
    }
}

fn adler_32(bytes: &[u8]) -> String {
    let step = |(a, b): (u32, u32), byte: &u8| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    };
    let (a, b) = bytes.iter().fold((1, 0), step);
    (u64::from(b) << 16 | u64::from(a)).to_string()
}

/// Go's `path.Base`.
fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) }
}

/// Go's `path.Dir`.
fn directory(path: &str) -> String {
    clean(path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or_default())
}

/// Go's `path.Clean`.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Go's `path.Ext`.
fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rfind('.').and_then(|dot| name.get(dot..)).unwrap_or_default()
}

/// The kind of Go value that this one would be.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil | Value::NoValue => "invalid",
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) | Value::Map(_) => "map",
        Value::Function(_) => "func",
        Value::Number(number) => match number.kind() {
            NumberKind::Float(_) => "float64",
            NumberKind::Signed(_) | NumberKind::Unsigned(_) => "int",
        },
    }
}
