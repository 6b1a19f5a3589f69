//! YAML files, from the parser's events to the tree. What YAML leaves to its reader is done
//! here: merge keys, repeated names, one document, and bounds on depth and on expanded aliases.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as EventSpan, Tag};

use super::{DEPTH_LIMIT, Entry, Node, Scalar, Source, Span, Value};
use crate::config::diagnostics::Diagnostic;

/// Nodes that anchors and aliases may copy in one document; `&a [*b, *b]` chains grow as 2^n.
const COPY_BUDGET: usize = 1_000_000;

/// YAML allows 1,024 characters for a name that is not marked by `?`, JSON has no such limit.
const JSON_KEY_LIMIT: usize = 1 << 16;

/// Reads one YAML document.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    Builder::new(source, false).build(granit_parser::options! {
        flow_nesting_limit: DEPTH_LIMIT,
        block_nesting_limit: DEPTH_LIMIT,
    })
}

/// Reads text that is known to be JSON.
pub(super) fn parse_json(source: &Arc<Source>) -> Result<Node, Vec<Diagnostic>> {
    Builder::new(source, true).build(granit_parser::options! {
        flow_nesting_limit: DEPTH_LIMIT,
        block_nesting_limit: DEPTH_LIMIT,
        simple_key_max_lookahead: JSON_KEY_LIMIT,
    })
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    json: bool,
    open: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    copied: usize,
    documents: usize,
    root: Option<Node>,
    diagnostics: Vec<Diagnostic>,
}

/// A collection whose end has not come yet.
struct Frame {
    start: usize,
    anchor: usize,
    members: Members,
}

enum Members {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, merges: Vec<Entry>, key: Option<Key> },
}

struct Key {
    text: Arc<str>,
    span: Span,
    merge: bool,
}

struct Anchor {
    node: Node,
    size: usize,
    depth: usize,
}

/// Reading stops: the diagnostic is already pushed.
struct Stop;

impl<'a> Builder<'a> {
    fn new(source: &'a Arc<Source>, json: bool) -> Self {
        Self {
            source,
            json,
            open: Vec::new(),
            anchors: HashMap::new(),
            copied: 0,
            documents: 0,
            root: None,
            diagnostics: Vec::new(),
        }
    }

    fn build(mut self, mut options: granit_parser::Options) -> Result<Node, Vec<Diagnostic>> {
        options.set_emit_comments(false);
        let text = Arc::clone(&self.source.text);
        for event in Parser::new_from_str_with_options(&text, options) {
            let taken = match event {
                Ok((event, span)) => self.take(event, &span),
                Err(error) => self.scan_error(&error),
            };
            if taken.is_err() {
                break;
            }
        }
        if !self.diagnostics.is_empty() {
            return Err(self.diagnostics);
        }
        let nothing = || Node { value: Value::Null, span: Span::new(self.source, 0..0) };
        Ok(self.root.unwrap_or_else(nothing))
    }

    fn take(&mut self, event: Event<'_>, at: &EventSpan) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let span = self.span(at);
                let node = Self::scalar(&text, style, tag.as_deref(), span);
                self.anchor(anchor, &node)?;
                self.place(node, style == ScalarStyle::Plain)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(at, anchor, Members::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, merges) = (Vec::new(), Vec::new());
                self.start(at, anchor, Members::Mapping { entries, merges, key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(id) => self.alias(id, at),
            _ => Ok(()),
        }
    }

    fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        let plain = style == ScalarStyle::Plain && !is_text;
        let absent = span.text().is_empty();
        let value = match text {
            "~" | "null" | "Null" | "NULL" | "" if plain => Value::Null,
            "~" if absent && style == ScalarStyle::Plain => {
                Scalar { text: "".into(), quoted: true }.into()
            }
            _ => Scalar { text: Arc::from(text), quoted: !plain }.into(),
        };
        Node { value, span }
    }

    fn start(&mut self, at: &EventSpan, anchor: usize, members: Members) -> Result<(), Stop> {
        let span = self.span(at);
        if self.open.len() >= DEPTH_LIMIT {
            return self.too_deep(&span);
        }
        self.open.push(Frame { start: span.start, anchor, members });
        Ok(())
    }

    fn end(&mut self, at: &EventSpan) -> Result<(), Stop> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let span = Span::new(self.source, frame.start..self.span(at).end);
        let value = match frame.members {
            Members::Sequence(items) => Value::Sequence(items),
            Members::Mapping { mut entries, merges, .. } => {
                self.refuse_repeated(&entries);
                self.merge(&mut entries, merges);
                Value::Mapping(entries)
            }
        };
        let node = Node { value, span };
        self.anchor(frame.anchor, &node)?;
        self.place(node, false)
    }

    /// Puts a finished node where it belongs; `plain` says that it may be the merge key.
    fn place(&mut self, node: Node, plain: bool) -> Result<(), Stop> {
        let json = self.json;
        match self.open.last_mut().map(|frame| &mut frame.members) {
            Some(Members::Sequence(items)) => items.push(node),
            Some(Members::Mapping { entries, merges, key }) => match key.take() {
                None => {
                    let Some(text) = key_text(&node) else {
                        return self.fail(
                            "a name must be a single word, not a list or mapping",
                            &node.span,
                        );
                    };
                    let merge = plain && !json && &*text == "<<";
                    *key = Some(Key { text, span: node.span, merge });
                }
                Some(Key { text, span, merge }) => {
                    let entry = Entry { key: text, key_span: span, value: node };
                    if merge { merges.push(entry) } else { entries.push(entry) }
                }
            },
            None if self.root.is_none() => self.root = Some(node),
            // A last `---` with nothing behind it is common in generated files.
            None if matches!(node.value, Value::Null) => {}
            None => {
                let message = "a second document begins here; one file holds one document";
                return self.fail(message, &node.span);
            }
        }
        Ok(())
    }

    fn refuse_repeated(&mut self, entries: &[Entry]) {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        let key = |index: &usize| entries.get(*index).map(|entry| &entry.key);
        order.sort_by_key(key);
        for pair in order.windows(2) {
            if let [first, second] = pair
                && let (Some(first), Some(second)) = (entries.get(*first), entries.get(*second))
                && first.key == second.key
            {
                let (line, _) = first.key_span.line_column();
                let message = format!("`{}` is already set on line {line}", second.key);
                self.diagnostics.push(Diagnostic::error(message).at(&second.key_span));
            }
        }
    }

    /// `<<`: names that the mapping itself does not set; the first of several mappings wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, merges: Vec<Entry>) {
        let mut merges = merges.into_iter();
        let Some(merge) = merges.next() else { return };
        if let Some(second) = merges.next() {
            let message = "`<<` stands here twice; give it a list of mappings instead";
            self.diagnostics.push(Diagnostic::error(message).at(&second.key_span));
        }
        let parts = match merge.value.value {
            Value::Sequence(items) => items,
            _ => vec![merge.value],
        };
        let mut names: std::collections::HashSet<Arc<str>> =
            entries.iter().map(|entry| Arc::clone(&entry.key)).collect();
        for part in parts {
            let Value::Mapping(others) = part.value else {
                let message = "`<<` wants a mapping or a list of mappings";
                self.diagnostics.push(Diagnostic::error(message).at(&merge.key_span));
                continue;
            };
            entries.extend(others.into_iter().filter(|entry| names.insert(Arc::clone(&entry.key))));
        }
    }

    fn anchor(&mut self, id: usize, node: &Node) -> Result<(), Stop> {
        if id == 0 {
            return Ok(());
        }
        let (size, depth) = measure(node);
        self.spend(size, &node.span)?;
        self.anchors.insert(id, Anchor { node: node.clone(), size, depth });
        Ok(())
    }

    fn alias(&mut self, id: usize, at: &EventSpan) -> Result<(), Stop> {
        let span = self.span(at);
        let Some(anchor) = self.anchors.get(&id) else {
            return self.fail("an anchor cannot contain itself", &span);
        };
        let (size, depth) = (anchor.size, anchor.depth);
        if self.open.len() + depth > DEPTH_LIMIT {
            return self.too_deep(&span);
        }
        let node = anchor.node.clone();
        self.spend(size, &span)?;
        self.place(node, false)
    }

    fn spend(&mut self, size: usize, span: &Span) -> Result<(), Stop> {
        self.copied += size;
        if self.copied > COPY_BUDGET {
            let message = format!("aliases expand to more than {COPY_BUDGET} values");
            return self.fail(&message, span);
        }
        Ok(())
    }

    fn too_deep(&mut self, span: &Span) -> Result<(), Stop> {
        self.fail(&format!("values are nested more than {DEPTH_LIMIT} deep"), span)
    }

    fn fail(&mut self, message: &str, span: &Span) -> Result<(), Stop> {
        self.diagnostics.push(Diagnostic::error(message).at(span));
        Err(Stop)
    }

    fn scan_error(&mut self, error: &ScanError) -> Result<(), Stop> {
        let start = error.marker().byte_offset().unwrap_or_default();
        let span = Span::new(self.source, start..start + 1);
        if matches!(error.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
            return self.too_deep(&span);
        }
        let language = if self.json { "JSON" } else { "YAML" };
        self.fail(&format!("not valid {language}: {}", error.info()), &span)
    }

    fn span(&self, at: &EventSpan) -> Span {
        Span::new(self.source, at.byte_range().unwrap_or_default())
    }
}

/// A name as text: every scalar is taken as it is written, `true` and `80` too.
fn key_text(node: &Node) -> Option<Arc<str>> {
    match &node.value {
        Value::Null => Some(Arc::from(node.span.text())),
        Value::Scalar(scalar) => Some(Arc::clone(&scalar.text)),
        Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// How many nodes a tree has, and how many collections are nested in it.
fn measure(node: &Node) -> (usize, usize) {
    let add = |(size, depth): (usize, usize), child: &Node| {
        let (more, deeper) = measure(child);
        (size + more, depth.max(deeper))
    };
    match &node.value {
        Value::Null | Value::Scalar(_) => (1, 0),
        Value::Sequence(items) => {
            let (size, depth) = items.iter().fold((1, 0), add);
            (size, depth + 1)
        }
        Value::Mapping(entries) => {
            let (size, depth) = entries.iter().map(|entry| &entry.value).fold((1, 0), add);
            (size, depth + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::{Format, parse};
    use super::*;

    fn yaml(text: &str) -> Result<Node, Vec<Diagnostic>> {
        parse(&Source::new("f.yml", text, Format::Yaml))
    }

    fn first_error(text: &str) -> String {
        yaml(text).unwrap_err()[0].one_line()
    }

    #[test]
    fn scalars_keep_their_text() {
        let node = yaml(
            "a: yes\nb: 0777\nc: 'it''s'\nd: \"tab\\t\"\ne: |\n  one\n  two\nf: >-\n  one\n  two\ng: 1.50\n",
        )
        .unwrap();
        let text = |key: &str| node.get(key).unwrap().text().unwrap();
        assert_eq!(text("a"), "yes");
        assert_eq!(text("b"), "0777");
        assert_eq!(text("c"), "it's");
        assert_eq!(text("d"), "tab\t");
        assert_eq!(text("e"), "one\ntwo\n");
        assert_eq!(text("f"), "one two");
        assert_eq!(text("g"), "1.50");
    }

    #[test]
    fn nothing_has_four_spellings_and_quotes_make_text() {
        let node = yaml("a:\nb: ~\nc: null\nd: NULL\ne: 'null'\nf: ''\ng: !!str null\nh: !!str\n")
            .unwrap();
        for key in ["a", "b", "c", "d"] {
            assert!(matches!(node.get(key).unwrap().value, Value::Null), "{key}");
        }
        assert_eq!(node.get("e").unwrap().text(), Some("null"));
        assert_eq!(node.get("f").unwrap().text(), Some(""));
        assert_eq!(node.get("g").unwrap().text(), Some("null"));
        assert_eq!(node.get("h").unwrap().text(), Some(""));
    }

    #[test]
    fn places_are_those_of_the_source() {
        let node = yaml("http:\r\n  routers:\r\n    é:\r\n      rule: \"x\"\r\n").unwrap();
        let router = node.at_path("http.routers.é");
        let rule = router.entry("rule").unwrap();
        assert_eq!(rule.key_span.line_column(), (4, 7));
        assert_eq!(rule.value.span.line_column(), (4, 13));
        assert_eq!(rule.value.span.text(), "\"x\"");
        assert_eq!(rule.value.text(), Some("x"));
    }

    #[test]
    fn windows_files_lose_their_carriage_returns() {
        let node = yaml("\u{feff}a: x\r\nb: |\r\n  one\r\n  two\r\n").unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("x"));
        assert_eq!(node.get("b").unwrap().text(), Some("one\ntwo\n"));
    }

    #[test]
    fn names_are_text_whatever_they_look_like() {
        let node = yaml("true: a\n80: b\n~: c\n1.0: d\n").unwrap();
        let keys: Vec<_> = node.entries().iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, ["true", "80", "~", "1.0"]);
        assert!(first_error("? [a, b]\n: c\n").contains("must be a single word"));
    }

    #[test]
    fn repeated_names_are_all_reported() {
        let errors = yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3\na: 4\n").unwrap_err();
        let lines: Vec<_> = errors.iter().map(Diagnostic::one_line).collect();
        assert_eq!(
            lines,
            [
                "f.yml:4:3: error: `c` is already set on line 3",
                "f.yml:5:1: error: `a` is already set on line 1",
                "f.yml:6:1: error: `a` is already set on line 5",
            ]
        );
    }

    #[test]
    fn merge_keys_fill_what_is_not_set() {
        let node = yaml(
            "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 9\nw:\n  <<: *y\nq: {'<<': 1}\n",
        )
        .unwrap();
        let z = node.get("z").unwrap();
        let text = |key: &str| z.get(key).unwrap().text().unwrap();
        assert_eq!((text("a"), text("b"), text("c")), ("9", "2", "4"));
        assert_eq!(node.at_path("w.c").text(), Some("4"));
        assert!(node.get("q").unwrap().get("<<").is_some());
        assert!(first_error("a:\n  <<: 1\n").contains("wants a mapping"));
        assert!(first_error("x: &x {a: 1}\nb:\n  <<: *x\n  <<: *x\n").contains("twice"));
    }

    #[test]
    fn aliases_copy_and_keep_the_place_of_the_original() {
        let node = yaml("a: &a\n  - x\nb: *a\n").unwrap();
        assert_eq!(node.at_path("b[0]").text(), Some("x"));
        assert_eq!(node.at_path("b[0]").span.line_column(), (2, 5));
        assert!(first_error("a: *nope\n").starts_with("f.yml:1:4"));
    }

    #[test]
    fn aliases_have_bounds() {
        assert!(first_error("a: &x [*x]\n").contains("cannot contain itself"));
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..30 {
            writeln!(bomb, "a{level}: &a{level} [*a{0}, *a{0}, *a{0}]", level - 1).unwrap();
        }
        assert!(first_error(&bomb).contains("expand to more than"));
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for level in 1..80 {
            writeln!(deep, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
        }
        assert!(first_error(&deep).contains("nested more than 64"));
    }

    #[test]
    fn depth_has_a_bound() {
        let flow = format!("{}{}", "[".repeat(80), "]".repeat(80));
        assert!(first_error(&flow).contains("nested more than 64"));
        let block: String =
            (0..80).flat_map(|depth| [" ".repeat(depth), "a:\n".to_owned()]).collect();
        assert!(first_error(&block).contains("nested more than 64"));
    }

    #[test]
    fn one_document_only() {
        assert!(matches!(yaml("").unwrap().value, Value::Null));
        assert!(matches!(yaml("# nothing\n---\n").unwrap().value, Value::Null));
        assert!(yaml("---\na: 1\n---\n").unwrap().get("a").is_some());
        let error = first_error("a: 1\n---\nb: 2\n");
        assert!(error.starts_with("f.yml:3:1: error: a second document"), "{error}");
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let error = first_error("a: 1\nb: [1, 2\nc: 3\n");
        assert!(error.starts_with("f.yml:") && error.contains("not valid YAML"), "{error}");
    }

    #[test]
    fn ten_thousand_routers_keep_their_places() {
        let mut text = "http:\n  routers:\n".to_owned();
        for index in 0..10_000 {
            writeln!(
                text,
                "    router-{index}:\n      rule: Host(`t{index}.example.com`)\n      service: s{index}\n      \
                 entryPoints: [web, websecure]\n      middlewares:\n        - a\n        - b"
            )
            .unwrap();
        }
        let node = yaml(&text).unwrap();
        assert_eq!(node.at_path("http.routers").entries().len(), 10_000);
        let last = node.at_path("http.routers").get("router-9999").unwrap();
        assert_eq!(last.span.line_column().0, 70_002 - 5);
    }
}
