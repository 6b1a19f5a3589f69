//! `formats`: a text as JSON, YAML and TOML, each for itself. What two readers read is one thing: those of configuration
//! and of the admin API with `serde_json`, and what is read and written again as JSON with itself, as YAML too.

use std::fmt::Write as _;

use doorward::admin::json;
use doorward::config::tree::{Format, Node, Source, Value, parse};

/// Reads a text in all formats.
pub fn run(data: &[u8]) {
    let strict = json::parse(data);
    let loose: Result<serde_json::Value, _> = serde_json::from_slice(data);
    if let Ok(strict) = &strict {
        assert_eq!(Some(strict), loose.as_ref().ok(), "two readers of JSON");
    }
    let Ok(text) = str::from_utf8(data) else { return };
    for format in [Format::Json, Format::Yaml, Format::Toml] {
        let Ok(tree) = parse(&Source::new("fuzzed", text, format)) else { continue };
        if format == Format::Json {
            assert!(strict.is_ok() || loose.is_err(), "a name stands twice, and nobody minds");
            if let Ok(value) = &strict {
                assert!(is_json(&tree, value), "{text:?} is {value}");
            }
        }
        let mut written = String::new();
        write(&tree, &mut written);
        for format in [Format::Json, Format::Yaml] {
            let again = parse(&Source::new("written", written.as_str(), format));
            let Ok(again) = again else { panic!("{format:?} {written:?}: {again:?}") };
            assert!(is_same(&tree, &again), "{written:?} is not {text:?} in {format:?}");
        }
    }
}

/// Whether the tree holds what `serde_json` read.
fn is_json(node: &Node, value: &serde_json::Value) -> bool {
    match (&node.value, value) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Scalar(scalar), serde_json::Value::String(text)) => *scalar.text == **text,
        (Value::Scalar(scalar), serde_json::Value::Bool(value)) => {
            scalar.text.parse() == Ok(*value)
        }
        (Value::Scalar(scalar), serde_json::Value::Number(_)) => scalar.text.parse::<f64>().is_ok(),
        (Value::Sequence(items), serde_json::Value::Array(values)) => {
            items.len() == values.len() && items.iter().zip(values).all(|(a, b)| is_json(a, b))
        }
        (Value::Mapping(entries), serde_json::Value::Object(values)) => {
            entries.len() == values.len()
                && entries
                    .iter()
                    .all(|entry| values.get(&*entry.key).is_some_and(|b| is_json(&entry.value, b)))
        }
        _ => false,
    }
}

/// Writes JSON whose scalars are all texts.
fn write(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Scalar(scalar) => quote(&scalar.text, out),
        Value::Sequence(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Mapping(entries) => {
            out.push('{');
            for (at, entry) in entries.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                quote(&entry.key, out);
                out.push_str(": ");
                write(&entry.value, out);
            }
            out.push('}');
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            ' ' | '!' | '#'..='[' | ']'..='~' => out.push(letter),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

fn is_same(first: &Node, second: &Node) -> bool {
    match (&first.value, &second.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(first), Value::Scalar(second)) => first.text == second.text,
        (Value::Sequence(first), Value::Sequence(second)) => {
            first.len() == second.len() && first.iter().zip(second).all(|(a, b)| is_same(a, b))
        }
        (Value::Mapping(first), Value::Mapping(second)) => {
            first.len() == second.len()
                && first
                    .iter()
                    .zip(second)
                    .all(|(a, b)| a.key == b.key && is_same(&a.value, &b.value))
        }
        _ => false,
    }
}
