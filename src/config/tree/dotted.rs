//! Dotted paths with values (`http.routers.shop.tls.domains[0].main=…`) become a tree. Flags,
//! environment variables, labels and the keys of stores all come through here; names that differ
//! only in case are one name, spelt as it came first.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{DEPTH_LIMIT, Entry, Format, Node, Source, Span, Value};
use crate::config::diagnostics::Diagnostic;

/// Reads environment variables that begin with `prefix` (`TRAEFIK_`) and are upper case:
/// `TRAEFIK_ENTRYPOINTS_WEB_ADDRESS` is `entrypoints.web.address`. A list index is a part of its
/// own (`…_DOMAINS_0_MAIN`), which is told from a name only when the tree is decoded.
pub fn from_environment(
    variables: &[(String, String)],
    prefix: &str,
) -> Result<Node, Vec<Diagnostic>> {
    let upper = |name: &str| !name.bytes().any(|byte| byte.is_ascii_lowercase());
    let chosen = || variables.iter().filter(|(name, _)| name.starts_with(prefix) && upper(name));
    let source = Source::new("environment", lines(chosen()), Format::Environment);
    let mut dotted = Dotted::new(&source);
    let mut offset = 0;
    for (name, value) in chosen() {
        let path = offset + prefix.len()..offset + name.len();
        let value_span = path.end + 1..path.end + 1 + value.len();
        let parts = name.get(prefix.len()..).unwrap_or_default().split('_');
        let mut start = path.start;
        let mut steps = Vec::new();
        for part in parts {
            steps.push((Step::Name(part.to_ascii_lowercase()), start..start + part.len()));
            start += part.len() + 1;
        }
        let node = Node::scalar(value.as_str(), Span::new(&source, value_span));
        dotted.insert(steps, path, node, false);
        offset += line_length(name, value);
    }
    dotted.finish()
}

/// Reads `path=value` pairs below `root` (`traefik`), whose parts are joined by `separator`: a
/// dot in labels, a slash in key-value stores. Pairs outside of `root` are not ours and ignored.
pub fn from_labels(
    pairs: &[(String, String)],
    root: &str,
    separator: char,
    name: &str,
) -> Result<Node, Vec<Diagnostic>> {
    let below = |key: &str| {
        let start = key.get(..root.len())?;
        let rest = key.get(root.len()..)?.strip_prefix(separator)?;
        start.eq_ignore_ascii_case(root).then_some(key.len() - rest.len())
    };
    let chosen = || pairs.iter().filter_map(|pair| Some((below(&pair.0)?, pair)));
    let source = Source::new(name, lines(chosen().map(|(_, pair)| pair)), Format::Labels);
    let mut dotted = Dotted::new(&source);
    let mut offset = 0;
    for (skipped, (key, value)) in chosen() {
        let path = offset + skipped..offset + key.len();
        let value_span = path.end + 1..path.end + 1 + value.len();
        let node = Node::scalar(value.as_str(), Span::new(&source, value_span));
        dotted.insert_path(path, separator, node, false);
        offset += line_length(key, value);
    }
    dotted.finish()
}

/// The text of a source made of `name=value` lines.
fn lines<'p>(pairs: impl Iterator<Item = &'p (String, String)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    text
}

fn line_length(name: &str, value: &str) -> usize {
    name.len() + value.len() + 2
}

/// Splits a value at its commas, as lists are written outside of files.
pub(super) fn split_commas(node: &Node) -> Vec<Node> {
    let text = node.text().unwrap_or_default();
    let mut pieces = Vec::new();
    let mut start = 0;
    for piece in text.split(',') {
        let trimmed = piece.trim();
        if !trimmed.is_empty() {
            let from = start + (piece.len() - piece.trim_start().len());
            let span = node.span_within(from..from + trimmed.len());
            pieces.push(Node::scalar(trimmed, span));
        }
        start += piece.len() + 1;
    }
    pieces
}

/// One step of a path.
enum Step {
    Name(String),
    Index(usize),
}

/// A tree that grows path by path.
pub(super) struct Dotted<'a> {
    source: &'a Arc<Source>,
    root: Branch,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Default)]
struct Branch {
    value: Option<Node>,
    names: Vec<(Arc<str>, Range<usize>, Branch)>,
    by_lower_case: HashMap<String, usize>,
    items: BTreeMap<usize, Branch>,
    place: Range<usize>,
}

impl<'a> Dotted<'a> {
    pub(super) fn new(source: &'a Arc<Source>) -> Self {
        Self { source, root: Branch::default(), diagnostics: Vec::new() }
    }

    pub(super) fn error(&mut self, message: impl Into<String>, place: Range<usize>) {
        let span = Span::new(self.source, place);
        self.diagnostics.push(Diagnostic::error(message).at(&span));
    }

    /// Sets what a path in the source text names. A value given again replaces the earlier one,
    /// or with `join` makes a list of both.
    pub(super) fn insert_path(
        &mut self,
        path: Range<usize>,
        separator: char,
        value: Node,
        join: bool,
    ) {
        let text = self.source.text.get(path.clone()).unwrap_or_default();
        match steps(text, path.start, separator) {
            Ok(steps) => self.insert(steps, path, value, join),
            Err((message, place)) => self.error(message, place),
        }
    }

    fn insert(
        &mut self,
        steps: Vec<(Step, Range<usize>)>,
        path: Range<usize>,
        value: Node,
        join: bool,
    ) {
        if steps.len() > DEPTH_LIMIT {
            return self.error(format!("a path has at most {DEPTH_LIMIT} parts"), path);
        }
        let mut branch = &mut self.root;
        for (step, place) in steps {
            branch = match step {
                Step::Name(name) if name.is_empty() => {
                    return self.error("a part of this path is empty", path);
                }
                Step::Name(name) => match branch.named(&name, place) {
                    Some(branch) => branch,
                    None => return,
                },
                Step::Index(index) => branch.items.entry(index).or_default(),
            };
            branch.place = path.clone();
        }
        branch.value = Some(match branch.value.take() {
            Some(earlier) if join => joined(earlier, &value),
            _ => value,
        });
    }

    /// The tree, or everything that was wrong with it.
    pub(super) fn finish(mut self) -> Result<Node, Vec<Diagnostic>> {
        let root = std::mem::take(&mut self.root);
        let node = self.node(root, "");
        if self.diagnostics.is_empty() { Ok(node) } else { Err(self.diagnostics) }
    }

    fn node(&mut self, branch: Branch, name: &str) -> Node {
        let Branch { value, names, items, place, .. } = branch;
        if !names.is_empty() && !items.is_empty() {
            self.error(format!("`{name}` is given both as a list and by names"), place.clone());
        }
        if names.is_empty() && items.is_empty() {
            let null = || Node { value: Value::Null, span: Span::new(self.source, 0..0) };
            return value.unwrap_or_else(null);
        }
        if let Some(value) = value {
            let text = value.text().unwrap_or_default();
            // `--api=true --api.insecure` says one thing twice; `=false` wins over its options.
            if !text.is_empty() && !text.eq_ignore_ascii_case("true") {
                if !text.eq_ignore_ascii_case("false") {
                    let message = format!("`{name}` has both a value and options of its own");
                    self.diagnostics.push(Diagnostic::error(message).at(&value.span));
                }
                return value;
            }
        }
        let span = Span::new(self.source, place);
        if items.is_empty() {
            return Node::mapping(self.entries(names), span);
        }
        let mut list = Vec::with_capacity(items.len());
        for (expected, (index, item)) in items.into_iter().enumerate() {
            if index != expected {
                let message = format!("`{name}[{expected}]` is missing: indexes have no gaps");
                self.error(message, item.place.clone());
                break;
            }
            list.push(self.node(item, &format!("{name}[{index}]")));
        }
        Node { value: Value::Sequence(list), span }
    }

    fn entries(&mut self, names: Vec<(Arc<str>, Range<usize>, Branch)>) -> Vec<Entry> {
        let entry = |(key, place, branch): (Arc<str>, Range<usize>, Branch)| Entry {
            key_span: Span::new(self.source, place),
            value: self.node(branch, &key),
            key,
        };
        names.into_iter().map(entry).collect()
    }
}

impl Branch {
    fn named(&mut self, name: &str, place: Range<usize>) -> Option<&mut Self> {
        let names = &mut self.names;
        let at = *self.by_lower_case.entry(name.to_lowercase()).or_insert_with(|| {
            names.push((Arc::from(name), place, Self::default()));
            names.len() - 1
        });
        names.get_mut(at).map(|(_, _, branch)| branch)
    }
}

fn joined(earlier: Node, value: &Node) -> Node {
    let mut items = match earlier.value {
        Value::Sequence(items) => items,
        _ => split_commas(&earlier),
    };
    items.extend(split_commas(value));
    Node { value: Value::Sequence(items), span: value.span.clone() }
}

/// Splits a path such as `a.b[0][1].c` into steps with their places, starting at `offset`.
#[expect(clippy::type_complexity, reason = "a list of steps with places, or one message with its")]
fn steps(
    path: &str,
    offset: usize,
    separator: char,
) -> Result<Vec<(Step, Range<usize>)>, (String, Range<usize>)> {
    let mut steps = Vec::new();
    let mut start = offset;
    for part in path.split(separator) {
        let place = start..start + part.len();
        start = place.end + separator.len_utf8();
        let (name, indexes) = match part.find('[') {
            Some(at) => part.split_at(at),
            None => (part, ""),
        };
        if !name.is_empty() || indexes.is_empty() {
            steps.push((Step::Name(name.to_owned()), place.start..place.start + name.len()));
        }
        let mut rest = indexes;
        while !rest.is_empty() {
            let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((Ok(index), after)) = index.map(|(index, after)| (index.parse(), after))
            else {
                return Err((format!("`{part}` has a list index that is not a number"), place));
            };
            steps.push((Step::Index(index), place.clone()));
            rest = after;
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn labels(list: &[(&str, &str)]) -> Result<Node, Vec<Diagnostic>> {
        from_labels(&pairs(list), "traefik", '.', "labels of shop")
    }

    #[test]
    fn labels_become_a_tree_with_places() {
        let node = labels(&[
            ("maintainer", "me"),
            ("traefik.http.routers.Shop.rule", "Host(`a.b`)"),
            ("Traefik.HTTP.Routers.shop.tls.domains[1].main", "d1"),
            ("traefik.http.routers.shop.tls.domains[0].main", "d0"),
            ("traefik.http.routers.shop.tls.domains[0].sans[0]", "s0"),
            ("traefiker.x", "no"),
            ("traefik", "no"),
        ])
        .unwrap();
        assert_eq!(node.entries().len(), 1);
        let routers = node.at_path("http.routers");
        assert_eq!(routers.entries().len(), 1);
        assert_eq!(&*routers.entries()[0].key, "Shop");
        let shop = routers.get("shop").unwrap();
        assert_eq!(shop.get("rule").unwrap().text(), Some("Host(`a.b`)"));
        assert_eq!(shop.get("rule").unwrap().span.text(), "Host(`a.b`)");
        assert_eq!(shop.entry("rule").unwrap().key_span.to_string(), "labels of shop:1:27");
        assert_eq!(shop.at_path("tls.domains[1].main").text(), Some("d1"));
        assert_eq!(shop.at_path("tls.domains[0].sans[0]").text(), Some("s0"));
    }

    #[test]
    fn keys_of_a_store_use_slashes() {
        let list = pairs(&[("traefik/http/routers/a.b/rule", "x"), ("traefik/x/0", "y")]);
        let node = from_labels(&list, "traefik", '/', "consul").unwrap();
        assert_eq!(
            node.at_path("http.routers").get("a.b").unwrap().get("rule").unwrap().text(),
            Some("x")
        );
        assert_eq!(node.at_path("x[0]").text(), Some("y"));
    }

    #[test]
    fn gaps_and_bad_paths_are_errors_all_at_once() {
        let errors = labels(&[
            ("traefik.a[1]", "x"),
            ("traefik.b[x]", "x"),
            ("traefik.c[0", "x"),
            ("traefik.d..e", "x"),
            ("traefik.f[0]", "x"),
            ("traefik.f.g", "x"),
            ("traefik.h", "x"),
            ("traefik.h.i", "x"),
        ])
        .unwrap_err();
        let text: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        for part in [
            "`a[0]` is missing",
            "`b[x]` has a list index",
            "`c[0` has a list index",
            "is empty",
            "`f` is given both",
            "`h` has both",
        ] {
            assert!(text.iter().any(|message| message.contains(part)), "{part}: {text:?}");
        }
        assert_eq!(errors.len(), 6);
    }

    #[test]
    fn an_index_of_any_size_costs_nothing() {
        assert!(labels(&[("traefik.a[18446744073709551615]", "x")]).is_err());
        assert!(labels(&[("traefik.a[99999999999999999999999]", "x")]).is_err());
        let deep = format!("traefik{}", ".a".repeat(100));
        assert!(labels(&[(&deep, "x")]).unwrap_err()[0].message.contains("at most 64"));
    }

    #[test]
    fn a_section_may_be_switched_and_configured() {
        let node = labels(&[("traefik.a", "true"), ("traefik.a.b", "c")]).unwrap();
        assert_eq!(node.at_path("a.b").text(), Some("c"));
        let node = labels(&[("traefik.a", "false"), ("traefik.a.b", "c")]).unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("false"));
    }

    #[test]
    fn environment_names_are_upper_case_with_underscores() {
        let node = from_environment(
            &pairs(&[
                ("PATH", "/bin"),
                ("TRAEFIK_ENTRYPOINTS_WEB_ADDRESS", ":80"),
                ("traefik_entrypoints_web_address", ":81"),
                ("TRAEFIK_ENTRYPOINTS_WEB_asDefault", "true"),
                ("TRAEFIK_DOMAINS_0_MAIN", "d"),
            ]),
            "TRAEFIK_",
        )
        .unwrap();
        assert_eq!(node.at_path("entrypoints.web.address").text(), Some(":80"));
        assert_eq!(node.at_path("entrypoints.web").entries().len(), 1);
        let main = node.at_path("domains[0]").entry("main").unwrap();
        assert_eq!(main.value.text(), Some("d"));
        assert_eq!(main.value.span.to_string(), "environment:2:24");
        assert_eq!(main.key_span.text(), "MAIN");
        assert!(from_environment(&pairs(&[("TRAEFIK_A__B", "x")]), "TRAEFIK_").is_err());
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(labels(&[]).unwrap().is_empty());
        assert!(from_environment(&[], "TRAEFIK_").unwrap().is_empty());
    }

    #[test]
    fn commas_split_with_places() {
        let node = labels(&[("traefik.a", "x, yy ,,z")]).unwrap();
        let pieces = split_commas(node.get("a").unwrap());
        let spans: Vec<_> = pieces.iter().map(|piece| piece.span.text().to_owned()).collect();
        assert_eq!(spans, ["x", "yy", "z"]);
    }
}
