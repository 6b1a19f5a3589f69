//! JSON files. Strict JSON first, because the YAML parser that then builds the tree with
//! positions would also take what is not JSON.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::{Node, Source, Span, yaml};
use crate::config::diagnostics::Diagnostic;

/// Reads one JSON document.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    if source.text.trim().is_empty() {
        return Ok(Node { value: super::Value::Null, span: Span::new(source, 0..0) });
    }
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&source.text) {
        let start = offset(&source.text, error.line(), error.column());
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        let span = Span::new(source, start..start + 1);
        return Err(vec![Diagnostic::error(format!("not valid JSON: {message}")).at(&span)]);
    }
    yaml::parse_json(source)
}

/// The byte offset of serde_json's line and column, which count bytes from 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Value, parse};
    use super::*;

    fn json(text: &str) -> Result<Node, Vec<Diagnostic>> {
        parse(&Source::new("f.json", text, Format::Json))
    }

    #[test]
    fn values_keep_text_and_place() {
        let text =
            "{\n\t\"a\": 1.50,\n\t\"b\":[\"x\\u00e9\\ud83d\\ude00\\/\", true, null],\"c\":{}\n}";
        let node = json(text).unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("1.50"));
        assert_eq!(node.get("a").unwrap().span.line_column(), (2, 7));
        let items = node.get("b").unwrap().items();
        assert_eq!(items[0].text(), Some("xé😀/"));
        assert_eq!(items[1].text(), Some("true"));
        assert!(matches!(items[2].value, Value::Null));
        assert!(node.get("c").unwrap().is_empty());
    }

    #[test]
    fn what_is_only_yaml_is_refused_with_its_place() {
        let errors = json("{\n  \"a\": 1,\n  b: 2\n}").unwrap_err();
        assert_eq!(errors[0].one_line(), "f.json:3:3: error: not valid JSON: key must be a string");
        assert!(json("{\"a\": 1,}").is_err());
        assert!(json("a: 1").is_err());
        assert!(json("{\"a\": 1} x").is_err());
    }

    #[test]
    fn names_are_never_merge_keys_and_never_repeated() {
        let node = json("{\"<<\": {\"a\": 1}, \"null\": \"null\"}").unwrap();
        assert!(node.get("<<").is_some());
        assert_eq!(node.get("null").unwrap().text(), Some("null"));
        assert!(json("{\"a\": 1, \"a\": 2}").is_err());
    }

    #[test]
    fn long_names_and_compact_text_are_read() {
        let name = "k".repeat(5000);
        let node = json(&format!("{{\"{name}\":{{\"a\":[1,2,{{\"b\":\"c\"}}]}}}}")).unwrap();
        assert_eq!(node.at_path(&format!("{name}.a[2].b")).text(), Some("c"));
    }

    #[test]
    fn an_empty_file_is_null_and_deep_nesting_is_refused() {
        assert!(matches!(json(" \r\n").unwrap().value, Value::Null));
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(json(&deep).unwrap_err()[0].message.contains("nested"));
    }
}
