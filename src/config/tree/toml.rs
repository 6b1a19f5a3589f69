//! TOML files. The parser recovers after an error, so a file with three mistakes gets three
//! diagnostics; numbers and dates become text as they are written.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::{DEPTH_LIMIT, Entry, Node, Scalar, Source, Span, Value};
use crate::config::diagnostics::Diagnostic;

/// Reads one TOML document.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut diagnostics: Vec<_> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or_default();
            let message = error.message().trim_end();
            Diagnostic::error(format!("not valid TOML: {message}")).at(&Span::new(source, span))
        })
        .collect();
    let mut reader = Reader { source, diagnostics: &mut diagnostics };
    let value = match reader.table(document.get_ref(), 0) {
        Value::Mapping(entries) if entries.is_empty() => Value::Null,
        value => value,
    };
    if diagnostics.is_empty() {
        Ok(Node { value, span: Span::new(source, 0..source.text.len()) })
    } else {
        Err(diagnostics)
    }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Value {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: Arc::from(key.get_ref().as_ref()),
                key_span: Span::new(self.source, key.span()),
                value: self.node(value, depth + 1),
            })
            .collect();
        // The parser's map is sorted by name; diagnostics read better in the file's order.
        entries.sort_by_key(|entry| entry.key_span.start);
        Value::Mapping(entries)
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = Span::new(self.source, value.span());
        if depth > DEPTH_LIMIT {
            let message = format!("values are nested more than {DEPTH_LIMIT} deep");
            self.diagnostics.push(Diagnostic::error(message).at(&span));
            return Node { value: Value::Null, span };
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Scalar { text: Arc::from(text.as_ref()), quoted: true }.into(),
            DeValue::Integer(number) => plain(&decimal(number)),
            DeValue::Float(number) => plain(number.as_str()),
            DeValue::Boolean(value) => plain(if *value { "true" } else { "false" }),
            DeValue::Datetime(_) => plain(span.text().trim()),
            DeValue::Array(items) => {
                Value::Sequence(items.iter().map(|item| self.node(item, depth + 1)).collect())
            }
            DeValue::Table(table) => self.table(table, depth),
        };
        Node { value, span }
    }
}

fn plain(text: &str) -> Value {
    Scalar { text: Arc::from(text), quoted: false }.into()
}

/// Hexadecimal, octal and binary numbers are TOML's spelling of the same number, and the types
/// that read them know decimal only.
fn decimal(number: &DeInteger<'_>) -> String {
    match number.radix() {
        10 => number.as_str().to_owned(),
        radix => i128::from_str_radix(number.as_str(), radix)
            .map_or_else(|_| number.to_string(), |value| value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, parse};
    use super::*;

    fn toml(text: &str) -> Result<Node, Vec<Diagnostic>> {
        parse(&Source::new("f.toml", text, Format::Toml))
    }

    #[test]
    fn tables_dotted_and_inline_become_one_tree() {
        let node = toml(
            "[http.routers.x]\r\nrule = 'Host(`a`)'\r\ntls.options = \"o\"\r\n\
             service = { name = \"s\", n = 1_000 }\r\n[[http.list]]\r\na = 1\r\n[[http.list]]\r\na = 2\r\n",
        )
        .unwrap();
        let router = node.at_path("http.routers.x");
        assert_eq!(router.get("rule").unwrap().text(), Some("Host(`a`)"));
        assert_eq!(router.get("rule").unwrap().span.line_column(), (2, 8));
        assert_eq!(router.at_path("tls.options").text(), Some("o"));
        assert_eq!(router.at_path("service.n").text(), Some("1000"));
        assert_eq!(node.at_path("http.list[1].a").text(), Some("2"));
        let keys: Vec<_> = router.entries().iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, ["rule", "tls", "service"]);
    }

    #[test]
    fn numbers_and_dates_are_text() {
        let node =
            toml("a = 0x1F\nb = 1.50\nc = 1979-05-27T07:32:00Z\nd = true\ne = '7'\nf = -3\n")
                .unwrap();
        let text = |key: &str| node.get(key).unwrap().text().unwrap();
        assert_eq!(text("a"), "31");
        assert_eq!(text("b"), "1.50");
        assert_eq!(text("c"), "1979-05-27T07:32:00Z");
        assert_eq!(text("d"), "true");
        assert_eq!(text("e"), "7");
        assert_eq!(text("f"), "-3");
    }

    #[test]
    fn several_errors_come_at_once() {
        let errors = toml("a = 'x\nb = \nc = 1\nc = 2\n").unwrap_err();
        assert!(errors.len() >= 3, "{errors:?}");
        let lines: Vec<_> =
            errors.iter().map(|error| error.span.as_ref().unwrap().line_column().0).collect();
        assert!(lines.contains(&1) && lines.contains(&2) && lines.contains(&4), "{errors:?}");
    }

    #[test]
    fn nothing_is_null_and_a_mark_at_the_start_is_fine() {
        assert!(matches!(toml("").unwrap().value, Value::Null));
        assert!(matches!(toml("# only this\n").unwrap().value, Value::Null));
        assert_eq!(toml("\u{feff}a = 1").unwrap().get("a").unwrap().text(), Some("1"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!("a = {}{}", "[".repeat(70), "]".repeat(70));
        assert!(toml(&deep).unwrap_err()[0].message.contains("nested"));
        let deeper = format!("a = {}{}", "[".repeat(9000), "]".repeat(9000));
        assert!(toml(&deeper).is_err());
    }
}
