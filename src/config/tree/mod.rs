//! The tree every kind of configuration is read into, before any type is known. Scalars keep
//! their text as written; what they mean is decided by the type that asks, as in Traefik.

mod access;
mod decode;
mod dotted;
mod flags;
mod json;
mod probe;
mod reader;
mod source;
mod toml;
mod yaml;

use std::ops::Range;
use std::sync::Arc;

pub use self::decode::{decode, decode_what_is_right};
pub use self::dotted::{from_environment, from_labels};
pub use self::flags::{FlagKind, from_flags};
pub use self::probe::flag_kind;
pub use self::source::{Format, Source, Span};
use crate::config::diagnostics::Diagnostic;
pub use crate::values::secret::is_secret_option as is_secret;

/// Collections nested deeper than this are refused, so that no recursion over a tree is deep.
pub(crate) const DEPTH_LIMIT: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is written.
    pub value: Value,
    /// Where it is written.
    pub span: Span,
}

/// What is written at one place.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A single word, number or text.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Names with their values, in the order of the source.
    Mapping(Vec<Entry>),
}

/// The text of a single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text, unescaped but not converted.
    pub text: Arc<str>,
    /// True when quotes or block style say that this is text and nothing else.
    pub quoted: bool,
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        Self::Scalar(scalar)
    }
}

/// One name of a mapping with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name as written.
    pub key: Arc<str>,
    /// Where the name stands.
    pub key_span: Span,
    /// What it is set to.
    pub value: Node,
}

/// Reads a file's text into a tree. An empty document is [`Value::Null`].
pub fn parse(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    match source.format {
        Format::Yaml => yaml::parse(source),
        Format::Json => json::parse(source),
        Format::Toml => toml::parse(source),
        Format::Flags | Format::Environment | Format::Labels => {
            let whole = Span::new(source, 0..0);
            Err(vec![Diagnostic::error("only YAML, TOML and JSON files can be read").at(&whole)])
        }
    }
}

impl Node {
    /// A mapping of these entries.
    pub fn mapping(entries: Vec<Entry>, span: Span) -> Self {
        Self { value: Value::Mapping(entries), span }
    }

    /// A plain scalar of this text.
    pub fn scalar(text: impl Into<Arc<str>>, span: Span) -> Self {
        Self { value: Value::Scalar(Scalar { text: text.into(), quoted: false }), span }
    }

    /// The names and values of a mapping; nothing for any other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; nothing for any other value.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// True for nothing at all: null, or a mapping or list without members.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Scalar(_) => false,
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
        }
    }

    /// The entry of this name; a name in the same case wins over one that differs in case.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let entries = self.entries();
        let exact = entries.iter().find(|entry| &*entry.key == key);
        exact.or_else(|| entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)))
    }

    /// The value of this name, compared without regard to case.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Keeps only the entries of a mapping that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        if let Value::Mapping(entries) = &mut self.value {
            entries.retain(|entry| keep(entry));
        }
    }

    /// The deepest node that exists along a path such as `loadBalancer.servers[0].url`. Names
    /// that contain dots are found too: at each step the longest name that fits is taken.
    pub fn at_path(&self, path: &str) -> &Self {
        let mut node = self;
        let mut rest = path;
        while let Some((next, remaining)) = node.step(rest) {
            node = next;
            rest = remaining;
        }
        node
    }

    /// One step along a path: the child its start names, and what is left of it.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(&'n Self, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some((index, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return match &self.value {
                Value::Sequence(items) => items.get(index.parse::<usize>().ok()?),
                _ => self.get(index),
            }
            .map(|node| (node, rest));
        }
        let fits = |entry: &&Entry| {
            let (length, bytes) = (entry.key.len(), path.as_bytes());
            length > 0
                && bytes.get(..length).is_some_and(|start| {
                    start.eq_ignore_ascii_case(entry.key.as_bytes())
                        && matches!(bytes.get(length), None | Some(b'.' | b'['))
                })
        };
        let entry = self.entries().iter().filter(fits).max_by_key(|entry| entry.key.len())?;
        Some((&entry.value, path.get(entry.key.len()..)?))
    }

    /// True when both say the same, wherever they stand. Reordered names count as a change.
    pub fn same_as(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Scalar(mine), Value::Scalar(theirs)) => mine == theirs,
            (Value::Sequence(mine), Value::Sequence(theirs)) => {
                mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a.same_as(b))
            }
            (Value::Mapping(mine), Value::Mapping(theirs)) => {
                let same = |(a, b): (&Entry, &Entry)| a.key == b.key && a.value.same_as(&b.value);
                mine.len() == theirs.len() && mine.iter().zip(theirs).all(same)
            }
            _ => false,
        }
    }

    /// The place of some bytes of a scalar's text, for errors inside a rule or a URL. Where the
    /// text was escaped or folded, offsets cannot be translated and the whole value is meant.
    pub fn span_within(&self, bytes: Range<usize>) -> Span {
        let raw = self.span.text();
        let Some(text) = self.text() else { return self.span.clone() };
        let skipped = if raw == text {
            0
        } else if raw.len() == text.len() + 2 && raw.get(1..=text.len()) == Some(text) {
            1
        } else {
            return self.span.clone();
        };
        let from = self.span.start + skipped;
        Span::new(&self.span.source, from + bytes.start..(from + bytes.end).min(self.span.end))
    }

    /// What kind of value this is, in words for a message.
    pub(crate) fn describe(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Node {
        parse(&Source::new("f.yml", text, Format::Yaml)).unwrap()
    }

    #[test]
    fn names_are_found_in_any_case_and_exact_case_first() {
        let node = yaml("Web: 1\nweb: 2\n");
        assert_eq!(node.get("web").unwrap().text(), Some("2"));
        assert_eq!(node.get("WEB").unwrap().text(), Some("1"));
        assert!(node.get("other").is_none());
    }

    #[test]
    fn a_path_leads_to_the_deepest_node_that_exists() {
        let node = yaml("loadBalancer:\n  servers:\n    - url: a\n    - url: b\nx.y:\n  z: 1\n");
        let at = |path: &str| node.at_path(path).span.line_column();
        assert_eq!(node.at_path("loadbalancer.servers[1].url").text(), Some("b"));
        assert_eq!(node.at_path("x.y.z").text(), Some("1"));
        assert_eq!(at("loadBalancer.servers[1].weight"), (4, 7));
        assert_eq!(at("loadBalancer.servers[7].url"), at("loadBalancer.servers"));
        assert_eq!(at("nothing.here"), node.span.line_column());
        assert_eq!(at(""), node.span.line_column());
        assert_eq!(at("..[["), node.span.line_column());
    }

    #[test]
    fn sameness_ignores_place_but_not_content() {
        let first = yaml("a: 1\nb: [x, {c: d}]\n");
        assert!(first.same_as(&yaml("\n\n# moved\na:   1\nb:\n  - x\n  - c: d\n")));
        assert!(!first.same_as(&yaml("a: 1\nb: [x, {c: e}]\n")));
        assert!(!first.same_as(&yaml("a: 1\nb: [x]\n")));
        assert!(!first.same_as(&yaml("a: 1\n")));
        assert!(!first.same_as(&yaml("a: '1'\nb: [x, {c: d}]\n")));
    }

    #[test]
    fn a_place_within_a_value_skips_the_quotes() {
        let node = yaml("a: Host(x)\nb: 'Host(y)'\nc: \"Ho\\x73t\"\n");
        assert_eq!(node.get("a").unwrap().span_within(5..6).text(), "x");
        assert_eq!(node.get("b").unwrap().span_within(5..6).text(), "y");
        assert_eq!(node.get("c").unwrap().span_within(2..3).text(), "\"Ho\\x73t\"");
    }

    #[test]
    fn only_files_are_parsed() {
        assert!(parse(&Source::new("flags", "--a", Format::Flags)).is_err());
    }
}
